package fincodeurl

import (
	"net/url"
	"testing"
)

func TestPathsOfTokensAreKnownInEachSpelling(t *testing.T) {
	for path, want := range map[string]bool{
		"/securitymanagement/login": true, "/SecurityManagement/Logout/": true, "/x//securitymanagement;x=1/login": true,
		"/\u017fecuritymanagement/refresh-token": true, "/whoami": false, "/security/management": false, "": false,
	} {
		if got := HoldsTokens(path); got != want {
			t.Errorf("HoldsTokens(%q) = %v, want %v", path, got, want)
		}
	}
}

func TestOriginIsSchemeHostAndPort(t *testing.T) {
	base := "https://acme.fincode.software/api"
	for other, want := range map[string]bool{
		"https://ACME.fincode.software:443/x": true, "http://acme.fincode.software": false,
		"https://acme.fincode.software:8443": false, "https://evil.example": false, "/x": false,
	} {
		a, b := parse(t, base), parse(t, other)
		if got := SameOrigin(a, b); got != want {
			t.Errorf("SameOrigin(%s, %s) = %v, want %v", base, other, got, want)
		}
	}
}

func parse(t *testing.T, text string) *url.URL {
	t.Helper()
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return u
}
