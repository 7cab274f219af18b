package fincodetest

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"strconv"
	"sync"
	"time"
)

// signingKey returns the RSA key of this process. It is made at the first call and
// then kept, because a key of 2048 bits takes a noticeable part of a second.
var signingKey = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic("fincodetest: cannot make an RSA key: " + err.Error())
	}
	return key
})

// A family is one session: all tokens that descend from one login. FinCode.mu
// guards it. id and user do not change.
type family struct {
	id       int
	user     *user
	access   *token // the latest access token
	issued   int    // how many refresh tokens were issued
	inFlight int    // how many refreshes are in flight
	revoked  bool
}

// A token is an access token or a refresh token. family, claims and expires do not
// change. FinCode.mu guards the rest.
type token struct {
	family  *family
	claims  map[string]any
	expires time.Time // zero: never

	// Of an access token.
	revoked bool

	// Of a refresh token.
	serial    int // 1 for the first of its family, and so on
	used      bool
	presented int // refresh calls with it
	reuses    int // those of them after it was used
}

// RevokeAccessTokens revokes all access tokens issued so far. Refresh tokens stay
// valid.
func (f *FinCode) RevokeAccessTokens() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, t := range f.access {
		t.revoked = true
	}
}

// RevokeAccessToken revokes one access token. The refresh token of its session
// stays valid. If FinCode does not know the token, nothing happens.
func (f *FinCode) RevokeAccessToken(token string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if t := f.access[token]; t != nil {
		t.revoked = true
	}
}

// issueAccess issues the family's next access token.
func (f *FinCode) issueAccess(fam *family) string {
	raw, t := f.newToken(fam, f.cfg.AccessLifetime)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.cfg.RevokeOnRotation && fam.access != nil {
		fam.access.revoked = true
	}
	fam.access = t
	f.access[raw] = t
	return raw
}

// issueRefresh issues the family's next refresh token.
func (f *FinCode) issueRefresh(fam *family) string {
	raw, t := f.newToken(fam, f.cfg.RefreshLifetime)
	f.mu.Lock()
	defer f.mu.Unlock()
	fam.issued++
	t.serial = fam.issued
	f.refresh[raw] = t
	return raw
}

// newToken makes a token that is in no map yet. A lifetime of 0 means no end. mu is
// not held, because signing takes long.
func (f *FinCode) newToken(fam *family, lifetime time.Duration) (string, *token) {
	issued := f.now()
	t := &token{family: fam, claims: newClaims(fam.user, issued, lifetime)}
	if lifetime != 0 {
		t.expires = issued.Add(lifetime)
	}
	return f.encode(t.claims), t
}

// expired reports whether the token has expired. now is by FinCode's clock.
func (t *token) expired(now time.Time) bool { return !t.expires.IsZero() && !now.Before(t.expires) }

// newClaims returns the claims that FinCode's access tokens have. If lifetime is 0,
// there is no exp.
func newClaims(u *user, issued time.Time, lifetime time.Duration) map[string]any {
	// FinCode's dates are in whole seconds. These are too, unless exp - iat would
	// then differ from the lifetime.
	unit := time.Second
	if lifetime%time.Second != 0 {
		unit = time.Millisecond
	}
	iat := issued.Truncate(unit)
	claims := map[string]any{
		"roles":      []string{"CUSTOMER"},
		"user-id":    u.id,
		"iss":        "fincodetest",
		"iat":        numericDate(iat),
		"tenancy-id": "remitjunction",
		"client-id":  "fincode",
		"jti":        rand.Text(),
	}
	if lifetime != 0 {
		claims["exp"] = numericDate(iat.Add(lifetime))
	}
	return claims
}

// numericDate returns t as a NumericDate of RFC 7519: in seconds, here with
// milliseconds.
func numericDate(t time.Time) json.Number {
	return json.Number(strconv.FormatFloat(float64(t.UnixMilli())/1000, 'f', -1, 64))
}

// encode returns a JWT with the claims. If tokens are opaque, it returns random
// text.
func (f *FinCode) encode(claims map[string]any) string {
	if f.cfg.OpaqueTokens {
		return rand.Text()
	}
	b64 := base64.RawURLEncoding
	unsigned := b64.EncodeToString([]byte(`{"alg":"RS256","typ":"JWT"}`)) + "." + b64.EncodeToString(mustJSON(claims))
	digest := sha256.Sum256([]byte(unsigned))
	signature, err := rsa.SignPKCS1v15(nil, signingKey(), crypto.SHA256, digest[:])
	if err != nil {
		panic("fincodetest: cannot sign: " + err.Error())
	}
	return unsigned + "." + b64.EncodeToString(signature)
}
