package fincodeauth_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
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

func TestEightProcessesPresentEachRefreshTokenOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{RevokeFamilyOnReuse: true, RevokeOnRotation: true})
		fc.Inject(fincodetest.Refresh, -1, fincodetest.Fault{Before: 300 * time.Millisecond, After: 200 * time.Millisecond})
		store := fincodeauth.NewMemoryStore()
		processes := make([]*fincodeauth.Sessions, 8)
		for i := range processes {
			processes[i] = newSessions(t, fc, withStore(store))
		}
		logIn(t, processes[0], "a")
		var wg sync.WaitGroup
		for i, p := range processes {
			wg.Go(func() {
				client := p.Client("a")
				for n := range 200 {
					time.Sleep(time.Duration(97+i) * time.Second) // past several expiries
					resp, err := client.Get(fincodeauth.Sandbox("test") + "/whoami")
					if err != nil {
						t.Errorf("process %d, request %d: %v", i, n, err)
						return
					}
					resp.Body.Close()
					if resp.StatusCode != http.StatusOK {
						t.Errorf("process %d, request %d: status %d", i, n, resp.StatusCode)
					}
				}
			})
		}
		wg.Wait()
		c := fc.Counts()
		if twice := fc.PresentedMoreThanOnce(); c.Reuses != 0 || c.MaxParallelRefreshes != 1 || len(twice) != 0 {
			t.Errorf("counts %+v, presented twice %v; want each token once", c, twice)
		}
		if c.Refreshes < 5 || c.Refreshes > 8 {
			t.Errorf("%d refreshes in five to six hours", c.Refreshes)
		}
	})
}

func TestAllProcessesAtExpiryShareOneRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		fc.Inject(fincodetest.Refresh, -1, fincodetest.Fault{Before: 2 * time.Second})
		store := fincodeauth.NewMemoryStore()
		var seen events
		processes := make([]*fincodeauth.Sessions, 8)
		for i := range processes {
			processes[i] = newSessions(t, fc, withStore(store), seen.observe)
		}
		logIn(t, processes[0], "a")
		for _, p := range processes {
			token(t, p.TokenSource("a"))
		}
		seen.types()
		time.Sleep(2 * time.Hour)
		var wg sync.WaitGroup
		for _, p := range processes {
			wg.Go(func() { token(t, p.TokenSource("a")) })
		}
		if waited := elapsed(wg.Wait); waited > 3*time.Second {
			t.Errorf("the processes waited %v for a refresh of 2 s", waited)
		}
		wantCalls(t, fc, 1, 1)
		count := make(map[fincodeauth.EventType]int)
		for _, typ := range seen.types() {
			count[typ]++
		}
		if count[fincodeauth.Refreshed] != 1 || count[fincodeauth.Adopted] != 7 || len(count) != 2 {
			t.Errorf("events %v, want one Refreshed and seven Adopted", count)
		}
	})
}

func TestTakeoverIgnoresTheTimestampOfTheClaim(t *testing.T) {
	for name, offset := range map[string]time.Duration{"right": 0, "behind": -1000 * time.Hour, "ahead": 1000 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fc := fincodetest.New(fincodetest.Config{})
				store := fincodeauth.NewMemoryStore()
				saveDeadClaim(t, fc, store, time.Now().Add(offset), false)
				time.Sleep(2 * time.Hour)
				sessions := newSessions(t, fc, withStore(store))
				waited := elapsed(func() { token(t, sessions.TokenSource("a")) })
				if waited < 2*refreshTimeout || waited > 2*refreshTimeout+time.Second {
					t.Errorf("waited %v, want twice RefreshTimeout", waited)
				}
				wantCalls(t, fc, 1, 1)
			})
		})
	}
}

func TestCallersDoNotWaitForAnotherClaimWhileTheTokenIsValid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := fincodeauth.NewMemoryStore()
		saveDeadClaim(t, fc, store, time.Now(), false)
		sessions := newSessions(t, fc, withStore(store))
		src := sessions.TokenSource("a")
		time.Sleep(56 * time.Minute)
		for range 29 {
			if waited := elapsed(func() { token(t, src) }); waited > 0 {
				t.Errorf("a caller waited %v", waited)
			}
			time.Sleep(time.Second)
		}
		wantCalls(t, fc, 0, 0)
		time.Sleep(5 * time.Second)
		token(t, src) // now the owner is gone
		synctest.Wait()
		wantCalls(t, fc, 1, 1)
	})
}

func TestTakeoverOfARotatedTokenEndsAsInterrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := fincodeauth.NewMemoryStore()
		saveDeadClaim(t, fc, store, time.Now(), true)
		time.Sleep(2 * time.Hour)
		var seen events
		sessions := newSessions(t, fc, withStore(store), seen.observe)
		_, err := sessions.TokenSource("a").Token()
		wantSessionError(t, err, true, true)
		_, again := sessions.TokenSource("a").Token()
		if again.Error() != err.Error() || !strings.Contains(err.Error(), "refresh token reused after an interruption: refresh-token answered 403") {
			t.Errorf("first error %v, then %v: want the same, with the verdict in it", err, again)
		}
		seen.want(t, fincodeauth.Ended)
		if rec := record(t, store, "a"); rec.Ended == "" || rec.Token.AccessToken+rec.Token.RefreshToken != "" {
			t.Errorf("%v has tokens or no end", rec)
		}
		wantCalls(t, fc, 2, 1)
		if err := sessions.Logout(t.Context(), "a"); err != nil {
			t.Error(err)
		}
		seen.want(t, fincodeauth.LoggedOut)
	})
}

func TestInterruptionIsRememberedAfterAnAttemptThatWasNotProcessed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := fincodeauth.NewMemoryStore()
		saveDeadClaim(t, fc, store, time.Now(), true)
		fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{Kind: fincodetest.ErrorStatus, Status: 429})
		time.Sleep(2 * time.Hour)
		if _, err := newSessions(t, fc, withStore(store)).TokenSource("a").Token(); errors.Is(err, fincodeauth.ErrLoginRequired) {
			t.Fatalf("error %v ends the session", err)
		}
		// That process dies too; the next one must not cry breach.
		_, err := newSessions(t, fc, withStore(store)).TokenSource("a").Token()
		wantSessionError(t, err, true, true)
	})
}

func TestLostAnswerEndsTheSessionAsInterrupted(t *testing.T) {
	for name, fault := range map[string]fincodetest.Fault{
		"hung up":           {Kind: fincodetest.HangUp, TakesEffect: true},
		"500":               {Kind: fincodetest.ErrorStatus, TakesEffect: true},
		"garbage":           {Kind: fincodetest.Garbage, TakesEffect: true},
		"truncated":         {Kind: fincodetest.Truncated},
		"longer than 1 MiB": {Kind: fincodetest.Oversized},
		"timed out":         {After: time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fc := fincodetest.New(fincodetest.Config{})
				store := fincodeauth.NewMemoryStore()
				one, two := newSessions(t, fc, withStore(store)), newSessions(t, fc, withStore(store))
				logIn(t, one, "a")
				time.Sleep(2 * time.Hour)
				fc.Inject(fincodetest.Refresh, 1, fault)
				if _, err := one.TokenSource("a").Token(); err == nil || errors.Is(err, fincodeauth.ErrLoginRequired) || errors.Is(err, context.DeadlineExceeded) {
					t.Fatalf("error %v, want that of the lost answer, not of a context of ours", err)
				}
				time.Sleep(2 * time.Second)
				_, err := one.TokenSource("a").Token()
				wantSessionError(t, err, true, true)
				_, err = two.TokenSource("a").Token()
				wantSessionError(t, err, true, true)
				time.Sleep(time.Hour)
				_, err = one.TokenSource("a").Token()
				wantSessionError(t, err, true, true)
				wantCalls(t, fc, 2, 1)
			})
		})
	}
}

func TestCallLostBeforeTheRotationKeepsTheSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		sessions := newSessions(t, fc)
		logIn(t, sessions, "a")
		time.Sleep(2 * time.Hour)
		fc.Inject(fincodetest.Refresh, 2, fincodetest.Fault{Kind: fincodetest.HangUp})
		src := sessions.TokenSource("a")
		for range 2 {
			if _, err := src.Token(); !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("error %v, want that of the connection", err)
			}
			time.Sleep(3 * time.Second)
		}
		token(t, src)
		wantCalls(t, fc, 3, 1)
	})
}

func TestStolenTokenEndsAsABreachWithoutANewLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{RevokeFamilyOnReuse: true})
		store := fincodeauth.NewMemoryStore()
		one := newSessions(t, fc, withStore(store), withCredentials)
		two := newSessions(t, fc, withStore(store), withCredentials)
		logIn(t, one, "a")
		present(t, fc, record(t, store, "a").Token.RefreshToken) // the thief
		time.Sleep(2 * time.Hour)
		_, err := one.TokenSource("a").Token()
		wantSessionError(t, err, true, false)
		_, err = two.TokenSource("a").Token()
		wantSessionError(t, err, true, false)
		if n := fc.Counts().Logins; n != 1 {
			t.Errorf("%d logins: a breach was covered up", n)
		}
		wantCalls(t, fc, 2, 1)
	})
}

func TestRejectedTokenEndsTheSession(t *testing.T) {
	for name, cfg := range map[string]fincodetest.Config{
		"envelope":   {RefreshLifetime: time.Hour},
		"empty body": {RefreshLifetime: time.Hour, EmptyRefusals: true},
		"as 200":     {RefreshLifetime: time.Hour, FailuresAs200: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fc := fincodetest.New(cfg)
				sessions := newSessions(t, fc)
				logIn(t, sessions, "a")
				time.Sleep(2 * time.Hour)
				for range 3 {
					_, err := sessions.TokenSource("a").Token()
					wantSessionError(t, err, false, false)
				}
				wantCalls(t, fc, 1, 0)
				logIn(t, sessions, "a")
				token(t, sessions.TokenSource("a"))
			})
		})
	}
}

func TestReuseReportedWithStatus200IsRecognized(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{FailuresAs200: true})
		store := fincodeauth.NewMemoryStore()
		sessions := newSessions(t, fc, withStore(store))
		logIn(t, sessions, "a")
		present(t, fc, record(t, store, "a").Token.RefreshToken)
		time.Sleep(2 * time.Hour)
		_, err := sessions.TokenSource("a").Token()
		wantSessionError(t, err, true, false)
	})
}

func TestFirewallPageDoesNotEndTheSession(t *testing.T) {
	for _, status := range []int{401, 403} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fc := fincodetest.New(fincodetest.Config{})
				store := fincodeauth.NewMemoryStore()
				sessions := newSessions(t, fc, withStore(store))
				logIn(t, sessions, "a")
				time.Sleep(2 * time.Hour)
				fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{Kind: fincodetest.FirewallPage, Status: status})
				if _, err := sessions.TokenSource("a").Token(); err == nil || errors.Is(err, fincodeauth.ErrLoginRequired) {
					t.Fatalf("error %v, want one that ends nothing", err)
				}
				if rec := record(t, store, "a"); !rec.RefreshStarted.IsZero() || rec.Ended != "" {
					t.Errorf("%v, want neither claim nor end", rec)
				}
				time.Sleep(2 * time.Second)
				token(t, sessions.TokenSource("a"))
			})
		})
	}
}

func TestRefreshThatFinCodeDidNotProcessReleasesTheClaim(t *testing.T) {
	answer := func(status int, body string) roundTripper {
		return func(r *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: status, Header: http.Header{"Location": {"https://elsewhere.example/"}},
				Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
		}
	}
	fail := func(err error) roundTripper {
		return func(*http.Request) (*http.Response, error) { return nil, err }
	}
	for name, refuse := range map[string]roundTripper{
		"refused":      fail(&net.OpError{Op: "dial", Err: errors.New("connection refused")}),
		"no such host": fail(&net.DNSError{Err: "no such host", IsNotFound: true}),
		"400":          answer(400, `{"success":false,"error":{"code":"VALIDATION_ERROR"}}`),
		"422 as 200":   answer(200, `{"success":false,"error":{"code":"VALIDATION_ERROR"}}`),
		"429":          answer(429, ""),
		"redirect":     answer(307, ""),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fc := fincodetest.New(fincodetest.Config{})
				store := fincodeauth.NewMemoryStore()
				var down atomic.Bool
				one := newSessions(t, fc, withStore(store), func(c *fincodeauth.Config) {
					c.Base = roundTripper(func(r *http.Request) (*http.Response, error) {
						if down.Load() {
							return refuse(r)
						}
						return fc.RoundTrip(r)
					})
				})
				logIn(t, one, "a")
				down.Store(true)
				time.Sleep(2 * time.Hour)
				if _, err := one.TokenSource("a").Token(); err == nil || errors.Is(err, fincodeauth.ErrLoginRequired) {
					t.Fatalf("error %v, want the call's", err)
				}
				two := newSessions(t, fc, withStore(store))
				if waited := elapsed(func() { token(t, two.TokenSource("a")) }); waited > 0 {
					t.Errorf("the other process waited %v for a claim that nobody holds", waited)
				}
				if waited := elapsed(func() { token(t, one.TokenSource("a")) }); waited > 0 {
					t.Errorf("the first process waited %v for a token that the store has", waited)
				}
			})
		})
	}
}

func TestOnlyOneProcessLogsInAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{RefreshLifetime: time.Hour})
		fc.Inject(fincodetest.Login, -1, fincodetest.Fault{Before: time.Second})
		store := fincodeauth.NewMemoryStore()
		var asked atomic.Int32
		processes := make([]*fincodeauth.Sessions, 8)
		for i := range processes {
			processes[i] = newSessions(t, fc, withStore(store), func(c *fincodeauth.Config) {
				c.Credentials = func(_ context.Context, key string, cause error) (fincodeauth.Credentials, error) {
					asked.Add(1)
					if key != "a" || !errors.Is(cause, fincodeauth.ErrLoginRequired) {
						t.Errorf("asked for %q because of %v", key, cause)
					}
					return credentials, nil
				}
			})
		}
		logIn(t, processes[0], "a")
		time.Sleep(2 * time.Hour)
		var wg sync.WaitGroup
		for _, p := range processes {
			wg.Go(func() { token(t, p.TokenSource("a")) })
		}
		wg.Wait()
		if c := fc.Counts(); c.Logins != 2 || c.RefreshCalls != 1 || asked.Load() != 1 {
			t.Errorf("counts %+v, asked %d times; want one refresh call and one login more", c, asked.Load())
		}
	})
}

func TestCredentialsLogInAgainAfterALostAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		sessions := newSessions(t, fc, func(c *fincodeauth.Config) {
			c.Credentials = func(_ context.Context, _ string, cause error) (fincodeauth.Credentials, error) {
				wantSessionError(t, cause, true, true)
				return credentials, nil
			}
		})
		logIn(t, sessions, "a")
		time.Sleep(2 * time.Hour)
		fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{Kind: fincodetest.HangUp, TakesEffect: true})
		if _, err := sessions.TokenSource("a").Token(); err == nil {
			t.Fatal("the lost answer was not noticed")
		}
		time.Sleep(2 * time.Second)
		token(t, sessions.TokenSource("a"))
	})
}

func TestSessionEndsIfTheNewLoginIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{RefreshLifetime: time.Hour})
		sessions := newSessions(t, fc, func(c *fincodeauth.Config) {
			c.Credentials = func(context.Context, string, error) (fincodeauth.Credentials, error) {
				return fincodeauth.Credentials{Email: fincodetest.Email, Password: "changed-last-week"}, nil
			}
		})
		logIn(t, sessions, "a")
		time.Sleep(2 * time.Hour)
		_, err := sessions.TokenSource("a").Token()
		wantSessionError(t, err, false, false)
		if !errors.Is(err, fincodeauth.ErrBadCredentials) {
			t.Errorf("error %v does not say why the login failed", err)
		}
		_, err = sessions.TokenSource("a").Token()
		wantSessionError(t, err, false, false)
		wantCalls(t, fc, 1, 0)
	})
}

func TestCredentialsIsCalledAgainAfterItFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{RefreshLifetime: time.Hour})
		vaultDown := errors.New("vault is down")
		answers := []error{vaultDown, nil}
		sessions := newSessions(t, fc, func(c *fincodeauth.Config) {
			c.Credentials = func(context.Context, string, error) (fincodeauth.Credentials, error) {
				err := answers[0]
				answers = answers[1:]
				return credentials, err
			}
		})
		logIn(t, sessions, "a")
		time.Sleep(2 * time.Hour)
		if _, err := sessions.TokenSource("a").Token(); !errors.Is(err, vaultDown) || errors.Is(err, fincodeauth.ErrLoginRequired) {
			t.Fatalf("error %v, want that of Credentials", err)
		}
		time.Sleep(2 * time.Second)
		token(t, sessions.TokenSource("a"))
		wantCalls(t, fc, 1, 0)
	})
}

func TestCredentialsMayDeclineByReturningTheCause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{RefreshLifetime: time.Hour})
		store := fincodeauth.NewMemoryStore()
		sessions := newSessions(t, fc, withStore(store), func(c *fincodeauth.Config) {
			c.Credentials = func(_ context.Context, _ string, cause error) (fincodeauth.Credentials, error) {
				return fincodeauth.Credentials{}, cause
			}
		})
		logIn(t, sessions, "a")
		time.Sleep(2 * time.Hour)
		_, err := sessions.TokenSource("a").Token()
		wantSessionError(t, err, false, false)
		if rec := record(t, store, "a"); rec.Ended == "" {
			t.Errorf("%v did not end", rec)
		}
	})
}

func TestFailedNewLoginIsRetriedWithoutPresentingTheDeadToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{RefreshLifetime: time.Hour})
		sessions := newSessions(t, fc, withCredentials)
		logIn(t, sessions, "a")
		time.Sleep(2 * time.Hour)
		fc.Inject(fincodetest.Login, 1, fincodetest.Fault{Kind: fincodetest.ErrorStatus, Status: 503})
		if _, err := sessions.TokenSource("a").Token(); err == nil || errors.Is(err, fincodeauth.ErrLoginRequired) {
			t.Fatalf("error %v, want FinCode's 503", err)
		}
		time.Sleep(2 * time.Second)
		token(t, sessions.TokenSource("a"))
		wantCalls(t, fc, 1, 0)
	})
}

func TestFailedNewLoginIsNotRetriedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{RefreshLifetime: time.Hour})
		var logins atomic.Int32
		sessions := newSessions(t, fc, withCredentials, func(c *fincodeauth.Config) {
			c.Base = roundTripper(func(r *http.Request) (*http.Response, error) {
				if strings.HasSuffix(r.URL.Path, "/login") {
					logins.Add(1)
				}
				return fc.RoundTrip(r)
			})
		})
		logIn(t, sessions, "a")
		time.Sleep(2 * time.Hour)
		logins.Store(0)
		fc.Inject(fincodetest.Login, -1, fincodetest.Fault{Kind: fincodetest.ErrorStatus, Status: 503})
		for range 7 {
			if _, err := sessions.TokenSource("a").Token(); err == nil {
				t.Error("there is a token, although no login succeeded")
			}
			time.Sleep(100 * time.Millisecond)
		}
		if n := logins.Load(); n != 1 {
			t.Errorf("%d logins within 0.7 s, want 1", n)
		}
	})
}

// What FinCode asked for was about the token before.
func TestAdoptedTokenIsRefreshedInTimeAfterAnEarlierFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := fincodeauth.NewMemoryStore()
		one, two := newSessions(t, fc, withStore(store)), newSessions(t, fc, withStore(store))
		logIn(t, one, "a")
		time.Sleep(58 * time.Minute)
		fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{Kind: fincodetest.ErrorStatus, Status: 503, RetryAfter: "3600"})
		token(t, one.TokenSource("a"))
		synctest.Wait()
		// FinCode did not process that, so two takes the claim over.
		time.Sleep(time.Minute)
		token(t, two.TokenSource("a"))
		time.Sleep(time.Minute)
		token(t, two.TokenSource("a"))
		synctest.Wait()
		adopted := token(t, one.TokenSource("a"))
		wantCalls(t, fc, 2, 1)
		time.Sleep(56 * time.Minute) // an hour since the failure is not over
		token(t, one.TokenSource("a"))
		synctest.Wait()
		wantCalls(t, fc, 3, 2)
		if token(t, one.TokenSource("a")) == adopted {
			t.Error("the token was not refreshed")
		}
	})
}

func TestStoreThatIsDownEndsNoSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := newFaultyStore()
		sessions := newSessions(t, fc, withStore(store))
		logIn(t, sessions, "a")
		src := sessions.TokenSource("a")
		time.Sleep(56 * time.Minute)
		store.down(true)
		token(t, src)
		time.Sleep(time.Hour)
		if _, err := src.Token(); !errors.Is(err, errStoreDown) {
			t.Errorf("error %v, want the store's", err)
		}
		wantCalls(t, fc, 0, 0)
		store.down(false)
		token(t, src)
		wantCalls(t, fc, 1, 1)
	})
}

func TestFailedSaveThatReachedTheStoreIsFoundByALoad(t *testing.T) {
	for name, successor := range map[string]bool{"claim": false, "new token": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fc := fincodetest.New(fincodetest.Config{})
				store := newFaultyStore()
				var seen events
				sessions := newSessions(t, fc, withStore(store), seen.observe)
				logIn(t, sessions, "a")
				time.Sleep(2 * time.Hour)
				store.set(func(s *faultyStore) {
					s.save = func(rec *fincodeauth.Record, save func() error) error {
						if err := save(); err != nil || isSuccessor(rec) != successor {
							return err
						}
						return errStoreDown
					}
				})
				token(t, sessions.TokenSource("a"))
				seen.want(t, fincodeauth.LoggedIn, fincodeauth.Refreshed)
				wantCalls(t, fc, 1, 1)
			})
		})
	}
}

// delayClaim has src's claim fail, and returns what lets the store carry it out
// after all.
func delayClaim(t *testing.T, store *faultyStore, src *fincodeauth.TokenSource) (land func()) {
	t.Helper()
	store.set(func(s *faultyStore) {
		s.save = func(rec *fincodeauth.Record, _ func() error) error {
			prev := record(t, store, "a").Version
			land = func() {
				if err := store.MemoryStore.Save(context.Background(), "a", rec, prev); err != nil {
					t.Error(err)
				}
			}
			return errStoreDown
		}
	})
	if _, err := src.Token(); !errors.Is(err, errStoreDown) {
		t.Fatalf("error %v, want the store's", err)
	}
	store.down(false)
	return land
}

func TestClaimThatIsSavedLateIsRecognizedAsOurs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := newFaultyStore()
		sessions := newSessions(t, fc, withStore(store))
		logIn(t, sessions, "a")
		time.Sleep(2 * time.Hour)
		land := delayClaim(t, store, sessions.TokenSource("a"))
		land()
		if waited := elapsed(func() { token(t, sessions.TokenSource("a")) }); waited > 0 {
			t.Errorf("waited %v for a claim of our own", waited)
		}
		wantCalls(t, fc, 1, 1)
	})
}

func TestSlowClaimIsRenewedBeforeItIsUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := newFaultyStore()
		sessions := newSessions(t, fc, withStore(store))
		logIn(t, sessions, "a")
		time.Sleep(2 * time.Hour)
		claims := 0
		store.set(func(s *faultyStore) {
			s.save = func(rec *fincodeauth.Record, save func() error) error {
				err := save()
				if !isSuccessor(rec) {
					if claims++; claims == 1 {
						time.Sleep(10 * time.Second) // it is in the store, but we do not know yet
					}
				}
				return err
			}
		})
		token(t, sessions.TokenSource("a"))
		if claims != 2 {
			t.Errorf("%d claims, want the first to have been renewed", claims)
		}
		wantCalls(t, fc, 1, 1)
	})
}

// renewalFails returns a process whose claim is in the store, and the store, that
// did not take its renewal; the process does not know that.
func renewalFails(t *testing.T, fc *fincodetest.FinCode) (*fincodeauth.Sessions, *faultyStore) {
	t.Helper()
	store := newFaultyStore()
	sessions := newSessions(t, fc, withStore(store))
	logIn(t, sessions, "a")
	time.Sleep(2 * time.Hour)
	claims := 0
	store.set(func(s *faultyStore) {
		s.save = func(_ *fincodeauth.Record, save func() error) error {
			if claims++; claims == 2 {
				return errStoreDown
			}
			err := save()
			time.Sleep(10 * time.Second) // so that it has to be renewed
			return err
		}
	})
	if _, err := sessions.TokenSource("a").Token(); !errors.Is(err, errStoreDown) {
		t.Fatalf("error %v, want the store's", err)
	}
	store.down(false)
	if rec := record(t, store, "a"); claims != 2 || rec.RefreshStarted.IsZero() {
		t.Fatalf("%d claims, and %v in the store; want the first of two", claims, rec)
	}
	return sessions, store
}

func TestProcessDoesNotWaitForItsOwnClaimAfterAFailedRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		sessions, _ := renewalFails(t, fc)
		if waited := elapsed(func() { token(t, sessions.TokenSource("a")) }); waited > 0 {
			t.Errorf("waited %v for a claim of our own", waited)
		}
		wantCalls(t, fc, 1, 1)
	})
}

func TestBreachAfterAFailedRenewalIsNotInterrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		sessions, store := renewalFails(t, fc)
		present(t, fc, record(t, store, "a").Token.RefreshToken) // the thief
		_, err := sessions.TokenSource("a").Token()
		wantSessionError(t, err, true, false)
	})
}

func TestNoVersionIsSavedTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store, other := newFaultyStores()
		one, two := newSessions(t, fc, withStore(store)), newSessions(t, fc, withStore(other))
		saved := make(map[string]int)
		other.set(countSaves(saved))
		logIn(t, two, "a")
		time.Sleep(2 * time.Hour)

		// The claim of the first is in the store, but it cannot know. The other
		// takes it over, and leaves a claim of its own.
		store.set(cutOffAfter(isClaim))
		store.set(countSaves(saved))
		if _, err := one.TokenSource("a").Token(); !errors.Is(err, errStoreDown) {
			t.Fatalf("error %v, want the store's", err)
		}
		fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{Kind: fincodetest.ErrorStatus, Status: 503})
		if _, err := two.TokenSource("a").Token(); err == nil || errors.Is(err, fincodeauth.ErrLoginRequired) {
			t.Fatalf("error %v, want FinCode's 503", err)
		}

		store.down(false)
		store.set(countSaves(saved))
		token(t, one.TokenSource("a")) // takes over in its turn
		if len(saved) < 5 {
			t.Errorf("%d versions, want at least those of a login, three claims and a new token", len(saved))
		}
		for version, times := range saved {
			if times > 1 {
				t.Errorf("version %s was saved %d times", version, times)
			}
		}
		wantCalls(t, fc, 2, 1)
	})
}

func TestClaimIsRenewedAfterTheMachineWasSuspended(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := newFaultyStore()
		laptop := newMachine()
		sessions := laptop.newSessions(t, fc, withStore(store))
		logIn(t, sessions, "a")
		time.Sleep(2 * time.Hour)
		claims := suspendAfterClaim(store, laptop, refreshTimeout/2+time.Second)
		token(t, sessions.TokenSource("a"))
		if n := claims.Load(); n != 2 {
			t.Errorf("%d claims, want the first to have been renewed", n)
		}
		wantCalls(t, fc, 1, 1)
	})
}

func TestTokenTakenOverDuringASuspensionIsNotPresented(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := newFaultyStore()
		laptop := newMachine()
		suspended, awake := laptop.newSessions(t, fc, withStore(store)), newSessions(t, fc, withStore(store))
		logIn(t, suspended, "a")
		time.Sleep(2 * time.Hour)
		suspendAfterClaim(store, laptop, time.Minute)
		got := make(chan *oauth2.Token, 1)
		go func() { got <- token(t, suspended.TokenSource("a")) }()
		time.Sleep(time.Second)
		want := token(t, awake.TokenSource("a"))
		if tok := <-got; tok == nil || tok.AccessToken != want.AccessToken {
			t.Error("the suspended process did not take the other's token")
		}
		wantCalls(t, fc, 1, 1)
	})
}

// suspendAfterClaim suspends the machine for d when the first claim from now on
// is in the store, and counts the claims.
func suspendAfterClaim(store *faultyStore, m *machine, d time.Duration) *atomic.Int32 {
	claims := new(atomic.Int32)
	store.set(func(s *faultyStore) {
		s.save = func(rec *fincodeauth.Record, save func() error) error {
			err := save()
			if !isSuccessor(rec) && claims.Add(1) == 1 {
				m.suspend(d)
			}
			return err
		}
	})
	return claims
}

func TestRefusedTokenIsNotPresentedAgainAfterTheClockWasSetBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{RefreshLifetime: time.Hour})
		store := fincodeauth.NewMemoryStore()
		logIn(t, newSessions(t, fc, withStore(store)), "a")
		old := record(t, store, "a").Token.AccessToken
		time.Sleep(2 * time.Hour)

		server := newMachine()
		sessions := server.newSessions(t, fc, withStore(store), withCredentials)
		fc.Inject(fincodetest.Login, 1, fincodetest.Fault{Kind: fincodetest.ErrorStatus, Status: 503})
		if _, err := sessions.TokenSource("a").Token(); err == nil || errors.Is(err, fincodeauth.ErrLoginRequired) {
			t.Fatalf("error %v, want FinCode's 503", err)
		}
		server.set(-90 * time.Minute)
		if token(t, sessions.TokenSource("a")).AccessToken != old {
			t.Fatal("the old token does not look good")
		}
		time.Sleep(time.Hour)
		if tok := token(t, sessions.TokenSource("a")); whoami(t, fc, tok) != http.StatusOK {
			t.Error("there was no login again")
		}
		wantCalls(t, fc, 1, 0)
	})
}

func TestClaimSavedAfterTheClockWasSetBackIsRecognizedAsOurs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := newFaultyStore()
		logIn(t, newSessions(t, fc, withStore(store)), "a")
		time.Sleep(2 * time.Hour)

		server := newMachine()
		sessions := server.newSessions(t, fc, withStore(store))
		land := delayClaim(t, store, sessions.TokenSource("a"))
		server.set(-90 * time.Minute)
		token(t, sessions.TokenSource("a")) // looks good again
		land()
		server.set(90 * time.Minute)
		if waited := elapsed(func() { token(t, sessions.TokenSource("a")) }); waited > 0 {
			t.Errorf("waited %v for a claim of our own", waited)
		}
		wantCalls(t, fc, 1, 1)
	})
}

func TestSessionWithoutARefreshTokenIsNeverInterrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store, other := newFaultyStores()
		one, two := newSessions(t, fc, withStore(store)), newSessions(t, fc, withStore(other))
		if err := one.Adopt(t.Context(), "a", &oauth2.Token{AccessToken: "one", ExpiresIn: 60}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Minute)
		store.set(cutOffAfter(isClaim))
		if _, err := one.TokenSource("a").Token(); !errors.Is(err, errStoreDown) {
			t.Errorf("error %v, want the store's", err)
		}
		_, err := two.TokenSource("a").Token() // takes over
		wantSessionError(t, err, false, false)
	})
}

// A staleStore loads, until then, the record that it had before.
type staleStore struct {
	fincodeauth.Store
	before *fincodeauth.Record
	until  time.Time
	saves  atomic.Int32
}

func (s *staleStore) Load(ctx context.Context, key string) (*fincodeauth.Record, error) {
	if time.Now().Before(s.until) {
		copied, tok := *s.before, *s.before.Token
		copied.Token = &tok
		return &copied, nil
	}
	return s.Store.Load(ctx, key)
}

func (s *staleStore) Save(ctx context.Context, key string, rec *fincodeauth.Record, prev string) error {
	s.saves.Add(1)
	return s.Store.Save(ctx, key, rec, prev)
}

// No store may do so, but a replica does.
func TestStoreThatLoadsAReplacedRecordIsPolledWithPauses(t *testing.T) {
	for name, try := range map[string]func(context.Context, *fincodeauth.Sessions) error{
		"Token": func(_ context.Context, s *fincodeauth.Sessions) error {
			_, err := s.TokenSource("a").Token()
			return err
		},
		"Login":  func(ctx context.Context, s *fincodeauth.Sessions) error { return s.Login(ctx, "a", credentials) },
		"Logout": func(ctx context.Context, s *fincodeauth.Sessions) error { return s.Logout(ctx, "a") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fc := fincodetest.New(fincodetest.Config{})
				right := fincodeauth.NewMemoryStore()
				other := newSessions(t, fc, withStore(right))
				logIn(t, other, "a")
				store := &staleStore{Store: right, before: record(t, right, "a")}
				sessions := newSessions(t, fc, withStore(store))
				time.Sleep(2 * time.Hour)
				token(t, other.TokenSource("a"))
				store.until = time.Now().Add(20 * time.Second)
				if err := try(t.Context(), sessions); name != "Logout" && err != nil {
					t.Error(err)
				} else if name == "Logout" && (err == nil || !strings.Contains(err.Error(), "was replaced")) {
					t.Errorf("error %v, want one that says what is wrong with the store", err)
				}
				time.Sleep(time.Minute)
				if n := store.saves.Load(); n > 50 {
					t.Errorf("%d Saves in 20 s", n)
				}
			})
		})
	}
}

func TestProcessesSpreadTheirEarlyRefreshes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for random, want := range map[float64]time.Duration{0: 55 * time.Minute, 0.5: 55*time.Minute + 15*time.Second} {
			fc := fincodetest.New(fincodetest.Config{})
			cfg := fincodeauth.Config{BaseURL: fincodeauth.Sandbox("test"), Base: fc}
			sessions, err := fincodeauth.NewOn(cfg, time.Now, func() float64 { return random })
			if err != nil {
				t.Fatal(err)
			}
			logIn(t, sessions, "a")
			time.Sleep(want - time.Second)
			token(t, sessions.TokenSource("a"))
			synctest.Wait()
			wantCalls(t, fc, 0, 0)
			time.Sleep(2 * time.Second)
			token(t, sessions.TokenSource("a"))
			synctest.Wait()
			wantCalls(t, fc, 1, 1)
		}
	})
}

func TestPollsOfAnotherClaimSlowDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store, other := newFaultyStores()
		one, two := newSessions(t, fc, withStore(store)), newSessions(t, fc, withStore(other))
		logIn(t, one, "a")
		time.Sleep(2 * time.Hour)
		fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{Before: 10 * time.Second})
		go one.TokenSource("a").Token()
		time.Sleep(time.Millisecond)
		var loads atomic.Int32
		other.set(func(s *faultyStore) { s.load = func() error { loads.Add(1); return nil } })
		token(t, two.TokenSource("a"))
		if n := loads.Load(); n < 20 || n > 40 { // 25 ms, doubling to 500 ms, less some jitter
			t.Errorf("%d loads in 10 s", n)
		}
	})
}

func TestRetryAfterIsHonouredForAnHourAtMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		sessions := newSessions(t, fc)
		logIn(t, sessions, "a")
		time.Sleep(2 * time.Hour)
		fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{Kind: fincodetest.ErrorStatus, Status: 429, RetryAfter: "86400"})
		for _, pause := range []time.Duration{time.Hour - time.Second, 2 * time.Second} {
			if _, err := sessions.TokenSource("a").Token(); err == nil {
				t.Error("a token although FinCode asked to wait")
			}
			time.Sleep(pause)
		}
		token(t, sessions.TokenSource("a"))
	})
}

func TestLoginDuringARefreshWins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := fincodeauth.NewMemoryStore()
		one, two := newSessions(t, fc, withStore(store)), newSessions(t, fc, withStore(store))
		logIn(t, one, "a")
		time.Sleep(2 * time.Hour)
		fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{After: 2 * time.Second})
		got := make(chan *oauth2.Token, 1)
		go func() { got <- token(t, one.TokenSource("a")) }()
		time.Sleep(time.Second)
		logIn(t, two, "a")
		want := token(t, two.TokenSource("a"))
		if tok := <-got; tok.AccessToken != want.AccessToken {
			t.Error("the refreshing process did not take the new login's token")
		}
		synctest.Wait()
		if record(t, store, "a").Token.AccessToken != want.AccessToken {
			t.Error("the store does not have the new login's token")
		}
	})
}

func TestSessionSurvivesALoginDuringALoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := newFaultyStore()
		sessions := newSessions(t, fc, withStore(store))
		logIn(t, sessions, "a")
		time.Sleep(2 * time.Hour)
		var first atomic.Bool
		store.set(func(s *faultyStore) {
			s.load = func() error {
				if first.CompareAndSwap(false, true) {
					time.Sleep(time.Second) // a slow read
				}
				return nil
			}
		})
		go sessions.TokenSource("a").Token()
		time.Sleep(100 * time.Millisecond)
		logIn(t, sessions, "a") // returns nil
		time.Sleep(5 * time.Second)
		if st := whoami(t, fc, token(t, sessions.TokenSource("a"))); st != 200 {
			t.Errorf("token after Login answers %d", st)
		}
		time.Sleep(56 * time.Minute)
		for range 100 {
			if _, err := sessions.TokenSource("a").Token(); err != nil {
				t.Fatalf("session is lost: %v", err)
			}
			time.Sleep(time.Second)
		}
	})
}

func TestLoginDuringALoadIsNotFollowedByARefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := newFaultyStore()
		sessions := newSessions(t, fc, withStore(store))
		logIn(t, sessions, "a")
		time.Sleep(2 * time.Hour)
		var first atomic.Bool
		store.set(func(s *faultyStore) {
			s.load = func() error {
				if first.CompareAndSwap(false, true) {
					time.Sleep(time.Second)
				}
				return nil
			}
		})
		go sessions.TokenSource("a").Token()
		time.Sleep(100 * time.Millisecond)
		logIn(t, sessions, "a")
		tok := token(t, sessions.TokenSource("a"))
		time.Sleep(5 * time.Second)
		if token(t, sessions.TokenSource("a")) != tok {
			t.Error("the token of the Login was refreshed away")
		}
		wantCalls(t, fc, 0, 0)
	})
}

func TestStoreOutageIsNotMistakenForADeadOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{After: 2 * time.Second})
		store := newFaultyStore()
		one, two := newSessions(t, fc, withStore(store)), newSessions(t, fc, withStore(store))
		logIn(t, one, "a")
		token(t, two.TokenSource("a"))
		time.Sleep(56 * time.Minute)
		token(t, one.TokenSource("a"))
		time.Sleep(time.Second)
		token(t, two.TokenSource("a")) // sees the claim
		synctest.Wait()
		store.down(true)
		for range 60 {
			time.Sleep(time.Second)
			token(t, one.TokenSource("a"))
			token(t, two.TokenSource("a"))
		}
		store.down(false)
		for range 30 {
			time.Sleep(200 * time.Millisecond)
			if _, err := two.TokenSource("a").Token(); err != nil {
				t.Errorf("two: %v", err)
				break
			}
		}
		time.Sleep(10 * time.Second)
		if _, err := one.TokenSource("a").Token(); err != nil {
			t.Errorf("one: %v", err)
		}
	})
}

func TestWriteOutageIsNotMistakenForADeadOwner(t *testing.T) {
	for outage := 35; outage < 75; outage++ {
		t.Run("", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fc := fincodetest.New(fincodetest.Config{})
				fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{After: 2 * time.Second})
				store := newFaultyStore()
				one, two := newSessions(t, fc, withStore(store)), newSessions(t, fc, withStore(store))
				logIn(t, one, "a")
				token(t, two.TokenSource("a"))
				time.Sleep(56 * time.Minute)
				token(t, one.TokenSource("a")) // claims, presents
				time.Sleep(time.Second)
				store.set(func(s *faultyStore) { // read-only
					s.save = func(*fincodeauth.Record, func() error) error { return errStoreDown }
				})
				for range outage {
					time.Sleep(time.Second)
					token(t, one.TokenSource("a"))
					token(t, two.TokenSource("a"))
				}
				store.down(false)
				for range 300 {
					time.Sleep(100 * time.Millisecond)
					if _, err := two.TokenSource("a").Token(); err != nil {
						t.Errorf("two: %v", err)
						break
					}
				}
				time.Sleep(10 * time.Second)
				if _, err := one.TokenSource("a").Token(); err != nil {
					t.Errorf("one: %v", err)
				}
			})
		})
	}
}

func TestSlowCredentialsAreNotMistakenForADeadOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{RefreshLifetime: time.Hour})
		store := fincodeauth.NewMemoryStore()
		slow := func(c *fincodeauth.Config) {
			c.Credentials = func(context.Context, string, error) (fincodeauth.Credentials, error) {
				time.Sleep(14 * time.Second)
				return credentials, nil
			}
		}
		one, two := newSessions(t, fc, withStore(store), slow), newSessions(t, fc, withStore(store), slow)
		logIn(t, one, "a")
		time.Sleep(2 * time.Hour)
		fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{Before: 5 * time.Second})
		fc.Inject(fincodetest.Login, -1, fincodetest.Fault{Before: 14 * time.Second})
		var wg sync.WaitGroup
		for _, s := range []*fincodeauth.Sessions{one, two} {
			wg.Go(func() { token(t, s.TokenSource("a")) })
		}
		wg.Wait()
		time.Sleep(time.Minute)
		if c := fc.Counts(); c.Logins != 2 || c.RefreshCalls != 1 {
			t.Errorf("counts %+v", c)
		}
	})
}

func TestCredentialsAreForgottenAfterTheFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{RefreshLifetime: time.Hour})
		fc.AddUser("u@example.com", "new-password")
		store := newFaultyStore()
		pw := "old-password"
		asked := 0
		sessions := newSessions(t, fc, withStore(store), func(c *fincodeauth.Config) {
			c.Credentials = func(context.Context, string, error) (fincodeauth.Credentials, error) {
				asked++
				time.Sleep(8 * time.Second)
				return fincodeauth.Credentials{Email: "u@example.com", Password: pw}, nil
			}
		})
		logIn(t, sessions, "a")
		time.Sleep(2 * time.Hour)
		go func() { time.Sleep(4 * time.Second); store.down(true) }()
		if _, err := sessions.TokenSource("a").Token(); !errors.Is(err, errStoreDown) {
			t.Fatalf("error %v, want the store's", err)
		}
		store.down(false)
		pw = "new-password"
		time.Sleep(24 * time.Hour)
		if _, err := sessions.TokenSource("a").Token(); err != nil {
			t.Errorf("asked %d: %v", asked, err)
		}
	})
}

func TestTokenRefusedBeforeCloseIsNotPresentedByTheNextProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{RefreshLifetime: time.Hour})
		store := newFaultyStore()
		one, two := newSessions(t, fc, withStore(store), withCredentials), newSessions(t, fc, withStore(store), withCredentials)
		logIn(t, one, "a")
		time.Sleep(2 * time.Hour)
		fc.Inject(fincodetest.Login, 1, fincodetest.Fault{Kind: fincodetest.ErrorStatus, Status: 503})
		if _, err := one.TokenSource("a").Token(); err == nil {
			t.Fatal("FinCode's 503 was not noticed")
		}
		time.Sleep(2 * time.Second)
		store.set(func(s *faultyStore) {
			s.save = func(_ *fincodeauth.Record, save func() error) error { time.Sleep(2 * time.Second); return save() }
		})
		go one.TokenSource("a").Token() // renews its claim, to log in
		time.Sleep(time.Second)
		if err := one.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		store.down(false)
		if waited := elapsed(func() { token(t, two.TokenSource("a")) }); waited > 0 {
			t.Errorf("the next process waited %v for the claim of the one that is gone", waited)
		}
		wantCalls(t, fc, 1, 0)
	})
}

func TestFailureBeforeALoginDelaysNoLaterRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		sessions := newSessions(t, fc)
		logIn(t, sessions, "a")
		time.Sleep(2 * time.Hour)
		fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{Kind: fincodetest.ErrorStatus, Status: 429, RetryAfter: "3600", Before: 2 * time.Second})
		go sessions.TokenSource("a").Token()
		time.Sleep(time.Second)
		logIn(t, sessions, "a")
		time.Sleep(55*time.Minute + 30*time.Second)
		fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{Before: 2 * time.Second})
		for range 400 {
			if w := elapsed(func() { token(t, sessions.TokenSource("a")) }); w > 0 {
				t.Errorf("waited %v", w)
			}
			time.Sleep(time.Second)
		}
		wantCalls(t, fc, 2, 1)
	})
}

func TestRefreshedTokenIsNotUsedAfterALogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := newFaultyStore()
		sessions := newSessions(t, fc, withStore(store))
		logIn(t, sessions, "a")
		time.Sleep(2 * time.Hour)
		fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{After: 2 * time.Second})
		go sessions.TokenSource("a").Token()
		time.Sleep(time.Second)
		logIn(t, sessions, "a")
		mine := token(t, sessions.TokenSource("a"))
		store.set(func(s *faultyStore) {
			s.save = func(_ *fincodeauth.Record, save func() error) error { time.Sleep(time.Second); return save() }
		})
		time.Sleep(1500 * time.Millisecond) // the answer is here
		if token(t, sessions.TokenSource("a")) != mine {
			t.Error("a caller gets the token of the session that the login replaced")
		}
		time.Sleep(10 * time.Second)
	})
}
