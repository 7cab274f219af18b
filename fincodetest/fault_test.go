package fincodetest_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fincodeauth/fincodeauth/fincodetest"
)

func TestFaultReplacesTheAnswer(t *testing.T) {
	for _, test := range []struct {
		name     string
		fault    fincodetest.Fault
		status   int // 0: no answer, the error is io.ErrUnexpectedEOF
		rotates  bool
		contains string
		header   string // Name: value
	}{
		{"none", fincodetest.Fault{}, 200, true, "access_token", ""},
		{"hang up before", fincodetest.Fault{Kind: fincodetest.HangUp}, 0, false, "", ""},
		{"hang up after", fincodetest.Fault{Kind: fincodetest.HangUp, TakesEffect: true}, 0, true, "", ""},
		{"500", fincodetest.Fault{Kind: fincodetest.ErrorStatus}, 500, false, "SERVER_ERROR", ""},
		{"502 after", fincodetest.Fault{Kind: fincodetest.ErrorStatus, Status: 502, TakesEffect: true}, 502, true, "SERVER_ERROR", ""},
		{"429", fincodetest.Fault{Kind: fincodetest.ErrorStatus, Status: 429, RetryAfter: "7"}, 429, false, "RATE_LIMIT_EXCEEDED", "Retry-After: 7"},
		{"503 until a date", fincodetest.Fault{Kind: fincodetest.ErrorStatus, Status: 503, RetryAfter: "Sat, 01 Jan 2000 00:00:09 GMT"},
			503, false, "SERVICE_UNAVAILABLE", "Retry-After: Sat, 01 Jan 2000 00:00:09 GMT"},
		{"firewall 403", fincodetest.Fault{Kind: fincodetest.FirewallPage}, 403, false, "<html>", "Content-Type: text/html"},
		{"firewall 401", fincodetest.Fault{Kind: fincodetest.FirewallPage, Status: 401}, 401, false, "<html>", ""},
		{"firewall 200", fincodetest.Fault{Kind: fincodetest.FirewallPage, Status: 200}, 200, false, "<html>", ""},
		{"garbage", fincodetest.Fault{Kind: fincodetest.Garbage}, 200, false, "}{", ""},
		{"truncated", fincodetest.Fault{Kind: fincodetest.Truncated}, 0, true, "", ""},
		{"oversized", fincodetest.Fault{Kind: fincodetest.Oversized}, 200, true, strings.Repeat(" ", 1<<20) + `{"access_token"`, ""},
		{"307", fincodetest.Fault{Kind: fincodetest.Redirect, Location: "https://elsewhere.example/"}, 307, false, "", "Location: https://elsewhere.example/"},
		{"302", fincodetest.Fault{Kind: fincodetest.Redirect, Status: 302, Location: "/x"}, 302, false, "", "Location: /x"},
	} {
		t.Run(test.name, func(t *testing.T) {
			fc := fincodetest.New(fincodetest.Config{})
			s := session(t, fc)
			fc.Inject(fincodetest.Refresh, 1, test.fault)
			got, err := send(fc, refreshRequest(t.Context(), s.refresh()))
			if wantErr := test.status == 0; wantErr != errors.Is(err, io.ErrUnexpectedEOF) || !wantErr && err != nil {
				t.Errorf("error %v, want io.ErrUnexpectedEOF: %t", err, wantErr)
			}
			if test.status != 0 {
				wantStatus(t, "refresh", got, test.status)
			}
			if !strings.Contains(got.body, test.contains) {
				t.Errorf("the body %.100q does not contain %.100q", got.body, test.contains)
			}
			if name, want, _ := strings.Cut(test.header, ": "); got.header.Get(name) != want {
				t.Errorf("%s: %q, want %q", name, got.header.Get(name), want)
			}
			again := 200
			if test.rotates {
				again = 403
			}
			wantStatus(t, "the same token again", refresh(t, fc, s.refresh()), again)
		})
	}
}

func TestFaultsAffectOnlyTheirOperation(t *testing.T) {
	fc := fincodetest.New(fincodetest.Config{})
	s := session(t, fc)
	for _, op := range []fincodetest.Operation{fincodetest.Login, fincodetest.Logout, fincodetest.API} {
		fc.Inject(op, -1, fincodetest.Fault{Kind: fincodetest.ErrorStatus, Status: 503})
	}
	wantStatus(t, "login", login(t, fc, fincodetest.Email, fincodetest.Password), 503)
	wantStatus(t, "api", whoami(t, fc, s.access()), 503)
	wantStatus(t, "logout", must(t, fc, logoutRequest(s.access(), s.refresh())), 503)
	wantStatus(t, "refresh", refresh(t, fc, s.refresh()), 200)
}

func TestFaultsAreUsedUpInOrder(t *testing.T) {
	fc := fincodetest.New(fincodetest.Config{})
	access := session(t, fc).access()
	fc.Inject(fincodetest.API, 0, fincodetest.Fault{Kind: fincodetest.HangUp})
	fc.Inject(fincodetest.API, 2, fincodetest.Fault{Kind: fincodetest.ErrorStatus, Status: 500})
	fc.Inject(fincodetest.API, 1, fincodetest.Fault{Kind: fincodetest.ErrorStatus, Status: 429})
	for i, want := range []int{500, 500, 429, 200} {
		if got := whoami(t, fc, access); got.status != want {
			t.Errorf("call %d: status %d, want %d", i, got.status, want)
		}
	}
}

func TestFaultsLastUntilCleared(t *testing.T) {
	fc := fincodetest.New(fincodetest.Config{})
	access := session(t, fc).access()
	fc.Inject(fincodetest.API, -1, fincodetest.Fault{Kind: fincodetest.ErrorStatus})
	for range 5 {
		wantStatus(t, "before", whoami(t, fc, access), 500)
	}
	fc.ClearFaults()
	wantStatus(t, "cleared", whoami(t, fc, access), 200)
}

func TestCallTakesBeforeAndAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		s := session(t, fc)
		fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{Before: time.Second, After: 2 * time.Second})
		start := time.Now()
		wantStatus(t, "refresh", refresh(t, fc, s.refresh()), 200)
		if took := time.Since(start); took != 3*time.Second {
			t.Errorf("took %v, want 3s", took)
		}
	})
}

func TestTokenIsUsedOnlyIfTheCallerStaysUntilTheRotation(t *testing.T) {
	for _, test := range []struct {
		name  string
		fault fincodetest.Fault
		again int
	}{
		{"before the rotation", fincodetest.Fault{Before: time.Minute}, 200},
		{"after the rotation", fincodetest.Fault{After: time.Minute}, 403},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fc := fincodetest.New(fincodetest.Config{})
				s := session(t, fc)
				fc.Inject(fincodetest.Refresh, 1, test.fault)
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				start := time.Now()
				if _, err := send(fc, refreshRequest(ctx, s.refresh())); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("error %v, want context.DeadlineExceeded", err)
				}
				if took := time.Since(start); took != time.Second {
					t.Errorf("took %v, want 1s", took)
				}
				wantStatus(t, "the same token again", refresh(t, fc, s.refresh()), test.again)
			})
		})
	}
}

func TestFaultsMayBeInjectedDuringCalls(t *testing.T) {
	fc := fincodetest.New(fincodetest.Config{OpaqueTokens: true})
	access := session(t, fc).access()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 50 {
				fc.Inject(fincodetest.API, 2, fincodetest.Fault{Kind: fincodetest.HangUp})
				send(fc, apiRequest("GET", "/whoami", "", access))
				fc.ClearFaults()
				fc.RevokeAccessToken("unknown")
				fc.Counts()
			}
		})
	}
	wg.Wait()
	wantStatus(t, "whoami", whoami(t, fc, access), 200)
}
