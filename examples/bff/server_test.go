package main

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/fincodeauth/fincodeauth/fincodetest"
)

func TestEveryAnswerTellsBrowsersWhatNotToDo(t *testing.T) {
	inBubble(t, nil, func(b *bench) {
		br := b.loggedIn()
		for _, path := range []string{"/", "/login?out", "/session.json", "/static/style.css", "/static/app.js", "/nothing", "/api/whoami"} {
			r := br.get(path)
			r.wantHeader("X-Frame-Options", "DENY").wantHeader("X-Content-Type-Options", "nosniff")
			r.wantHeader("Cross-Origin-Resource-Policy", "same-origin").wantHeader("Strict-Transport-Security", "max-age=31536000")
			if !strings.HasPrefix(r.Header.Get("Content-Security-Policy"), "default-src 'none'; ") {
				b.Errorf("%s: the policy is %q", path, r.Header.Get("Content-Security-Policy"))
			}
			if !strings.HasPrefix(path, "/static/") {
				r.wantHeader("Cache-Control", "no-store")
			}
		}
	})
}

func TestStoreThatIsDownIsToldToUsersAndProbes(t *testing.T) {
	inBubble(t, nil, func(b *bench) {
		br := b.loggedIn()
		b.store.set(errStoreDown)
		br.get("/").want(http.StatusServiceUnavailable, "Try again in a moment", `role="alert"`).wantHeader("Retry-After", "5")
		br.get("/session.json").want(http.StatusServiceUnavailable, `"unavailable"`).wantHeader("Retry-After", "5")
		b.newBrowser().login(password).want(http.StatusServiceUnavailable).wantHeader("Retry-After", "5")
		if got := b.fincode.Counts().Logins; got != 1 {
			b.Errorf("FinCode saw %d logins, want 1: no password goes out while the store is down", got)
		}
		b.probe("/readyz").want(http.StatusServiceUnavailable, "the store does not answer")
		b.probe("/livez").want(http.StatusOK)
		b.store.set(nil)
		br.get("/").want(http.StatusOK)
		b.probe("/readyz").want(http.StatusOK)
	})
}

func TestFinCodeThatIsDownDoesNotMakeTheProcessUnready(t *testing.T) {
	inBubble(t, nil, func(b *bench) {
		br := b.loggedIn()
		for _, op := range []fincodetest.Operation{fincodetest.Login, fincodetest.Refresh, fincodetest.Logout, fincodetest.API} {
			b.fincode.Inject(op, -1, fincodetest.Fault{Kind: fincodetest.HangUp})
		}
		br.get("/").want(http.StatusServiceUnavailable, "You are still logged in").wantHeader("Retry-After", "5")
		time.Sleep(lifetime)
		br.get("/").want(http.StatusServiceUnavailable, "You are still logged in")
		b.probe("/readyz").want(http.StatusOK)
		b.fincode.ClearFaults()
		time.Sleep(2 * time.Minute) // the backoff of a refresh that failed
		br.get("/").want(http.StatusOK)
	})
}

func TestFinCodesOwnWaitIsPassedOn(t *testing.T) {
	inBubble(t, nil, func(b *bench) {
		b.fincode.Inject(fincodetest.Login, 1, fincodetest.Fault{Kind: fincodetest.ErrorStatus, Status: http.StatusTooManyRequests, RetryAfter: "30"})
		b.newBrowser().login(password).want(http.StatusServiceUnavailable).wantHeader("Retry-After", "30")
	})
}

func TestProcessThatStopsIsUnreadyAndAlive(t *testing.T) {
	inBubble(t, nil, func(b *bench) {
		b.health.serving.Store(false)
		b.probe("/readyz").want(http.StatusServiceUnavailable, "stopping")
		b.probe("/livez").want(http.StatusOK)
	})
}

// probe asks the admin server.
func (b *bench) probe(path string) *reply {
	b.Helper()
	br := b.newBrowser()
	br.client.Transport = inMemory{adminHandler(b.health, b.metrics)}
	return br.get(path)
}

func TestNoTokenLeavesTheServer(t *testing.T) {
	inBubble(t, nil, func(b *bench) {
		br := b.newBrowser()
		replies := []*reply{br.login("wrong-password"), br.login(password)}
		for range 3 {
			replies = append(replies, br.get("/"), br.get("/session.json"), br.get("/api/whoami"))
			time.Sleep(lifetime - time.Minute)
		}
		replies = append(replies, br.get("/"))
		b.store.set(errStoreDown)
		replies = append(replies, br.get("/"))
		b.store.set(nil)
		b.endAtFinCode()
		time.Sleep(lifetime)
		replies = append(replies, br.get("/session.json").want(http.StatusUnauthorized, `"ended"`), br.get("/"), br.login(password))
		b.steal()
		time.Sleep(lifetime)
		replies = append(replies, br.get("/session.json").want(http.StatusUnauthorized, `"breach"`), br.get("/"), br.login(password), br.get("/"))
		replies = append(replies, br.post("/logout", nil), b.probe("/metrics"), b.probe("/readyz"))

		if len(b.seen.all) < 10 {
			b.Fatalf("FinCode handed out %d tokens: this test shows nothing", len(b.seen.all))
		}
		sent := b.log.String()
		for _, r := range replies {
			sent += r.text + fmt.Sprint(r.Header)
		}
		for _, secret := range append(b.seen.all, password, "wrong-password") {
			if strings.Contains(sent, secret) {
				b.Error("an answer or the log has a secret")
			}
		}
		if strings.Contains(b.log.String(), email) {
			b.Errorf("the log has an e-mail address:\n%s", b.log)
		}
	})
}
