package fincodeauth_test

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/oauth2"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/fincodetest"
)

func TestStoreFailureAfterTheRotationLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{RevokeOnRotation: true})
		store := newFaultyStore()
		var seen events
		sessions := newSessions(t, fc, withStore(store), seen.observe)
		logIn(t, sessions, "a")
		time.Sleep(2 * time.Hour)
		store.set(successorsFail)
		tok := token(t, sessions.TokenSource("a"))
		seen.want(t, fincodeauth.LoggedIn, fincodeauth.Refreshed, fincodeauth.SaveFailed)
		time.Sleep(10 * time.Minute)
		if token(t, sessions.TokenSource("a")) != tok {
			t.Error("the unsaved token is not in use")
		}
		seen.want(t)
		store.down(false)
		time.Sleep(10 * time.Second)
		seen.want(t, fincodeauth.Saved)
		if record(t, store, "a").Token.AccessToken != tok.AccessToken {
			t.Error("the token in the store is another one")
		}
		time.Sleep(2 * time.Hour)
		token(t, sessions.TokenSource("a"))
		wantCalls(t, fc, 2, 2)
	})
}

func TestUnsavedTokenIsNotPresented(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := newFaultyStore()
		sessions := newSessions(t, fc, withStore(store))
		logIn(t, sessions, "a")
		time.Sleep(2 * time.Hour)
		store.set(successorsFail)
		token(t, sessions.TokenSource("a"))
		time.Sleep(2 * time.Hour)
		if _, err := sessions.TokenSource("a").Token(); err == nil || errors.Is(err, fincodeauth.ErrLoginRequired) {
			t.Errorf("error %v, want one that says that the store is behind", err)
		}
		wantCalls(t, fc, 1, 1)
		store.down(false)
		time.Sleep(10 * time.Second)
		token(t, sessions.TokenSource("a"))
		wantCalls(t, fc, 2, 2)
	})
}

func TestCallerWaitsAtMostASecondForAHangingStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := newFaultyStore()
		sessions := newSessions(t, fc, withStore(store))
		logIn(t, sessions, "a")
		time.Sleep(2 * time.Hour)
		store.set(func(s *faultyStore) {
			s.save = func(rec *fincodeauth.Record, save func() error) error {
				if isSuccessor(rec) {
					time.Sleep(10 * time.Second)
				}
				return save()
			}
		})
		if waited := elapsed(func() { token(t, sessions.TokenSource("a")) }); waited > time.Second {
			t.Errorf("waited %v", waited)
		}
		if err := sessions.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// A hangingStore takes a claim, and does not answer that many calls after it.
type hangingStore struct {
	fincodeauth.Store
	calls int32
	left  atomic.Int32
}

func (s *hangingStore) Load(ctx context.Context, key string) (*fincodeauth.Record, error) {
	if s.left.Load() > 0 {
		return nil, s.hang(ctx)
	}
	return s.Store.Load(ctx, key)
}

func (s *hangingStore) Save(ctx context.Context, key string, rec *fincodeauth.Record, prev string) error {
	if s.left.Load() > 0 {
		return s.hang(ctx)
	}
	err := s.Store.Save(ctx, key, rec, prev)
	if !isSuccessor(rec) {
		s.left.Store(s.calls)
		s.calls = 0 // once is enough
	}
	return err
}

func (s *hangingStore) hang(ctx context.Context) error {
	s.left.Add(-1)
	<-ctx.Done()
	return ctx.Err()
}

func TestStoreHangIsNotMistakenForADeadOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := fincodeauth.NewMemoryStore()
		hanging := &hangingStore{Store: store, calls: 4} // two saves, and the Loads that settle them
		one, two := newSessions(t, fc, withStore(hanging)), newSessions(t, fc, withStore(store))
		logIn(t, one, "a")
		time.Sleep(2 * time.Hour)
		tok := token(t, one.TokenSource("a"))
		waited := elapsed(func() {
			if got, err := two.TokenSource("a").Token(); err != nil || got.AccessToken != tok.AccessToken {
				t.Errorf("the other process has another token, or none: %v", err)
			}
		})
		if waited >= 2*refreshTimeout || hanging.left.Load() > 0 {
			t.Errorf("the token was saved after %v, with %d more calls to hang", waited, hanging.left.Load())
		}
		time.Sleep(time.Hour + refreshTimeout)
		for _, s := range []*fincodeauth.Sessions{one, two} {
			if _, err := s.TokenSource("a").Token(); err != nil {
				t.Errorf("the session is lost: %v", err)
			}
		}
		wantCalls(t, fc, 2, 2)
	})
}

func TestNewTokenIsSavedOverTheClaimOfATakeover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := newFaultyStore()
		slow := newSessions(t, fc, withStore(store))
		logIn(t, slow, "a")
		time.Sleep(2 * time.Hour)
		hold := make(chan struct{})
		store.set(func(s *faultyStore) {
			s.save = func(rec *fincodeauth.Record, save func() error) error {
				if isSuccessor(rec) {
					store.down(false)
					<-hold // the process is suspended between the answer and the save
					return errStoreDown
				}
				return save()
			}
		})
		mine := token(t, slow.TokenSource("a"))
		// Another process takes over. Its call fails without reaching FinCode.
		other := newSessions(t, fc, withStore(store))
		fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{Kind: fincodetest.ErrorStatus, Status: 503})
		if _, err := other.TokenSource("a").Token(); err == nil || errors.Is(err, fincodeauth.ErrLoginRequired) {
			t.Fatalf("error %v, want FinCode's 503", err)
		}
		close(hold)
		time.Sleep(time.Second)
		if record(t, store, "a").Token.AccessToken != mine.AccessToken {
			t.Fatal("the new token was not saved over the other's claim")
		}
		if token(t, other.TokenSource("a")).AccessToken != mine.AccessToken {
			t.Error("the other process did not adopt it")
		}
		wantCalls(t, fc, 2, 1)
	})
}

func TestLoginWhoseSaveFailsIsSavedLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := newFaultyStore()
		var seen events
		sessions := newSessions(t, fc, withStore(store), seen.observe)
		store.set(successorsFail)
		logIn(t, sessions, "a")
		tok := token(t, sessions.TokenSource("a"))
		store.down(false)
		time.Sleep(time.Second)
		if record(t, store, "a").Token.AccessToken != tok.AccessToken {
			t.Error("another token was saved")
		}
		seen.want(t, fincodeauth.LoggedIn, fincodeauth.SaveFailed, fincodeauth.Saved)
	})
}

func TestLoginStaysInUseWhileItsSaveIsSlow(t *testing.T) {
	for _, expired := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			fc := fincodetest.New(fincodetest.Config{})
			store := newFaultyStore()
			sessions := newSessions(t, fc, withStore(store))
			if expired {
				logIn(t, sessions, "a")
				time.Sleep(2 * time.Hour)
			}
			var n atomic.Int32
			store.set(func(s *faultyStore) {
				s.load = func() error {
					if n.Add(1) == 1 {
						time.Sleep(500 * time.Millisecond)
					}
					return nil
				}
				s.save = func(rec *fincodeauth.Record, save func() error) error {
					if isSuccessor(rec) {
						time.Sleep(5 * time.Second)
					}
					return save()
				}
			})
			go sessions.TokenSource("a").Token()
			time.Sleep(100 * time.Millisecond)
			logIn(t, sessions, "a") // returns nil after 1 s
			for range 40 {
				tok, err := sessions.TokenSource("a").Token()
				if err != nil {
					t.Errorf("expired %t: after Login: %v", expired, err)
					break
				}
				if st := whoami(t, fc, tok); st != 200 {
					t.Errorf("expired %t: status %d", expired, st)
					break
				}
				time.Sleep(250 * time.Millisecond)
			}
			time.Sleep(time.Minute)
		})
	}
}

func TestBreachIsRememberedUntilTheEndIsSaved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := newFaultyStore()
		var told events
		one := newSessions(t, fc, withStore(store), withCredentials, told.observe)
		two := newSessions(t, fc, withStore(store), withCredentials)
		logIn(t, one, "a")
		present(t, fc, record(t, store, "a").Token.RefreshToken) // the thief
		time.Sleep(2 * time.Hour)
		store.set(endsFail)
		_, err := one.TokenSource("a").Token()
		wantNoLoginRequired(t, err)
		if answer, ok := errors.AsType[*fincodeauth.EndpointError](err); !ok || answer.Status != http.StatusForbidden {
			t.Errorf("error %v, want FinCode's in it", err)
		}
		for range 10 {
			_, err := one.TokenSource("a").Token()
			wantNoLoginRequired(t, err)
		}
		for _, ev := range told.all {
			if answer, ok := errors.AsType[*fincodeauth.EndpointError](ev.Err); ev.Type == fincodeauth.SaveFailed &&
				(!ok || answer.Status != http.StatusForbidden || !errors.Is(ev.Err, errStoreDown)) {
				t.Errorf("SaveFailed with %v, want FinCode's verdict and the store's error in it", ev.Err)
			}
		}
		store.down(false) // one blink of the store
		time.Sleep(time.Minute)
		told.want(t, fincodeauth.LoggedIn, fincodeauth.SaveFailed, fincodeauth.Ended, fincodeauth.Saved)
		_, err = one.TokenSource("a").Token()
		wantSessionError(t, err, true, false)
		_, err = two.TokenSource("a").Token()
		wantSessionError(t, err, true, false)
	})
}

// wantNoLoginRequired: nobody is told to log in before the store has said that no other
// process has a newer token.
func wantNoLoginRequired(t *testing.T, err error) {
	t.Helper()
	if err == nil || errors.Is(err, fincodeauth.ErrLoginRequired) {
		t.Errorf("error %v, want one that does not ask for a login yet", err)
	}
}

// It slept through a takeover, with a wall clock that was set back meanwhile.
func TestRefusalAfterAMissedTakeoverDoesNotEndTheSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store, other := newFaultyStores()
		server := newMachine()
		var told events
		one, two := server.newSessions(t, fc, withStore(store), told.observe), newSessions(t, fc, withStore(other))
		logIn(t, one, "a")
		time.Sleep(2 * time.Hour)
		asleep := true
		store.set(func(s *faultyStore) {
			s.save = func(rec *fincodeauth.Record, save func() error) error {
				err := save()
				if asleep {
					asleep = false
					server.suspend(time.Minute)
					server.set(-time.Minute)
					s.down(true)
				}
				return err
			}
		})
		go one.TokenSource("a").Token()
		time.Sleep(time.Second)
		mine := token(t, two.TokenSource("a"))
		time.Sleep(time.Minute)
		store.down(false)
		time.Sleep(time.Minute)
		if got := token(t, one.TokenSource("a")); got.AccessToken != mine.AccessToken {
			t.Error("another token than that of the process that took over")
		}
		for _, e := range told.all {
			if e.Type == fincodeauth.Ended {
				t.Errorf("%v was told", e)
			}
		}
	})
}

func TestBreachIsRememberedIfTheStoreIsDownWhenFinCodeRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := newFaultyStore()
		one := newSessions(t, fc, withStore(store), withCredentials)
		two := newSessions(t, fc, withStore(store), withCredentials)
		logIn(t, one, "a")
		present(t, fc, record(t, store, "a").Token.RefreshToken) // the thief
		time.Sleep(2 * time.Hour)
		fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{Before: 2 * time.Second})
		go func() { time.Sleep(time.Second); store.down(true); time.Sleep(3 * time.Second); store.down(false) }()
		_, err := one.TokenSource("a").Token()
		wantNoLoginRequired(t, err)
		time.Sleep(time.Minute)
		for _, sessions := range []*fincodeauth.Sessions{one, two} {
			_, err := sessions.TokenSource("a").Token()
			wantSessionError(t, err, true, false)
		}
	})
}

func TestEndOfAReplacedSessionIsNotReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := newFaultyStore()
		var told events
		sessions := newSessions(t, fc, withStore(store), told.observe)
		logIn(t, sessions, "a")
		present(t, fc, record(t, store, "a").Token.RefreshToken) // a thief
		time.Sleep(2 * time.Hour)
		store.set(func(s *faultyStore) {
			s.save = func(rec *fincodeauth.Record, save func() error) error {
				if rec.Ended != "" {
					time.Sleep(3 * time.Second)
				}
				return save()
			}
		})
		go sessions.TokenSource("a").Token()
		time.Sleep(500 * time.Millisecond)
		logIn(t, sessions, "a")
		time.Sleep(time.Minute)
		if types := told.types(); slices.Contains(types, fincodeauth.Ended) {
			t.Errorf("events %v: whoever is logged in is told that the session has ended", types)
		}
		token(t, sessions.TokenSource("a"))
	})
}

func TestLateEndDoesNotReplaceAnAdoptElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := newFaultyStore()
		one, two := newSessions(t, fc, withStore(store)), newSessions(t, fc, withStore(store))
		if err := one.Adopt(t.Context(), "a", &oauth2.Token{AccessToken: "one", ExpiresIn: 60}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Minute)
		store.set(endsFail)
		_, err := one.TokenSource("a").Token()
		wantNoLoginRequired(t, err)
		if err := two.Adopt(t.Context(), "a", &oauth2.Token{AccessToken: "two", ExpiresIn: 3600}); err != nil {
			t.Fatal(err)
		}
		store.down(false)
		time.Sleep(time.Minute)
		if _, err := one.TokenSource("a").Token(); err != nil {
			t.Errorf("one: %v", err)
		}
	})
}

func TestLateEndDoesNotReplaceASuccessorWithTheSameRefreshToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{KeepRefreshToken: true})
		store := newFaultyStore()
		one, two := newSessions(t, fc, withStore(store)), newSessions(t, fc, withStore(store))
		logIn(t, one, "a")
		time.Sleep(2 * time.Hour)
		store.set(endsFail)
		fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{Kind: fincodetest.ErrorStatus, Status: 401})
		_, err := one.TokenSource("a").Token()
		wantNoLoginRequired(t, err)
		token(t, two.TokenSource("a")) // takes over after 30 s
		store.down(false)
		time.Sleep(time.Minute)
		if rec := record(t, store, "a"); rec.Ended != "" {
			t.Errorf("the good record of two was replaced: %v", rec)
		}
	})
}

func TestTokenThatAnotherProcessUsesIsNotRevoked(t *testing.T) {
	for name, presenting := range map[string]time.Duration{"claimed": 10 * time.Second, "rotated": 0} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fc := fincodetest.New(fincodetest.Config{})
				store, other := newFaultyStores()
				one, two := newSessions(t, fc, withStore(store)), newSessions(t, fc, withStore(other))
				logIn(t, one, "a")
				time.Sleep(2 * time.Hour)
				store.set(cutOffAfter(isSuccessor))
				token(t, one.TokenSource("a"))
				token(t, two.TokenSource("a"))
				time.Sleep(56 * time.Minute)
				fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{Before: presenting})
				token(t, two.TokenSource("a")) // has it refreshed
				synctest.Wait()
				store.down(false)
				time.Sleep(30 * time.Second) // time for the save that is tried again, and for the other's call
				if n := fc.Counts().Logouts; n != 0 {
					t.Errorf("FinCode made %d logouts of a session in use", n)
				}
				for range 2 {
					for _, s := range []*fincodeauth.Sessions{one, two} {
						if status := whoami(t, fc, token(t, s.TokenSource("a"))); status != http.StatusOK {
							t.Errorf("the token answers %d", status)
						}
					}
					time.Sleep(2 * time.Hour)
				}
				wantCalls(t, fc, 3, 3)
			})
		})
	}
}

func TestUnansweredSaveCountsAsDoneIfAnotherProcessClaimedTheToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store, other := newFaultyStores()
		var seen events
		one, two := newSessions(t, fc, withStore(store), seen.observe), newSessions(t, fc, withStore(other))
		store.set(cutOffAfter(isSuccessor))
		logIn(t, one, "a")
		tok := token(t, one.TokenSource("a"))
		token(t, two.TokenSource("a"))
		time.Sleep(56 * time.Minute)
		fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{Before: 10 * time.Second})
		token(t, two.TokenSource("a"))
		synctest.Wait()
		store.down(false)
		time.Sleep(8 * time.Second) // the other is still presenting it
		if token(t, one.TokenSource("a")) != tok {
			t.Error("the token is not in use any more")
		}
		synctest.Wait()
		seen.want(t, fincodeauth.LoggedIn, fincodeauth.SaveFailed, fincodeauth.Saved)
		time.Sleep(10 * time.Second)
		wantCalls(t, fc, 1, 1)
	})
}

func TestUnansweredLoginDoesNotReplaceItsSuccessor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store, other := newFaultyStores()
		one, two := newSessions(t, fc, withStore(store)), newSessions(t, fc, withStore(other))
		store.set(cutOffAfter(isSuccessor))
		logIn(t, one, "a")
		time.Sleep(2 * time.Hour)
		newer := token(t, two.TokenSource("a"))
		store.down(false)
		time.Sleep(10 * time.Second)
		if record(t, store, "a").Token.AccessToken != newer.AccessToken {
			t.Error("the store lost the newer token")
		}
		if token(t, one.TokenSource("a")).AccessToken != newer.AccessToken {
			t.Error("the process that logged in has another token")
		}
		wantCalls(t, fc, 1, 1)
	})
}

func TestUnansweredLoginDoesNotReplaceANewerLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store, other := newFaultyStores()
		one, two := newSessions(t, fc, withStore(store)), newSessions(t, fc, withStore(other))
		store.set(cutOffAfter(isSuccessor))
		logIn(t, one, "a")
		time.Sleep(2 * time.Hour)
		token(t, two.TokenSource("a"))
		logIn(t, two, "a")
		newer := token(t, two.TokenSource("a"))
		store.down(false)
		time.Sleep(10 * time.Second)
		if record(t, store, "a").Token.AccessToken != newer.AccessToken {
			t.Error("the store lost the newer login")
		}
		_, err := one.TokenSource("a").Token()
		if err != nil {
			t.Errorf("one: %v", err)
		}
		time.Sleep(2 * time.Hour)
		if _, err := two.TokenSource("a").Token(); err != nil {
			t.Errorf("two: %v", err)
		}
	})
}

func TestFirstLoginStaysValidUntilTheSecondIsSaved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store, other := newFaultyStores()
		one, two := newSessions(t, fc, withStore(store)), newSessions(t, fc, withStore(other))
		store.set(func(s *faultyStore) {
			s.save = func(_ *fincodeauth.Record, save func() error) error {
				err := save()
				time.Sleep(500 * time.Millisecond)
				return err
			}
		})
		first := make(chan error, 1)
		go func() { first <- one.Login(t.Context(), "a", credentials) }()
		time.Sleep(100 * time.Millisecond)
		store.set(func(s *faultyStore) {
			s.save = func(rec *fincodeauth.Record, save func() error) error {
				if isSuccessor(rec) {
					time.Sleep(2 * time.Second)
				}
				return save()
			}
		})
		logIn(t, one, "a")
		if status := whoami(t, fc, token(t, two.TokenSource("a"))); status != http.StatusOK {
			t.Errorf("while the second login is being saved, another process's token answers %d", status)
		}
		time.Sleep(2 * time.Second)
		if record(t, store, "a").Token.AccessToken != token(t, one.TokenSource("a")).AccessToken {
			t.Error("the store has another token than that of the second login")
		}
		if err := <-first; err != nil {
			t.Errorf("the first login: %v", err)
		}
	})
}

func TestLateSaveOfAReplacedLoginBringsBackOnlyADeadToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := newFaultyStore()
		sessions := newSessions(t, fc, withStore(store))
		var first *fincodeauth.Record
		store.set(func(s *faultyStore) {
			s.save = func(rec *fincodeauth.Record, _ func() error) error { first = rec; return errStoreDown }
		})
		logIn(t, sessions, "a")
		store.set(func(s *faultyStore) {
			s.save = func(rec *fincodeauth.Record, save func() error) error {
				if isSuccessor(rec) {
					time.Sleep(500 * time.Millisecond)
				}
				return save()
			}
		})
		logIn(t, sessions, "a")
		time.Sleep(5 * time.Second)
		if err := sessions.Logout(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		if err := store.MemoryStore.Save(t.Context(), "a", first, ""); err != nil { // carried out at last
			t.Fatal(err)
		}
		if status := whoami(t, fc, record(t, store, "a").Token); status != http.StatusUnauthorized {
			t.Errorf("the token that came back answers %d", status)
		}
	})
}

// A slowStore is a store that answers a Load, and makes a Save, late.
type slowStore struct {
	fincodeauth.Store
	load atomic.Int64 // delay after the read
	save atomic.Int64 // delay before the write
}

func (s *slowStore) Load(ctx context.Context, key string) (*fincodeauth.Record, error) {
	rec, err := s.Store.Load(ctx, key)
	time.Sleep(time.Duration(s.load.Load()))
	return rec, err
}

func (s *slowStore) Save(ctx context.Context, key string, rec *fincodeauth.Record, prev string) error {
	time.Sleep(time.Duration(s.save.Load()))
	return s.Store.Save(ctx, key, rec, prev)
}

func TestReplacedSuccessorIsRevokedAfterItsSlowSave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := newFaultyStore()
		sessions := newSessions(t, fc, withStore(store))
		logIn(t, sessions, "a")
		first, _, _ := strings.Cut(record(t, store, "a").Version, ".")
		time.Sleep(2 * time.Hour)
		fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{After: 2 * time.Second})
		var successor *oauth2.Token
		store.set(func(s *faultyStore) {
			s.save = func(rec *fincodeauth.Record, save func() error) error {
				switch {
				case !isSuccessor(rec):
				case strings.HasPrefix(rec.Version, first+"."):
					successor = rec.Token
					defer time.Sleep(3 * time.Second)
				default: // the second login
					time.Sleep(1500 * time.Millisecond)
				}
				return save()
			}
		})
		go sessions.TokenSource("a").Token()
		time.Sleep(time.Second)
		logIn(t, sessions, "a")
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if status := whoami(t, fc, successor); status != http.StatusUnauthorized {
			t.Errorf("the successor of the session that was replaced answers %d", status)
		}
		if status := whoami(t, fc, token(t, sessions.TokenSource("a"))); status != http.StatusOK {
			t.Errorf("the login's token answers %d", status)
		}
	})
}

func TestRefreshedTokenIsSavedIfTheLoginIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store, other := newFaultyStores()
		one, two := newSessions(t, fc, withStore(store)), newSessions(t, fc, withStore(other))
		elsewhere := newSessions(t, fc)
		logIn(t, one, "a")
		logIn(t, elsewhere, "a")
		pair := token(t, elsewhere.TokenSource("a"))
		time.Sleep(2 * time.Hour)

		fc.Inject(fincodetest.Login, 1, fincodetest.Fault{After: 5 * time.Second})
		login := make(chan error, 1)
		go func() { login <- one.Login(t.Context(), "a", credentials) }() // has looked at the store
		time.Sleep(100 * time.Millisecond)
		if err := two.Adopt(t.Context(), "a", pair); err != nil {
			t.Fatal(err)
		}
		fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{After: 8 * time.Second})
		go one.TokenSource("a").Token()
		failed := false
		store.set(func(s *faultyStore) {
			s.save = func(rec *fincodeauth.Record, save func() error) error {
				if begins := !strings.Contains(rec.Version, "."); begins && !failed {
					failed = true
					return errStoreDown // so that nobody knows what came first
				}
				return save()
			}
		})
		if err := <-login; err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		if rec := record(t, store, "a"); rec.Token.RefreshToken == pair.RefreshToken || whoami(t, fc, rec.Token) != http.StatusOK {
			t.Errorf("the store has %v, whose token is the old one or answers %d", rec, whoami(t, fc, rec.Token))
		}
		for _, sessions := range []*fincodeauth.Sessions{one, two} {
			if status := whoami(t, fc, token(t, sessions.TokenSource("a"))); status != http.StatusOK {
				t.Errorf("a process's token answers %d", status)
			}
		}
	})
}

func TestTokenThatALoginElsewhereReplacedIsRevoked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := fincodeauth.NewMemoryStore()
		one, two := newSessions(t, fc, withStore(store)), newSessions(t, fc, withStore(store))
		logIn(t, one, "a")
		time.Sleep(57 * time.Minute) // due, and still good
		fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{After: 2 * time.Second})
		token(t, one.TokenSource("a")) // begins to refresh
		time.Sleep(time.Second)
		logIn(t, two, "a")
		time.Sleep(10 * time.Second)
		if c := fc.Counts(); c.Refreshes != 1 || c.Logouts != 1 {
			t.Errorf("%d refreshes and %d logouts, want one of each", c.Refreshes, c.Logouts)
		}
		if want := token(t, two.TokenSource("a")); token(t, one.TokenSource("a")).AccessToken != want.AccessToken {
			t.Error("one does not use the token of the login")
		}
	})
}
