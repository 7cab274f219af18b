package compose

import (
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/time/rate"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/fincodetest"
)

// A limited is a RoundTripper that waits for its limiter before each request.
type limited struct {
	next    http.RoundTripper
	limiter *rate.Limiter
}

func (l limited) RoundTrip(req *http.Request) (*http.Response, error) {
	if err := l.limiter.Wait(req.Context()); err != nil {
		if req.Body != nil {
			req.Body.Close()
		}
		return nil, err
	}
	return l.next.RoundTrip(req)
}

// Inside, a refresh waits for the limiter while its RefreshTimeout runs. The limiter
// refuses a wait that is longer, so the refresh fails and nothing was sent.
func TestARateLimiterInsideCountsAgainstRefreshTimeout(t *testing.T) {
	const pause = time.Minute // between two requests, above RefreshTimeout
	for _, test := range []struct {
		name    string
		inside  bool
		refresh int // refreshes that reach FinCode
	}{{"outside", false, 1}, {"inside", true, 0}} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fc := newFinCode()
				limiter := rate.NewLimiter(rate.Every(pause), 3) // two logins and a request
				_, client := limitedSessions(t, fc, limiter, test.inside)
				time.Sleep(lifetime)
				if !limiter.AllowN(time.Now(), 3) { // others were here
					t.Fatal("the limiter is not as full as this test needs it")
				}
				began := time.Now()
				_, err := get(t, client, ada)
				if refreshes := fc.Counts().RefreshCalls; refreshes != test.refresh {
					t.Errorf("FinCode got %d refreshes, want %d", refreshes, test.refresh)
				}
				if test.inside {
					if err == nil || !strings.Contains(err.Error(), "would exceed context deadline") {
						t.Errorf("the caller gets %v, want the limiter's refusal", err)
					}
				} else if took := time.Since(began); err != nil || took != pause {
					t.Errorf("the caller waits %v and gets %v, want an answer after %v", took, err, pause)
				}
			})
		})
	}
}

// The package cannot know that the limiter sent nothing. It takes the refresh for
// one whose answer was lost.
func TestARateLimiterInsideHidesATheft(t *testing.T) {
	for _, test := range []struct {
		name   string
		inside bool
	}{{"outside", false}, {"inside", true}} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fc := newFinCode()
				limiter := rate.NewLimiter(rate.Every(time.Minute), 3)
				sessions, client := limitedSessions(t, fc, limiter, test.inside)
				steal(t, sessions, fc)
				time.Sleep(lifetime)
				limiter.AllowN(time.Now(), 3)
				_, err := get(t, client, ada)
				if test.inside {
					time.Sleep(2 * time.Minute)
					_, err = get(t, client, ada)
				}
				wantAlarm(t, err, !test.inside)
			})
		})
	}
}

// Inside, replays and refreshes use up the limit, too. Outside, the limiter counts
// what the program sends.
func TestARateLimiterInsideCountsReplaysAndRefreshes(t *testing.T) {
	for _, test := range []struct {
		name   string
		inside bool
		want   int
	}{{"outside", false, 1}, {"inside", true, 3}} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const burst = 10
				fc := newFinCode()
				limiter := rate.NewLimiter(rate.Every(time.Second), burst)
				_, client := limitedSessions(t, fc, limiter, test.inside)
				revoke(fc)
				resp, err := get(t, client, ada)
				if err != nil || resp.StatusCode != http.StatusOK {
					t.Fatalf("the caller gets %v, %v, want a 200", resp, err)
				}
				if used := burst - int(limiter.Tokens()); used != test.want {
					t.Errorf("one call counts %d times, want %d", used, test.want)
				}
			})
		})
	}
}

// limitedSessions returns sessions, and a client of all of them whose requests wait
// for limiter inside or outside of the Transport.
func limitedSessions(t *testing.T, fc *fincodetest.FinCode, limiter *rate.Limiter, inside bool) (*fincodeauth.Sessions, http.RoundTripper) {
	t.Helper()
	if inside {
		sessions := newSessions(t, fincodeauth.Config{Base: limited{fc, limiter}})
		return sessions, sessions.Transport("")
	}
	sessions := newSessions(t, fincodeauth.Config{Base: fc})
	return sessions, limited{sessions.Transport(""), limiter}
}
