// Package fincodeurl says what a URL of FinCode means, for fincode call and the proxy.
package fincodeurl

import (
	"net/url"
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"
)

// HoldsTokens reports whether FinCode's answers at a decoded path may hold tokens
// (FINCODE.md, Calls). Servers compare paths in different ways, so all spellings count:
// upper case, letters such as "ſ", "ţ" and "ｓ", and characters that nobody sees, such as
// the soft hyphen.
func HoldsTokens(path string) bool {
	path = strings.Map(func(r rune) rune {
		if r > unicode.MaxASCII {
			return -1
		}
		return unicode.ToLower(r)
	}, norm.NFKD.String(strings.ToUpper(path)))
	return strings.Contains(path, "securitymanagement")
}

// SameOrigin compares scheme, host and port (RFC 6454).
func SameOrigin(a, b *url.URL) bool {
	return strings.EqualFold(a.Scheme, b.Scheme) && strings.EqualFold(a.Hostname(), b.Hostname()) && portOf(a) == portOf(b)
}

func portOf(u *url.URL) string {
	if port := u.Port(); port != "" {
		return port
	}
	return map[string]string{"http": "80", "https": "443"}[strings.ToLower(u.Scheme)]
}
