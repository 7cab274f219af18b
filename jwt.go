package fincodeauth

import (
	"encoding/base64"
	"strconv"
	"strings"
	"time"

	"github.com/fincodeauth/fincodeauth/internal/envelope"
)

// jwtClaims are the registered claims that say how long a token lives (RFC
// 7519, 4.1), in seconds since 1970; 0: absent.
type jwtClaims struct{ Expiry, IssuedAt float64 }

// claimsOf reads the claims of a JWT without verifying it. FinCode verifies its
// tokens; this package only needs to know when to refresh. A token that is not a
// JWT has no claims.
func claimsOf(token string) jwtClaims { return registered(payloadOf(token)) }

func registered(payload map[string]any) jwtClaims {
	expiry, _ := payload["exp"].(float64)
	issuedAt, _ := payload["iat"].(float64)
	return jwtClaims{Expiry: expiry, IssuedAt: issuedAt}
}

// payloadOf returns the payload of a JWT; nil: token is none.
func payloadOf(token string) map[string]any {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return nil
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(parts[1], "="))
	if err != nil {
		return nil
	}
	return envelope.Object(payload)
}

// Claims are what FinCode wrote into an access token (FINCODE.md, Tokens). They are read
// without verification, so they are for people and for logs: do not decide by them what a
// user may do. A claim that is missing is the zero value.
type Claims struct {
	UserID string    // the claim user-id
	Roles  []string  // the claim roles
	Issued time.Time // when the token was issued, by FinCode's clock
	Expiry time.Time // when it expires, by FinCode's clock
}

// newClaims reads the claims of a JWT. A token that is not a JWT has none.
func newClaims(token string) Claims {
	payload := payloadOf(token)
	c := Claims{UserID: envelope.Text(payload, "user-id"), Roles: texts(payload["roles"])}
	if id, ok := payload["user-id"].(float64); ok {
		c.UserID = strconv.FormatFloat(id, 'f', -1, 64)
	}
	r := registered(payload)
	if r.IssuedAt > 0 {
		c.Issued = unixTime(r.IssuedAt)
	}
	if r.Expiry > 0 {
		c.Expiry = unixTime(r.Expiry)
	}
	return c
}

// lifetime returns exp - iat, or 0 if one of them is absent or they make no sense.
func (c jwtClaims) lifetime() time.Duration {
	if c.Expiry <= 0 || c.IssuedAt <= 0 || c.Expiry <= c.IssuedAt {
		return 0
	}
	return seconds(c.Expiry - c.IssuedAt).Round(time.Millisecond)
}

// expiry returns exp, but no time after the year 5138, because JSON has no form for
// times after the year 9999.
func (c jwtClaims) expiry() time.Time { return unixTime(c.Expiry) }

func unixTime(n float64) time.Time { return time.UnixMilli(int64(min(n, 1e11) * 1000)) }
