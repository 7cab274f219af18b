package fincodeauth_test

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/oauth2"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/fincodetest"
)

// Interleavings of flights with Login, Logout, Close, other processes and a slow
// store.

func endsFail(s *brittleStore) {
	s.save = func(rec *fincodeauth.Record, save func() error) error {
		if rec.Ended != "" {
			return errStoreDown
		}
		return save()
	}
}

func TestALoginDuringALoadIsNotRefreshedAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := newBrittleStore()
		sessions := newSessions(t, fc, withStore(store))
		logIn(t, sessions, "a")
		time.Sleep(2 * time.Hour)
		var first atomic.Bool
		store.set(func(s *brittleStore) {
			s.load = func() error {
				if first.CompareAndSwap(false, true) {
					time.Sleep(time.Second) // a slow read
				}
				return nil
			}
		})
		go sessions.TokenSource("a").Token()
		time.Sleep(100 * time.Millisecond)
		logIn(t, sessions, "a") // returns nil
		time.Sleep(5 * time.Second)
		if st := whoami(t, fc, token(t, sessions.TokenSource("a"))); st != 200 {
			t.Errorf("token after Login answers %d", st)
		}
		time.Sleep(56 * time.Minute)
		for range 100 {
			if _, err := sessions.TokenSource("a").Token(); err != nil {
				t.Fatalf("session is lost: %v", err)
			}
			time.Sleep(time.Second)
		}
	})
}

func TestALoginWhoseSaveIsSlowStaysInUse(t *testing.T) {
	for _, expired := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			fc := fincodetest.New(fincodetest.Config{})
			store := newBrittleStore()
			sessions := newSessions(t, fc, withStore(store))
			if expired {
				logIn(t, sessions, "a")
				time.Sleep(2 * time.Hour)
			}
			var n atomic.Int32
			store.set(func(s *brittleStore) {
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

func TestALogoutBeforeALoginIsSavedStaysLoggedOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := newBrittleStore()
		sessions := newSessions(t, fc, withStore(store))
		store.set(func(s *brittleStore) {
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

func TestAStoreOutageIsNoSignOfADeadOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{After: 2 * time.Second})
		store := newBrittleStore()
		one, two := newSessions(t, fc, withStore(store)), newSessions(t, fc, withStore(store))
		logIn(t, one, "a")
		token(t, two.TokenSource("a"))
		time.Sleep(56 * time.Minute)
		token(t, one.TokenSource("a"))
		time.Sleep(time.Second)
		token(t, two.TokenSource("a")) // sees the claim
		synctest.Wait()
		store.down(true)
		for range 60 {
			time.Sleep(time.Second)
			token(t, one.TokenSource("a"))
			token(t, two.TokenSource("a"))
		}
		store.down(false)
		for range 30 {
			time.Sleep(200 * time.Millisecond)
			if _, err := two.TokenSource("a").Token(); err != nil {
				t.Errorf("two: %v", err)
				break
			}
		}
		time.Sleep(10 * time.Second)
		if _, err := one.TokenSource("a").Token(); err != nil {
			t.Errorf("one: %v", err)
		}
	})
}

// wantNoEndYet: nobody is told to log in before the store has said that no other
// process has a newer token.
func wantNoEndYet(t *testing.T, err error) {
	t.Helper()
	if err == nil || errors.Is(err, fincodeauth.ErrLoginRequired) {
		t.Errorf("error %v, want one that does not ask for a login yet", err)
	}
}

func TestABreachIsNotForgottenIfItsEndIsSavedLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := newBrittleStore()
		var told events
		one := newSessions(t, fc, withStore(store), logInAgain, told.observe)
		two := newSessions(t, fc, withStore(store), logInAgain)
		logIn(t, one, "a")
		present(t, fc, record(t, store, "a").Token.RefreshToken) // the thief
		time.Sleep(2 * time.Hour)
		store.set(endsFail)
		_, err := one.TokenSource("a").Token()
		wantNoEndYet(t, err)
		if answer, ok := errors.AsType[*fincodeauth.EndpointError](err); !ok || answer.Status != http.StatusForbidden {
			t.Errorf("error %v, want FinCode's in it", err)
		}
		for range 10 {
			_, err := one.TokenSource("a").Token()
			wantNoEndYet(t, err)
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

// It slept through a takeover, with a wall clock that was set back meanwhile.
func TestARefusalOfATokenThatWasTakenOverIsNotTakenForABreachIfTheStoreIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store, other := newBrittleStores()
		server := newMachine()
		var told events
		one, two := server.newSessions(t, fc, withStore(store), told.observe), newSessions(t, fc, withStore(other))
		logIn(t, one, "a")
		time.Sleep(2 * time.Hour)
		asleep := true
		store.set(func(s *brittleStore) {
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

func TestALoginDuringAnothersLogoutIsNotDeleted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := newBrittleStore()
		one, two := newSessions(t, fc, withStore(store)), newSessions(t, fc, withStore(store))
		logIn(t, one, "a")
		store.set(func(s *brittleStore) { s.delete = func() error { time.Sleep(500 * time.Millisecond); return nil } })
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

func TestAnEndThatALoginOvertookIsNotTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := newBrittleStore()
		var told events
		sessions := newSessions(t, fc, withStore(store), told.observe)
		logIn(t, sessions, "a")
		present(t, fc, record(t, store, "a").Token.RefreshToken) // a thief
		time.Sleep(2 * time.Hour)
		store.set(func(s *brittleStore) {
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

func TestALoginDuringALogoutIsNotDeleted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := newBrittleStore()
		one := newSessions(t, fc, withStore(store))
		logIn(t, one, "a")
		store.set(func(s *brittleStore) { s.delete = func() error { time.Sleep(500 * time.Millisecond); return nil } })
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

func TestSlowCredentialsAreNotTakenForADeadProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{RefreshLifetime: time.Hour})
		store := fincodeauth.NewMemoryStore()
		slow := func(c *fincodeauth.Config) {
			c.Credentials = func(context.Context, string, error) (fincodeauth.Credentials, error) {
				time.Sleep(14 * time.Second)
				return credentials, nil
			}
		}
		one, two := newSessions(t, fc, withStore(store), slow), newSessions(t, fc, withStore(store), slow)
		logIn(t, one, "a")
		time.Sleep(2 * time.Hour)
		fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{Before: 5 * time.Second})
		fc.Inject(fincodetest.Login, -1, fincodetest.Fault{Before: 14 * time.Second})
		var wg sync.WaitGroup
		for _, s := range []*fincodeauth.Sessions{one, two} {
			wg.Go(func() { token(t, s.TokenSource("a")) })
		}
		wg.Wait()
		time.Sleep(time.Minute)
		if c := fc.Counts(); c.Logins != 2 || c.RefreshCalls != 1 {
			t.Errorf("counts %+v", c)
		}
	})
}

func TestNothingIsPresentedAfterClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := newBrittleStore()
		sessions := newSessions(t, fc, withStore(store))
		logIn(t, sessions, "a")
		time.Sleep(2 * time.Hour)
		store.set(func(s *brittleStore) { s.load = func() error { time.Sleep(5 * time.Second); return nil } })
		go sessions.TokenSource("a").Token()
		time.Sleep(time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := sessions.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v, want that of the context", err)
		}
		wantCalls(t, fc, 0, 0)
		time.Sleep(time.Minute)
		wantCalls(t, fc, 0, 0)
	})
}

func TestATokenThatWasRefusedBeforeCloseIsNotPresentedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{RefreshLifetime: time.Hour})
		store := newBrittleStore()
		one, two := newSessions(t, fc, withStore(store), logInAgain), newSessions(t, fc, withStore(store), logInAgain)
		logIn(t, one, "a")
		time.Sleep(2 * time.Hour)
		fc.Inject(fincodetest.Login, 1, fincodetest.Fault{Kind: fincodetest.ErrorStatus, Status: 503})
		if _, err := one.TokenSource("a").Token(); err == nil {
			t.Fatal("FinCode's 503 was not noticed")
		}
		time.Sleep(2 * time.Second)
		store.set(func(s *brittleStore) {
			s.save = func(_ *fincodeauth.Record, save func() error) error { time.Sleep(2 * time.Second); return save() }
		})
		go one.TokenSource("a").Token() // renews its claim, to log in
		time.Sleep(time.Second)
		if err := one.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		store.down(false)
		if waited := elapsed(func() { token(t, two.TokenSource("a")) }); waited > 0 {
			t.Errorf("the next process waited %v for the claim of the one that is gone", waited)
		}
		wantCalls(t, fc, 1, 0)
	})
}

// A lateLoad is a store that answers a Load, and makes a Save, late.
type lateLoad struct {
	fincodeauth.Store
	load atomic.Int64 // delay after the read
	save atomic.Int64 // delay before the write
}

func (s *lateLoad) Load(ctx context.Context, key string) (*fincodeauth.Record, error) {
	rec, err := s.Store.Load(ctx, key)
	time.Sleep(time.Duration(s.load.Load()))
	return rec, err
}

func (s *lateLoad) Save(ctx context.Context, key string, rec *fincodeauth.Record, prev string) error {
	time.Sleep(time.Duration(s.save.Load()))
	return s.Store.Save(ctx, key, rec, prev)
}

func TestAWriteOutageIsNoSignOfADeadOwner(t *testing.T) {
	for outage := 35; outage < 75; outage++ {
		t.Run("", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fc := fincodetest.New(fincodetest.Config{})
				fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{After: 2 * time.Second})
				store := newBrittleStore()
				one, two := newSessions(t, fc, withStore(store)), newSessions(t, fc, withStore(store))
				logIn(t, one, "a")
				token(t, two.TokenSource("a"))
				time.Sleep(56 * time.Minute)
				token(t, one.TokenSource("a")) // claims, presents
				time.Sleep(time.Second)
				store.set(func(s *brittleStore) { // read-only
					s.save = func(*fincodeauth.Record, func() error) error { return errStoreDown }
				})
				for range outage {
					time.Sleep(time.Second)
					token(t, one.TokenSource("a"))
					token(t, two.TokenSource("a"))
				}
				store.down(false)
				for range 300 {
					time.Sleep(100 * time.Millisecond)
					if _, err := two.TokenSource("a").Token(); err != nil {
						t.Errorf("two: %v", err)
						break
					}
				}
				time.Sleep(10 * time.Second)
				if _, err := one.TokenSource("a").Token(); err != nil {
					t.Errorf("one: %v", err)
				}
			})
		})
	}
}

func TestABreachIsNotForgottenIfTheStoreIsDownAtTheVerdict(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := newBrittleStore()
		one := newSessions(t, fc, withStore(store), logInAgain)
		two := newSessions(t, fc, withStore(store), logInAgain)
		logIn(t, one, "a")
		present(t, fc, record(t, store, "a").Token.RefreshToken) // the thief
		time.Sleep(2 * time.Hour)
		fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{Before: 2 * time.Second})
		go func() { time.Sleep(time.Second); store.down(true); time.Sleep(3 * time.Second); store.down(false) }()
		_, err := one.TokenSource("a").Token()
		wantNoEndYet(t, err)
		time.Sleep(time.Minute)
		for _, sessions := range []*fincodeauth.Sessions{one, two} {
			_, err := sessions.TokenSource("a").Token()
			wantSessionError(t, err, true, false)
		}
	})
}

func TestAFailureOfBeforeTheLoginDelaysNoRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		sessions := newSessions(t, fc)
		logIn(t, sessions, "a")
		time.Sleep(2 * time.Hour)
		fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{Kind: fincodetest.ErrorStatus, Status: 429, RetryAfter: "3600", Before: 2 * time.Second})
		go sessions.TokenSource("a").Token()
		time.Sleep(time.Second)
		logIn(t, sessions, "a")
		time.Sleep(55*time.Minute + 30*time.Second)
		fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{Before: 2 * time.Second})
		for range 400 {
			if w := elapsed(func() { token(t, sessions.TokenSource("a")) }); w > 0 {
				t.Errorf("waited %v", w)
			}
			time.Sleep(time.Second)
		}
		wantCalls(t, fc, 2, 1)
	})
}

func TestALogoutThatRacesALoginsSaveRevokesIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := &lateLoad{Store: fincodeauth.NewMemoryStore()}
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

func TestALoginDuringASlowDeleteIsNotDeleted(t *testing.T) {
	for _, same := range []bool{true, false} {
		t.Run("", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fc := fincodetest.New(fincodetest.Config{})
				store := newBrittleStore()
				one, two := newSessions(t, fc, withStore(store)), newSessions(t, fc, withStore(store))
				if same {
					two = one
				}
				logIn(t, one, "a")
				store.set(func(s *brittleStore) { s.delete = func() error { time.Sleep(2 * time.Second); return nil } })
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

func TestCredentialsAreNotRememberedBeyondTheirFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{RefreshLifetime: time.Hour})
		fc.AddUser("u@example.com", "new-password")
		store := newBrittleStore()
		pw := "old-password"
		asked := 0
		sessions := newSessions(t, fc, withStore(store), func(c *fincodeauth.Config) {
			c.Credentials = func(context.Context, string, error) (fincodeauth.Credentials, error) {
				asked++
				time.Sleep(8 * time.Second)
				return fincodeauth.Credentials{Email: "u@example.com", Password: pw}, nil
			}
		})
		logIn(t, sessions, "a")
		time.Sleep(2 * time.Hour)
		go func() { time.Sleep(4 * time.Second); store.down(true) }()
		if _, err := sessions.TokenSource("a").Token(); !errors.Is(err, errStoreDown) {
			t.Fatalf("error %v, want the store's", err)
		}
		store.down(false)
		pw = "new-password"
		time.Sleep(24 * time.Hour)
		if _, err := sessions.TokenSource("a").Token(); err != nil {
			t.Errorf("asked %d: %v", asked, err)
		}
	})
}

func TestALateEndDoesNotReplaceAnothersAdopt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := newBrittleStore()
		one, two := newSessions(t, fc, withStore(store)), newSessions(t, fc, withStore(store))
		if err := one.Adopt(t.Context(), "a", &oauth2.Token{AccessToken: "one", ExpiresIn: 60}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Minute)
		store.set(endsFail)
		_, err := one.TokenSource("a").Token()
		wantNoEndYet(t, err)
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

func TestALateEndDoesNotReplaceASuccessorWithTheSameRefreshToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{KeepRefreshToken: true})
		store := newBrittleStore()
		one, two := newSessions(t, fc, withStore(store)), newSessions(t, fc, withStore(store))
		logIn(t, one, "a")
		time.Sleep(2 * time.Hour)
		store.set(endsFail)
		fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{Kind: fincodetest.ErrorStatus, Status: 401})
		_, err := one.TokenSource("a").Token()
		wantNoEndYet(t, err)
		token(t, two.TokenSource("a")) // takes over after 30 s
		store.down(false)
		time.Sleep(time.Minute)
		if rec := record(t, store, "a"); rec.Ended != "" {
			t.Errorf("the good record of two was replaced: %v", rec)
		}
	})
}

func TestCallersGetTheLoginThatOvertookTheirRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		sessions := newSessions(t, fc)
		logIn(t, sessions, "a")
		time.Sleep(2 * time.Hour)
		fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{Kind: fincodetest.ErrorStatus, Status: 429, Before: 2 * time.Second})
		go func() { time.Sleep(time.Second); logIn(t, sessions, "a") }()
		if _, err := sessions.TokenSource("a").Token(); err != nil {
			t.Errorf("after Login returned nil: %v", err)
		}
	})
}

func TestALoginDuringALoadIsUsedAsItIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := newBrittleStore()
		sessions := newSessions(t, fc, withStore(store))
		logIn(t, sessions, "a")
		time.Sleep(2 * time.Hour)
		var first atomic.Bool
		store.set(func(s *brittleStore) {
			s.load = func() error {
				if first.CompareAndSwap(false, true) {
					time.Sleep(time.Second)
				}
				return nil
			}
		})
		go sessions.TokenSource("a").Token()
		time.Sleep(100 * time.Millisecond)
		logIn(t, sessions, "a")
		tok := token(t, sessions.TokenSource("a"))
		time.Sleep(5 * time.Second)
		if token(t, sessions.TokenSource("a")) != tok {
			t.Error("the token of the Login was refreshed away")
		}
		wantCalls(t, fc, 0, 0)
	})
}

func TestALogoutEndsTheLoginThatItFindsInItsSecondLook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := newBrittleStore()
		sessions := newSessions(t, fc, withStore(store))
		var loads atomic.Int32
		store.set(func(s *brittleStore) {
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

func TestATokenThatAnotherProcessHasBuiltOnIsNotRevoked(t *testing.T) {
	for name, presenting := range map[string]time.Duration{"claimed": 10 * time.Second, "rotated": 0} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fc := fincodetest.New(fincodetest.Config{})
				store, other := newBrittleStores()
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

func TestASaveThatLandedUnheardIsDoneEvenIfAnotherHasClaimedItsToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store, other := newBrittleStores()
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

func TestALoginThatAnotherProcessHasBuiltOnReplacesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store, other := newBrittleStores()
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

func TestALoginThatWasLoggedOutElsewhereIsNotSavedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store, other := newBrittleStores()
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

func TestACallerWhoWaitedForASlowSaveGetsNoTokenOfALogout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := newBrittleStore()
		sessions := newSessions(t, fc, withStore(store))
		logIn(t, sessions, "a")
		tok := token(t, sessions.TokenSource("a"))
		time.Sleep(30 * time.Minute)
		store.set(func(s *brittleStore) {
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

func TestALoginThatIsSavedLateDoesNotReplaceANewerOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store, other := newBrittleStores()
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

func TestALoginThatAnotherReplacesStaysUntilThatIsSaved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store, other := newBrittleStores()
		one, two := newSessions(t, fc, withStore(store)), newSessions(t, fc, withStore(other))
		store.set(func(s *brittleStore) {
			s.save = func(_ *fincodeauth.Record, save func() error) error {
				err := save()
				time.Sleep(500 * time.Millisecond)
				return err
			}
		})
		first := make(chan error, 1)
		go func() { first <- one.Login(t.Context(), "a", credentials) }()
		time.Sleep(100 * time.Millisecond)
		store.set(func(s *brittleStore) {
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

func TestALoginThatWasLoggedOutIsNotLeftToTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store, other := newBrittleStores()
		one, two := newSessions(t, fc, withStore(store)), newSessions(t, fc, withStore(other))
		store.set(func(s *brittleStore) {
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
		store.set(func(s *brittleStore) {
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

func TestALateSaveOfALoginThatWasReplacedBringsBackADeadToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := newBrittleStore()
		sessions := newSessions(t, fc, withStore(store))
		var first *fincodeauth.Record
		store.set(func(s *brittleStore) {
			s.save = func(rec *fincodeauth.Record, _ func() error) error { first = rec; return errStoreDown }
		})
		logIn(t, sessions, "a")
		store.set(func(s *brittleStore) {
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

// A flight may be held up between its last look and its landing.
func TestACallerAfterTheSessionWasReplacedGetsNothingOfTheFlightBefore(t *testing.T) {
	for name, replace := range map[string]func(*testing.T, *fincodeauth.Sessions){
		"Logout": func(t *testing.T, s *fincodeauth.Sessions) {
			if err := s.Logout(t.Context(), "a"); err != nil {
				t.Error(err)
			}
		},
		"Adopt": func(t *testing.T, s *fincodeauth.Sessions) {
			if err := s.Adopt(t.Context(), "a", &oauth2.Token{RefreshToken: "another user's"}); err != nil {
				t.Error(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fc := fincodetest.New(fincodetest.Config{})
				store := fincodeauth.NewMemoryStore()
				logIn(t, newSessions(t, fc, withStore(store)), "a")
				var adopted atomic.Bool
				var late chan error
				var sessions *fincodeauth.Sessions
				now := func() time.Time { // which the flight reads after the event
					if adopted.CompareAndSwap(true, false) {
						replace(t, sessions)
						late = make(chan error, 1)
						go func() {
							_, err := sessions.TokenSource("a").Token()
							late <- err
						}()
						time.Sleep(10 * time.Millisecond)
					}
					return time.Now()
				}
				var once sync.Once
				cfg := fincodeauth.Config{BaseURL: fincodeauth.Sandbox("test"), Base: fc, Store: store, Observe: func(e fincodeauth.Event) {
					once.Do(func() { adopted.Store(e.Type == fincodeauth.Adopted) })
				}}
				sessions, err := fincodeauth.NewOn(cfg, now, func() float64 { return 0 })
				if err != nil {
					t.Fatal(err)
				}
				_, _ = sessions.TokenSource("a").Token()
				if err := <-late; !errors.Is(err, fincodeauth.ErrLoginRequired) {
					t.Errorf("a caller who came after %s got error %v, want that a login is required", name, err)
				}
			})
		})
	}
}

func TestACallerAfterAnAdoptIsNotToldTheFailureOfTheFlightBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		elsewhere := newSessions(t, fc)
		logIn(t, elsewhere, "a")
		pair := token(t, elsewhere.TokenSource("a"))
		var sessions *fincodeauth.Sessions
		late := make(chan error, 1)
		adopt := func() { // while the flight that failed is held up
			if err := sessions.Adopt(t.Context(), "a", &oauth2.Token{RefreshToken: pair.RefreshToken}); err != nil {
				t.Error(err)
			}
			go func() {
				_, err := sessions.TokenSource("a").Token()
				late <- err
			}()
			time.Sleep(10 * time.Millisecond)
		}
		var once sync.Once
		sessions = newSessions(t, fc, func(c *fincodeauth.Config) {
			c.Observe = func(e fincodeauth.Event) {
				if e.Type == fincodeauth.RefreshFailed {
					once.Do(adopt)
				}
			}
		})
		logIn(t, sessions, "a")
		time.Sleep(2 * time.Hour)
		fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{Kind: fincodetest.ErrorStatus, Status: 429, RetryAfter: "60"})
		_, _ = sessions.TokenSource("a").Token()
		if err := <-late; err != nil {
			t.Errorf("a caller who came after Adopt got error %v", err)
		}
	})
}

func TestALoginWhoseSaveWentUnheardIsNotSavedOverALogoutJustThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store, other := newBrittleStores()
		one, two := newSessions(t, fc, withStore(store)), newSessions(t, fc, withStore(other))
		store.set(cutOffAfter(isSuccessor))
		logIn(t, one, "a")
		store.set(func(s *brittleStore) {
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

func TestALogoutOfALoginReachesWhoWentOnFromIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store, other := newBrittleStores()
		one, two := newSessions(t, fc, withStore(store)), newSessions(t, fc, withStore(other))
		store.set(func(s *brittleStore) {
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

func TestASuccessorThatALoginReplacedIsRevokedIfItsSaveIsHeardLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := newBrittleStore()
		sessions := newSessions(t, fc, withStore(store))
		logIn(t, sessions, "a")
		first, _, _ := strings.Cut(record(t, store, "a").Version, ".")
		time.Sleep(2 * time.Hour)
		fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{After: 2 * time.Second})
		var successor *oauth2.Token
		store.set(func(s *brittleStore) {
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

func TestTheAnswerToARefreshIsSavedIfTheLoginMeanwhileWasGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store, other := newBrittleStores()
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
		store.set(func(s *brittleStore) {
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

func TestTheAnswerToARefreshIsNotUsedAfterALogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := newBrittleStore()
		sessions := newSessions(t, fc, withStore(store))
		logIn(t, sessions, "a")
		time.Sleep(2 * time.Hour)
		fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{After: 2 * time.Second})
		go sessions.TokenSource("a").Token()
		time.Sleep(time.Second)
		logIn(t, sessions, "a")
		mine := token(t, sessions.TokenSource("a"))
		store.set(func(s *brittleStore) {
			s.save = func(_ *fincodeauth.Record, save func() error) error { time.Sleep(time.Second); return save() }
		})
		time.Sleep(1500 * time.Millisecond) // the answer is here
		if token(t, sessions.TokenSource("a")) != mine {
			t.Error("a caller gets the token of the session that the login replaced")
		}
		time.Sleep(10 * time.Second)
	})
}

func TestATokenThatALoginElsewhereMadeUselessIsRevoked(t *testing.T) {
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
