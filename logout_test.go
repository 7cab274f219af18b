package fincodeauth_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/oauth2"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/fincodetest"
)

func TestLogoutRevokesBothTokensAndEndsTheSessionEverywhere(t *testing.T) {
	fc := fincodetest.New(fincodetest.Config{})
	store := fincodeauth.NewMemoryStore()
	var seen events
	sessions := newSessions(t, fc, withStore(store), seen.observe)
	logIn(t, sessions, "a")
	tok := token(t, sessions.TokenSource("a"))
	if err := sessions.Logout(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	seen.want(t, fincodeauth.LoggedIn, fincodeauth.LoggedOut)
	if status := whoami(t, fc, tok); status != http.StatusUnauthorized {
		t.Errorf("FinCode answers %d to the token, want 401", status)
	}
	for _, s := range []*fincodeauth.Sessions{sessions, newSessions(t, fc, withStore(store))} {
		if _, err := s.TokenSource("a").Token(); !errors.Is(err, fincodeauth.ErrNotFound) {
			t.Errorf("got error %v, want ErrNotFound", err)
		}
	}
	if err := sessions.Logout(t.Context(), "a"); err != nil {
		t.Errorf("the second Logout returned error %v, want none", err)
	}
	logIn(t, sessions, "a")
	token(t, sessions.TokenSource("a"))
}

func TestLogoutAfterExpiryRevokesTheRefreshToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		sessions := newSessions(t, fc)
		logIn(t, sessions, "a")
		time.Sleep(2 * time.Hour)
		if err := sessions.Logout(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		if n := fc.Counts().Logouts; n != 1 {
			t.Errorf("FinCode made %d logouts, want 1", n)
		}
	})
}

// FinCode answers 401 to a logout with a revoked access token. The refresh token
// still works after that, so Logout refreshes and logs out with the new pair.
func TestLogoutWithARevokedAccessTokenRevokesTheRefreshToken(t *testing.T) {
	fc := fincodetest.New(fincodetest.Config{})
	var seen events
	sessions := newSessions(t, fc, seen.observe)
	logIn(t, sessions, "a")
	fc.RevokeAccessToken(token(t, sessions.TokenSource("a")).AccessToken)
	if err := sessions.Logout(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	wantCalls(t, fc, 1, 1)
	if n := fc.Counts().Logouts; n != 1 {
		t.Errorf("FinCode made %d logouts, want 1", n)
	}
	seen.want(t, fincodeauth.LoggedIn, fincodeauth.LoggedOut)
}

func TestLogoutRefreshesAtMostOnce(t *testing.T) {
	fc := fincodetest.New(fincodetest.Config{})
	sessions := newSessions(t, fc)
	logIn(t, sessions, "a")
	fc.Inject(fincodetest.Logout, -1, fincodetest.Fault{Kind: fincodetest.ErrorStatus, Status: 401})
	err := sessions.Logout(t.Context(), "a")
	if answer, ok := errors.AsType[*fincodeauth.EndpointError](err); !ok || answer.Op != "logout" || answer.Status != 401 {
		t.Errorf("got error %v, want FinCode's 401 to the second logout", err)
	}
	wantCalls(t, fc, 1, 1)
}

// Only a 401 means that FinCode refuses the access token.
func TestLogoutRefreshesOnlyAfterA401FromFinCode(t *testing.T) {
	for _, fault := range []fincodetest.Fault{
		{Kind: fincodetest.ErrorStatus, Status: 403},
		{Kind: fincodetest.ErrorStatus, Status: 500},
		{Kind: fincodetest.FirewallPage, Status: 401},
		{Kind: fincodetest.HangUp},
	} {
		fc := fincodetest.New(fincodetest.Config{})
		sessions := newSessions(t, fc)
		logIn(t, sessions, "a")
		fc.Inject(fincodetest.Logout, -1, fault)
		if err := sessions.Logout(t.Context(), "a"); err == nil {
			t.Errorf("%+v: got no error, want one", fault)
		}
		wantCalls(t, fc, 0, 0)
	}
}

func TestLogoutThatFinCodeRefusesRemovesTheRecord(t *testing.T) {
	fc := fincodetest.New(fincodetest.Config{})
	store := fincodeauth.NewMemoryStore()
	sessions := newSessions(t, fc, withStore(store))
	logIn(t, sessions, "a")
	fc.Inject(fincodetest.Logout, 1, fincodetest.Fault{Kind: fincodetest.ErrorStatus, Status: 503})
	var ee *fincodeauth.EndpointError
	if err := sessions.Logout(t.Context(), "a"); !errors.As(err, &ee) || ee.Op != "logout" {
		t.Errorf("got error %v, want FinCode's", err)
	}
	wantLoggedOut(t, store, "a")
}

// Steps:
//  1. Process one's refresh is under way: FinCode has rotated the token and revoked the
//     old one.
//  2. Process two logs out. It presents the old token, and FinCode answers 401.
//  3. Process one gets its answer. The session has ended, so the new token is revoked.
func TestLogoutErrorMentionsARefreshInProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{RevokeOnRotation: true})
		store := fincodeauth.NewMemoryStore()
		one, two := newSessions(t, fc, withStore(store)), newSessions(t, fc, withStore(store))
		logIn(t, one, "a")
		time.Sleep(56 * time.Minute)
		fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{After: 2 * time.Second})
		token(t, one.TokenSource("a"))
		time.Sleep(time.Second)
		err := two.Logout(t.Context(), "a")
		if ee, ok := errors.AsType[*fincodeauth.EndpointError](err); !ok || ee.Status != 401 || !strings.Contains(err.Error(), "it was being refreshed") {
			t.Errorf("got error %v, want FinCode's 401, and that it was being refreshed", err)
		}
		time.Sleep(10 * time.Second)
		if n := fc.Counts().Logouts; n != 1 {
			t.Errorf("FinCode made %d logouts, want 1, with the new token of the refresh", n)
		}
	})
}

// Steps:
//  1. A refresh is under way: FinCode has rotated the token and revoked the old one.
//  2. Logout waits for the answer, and then logs out with the new token.
func TestLogoutWaitsForTheRefreshOfItsProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{RevokeOnRotation: true})
		sessions := newSessions(t, fc)
		logIn(t, sessions, "a")
		time.Sleep(56 * time.Minute)
		fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{After: 2 * time.Second})
		token(t, sessions.TokenSource("a"))
		time.Sleep(time.Second)
		if err := sessions.Logout(t.Context(), "a"); err != nil {
			t.Errorf("Logout = %v, want nil", err)
		}
		if c := fc.Counts(); c.Refreshes != 1 || c.Logouts != 1 {
			t.Errorf("got %d refreshes and %d logouts, want one of each", c.Refreshes, c.Logouts)
		}
	})
}

// Steps:
//  1. Logout saves that the session is logged out, but gets no answer to the Save, and
//     returns an error. FinCode was not told.
//  2. The next Logout finds that record, and tells FinCode.
//  3. A third one finds nothing to do.
func TestSecondLogoutCompletesOneWhoseSaveGotNoAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := newFaultyStore()
		sessions := newSessions(t, fc, withStore(store))
		logIn(t, sessions, "a")
		tok := token(t, sessions.TokenSource("a"))
		store.set(cutOffAfter(func(rec *fincodeauth.Record) bool { return rec.Ended != "" }))
		if err := sessions.Logout(t.Context(), "a"); !errors.Is(err, errStoreDown) {
			t.Fatalf("got error %v, want the store's", err)
		}
		store.down(false)
		for range 2 {
			if err := sessions.Logout(t.Context(), "a"); err != nil {
				t.Error(err)
			}
		}
		if n, status := fc.Counts().Logouts, whoami(t, fc, tok); n != 1 || status != http.StatusUnauthorized {
			t.Errorf("FinCode made %d logouts and answers %d to the token, want 1 logout and 401", n, status)
		}
	})
}

// The Deletes fail, so that the second Logout finds the record of the first.
func TestLogoutAfterAnotherProcessLoggedOutIsNoError(t *testing.T) {
	fc := fincodetest.New(fincodetest.Config{})
	store := newFaultyStore()
	one, two := newSessions(t, fc, withStore(store)), newSessions(t, fc, withStore(store))
	logIn(t, one, "a")
	token(t, two.TokenSource("a"))
	store.set(func(s *faultyStore) { s.delete = func() error { return errStoreDown } })
	for _, sessions := range []*fincodeauth.Sessions{one, two} {
		if err := sessions.Logout(t.Context(), "a"); err != nil {
			t.Error(err)
		}
	}
}

func TestLogoutThatTheStoreRefusesChangesNothing(t *testing.T) {
	fc := fincodetest.New(fincodetest.Config{})
	store := newFaultyStore()
	sessions := newSessions(t, fc, withStore(store))
	logIn(t, sessions, "a")
	store.down(true)
	if err := sessions.Logout(t.Context(), "a"); !errors.Is(err, errStoreDown) {
		t.Errorf("got error %v, want the store's", err)
	}
	store.down(false)
	if status := whoami(t, fc, token(t, sessions.TokenSource("a"))); status != http.StatusOK {
		t.Errorf("FinCode answers %d to the token, want 200", status)
	}
}

// The record stays in the store, and says that the session has ended.
func TestLogoutSucceedsIfTheDeleteFails(t *testing.T) {
	fc := fincodetest.New(fincodetest.Config{})
	store := newFaultyStore()
	sessions := newSessions(t, fc, withStore(store))
	logIn(t, sessions, "a")
	store.set(func(s *faultyStore) { s.delete = func() error { return errStoreDown } })
	if err := sessions.Logout(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	_, err := newSessions(t, fc, withStore(store)).TokenSource("a").Token()
	wantSessionError(t, err, false, false)
	if rec := record(t, store, "a"); rec.Token.RefreshToken != "" {
		t.Error("the record has a refresh token, want none")
	}
}

// Steps:
//  1. A refresh is under way.
//  2. This process, or another, logs out.
//  3. The answer to the refresh arrives. The new token is revoked and not saved.
func TestSessionStaysLoggedOutAfterALogoutDuringARefresh(t *testing.T) {
	for name, sameProcess := range map[string]bool{"in the same process": true, "in another": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fc := fincodetest.New(fincodetest.Config{})
				store := fincodeauth.NewMemoryStore()
				refreshing, other := newSessions(t, fc, withStore(store)), newSessions(t, fc, withStore(store))
				logIn(t, refreshing, "a")
				old := token(t, refreshing.TokenSource("a"))
				time.Sleep(56 * time.Minute)
				fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{After: 2 * time.Second})
				token(t, refreshing.TokenSource("a")) // starts the refresh in the background
				time.Sleep(time.Second)

				loggingOut := other
				if sameProcess {
					loggingOut = refreshing
				}
				if err := loggingOut.Logout(t.Context(), "a"); err != nil {
					t.Fatal(err)
				}
				time.Sleep(10 * time.Second)
				for _, s := range []*fincodeauth.Sessions{refreshing, other} {
					if _, err := s.TokenSource("a").Token(); !errors.Is(err, fincodeauth.ErrNotFound) {
						t.Errorf("got error %v, want ErrNotFound", err)
					}
				}
				wantLoggedOut(t, store, "a")
				if status := whoami(t, fc, old); status != http.StatusUnauthorized {
					t.Errorf("FinCode answers %d to the old token, want 401", status)
				}
				if c := fc.Counts(); c.Refreshes != 1 || c.Logouts == 0 {
					t.Errorf("got counts %+v, want one refresh, and a logout", c)
				}
			})
		})
	}
}

// Steps:
//  1. A login is in use, and its Save takes 5 s.
//  2. Logout waits for it, and deletes the record.
func TestSessionStaysLoggedOutAfterALogoutBeforeTheLoginIsSaved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := newFaultyStore()
		sessions := newSessions(t, fc, withStore(store))
		store.set(func(s *faultyStore) {
			s.save = func(rec *fincodeauth.Record, save func() error) error {
				time.Sleep(5 * time.Second)
				return save()
			}
		})
		logIn(t, sessions, "a")
		if err := sessions.Logout(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(30 * time.Second)
		wantLoggedOut(t, store, "a")
		if _, err := sessions.TokenSource("a").Token(); !errors.Is(err, fincodeauth.ErrNotFound) {
			t.Errorf("got error %v after Logout, want ErrNotFound; FinCode made %d logouts", err, fc.Counts().Logouts)
		}
	})
}

// Steps:
//  1. Process one logs out, and its Delete takes half a second.
//  2. Process two logs in meanwhile. The login must wait for the Delete, which
//     compares no version.
func TestLoginDuringALogoutElsewhereIsNotDeleted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := newFaultyStore()
		one, two := newSessions(t, fc, withStore(store)), newSessions(t, fc, withStore(store))
		logIn(t, one, "a")
		store.set(func(s *faultyStore) { s.delete = func() error { time.Sleep(500 * time.Millisecond); return nil } })
		go one.Logout(context.Background(), "a")
		time.Sleep(100 * time.Millisecond)
		logIn(t, two, "a")
		tok := token(t, two.TokenSource("a"))
		time.Sleep(10 * time.Second)
		if got := record(t, store, "a").Token.AccessToken; got != tok.AccessToken {
			t.Error("the store has another token, want that of the login")
		}
	})
}

// The same in one process.
func TestLoginDuringALogoutIsNotDeleted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := newFaultyStore()
		sessions := newSessions(t, fc, withStore(store))
		logIn(t, sessions, "a")
		store.set(func(s *faultyStore) { s.delete = func() error { time.Sleep(500 * time.Millisecond); return nil } })
		done := make(chan error, 1)
		go func() { done <- sessions.Logout(context.Background(), "a") }()
		time.Sleep(100 * time.Millisecond)
		logIn(t, sessions, "a")
		tok := token(t, sessions.TokenSource("a"))
		if err := <-done; err != nil {
			t.Error(err)
		}
		if token(t, sessions.TokenSource("a")) != tok || record(t, store, "a").Token.AccessToken != tok.AccessToken {
			t.Error("another token is in use or in the store, want that of the login")
		}
	})
}

// A slowStore answers a Load late, and carries out a Save late.
type slowStore struct {
	fincodeauth.Store
	load atomic.Int64 // delay after the read, in ns
	save atomic.Int64 // delay before the write, in ns
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

// Steps:
//  1. A login is in use, and its Save is carried out after 1.5 s.
//  2. Logout, at 1 s, waits for the Save. It finds the record of the login, slowly, and
//     ends that session.
func TestLogoutThatRacesWithTheSaveOfALoginEndsTheSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := &slowStore{Store: fincodeauth.NewMemoryStore()}
		sessions := newSessions(t, fc, withStore(store))
		store.save.Store(int64(1500 * time.Millisecond))
		logIn(t, sessions, "a") // returns after 1 s
		store.load.Store(int64(time.Second))
		if err := sessions.Logout(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		store.save.Store(0)
		store.load.Store(0)
		time.Sleep(30 * time.Second)
		_, err := sessions.TokenSource("a").Token()
		if !errors.Is(err, fincodeauth.ErrNotFound) {
			t.Errorf("got error %v after Logout, want ErrNotFound; FinCode made %d logouts", err, fc.Counts().Logouts)
		}
	})
}

// The Delete of a Logout takes longer than a login waits for it. The context of the
// Delete has ended by then, so the Delete does not remove the record of the login.
func TestLoginDuringASlowDeleteIsNotDeleted(t *testing.T) {
	for _, sameProcess := range []bool{true, false} {
		t.Run("", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fc := fincodetest.New(fincodetest.Config{})
				store := newFaultyStore()
				one, two := newSessions(t, fc, withStore(store)), newSessions(t, fc, withStore(store))
				if sameProcess {
					two = one
				}
				logIn(t, one, "a")
				store.set(func(s *faultyStore) { s.delete = func() error { time.Sleep(2 * time.Second); return nil } })
				go one.Logout(context.Background(), "a")
				time.Sleep(100 * time.Millisecond)
				logIn(t, two, "a")
				time.Sleep(10 * time.Second)
				if _, err := store.Load(t.Context(), "a"); err != nil {
					t.Errorf("in the same process %t: loading the record of the login returned error %v, want none", sameProcess, err)
				}
				time.Sleep(56 * time.Minute)
				two.TokenSource("a").Token()
				synctest.Wait()
				if _, err := two.TokenSource("a").Token(); err != nil {
					t.Errorf("in the same process %t: got error %v, want a token", sameProcess, err)
				}
			})
		})
	}
}

// Steps:
//  1. A login loads, and calls FinCode.
//  2. Logout waits for it, finds its record, and ends the login.
func TestLogoutEndsTheLoginThatIsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		sessions := newSessions(t, fc)
		fc.Inject(fincodetest.Login, 1, fincodetest.Fault{Before: 500 * time.Millisecond})
		go sessions.Login(t.Context(), "a", credentials)
		time.Sleep(100 * time.Millisecond)
		if err := sessions.Logout(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		_, err := sessions.TokenSource("a").Token()
		wantSessionError(t, err, false, false)
		if !errors.Is(err, fincodeauth.ErrNotFound) {
			t.Errorf("got error %v, want ErrNotFound", err)
		}
		if c := fc.Counts(); c.Logins != 1 || c.Logouts != 1 {
			t.Errorf("got counts %+v, want one login and one logout", c)
		}
	})
}

// Steps:
//  1. Process one saves a second login over the first, but gets no answer to the Save.
//  2. Process two logs out.
//  3. Process one reaches the store again, and finds no record. Process one does not
//     save its login again, because the login may have been in the store, and logged
//     out.
func TestLoginThatAnotherProcessLoggedOutIsNotSavedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store, other := newFaultyStores()
		one, two := newSessions(t, fc, withStore(store)), newSessions(t, fc, withStore(other))
		logIn(t, one, "a")
		store.set(cutOffAfter(isSuccessor))
		logIn(t, one, "a")
		if err := two.Logout(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		store.down(false)
		time.Sleep(10 * time.Second)
		wantLoggedOut(t, store, "a")
		if _, err := one.TokenSource("a").Token(); !errors.Is(err, fincodeauth.ErrNotFound) {
			t.Errorf("got error %v, want ErrNotFound", err)
		}
	})
}

// Steps:
//  1. A refresh has brought a token, and its Save is slow.
//  2. Logout waits for the Save. The caller of the refresh gets the token before that.
//  3. Logout ends the session. The token is dead, and nobody gets it any more.
func TestLogoutDuringASlowSaveEndsTheSessionWithItsNewToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := newFaultyStore()
		sessions := newSessions(t, fc, withStore(store))
		logIn(t, sessions, "a")
		old := token(t, sessions.TokenSource("a"))
		time.Sleep(30 * time.Minute)
		store.set(func(s *faultyStore) {
			s.save = func(rec *fincodeauth.Record, save func() error) error {
				if isSuccessor(rec) {
					time.Sleep(3 * time.Second)
				}
				return save()
			}
		})
		received := make(chan *oauth2.Token, 1)
		go func() {
			tok, err := sessions.TokenSource("a").Refresh(t.Context(), old)
			if err != nil {
				t.Error(err)
			}
			received <- tok
		}()
		time.Sleep(500 * time.Millisecond) // now the caller waits for the Save
		wantCalls(t, fc, 1, 1)
		if err := sessions.Logout(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		if status := whoami(t, fc, <-received); status != http.StatusUnauthorized {
			t.Errorf("after Logout, FinCode answers %d to the new token, want 401", status)
		}
		if _, err := sessions.TokenSource("a").Token(); !errors.Is(err, fincodeauth.ErrNotFound) {
			t.Errorf("after Logout, got error %v, want ErrNotFound", err)
		}
	})
}

// Steps:
//  1. A login is under way, and its Save is slow.
//  2. Logout waits for the Save, and then ends that session.
//  3. A second login begins a session, and its Save is slow, too. Until it is saved,
//     nobody is logged in.
func TestSecondLoginFindsTheFirstLoggedOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store, other := newFaultyStores()
		one, two := newSessions(t, fc, withStore(store)), newSessions(t, fc, withStore(other))
		store.set(func(s *faultyStore) {
			s.save = func(rec *fincodeauth.Record, save func() error) error {
				if isSuccessor(rec) {
					time.Sleep(2 * time.Second)
				}
				return save()
			}
		})
		logIn(t, one, "a") // returns after 1 s
		first := token(t, one.TokenSource("a"))
		if err := one.Logout(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		if status := whoami(t, fc, first); status != http.StatusUnauthorized {
			t.Errorf("FinCode answers %d to the token of the first login, want 401", status)
		}
		logIn(t, one, "a") // returns after 1 s
		if tok, err := two.TokenSource("a").Token(); !errors.Is(err, fincodeauth.ErrLoginRequired) {
			t.Errorf("before the second login is saved, process two got token %v and error %v, want ErrLoginRequired", tok, err)
		}
		time.Sleep(5 * time.Second)
		if record(t, other, "a").Token.AccessToken != token(t, one.TokenSource("a")).AccessToken {
			t.Error("the store has another token, want that of the second login")
		}
	})
}

// Steps:
//  1. Process one saves a login, but gets no answer to the Save.
//  2. Process one tries to save again, and gets a conflict, with its own record.
//  3. Process two logs out.
//  4. Process one loads, and finds no record. Process one does not save its login
//     again.
func TestLoginIsNotSavedAgainAfterALogoutBetweenConflictAndLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store, other := newFaultyStores()
		one, two := newSessions(t, fc, withStore(store)), newSessions(t, fc, withStore(other))
		store.set(cutOffAfter(isSuccessor))
		logIn(t, one, "a")
		store.set(func(s *faultyStore) {
			s.load = nil
			s.save = func(_ *fincodeauth.Record, save func() error) error {
				err := save()
				if errors.Is(err, fincodeauth.ErrConflict) {
					if err := two.Logout(t.Context(), "a"); err != nil {
						t.Error(err)
					}
				}
				return err
			}
		})
		time.Sleep(time.Minute)
		wantLoggedOut(t, store, "a")
	})
}

// Steps:
//  1. Process one makes a login. It is saved, but process one gets no answer, and cannot
//     reach the store from then on.
//  2. Process one's Logout waits for the Save, and returns the store's error.
//  3. Process two finds the login and refreshes its token.
//  4. Process one reaches the store again. Its Logout removes the record of process two,
//     and revokes the token in it.
func TestLogoutAfterAnUnheardLoginRevokesItsSuccessor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store, other := newFaultyStores()
		one, two := newSessions(t, fc, withStore(store)), newSessions(t, fc, withStore(other))
		store.set(func(s *faultyStore) {
			s.save = func(_ *fincodeauth.Record, save func() error) error {
				time.Sleep(2 * time.Second)
				_ = save()
				s.down(true)
				return errStoreDown
			}
		})
		logIn(t, one, "a") // returns after 1 s
		if err := one.Logout(t.Context(), "a"); !errors.Is(err, errStoreDown) {
			t.Errorf("Logout = %v, want the store's error", err)
		}
		tok := token(t, two.TokenSource("a"))
		time.Sleep(10 * time.Second)
		tok, err := two.TokenSource("a").Refresh(t.Context(), tok)
		if err != nil {
			t.Fatal(err)
		}
		store.down(false)
		if err := one.Logout(t.Context(), "a"); err != nil {
			t.Errorf("Logout = %v, want nil", err)
		}
		wantLoggedOut(t, store, "a")
		if status := whoami(t, fc, tok); status != http.StatusUnauthorized {
			t.Errorf("FinCode answers %d to the token of process two, want 401", status)
		}
	})
}

func TestForgetRemovesTheRecordAndDoesNotTellFinCode(t *testing.T) {
	fc := fincodetest.New(fincodetest.Config{})
	store := fincodeauth.NewMemoryStore()
	var seen events
	one, two := newSessions(t, fc, withStore(store), seen.observe), newSessions(t, fc, withStore(store))
	logIn(t, one, "a")
	tok := token(t, one.TokenSource("a"))
	for range 2 { // the second finds no record, and that is no error
		if err := one.Forget(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
	}
	seen.want(t, fincodeauth.LoggedIn, fincodeauth.LoggedOut)
	for _, sessions := range []*fincodeauth.Sessions{one, two} {
		if _, err := sessions.TokenSource("a").Token(); !errors.Is(err, fincodeauth.ErrNotFound) {
			t.Errorf("got error %v, want ErrNotFound", err)
		}
	}
	if n, status := fc.Counts().Logouts, whoami(t, fc, tok); n != 0 || status != http.StatusOK {
		t.Errorf("FinCode made %d logouts and answers %d to the token, want no logout and 200", n, status)
	}
	logIn(t, one, "a")
	token(t, one.TokenSource("a"))
}

func TestForgetChangesNothingIfTheStoreFails(t *testing.T) {
	fc := fincodetest.New(fincodetest.Config{})
	store := newFaultyStore()
	var seen events
	sessions := newSessions(t, fc, withStore(store), seen.observe)
	logIn(t, sessions, "a")
	store.down(true)
	if err := sessions.Forget(t.Context(), "a"); !errors.Is(err, errStoreDown) || !strings.Contains(err.Error(), `"a"`) {
		t.Errorf("got error %v, want the store's, with the key", err)
	}
	seen.want(t, fincodeauth.LoggedIn)
	store.down(false)
	if status := whoami(t, fc, token(t, sessions.TokenSource("a"))); status != http.StatusOK {
		t.Errorf("FinCode answers %d to the token, want 200", status)
	}
}

// Steps:
//  1. A refresh is under way.
//  2. Forget waits for it, and removes the record of the new token.
func TestForgetDuringARefreshLeavesNoSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := newFaultyStore()
		sessions := newSessions(t, fc, withStore(store))
		logIn(t, sessions, "a")
		time.Sleep(2 * time.Hour)
		fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{After: 2 * time.Second})
		waiting := make(chan error, 1)
		go func() {
			_, err := sessions.TokenSource("a").Token()
			waiting <- err
		}()
		time.Sleep(time.Second)
		if err := sessions.Forget(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		if err := <-waiting; err != nil {
			t.Errorf("the caller of the refresh got error %v, want its token", err)
		}
		if _, err := sessions.TokenSource("a").Token(); !errors.Is(err, fincodeauth.ErrNotFound) {
			t.Errorf("after Forget, got error %v, want ErrNotFound", err)
		}
		wantLoggedOut(t, store, "a")
		if n := fc.Counts().Logouts; n != 0 {
			t.Errorf("FinCode made %d logouts, want none", n)
		}
	})
}

// Steps:
//  1. The Save of the first Logout lands, but its answer is lost: FinCode is not told.
//  2. The second Logout tells FinCode, which fails.
func TestSecondLogoutReturnsFinCodesError(t *testing.T) {
	fc := fincodetest.New(fincodetest.Config{})
	store := newFaultyStore()
	sessions := newSessions(t, fc, withStore(store))
	logIn(t, sessions, "a")
	store.set(cutOffAfter(func(rec *fincodeauth.Record) bool { return rec.Ended != "" }))
	if err := sessions.Logout(t.Context(), "a"); !errors.Is(err, errStoreDown) {
		t.Fatalf("the first Logout = %v, want the store's error", err)
	}
	store.down(false)
	store.set(func(s *faultyStore) { s.delete = func() error { return errStoreDown } }) // the record stays
	fc.Inject(fincodetest.Logout, 1, fincodetest.Fault{Kind: fincodetest.ErrorStatus, Status: 503})
	err := sessions.Logout(t.Context(), "a")
	if answer, ok := errors.AsType[*fincodeauth.EndpointError](err); !ok || answer.Status != 503 {
		t.Errorf("the second Logout = %v, want FinCode's 503", err)
	}
}

// A Logout whose access token was revoked must leave no refresh token alive, whatever
// this process has left undone. Each case returns the refresh token that must be dead.
func TestLogoutLeavesNoRefreshTokenAlive(t *testing.T) {
	for name, before := range map[string]func(*testing.T, *fincodetest.FinCode, *faultyStore, *fincodeauth.Sessions) *oauth2.Token{
		"after a refresh of unknown outcome": func(t *testing.T, fc *fincodetest.FinCode, _ *faultyStore, sessions *fincodeauth.Sessions) *oauth2.Token {
			logIn(t, sessions, "a")
			tok := token(t, sessions.TokenSource("a"))
			time.Sleep(time.Minute)
			fc.RevokeAccessTokens()
			fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{Kind: fincodetest.ErrorStatus, Status: 503})
			if _, err := sessions.Client("a").Get(api + "/whoami"); err == nil {
				t.Error("no error, want that of the refresh")
			}
			return tok
		},
		"after a refresh of unknown outcome of an expired token": func(t *testing.T, fc *fincodetest.FinCode, _ *faultyStore, sessions *fincodeauth.Sessions) *oauth2.Token {
			logIn(t, sessions, "a")
			tok := token(t, sessions.TokenSource("a"))
			time.Sleep(2 * time.Hour)
			fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{Kind: fincodetest.ErrorStatus, Status: 503})
			if _, err := sessions.TokenSource("a").Token(); err == nil {
				t.Error("no error, want that of the refresh")
			}
			return tok
		},
		"of a login that is not saved": func(t *testing.T, fc *fincodetest.FinCode, store *faultyStore, sessions *fincodeauth.Sessions) *oauth2.Token {
			store.set(successorsFail)
			logIn(t, sessions, "a")
			tok := token(t, sessions.TokenSource("a"))
			fc.RevokeAccessTokens()
			return tok
		},
		"of a new token that is not saved": func(t *testing.T, fc *fincodetest.FinCode, store *faultyStore, sessions *fincodeauth.Sessions) *oauth2.Token {
			logIn(t, sessions, "a")
			time.Sleep(2 * time.Hour)
			store.set(successorsFail)
			tok := token(t, sessions.TokenSource("a"))
			fc.RevokeAccessTokens()
			return tok
		},
		"after a Logout whose Save took effect but failed": func(t *testing.T, fc *fincodetest.FinCode, store *faultyStore, sessions *fincodeauth.Sessions) *oauth2.Token {
			logIn(t, sessions, "a")
			tok := token(t, sessions.TokenSource("a"))
			fc.RevokeAccessTokens()
			store.set(cutOffAfter(func(rec *fincodeauth.Record) bool { return rec.Ended != "" }))
			if err := sessions.Logout(t.Context(), "a"); !errors.Is(err, errStoreDown) {
				t.Errorf("the first Logout = %v, want the store's error", err)
			}
			store.down(false)
			return tok
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fc := fincodetest.New(fincodetest.Config{})
				store := newFaultyStore()
				sessions := newSessions(t, fc, withStore(store))
				tok := before(t, fc, store, sessions)
				time.Sleep(time.Minute)
				err := sessions.Logout(t.Context(), "a")
				store.down(false)
				if errors.Is(err, errStoreDown) { // a change was not saved, so the session is still there
					err = sessions.Logout(t.Context(), "a")
				}
				time.Sleep(time.Minute)
				wantLoggedOut(t, store, "a")
				elsewhere := newSessions(t, fc)
				if err := elsewhere.Adopt(t.Context(), "a", &oauth2.Token{RefreshToken: tok.RefreshToken}); err != nil {
					t.Fatal(err)
				}
				if _, aliveErr := elsewhere.TokenSource("a").Token(); !errors.Is(aliveErr, fincodeauth.ErrLoginRequired) {
					t.Errorf("Logout = %v, and the refresh token still works (%v)", err, aliveErr)
				}
			})
		})
	}
}

func TestClaimedAndExpiredSessionIsLoggedOutAtFinCode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := fincodeauth.NewMemoryStore()
		saveDeadClaim(t, fc, store, time.Now(), false)
		time.Sleep(2 * time.Hour)
		err := newSessions(t, fc, withStore(store)).Logout(t.Context(), "a")
		if answer, ok := errors.AsType[*fincodeauth.EndpointError](err); !ok || answer.Op != "logout" {
			t.Errorf("Logout = %v, want FinCode's answer to a logout", err)
		}
		wantCalls(t, fc, 0, 0)
	})
}

// A lateStore hangs, and carries out a Delete after its caller has given up.
type lateStore struct {
	*faultyStore
	hangs atomic.Bool
}

func (s *lateStore) Save(ctx context.Context, key string, rec *fincodeauth.Record, prev string) error {
	if s.hangs.Load() {
		<-ctx.Done()
		return ctx.Err()
	}
	return s.faultyStore.Save(ctx, key, rec, prev)
}

func (s *lateStore) Delete(ctx context.Context, key string) error {
	if s.hangs.Load() {
		<-ctx.Done()
		go func() {
			time.Sleep(5 * time.Second)
			s.faultyStore.Delete(context.Background(), key)
		}()
		return ctx.Err()
	}
	return s.faultyStore.Delete(ctx, key)
}

// Steps:
//  1. The store loads the record, but hangs at a Save and a Delete.
//  2. Forget gives up, and the store recovers.
//  3. A Login begins a session, which no late Delete may remove.
func TestForgetDoesNotDeleteALaterLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := &lateStore{faultyStore: newFaultyStore()}
		sessions := newSessions(t, fc, withStore(store))
		logIn(t, sessions, "a")
		store.hangs.Store(true)
		if err := sessions.Forget(t.Context(), "a"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Forget = %v, want the error of the Save", err)
		}
		store.hangs.Store(false)
		logIn(t, sessions, "a")
		time.Sleep(time.Minute)
		record(t, store, "a")
	})
}

func TestForgetOfADamagedRecordTakesTheTokenOutOfUse(t *testing.T) {
	fc := fincodetest.New(fincodetest.Config{})
	store := newFaultyStore()
	var seen events
	sessions := newSessions(t, fc, withStore(store), seen.observe)
	logIn(t, sessions, "a")
	store.set(func(s *faultyStore) { s.load = func() error { return errors.New("damaged") } })
	if err := sessions.Forget(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	seen.want(t, fincodeauth.LoggedIn, fincodeauth.LoggedOut)
	store.down(false)
	if _, err := sessions.TokenSource("a").Token(); !errors.Is(err, fincodeauth.ErrNotFound) {
		t.Errorf("Token = %v, want ErrNotFound", err)
	}
}

func TestLogoutOfAnExpiredSessionReturnsTheErrorOfItsRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		sessions := newSessions(t, fc)
		logIn(t, sessions, "a")
		time.Sleep(2 * time.Hour)
		fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{Kind: fincodetest.ErrorStatus, Status: 503})
		err := sessions.Logout(t.Context(), "a")
		if answer, ok := errors.AsType[*fincodeauth.EndpointError](err); !ok || answer.Status != 503 || answer.Op != "refresh-token" {
			t.Errorf("Logout = %v, want FinCode's 503 to the refresh", err)
		}
	})
}

// Steps:
//  1. A claim of this process is not saved, and its flight ends.
//  2. Logout begins, and its Load is slow.
//  3. The next flight saves the claim, with the same version, and presents the token.
//  4. Logout loads that claim, and logs the session out.
func TestLogoutDoesNotPresentATokenThatALaterFlightPresents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := newFaultyStore()
		sessions := newSessions(t, fc, withStore(store))
		logIn(t, sessions, "a")
		tok := token(t, sessions.TokenSource("a"))
		time.Sleep(2 * time.Hour)
		store.set(func(s *faultyStore) {
			s.save = func(*fincodeauth.Record, func() error) error { return errStoreDown }
		})
		if _, err := sessions.TokenSource("a").Token(); !errors.Is(err, errStoreDown) {
			t.Fatalf("Token = %v, want the store's error", err)
		}
		store.down(false)

		var loads atomic.Int32
		store.set(func(s *faultyStore) {
			s.load = func() error {
				if loads.Add(1) == 1 {
					time.Sleep(time.Second)
				}
				return nil
			}
		})
		loggedOut := make(chan error, 1)
		go func() { loggedOut <- sessions.Logout(t.Context(), "a") }()
		synctest.Wait()
		fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{Before: 5 * time.Second})
		go sessions.TokenSource("a").Token()
		<-loggedOut
		time.Sleep(time.Minute)
		if n := fc.Presented(tok.RefreshToken); n != 1 {
			t.Errorf("the refresh token was presented %d times, want once", n)
		}
	})
}

// Steps:
//  1. The Credentials of a session whose token FinCode refused fail. The claim stays.
//  2. Logout does not present the refused token, and does not say that somebody is
//     refreshing it.
func TestLogoutAfterARefusalNeitherPresentsTheTokenNorBlamesARefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{RefreshLifetime: time.Hour})
		sessions := newSessions(t, fc, func(c *fincodeauth.Config) {
			c.Credentials = func(context.Context, string, error) (fincodeauth.Credentials, error) {
				return fincodeauth.Credentials{}, errors.New("vault is down")
			}
		})
		logIn(t, sessions, "a")
		time.Sleep(2 * time.Hour)
		_, err := sessions.TokenSource("a").Token()
		wantNoLoginRequired(t, err)
		wantCalls(t, fc, 1, 0)
		err = sessions.Logout(t.Context(), "a")
		if answer, ok := errors.AsType[*fincodeauth.EndpointError](err); !ok || answer.Op != "logout" || strings.Contains(err.Error(), "refresh") {
			t.Errorf("Logout = %v, want FinCode's answer to the logout alone", err)
		}
		wantCalls(t, fc, 1, 0)
	})
}

// Forget does not need to save the new token first. It needs a store that accepts an end.
func TestForgetGivesUpAChangeThatIsNotSaved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := newFaultyStore()
		sessions := newSessions(t, fc, withStore(store))
		logIn(t, sessions, "a")
		time.Sleep(2 * time.Hour)
		store.set(func(s *faultyStore) {
			s.save = func(rec *fincodeauth.Record, save func() error) error {
				if !isClaim(rec) {
					return errStoreDown
				}
				return save()
			}
		})
		tok := token(t, sessions.TokenSource("a"))
		if err := sessions.Forget(t.Context(), "a"); !errors.Is(err, errStoreDown) {
			t.Errorf("Forget = %v, want the store's error", err)
		}
		if token(t, sessions.TokenSource("a")) != tok {
			t.Error("another token is in use, want the new one")
		}
		store.set(successorsFail)
		if err := sessions.Forget(t.Context(), "a"); err != nil {
			t.Errorf("Forget = %v, want nil", err)
		}
		store.down(false)
		time.Sleep(time.Minute)
		if _, err := sessions.TokenSource("a").Token(); !errors.Is(err, fincodeauth.ErrNotFound) {
			t.Errorf("after Forget, got error %v, want ErrNotFound", err)
		}
	})
}

// Steps:
//  1. Process one has a new token that the store refuses.
//  2. Process two takes over, and FinCode says that the old token was used. The session
//     ends.
//  3. Process one's Logout has FinCode revoke its token, which nobody else knows.
func TestLogoutRevokesATokenThatWasGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store, other := newFaultyStores()
		one, two := newSessions(t, fc, withStore(store)), newSessions(t, fc, withStore(other))
		logIn(t, one, "a")
		time.Sleep(2 * time.Hour)
		store.set(successorsFail)
		tok := token(t, one.TokenSource("a"))
		_, err := two.TokenSource("a").Token()
		wantSessionError(t, err, true, true)
		store.down(false)
		if err := one.Logout(t.Context(), "a"); err != nil {
			t.Errorf("Logout = %v, want nil", err)
		}
		if status := whoami(t, fc, tok); status != http.StatusUnauthorized {
			t.Errorf("FinCode answers %d to the token, want 401", status)
		}
	})
}

// Steps:
//  1. Process one has a new token that the store refuses.
//  2. Process two logs out, and the record stays, because its Delete fails.
//  3. Process one's Logout has FinCode revoke its token, once.
func TestLogoutRevokesAnUnsavedTokenOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store, other := newFaultyStores()
		var seen events
		one, two := newSessions(t, fc, withStore(store), seen.observe), newSessions(t, fc, withStore(other))
		logIn(t, one, "a")
		time.Sleep(2 * time.Hour)
		store.set(successorsFail)
		token(t, one.TokenSource("a"))
		other.set(func(s *faultyStore) { s.delete = func() error { return errStoreDown } })
		_ = two.Logout(t.Context(), "a") // FinCode refuses the token that was used
		seen.types()
		store.down(false)
		if err := one.Logout(t.Context(), "a"); err != nil {
			t.Errorf("Logout = %v, want nil", err)
		}
		seen.want(t, fincodeauth.LoggedOut)
	})
}

// wantLoggedOut checks that the store says that the session under key is logged out, and
// has no token of it.
func wantLoggedOut(t *testing.T, store fincodeauth.Store, key string) {
	t.Helper()
	rec, err := store.Load(context.Background(), key)
	if err != nil || rec.Ended != "logged out" || rec.RemoveAfter.IsZero() || rec.Token.AccessToken != "" || rec.Token.RefreshToken != "" {
		t.Errorf("the store has %v and returns error %v, want the record that a Logout leaves", rec, err)
	}
}
