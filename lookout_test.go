package fincodeauth_test

import (
	"errors"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/fincodetest"
)

// A backup has the records of some keys as they were.
type backup map[string]*fincodeauth.Record

// backUp copies the records under keys.
func backUp(t *testing.T, s fincodeauth.Store, keys ...string) backup {
	t.Helper()
	b := make(backup)
	for _, key := range keys {
		b[key] = record(t, s, key)
	}
	return b
}

// restore sets the store back to the backup.
func (b backup) restore(t *testing.T, s fincodeauth.Store) {
	t.Helper()
	for key, rec := range b {
		if err := s.Delete(t.Context(), key); err != nil {
			t.Fatal(err)
		}
		if err := s.Save(t.Context(), key, rec, ""); err != nil {
			t.Fatal(err)
		}
	}
}

// wantNewest fails if the store has another pair of a session than the one in use.
func wantNewest(t *testing.T, s fincodeauth.Store, sessions *fincodeauth.Sessions, keys ...string) {
	t.Helper()
	for _, key := range keys {
		if want := token(t, sessions.TokenSource(key)).RefreshToken; record(t, s, key).Token.RefreshToken != want {
			t.Errorf("the store has another pair of session %q, want the one in use", key)
		}
	}
}

// A process that knows more heals all its sessions a minute after the store went back. It
// does not wait for the next refresh, and need not have seen the store fail. So a process
// that knows less finds the newest pairs.
func TestStoreThatHasGoneBackIsHealedBeforeTheNextRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := fincodeauth.NewMemoryStore()
		var events events
		knows := newSessions(t, fc, withStore(store), events.observe)
		keys := []string{"a", "b", "c"}
		for _, key := range keys {
			logIn(t, knows, key)
		}
		old := backUp(t, store, keys...)
		time.Sleep(time.Hour)
		for _, key := range keys {
			token(t, knows.TokenSource(key))
		}
		old.restore(t, store)
		time.Sleep(time.Minute)
		token(t, knows.TokenSource("a")) // its token is good, so this does not wait for a call to the store
		time.Sleep(time.Second)
		wantNewest(t, store, knows, keys...)
		knowsLess := newSessions(t, fc, withStore(store))
		for _, key := range keys {
			token(t, knowsLess.TokenSource(key))
		}
		if twice := fc.PresentedMoreThanOnce(); len(twice) > 0 {
			t.Errorf("%d refresh tokens were presented more than once, want none", len(twice))
		}
		got := 0
		for _, e := range events.types() {
			if e == fincodeauth.StoreReverted {
				got++
			}
		}
		if got != len(keys) {
			t.Errorf("got %d events StoreReverted, want one for each of %d sessions", got, len(keys))
		}
	})
}

// The store fails again while a process looks at all its sessions. The process does not
// forget that: it looks again when the store is back.
func TestLookThatTheStoreInterruptsIsRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := newFaultyStore()
		knows := newSessions(t, fc, withStore(store))
		keys := []string{"a", "b", "c"}
		for _, key := range keys {
			logIn(t, knows, key)
		}
		old := backUp(t, store.MemoryStore, keys...)
		time.Sleep(time.Hour)
		for _, key := range keys {
			token(t, knows.TokenSource(key))
		}
		old.restore(t, store.MemoryStore)
		var loads atomic.Int64
		store.set(func(s *faultyStore) {
			s.load = func() error {
				if loads.Add(1) > 1 { // the first one finds that the store has gone back
					return errStoreDown
				}
				return nil
			}
		})
		time.Sleep(time.Minute)
		token(t, knows.TokenSource("a"))
		synctest.Wait()
		if loads.Load() < 2 {
			t.Fatalf("%d loads, want one that found the loss, and one that failed", loads.Load())
		}
		store.down(false)
		for range 3 {
			time.Sleep(time.Second)
			token(t, knows.TokenSource("a"))
		}
		synctest.Wait()
		wantNewest(t, store.MemoryStore, knows, keys...)
	})
}

// After an outage, an early refresh gives others more time, because nobody waits for it. It
// is done before the token expires.
func TestEarlyRefreshIsPutOffAfterAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := newFaultyStore()
		sessions := newSessions(t, fc, withStore(store))
		logIn(t, sessions, "a")
		time.Sleep(56 * time.Minute) // 4 minutes are left
		use := func(d time.Duration) {
			for range d / time.Second {
				time.Sleep(time.Second)
				token(t, sessions.TokenSource("a"))
			}
		}
		store.down(true)
		use(5 * time.Second)
		store.down(false)
		use(30 * time.Second)
		wantCalls(t, fc, 0, 0)
		use(time.Minute)
		wantCalls(t, fc, 1, 1)
	})
}

// While all is well, a process loads one record a minute, and none if nobody uses it.
func TestLookingOutCostsOneLoadAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := newFaultyStore()
		var loads atomic.Int64
		sessions := newSessions(t, fc, withStore(store))
		for _, key := range []string{"a", "b", "c"} {
			logIn(t, sessions, key)
		}
		store.set(func(s *faultyStore) { s.load = func() error { loads.Add(1); return nil } })
		const minutes = 40
		for range 60 * minutes {
			time.Sleep(time.Second)
			for _, key := range []string{"a", "b", "c"} {
				token(t, sessions.TokenSource(key))
			}
		}
		synctest.Wait()
		if n := loads.Load(); n < minutes-1 || n > minutes+1 {
			t.Errorf("%d loads in %d minutes, want one a minute", n, minutes)
		}
		loads.Store(0)
		time.Sleep(10 * time.Minute)
		if n := loads.Load(); n > 0 {
			t.Errorf("%d loads while nobody uses a session, want none", n)
		}
	})
}

// A failover loses the last writes. Both processes see that the store is away. The one that
// knows less waits for a moment when the store is back, and the one that knows more heals
// it meanwhile. Otherwise FinCode would end the session because of the reuse.
func TestFailoverUnderTwoProcessesLosesNoSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{RevokeFamilyOnReuse: true})
		one, two := newFaultyStores()
		knows, knowsLess := newSessions(t, fc, withStore(one)), newSessions(t, fc, withStore(two))
		logIn(t, knows, "a")
		logIn(t, knows, "b")
		for _, key := range []string{"a", "b"} {
			token(t, knowsLess.TokenSource(key))
		}
		old := backUp(t, one.MemoryStore, "a", "b")
		time.Sleep(time.Hour)
		token(t, knows.TokenSource("a"))
		one.down(true)
		two.down(true)
		for range 100 {
			time.Sleep(100 * time.Millisecond)
			token(t, knows.TokenSource("a"))
			if _, err := knows.TokenSource("b").Token(); !errors.Is(err, errStoreDown) {
				t.Fatalf("got error %v, want errStoreDown", err)
			}
			if _, err := knowsLess.TokenSource("a").Token(); !errors.Is(err, errStoreDown) {
				t.Fatalf("got error %v, want errStoreDown", err)
			}
		}
		old.restore(t, one.MemoryStore)
		one.down(false)
		two.down(false)
		waited := elapsed(func() {
			done := make(chan struct{})
			go func() {
				defer close(done)
				token(t, knowsLess.TokenSource("a"))
			}()
			for range 30 {
				time.Sleep(100 * time.Millisecond)
				token(t, knows.TokenSource("a"))
			}
			<-done
		})
		if waited > 3*time.Second {
			t.Errorf("the process that knows less waited %v, want no more than 3 s", waited)
		}
		if status := whoami(t, fc, token(t, knowsLess.TokenSource("a"))); status != http.StatusOK {
			t.Errorf("FinCode answers %d to the token, want 200", status)
		}
		if twice := fc.PresentedMoreThanOnce(); len(twice) > 0 {
			t.Errorf("%d refresh tokens were presented more than once, want none", len(twice))
		}
	})
}

// After an outage in which the store lost nothing, a caller whose token has expired waits
// for two seconds more. One failed call is no outage.
func TestFlightPausesAfterAnOutage(t *testing.T) {
	for name, c := range map[string]struct{ fails, want time.Duration }{
		"one call failed":               {0, 0},
		"the store failed for a second": {time.Second, 2 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fc := fincodetest.New(fincodetest.Config{})
				store := newFaultyStore()
				sessions := newSessions(t, fc, withStore(store))
				logIn(t, sessions, "a")
				time.Sleep(2 * time.Hour)
				store.down(true)
				for began := time.Now(); time.Since(began) <= c.fails; time.Sleep(500 * time.Millisecond) {
					if _, err := sessions.TokenSource("a").Token(); !errors.Is(err, errStoreDown) {
						t.Fatalf("got error %v, want errStoreDown", err)
					}
				}
				time.Sleep(time.Minute)
				store.down(false)
				if waited := elapsed(func() { token(t, sessions.TokenSource("a")) }); waited != c.want {
					t.Errorf("the refresh took %v, want %v", waited, c.want)
				}
			})
		})
	}
}

// A process whose claim is still in the store renews it at once, because others would take
// it over.
func TestClaimIsRenewedAtOnceAfterAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := newFaultyStore()
		sessions := newSessions(t, fc, withStore(store))
		logIn(t, sessions, "a")
		time.Sleep(2 * time.Hour)
		fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{Kind: fincodetest.ErrorStatus})
		if _, err := sessions.TokenSource("a").Token(); err == nil {
			t.Fatal("got a token, want the error of FinCode")
		}
		store.down(true)
		for range 5 {
			time.Sleep(time.Second)
			if _, err := sessions.TokenSource("a").Token(); !errors.Is(err, errStoreDown) {
				t.Fatalf("got error %v, want errStoreDown", err)
			}
		}
		store.down(false)
		if waited := elapsed(func() { token(t, sessions.TokenSource("a")) }); waited > 0 {
			t.Errorf("the refresh took %v, want no pause", waited)
		}
	})
}
