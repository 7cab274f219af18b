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

func TestLoginLeadsToTheFirstPage(t *testing.T) {
	inBubble(t, nil, func(b *bench) {
		br := b.newBrowser()
		br.get("/").want(http.StatusSeeOther).wantHeader("Location", "/login")
		br.get("/login").want(http.StatusOK, `autocomplete="current-password"`)
		br.login(password).want(http.StatusSeeOther).wantHeader("Location", "/")
		br.get("/").want(http.StatusOK, email, "remitjunction")
		br.get("/login").want(http.StatusSeeOther).wantHeader("Location", "/")
	})
}

func TestCookieOnHTTPSIsLockedToThisHost(t *testing.T) {
	inBubble(t, nil, func(b *bench) {
		c := loginCookie(b)
		if c.Name != "__Host-bff-session" || !c.Secure || !c.HttpOnly || c.SameSite != http.SameSiteLaxMode || c.Path != "/" || c.Domain != "" || c.MaxAge != 0 {
			b.Errorf("the cookie is %+v", c)
		}
		if strings.Contains(c.Value, email) || c.Value == loginCookie(b).Value {
			b.Error("the cookie can be read or guessed")
		}
	})
}

func TestCookieOnPlainHTTPIsOneThatEveryBrowserAccepts(t *testing.T) {
	inBubble(t, func(opts *options) { opts.publicURL = "" }, func(b *bench) {
		c := loginCookie(b)
		if c.Name != "bff-session" || c.Secure || !c.HttpOnly || c.SameSite != http.SameSiteLaxMode {
			b.Errorf("the cookie is %+v", c)
		}
	})
}

func loginCookie(b *bench) *http.Cookie {
	b.Helper()
	set := b.newBrowser().login(password).want(http.StatusSeeOther).Cookies()
	if len(set) != 1 {
		b.Fatalf("%d cookies are set, want 1", len(set))
	}
	return set[0]
}

func TestRefusedLoginsLookTheSame(t *testing.T) {
	inBubble(t, nil, func(b *bench) {
		br := b.newBrowser()
		wrong := br.login("wrong").want(http.StatusUnauthorized, `role="alert"`, refusedLogin)
		unknown := br.post("/login", url.Values{"email": {"eve@example.com"}, "password": {"wrong"}}).want(http.StatusUnauthorized)
		for range 5 {
			br.login("wrong")
		}
		locked := br.login(password).want(http.StatusUnauthorized)
		if b.fincode.Counts().Logins != 0 {
			b.Error("the account is not locked, so this test shows nothing")
		}
		if got := strings.ReplaceAll(unknown.text, "eve@example.com", email); got != wrong.text || locked.text != wrong.text {
			b.Errorf("the page tells who is a customer:\n%s\n%s\n%s", wrong.text, unknown.text, locked.text)
		}
		if len(br.cookies()) != 0 {
			b.Error("a refused login sets a cookie")
		}
	})
}

func TestEmptyFormIsNotSentToFinCode(t *testing.T) {
	inBubble(t, nil, func(b *bench) {
		b.newBrowser().login("").want(http.StatusUnprocessableEntity, `role="alert"`, `value="`+email+`"`)
	})
}

func TestWhatAUserTypedIsEscaped(t *testing.T) {
	inBubble(t, nil, func(b *bench) {
		r := b.newBrowser().post("/login", url.Values{"email": {`"><script>alert(1)</script>`}, "password": {"x"}})
		if strings.Contains(r.text, "<script>") {
			b.Errorf("the page has the user's script:\n%s", r.text)
		}
	})
}

func TestRequestFromAnotherSiteIsRefused(t *testing.T) {
	for _, header := range []http.Header{
		{"Sec-Fetch-Site": {"cross-site"}},
		{"Sec-Fetch-Site": {"same-site"}}, // another host of the same domain
		{"Origin": {"https://evil.example.com"}},
		{"Origin": {"null"}},
	} {
		inBubble(t, func(opts *options) { opts.proxied = []string{"POST /whoami"} }, func(b *bench) {
			br := b.loggedIn()
			before := b.fincode.Counts()
			for _, path := range []string{"/login", "/logout", "/api/whoami"} {
				form := url.Values{"email": {email}, "password": {password}}
				req := httptest.NewRequest(http.MethodPost, site+path, strings.NewReader(form.Encode()))
				req.Header = header.Clone()
				req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
				br.do(req).want(http.StatusForbidden, "another site")
			}
			if after := b.fincode.Counts(); after != before {
				b.Errorf("%v: FinCode was called: %+v", header, after)
			}
			br.get("/").want(http.StatusOK)
		})
	}
}

func TestLogoutIsForGood(t *testing.T) {
	inBubble(t, nil, func(b *bench) {
		br, thief := b.loggedIn(), b.newBrowser()
		thief.copyFrom(br)
		thief.get("/").want(http.StatusOK)
		br.post("/logout", nil).want(http.StatusSeeOther).wantHeader("Location", "/login?out")
		br.get("/login?out").want(http.StatusOK, "You are logged out", `role="status"`)
		br.get("/").want(http.StatusSeeOther).wantHeader("Location", "/login")
		if got := b.fincode.Counts().Logouts; got != 1 {
			b.Errorf("FinCode saw %d logouts, want 1", got)
		}
		thief.get("/session.json").want(http.StatusUnauthorized, `"logged_out"`)
		br.login(password).want(http.StatusSeeOther)
		thief.get("/session.json").want(http.StatusUnauthorized, `"replaced"`) // a new login does not revive it
	})
}

func TestUserWhoWasAwayCanLogOut(t *testing.T) {
	inBubble(t, nil, func(b *bench) {
		br := b.loggedIn()
		time.Sleep(idleLimit + time.Second)
		br.post("/logout", nil).want(http.StatusSeeOther)
		if got := b.fincode.Counts().Logouts; got != 1 {
			b.Errorf("FinCode saw %d logouts, want 1", got)
		}
	})
}

func TestEarlierCookieCannotLogOutALaterLogin(t *testing.T) {
	inBubble(t, nil, func(b *bench) {
		first, second := b.loggedIn(), b.loggedIn()
		first.post("/logout", nil).want(http.StatusSeeOther)
		second.get("/").want(http.StatusOK)
	})
}

func TestLogoutThatFinCodeDoesNotConfirmIsALogout(t *testing.T) {
	inBubble(t, nil, func(b *bench) {
		br := b.loggedIn()
		b.fincode.Inject(fincodetest.Logout, -1, fincodetest.Fault{Kind: fincodetest.ErrorStatus})
		br.post("/logout", nil).want(http.StatusSeeOther)
		if len(br.cookies()) != 0 {
			b.Error("the browser still has the cookie")
		}
	})
}

func TestLogoutWhileTheStoreIsDownCanBeTriedAgain(t *testing.T) {
	inBubble(t, nil, func(b *bench) {
		br := b.loggedIn()
		b.store.set(errStoreDown)
		br.post("/logout", nil).want(http.StatusServiceUnavailable)
		b.store.set(nil)
		br.get("/").want(http.StatusOK)
		br.post("/logout", nil).want(http.StatusSeeOther)
	})
}
