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

// Steps:
//  1. FinCode rotates the token, and the store refuses to save the new one.
//  2. The new token is used all the same.
//  3. The store is back, and the new token is saved.
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
			t.Error("got another token, want the unsaved one to stay in use")
		}
		seen.want(t)
		store.down(false)
		time.Sleep(10 * time.Second)
		seen.want(t, fincodeauth.Saved)
		if record(t, store, "a").Token.AccessToken != tok.AccessToken {
			t.Error("the store has another token, want the new one")
		}
		time.Sleep(2 * time.Hour)
		token(t, sessions.TokenSource("a"))
		wantCalls(t, fc, 2, 2)
	})
}

// A token must be saved before it can be refreshed, because a refresh begins with a
// claim in the store. Until then an expired token is an error.
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
			t.Errorf("got error %v, want one that does not ask for a login", err)
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
			t.Errorf("a caller waited %v, want at most 1 s", waited)
		}
		if err := sessions.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// A hangingStore accepts a claim, and does not answer the next calls.
type hangingStore struct {
	fincodeauth.Store
	calls int32        // how many calls are not answered
	left  atomic.Int32 // how many of them are still to come
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
		s.calls = 0 // only after the first claim
	}
	return err
}

func (s *hangingStore) hang(ctx context.Context) error {
	s.left.Add(-1)
	<-ctx.Done()
	return ctx.Err()
}

// Steps:
//  1. Process one claims and refreshes.
//  2. Its store does not answer the first two attempts to save the new token.
//  3. Process one saves the token before process two, which watches the claim, takes
//     over.
func TestStoreHangIsNotMistakenForADeadOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := fincodeauth.NewMemoryStore()
		hanging := &hangingStore{Store: store, calls: 4} // two Saves, and the Load after each of them
		one, two := newSessions(t, fc, withStore(hanging)), newSessions(t, fc, withStore(store))
		logIn(t, one, "a")
		time.Sleep(2 * time.Hour)
		tok := token(t, one.TokenSource("a"))
		waited := elapsed(func() {
			if got, err := two.TokenSource("a").Token(); err != nil || got.AccessToken != tok.AccessToken {
				t.Errorf("process two has another token, or error %v; want the token of process one", err)
			}
		})
		if waited >= 2*refreshTimeout || hanging.left.Load() > 0 {
			t.Errorf("process two got the token after %v, and %d more calls of the store will hang; want less than %v, and none",
				waited, hanging.left.Load(), 2*refreshTimeout)
		}
		time.Sleep(time.Hour + refreshTimeout)
		for _, s := range []*fincodeauth.Sessions{one, two} {
			if _, err := s.TokenSource("a").Token(); err != nil {
				t.Errorf("got error %v, want a token", err)
			}
		}
		wantCalls(t, fc, 2, 2)
	})
}

// Steps:
//  1. A process gets a new token, and is stopped before it saves the token.
//  2. Another process takes over. FinCode answers it 503.
//  3. The first process goes on, and saves its token over the claim of the other.
//  4. The other adopts the token.
//
// Steps:
//  1. The Save of the new token conflicts, so the store is asked what is there.
//  2. That Load fails, and so does each further one for three seconds.
func TestConflictWhileLoadsFailIsNotRepeatedWithoutAPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := newFaultyStore()
		sessions := newSessions(t, fc, withStore(store))
		logIn(t, sessions, "a")
		time.Sleep(56 * time.Minute)
		var loads atomic.Int32
		store.set(func(s *faultyStore) {
			s.save = func(rec *fincodeauth.Record, save func() error) error {
				if err := save(); err != nil || !isSuccessor(rec) {
					return err
				}
				s.set(func(s *faultyStore) {
					s.save = func(*fincodeauth.Record, func() error) error { return fincodeauth.ErrConflict }
					s.load = func() error {
						if loads.Add(1) > 1000 {
							return nil
						}
						return errStoreDown
					}
				})
				return errStoreDown
			}
		})
		token(t, sessions.TokenSource("a"))
		time.Sleep(3 * time.Second)
		store.down(false)
		if n := loads.Load(); n == 0 || n > 50 {
			t.Errorf("%d Loads within 3 s, want a few", n)
		}
		time.Sleep(time.Minute)
		if got, want := record(t, store, "a").Token.AccessToken, token(t, sessions.TokenSource("a")).AccessToken; got != want {
			t.Error("the store has another token than the one in use")
		}
		wantCalls(t, fc, 1, 1)
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
					<-hold // the process is stopped here
					return errStoreDown
				}
				return save()
			}
		})
		mine := token(t, slow.TokenSource("a"))
		other := newSessions(t, fc, withStore(store))
		fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{Kind: fincodetest.ErrorStatus, Status: 503})
		if _, err := other.TokenSource("a").Token(); err == nil || errors.Is(err, fincodeauth.ErrLoginRequired) {
			t.Fatalf("got error %v, want FinCode's 503", err)
		}
		close(hold)
		time.Sleep(time.Second)
		if record(t, store, "a").Token.AccessToken != mine.AccessToken {
			t.Fatal("the store does not have the new token, want it saved over the claim of the other process")
		}
		if token(t, other.TokenSource("a")).AccessToken != mine.AccessToken {
			t.Error("the other process has another token, want the new one")
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
			t.Error("the store has another token, want that of the login")
		}
		seen.want(t, fincodeauth.LoggedIn, fincodeauth.SaveFailed, fincodeauth.Saved)
	})
}

// Steps:
//  1. A flight begins, and its Load is slow.
//  2. A login is made. Its Save takes 5 s.
//  3. The flight goes on, and finds nothing, or the old record. Callers keep getting
//     the token of the login.
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
			var loads atomic.Int32
			store.set(func(s *faultyStore) {
				s.load = func() error {
					if loads.Add(1) == 1 {
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
			logIn(t, sessions, "a") // returns after 1 s
			for range 40 {
				tok, err := sessions.TokenSource("a").Token()
				if err != nil {
					t.Errorf("with an expired session before %t: got error %v after Login, want a token", expired, err)
					break
				}
				if status := whoami(t, fc, tok); status != 200 {
					t.Errorf("with an expired session before %t: FinCode answers %d to the token, want 200", expired, status)
					break
				}
				time.Sleep(250 * time.Millisecond)
			}
			time.Sleep(time.Minute)
		})
	}
}

// Steps:
//  1. A thief uses the refresh token.
//  2. Process one presents it, and FinCode refuses.
//  3. The store refuses to save the end. Until it is saved, callers are not told to
//     log in, because another process may have a newer token.
//  4. The store is back, and the end is saved. Both processes report the breach.
func TestBreachIsRememberedUntilTheEndIsSaved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := newFaultyStore()
		var seen events
		one := newSessions(t, fc, withStore(store), withCredentials, seen.observe)
		two := newSessions(t, fc, withStore(store), withCredentials)
		logIn(t, one, "a")
		present(t, fc, record(t, store, "a").Token.RefreshToken) // a thief
		time.Sleep(2 * time.Hour)
		store.set(endsFail)
		_, err := one.TokenSource("a").Token()
		wantNoLoginRequired(t, err)
		if answer, ok := errors.AsType[*fincodeauth.EndpointError](err); !ok || answer.Status != http.StatusForbidden {
			t.Errorf("got error %v, want FinCode's 403 in it", err)
		}
		for range 10 {
			_, err := one.TokenSource("a").Token()
			wantNoLoginRequired(t, err)
		}
		for _, ev := range seen.all {
			if answer, ok := errors.AsType[*fincodeauth.EndpointError](ev.Err); ev.Type == fincodeauth.SaveFailed &&
				(!ok || answer.Status != http.StatusForbidden || !errors.Is(ev.Err, errStoreDown)) {
				t.Errorf("got SaveFailed with error %v, want FinCode's 403 and the store's error in it", ev.Err)
			}
		}
		store.down(false)
		time.Sleep(time.Minute)
		seen.want(t, fincodeauth.LoggedIn, fincodeauth.SaveFailed, fincodeauth.Ended, fincodeauth.Saved)
		_, err = one.TokenSource("a").Token()
		wantSessionError(t, err, true, false)
		_, err = two.TokenSource("a").Token()
		wantSessionError(t, err, true, false)
	})
}

// wantNoLoginRequired checks that err is an error that does not ask for a login. A
// process asks for a login only after the store has confirmed that no other process
// has a newer token.
func wantNoLoginRequired(t *testing.T, err error) {
	t.Helper()
	if err == nil || errors.Is(err, fincodeauth.ErrLoginRequired) {
		t.Errorf("got error %v, want one that does not ask for a login yet", err)
	}
}

// Steps:
//  1. Process one claims. Its machine is suspended for a minute, and the wall clock is
//     set back by a minute, so no clock of process one shows that its claim is old.
//  2. Process two takes over and refreshes.
//  3. Process one presents the old token while it cannot reach the store. FinCode
//     refuses.
//  4. Process one reaches the store again, and finds the token of process two.
func TestRefusalAfterAMissedTakeoverDoesNotEndTheSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store, other := newFaultyStores()
		server := newMachine()
		var seen events
		one, two := server.newSessions(t, fc, withStore(store), seen.observe), newSessions(t, fc, withStore(other))
		logIn(t, one, "a")
		time.Sleep(2 * time.Hour)
		first := true
		store.set(func(s *faultyStore) {
			s.save = func(rec *fincodeauth.Record, save func() error) error {
				err := save()
				if first {
					first = false
					server.suspend(time.Minute)
					server.moveWallClock(-time.Minute)
					s.down(true)
				}
				return err
			}
		})
		go one.TokenSource("a").Token()
		time.Sleep(time.Second)
		want := token(t, two.TokenSource("a"))
		time.Sleep(time.Minute)
		store.down(false)
		time.Sleep(time.Minute)
		if got := token(t, one.TokenSource("a")); got.AccessToken != want.AccessToken {
			t.Error("process one has another token, want that of process two, which took over")
		}
		for _, e := range seen.all {
			if e.Type == fincodeauth.Ended {
				t.Errorf("got event %v, want no Ended", e)
			}
		}
	})
}

// Steps:
//  1. A thief uses the refresh token.
//  2. Process one presents it, and the store goes down.
//  3. FinCode refuses. Process one cannot load the record to see whether another
//     process has refreshed.
//  4. The store is back. Process one saves the end, and both processes report the
//     breach.
func TestBreachIsRememberedIfTheStoreIsDownWhenFinCodeRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := newFaultyStore()
		one := newSessions(t, fc, withStore(store), withCredentials)
		two := newSessions(t, fc, withStore(store), withCredentials)
		logIn(t, one, "a")
		present(t, fc, record(t, store, "a").Token.RefreshToken) // a thief
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

// Steps:
//  1. A thief uses the refresh token, and FinCode refuses it.
//  2. The store refuses to save the end of the session.
//  3. A login replaces the session. The end is not saved any more, and not reported.
func TestEndOfAReplacedSessionIsNotReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := newFaultyStore()
		var seen events
		sessions := newSessions(t, fc, withStore(store), seen.observe)
		logIn(t, sessions, "a")
		present(t, fc, record(t, store, "a").Token.RefreshToken) // a thief
		time.Sleep(2 * time.Hour)
		store.set(endsFail)
		_, err := sessions.TokenSource("a").Token()
		wantNoLoginRequired(t, err)
		logIn(t, sessions, "a")
		store.down(false)
		time.Sleep(time.Minute)
		seen.want(t, fincodeauth.LoggedIn, fincodeauth.SaveFailed, fincodeauth.LoggedIn)
		if record(t, store, "a").Token.AccessToken != token(t, sessions.TokenSource("a")).AccessToken {
			t.Error("the store has another token, want that of the login")
		}
	})
}

// The same with a store that is slow: the login waits until the end is saved and
// reported.
func TestLoginWaitsUntilTheEndBeforeItIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := newFaultyStore()
		var seen events
		sessions := newSessions(t, fc, withStore(store), seen.observe)
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
		seen.want(t, fincodeauth.LoggedIn, fincodeauth.Ended, fincodeauth.LoggedIn)
		token(t, sessions.TokenSource("a"))
	})
}

// Steps:
//  1. Process one's session has nothing to refresh with, and ends. The store refuses
//     to save the end.
//  2. Process two adopts a new token.
//  3. The store is back. Process one does not save the end over the record of process
//     two.
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
			t.Errorf("process one got error %v, want the token that process two adopted", err)
		}
	})
}

// FinCode keeps the refresh token here, so a new record can have the old one's.
//  1. FinCode refuses process one's refresh. The store refuses to save the end.
//  2. Process two takes over and refreshes.
//  3. The store is back. Process one does not save the end over the record of process
//     two.
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
			t.Errorf("the store has %v, want the record of process two", rec)
		}
	})
}

// Steps:
//  1. Process one refreshes and saves the new token, but gets no answer to the Save.
//  2. Process two adopts the token, and later claims it, or has refreshed it.
//  3. Process one reaches the store again, tries to save, and gets a conflict. Process
//     one does not revoke its token, because process two goes on from it.
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
				token(t, two.TokenSource("a")) // starts the refresh in the background
				synctest.Wait()
				store.down(false)
				time.Sleep(30 * time.Second) // process one tries to save again, and the refresh of process two ends
				if n := fc.Counts().Logouts; n != 0 {
					t.Errorf("FinCode got %d logouts, want none: the session is in use", n)
				}
				for range 2 {
					for _, s := range []*fincodeauth.Sessions{one, two} {
						if status := whoami(t, fc, token(t, s.TokenSource("a"))); status != http.StatusOK {
							t.Errorf("FinCode answers %d to the token, want 200", status)
						}
					}
					time.Sleep(2 * time.Hour)
				}
				wantCalls(t, fc, 3, 3)
			})
		})
	}
}

// Steps:
//  1. Process one saves a login, but gets no answer to the Save.
//  2. Process two adopts the token, and later claims it.
//  3. Process one reaches the store again, tries to save, and gets a conflict. The
//     record is a claim, but it has process one's token: so the first Save succeeded.
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
		time.Sleep(8 * time.Second) // process two is still presenting the token
		if token(t, one.TokenSource("a")) != tok {
			t.Error("got another token, want the one of the login to stay in use")
		}
		synctest.Wait()
		seen.want(t, fincodeauth.LoggedIn, fincodeauth.SaveFailed, fincodeauth.Saved)
		time.Sleep(10 * time.Second)
		wantCalls(t, fc, 1, 1)
	})
}

// Steps:
//  1. Process one saves a login, but gets no answer to the Save.
//  2. Process two refreshes the token.
//  3. Process one reaches the store again. It does not save its login over the newer
//     token.
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
			t.Error("the store has another token, want the newer token of process two")
		}
		if token(t, one.TokenSource("a")).AccessToken != newer.AccessToken {
			t.Error("process one has another token, want the newer token of process two")
		}
		wantCalls(t, fc, 1, 1)
	})
}

// Steps:
//  1. Process one saves a login, but gets no answer to the Save.
//  2. Process two refreshes the token, and then logs in.
//  3. Process one reaches the store again. It does not save its login over the newer
//     one.
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
			t.Error("the store has another token, want that of the newer login")
		}
		_, err := one.TokenSource("a").Token()
		if err != nil {
			t.Errorf("process one got error %v, want a token", err)
		}
		time.Sleep(2 * time.Hour)
		if _, err := two.TokenSource("a").Token(); err != nil {
			t.Errorf("process two got error %v, want a token", err)
		}
	})
}

// Steps:
//  1. Process one saves a first login. The answer to the Save is slow.
//  2. Process one makes a second login, which replaces the first. Its Save takes 2 s.
//  3. Meanwhile process two loads the first login: its token must still be valid.
//  4. The second login is saved.
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
			t.Errorf("while the second login is being saved, FinCode answers %d to the token of process two, want 200", status)
		}
		time.Sleep(2 * time.Second)
		if record(t, store, "a").Token.AccessToken != token(t, one.TokenSource("a")).AccessToken {
			t.Error("the store has another token, want that of the second login")
		}
		if err := <-first; err != nil {
			t.Errorf("the first login returned error %v, want none", err)
		}
	})
}

// Steps:
//  1. The first Save of a login fails. The second succeeds.
//  2. The session is logged out.
//  3. The store is about to carry out the first Save after all. The record of the
//     Logout is in its way.
func TestLateSaveOfALoginDoesNotBringItBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := newFaultyStore()
		sessions := newSessions(t, fc, withStore(store))
		var first *fincodeauth.Record
		store.set(func(s *faultyStore) {
			s.save = func(rec *fincodeauth.Record, _ func() error) error { first = rec; return errStoreDown }
		})
		logIn(t, sessions, "a")
		store.down(false)
		time.Sleep(5 * time.Second)
		if err := sessions.Logout(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		if err := store.MemoryStore.Save(t.Context(), "a", first, ""); !errors.Is(err, fincodeauth.ErrConflict) {
			t.Errorf("the late Save returns error %v, want ErrConflict", err)
		}
		wantLoggedOut(t, store, "a")
	})
}

// Steps:
//  1. The Save of a first login gets no answer, but lands.
//  2. A second login replaces the first. The answer to its first Save is lost, too, and
//     that Save did not land.
//  3. The next Save finds the first login. Process one knows that its second login is
//     the newer one, and saves it.
func TestSecondLoginReplacesAnUnheardFirstOne(t *testing.T) {
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
			s.save = func(*fincodeauth.Record, func() error) error {
				_ = store.MemoryStore.Save(context.Background(), "a", first, "") // it may be there already
				return errStoreDown
			}
		})
		logIn(t, sessions, "a")
		want := token(t, sessions.TokenSource("a"))
		if record(t, store, "a").Token.AccessToken == want.AccessToken {
			t.Error("the store has the second login, want the first one to have landed late")
		}
		store.down(false)
		time.Sleep(time.Minute)
		if got := record(t, store, "a").Token.AccessToken; got != want.AccessToken || token(t, sessions.TokenSource("a")) != want {
			t.Error("another login is in the store or in use, want the second one")
		}
	})
}

// Steps:
//  1. A refresh is under way, and the Save of its new token is slow.
//  2. A login waits for that, and then replaces the session. FinCode is not told, because
//     nobody knows whether its logout ends other sessions of the same user.
func TestLoginTellsFinCodeNothingOfTheSessionThatItReplaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := newFaultyStore()
		sessions := newSessions(t, fc, withStore(store))
		logIn(t, sessions, "a")
		time.Sleep(2 * time.Hour)
		fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{After: 2 * time.Second})
		store.set(func(s *faultyStore) {
			s.save = func(rec *fincodeauth.Record, save func() error) error {
				if isSuccessor(rec) {
					time.Sleep(3 * time.Second)
				}
				return save()
			}
		})
		go sessions.TokenSource("a").Token()
		time.Sleep(time.Second)
		logIn(t, sessions, "a")
		time.Sleep(30 * time.Second)
		if n := fc.Counts().Logouts; n != 0 {
			t.Errorf("FinCode made %d logouts, want none", n)
		}
		tok := token(t, sessions.TokenSource("a"))
		if status := whoami(t, fc, tok); status != http.StatusOK || record(t, store, "a").Token.AccessToken != tok.AccessToken {
			t.Errorf("FinCode answers %d to the token of the login, want 200; and the store must have it", status)
		}
	})
}

// Steps:
//  1. Process one begins a login, and loads the record. FinCode's answer takes 5 s.
//  2. Process two adopts another pair.
//  3. A caller of process one waits behind the login.
//  4. The login gets its answer. Its first Save fails, and the next finds the session
//     of process two. Nobody can tell which of them came first, so the login is given
//     up.
//  5. Process one goes on with the session of process two.
func TestProcessGoesOnWithTheSessionForWhichALoginIsGivenUp(t *testing.T) {
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
		go func() { login <- one.Login(t.Context(), "a", credentials) }()
		time.Sleep(100 * time.Millisecond)
		if err := two.Adopt(t.Context(), "a", pair); err != nil {
			t.Fatal(err)
		}
		go one.TokenSource("a").Token()
		failed := false
		store.set(func(s *faultyStore) {
			s.save = func(rec *fincodeauth.Record, save func() error) error {
				if isLogin := !strings.Contains(rec.Version, "."); isLogin && !failed {
					failed = true
					return errStoreDown
				}
				return save()
			}
		})
		if err := <-login; err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		for _, sessions := range []*fincodeauth.Sessions{one, two} {
			if status := whoami(t, fc, token(t, sessions.TokenSource("a"))); status != http.StatusOK {
				t.Errorf("FinCode answers %d to the token of a process, want 200", status)
			}
		}
		if rec := record(t, store, "a"); rec.Token.RefreshToken == pair.RefreshToken || whoami(t, fc, rec.Token) != http.StatusOK {
			t.Errorf("the store has %v, and FinCode answers %d to its token; want the refreshed token, and 200", rec, whoami(t, fc, rec.Token))
		}
		wantCalls(t, fc, 1, 1)
	})
}

// Steps:
//  1. Process one's refresh is under way.
//  2. Process two logs in.
//  3. Process one gets a new token, and finds the record of the login. Process one gives
//     its token up, tells FinCode nothing, and adopts that of the login.
func TestTokenThatALoginElsewhereReplacedIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := fincodeauth.NewMemoryStore()
		one, two := newSessions(t, fc, withStore(store)), newSessions(t, fc, withStore(store))
		logIn(t, one, "a")
		time.Sleep(57 * time.Minute) // the token is due, and still valid
		fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{After: 2 * time.Second})
		token(t, one.TokenSource("a")) // starts the refresh in the background
		time.Sleep(time.Second)
		logIn(t, two, "a")
		time.Sleep(10 * time.Second)
		if c := fc.Counts(); c.Refreshes != 1 || c.Logouts != 0 {
			t.Errorf("got %d refreshes and %d logouts, want one refresh and no logout", c.Refreshes, c.Logouts)
		}
		if want := token(t, two.TokenSource("a")); token(t, one.TokenSource("a")).AccessToken != want.AccessToken {
			t.Error("process one has another token, want that of the login")
		}
	})
}

// Steps:
//  1. A process refreshes. The first Save of the new token fails.
//  2. A login begins before the second Save. FinCode's answer to it takes long, and is a
//     refusal.
//  3. The new token is saved before that. Otherwise another process would take over
//     meanwhile, and the session would end because of a wrong password.
func TestLoginSavesTheUnsavedTokenBeforeItCallsFinCode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := newFaultyStore()
		one, two := newSessions(t, fc, withStore(store)), newSessions(t, fc, withStore(store))
		logIn(t, one, "a")
		time.Sleep(2 * time.Hour)
		store.set(successorsFail)
		tok := token(t, one.TokenSource("a"))
		store.down(false)
		fc.Inject(fincodetest.Login, 1, fincodetest.Fault{Before: refreshTimeout - time.Second})
		login := make(chan error, 1)
		go func() {
			login <- one.Login(t.Context(), "a", fincodeauth.Credentials{Email: fincodetest.Email, Password: "wrong"})
		}()
		synctest.Wait()
		if waited := elapsed(func() {
			if token(t, two.TokenSource("a")).AccessToken != tok.AccessToken {
				t.Error("process two has another token, want the new one of process one")
			}
		}); waited != 0 {
			t.Errorf("process two waited %v, want no wait", waited)
		}
		if err := <-login; !errors.Is(err, fincodeauth.ErrBadCredentials) {
			t.Errorf("Login = %v, want ErrBadCredentials", err)
		}
		if token(t, one.TokenSource("a")) != tok {
			t.Error("process one has another token, want the new one to stay in use")
		}
	})
}

// Steps:
//  1. The Save of a new token fails.
//  2. Another process logs out.
//  3. A login finds that, and has FinCode revoke the token. FinCode's answer takes longer
//     than the caller of the login waits.
//  4. The token is revoked all the same.
func TestRevocationSurvivesTheEndOfALoginsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store, other := newFaultyStores()
		one, two := newSessions(t, fc, withStore(store)), newSessions(t, fc, withStore(other))
		logIn(t, one, "a")
		time.Sleep(2 * time.Hour)
		store.set(successorsFail)
		tok := token(t, one.TokenSource("a"))
		_ = two.Logout(t.Context(), "a") // FinCode refuses the token that was used
		store.down(false)
		fc.Inject(fincodetest.Logout, 1, fincodetest.Fault{Before: 2 * time.Second})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_ = one.Login(ctx, "a", credentials)
		time.Sleep(time.Minute)
		if status := whoami(t, fc, tok); status != http.StatusUnauthorized {
			t.Errorf("FinCode answers %d to the token, want 401", status)
		}
	})
}

// Three logins are not saved, and each of the first two may land late. The third is newer
// than both, and is saved over whichever is there.
func TestThirdLoginReplacesBothUnheardOnes(t *testing.T) {
	for late := range 2 {
		synctest.Test(t, func(t *testing.T) {
			fc := fincodetest.New(fincodetest.Config{})
			store := newFaultyStore()
			sessions := newSessions(t, fc, withStore(store))
			var unheard []*fincodeauth.Record
			store.set(func(s *faultyStore) {
				s.save = func(rec *fincodeauth.Record, _ func() error) error {
					unheard = append(unheard, rec)
					return errStoreDown
				}
			})
			for range 3 {
				logIn(t, sessions, "a")
				if last := len(unheard) - 1; last > 0 && unheard[last].Version == unheard[last-1].Version {
					unheard = unheard[:last] // a Login first tries to save the one before
				}
			}
			want := token(t, sessions.TokenSource("a"))
			logins := slices.CompactFunc(unheard, func(a, b *fincodeauth.Record) bool { return a.Version == b.Version })
			if err := store.MemoryStore.Save(t.Context(), "a", logins[late], ""); err != nil {
				t.Fatal(err)
			}
			store.down(false)
			time.Sleep(time.Minute)
			if got := record(t, store, "a").Token.AccessToken; got != want.AccessToken || token(t, sessions.TokenSource("a")) != want {
				t.Errorf("login %d landed late, and is in the store or in use; want the third", late+1)
			}
		})
	}
}

// Whoever saves the change ends the saver: after a Logout, no goroutine is left. The end
// of the bubble checks that.
func TestSaverEndsWhenALogoutHasSaved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := newFaultyStore()
		var seen events
		sessions := newSessions(t, fc, withStore(store), seen.observe)
		store.set(successorsFail)
		logIn(t, sessions, "a")
		time.Sleep(10 * time.Minute)
		store.down(false)
		if err := sessions.Logout(t.Context(), "a"); err != nil {
			t.Error(err)
		}
		seen.want(t, fincodeauth.LoggedIn, fincodeauth.SaveFailed, fincodeauth.Saved, fincodeauth.LoggedOut)
	})
}
