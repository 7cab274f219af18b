package fincodeauth_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/fincodetest"
)

// docs/faq.md advises this where a process is stopped between two requests.
func TestSmallestRefreshBeforeLeavesNothingToTheBackground(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		sessions := newSessions(t, fc, func(c *fincodeauth.Config) { c.RefreshBefore = time.Nanosecond })
		logIn(t, sessions, "a")
		for range 59 {
			time.Sleep(time.Minute)
			token(t, sessions.TokenSource("a"))
			synctest.Wait()
		}
		wantCalls(t, fc, 0, 0)
		time.Sleep(time.Minute)
		fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{After: 300 * time.Millisecond})
		if waited := elapsed(func() { token(t, sessions.TokenSource("a")) }); waited < 300*time.Millisecond {
			t.Errorf("the first caller after the end waits %v, want the time of the refresh", waited)
		}
		wantCalls(t, fc, 1, 1)
	})
}
