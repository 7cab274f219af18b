package fincodeauth_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/oauth2"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/fincodetest"
)

// slowLogin makes FinCode's next answer to a login take that long.
func slowLogin(fc *fincodetest.FinCode, d time.Duration) {
	fc.Inject(fincodetest.Login, 1, fincodetest.Fault{After: d})
}

// Steps:
//  1. A login is under way.
//  2. Other calls for the same session wait for their turn, but no longer than their
//     contexts. They say so, and have done nothing.
func TestCallsWaitForTheirTurnNoLongerThanTheirContext(t *testing.T) {
	for name, call := range map[string]func(context.Context, *fincodeauth.Sessions) error{
		"Login": func(ctx context.Context, s *fincodeauth.Sessions) error { return s.Login(ctx, "a", credentials) },
		"Adopt": func(ctx context.Context, s *fincodeauth.Sessions) error {
			return s.Adopt(ctx, "a", &oauth2.Token{RefreshToken: "r"})
		},
		"Logout": func(ctx context.Context, s *fincodeauth.Sessions) error { return s.Logout(ctx, "a") },
		"Forget": func(ctx context.Context, s *fincodeauth.Sessions) error { return s.Forget(ctx, "a") },
		"Token": func(ctx context.Context, s *fincodeauth.Sessions) error {
			_, err := s.TokenSource("a").TokenContext(ctx)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fc := fincodetest.New(fincodetest.Config{})
				sessions := newSessions(t, fc)
				slowLogin(fc, 10*time.Second)
				login := make(chan error, 1)
				go func() { login <- sessions.Login(t.Context(), "a", credentials) }()
				synctest.Wait()
				reason := errors.New("the user went away")
				ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, reason)
				defer cancel()
				var err error
				waited := elapsed(func() { err = call(ctx, sessions) })
				if waited != time.Second || !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, reason) {
					t.Errorf("the call returned after %v with error %v, want 1 s, and the context's error and its cause", waited, err)
				}
				if err := <-login; err != nil {
					t.Error(err)
				}
				token(t, sessions.TokenSource("a"))
				if c := fc.Counts(); c.Logins != 1 || c.Logouts != 0 || c.RefreshCalls != 0 {
					t.Errorf("got counts %+v, want one login and nothing else", c)
				}
			})
		})
	}
}

// Two logins of one session come one after the other. The later one stays.
func TestLoginsOfOneSessionTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := fincodeauth.NewMemoryStore()
		sessions := newSessions(t, fc, withStore(store))
		slowLogin(fc, 10*time.Second)
		go sessions.Login(t.Context(), "a", credentials)
		synctest.Wait()
		if waited := elapsed(func() { logIn(t, sessions, "a") }); waited != 10*time.Second {
			t.Errorf("the second login took %v, want 10 s: it waits for the first", waited)
		}
		tok := token(t, sessions.TokenSource("a"))
		if c := fc.Counts(); c.Logins != 2 || c.Logouts != 0 || record(t, store, "a").Token.AccessToken != tok.AccessToken {
			t.Errorf("got counts %+v, want two logins, no logout, and the second token in the store", c)
		}
	})
}

// A token that is good is handed out without the turn, whoever has it.
func TestGoodTokenIsHandedOutDuringALogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		sessions := newSessions(t, fc)
		logIn(t, sessions, "a")
		time.Sleep(56 * time.Minute) // the token is due for a refresh, and still good
		slowLogin(fc, 10*time.Second)
		go sessions.Login(t.Context(), "a", credentials)
		synctest.Wait()
		if waited := elapsed(func() { token(t, sessions.TokenSource("a")) }); waited != 0 {
			t.Errorf("a caller waited %v, want no wait", waited)
		}
		time.Sleep(time.Minute)
		wantCalls(t, fc, 0, 0) // the early refresh found the token of the login
	})
}

func TestCloseEndsTheWaitForATurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		sessions := newSessions(t, fc)
		slowLogin(fc, 10*time.Second)
		go sessions.Login(t.Context(), "a", credentials)
		synctest.Wait()
		calls := make(chan error, 2)
		go func() { calls <- sessions.Logout(t.Context(), "a") }()
		go func() { _, err := sessions.TokenSource("a").Token(); calls <- err }()
		synctest.Wait()
		closed := make(chan error, 1)
		go func() { closed <- sessions.Close(t.Context()) }()
		if waited := elapsed(func() {
			for range 2 {
				if err := <-calls; !errors.Is(err, fincodeauth.ErrClosed) {
					t.Errorf("a call that waited got error %v, want ErrClosed", err)
				}
			}
		}); waited != 0 {
			t.Errorf("the calls returned %v after Close, want at once", waited)
		}
		if err := <-closed; err != nil {
			t.Error(err)
		}
	})
}

// Config.Credentials is called in the session's turn. A call for its own key would wait
// for itself. With the context of Credentials it is refused at once. Without it, it waits
// until the refresh gives Credentials up.
func TestCredentialsMayNotCallTheirOwnSession(t *testing.T) {
	calls := map[string]func(context.Context, *fincodeauth.Sessions) error{
		"Login":  func(ctx context.Context, s *fincodeauth.Sessions) error { return s.Login(ctx, "a", credentials) },
		"Logout": func(ctx context.Context, s *fincodeauth.Sessions) error { return s.Logout(ctx, "a") },
		"Forget": func(ctx context.Context, s *fincodeauth.Sessions) error { return s.Forget(ctx, "a") },
		"Adopt": func(ctx context.Context, s *fincodeauth.Sessions) error {
			return s.Adopt(ctx, "a", &oauth2.Token{RefreshToken: "r"})
		},
		"Token": func(ctx context.Context, s *fincodeauth.Sessions) error {
			_, err := s.TokenSource("a").TokenContext(ctx)
			return err
		},
		"Refresh": func(ctx context.Context, s *fincodeauth.Sessions) error {
			_, err := s.TokenSource("a").Refresh(ctx, nil)
			return err
		},
	}
	for name, call := range calls {
		for _, withContext := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, with the context: %t", name, withContext), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					fc := fincodetest.New(fincodetest.Config{RefreshLifetime: time.Hour})
					var sessions *fincodeauth.Sessions
					sessions = newSessions(t, fc, func(c *fincodeauth.Config) {
						c.Credentials = func(ctx context.Context, _ string, _ error) (fincodeauth.Credentials, error) {
							if !withContext {
								ctx = context.Background()
							}
							return fincodeauth.Credentials{}, call(ctx, sessions)
						}
					})
					logIn(t, sessions, "a")
					time.Sleep(2 * time.Hour)
					var err error
					waited := elapsed(func() { _, err = sessions.TokenSource("a").Token() })
					wantNoLoginRequired(t, err)
					wantWait, wantText := time.Duration(0), "Credentials is at work"
					if !withContext {
						wantWait, wantText = refreshTimeout, "Credentials did not return within 15s"
					}
					if waited != wantWait || !strings.Contains(err.Error(), wantText) {
						t.Errorf("the caller got error %v after %v, want %q after %v", err, waited, wantText, wantWait)
					}
					time.Sleep(time.Minute)
					logIn(t, sessions, "a")
					token(t, sessions.TokenSource("a"))
				})
			})
		}
	}
}

// The same for a request, directly and by way of the Credentials of another session.
func TestCredentialsMayNotRequestATokenOfTheirOwnSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{RefreshLifetime: time.Hour})
		var sessions *fincodeauth.Sessions
		sessions = newSessions(t, fc, func(c *fincodeauth.Config) {
			c.Credentials = func(ctx context.Context, key string, _ error) (fincodeauth.Credentials, error) {
				other := map[string]string{"a": "b", "b": "a"}[key]
				_, err := sessions.TokenSource(other).TokenContext(ctx)
				return credentials, err
			}
		})
		logIn(t, sessions, "a")
		logIn(t, sessions, "b")
		time.Sleep(2 * time.Hour)
		if waited := elapsed(func() {
			_, err := sessions.TokenSource("a").Token()
			if err == nil || !strings.Contains(err.Error(), "Credentials is at work") {
				t.Errorf("got error %v, want one that says what Credentials may not do", err)
			}
		}); waited != 0 {
			t.Errorf("the caller waited %v, want no wait", waited)
		}
	})
}

// A login that comes while Credentials is at work is not that of Credentials. It waits
// for its turn: until Credentials returns, or for RefreshTimeout if it does not.
func TestLoginWaitsForCredentialsOfItsSession(t *testing.T) {
	for takes, want := range map[time.Duration]time.Duration{
		6 * time.Second: 17 * time.Second, // and then for the login with what Credentials returned
		time.Minute:     14 * time.Second,
	} {
		synctest.Test(t, func(t *testing.T) {
			fc := fincodetest.New(fincodetest.Config{RefreshLifetime: time.Hour})
			sessions := newSessions(t, fc, func(c *fincodeauth.Config) {
				c.Credentials = func(context.Context, string, error) (fincodeauth.Credentials, error) {
					time.Sleep(takes)
					return credentials, nil
				}
			})
			logIn(t, sessions, "a")
			time.Sleep(2 * time.Hour)
			if takes < refreshTimeout {
				slowLogin(fc, 12*time.Second)
			}
			go sessions.TokenSource("a").Token()
			time.Sleep(time.Second)
			if waited := elapsed(func() { logIn(t, sessions, "a") }); waited != want {
				t.Errorf("Credentials takes %v, and the login took %v, want %v", takes, waited, want)
			}
			if err := sessions.Close(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

// wrong is what FinCode answers 401 to.
var wrong = fincodeauth.Credentials{Email: fincodetest.Email, Password: "wrong"}

// Steps:
//  1. Process one refreshes. The store refuses to save the new token.
//  2. Just before others take over, a login begins. FinCode's answer to it takes long,
//     and is a refusal.
//  3. The store works again. The login goes on saving, because the saver cannot.
func TestLoginGoesOnSavingWhileFinCodeAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store, other := newFaultyStores()
		one, two := newSessions(t, fc, withStore(store)), newSessions(t, fc, withStore(other))
		logIn(t, one, "a")
		time.Sleep(2 * time.Hour)
		store.set(successorsFail)
		tok := token(t, one.TokenSource("a"))
		adopted := make(chan error, 1)
		go func() { _, err := two.TokenSource("a").Token(); adopted <- err }()
		time.Sleep(16 * time.Second)
		slowLogin(fc, refreshTimeout-time.Second)
		login := make(chan error, 1)
		go func() { login <- one.Login(t.Context(), "a", wrong) }()
		time.Sleep(time.Second)
		store.down(false)
		if err := <-adopted; err != nil {
			t.Errorf("process two got error %v, want the new token", err)
		}
		if err := <-login; !errors.Is(err, fincodeauth.ErrBadCredentials) {
			t.Errorf("Login = %v, want ErrBadCredentials", err)
		}
		if token(t, one.TokenSource("a")) != tok {
			t.Error("process one has another token, want the new one")
		}
		wantCalls(t, fc, 1, 1)
	})
}

// The same with a Close, which waits for the save.
func TestCloseDuringALoginLosesNoToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := newFaultyStore()
		one := newSessions(t, fc, withStore(store))
		logIn(t, one, "a")
		time.Sleep(2 * time.Hour)
		store.set(successorsFail)
		token(t, one.TokenSource("a"))
		slowLogin(fc, 12*time.Second)
		go one.Login(t.Context(), "a", wrong)
		time.Sleep(time.Second)
		store.down(false)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := one.Close(ctx); err == nil || !strings.Contains(err.Error(), "still under way") {
			t.Errorf("Close = %v, want an error that names the login alone", err)
		}
		token(t, newSessions(t, fc, withStore(store)).TokenSource("a"))
		time.Sleep(time.Minute)
	})
}

// Steps:
//  1. Process one claims and refreshes. Its store does not answer the next calls.
//  2. A call for the same session takes the turn, and so keeps the saver from it.
//  3. The call gives up soon enough for the new token to be saved before process two
//     takes over.
func TestStoreHangDuringACallIsNotMistakenForADeadOwner(t *testing.T) {
	for name, call := range map[string]func(context.Context, *fincodeauth.Sessions) error{
		"Login":  func(ctx context.Context, s *fincodeauth.Sessions) error { return s.Login(ctx, "a", credentials) },
		"Logout": func(ctx context.Context, s *fincodeauth.Sessions) error { return s.Logout(ctx, "a") },
		"Forget": func(ctx context.Context, s *fincodeauth.Sessions) error { return s.Forget(ctx, "a") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fc := fincodetest.New(fincodetest.Config{})
				store := fincodeauth.NewMemoryStore()
				hanging := &hangingStore{Store: store, calls: 5} // the first Save and its Load, then those of the call, and its Load
				one, two := newSessions(t, fc, withStore(hanging)), newSessions(t, fc, withStore(store))
				logIn(t, one, "a")
				time.Sleep(2 * time.Hour)
				tok := token(t, one.TokenSource("a"))
				called := make(chan error, 1)
				go func() { called <- call(t.Context(), one) }()
				if got, err := two.TokenSource("a").Token(); err != nil || got.AccessToken != tok.AccessToken {
					t.Errorf("process two has another token, or error %v; want the token of process one", err)
				}
				if err := <-called; !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("%s = %v, want the error of the store", name, err)
				}
				wantCalls(t, fc, 1, 1)
			})
		})
	}
}

// Each Save takes longer than half of RefreshTimeout, so each claim is too old to be used.
// Callers get an error.
func TestStoreThatIsTooSlowForClaimsIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := newFaultyStore()
		var seen events
		sessions := newSessions(t, fc, withStore(store), seen.observe)
		logIn(t, sessions, "a")
		time.Sleep(2 * time.Hour)
		store.set(func(s *faultyStore) {
			s.save = func(_ *fincodeauth.Record, save func() error) error {
				defer time.Sleep(8 * time.Second)
				return save()
			}
		})
		if waited := elapsed(func() {
			_, err := sessions.TokenSource("a").Token()
			wantNoLoginRequired(t, err)
		}); waited > 4*refreshTimeout {
			t.Errorf("the caller waited %v, want at most a minute", waited)
		}
		seen.want(t, fincodeauth.LoggedIn, fincodeauth.RefreshFailed)
		wantCalls(t, fc, 0, 0)
	})
}

// A wait for the turn is no wait for another process.
func TestCallerThatWaitedLongForItsTurnIsServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		sessions := newSessions(t, fc)
		logIn(t, sessions, "a")
		time.Sleep(2 * time.Hour)
		fc.Inject(fincodetest.Login, 4, fincodetest.Fault{Before: refreshTimeout - time.Second})
		for range 4 {
			go sessions.Login(t.Context(), "a", wrong)
		}
		synctest.Wait()
		if waited := elapsed(func() { token(t, sessions.TokenSource("a")) }); waited != 4*(refreshTimeout-time.Second) {
			t.Errorf("the caller waited %v, want as long as four logins take", waited)
		}
		wantCalls(t, fc, 1, 1)
	})
}

// Steps:
//  1. Process one claims, and FinCode refuses its token. Credentials takes so long that
//     the claim must be renewed.
//  2. Two logins wait for the turn of process one.
//  3. The claim is renewed before they get it, so process two does not take over.
func TestClaimIsRenewedBeforeOthersGetTheTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{RefreshLifetime: time.Hour})
		store := fincodeauth.NewMemoryStore()
		slow := func(c *fincodeauth.Config) {
			c.Credentials = func(_ context.Context, _ string, cause error) (fincodeauth.Credentials, error) {
				wantSessionError(t, cause, false, false)
				time.Sleep(9 * time.Second)
				return credentials, nil
			}
		}
		one, two := newSessions(t, fc, withStore(store), slow), newSessions(t, fc, withStore(store), slow)
		logIn(t, one, "a")
		old := record(t, store, "a").Token.RefreshToken
		time.Sleep(2 * time.Hour)
		fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{Before: time.Second})
		fc.Inject(fincodetest.Login, 3, fincodetest.Fault{Before: 14 * time.Second})
		go one.TokenSource("a").Token()
		time.Sleep(500 * time.Millisecond)
		for range 2 {
			go one.Login(t.Context(), "a", wrong)
		}
		token(t, two.TokenSource("a"))
		time.Sleep(time.Minute)
		if n := fc.Presented(old); n != 1 {
			t.Errorf("the refused token was presented %d times, want once", n)
		}
	})
}

// Steps:
//  1. Credentials of a session is slow, and an Adopt waits for the turn.
//  2. The session that was adopted needs a login, too. Credentials is asked again: what
//     it returned before was for another session.
func TestCredentialsAreAskedAgainForAnotherSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{RefreshLifetime: time.Hour})
		asked := 0
		sessions := newSessions(t, fc, func(c *fincodeauth.Config) {
			c.Credentials = func(context.Context, string, error) (fincodeauth.Credentials, error) {
				asked++
				time.Sleep(9 * time.Second)
				return credentials, nil
			}
		})
		logIn(t, sessions, "a")
		time.Sleep(2 * time.Hour)
		go sessions.TokenSource("a").Token()
		time.Sleep(time.Second)
		if err := sessions.Adopt(t.Context(), "a", &oauth2.Token{RefreshToken: "of-another-user"}); err != nil {
			t.Error(err)
		}
		token(t, sessions.TokenSource("a"))
		if asked != 2 {
			t.Errorf("Credentials was asked %d times, want twice", asked)
		}
	})
}

// A context that Credentials was given says nothing once Credentials has returned.
func TestContextOfCredentialsMayBeKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{RefreshLifetime: time.Hour})
		var kept context.Context
		sessions := newSessions(t, fc, func(c *fincodeauth.Config) {
			c.Credentials = func(ctx context.Context, _ string, _ error) (fincodeauth.Credentials, error) {
				kept = context.WithoutCancel(ctx)
				return credentials, nil
			}
		})
		logIn(t, sessions, "a")
		time.Sleep(2 * time.Hour)
		token(t, sessions.TokenSource("a"))
		if err := sessions.Login(kept, "a", credentials); err != nil {
			t.Errorf("Login = %v, want nil", err)
		}
	})
}

// A Store of a test may end the goroutine that calls it (testing.T.FailNow). The turn ends
// all the same.
func TestTurnEndsIfTheStoreEndsTheGoroutine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := newFaultyStore()
		sessions := newSessions(t, fc, withStore(store))
		logIn(t, sessions, "a")
		time.Sleep(2 * time.Hour)
		var once sync.Once
		store.set(func(s *faultyStore) {
			s.save = func(rec *fincodeauth.Record, save func() error) error {
				if isSuccessor(rec) {
					once.Do(runtime.Goexit)
				}
				return save()
			}
		})
		token(t, sessions.TokenSource("a"))
		logIn(t, sessions, "a")
		if err := sessions.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}
