package fincodeauth_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/oauth2"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/fincodetest"
)

func TestLeastRecentlyUsedSessionIsDroppedAndLoadedAgain(t *testing.T) {
	fc := fincodetest.New(fincodetest.Config{})
	var seen events
	sessions := newSessions(t, fc, seen.observe, func(c *fincodeauth.Config) { c.MaxSessions = 3 })
	use := func(key string) { token(t, sessions.TokenSource(key)) }
	for _, key := range []string{"a", "b", "c"} {
		logIn(t, sessions, key)
	}
	held := sessions.TokenSource("b") // a source that stays must count as use, too
	token(t, held)
	use("a")
	logIn(t, sessions, "d") // drops c
	seen.types()
	use("a")
	use("b")
	use("d")
	seen.want(t)
	use("c") // drops a
	seen.want(t, fincodeauth.Adopted)
	token(t, held)
	use("d")
	seen.want(t)
	use("a") // drops c
	use("b")
	token(t, held)
	seen.want(t, fincodeauth.Adopted)
}

// There are so many sessions that hundreds of them are dropped. The sessions in use
// stay, and every caller gets the token of the right session.
func TestSessionsInUseAreNotDroppedWhileOthersComeAndGo(t *testing.T) {
	store := fincodeauth.NewMemoryStore()
	name := func(i int) string { return fmt.Sprint("user-", i) }
	const users = 4000
	for i := range users {
		tok := &oauth2.Token{AccessToken: name(i), RefreshToken: "r", Expiry: time.Now().Add(time.Hour)}
		if err := store.Save(t.Context(), name(i), &fincodeauth.Record{Version: "v", Token: tok}, ""); err != nil {
			t.Fatal(err)
		}
	}
	var loaded [users]atomic.Int32
	sessions := newSessions(t, fincodetest.New(fincodetest.Config{}), withStore(store), func(c *fincodeauth.Config) {
		c.MaxSessions = 640
		c.Observe = func(e fincodeauth.Event) {
			i, _ := strconv.Atoi(strings.TrimPrefix(e.Key, "user-"))
			loaded[i].Add(1)
		}
	})
	each := sessions.TokenSource("")
	use := func(i int) {
		tok, err := each.TokenContext(fincodeauth.WithSession(t.Context(), name(i)))
		if err != nil || tok.AccessToken != name(i) {
			t.Errorf("session %s: got token %v, error %v; want the session's own token", name(i), tok, err)
		}
	}
	for i := range users {
		use(i)
		use(i % 100)
	}
	for i := range loaded[:100] {
		if n := loaded[i].Load(); n != 1 {
			t.Errorf("session %d, which is always in use, was loaded %d times, want once", i, n)
		}
	}
	before := loaded[100].Load()
	if use(100); loaded[100].Load() == before {
		t.Error("the least recently used session is still in memory, want it dropped")
	}
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range users {
				use((i + g*users/8) % users)
			}
		})
	}
	wg.Wait()
}

// Two new sessions may belong into the same slot of the table. If both are looked up
// at the same time, each caller must get the right one.
func TestConcurrentLookupsOfNewSessionsFindTheRightOnes(t *testing.T) {
	const users, callers, rounds = 16, 4, 2000
	var names [users]string
	store := fincodeauth.NewMemoryStore()
	for i := range users {
		names[i] = fmt.Sprint("user-", i)
		tok := &oauth2.Token{AccessToken: names[i], RefreshToken: "r", Expiry: time.Now().Add(time.Hour)}
		if err := store.Save(t.Context(), names[i], &fincodeauth.Record{Version: "v", Token: tok}, ""); err != nil {
			t.Fatal(err)
		}
	}
	fc := fincodetest.New(fincodetest.Config{})
	for range rounds {
		each := newSessions(t, fc, withStore(store)).TokenSource("")
		var wg sync.WaitGroup
		for g := range callers {
			wg.Go(func() {
				for i := range users {
					name := names[(i+g)%users]
					tok, err := each.TokenContext(fincodeauth.WithSession(t.Context(), name))
					if err != nil || tok.AccessToken != name {
						t.Errorf("session %s: got token %v, error %v; want the session's own token", name, tok, err)
					}
				}
			})
		}
		wg.Wait()
	}
}

func TestSourceAndContextWorkAfterTheirSessionWasDropped(t *testing.T) {
	fc := fincodetest.New(fincodetest.Config{})
	sessions := newSessions(t, fc, func(c *fincodeauth.Config) { c.MaxSessions = 1 })
	logIn(t, sessions, "a")
	src, each := sessions.TokenSource("a"), sessions.TokenSource("")
	ctx := fincodeauth.WithSession(t.Context(), "a")
	want := token(t, src).AccessToken
	for range 2 {
		tok, err := each.TokenContext(ctx)
		if err != nil || tok.AccessToken != want {
			t.Errorf("with the context: got token %v, error %v; want the token of the session", tok, err)
		}
		if token(t, src).AccessToken != want {
			t.Error("with the source: got another token, want the token of the session")
		}
		logIn(t, sessions, "b") // "a" is dropped
	}
}

// A session that is dropped forgets how long FinCode asked to wait.
func TestSessionIsNotDroppedDuringABackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		sessions := newSessions(t, fc, func(c *fincodeauth.Config) { c.MaxSessions = 1 })
		logIn(t, sessions, "a")
		logIn(t, sessions, "b")
		time.Sleep(2 * time.Hour)
		fc.Inject(fincodetest.Refresh, -1, fincodetest.Fault{Kind: fincodetest.ErrorStatus, Status: 429, RetryAfter: "3600"})
		for range 20 {
			for _, key := range []string{"a", "b"} {
				if _, err := sessions.TokenSource(key).Token(); err == nil {
					t.Fatal("got a token, want FinCode's 429")
				}
			}
		}
		if n := fc.Counts().RefreshCalls; n != 2 {
			t.Errorf("got %d refresh calls, want one for each of two sessions: FinCode asked to wait an hour", n)
		}
	})
}

// What a session knows of its own claim is not in the store. If the session were
// dropped, it would wait for its own claim, present a refused token again, or report
// a breach as an interruption.
func TestSessionWithAClaimIsNotDropped(t *testing.T) {
	for name, test := range map[string]struct {
		fault     func(*fincodetest.FinCode, *faultyStore)
		stolen    bool // a thief has used the refresh token
		presented int  // how often the refresh token is presented in all
		asked     int  // how often Credentials is called
	}{
		"a request that was lost": {fault: func(fc *fincodetest.FinCode, _ *faultyStore) {
			fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{Kind: fincodetest.HangUp})
		}, presented: 2},
		"a claim that could not be released": {fault: func(fc *fincodetest.FinCode, store *faultyStore) {
			fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{Kind: fincodetest.ErrorStatus, Status: 429})
			store.set(successorsFail)
		}, stolen: true, presented: 3},
		"a new login that failed": {fault: func(fc *fincodetest.FinCode, _ *faultyStore) {
			fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{Kind: fincodetest.ErrorStatus, Status: 401})
			fc.Inject(fincodetest.Login, 1, fincodetest.Fault{Kind: fincodetest.ErrorStatus, Status: 503})
		}, presented: 1, asked: 2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fc := fincodetest.New(fincodetest.Config{})
				store := newFaultyStore()
				asked := 0
				sessions := newSessions(t, fc, withStore(store), func(c *fincodeauth.Config) {
					c.MaxSessions = 1
					c.Credentials = func(_ context.Context, _ string, cause error) (fincodeauth.Credentials, error) {
						asked++
						wantSessionError(t, cause, false, false)
						return credentials, nil
					}
				})
				logIn(t, sessions, "a")
				old := record(t, store, "a").Token.RefreshToken
				if test.stolen {
					present(t, fc, old)
				}
				time.Sleep(2 * time.Hour)
				test.fault(fc, store)
				if _, err := sessions.TokenSource("a").Token(); err == nil {
					t.Fatal("got no error, want that of the fault")
				}
				store.down(false)
				time.Sleep(2 * time.Second)
				sessions.TokenSource("b").Token() // "a" is the one to drop
				var err error
				waited := elapsed(func() { _, err = sessions.TokenSource("a").Token() })
				if waited > 0 {
					t.Errorf("waited %v, want no wait: the claim is this process's own", waited)
				}
				if test.stolen {
					wantSessionError(t, err, true, false)
				} else if err != nil {
					t.Errorf("got error %v, want a token", err)
				}
				if n := fc.Presented(old); n != test.presented {
					t.Errorf("the refresh token was presented %d times, want %d", n, test.presented)
				}
				if asked != test.asked {
					t.Errorf("Credentials was called %d times, want %d", asked, test.asked)
				}
			})
		})
	}
}

// A session that is dropped forgets that its replays were rejected, and would refresh
// for every 401.
func TestSessionWithRejectedReplaysIsNotDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		base := roundTripper(func(r *http.Request) (*http.Response, error) {
			if r.Method == http.MethodGet {
				return &http.Response{StatusCode: http.StatusUnauthorized, Body: http.NoBody}, nil
			}
			return fc.RoundTrip(r)
		})
		sessions := newSessions(t, fc, func(c *fincodeauth.Config) { c.Base, c.MaxSessions = base, 1 })
		logIn(t, sessions, "a")
		for range 300 { // nearly an hour
			time.Sleep(11 * time.Second)
			resp, err := sessions.Client("a").Get(fincodeauth.Sandbox("test") + "/balance")
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			sessions.TokenSource("b").Token()
		}
		if n := fc.Counts().Refreshes; n > 10 {
			t.Errorf("got %d rotations, want at most 10 for an endpoint that always answers 401", n)
		}
	})
}

// Steps:
//  1. Refresh looks up the current token, which is the rejected one.
//  2. The session is dropped from memory.
//  3. Refresh goes on with a new session, which loads the rejected token from the
//     store. Refresh must not return this token.
func TestRejectionIsRememberedIfTheSessionIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		var sessions *fincodeauth.Sessions
		var dropNext atomic.Bool
		now := func() time.Time {
			if dropNext.CompareAndSwap(true, false) {
				sessions.TokenSource("b").Token() // "a" is dropped
			}
			return time.Now()
		}
		cfg := fincodeauth.Config{BaseURL: fincodeauth.Sandbox("test"), Base: fc, MaxSessions: 1}
		sessions, err := fincodeauth.NewOn(cfg, now, func() float64 { return 0 })
		if err != nil {
			t.Fatal(err)
		}
		logIn(t, sessions, "a")
		time.Sleep(30 * time.Minute)
		tok := token(t, sessions.TokenSource("a"))
		dropNext.Store(true)
		next, err := sessions.TokenSource("a").Refresh(t.Context(), tok)
		if err != nil || next.AccessToken == tok.AccessToken || fc.Counts().Refreshes != 1 {
			t.Errorf("got error %v, same token %t, after %d refreshes; want another token after one refresh",
				err, next != nil && next.AccessToken == tok.AccessToken, fc.Counts().Refreshes)
		}
	})
}

func TestSessionWithAnUnsavedTokenIsNotDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := newFaultyStore()
		sessions := newSessions(t, fc, withStore(store), func(c *fincodeauth.Config) { c.MaxSessions = 1 })
		store.set(successorsFail)
		for n := range 5 {
			logIn(t, sessions, fmt.Sprint(n))
		}
		for n := range 5 {
			token(t, sessions.TokenSource(fmt.Sprint(n))) // the store does not have this token
		}
		store.down(false)
		if err := sessions.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestMoreSessionsThanMaxSessionsRefreshOnceEach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := fincodeauth.NewMemoryStore()
		sessions := newSessions(t, fc, withStore(store), func(c *fincodeauth.Config) { c.MaxSessions = 20 })
		const users = 100
		for n := range users {
			logIn(t, sessions, fmt.Sprint(n))
		}
		time.Sleep(2 * time.Hour)
		var wg sync.WaitGroup
		for n := range users {
			for range 5 {
				wg.Go(func() { token(t, sessions.TokenSource(fmt.Sprint(n))) })
			}
		}
		wg.Wait()
		wantCalls(t, fc, users, users)
		if twice := fc.PresentedMoreThanOnce(); len(twice) != 0 {
			t.Errorf("these tokens were presented more than once, want none: %v", twice)
		}
	})
}

// FinCode's refusal of a refresh token is kept for as long as it is not saved. Otherwise
// the token would be presented again, and a theft would look like an interruption.
func TestSessionWhoseTokenWasRefusedIsNotDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{RefreshLifetime: time.Hour})
		asked := 0
		sessions := newSessions(t, fc, func(c *fincodeauth.Config) {
			c.MaxSessions = 1
			c.Credentials = func(_ context.Context, _ string, cause error) (fincodeauth.Credentials, error) {
				asked++
				wantSessionError(t, cause, false, false)
				return credentials, map[bool]error{true: errors.New("vault is down")}[asked == 1]
			}
		})
		logIn(t, sessions, "a")
		time.Sleep(2 * time.Hour)
		if _, err := sessions.TokenSource("a").Token(); err == nil {
			t.Error("got no error, want that of Credentials")
		}
		time.Sleep(3 * time.Hour)
		for n := range 5 {
			sessions.TokenSource(fmt.Sprint(n)).Token() // "a" is the one to drop
		}
		if waited := elapsed(func() { token(t, sessions.TokenSource("a")) }); waited > 0 {
			t.Errorf("waited %v, want no wait: the claim is this process's own", waited)
		}
		wantCalls(t, fc, 1, 0)
	})
}

// A Logout whose Save got no answer must be completed by the next one.
func TestSessionWithAnUnheardLogoutIsNotDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := newFaultyStore()
		sessions := newSessions(t, fc, withStore(store), func(c *fincodeauth.Config) { c.MaxSessions = 1 })
		logIn(t, sessions, "a")
		tok := token(t, sessions.TokenSource("a"))
		store.set(cutOffAfter(func(rec *fincodeauth.Record) bool { return rec.Ended != "" }))
		if err := sessions.Logout(t.Context(), "a"); !errors.Is(err, errStoreDown) {
			t.Errorf("Logout = %v, want the store's error", err)
		}
		store.down(false)
		for n := range 5 {
			sessions.TokenSource(fmt.Sprint(n)).Token() // "a" is the one to drop
		}
		if err := sessions.Logout(t.Context(), "a"); err != nil {
			t.Errorf("the second Logout = %v, want nil", err)
		}
		if status := whoami(t, fc, tok); status != http.StatusUnauthorized {
			t.Errorf("FinCode answers %d to the token, want 401", status)
		}
	})
}
