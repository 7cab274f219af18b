package fincodeauth

import (
	"sync"

	"golang.org/x/oauth2"

	"github.com/fincodeauth/fincodeauth/internal/envelope"
)

// tenants are the tenants of the tokens that this process has received from FinCode, by
// the claim tenancy-id (FINCODE.md, Tokens). It is not known whether a BaseURL has one or
// several.
type tenants struct {
	mu    sync.Mutex      // guards what follows
	heard bool            // FinCode has sent a token
	known map[string]bool // of those tokens that name a tenant
}

const tenantsKept = 1000

// received notes whose token FinCode has sent.
func (t *tenants) received(tok *oauth2.Token) {
	name := tenancyOf(tok)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.heard = true
	if t.known == nil {
		t.known = make(map[string]bool)
	}
	if name != "" && len(t.known) < tenantsKept {
		t.known[name] = true
	}
}

// areUnknown reports whether FinCode has sent no token yet.
func (t *tenants) areUnknown() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return !t.heard
}

// mayBeOurs reports whether a token of the tenant may be presented to this FinCode. It is
// true as long as nobody can tell.
func (t *tenants) mayBeOurs(name string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return name == "" || len(t.known) == 0 || t.known[name]
}

// tenancyOf returns the claim tenancy-id of the access token.
func tenancyOf(tok *oauth2.Token) string {
	return envelope.Text(payloadOf(tok.AccessToken), "tenancy-id")
}
