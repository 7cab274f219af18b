package main

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/fincodeauth/fincodeauth/fincodetest"
)

func TestProxyReachesOnlyWhatIsListed(t *testing.T) {
	open := func(opts *options) { opts.proxied = []string{"GET /whoami", "GET /customers/{rest...}"} }
	for _, path := range []string{
		"/api/customers/../securitymanagement/login",
		"/api/customers/%2e%2e/securitymanagement/login",
		"/api/customers/..%2fsecuritymanagement%2flogin",
		"/api/customers/..%252fsecuritymanagement",
		"/api/customers/x;/securitymanagement",
		"/api/customers/SecurityManagement/login",
		`/api/customers/..\securitymanagement`,
		"/api/customers/..%2fother",
		"/api/customers/..%5cother",
		"/api//whoami",
		"/api/securitymanagement/login",
		"/api/other",
		"/api/",
	} {
		inBubble(t, open, func(b *bench) {
			br := b.loggedIn()
			before := b.fincode.Counts()
			req := httptest.NewRequest(http.MethodGet, site+"/", nil)
			req.URL = mustParse(t, site+strings.ReplaceAll(path, `\`, "%5c"))
			if r := br.do(req); r.StatusCode < 300 {
				b.Errorf("%s: %d", path, r.StatusCode)
			}
			if after := b.fincode.Counts(); after != before {
				b.Errorf("%s reached FinCode: %+v", path, after)
			}
			br.get("/api/customers/7").want(http.StatusOK)
			br.post("/api/whoami", nil).want(http.StatusMethodNotAllowed)
		})
	}
}

func mustParse(t *testing.T, raw string) *url.URL {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestProxyKeepsCookieAndHeadersBehind(t *testing.T) {
	inBubble(t, nil, func(b *bench) {
		var sent http.Header
		b.seen.next = roundTripper(func(req *http.Request) (*http.Response, error) {
			sent = req.Header.Clone()
			resp, err := b.fincode.RoundTrip(req)
			if err == nil {
				resp.Header.Set("Set-Cookie", "theirs=1")
				resp.Header.Set("X-Auth-Token", "theirs")
			}
			return resp, err
		})
		br := b.loggedIn()
		req := httptest.NewRequest(http.MethodGet, site+"/api/whoami?a=b", nil)
		req.Header = http.Header{"Authorization": {"Bearer mine"}, "X-Auth-Token": {"mine"}, "Platform": {"mine"}, "X-Forwarded-For": {"1.2.3.4"}, "Accept-Language": {"de"}}
		r := br.do(req).want(http.StatusOK).wantHeader("X-Auth-Token", "").wantHeader("Content-Security-Policy", "default-src 'none'; sandbox")
		for _, c := range r.Cookies() {
			if c.Name == "theirs" {
				b.Error("FinCode's cookie reached the browser")
			}
		}
		if sent.Get("Cookie") != "" || sent.Get("X-Forwarded-For") != "" || sent.Get("Platform") != "fincode" || sent.Get("X-Auth-Token") == "mine" || sent.Get("Accept-Language") != "de" {
			b.Errorf("FinCode got %v", sent)
		}
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

func TestProxySendsABodyAgainAfterARevocation(t *testing.T) {
	inBubble(t, func(opts *options) { opts.proxied = []string{"POST /transfers"} }, func(b *bench) {
		br := b.loggedIn()
		time.Sleep(time.Minute) // the token is no longer so young that its age cannot be the reason
		b.fincode.RevokeAccessTokens()
		req := httptest.NewRequest(http.MethodPost, site+"/api/transfers", strings.NewReader(`{"amount": "12.50"}`))
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Origin", site)
		br.do(req).want(http.StatusOK, `12.50`)
	})
}

func TestProxyTellsScriptsWhenALoginIsNeeded(t *testing.T) {
	inBubble(t, nil, func(b *bench) {
		b.newBrowser().get("/api/whoami").want(http.StatusUnauthorized, `"no_login"`)
		br := b.loggedIn()
		b.endAtFinCode()
		time.Sleep(lifetime)
		br.get("/api/whoami").want(http.StatusUnauthorized, `"ended"`)
	})
}

func TestCallThatTheUserMayNotMakeIsRefused(t *testing.T) {
	inBubble(t, nil, func(b *bench) {
		br := b.loggedIn()
		b.fincode.Inject(fincodetest.API, 2, fincodetest.Fault{Kind: fincodetest.ErrorStatus, Status: http.StatusForbidden})
		br.get("/api/whoami").want(http.StatusForbidden)
		br.get("/session.json").want(http.StatusForbidden, `"refused"`)
	})
}

func TestRefusalOfTheAPIIsNotTakenForTheEndOfTheSession(t *testing.T) {
	inBubble(t, nil, func(b *bench) {
		br := b.loggedIn()
		b.fincode.Inject(fincodetest.API, 2, fincodetest.Fault{Kind: fincodetest.ErrorStatus, Status: http.StatusUnauthorized})
		br.get("/api/whoami").want(http.StatusServiceUnavailable).wantHeader("Retry-After", "5")
		br.get("/session.json").want(http.StatusServiceUnavailable).wantHeader("Retry-After", "5")
		br.get("/").want(http.StatusOK)
	})
}
