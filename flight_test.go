package fincodeauth_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/oauth2"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/fincodetest"
	"github.com/fincodeauth/fincodeauth/internal/simulation"
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
					time.Sleep(time.Duration(97+i) * time.Second) // in 200 requests, several tokens expire
					resp, err := client.Get(fincodeauth.Sandbox("test") + "/whoami")
					if err != nil {
						t.Errorf("process %d, request %d: got error %v, want status 200", i, n, err)
						return
					}
					resp.Body.Close()
					if resp.StatusCode != http.StatusOK {
						t.Errorf("process %d, request %d: got status %d, want 200", i, n, resp.StatusCode)
					}
				}
			})
		}
		wg.Wait()
		c := fc.Counts()
		if twice := fc.PresentedMoreThanOnce(); c.Reuses != 0 || c.MaxParallelRefreshes != 1 || len(twice) != 0 {
			t.Errorf("got counts %+v, and these tokens were presented more than once: %v; want each token presented once", c, twice)
		}
		if c.Refreshes < 5 || c.Refreshes > 8 {
			t.Errorf("got %d refreshes in five to six hours, want 5 to 8", c.Refreshes)
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
			t.Errorf("the processes waited %v for a refresh that takes 2 s, want at most 3 s", waited)
		}
		wantCalls(t, fc, 1, 1)
		count := make(map[fincodeauth.EventType]int)
		for _, typ := range seen.types() {
			count[typ]++
		}
		if count[fincodeauth.Refreshed] != 1 || count[fincodeauth.Adopted] != 7 || len(count) != 2 {
			t.Errorf("got events %v, want one Refreshed and seven Adopted", count)
		}
	})
}

// The clock of the dead process may have been wrong, so the timestamp in its claim
// says nothing about the age of the claim.
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
					t.Errorf("waited %v before the takeover, want twice RefreshTimeout", waited)
				}
				wantCalls(t, fc, 1, 1)
			})
		})
	}
}

// The wait for the dead process does not count as a failure to claim.
func TestTakeoverFromAProcessWithAMuchLongerTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := fincodeauth.NewMemoryStore()
		saveDeadClaim(t, fc, store, time.Now(), false)
		rec := record(t, store, "a")
		prev := rec.Version
		rec.Version, rec.RefreshTimeout = "of-a-slow-process", 10*refreshTimeout
		if err := store.Save(t.Context(), "a", rec, prev); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Hour)
		sessions := newSessions(t, fc, withStore(store))
		waited := elapsed(func() { token(t, sessions.TokenSource("a")) })
		if waited < 20*refreshTimeout || waited > 20*refreshTimeout+time.Second {
			t.Errorf("waited %v before the takeover, want twice the longer RefreshTimeout", waited)
		}
	})
}

func TestEventsSayThatARefreshWasTakenOver(t *testing.T) {
	for name, rotated := range map[string]bool{"refreshed": false, "ended": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fc := fincodetest.New(fincodetest.Config{})
				store := fincodeauth.NewMemoryStore()
				saveDeadClaim(t, fc, store, time.Now(), rotated)
				time.Sleep(2 * time.Hour)
				var seen events
				src := newSessions(t, fc, withStore(store), seen.observe).TokenSource("a")
				for range 2 { // the claim is renewed after a failure, and stays a takeover
					fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{Kind: fincodetest.ErrorStatus, Status: 503})
					src.Token()
					time.Sleep(2 * time.Hour)
				}
				src.Token()
				synctest.Wait()
				all := seen.all
				if last := all[len(all)-1]; !last.TookOver {
					t.Errorf("the last event is %+v, want TookOver", last)
				}
				if rotated {
					return
				}
				time.Sleep(2 * time.Hour)
				token(t, src)
				synctest.Wait()
				if last := seen.all[len(seen.all)-1]; last.Type != fincodeauth.Refreshed || last.TookOver {
					t.Errorf("the event after the next refresh is %+v, want a Refreshed without TookOver", last)
				}
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
				t.Errorf("a caller waited %v, want no wait: the token is valid", waited)
			}
			time.Sleep(time.Second)
		}
		wantCalls(t, fc, 0, 0)
		time.Sleep(5 * time.Second)
		token(t, src) // the claim has not changed for 30 s: this call starts the takeover
		synctest.Wait()
		wantCalls(t, fc, 1, 1)
	})
}

// Steps:
//  1. A process claims the refresh, FinCode rotates the token, the process dies.
//  2. A second process takes over, and FinCode says that the token was used.
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
			t.Errorf("got error %v, and then %v; want the same text twice, with FinCode's refusal in it", err, again)
		}
		seen.want(t, fincodeauth.Ended)
		if rec := record(t, store, "a"); rec.Ended == "" || rec.Token.AccessToken+rec.Token.RefreshToken != "" {
			t.Errorf("the store has %v, want an ended session without tokens", rec)
		}
		wantCalls(t, fc, 2, 1)
		if err := sessions.Logout(t.Context(), "a"); err != nil {
			t.Error(err)
		}
		seen.want(t, fincodeauth.LoggedOut)
	})
}

// Steps:
//  1. A process claims the refresh, FinCode rotates the token, the process dies.
//  2. A second process takes over. FinCode answers 429, so it did not process the
//     refresh.
//  3. The second process dies too.
//  4. A third process presents the token and learns that it was used. The cause is the
//     death of the first process.
func TestInterruptionIsRememberedAfterAnAttemptThatWasNotProcessed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := fincodeauth.NewMemoryStore()
		saveDeadClaim(t, fc, store, time.Now(), true)
		fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{Kind: fincodetest.ErrorStatus, Status: 429})
		time.Sleep(2 * time.Hour)
		if _, err := newSessions(t, fc, withStore(store)).TokenSource("a").Token(); errors.Is(err, fincodeauth.ErrLoginRequired) {
			t.Fatalf("got error %v, want one that does not end the session", err)
		}
		_, err := newSessions(t, fc, withStore(store)).TokenSource("a").Token()
		wantSessionError(t, err, true, true)
	})
}

// Steps:
//  1. FinCode rotates the token, and the answer is lost.
//  2. The process presents the token once more, because nobody knows its
//     successor.
//  3. FinCode says that the token was used. Later calls and other processes present
//     nothing.
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
					t.Fatalf("got error %v, want one about the lost answer, and no context error of the package's own timeout", err)
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
				t.Errorf("got error %v, want the error of the connection", err)
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
		present(t, fc, record(t, store, "a").Token.RefreshToken) // a thief
		time.Sleep(2 * time.Hour)
		_, err := one.TokenSource("a").Token()
		wantSessionError(t, err, true, false)
		_, err = two.TokenSource("a").Token()
		wantSessionError(t, err, true, false)
		if n := fc.Counts().Logins; n != 1 {
			t.Errorf("got %d logins, want 1: a new login would hide the breach", n)
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
					t.Fatalf("got error %v, want one that does not end the session", err)
				}
				if rec := record(t, store, "a"); !rec.RefreshStarted.IsZero() || rec.Ended != "" {
					t.Errorf("the store has %v, want a record without a claim and without an end", rec)
				}
				time.Sleep(2 * time.Second)
				token(t, sessions.TokenSource("a"))
			})
		})
	}
}

func TestRefreshThatFinCodeDidNotProcessReleasesTheClaim(t *testing.T) {
	fail := func(err error) roundTripper {
		return func(*http.Request) (*http.Response, error) { return nil, err }
	}
	for name, refusing := range map[string]http.RoundTripper{
		"refused":      fail(&net.OpError{Op: "dial", Err: errors.New("connection refused")}),
		"no such host": fail(&net.DNSError{Err: "no such host", IsNotFound: true}),
		"400":          answering(400, nil, `{"success":false,"error":{"code":"VALIDATION_ERROR"}}`),
		"422 as 200":   answering(200, nil, `{"success":false,"error":{"code":"VALIDATION_ERROR"}}`),
		"429":          answering(429, nil, ""),
		"redirect":     answering(307, http.Header{"Location": {"https://elsewhere.example/"}}, ""),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fc := fincodetest.New(fincodetest.Config{})
				store := fincodeauth.NewMemoryStore()
				var down atomic.Bool
				one := newSessions(t, fc, withStore(store), func(c *fincodeauth.Config) {
					c.Base = roundTripper(func(r *http.Request) (*http.Response, error) {
						if down.Load() {
							return refusing.RoundTrip(r)
						}
						return fc.RoundTrip(r)
					})
				})
				logIn(t, one, "a")
				down.Store(true)
				time.Sleep(2 * time.Hour)
				if _, err := one.TokenSource("a").Token(); err == nil || errors.Is(err, fincodeauth.ErrLoginRequired) {
					t.Fatalf("got error %v, want the error of the refresh call", err)
				}
				two := newSessions(t, fc, withStore(store))
				if waited := elapsed(func() { token(t, two.TokenSource("a")) }); waited > 0 {
					t.Errorf("the other process waited %v, want no wait: the claim was released", waited)
				}
				if waited := elapsed(func() { token(t, one.TokenSource("a")) }); waited > 0 {
					t.Errorf("the first process waited %v, want no wait: the store has a new token", waited)
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
						t.Errorf("Credentials was called for %q with cause %v, want \"a\" and ErrLoginRequired", key, cause)
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
			t.Errorf("got counts %+v and %d calls of Credentials, want one refresh call, two logins and one call of Credentials", c, asked.Load())
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
			t.Fatal("got no error, want one for the lost answer")
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
			t.Errorf("got error %v, want ErrBadCredentials in it", err)
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
			t.Fatalf("got error %v, want the error that Credentials returned", err)
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
			t.Errorf("the store has %v, want an ended session", rec)
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
			t.Fatalf("got error %v, want FinCode's 503", err)
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
				t.Error("got a token, want an error: no login succeeded")
			}
			time.Sleep(100 * time.Millisecond)
		}
		if n := logins.Load(); n != 1 {
			t.Errorf("got %d logins within 0.7 s, want 1", n)
		}
	})
}

// Steps:
//  1. Process one's refresh fails, and FinCode asks to wait an hour.
//  2. Process two takes over and refreshes.
//  3. Process one adopts the new token.
//  4. That token is due in less than an hour after the failure. Process one refreshes
//     it in time: the wait was for the earlier token.
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
		// The outcome of a 503 is unknown, so process one keeps its claim until
		// process two takes over.
		time.Sleep(time.Minute)
		token(t, two.TokenSource("a"))
		time.Sleep(time.Minute)
		token(t, two.TokenSource("a"))
		synctest.Wait()
		adopted := token(t, one.TokenSource("a"))
		wantCalls(t, fc, 2, 1)
		time.Sleep(56 * time.Minute) // less than an hour since the failure
		token(t, one.TokenSource("a"))
		synctest.Wait()
		wantCalls(t, fc, 3, 2)
		if token(t, one.TokenSource("a")) == adopted {
			t.Error("the adopted token is still in use, want it refreshed")
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
			t.Errorf("got error %v, want the store's", err)
		}
		wantCalls(t, fc, 0, 0)
		store.down(false)
		token(t, src)
		wantCalls(t, fc, 1, 1)
	})
}

// The store saves the record, but the Save returns an error. A Load then shows that
// the record is there.
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

// delayClaim makes the Save of src's claim fail. It returns a function that carries
// out this Save after all, as a slow store may.
func delayClaim(t *testing.T, store *faultyStore, src *fincodeauth.TokenSource) (saveNow func()) {
	t.Helper()
	store.set(func(s *faultyStore) {
		s.save = func(rec *fincodeauth.Record, _ func() error) error {
			prev := record(t, store, "a").Version
			saveNow = func() {
				if err := store.MemoryStore.Save(context.Background(), "a", rec, prev); err != nil {
					t.Error(err)
				}
			}
			return errStoreDown
		}
	})
	if _, err := src.Token(); !errors.Is(err, errStoreDown) {
		t.Fatalf("got error %v, want the store's", err)
	}
	store.down(false)
	return saveNow
}

// Steps:
//  1. The Save of a claim fails.
//  2. The store carries out the Save after all.
//  3. The process loads the record with its own claim, and does not wait for it.
func TestClaimThatIsSavedLateIsRecognizedAsOurs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := newFaultyStore()
		sessions := newSessions(t, fc, withStore(store))
		logIn(t, sessions, "a")
		time.Sleep(2 * time.Hour)
		saveNow := delayClaim(t, store, sessions.TokenSource("a"))
		saveNow()
		if waited := elapsed(func() { token(t, sessions.TokenSource("a")) }); waited > 0 {
			t.Errorf("waited %v, want no wait: the claim is this process's own", waited)
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
						time.Sleep(10 * time.Second) // the claim is saved, but the answer is slow: more than half of RefreshTimeout
					}
				}
				return err
			}
		})
		token(t, sessions.TokenSource("a"))
		if claims != 2 {
			t.Errorf("got %d claims, want 2: the first claim and its renewal", claims)
		}
		wantCalls(t, fc, 1, 1)
	})
}

// renewalFails returns a process whose claim is in the store, and the store:
//  1. The process claims the refresh. The Save is slow.
//  2. The claim is too old to be used, so the process renews it.
//  3. This Save fails: the first claim is still in the store, but the process cannot
//     be sure of that.
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
			time.Sleep(10 * time.Second) // so that the claim must be renewed
			return err
		}
	})
	if _, err := sessions.TokenSource("a").Token(); !errors.Is(err, errStoreDown) {
		t.Fatalf("got error %v, want the store's", err)
	}
	store.down(false)
	if rec := record(t, store, "a"); claims != 2 || rec.RefreshStarted.IsZero() {
		t.Fatalf("got %d attempts to claim, and the store has %v; want 2 attempts, and the first claim in the store", claims, rec)
	}
	return sessions, store
}

func TestProcessDoesNotWaitForItsOwnClaimAfterAFailedRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		sessions, _ := renewalFails(t, fc)
		if waited := elapsed(func() { token(t, sessions.TokenSource("a")) }); waited > 0 {
			t.Errorf("waited %v, want no wait: the claim is this process's own", waited)
		}
		wantCalls(t, fc, 1, 1)
	})
}

func TestBreachAfterAFailedRenewalIsNotInterrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		sessions, store := renewalFails(t, fc)
		present(t, fc, record(t, store, "a").Token.RefreshToken) // a thief
		_, err := sessions.TokenSource("a").Token()
		wantSessionError(t, err, true, false)
	})
}

// Steps:
//  1. Process one claims. The claim is saved, but process one gets no answer.
//  2. Process two takes over and claims. FinCode answers 503, so process two keeps
//     its claim.
//  3. Process one takes over in turn, over another record than that of its first
//     claim. Its new claim needs a new version: if the first version came back,
//     process two would believe that process one's claim had never
//     changed.
func TestNoVersionIsSavedTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store, other := newFaultyStores()
		one, two := newSessions(t, fc, withStore(store)), newSessions(t, fc, withStore(other))
		saved := make(map[string]int)
		other.set(countSaves(saved))
		logIn(t, two, "a")
		time.Sleep(2 * time.Hour)

		store.set(cutOffAfter(isClaim))
		store.set(countSaves(saved))
		if _, err := one.TokenSource("a").Token(); !errors.Is(err, errStoreDown) {
			t.Fatalf("got error %v, want the store's", err)
		}
		fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{Kind: fincodetest.ErrorStatus, Status: 503})
		if _, err := two.TokenSource("a").Token(); err == nil || errors.Is(err, fincodeauth.ErrLoginRequired) {
			t.Fatalf("got error %v, want FinCode's 503", err)
		}
		store.down(false)
		store.set(countSaves(saved))
		token(t, one.TokenSource("a"))
		if len(saved) < 5 {
			t.Errorf("got %d versions, want at least 5: a login, three claims and a new token", len(saved))
		}
		for version, times := range saved {
			if times > 1 {
				t.Errorf("version %s was saved %d times, want once", version, times)
			}
		}
		wantCalls(t, fc, 2, 1)
	})
}

// Steps:
//  1. The process on the laptop claims, and the laptop is suspended for more than half
//     of RefreshTimeout.
//  2. The laptop wakes up. The claim is too old to be used, so the process renews it.
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
			t.Errorf("got %d claims, want 2: the first claim and its renewal", n)
		}
		wantCalls(t, fc, 1, 1)
	})
}

// Steps:
//  1. The process on the laptop claims, and the laptop is suspended.
//  2. A process elsewhere takes over and refreshes.
//  3. The laptop wakes up. Its claim is too old, so the process loads the record,
//     finds the new token and adopts it.
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
			t.Error("the suspended process has no token or a different one, want the token of the other process")
		}
		wantCalls(t, fc, 1, 1)
	})
}

// suspendAfterClaim suspends the machine for d after the next claim is in the
// store. It returns the number of claims.
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

// Steps:
//  1. FinCode refuses the refresh token, and the login that follows fails.
//  2. The clock is set back: the old access token looks valid, and is used.
//  3. The token expires again. The process logs in, and does not present the refused
//     token.
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
			t.Fatalf("got error %v, want FinCode's 503", err)
		}
		server.moveWallClock(-90 * time.Minute)
		if token(t, sessions.TokenSource("a")).AccessToken != old {
			t.Fatal("got another token, want the old one, which looks valid by this clock")
		}
		time.Sleep(time.Hour)
		if tok := token(t, sessions.TokenSource("a")); whoami(t, fc, tok) != http.StatusOK {
			t.Error("the token is not valid, want that of a new login")
		}
		wantCalls(t, fc, 1, 0)
	})
}

// Steps:
//  1. The Save of a claim fails.
//  2. The clock is set back: the old token looks valid, and is used.
//  3. The store carries out the Save after all.
//  4. The clock is right again, and the token is due. The process does not wait for
//     its own claim.
func TestClaimSavedAfterTheClockWasSetBackIsRecognizedAsOurs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := newFaultyStore()
		logIn(t, newSessions(t, fc, withStore(store)), "a")
		time.Sleep(2 * time.Hour)

		server := newMachine()
		sessions := server.newSessions(t, fc, withStore(store))
		saveNow := delayClaim(t, store, sessions.TokenSource("a"))
		server.moveWallClock(-90 * time.Minute)
		token(t, sessions.TokenSource("a"))
		saveNow()
		server.moveWallClock(90 * time.Minute)
		if waited := elapsed(func() { token(t, sessions.TokenSource("a")) }); waited > 0 {
			t.Errorf("waited %v, want no wait: the claim is this process's own", waited)
		}
		wantCalls(t, fc, 1, 1)
	})
}

// Process one claims and loses its connection to the store. Process two takes over
// and finds that there is no refresh token. Nobody can have presented it, so the end
// of the session is not Interrupted.
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
			t.Errorf("got error %v, want the store's", err)
		}
		_, err := two.TokenSource("a").Token() // takes over
		wantSessionError(t, err, false, false)
	})
}

// A staleStore returns an old record from every Load, until a certain time.
type staleStore struct {
	fincodeauth.Store
	before *fincodeauth.Record // the old record
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

// The contract of a Store forbids stale reads, but a database replica makes them.
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
					t.Errorf("got error %v, want one that says that the record was replaced", err)
				}
				time.Sleep(time.Minute)
				if n := store.saves.Load(); n > 50 {
					t.Errorf("got %d Saves in 20 s, want at most 50", n)
				}
			})
		})
	}
}

func TestProcessesSpreadTheirEarlyRefreshes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for random, due := range map[float64]time.Duration{0: 55 * time.Minute, 0.5: 55*time.Minute + 15*time.Second} {
			fc := fincodetest.New(fincodetest.Config{})
			cfg := fincodeauth.Config{BaseURL: fincodeauth.Sandbox("test"), Base: fc}
			sessions, err := fincodeauth.NewOn(cfg, time.Now, func() float64 { return random })
			if err != nil {
				t.Fatal(err)
			}
			logIn(t, sessions, "a")
			time.Sleep(due - time.Second)
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
		if n := loads.Load(); n < 20 || n > 40 { // pauses of 25 ms, doubling to 500 ms, less some jitter
			t.Errorf("got %d loads in 10 s, want 20 to 40", n)
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
				t.Error("got a token, want an error: FinCode asked for a longer wait")
			}
			time.Sleep(pause)
		}
		token(t, sessions.TokenSource("a"))
	})
}

// Steps:
//  1. Process one's refresh is under way.
//  2. Process two logs in.
//  3. Process one gets a new token, and finds the record of the login. Its callers get
//     the token of the login.
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
			t.Error("the process that was refreshing has another token, want that of the login")
		}
		synctest.Wait()
		if record(t, store, "a").Token.AccessToken != want.AccessToken {
			t.Error("the store has another token, want that of the login")
		}
	})
}

// Steps:
//  1. A refresh is due and loads the record, slowly.
//  2. A login waits until the refresh has ended, and replaces the session.
//  3. The token of the login stays in use, and is refreshed in time.
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
		logIn(t, sessions, "a")
		time.Sleep(5 * time.Second)
		if status := whoami(t, fc, token(t, sessions.TokenSource("a"))); status != 200 {
			t.Errorf("FinCode answers %d to the token after Login, want 200", status)
		}
		time.Sleep(56 * time.Minute)
		for range 100 {
			if _, err := sessions.TokenSource("a").Token(); err != nil {
				t.Fatalf("got error %v, want a token", err)
			}
			time.Sleep(time.Second)
		}
	})
}

// The steps are those of TestSessionSurvivesALoginDuringALoad. The login waits for the
// pass that is under way, which refreshes. No refresh follows the login.
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
			t.Error("got another token, want that of the Login")
		}
		wantCalls(t, fc, 1, 1)
	})
}

// Steps:
//  1. Process one claims and presents the token.
//  2. Process two sees the claim.
//  3. The store is down for a minute: process one cannot save the new token, and
//     process two cannot see whether the claim changes.
//  4. The store is back. Process two does not take over before process one has saved.
func TestStoreOutageIsNotMistakenForADeadOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{After: 2 * time.Second})
		store := newFaultyStore()
		one, two := newSessions(t, fc, withStore(store)), newSessions(t, fc, withStore(store))
		logIn(t, one, "a")
		token(t, two.TokenSource("a"))
		time.Sleep(56 * time.Minute)
		token(t, one.TokenSource("a")) // starts the refresh in the background
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
				t.Errorf("process two got error %v, want a token", err)
				break
			}
		}
		time.Sleep(10 * time.Second)
		if _, err := one.TokenSource("a").Token(); err != nil {
			t.Errorf("process one got error %v, want a token", err)
		}
	})
}

// Steps:
//  1. Process one claims and presents the token.
//  2. For outage seconds the store can be read but not written: process one cannot
//     save the new token, and process two cannot save a takeover.
//  3. The store is back. Process two may claim first, but then it waits, so that
//     process one can save its token over that claim.
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
				store.set(func(s *faultyStore) {
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
						t.Errorf("process two got error %v, want a token", err)
						break
					}
				}
				time.Sleep(10 * time.Second)
				if _, err := one.TokenSource("a").Token(); err != nil {
					t.Errorf("process one got error %v, want a token", err)
				}
			})
		})
	}
}

// FinCode refuses the token after 5 s, Credentials takes 14 s, and the login takes
// 14 s. The owner renews its claim in between, so nobody takes over.
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
			t.Errorf("got counts %+v, want two logins and one refresh call", c)
		}
	})
}

// Steps:
//  1. Credentials returns the old password, slowly.
//  2. Meanwhile the store goes down: the claim cannot be renewed, so no login is made.
//  3. The password changes.
//  4. The next flight calls Credentials again.
func TestCredentialsAreForgottenAfterTheFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{RefreshLifetime: time.Hour})
		fc.AddUser("u@example.com", "new-password")
		store := newFaultyStore()
		password := "old-password"
		asked := 0
		sessions := newSessions(t, fc, withStore(store), func(c *fincodeauth.Config) {
			c.Credentials = func(context.Context, string, error) (fincodeauth.Credentials, error) {
				asked++
				time.Sleep(8 * time.Second)
				return fincodeauth.Credentials{Email: "u@example.com", Password: password}, nil
			}
		})
		logIn(t, sessions, "a")
		time.Sleep(2 * time.Hour)
		go func() { time.Sleep(4 * time.Second); store.down(true) }()
		if _, err := sessions.TokenSource("a").Token(); !errors.Is(err, errStoreDown) {
			t.Fatalf("got error %v, want the store's", err)
		}
		store.down(false)
		password = "new-password"
		time.Sleep(24 * time.Hour)
		if _, err := sessions.TokenSource("a").Token(); err != nil {
			t.Errorf("got error %v after %d calls of Credentials, want a token", err, asked)
		}
	})
}

// Steps:
//  1. FinCode refuses process one's token, and the login that follows fails.
//  2. Process one renews its claim to log in again. The Save is slow.
//  3. Process one is closed, and gives the record back without the refused token.
//  4. Process two logs in without waiting.
func TestTokenRefusedBeforeCloseIsNotPresentedByTheNextProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{RefreshLifetime: time.Hour})
		store := newFaultyStore()
		one, two := newSessions(t, fc, withStore(store), withCredentials), newSessions(t, fc, withStore(store), withCredentials)
		logIn(t, one, "a")
		time.Sleep(2 * time.Hour)
		fc.Inject(fincodetest.Login, 1, fincodetest.Fault{Kind: fincodetest.ErrorStatus, Status: 503})
		if _, err := one.TokenSource("a").Token(); err == nil {
			t.Fatal("got no error, want FinCode's 503")
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
			t.Errorf("the next process waited %v, want no wait: the closed process released its claim", waited)
		}
		wantCalls(t, fc, 1, 0)
	})
}

// Steps:
//  1. A refresh is under way, and a login waits for it.
//  2. The refresh fails, and FinCode asks to wait an hour.
//  3. The login replaces the session.
//  4. The token of the login is refreshed as soon as it is due: the wait was for the
//     session that was replaced.
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
			if waited := elapsed(func() { token(t, sessions.TokenSource("a")) }); waited > 0 {
				t.Errorf("a caller waited %v, want no wait: the token was refreshed before it expired", waited)
			}
			time.Sleep(time.Second)
		}
		wantCalls(t, fc, 2, 1)
	})
}

func TestAnothersClaimIsLoadedOnceASecondWhileTheTokenIsValid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := newFaultyStore()
		one, two := newSessions(t, fc, withStore(store)), newSessions(t, fc, withStore(store))
		logIn(t, one, "a")
		token(t, two.TokenSource("a"))
		time.Sleep(56 * time.Minute)
		fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{Before: 10 * time.Second})
		token(t, one.TokenSource("a"))
		synctest.Wait()
		var loads atomic.Int32
		store.set(func(s *faultyStore) { s.load = func() error { loads.Add(1); return nil } })
		for range 500 { // for 5 s
			token(t, two.TokenSource("a"))
			time.Sleep(10 * time.Millisecond)
		}
		if n := loads.Load(); n < 4 || n > 6 {
			t.Errorf("%d Loads in 5 s, want one a second", n)
		}
		time.Sleep(time.Minute) // until the refresh has ended
	})
}

func TestCloseIsNoFailedRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := fincodeauth.NewMemoryStore()
		logIn(t, newSessions(t, fc, withStore(store)), "a")
		rec := record(t, store, "a")
		prev := rec.Version
		rec.Version, rec.RefreshStarted = "claim-of-another", time.Now()
		if err := store.Save(t.Context(), "a", rec, prev); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Hour)
		var seen events
		sessions := newSessions(t, fc, withStore(store), seen.observe)
		go sessions.TokenSource("a").Token() // waits for the other process
		time.Sleep(time.Second)
		if err := sessions.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		seen.want(t)
	})
}

func TestRefreshFailedIsSentOnceForEachFailedCall(t *testing.T) {
	errVaultDown := errors.New("the vault is down")
	for name, test := range map[string]struct {
		status int
		edit   func(asked *int) func(*fincodeauth.Config)
	}{
		"FinCode fails": {429, nil},
		"Credentials fail": {401, func(asked *int) func(*fincodeauth.Config) {
			return func(c *fincodeauth.Config) {
				c.Credentials = func(context.Context, string, error) (fincodeauth.Credentials, error) {
					*asked++
					return fincodeauth.Credentials{}, errVaultDown
				}
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fc := fincodetest.New(fincodetest.Config{})
				fc.Inject(fincodetest.Refresh, -1, fincodetest.Fault{Kind: fincodetest.ErrorStatus, Status: test.status})
				var seen events
				var asked int
				edits := []func(*fincodeauth.Config){seen.observe}
				if test.edit != nil {
					edits = append(edits, test.edit(&asked))
				}
				sessions := newSessions(t, fc, edits...)
				logIn(t, sessions, "a")
				time.Sleep(2 * time.Hour)
				for range 600 { // for a minute
					if _, err := sessions.TokenSource("a").Token(); err == nil {
						t.Fatal("there is a token, want an error")
					}
					time.Sleep(100 * time.Millisecond)
				}
				calls := fc.Counts().RefreshCalls
				if test.edit != nil {
					calls = asked
				}
				var sent int
				for _, e := range seen.types() {
					if e == fincodeauth.RefreshFailed {
						sent++
					}
				}
				if calls < 3 || sent != calls {
					t.Errorf("%d events RefreshFailed for %d failed calls, want one for each of several", sent, calls)
				}
			})
		})
	}
}

// Steps:
//  1. Two new tokens in a row expire on their way here.
//  2. The store fails to save the second one.
func TestExpiredTokensAreReportedEvenIfTheLastIsNotSaved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{AccessLifetime: time.Second})
		store := newFaultyStore()
		var seen events
		sessions := newSessions(t, fc, withStore(store), seen.observe)
		logIn(t, sessions, "a")
		time.Sleep(time.Minute)
		fc.Inject(fincodetest.Refresh, 2, fincodetest.Fault{After: 2 * time.Second})
		saves := 0
		store.set(func(s *faultyStore) {
			s.save = func(rec *fincodeauth.Record, save func() error) error {
				if isSuccessor(rec) {
					if saves++; saves == 2 {
						return errStoreDown
					}
				}
				return save()
			}
		})
		if _, err := sessions.TokenSource("a").Token(); err == nil || !strings.Contains(err.Error(), "already expired") {
			t.Errorf("Token = %v, want an error that says that the tokens had expired", err)
		}
		time.Sleep(time.Minute)
		if types := seen.types(); !slices.Contains(types, fincodeauth.RefreshFailed) {
			t.Errorf("events %v, want RefreshFailed among them", types)
		}
	})
}

// The monotonic clock stands still while a machine is suspended, and the wall clock may be
// set back. The older of the two ages counts.
func TestAgeOfAClaimIsThatOfTheClockThatMovedMore(t *testing.T) {
	noon := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	at := func(wall, monotonic time.Duration) time.Time {
		return simulation.Reading(noon.Add(wall), time.Hour+monotonic)
	}
	for name, c := range map[string]struct {
		now  time.Time
		want bool
	}{
		"at once":                                 {at(0, 0), false},
		"after half of the time":                  {at(refreshTimeout/2, refreshTimeout/2), false},
		"after more":                              {at(refreshTimeout/2+1, refreshTimeout/2+1), true},
		"after a suspension":                      {at(time.Minute, time.Second), true},
		"after the wall clock was set back":       {at(-time.Hour, time.Minute), true},
		"after a moment, and the clock set back":  {at(-time.Hour, time.Second), false},
		"after a moment, and the clock set ahead": {at(time.Hour, time.Second), true},
	} {
		if got := fincodeauth.ClaimIsOld(at(0, 0), c.now, refreshTimeout); got != c.want {
			t.Errorf("%s: the claim is old = %t, want %t", name, got, c.want)
		}
	}
}

// Steps:
//  1. A refresh brings a token. During its Save, the wall clock is set two hours ahead.
//  2. The token has expired by that clock. It is refreshed once more before a caller gets
//     one.
func TestTokenThatExpiredDuringItsSaveIsNotHandedOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := newFaultyStore()
		server := newMachine()
		sessions := server.newSessions(t, fc, withStore(store))
		logIn(t, sessions, "a")
		time.Sleep(2 * time.Hour)
		first := true
		store.set(func(s *faultyStore) {
			s.save = func(rec *fincodeauth.Record, save func() error) error {
				if first && isSuccessor(rec) {
					first = false
					server.moveWallClock(2 * time.Hour)
				}
				return save()
			}
		})
		if tok := token(t, sessions.TokenSource("a")); !tok.Expiry.After(server.now()) {
			t.Errorf("the token has expired at %v, and it is %v", tok.Expiry, server.now())
		}
		wantCalls(t, fc, 2, 2)
	})
}
