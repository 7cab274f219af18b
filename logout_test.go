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
		t.Errorf("the token still answers %d", status)
	}
	for _, s := range []*fincodeauth.Sessions{sessions, newSessions(t, fc, withStore(store))} {
		if _, err := s.TokenSource("a").Token(); !errors.Is(err, fincodeauth.ErrNotFound) {
			t.Errorf("error %v, want ErrNotFound", err)
		}
	}
	if err := sessions.Logout(t.Context(), "a"); err != nil {
		t.Errorf("logging out twice: %v", err)
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
			t.Errorf("FinCode made %d logouts", n)
		}
	})
}

// FinCode answers 401 to a logout whose access token it has revoked, and then the
// refresh token still works.
func TestLogoutWithARevokedAccessTokenRevokesTheRefreshToken(t *testing.T) {
	fc := fincodetest.New(fincodetest.Config{})
	var seen events
	sessions := newSessions(t, fc, seen.observe)
	logIn(t, sessions, "a")
	first := token(t, sessions.TokenSource("a"))
	fc.RevokeAccessToken(first.AccessToken)
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
		t.Errorf("error %v, want FinCode's 401 to the second logout", err)
	}
	wantCalls(t, fc, 1, 1)
}

// Only a 401 says that the access token is what FinCode refuses.
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
			t.Errorf("%+v: no error", fault)
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
		t.Errorf("error %v, want FinCode's", err)
	}
	if _, err := store.Load(t.Context(), "a"); !errors.Is(err, fincodeauth.ErrNotFound) {
		t.Errorf("error %v, want the record gone", err)
	}
}

func TestLogoutErrorMentionsARefreshInProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{RevokeOnRotation: true})
		sessions := newSessions(t, fc)
		logIn(t, sessions, "a")
		time.Sleep(56 * time.Minute)
		fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{After: 2 * time.Second})
		token(t, sessions.TokenSource("a"))
		time.Sleep(time.Second)
		err := sessions.Logout(t.Context(), "a")
		if ee, ok := errors.AsType[*fincodeauth.EndpointError](err); !ok || ee.Status != 401 || !strings.Contains(err.Error(), "another process was refreshing it") {
			t.Errorf("error %v, want FinCode's, and why it does not know the token", err)
		}
		time.Sleep(10 * time.Second)
		if n := fc.Counts().Logouts; n != 1 {
			t.Errorf("%d logouts at FinCode, want that of the refresh's token", n)
		}
	})
}

func TestSecondLogoutCompletesOneWhoseSaveGotNoAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := newFaultyStore()
		sessions := newSessions(t, fc, withStore(store))
		logIn(t, sessions, "a")
		tok := token(t, sessions.TokenSource("a"))
		store.set(cutOffAfter(func(rec *fincodeauth.Record) bool { return rec.Ended != "" }))
		if err := sessions.Logout(t.Context(), "a"); !errors.Is(err, errStoreDown) {
			t.Fatalf("error %v, want the store's", err)
		}
		store.down(false)
		for range 2 {
			if err := sessions.Logout(t.Context(), "a"); err != nil {
				t.Error(err)
			}
		}
		if n, status := fc.Counts().Logouts, whoami(t, fc, tok); n != 1 || status != http.StatusUnauthorized {
			t.Errorf("%d logouts at FinCode, and the token answers %d; want one, and 401", n, status)
		}
	})
}

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
		t.Errorf("error %v, want the store's", err)
	}
	store.down(false)
	if status := whoami(t, fc, token(t, sessions.TokenSource("a"))); status != http.StatusOK {
		t.Errorf("the token answers %d", status)
	}
}

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
		t.Error("the record still has a token")
	}
}

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
				token(t, refreshing.TokenSource("a"))
				time.Sleep(time.Second)

				leaving := other
				if sameProcess {
					leaving = refreshing
				}
				if err := leaving.Logout(t.Context(), "a"); err != nil {
					t.Fatal(err)
				}
				time.Sleep(10 * time.Second)
				for _, s := range []*fincodeauth.Sessions{refreshing, other} {
					if _, err := s.TokenSource("a").Token(); !errors.Is(err, fincodeauth.ErrNotFound) {
						t.Errorf("error %v, want ErrNotFound", err)
					}
				}
				if _, err := store.Load(t.Context(), "a"); !errors.Is(err, fincodeauth.ErrNotFound) {
					t.Errorf("the store has a record again (%v)", err)
				}
				if status := whoami(t, fc, old); status != http.StatusUnauthorized {
					t.Errorf("the old token answers %d", status)
				}
				if c := fc.Counts(); c.Refreshes != 1 || c.Logouts == 0 {
					t.Errorf("counts %+v, want one refresh and a logout", c)
				}
			})
		})
	}
}

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
		if rec, err := store.Load(t.Context(), "a"); err == nil {
			t.Errorf("record after Logout: %v", rec)
		}
		if _, err := sessions.TokenSource("a").Token(); !errors.Is(err, fincodeauth.ErrNotFound) {
			t.Errorf("after Logout: %v; logouts %d", err, fc.Counts().Logouts)
		}
	})
}

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
			t.Error("the record has another token")
		}
	})
}

func TestLoginDuringALogoutIsNotDeleted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := newFaultyStore()
		one := newSessions(t, fc, withStore(store))
		logIn(t, one, "a")
		store.set(func(s *faultyStore) { s.delete = func() error { time.Sleep(500 * time.Millisecond); return nil } })
		done := make(chan error, 1)
		go func() { done <- one.Logout(context.Background(), "a") }()
		time.Sleep(100 * time.Millisecond)
		logIn(t, one, "a") // returns nil, saved
		tok := token(t, one.TokenSource("a"))
		if err := <-done; err != nil {
			t.Error(err)
		}
		if token(t, one.TokenSource("a")) != tok || record(t, store, "a").Token.AccessToken != tok.AccessToken {
			t.Error("another token is in use, or in the store")
		}
	})
}

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
			t.Errorf("after Logout: %v; logouts at FinCode %d", err, fc.Counts().Logouts)
		}
	})
}

func TestLoginDuringASlowDeleteIsNotDeleted(t *testing.T) {
	for _, same := range []bool{true, false} {
		t.Run("", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fc := fincodetest.New(fincodetest.Config{})
				store := newFaultyStore()
				one, two := newSessions(t, fc, withStore(store)), newSessions(t, fc, withStore(store))
				if same {
					two = one
				}
				logIn(t, one, "a")
				store.set(func(s *faultyStore) { s.delete = func() error { time.Sleep(2 * time.Second); return nil } })
				go one.Logout(context.Background(), "a")
				time.Sleep(100 * time.Millisecond)
				logIn(t, two, "a")
				time.Sleep(10 * time.Second)
				if _, err := store.Load(t.Context(), "a"); err != nil {
					t.Errorf("same process %t: the new login's record: %v", same, err)
				}
				time.Sleep(56 * time.Minute)
				two.TokenSource("a").Token()
				synctest.Wait()
				if _, err := two.TokenSource("a").Token(); err != nil {
					t.Errorf("same process %t: %v", same, err)
				}
			})
		})
	}
}

func TestLogoutEndsALoginThatItFindsWithItsSecondLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := newFaultyStore()
		sessions := newSessions(t, fc, withStore(store))
		var loads atomic.Int32
		store.set(func(s *faultyStore) {
			s.load = func() error {
				if loads.Add(1) == 3 { // after Login's, and the first of Logout
					time.Sleep(time.Second)
				}
				return nil
			}
		})
		fc.Inject(fincodetest.Login, 1, fincodetest.Fault{Before: 500 * time.Millisecond})
		go sessions.Login(t.Context(), "a", credentials)
		time.Sleep(100 * time.Millisecond)
		if err := sessions.Logout(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		_, err := sessions.TokenSource("a").Token()
		wantSessionError(t, err, false, false)
		if !errors.Is(err, fincodeauth.ErrNotFound) {
			t.Errorf("error %v, want ErrNotFound", err)
		}
		if c := fc.Counts(); c.Logins != 1 || c.Logouts != 1 {
			t.Errorf("counts %+v, want a login and its logout", c)
		}
	})
}

func TestLoginThatAnotherProcessLoggedOutIsNotSavedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store, other := newFaultyStores()
		one, two := newSessions(t, fc, withStore(store)), newSessions(t, fc, withStore(other))
		logIn(t, one, "a")
		store.set(cutOffAfter(isSuccessor))
		logIn(t, one, "a") // over the record of the first
		if err := two.Logout(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		store.down(false)
		time.Sleep(10 * time.Second)
		if rec, err := store.Load(t.Context(), "a"); !errors.Is(err, fincodeauth.ErrNotFound) {
			t.Errorf("the store has %v again (%v)", rec, err)
		}
		if _, err := one.TokenSource("a").Token(); !errors.Is(err, fincodeauth.ErrNotFound) {
			t.Errorf("error %v, want ErrNotFound", err)
		}
	})
}

func TestCallerGetsNoTokenIfALogoutComesDuringASlowSave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := newFaultyStore()
		sessions := newSessions(t, fc, withStore(store))
		logIn(t, sessions, "a")
		tok := token(t, sessions.TokenSource("a"))
		time.Sleep(30 * time.Minute)
		store.set(func(s *faultyStore) {
			s.save = func(rec *fincodeauth.Record, save func() error) error {
				if isSuccessor(rec) {
					time.Sleep(3 * time.Second)
				}
				return save()
			}
		})
		failed := make(chan error, 1)
		go func() {
			_, err := sessions.TokenSource("a").Refresh(t.Context(), tok)
			failed <- err
		}()
		time.Sleep(500 * time.Millisecond) // now it waits for the save
		wantCalls(t, fc, 1, 1)
		if err := sessions.Logout(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		if err := <-failed; !errors.Is(err, fincodeauth.ErrNotFound) {
			t.Errorf("error %v, want ErrNotFound", err)
		}
		time.Sleep(10 * time.Second) // the save ends
	})
}

func TestLoginThatWasLoggedOutIsRevokedBeforeTheNextLoginIsSaved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store, other := newFaultyStores()
		one, two := newSessions(t, fc, withStore(store)), newSessions(t, fc, withStore(other))
		store.set(func(s *faultyStore) {
			s.save = func(_ *fincodeauth.Record, save func() error) error {
				time.Sleep(200 * time.Millisecond)
				err := save()
				time.Sleep(600 * time.Millisecond)
				return err
			}
		})
		logins := make(chan error, 2)
		go func() { logins <- one.Login(t.Context(), "a", credentials) }()
		time.Sleep(100 * time.Millisecond)
		if err := one.Logout(t.Context(), "a"); err != nil { // finds no record yet
			t.Fatal(err)
		}
		time.Sleep(200 * time.Millisecond)
		first := record(t, other, "a").Token
		store.set(func(s *faultyStore) {
			s.save = func(rec *fincodeauth.Record, save func() error) error {
				if isSuccessor(rec) {
					time.Sleep(2 * time.Second)
				}
				return save()
			}
		})
		go func() { logins <- one.Login(t.Context(), "a", credentials) }()
		time.Sleep(time.Second)
		if tok, err := two.TokenSource("a").Token(); !errors.Is(err, fincodeauth.ErrLoginRequired) {
			t.Errorf("another process is handed %v, error %v, before the second login is saved", tok, err)
		}
		if status := whoami(t, fc, first); status != http.StatusUnauthorized {
			t.Errorf("the token that was logged out answers %d", status)
		}
		for range 2 {
			if err := <-logins; err != nil {
				t.Errorf("login: %v", err)
			}
		}
		time.Sleep(5 * time.Second)
		if record(t, other, "a").Token.AccessToken != token(t, one.TokenSource("a")).AccessToken {
			t.Error("the second login is not in the store")
		}
	})
}

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
				if errors.Is(err, fincodeauth.ErrConflict) { // with its own record, which is logged out before it looks
					if err := two.Logout(t.Context(), "a"); err != nil {
						t.Error(err)
					}
				}
				return err
			}
		})
		time.Sleep(time.Minute)
		if rec, err := store.Load(t.Context(), "a"); !errors.Is(err, fincodeauth.ErrNotFound) {
			t.Errorf("the store has %v, error %v", rec, err)
		}
	})
}

func TestLogoutBeforeTheLoginIsSavedRevokesItsSuccessorToo(t *testing.T) {
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
		logIn(t, one, "a")                                   // returns after a second
		if err := one.Logout(t.Context(), "a"); err != nil { // finds no record yet
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		tok := token(t, two.TokenSource("a"))
		time.Sleep(10 * time.Second)
		tok, err := two.TokenSource("a").Refresh(t.Context(), tok)
		if err != nil {
			t.Fatal(err)
		}
		store.down(false)
		time.Sleep(time.Minute)
		if rec, err := store.Load(t.Context(), "a"); !errors.Is(err, fincodeauth.ErrNotFound) {
			t.Errorf("the store has %v, error %v", rec, err)
		}
		if status := whoami(t, fc, tok); status != http.StatusUnauthorized {
			t.Errorf("the token of the session that was logged out answers %d", status)
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
	for range 2 { // no record is no error
		if err := one.Forget(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
	}
	seen.want(t, fincodeauth.LoggedIn, fincodeauth.LoggedOut)
	for _, sessions := range []*fincodeauth.Sessions{one, two} {
		if _, err := sessions.TokenSource("a").Token(); !errors.Is(err, fincodeauth.ErrNotFound) {
			t.Errorf("error %v, want ErrNotFound", err)
		}
	}
	if n, status := fc.Counts().Logouts, whoami(t, fc, tok); n != 0 || status != http.StatusOK {
		t.Errorf("%d logouts at FinCode, and the token answers %d; want none, and 200", n, status)
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
		t.Errorf("error %v, want the store's and the key", err)
	}
	seen.want(t, fincodeauth.LoggedIn)
	store.down(false)
	if status := whoami(t, fc, token(t, sessions.TokenSource("a"))); status != http.StatusOK {
		t.Errorf("the token answers %d", status)
	}
}

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
		if err := <-waiting; !errors.Is(err, fincodeauth.ErrNotFound) {
			t.Errorf("error %v, want ErrNotFound", err)
		}
		time.Sleep(time.Minute)
		if rec, err := store.Load(t.Context(), "a"); err == nil {
			t.Errorf("%v came back", rec)
		}
		if n := fc.Counts().Logouts; n != 1 {
			t.Errorf("FinCode made %d logouts, want that of the token that the refresh received", n)
		}
	})
}
