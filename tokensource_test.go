package fincodeauth_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
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

func TestFiveThousandCallersAtExpiryMakeOneRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		fc.Inject(fincodetest.Refresh, -1, fincodetest.Fault{Before: time.Second})
		sessions := newSessions(t, fc)
		logIn(t, sessions, "a")
		src := sessions.TokenSource("a")
		old := token(t, src)
		time.Sleep(2 * time.Hour)

		var wg sync.WaitGroup
		for range 5000 {
			wg.Go(func() {
				tok, err := src.Token()
				if err != nil || tok.AccessToken == old.AccessToken {
					t.Errorf("got the old token %t, error %v; want a new token", tok == old, err)
				}
			})
		}
		wg.Wait()
		wantCalls(t, fc, 1, 1)
	})
}

func TestRefreshGoesOnAfterItsCallerLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{After: 5 * time.Second})
		store := fincodeauth.NewMemoryStore()
		sessions := newSessions(t, fc, withStore(store))
		logIn(t, sessions, "a")
		time.Sleep(2 * time.Hour)

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := sessions.TokenSource("a").TokenContext(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("got error %v, want the error of the context", err)
		}
		time.Sleep(10 * time.Second)
		if token(t, sessions.TokenSource("a")).AccessToken != record(t, store, "a").Token.AccessToken {
			t.Error("the store has another token, want the one in use")
		}
		wantCalls(t, fc, 1, 1)
	})
}

func TestCanceledCallerStartsNoRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		sessions := newSessions(t, fc)
		logIn(t, sessions, "a")
		time.Sleep(2 * time.Hour)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := sessions.TokenSource("a").TokenContext(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("got error %v, want the error of the context", err)
		}
		synctest.Wait()
		wantCalls(t, fc, 0, 0)
	})
}

func TestNoCallerWaitsWhileTheTokenIsValid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		fc.Inject(fincodetest.Refresh, -1, fincodetest.Fault{Before: time.Second, After: time.Second})
		sessions := newSessions(t, fc)
		logIn(t, sessions, "a")
		src := sessions.TokenSource("a")
		first := token(t, src)

		for range 4 * 60 * 60 { // one request a second for four hours
			if waited := elapsed(func() { token(t, src) }); waited > 0 {
				t.Fatalf("a caller waited %v, want no wait", waited)
			}
			time.Sleep(time.Second)
		}
		if token(t, src) == first {
			t.Error("the first token is still in use, want it refreshed")
		}
		if c := fc.Counts(); c.Refreshes != 4 || c.MaxParallelRefreshes != 1 {
			t.Errorf("got counts %+v, want four refreshes in four hours, one at a time", c)
		}
	})
}

func TestRefreshBeginsFiveMinutesBeforeExpiryLessARandomTenth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		sessions := newSessions(t, fc)
		logIn(t, sessions, "a")
		src := sessions.TokenSource("a")
		time.Sleep(55*time.Minute - time.Millisecond)
		token(t, src)
		synctest.Wait()
		wantCalls(t, fc, 0, 0)
		time.Sleep(30*time.Second + time.Millisecond)
		token(t, src)
		synctest.Wait()
		wantCalls(t, fc, 1, 1)
	})
}

func TestTokenReceivedExpiredIsRefreshedOnceMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		sessions := newSessions(t, fc, func(c *fincodeauth.Config) { c.RefreshTimeout = 3 * time.Hour })
		logIn(t, sessions, "a")
		time.Sleep(2 * time.Hour)
		fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{After: 2 * time.Hour}) // as if the machine slept
		if status := whoami(t, fc, token(t, sessions.TokenSource("a"))); status != http.StatusOK {
			t.Errorf("FinCode answers %d to the token, want 200", status)
		}
		wantCalls(t, fc, 2, 2)
	})
}

func TestTwoTokensReceivedExpiredAreAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		sessions := newSessions(t, fc, func(c *fincodeauth.Config) { c.RefreshTimeout = 3 * time.Hour })
		logIn(t, sessions, "a")
		time.Sleep(2 * time.Hour)
		fc.Inject(fincodetest.Refresh, 10, fincodetest.Fault{After: 2 * time.Hour})
		_, err := sessions.TokenSource("a").Token()
		if err == nil || !strings.Contains(err.Error(), "already expired") || errors.Is(err, fincodeauth.ErrLoginRequired) {
			t.Errorf("got error %v, want one that says that the token had already expired", err)
		}
		wantCalls(t, fc, 2, 2)
	})
}

func TestShortLivedTokenIsRefreshedInItsLastFifth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{AccessLifetime: 100 * time.Millisecond})
		sessions := newSessions(t, fc)
		logIn(t, sessions, "a")
		src := sessions.TokenSource("a")
		first := token(t, src)
		time.Sleep(79 * time.Millisecond)
		token(t, src)
		synctest.Wait()
		wantCalls(t, fc, 0, 0)
		time.Sleep(5 * time.Millisecond)
		if token(t, src) != first {
			t.Error("got another token, want the first one, which is still valid")
		}
		synctest.Wait()
		wantCalls(t, fc, 1, 1)
	})
}

// A request takes time to arrive, so a token counts as expired 10 s early.
func TestTokenIsNotHandedOutTenSecondsBeforeExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		sessions := newSessions(t, fc)
		logIn(t, sessions, "a")
		src := sessions.TokenSource("a")
		first := token(t, src)
		time.Sleep(time.Hour - 10*time.Second)
		if token(t, src) == first {
			t.Error("got the token that expires in 10 s, want a new one")
		}
	})
}

func TestFailedRefreshIsRetriedWithBackoffAndHiddenUntilExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		fc.Inject(fincodetest.Refresh, -1, fincodetest.Fault{Kind: fincodetest.ErrorStatus, Status: 429})
		var seen events
		sessions := newSessions(t, fc, seen.observe)
		logIn(t, sessions, "a")
		src := sessions.TokenSource("a")
		time.Sleep(56 * time.Minute)

		ask := func(n int) { // n times, every 100 ms
			for range n {
				token(t, src)
				time.Sleep(100 * time.Millisecond)
			}
		}
		ask(5)
		wantCalls(t, fc, 1, 0)
		ask(600)
		if n := fc.Counts().RefreshCalls; n < 6 || n > 9 { // at 0, ~1, ~3, ~7, ~15, ~31, ~60 s
			t.Errorf("got %d refresh calls in a minute, want 6 to 9: pauses that double from one second", n)
		}
		time.Sleep(4 * time.Minute)
		_, err := src.Token()
		var ee *fincodeauth.EndpointError
		if !errors.As(err, &ee) || ee.Status != 429 || ee.Op != "refresh-token" {
			t.Errorf("got error %v after expiry, want FinCode's 429", err)
		}
		before := fc.Counts().RefreshCalls
		if _, err := src.Token(); !errors.As(err, &ee) {
			t.Errorf("got error %v during the backoff, want FinCode's", err)
		}
		wantCalls(t, fc, before, 0)
		fc.ClearFaults()
		time.Sleep(time.Minute)
		token(t, src)
		wantCalls(t, fc, before+1, 1)

		for _, typ := range seen.types()[1:before] {
			if typ != fincodeauth.RefreshFailed {
				t.Errorf("got event %v, want one RefreshFailed for each call", typ)
			}
		}
	})
}

func TestRetryAfterIsHonoured(t *testing.T) {
	for name, value := range map[string]string{"seconds": "90", "date": ""} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				// FinCode's clock is wrong. A date in Retry-After is by that clock.
				fc := fincodetest.New(fincodetest.Config{ClockOffset: -7 * time.Hour})
				sessions := newSessions(t, fc)
				logIn(t, sessions, "a")
				time.Sleep(2 * time.Hour)
				if value == "" {
					value = time.Now().Add(90*time.Second - 7*time.Hour).UTC().Format(http.TimeFormat)
				}
				fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{Kind: fincodetest.ErrorStatus, Status: 503, RetryAfter: value})
				src := sessions.TokenSource("a")
				var ee *fincodeauth.EndpointError
				if _, err := src.Token(); !errors.As(err, &ee) || ee.RetryAfter.Round(time.Second) != 90*time.Second {
					t.Fatalf("got error %v, want one with RetryAfter of 90 s", err)
				}
				time.Sleep(88 * time.Second)
				if _, err := src.Token(); err == nil {
					t.Error("got a token before the end of Retry-After, want an error")
				}
				time.Sleep(3 * time.Second)
				token(t, src)
				wantCalls(t, fc, 2, 1)
			})
		})
	}
}

func TestWrongClockOfFinCodeChangesNothing(t *testing.T) {
	for _, offset := range []time.Duration{-30 * time.Hour, -time.Hour, time.Hour, 30 * time.Hour} {
		t.Run(offset.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fc := fincodetest.New(fincodetest.Config{ClockOffset: offset, ExpiresIn: fincodetest.ExpiresInAbsent})
				sessions := newSessions(t, fc)
				logIn(t, sessions, "a")
				src := sessions.TokenSource("a")
				for range 60 * 6 {
					token(t, src)
					time.Sleep(time.Minute)
				}
				if c := fc.Counts(); c.Refreshes != 6 && c.Refreshes != 7 {
					t.Errorf("got %d refreshes in six hours, want 6 or 7", c.Refreshes)
				}
			})
		})
	}
}

func TestEveryShapeOfAnswerIsUnderstood(t *testing.T) {
	for name, cfg := range map[string]fincodetest.Config{
		"snake case":             {},
		"camel case":             {CamelCase: true},
		"under data":             {UnderData: true},
		"camel case under data":  {CamelCase: true, UnderData: true},
		"expires_in as a string": {ExpiresIn: fincodetest.ExpiresInString},
		"expires_in fractional":  {ExpiresIn: fincodetest.ExpiresInFraction},
		"expires_in absent":      {ExpiresIn: fincodetest.ExpiresInAbsent},
		"opaque tokens":          {OpaqueTokens: true},
		"no new refresh token":   {KeepRefreshToken: true},
		"access token revoked":   {RevokeOnRotation: true},
		"encrypted passwords":    {RequireEncryption: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fc := fincodetest.New(cfg)
				sessions := newSessions(t, fc)
				c := credentials
				if cfg.RequireEncryption {
					var err error
					if c.PublicKey, err = fincodeauth.ParsePublicKey(fc.PublicKey()); err != nil {
						t.Fatal(err)
					}
				}
				if err := sessions.Login(t.Context(), "a", c); err != nil {
					t.Fatal(err)
				}
				for hour := range 3 {
					tok := token(t, sessions.TokenSource("a"))
					if left := time.Until(tok.Expiry); left != time.Hour || tok.Type() != "Bearer" {
						t.Errorf("hour %d: got a %s token that expires in %v, want a Bearer token that expires in an hour", hour, tok.Type(), left)
					}
					resp, err := sessions.Client("a").Get(fincodeauth.Sandbox("test") + "/whoami")
					if err != nil {
						t.Fatal(err)
					}
					resp.Body.Close()
					if resp.StatusCode != http.StatusOK {
						t.Errorf("hour %d: got status %d, want 200", hour, resp.StatusCode)
					}
					time.Sleep(time.Hour)
				}
			})
		})
	}
}

func TestTokenOfUnknownLifetimeIsUsedUntilItIsRejected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{OpaqueTokens: true, ExpiresIn: fincodetest.ExpiresInAbsent})
		sessions := newSessions(t, fc)
		logIn(t, sessions, "a")
		src := sessions.TokenSource("a")
		time.Sleep(9 * time.Second)
		if same, err := src.Refresh(t.Context(), token(t, src)); err != nil || same != token(t, src) {
			t.Errorf("got error %v, or another token than the young one that was rejected", err)
		}
		time.Sleep(24 * time.Hour)
		tok := token(t, src)
		wantCalls(t, fc, 0, 0)
		if !tok.Expiry.IsZero() {
			t.Errorf("the token expires at %v, want no expiry", tok.Expiry)
		}
		next, err := src.Refresh(t.Context(), tok)
		if err != nil || next.AccessToken == tok.AccessToken {
			t.Errorf("got error %v, same token %t; want another token", err, next == tok)
		}
	})
}

func TestRefreshKeepsTheValuesOfTheCallersContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type traceKey struct{}
		fc := fincodetest.New(fincodetest.Config{})
		var trace any
		sessions := newSessions(t, fc, func(c *fincodeauth.Config) {
			c.Base = roundTripper(func(r *http.Request) (*http.Response, error) {
				if strings.HasSuffix(r.URL.Path, "/refresh-token") {
					trace = r.Context().Value(traceKey{})
				}
				return fc.RoundTrip(r)
			})
		})
		logIn(t, sessions, "a")
		time.Sleep(2 * time.Hour)
		if _, err := sessions.TokenSource("a").TokenContext(context.WithValue(t.Context(), traceKey{}, "span")); err != nil {
			t.Fatal(err)
		}
		if trace != "span" {
			t.Errorf("the context of the refresh has value %v, want the value \"span\" of its caller", trace)
		}
	})
}

func TestRefreshReturnsTheCurrentTokenIfTheOldWasReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		sessions := newSessions(t, fc)
		logIn(t, sessions, "a")
		src := sessions.TokenSource("a")
		old := token(t, src)
		time.Sleep(time.Minute)
		next, err := src.Refresh(t.Context(), old)
		if err != nil || next == old {
			t.Fatalf("got error %v, same token %t; want another token", err, next == old)
		}
		again, err := src.Refresh(t.Context(), old)
		if err != nil || again != next {
			t.Errorf("got error %v, another token %t; want the current token", err, again != next)
		}
		wantCalls(t, fc, 1, 1)
	})
}

func TestYoungTokenIsNotRefreshedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		sessions := newSessions(t, fc)
		logIn(t, sessions, "a")
		src := sessions.TokenSource("a")
		tok := token(t, src)
		time.Sleep(9 * time.Second)
		if same, err := src.Refresh(t.Context(), tok); err != nil || same != tok {
			t.Errorf("at 9 s: got error %v, same token %t; want the same token", err, same == tok)
		}
		time.Sleep(2 * time.Second)
		if next, err := src.Refresh(t.Context(), nil); err != nil || next == tok {
			t.Errorf("at 11 s: got error %v, same token %t; want another token", err, next == tok)
		}
		wantCalls(t, fc, 1, 1)
	})
}

// Steps:
//  1. Process one's refresh is under way.
//  2. The API rejects process two's token, which has not expired.
//  3. Process two waits for the token of process one, and does not refresh itself.
func TestRefreshWaitsForTheTokenOfAnotherProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := fincodeauth.NewMemoryStore()
		one, two := newSessions(t, fc, withStore(store)), newSessions(t, fc, withStore(store))
		logIn(t, one, "a")
		tok := token(t, two.TokenSource("a"))
		time.Sleep(56 * time.Minute)
		fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{Before: 3 * time.Second})
		token(t, one.TokenSource("a")) // refreshes in the background
		time.Sleep(time.Second)
		next, err := two.TokenSource("a").Refresh(t.Context(), tok)
		if err != nil || next.AccessToken == tok.AccessToken {
			t.Errorf("got error %v, or the old token; want the token of process one", err)
		}
		wantCalls(t, fc, 1, 1)
	})
}

var _ oauth2.TokenSource = (*fincodeauth.TokenSource)(nil)

// The store of this test loses the expiry.
func TestMissingExpiryIsReadFromTheJWT(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := fincodeauth.NewMemoryStore()
		one := newSessions(t, fc, withStore(store))
		logIn(t, one, "a")
		saved := record(t, store, "a").Token
		sessions := newSessions(t, fc, withStore(fincodeauth.LocalStore(
			func(context.Context, string) (*oauth2.Token, error) {
				return &oauth2.Token{AccessToken: saved.AccessToken, RefreshToken: saved.RefreshToken}, nil
			},
			func(context.Context, string, *oauth2.Token) error { return nil })))
		token(t, sessions.TokenSource("a"))
		time.Sleep(2 * time.Hour)
		if status := whoami(t, fc, token(t, sessions.TokenSource("a"))); status != 200 {
			t.Errorf("FinCode answers %d to the token, want 200: the JWT says that the first one has expired", status)
		}
	})
}

// A process whose clock is three hours ahead saves an expiry that is three hours too
// late. ExpiresIn still says how long the token lives, so no process uses the token
// for longer.
func TestTokenSavedByAClockAheadIsNotHandedOutExpired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := fincodeauth.NewMemoryStore()
		one := newSessions(t, fc, withStore(store))
		logIn(t, one, "a")
		rec := record(t, store, "a")
		prev := rec.Version
		rec.Version, rec.Token.Expiry = "ahead", rec.Token.Expiry.Add(3*time.Hour)
		if err := store.Save(t.Context(), "a", rec, prev); err != nil {
			t.Fatal(err)
		}
		two := newSessions(t, fc, withStore(store))
		for range 4 * 60 {
			if status := whoami(t, fc, token(t, two.TokenSource("a"))); status != 200 {
				t.Fatalf("FinCode answers %d to the token, want 200; ExpiresIn of the record is %d", status, rec.Token.ExpiresIn)
			}
			time.Sleep(time.Minute)
		}
	})
}

func TestCanceledCallerGetsTheCauseBeforeAndDuringTheWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		fc.Inject(fincodetest.Refresh, -1, fincodetest.Fault{Before: 5 * time.Second})
		sessions := newSessions(t, fc)
		logIn(t, sessions, "a")
		time.Sleep(2 * time.Hour)
		cause := errors.New("the caller's cause")
		ctx, cancel := context.WithCancelCause(t.Context())
		go func() { time.Sleep(time.Second); cancel(cause) }()
		for range 2 { // the first call is canceled while it waits, the second before
			if _, err := sessions.TokenSource("a").TokenContext(ctx); !errors.Is(err, context.Canceled) || !errors.Is(err, cause) {
				t.Errorf("got error %v, want the error of the context and its cause", err)
			}
		}
		time.Sleep(time.Minute)
	})
}

func TestRefreshThatReturnsTheSameAccessTokenIsMadeOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := 0 // the first is the login
		sessions := newSessions(t, nil, func(c *fincodeauth.Config) {
			c.Base = roundTripper(func(r *http.Request) (*http.Response, error) {
				calls++
				return &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(fmt.Sprintf(`{"access_token":"same","refresh_token":"r%d","expires_in":3600}`, calls))), Request: r}, nil
			})
		})
		logIn(t, sessions, "a")
		time.Sleep(time.Minute)
		tok := token(t, sessions.TokenSource("a"))
		if _, err := sessions.TokenSource("a").Refresh(t.Context(), tok); err != nil {
			t.Fatal(err)
		}
		if calls > 2 {
			t.Errorf("one Refresh made %d rotations, want 1", calls-1)
		}
	})
}

func TestTokenThatExpiredCenturiesAgoIsRefreshed(t *testing.T) {
	for _, year := range []int{1, 1440, 1677} { // as int64 nanoseconds, these years may overflow into the future
		synctest.Test(t, func(t *testing.T) {
			fc := fincodetest.New(fincodetest.Config{})
			store := fincodeauth.NewMemoryStore()
			logIn(t, newSessions(t, fc, withStore(store)), "a")
			rec := record(t, store, "a")
			prev := rec.Version
			old := rec.Token.AccessToken
			rec.Version, rec.Token.Expiry = "2", time.Date(year, 9, 21, 0, 12, 44, 0, time.UTC)
			if err := store.Save(t.Context(), "a", rec, prev); err != nil {
				t.Fatal(err)
			}
			if token(t, newSessions(t, fc, withStore(store)).TokenSource("a")).AccessToken == old {
				t.Errorf("got the token that expired in the year %d, want a new one", year)
			}
		})
	}
}

// Steps:
//  1. A refresh is under way, and a login waits for it.
//  2. The refresh fails. Its caller gets the error.
//  3. The login goes on. A caller that comes meanwhile waits for it, and gets its token.
func TestCallerThatWaitsBehindALoginGetsItsToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		sessions := newSessions(t, fc)
		logIn(t, sessions, "a")
		time.Sleep(2 * time.Hour)
		fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{Kind: fincodetest.ErrorStatus, Status: 429, Before: 2 * time.Second})
		fc.Inject(fincodetest.Login, 1, fincodetest.Fault{Before: 2 * time.Second})
		login := make(chan error, 1)
		go func() {
			time.Sleep(time.Second)
			login <- sessions.Login(t.Context(), "a", credentials)
		}()
		_, err := sessions.TokenSource("a").Token()
		if answer, ok := errors.AsType[*fincodeauth.EndpointError](err); !ok || answer.Status != 429 {
			t.Errorf("the caller of the refresh got error %v, want FinCode's 429", err)
		}
		if waited := elapsed(func() { token(t, sessions.TokenSource("a")) }); waited != 2*time.Second {
			t.Errorf("a caller waited %v, want 2 s for the login", waited)
		}
		if err := <-login; err != nil {
			t.Error(err)
		}
	})
}

// Steps:
//  1. A flight adopts a token, and is delayed before it returns.
//  2. The session is logged out or replaced.
//  3. A new caller joins the flight that is still under way.
//  4. The flight returns the token of the earlier session. The new caller must not get
//     this token.
func TestNewCallerGetsNoTokenOfAnEarlierSession(t *testing.T) {
	for name, replace := range map[string]func(*testing.T, *fincodeauth.Sessions){
		"Logout": func(t *testing.T, s *fincodeauth.Sessions) {
			if err := s.Logout(t.Context(), "a"); err != nil {
				t.Error(err)
			}
		},
		"Adopt": func(t *testing.T, s *fincodeauth.Sessions) {
			if err := s.Adopt(t.Context(), "a", &oauth2.Token{RefreshToken: "another user's"}); err != nil {
				t.Error(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fc := fincodetest.New(fincodetest.Config{})
				store := fincodeauth.NewMemoryStore()
				logIn(t, newSessions(t, fc, withStore(store)), "a")
				var adopted atomic.Bool
				var late chan error // the error of the new caller
				var sessions *fincodeauth.Sessions
				now := func() time.Time { // the flight calls now after the event Adopted, so it is delayed here
					if adopted.CompareAndSwap(true, false) {
						replace(t, sessions)
						late = make(chan error, 1)
						go func() {
							_, err := sessions.TokenSource("a").Token()
							late <- err
						}()
						time.Sleep(10 * time.Millisecond)
					}
					return time.Now()
				}
				var once sync.Once
				cfg := fincodeauth.Config{BaseURL: fincodeauth.Sandbox("test"), Base: fc, Store: store, Observe: func(e fincodeauth.Event) {
					once.Do(func() { adopted.Store(e.Type == fincodeauth.Adopted) })
				}}
				sessions, err := fincodeauth.NewOn(cfg, now, func() float64 { return 0 })
				if err != nil {
					t.Fatal(err)
				}
				_, _ = sessions.TokenSource("a").Token()
				if err := <-late; !errors.Is(err, fincodeauth.ErrLoginRequired) {
					t.Errorf("a caller after %s got error %v, want ErrLoginRequired", name, err)
				}
			})
		})
	}
}

// Steps:
//  1. A flight fails, and is delayed before it returns.
//  2. Adopt replaces the session.
//  3. A new caller joins the flight that is still under way.
//  4. The flight returns its error. The new caller must not get this error.
func TestNewCallerGetsNoErrorOfAnEarlierSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		elsewhere := newSessions(t, fc)
		logIn(t, elsewhere, "a")
		pair := token(t, elsewhere.TokenSource("a"))
		var sessions *fincodeauth.Sessions
		late := make(chan error, 1) // the error of the new caller
		adopt := func() {           // the flight that failed calls this, so it is delayed here
			if err := sessions.Adopt(t.Context(), "a", &oauth2.Token{RefreshToken: pair.RefreshToken}); err != nil {
				t.Error(err)
			}
			go func() {
				_, err := sessions.TokenSource("a").Token()
				late <- err
			}()
			time.Sleep(10 * time.Millisecond)
		}
		var once sync.Once
		sessions = newSessions(t, fc, func(c *fincodeauth.Config) {
			c.Observe = func(e fincodeauth.Event) {
				if e.Type == fincodeauth.RefreshFailed {
					once.Do(adopt)
				}
			}
		})
		logIn(t, sessions, "a")
		time.Sleep(2 * time.Hour)
		fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{Kind: fincodetest.ErrorStatus, Status: 429, RetryAfter: "60"})
		_, _ = sessions.TokenSource("a").Token()
		if err := <-late; err != nil {
			t.Errorf("a caller after Adopt got error %v, want a token", err)
		}
	})
}

// The wrappers of package oauth2 call Token, which has no context.
func TestTokenWithoutAKeySaysThatItHasNoContext(t *testing.T) {
	sessions := newSessions(t, fincodetest.New(fincodetest.Config{}))
	_, err := sessions.TokenSource("").Token()
	if err == nil || !strings.Contains(err.Error(), "call TokenContext") {
		t.Errorf("got error %v, want one that says which method has a context", err)
	}
	_, err = sessions.TokenSource("").TokenContext(t.Context())
	if err == nil || !strings.Contains(err.Error(), "WithSession") {
		t.Errorf("got error %v, want one that names WithSession", err)
	}
}

func TestTokenIsUsedUntilTenSecondsBeforeItsExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		sessions := newSessions(t, fc)
		logIn(t, sessions, "a")
		fc.Inject(fincodetest.Refresh, -1, fincodetest.Fault{Before: time.Second})
		tok := token(t, sessions.TokenSource("a"))
		time.Sleep(time.Until(tok.Expiry.Add(-10*time.Second - time.Millisecond)))
		if last := token(t, sessions.TokenSource("a")); last != tok {
			t.Error("got another token before its expiry less ten seconds")
		}
		time.Sleep(time.Millisecond)
		if next := token(t, sessions.TokenSource("a")); next == tok {
			t.Error("got the same token ten seconds before its expiry")
		}
	})
}

func TestRequestMetadataHasTheTokenOfTheSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		sessions := newSessions(t, fc)
		logIn(t, sessions, "a")
		logIn(t, sessions, "b")
		for _, test := range []struct {
			name string
			src  *fincodeauth.TokenSource
			ctx  context.Context
			of   string
		}{
			{"the source's own key", sessions.TokenSource("a"), t.Context(), "a"},
			{"the source's own key, and another in the context", sessions.TokenSource("a"), fincodeauth.WithSession(t.Context(), "b"), "a"},
			{"the key of the context", sessions.TokenSource(""), fincodeauth.WithSession(t.Context(), "b"), "b"},
		} {
			got, err := test.src.GetRequestMetadata(test.ctx, "https://payments.example/payments.Service")
			want := map[string]string{"authorization": "Bearer " + token(t, sessions.TokenSource(test.of)).AccessToken}
			if err != nil || !maps.Equal(got, want) {
				t.Errorf("%s: got %d fields, error %v; want authorization alone, with the token of %q", test.name, len(got), err, test.of)
			}
		}
	})
}

func TestRequestMetadataIsTheCallersOwn(t *testing.T) {
	sessions := newSessions(t, fincodetest.New(fincodetest.Config{}))
	logIn(t, sessions, "a")
	src := sessions.TokenSource("a")
	first, err := src.GetRequestMetadata(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	clear(first)
	if next, err := src.GetRequestMetadata(t.Context()); err != nil || next["authorization"] == "" {
		t.Errorf("after a caller has changed its map, the next caller gets %d fields, error %v; want the token", len(next), err)
	}
}

func TestRequestMetadataWithoutATokenIsTheErrorOfTokenContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		sessions := newSessions(t, fc)
		logIn(t, sessions, "a")
		time.Sleep(2 * time.Hour)
		fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{Before: 10 * time.Second})
		defer time.Sleep(10 * time.Second) // until the refresh has ended
		hurried, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		for _, test := range []struct {
			name string
			key  string
			ctx  context.Context
			want error
		}{
			{"no session", "nobody", t.Context(), fincodeauth.ErrLoginRequired},
			{"a deadline", "a", hurried, context.DeadlineExceeded},
		} {
			got, err := sessions.TokenSource(test.key).GetRequestMetadata(test.ctx)
			if got != nil || !errors.Is(err, test.want) {
				t.Errorf("%s: got %d fields, error %v; want none and %v", test.name, len(got), err, test.want)
			}
		}
		if got, err := sessions.TokenSource("").GetRequestMetadata(t.Context()); got != nil || err == nil {
			t.Errorf("a context without a key: got %d fields, error %v; want none and an error", len(got), err)
		}
	})
}

func TestTokenNeedsAnEncryptedConnection(t *testing.T) {
	if !new(fincodeauth.TokenSource).RequireTransportSecurity() {
		t.Error("gRPC may send the token over a connection that is not encrypted")
	}
}
