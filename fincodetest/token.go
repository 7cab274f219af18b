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

// signingKey is made once a process: 2048 bits take a noticeable part of a second.
var signingKey = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic("fincodetest: cannot make an RSA key: " + err.Error())
	}
	return key
})

// A family is one session: all tokens that descend from one login. The FinCode's mutex guards it.
type family struct {
	id       int
	user     *user
	access   *token // the latest
	issued   int    // refresh tokens
	inFlight int    // refreshes
	revoked  bool
}

// A token is an access or a refresh token. The FinCode's mutex guards what changes.
type token struct {
	family  *family
	claims  map[string]any
	expires time.Time // zero: never

	revoked bool // of an access token

	serial    int // of a refresh token: the first of its family is 1
	used      bool
	presented int
	reuses    int
}

// RevokeAccessTokens revokes all access tokens issued so far. Refresh tokens stay valid.
func (f *FinCode) RevokeAccessTokens() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, t := range f.access {
		t.revoked = true
	}
}

// RevokeAccessToken revokes one access token. Its session's refresh token stays valid.
func (f *FinCode) RevokeAccessToken(token string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if t := f.access[token]; t != nil {
		t.revoked = true
	}
}

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

func (f *FinCode) issueRefresh(fam *family) string {
	raw, t := f.newToken(fam, f.cfg.RefreshLifetime)
	f.mu.Lock()
	defer f.mu.Unlock()
	fam.issued++
	t.serial = fam.issued
	f.refresh[raw] = t
	return raw
}

// newToken makes a token that no map knows yet. A lifetime of 0 is without end. It runs outside the lock: signing takes long.
func (f *FinCode) newToken(fam *family, lifetime time.Duration) (string, *token) {
	issued := f.now()
	t := &token{family: fam, claims: newClaims(fam.user, issued, lifetime)}
	if lifetime != 0 {
		t.expires = issued.Add(lifetime)
	}
	return f.encode(t.claims), t
}

func (t *token) expired(now time.Time) bool { return !t.expires.IsZero() && !now.Before(t.expires) }

// newClaims returns the claims that FinCode's access tokens have. A lifetime of 0 has no exp.
func newClaims(u *user, issued time.Time, lifetime time.Duration) map[string]any {
	// Whole seconds as FinCode's are, unless exp - iat would then not be the lifetime.
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

// numericDate is RFC 7519's: seconds, here down to a millisecond.
func numericDate(t time.Time) json.Number {
	return json.Number(strconv.FormatFloat(float64(t.UnixMilli())/1000, 'f', -1, 64))
}

// encode returns a JWT of the claims, or random text if tokens are opaque.
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
