package fincodeauth_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/fincodetest"
)

func TestStatsCountWhatIsInMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := newFaultyStore()
		sessions := newSessions(t, fc, withStore(store))
		if got := sessions.Stats(); got != (fincodeauth.Stats{}) {
			t.Errorf("Stats of no session = %+v, want zero", got)
		}
		logIn(t, sessions, "a")
		expiry := time.Now().Add(time.Hour)
		time.Sleep(30 * time.Minute)
		logIn(t, sessions, "b")
		got := sessions.Stats()
		if left := expiry.Sub(got.SoonestExpiry); got.InMemory != 2 || got.Unsaved != 0 || left < 0 || left > 11*time.Second {
			t.Errorf("Stats = %+v, want 2 sessions, all saved, and %v, at most 11 s earlier", got, expiry)
		}

		store.set(successorsFail)
		time.Sleep(time.Hour)
		token(t, sessions.TokenSource("a"))
		if got := sessions.Stats(); got.InMemory != 2 || got.Unsaved != 1 {
			t.Errorf("Stats = %+v, want 2 sessions, one of them unsaved", got)
		}
		store.set(func(s *faultyStore) { s.save = nil })
		time.Sleep(time.Minute)
		if got := sessions.Stats(); got.Unsaved != 0 {
			t.Errorf("Stats = %+v, want none unsaved after the store was repaired", got)
		}
		time.Sleep(2 * time.Hour)
		if got := sessions.Stats(); got.InMemory != 2 || !got.SoonestExpiry.IsZero() {
			t.Errorf("Stats = %+v, want 2 sessions, whose tokens have all expired", got)
		}
	})
}

func TestStatsOfEmptySessionsAreZero(t *testing.T) {
	if got := new(fincodeauth.Sessions).Stats(); got != (fincodeauth.Stats{}) {
		t.Errorf("Stats = %+v, want zero", got)
	}
}
