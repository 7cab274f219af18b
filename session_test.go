package fincodeauth_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
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
