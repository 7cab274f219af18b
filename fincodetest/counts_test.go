package fincodetest_test

import (
	"reflect"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fincodeauth/fincodeauth/fincodetest"
)

func TestCountsCountEachKindOfCall(t *testing.T) {
	fc := fincodetest.New(fincodetest.Config{})
	first, second := session(t, fc), session(t, fc)
	login(t, fc, fincodetest.Email, "wrong")
	fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{Kind: fincodetest.ErrorStatus})
	refresh(t, fc, first.refresh())
	refresh(t, fc, first.refresh())
	refresh(t, fc, first.refresh())
	refresh(t, fc, "unknown")
	whoami(t, fc, first.access())
	whoami(t, fc, "unknown")
	must(t, fc, logoutRequest(second.access(), second.refresh()))

	want := fincodetest.Counts{
		Logins: 2, RefreshCalls: 4, Refreshes: 1, Reuses: 1, Rejected: 1, Logouts: 1, APICalls: 2, APIRejected: 1,
		MaxParallelRefreshes: 1,
	}
	if got := fc.Counts(); got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestPresentationsAreCountedByToken(t *testing.T) {
	fc := fincodetest.New(fincodetest.Config{})
	session(t, fc)
	first := session(t, fc)
	second := refresh(t, fc, first.refresh())
	fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{Kind: fincodetest.ErrorStatus})
	refresh(t, fc, second.refresh())
	third := refresh(t, fc, second.refresh())
	refresh(t, fc, first.refresh())

	for i, want := range []struct {
		token string
		times int
	}{{first.refresh(), 2}, {second.refresh(), 2}, {third.refresh(), 0}, {"unknown", 0}} {
		if got := fc.Presented(want.token); got != want.times {
			t.Errorf("token %d was presented %d times, want %d", i, got, want.times)
		}
	}
	want := []fincodetest.Presentation{{Family: 2, Serial: 1, Times: 2, Reuses: 1}, {Family: 2, Serial: 2, Times: 2}}
	if got := fc.PresentedMoreThanOnce(); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestParallelRefreshesAreCountedBySession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		one, other := session(t, fc), session(t, fc)
		fc.Inject(fincodetest.Refresh, -1, fincodetest.Fault{Before: time.Second})
		together := func(tokens ...string) {
			var wg sync.WaitGroup
			for _, token := range tokens {
				wg.Go(func() { send(fc, refreshRequest(t.Context(), token)) })
			}
			wg.Wait()
		}
		together(one.refresh(), other.refresh())
		if got := fc.Counts().MaxParallelRefreshes; got != 1 {
			t.Errorf("two sessions, one refresh each: %d parallel, want 1", got)
		}
		together(one.refresh(), one.refresh(), one.refresh())
		if got := fc.Counts().MaxParallelRefreshes; got != 3 {
			t.Errorf("one session, three at once: %d parallel, want 3", got)
		}
	})
}

func TestRefreshTokenWorksOnceInARace(t *testing.T) {
	fc := fincodetest.New(fincodetest.Config{})
	s := session(t, fc)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() { send(fc, refreshRequest(t.Context(), s.refresh())) })
	}
	wg.Wait()
	if got := fc.Counts(); got.Refreshes != 1 || got.Reuses != 19 {
		t.Errorf("%d rotations and %d reuses, want 1 and 19", got.Refreshes, got.Reuses)
	}
}
