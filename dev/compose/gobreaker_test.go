package compose

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sony/gobreaker/v2"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/fincodetest"
)

// A breaker is a RoundTripper with a circuit breaker. It counts every 5xx as a
// failure.
type breaker struct {
	next    http.RoundTripper
	circuit *gobreaker.CircuitBreaker[*http.Response]
}

// newBreaker returns a breaker that opens for fifteen minutes after three failures in a
// row. It does not count users who must log in, and callers who left: they say
// nothing about FinCode's health.
func newBreaker(next http.RoundTripper) *breaker {
	return &breaker{next, gobreaker.NewCircuitBreaker[*http.Response](gobreaker.Settings{
		Timeout:     15 * time.Minute,
		ReadyToTrip: func(counts gobreaker.Counts) bool { return counts.ConsecutiveFailures >= 3 },
		IsExcluded: func(err error) bool {
			return errors.Is(err, fincodeauth.ErrLoginRequired) || errors.Is(err, context.Canceled)
		},
	})}
}

func (b *breaker) RoundTrip(req *http.Request) (*http.Response, error) {
	var failed *http.Response
	resp, err := b.circuit.Execute(func() (*http.Response, error) {
		resp, err := b.next.RoundTrip(req)
		if err == nil && resp.StatusCode >= 500 {
			failed, err = resp, fmt.Errorf("FinCode answers %s", resp.Status)
		}
		return resp, err
	})
	if failed != nil {
		return failed, nil // to the caller it is an answer
	}
	return resp, err
}

// Inside, an open breaker refuses to send a refresh. To the package that looks like
// a refresh whose answer was lost, so it takes the thief's use for its own.
func TestACircuitBreakerInsideHidesATheft(t *testing.T) {
	for _, test := range []struct {
		name  string
		order func(*testing.T, *fincodetest.FinCode) (*fincodeauth.Sessions, http.RoundTripper)
		alarm bool
	}{
		{"outside", func(t *testing.T, fc *fincodetest.FinCode) (*fincodeauth.Sessions, http.RoundTripper) {
			sessions := newSessions(t, fincodeauth.Config{Base: fc})
			return sessions, newBreaker(sessions.Transport(""))
		}, true},
		{"inside", func(t *testing.T, fc *fincodetest.FinCode) (*fincodeauth.Sessions, http.RoundTripper) {
			sessions := newSessions(t, fincodeauth.Config{Base: newBreaker(fc)})
			return sessions, sessions.Transport("")
		}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fc := newFinCode()
				sessions, client := test.order(t, fc)
				steal(t, sessions, fc)
				time.Sleep(lifetime - 10*time.Minute) // no refresh is due yet
				fc.Inject(fincodetest.API, 3, fincodetest.Fault{Kind: fincodetest.ErrorStatus, Status: http.StatusServiceUnavailable})
				for range 3 {
					if resp, err := get(t, client, ada); err != nil || resp.StatusCode != http.StatusServiceUnavailable {
						t.Fatalf("the caller gets %v, %v, want a 503", resp, err)
					}
				}
				time.Sleep(10 * time.Minute) // the token has expired, and the breaker is open
				if _, err := get(t, client, ada); !errors.Is(err, gobreaker.ErrOpenState) {
					t.Fatalf("the caller gets %v, want that the breaker is open", err)
				}
				time.Sleep(10 * time.Minute)
				_, err := get(t, client, ada)
				wantAlarm(t, err, test.alarm)
			})
		})
	}
}

func TestUsersWhoMustLogInOpenABreakerThatCountsThem(t *testing.T) {
	for _, test := range []struct {
		name     string
		excluded func(error) bool
		opens    bool
	}{
		{"IsExcluded", func(err error) bool { return errors.Is(err, fincodeauth.ErrLoginRequired) }, false},
		{"gobreaker's own settings", nil, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sessions := newSessions(t, fincodeauth.Config{Base: newFinCode()})
				client := &breaker{sessions.Transport(""), gobreaker.NewCircuitBreaker[*http.Response](gobreaker.Settings{IsExcluded: test.excluded})}
				for range 6 { // gobreaker opens after more than five failures in a row
					if _, err := get(t, client, "nobody"); !errors.Is(err, fincodeauth.ErrLoginRequired) {
						t.Fatalf("the caller gets %v, want ErrLoginRequired", err)
					}
				}
				if _, err := get(t, client, ada); errors.Is(err, gobreaker.ErrOpenState) != test.opens || (err == nil) == test.opens {
					t.Errorf("Ada, who is logged in, gets error %v, want that of an open breaker: %t", err, test.opens)
				}
			})
		})
	}
}
