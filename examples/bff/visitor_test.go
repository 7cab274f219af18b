package main

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/fincodeauth/fincodeauth/fincodetest"
)

func TestOnlyTheLatestLoginOfAUserCounts(t *testing.T) {
	inBubble(t, nil, func(b *bench) {
		first, second := b.loggedIn(), b.loggedIn()
		first.get("/session.json").want(http.StatusUnauthorized, `"replaced"`)
		first.get("/").want(http.StatusUnauthorized, "You must log in again", "another browser", `href="/login"`)
		if len(first.cookies()) != 0 {
			b.Error("the browser still has the cookie")
		}
		second.get("/").want(http.StatusOK)
	})
}

func TestLoginAndLogoutCountOnAllReplicas(t *testing.T) {
	inBubble(t, nil, func(b *bench) {
		sessions, _, handler := b.replica()
		defer func() {
			if err := closeSessions(sessions, b.opts.saveTimeout); err != nil {
				b.Error(err)
			}
		}()
		here := b.loggedIn()
		there := &browser{bench: b, jar: here.jar, client: &http.Client{Transport: inMemory{handler}, Jar: here.jar, CheckRedirect: here.client.CheckRedirect}}
		for range 3 {
			there.get("/").want(http.StatusOK)
			thief := b.newBrowser()
			thief.copyFrom(here)
			here.post("/logout", nil).want(http.StatusSeeOther)
			thief.client.Transport = inMemory{handler}
			thief.get("/").want(http.StatusUnauthorized, "You must log in again")
			here.login(password).want(http.StatusSeeOther)
			if r := there.get("/"); r.StatusCode != http.StatusServiceUnavailable { // its token is from before the logout
				r.want(http.StatusOK)
			}
			time.Sleep(10 * time.Second)
			there.get("/").want(http.StatusOK)
		}
		b.steal()
		time.Sleep(lifetime)
		there.get("/session.json").want(http.StatusUnauthorized, `"breach"`)
		here.get("/session.json").want(http.StatusUnauthorized, `"breach"`)
		here.login(password).want(http.StatusSeeOther)
		there.get("/").want(http.StatusOK)
	})
}

func TestRefusedLoginDoesNotEndTheUsersSession(t *testing.T) {
	inBubble(t, nil, func(b *bench) {
		br := b.loggedIn()
		b.newBrowser().login("wrong").want(http.StatusUnauthorized)
		br.get("/").want(http.StatusOK)
	})
}

func TestAddressesThatDifferInCaseAreDifferentUsers(t *testing.T) {
	inBubble(t, nil, func(b *bench) {
		b.fincode.AddUser(strings.ToUpper(email), "other")
		br := b.loggedIn()
		other := b.newBrowser()
		other.post("/login", map[string][]string{"email": {strings.ToUpper(email)}, "password": {"other"}}).want(http.StatusSeeOther)
		other.get("/").want(http.StatusOK, "user-2")
		br.get("/").want(http.StatusOK, "user-1")
	})
}

func TestEndedSessionAsksForALogin(t *testing.T) {
	inBubble(t, nil, func(b *bench) {
		br := b.loggedIn()
		b.endAtFinCode()
		time.Sleep(lifetime)
		br.get("/session.json").want(http.StatusUnauthorized, `"ended"`).wantHeader("Cache-Control", "no-store")
		br.get("/").want(http.StatusUnauthorized, "You must log in again", `role="alert"`)
		br.get("/").want(http.StatusSeeOther).wantHeader("Location", "/login")
		br.login(password).want(http.StatusSeeOther)
		br.get("/").want(http.StatusOK)
	})
}

func TestBreachHasItsOwnPage(t *testing.T) {
	inBubble(t, nil, func(b *bench) {
		br := b.loggedIn()
		b.steal()
		time.Sleep(lifetime)
		br.get("/session.json").want(http.StatusUnauthorized, `"breach"`)
		br.get("/").want(http.StatusUnauthorized, "We ended your session to protect you", "Change your password")
		if !strings.Contains(b.log.String(), "level=ERROR") {
			b.Errorf("no alarm in the log:\n%s", b.log)
		}
	})
}

func TestInterruptedRefreshIsNoBreachOnThePage(t *testing.T) {
	inBubble(t, nil, func(b *bench) {
		br := b.loggedIn()
		b.fincode.Inject(fincodetest.Refresh, 1, fincodetest.Fault{Kind: fincodetest.HangUp, TakesEffect: true})
		time.Sleep(lifetime)
		br.get("/").want(http.StatusServiceUnavailable)
		time.Sleep(time.Minute)
		br.get("/").want(http.StatusUnauthorized, "You must log in again", "nothing is lost")
	})
}

func TestTokenIsRenewedWhileThePageIsUsed(t *testing.T) {
	inBubble(t, nil, func(b *bench) {
		br := b.loggedIn()
		for range 25 {
			time.Sleep(time.Minute)
			br.get("/").want(http.StatusOK)
		}
		if got := b.fincode.Counts().Refreshes; got < 2 {
			b.Errorf("FinCode rotated %d times, want at least 2", got)
		}
		if again := b.fincode.PresentedMoreThanOnce(); len(again) != 0 {
			b.Errorf("refresh tokens were presented twice: %v", again)
		}
	})
}

func TestPageThatPollsDoesNotKeepAnAbsentUserLoggedIn(t *testing.T) {
	inBubble(t, nil, func(b *bench) {
		br := b.loggedIn()
		for range int(idleLimit / time.Minute) {
			br.get("/session.json").want(http.StatusOK)
			time.Sleep(time.Minute)
		}
		time.Sleep(time.Second)
		br.get("/session.json").want(http.StatusUnauthorized, `"idle"`)
		br.get("/").want(http.StatusUnauthorized, "You were away")
	})
}

func TestNobodyStaysLoggedInForever(t *testing.T) {
	inBubble(t, nil, func(b *bench) {
		br := b.loggedIn()
		began := time.Now()
		for time.Since(began) < loginLimit {
			br.get("/").want(http.StatusOK)
			time.Sleep(idleLimit)
		}
		time.Sleep(time.Second)
		br.get("/").want(http.StatusUnauthorized, "You must log in again")
	})
}

func TestForgedCookieIsNone(t *testing.T) {
	inBubble(t, nil, func(b *bench) {
		sealed := loginCookie(b)
		login, err := logins{b.store}.of(b.Context(), userKey(email))
		if err != nil {
			b.Fatal(err)
		}
		rec := httptest.NewRecorder()
		other := newCookies(keyring{bytes.Repeat([]byte{2}, keySize)}, true)
		if err := other.write(rec, visitor{Email: email, Login: login.id, Since: time.Now(), Seen: time.Now()}); err != nil {
			b.Fatal(err)
		}
		for _, value := range []string{rec.Result().Cookies()[0].Value, sealed.Value[:len(sealed.Value)-8] + "AAAAAAA=", "", "x"} {
			req := httptest.NewRequest(http.MethodGet, site+"/session.json", nil)
			req.AddCookie(&http.Cookie{Name: sealed.Name, Value: value})
			b.newBrowser().do(req).want(http.StatusUnauthorized, `"no_login"`)
		}
		req := httptest.NewRequest(http.MethodGet, site+"/session.json", nil)
		req.AddCookie(&http.Cookie{Name: sealed.Name, Value: sealed.Value})
		b.newBrowser().do(req).want(http.StatusOK)
	})
}

func TestCookieOutlivesAChangeOfKeys(t *testing.T) {
	before, after := keyring{bytes.Repeat([]byte{1}, keySize)}, keyring{bytes.Repeat([]byte{2}, keySize), bytes.Repeat([]byte{1}, keySize)}
	rec := httptest.NewRecorder()
	if err := newCookies(before, true).write(rec, visitor{Email: email, Login: "x"}); err != nil {
		t.Fatal(err)
	}
	req := httptest.NewRequest(http.MethodGet, site, nil)
	req.AddCookie(rec.Result().Cookies()[0])
	v, err := newCookies(after, true).read(req)
	if err != nil || v.Email != email {
		t.Errorf("read %+v, %v", v, err)
	}
}
