package fincodeauth

import (
	"encoding/base64"
	"strings"
	"time"
)

// jwtClaims are the registered claims that say how long a token lives (RFC
// 7519, 4.1), in seconds since 1970; 0: absent.
type jwtClaims struct{ Expiry, IssuedAt float64 }

// claimsOf reads the claims of a JWT without verifying it. FinCode verifies its
// tokens; this package only needs to know when to refresh. A token that is not a
// JWT has no claims.
func claimsOf(token string) jwtClaims {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return jwtClaims{}
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(parts[1], "="))
	if err != nil {
		return jwtClaims{}
	}
	claims := object(payload)
	expiry, _ := claims["exp"].(float64)
	issuedAt, _ := claims["iat"].(float64)
	return jwtClaims{Expiry: expiry, IssuedAt: issuedAt}
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
func (c jwtClaims) expiry() time.Time {
	return time.UnixMilli(int64(min(c.Expiry, 1e11) * 1000))
}
