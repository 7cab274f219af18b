package fincodeauth_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/fincodetest"
)

// A pastStore is a MemoryStore that can go back to an earlier state.
type pastStore struct {
	fincodeauth.MemoryStore

	mu   sync.Mutex
	past []*fincodeauth.Record // after each Save under the key "a"
}

func (s *pastStore) Save(ctx context.Context, key string, rec *fincodeauth.Record, prev string) error {
	err := s.MemoryStore.Save(ctx, key, rec, prev)
	if err == nil && key == "a" {
		s.mu.Lock()
		defer s.mu.Unlock()
		tok := *rec.Token
		kept := *rec
		kept.Token = &tok
		s.past = append(s.past, &kept)
	}
	return err
}

// goBack takes the last saves back: all that were ever made, or n of them.
func (s *pastStore) goBack(t *testing.T, n int) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.past = s.past[:max(0, len(s.past)-n)]
	if err := s.MemoryStore.Delete(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if len(s.past) > 0 {
		if err := s.MemoryStore.Save(t.Context(), "a", s.past[len(s.past)-1], ""); err != nil {
			t.Fatal(err)
		}
	}
}

const all = 1000 // saves, so that the store comes back empty

// liveOn lets an hour pass, n times, and has the processes use the session after each.
func liveOn(t *testing.T, n int, processes ...*fincodeauth.Sessions) {
	t.Helper()
	for range n {
		time.Sleep(time.Hour)
		for _, s := range processes {
			token(t, s.TokenSource("a"))
		}
	}
}

// noteReverts notes in got each StoreReverted.
func noteReverts(got *[]string) func(*fincodeauth.Config) {
	var mu sync.Mutex
	return func(cfg *fincodeauth.Config) {
		cfg.Observe = func(e fincodeauth.Event) {
			mu.Lock()
			defer mu.Unlock()
			if e.Type == fincodeauth.StoreReverted {
				*got = append(*got, e.Err.Error())
			}
		}
	}
}

// The process that rotated heals the store, and so does one that has adopted its token.
func TestStoreThatGoesBackLosesNoSession(t *testing.T) {
	for _, who := range []string{"the process that rotated", "a process that adopted"} {
		for _, back := range []int{1, 2, 3, 4, 5, 6, 7, 8, all} {
			t.Run(fmt.Sprintf("%s, %d saves back", who, back), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					fc := fincodetest.New(fincodetest.Config{})
					store := new(pastStore)
					var reverts []string
					one := newSessions(t, fc, withStore(store), noteReverts(&reverts))
					living := one
					logIn(t, one, "a")
					if who != "the process that rotated" {
						living = newSessions(t, fc, withStore(store), noteReverts(&reverts))
					}
					liveOn(t, 5, one, living)
					store.goBack(t, back)
					time.Sleep(time.Hour)
					for range 2 {
						tok := token(t, living.TokenSource("a"))
						if status := whoami(t, fc, tok); status != http.StatusOK {
							t.Errorf("FinCode answers %d to the token, want 200", status)
						}
						if got := record(t, store, "a").Token.RefreshToken; got != tok.RefreshToken {
							t.Error("the store has another token, want the one in use")
						}
						time.Sleep(time.Hour)
					}
					if twice := fc.PresentedMoreThanOnce(); len(twice) > 0 {
						t.Errorf("%d refresh tokens were presented more than once, want none", len(twice))
					}
					if back > 1 && len(reverts) != 1 { // one save back is a claim that was never followed
						t.Errorf("got the events StoreReverted %q, want one", reverts)
					}
				})
			})
		}
	}
}

// A process that knows less presents the old token, and saves the end of the session. The
// process that knows more saves the session again.
func TestEndByAProcessThatKnewLessIsHealed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := new(pastStore)
		knows := newSessions(t, fc, withStore(store))
		logIn(t, knows, "a")
		liveOn(t, 3, knows)
		store.goBack(t, 3)
		time.Sleep(time.Hour)
		if _, err := newSessions(t, fc, withStore(store)).TokenSource("a").Token(); !errors.Is(err, fincodeauth.ErrTokenReused) {
			t.Fatalf("a process that knows nothing gets error %v, want ErrTokenReused", err)
		}
		token(t, knows.TokenSource("a"))
		token(t, newSessions(t, fc, withStore(store)).TokenSource("a"))
	})
}

func TestLoggedOutSessionStaysOutWhenTheStoreGoesBack(t *testing.T) {
	for _, back := range []int{1, 2, 3, all} {
		t.Run(fmt.Sprintf("%d saves back", back), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fc := fincodetest.New(fincodetest.Config{})
				store := new(pastStore)
				one, two := newSessions(t, fc, withStore(store)), newSessions(t, fc, withStore(store))
				logIn(t, one, "a")
				token(t, two.TokenSource("a"))
				liveOn(t, 1, one)
				if err := one.Logout(t.Context(), "a"); err != nil {
					t.Fatal(err)
				}
				if _, err := two.TokenSource("a").Token(); !errors.Is(err, fincodeauth.ErrNotFound) {
					t.Errorf("process two gets error %v after the Logout, want ErrNotFound", err)
				}
				presented := fc.Counts().Refreshes
				store.goBack(t, back)
				for _, s := range []*fincodeauth.Sessions{two, one} {
					if _, err := s.TokenSource("a").Token(); !errors.Is(err, fincodeauth.ErrNotFound) {
						t.Errorf("got error %v after the store went back, want ErrNotFound", err)
					}
				}
				if n := fc.Counts().Refreshes - presented; n > 0 {
					t.Errorf("%d refreshes of a session that was logged out, want none", n)
				}
			})
		})
	}
}

// A process learns of another's Logout by a Logout or a Forget of its own. It does not
// save the session again when the store comes back empty.
func TestLogoutThatWasFoundIsRemembered(t *testing.T) {
	for name, end := range map[string]func(*fincodeauth.Sessions, context.Context, string) error{
		"Logout": (*fincodeauth.Sessions).Logout, "Forget": (*fincodeauth.Sessions).Forget,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fc := fincodetest.New(fincodetest.Config{})
				store := new(pastStore)
				one, two := newSessions(t, fc, withStore(store)), newSessions(t, fc, withStore(store))
				logIn(t, one, "a")
				token(t, two.TokenSource("a"))
				if err := one.Logout(t.Context(), "a"); err != nil {
					t.Fatal(err)
				}
				if err := end(two, t.Context(), "a"); err != nil {
					t.Fatal(err)
				}
				store.goBack(t, all)
				time.Sleep(time.Hour)
				if _, err := two.TokenSource("a").Token(); !errors.Is(err, fincodeauth.ErrNotFound) {
					t.Errorf("got error %v, want ErrNotFound", err)
				}
			})
		})
	}
}

// The store goes back, and a process that knows only an older token logs the session out.
// The newest token must be revoked, too.
func TestLogoutByAProcessThatKnewLessRevokesTheNewestToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := new(pastStore)
		knows := newSessions(t, fc, withStore(store))
		logIn(t, knows, "a")
		liveOn(t, 2, knows)
		newest := token(t, knows.TokenSource("a"))
		store.goBack(t, 2)
		_ = newSessions(t, fc, withStore(store)).Logout(t.Context(), "a") // FinCode refuses the old token
		time.Sleep(58 * time.Minute)
		if _, err := knows.TokenSource("a").Token(); err != nil && !errors.Is(err, fincodeauth.ErrNotFound) {
			t.Errorf("got error %v, want ErrNotFound or the last minutes of the token", err)
		}
		time.Sleep(2 * time.Minute)
		if _, err := knows.TokenSource("a").Token(); !errors.Is(err, fincodeauth.ErrNotFound) {
			t.Errorf("got error %v, want ErrNotFound", err)
		}
		if status := whoami(t, fc, newest); status != http.StatusUnauthorized {
			t.Errorf("FinCode answers %d to the newest token, want 401", status)
		}
	})
}

// A login is newer than the session that it replaced.
func TestStoreThatGoesBackToBeforeALoginLosesNoSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := new(pastStore)
		sessions := newSessions(t, fc, withStore(store))
		logIn(t, sessions, "a")
		liveOn(t, 1, sessions)
		logIn(t, sessions, "a")
		want := record(t, store, "a")
		store.goBack(t, 1)
		liveOn(t, 1, sessions)
		if n := fc.Presented(want.Token.RefreshToken); n != 1 {
			t.Errorf("the refresh token of the second login was presented %d times, want once", n)
		}
		if twice := fc.PresentedMoreThanOnce(); len(twice) > 0 {
			t.Errorf("%d refresh tokens were presented more than once, want none", len(twice))
		}
	})
}

// A process of an earlier version drops what it does not know of a record.
type earlierVersion struct{ *pastStore }

func (s earlierVersion) Load(ctx context.Context, key string) (*fincodeauth.Record, error) {
	rec, err := s.pastStore.Load(ctx, key)
	if err == nil {
		rec.Generation, rec.Replaces, rec.RefreshTimeout = 0, nil, 0
	}
	return rec, err
}

func (s earlierVersion) Save(ctx context.Context, key string, rec *fincodeauth.Record, prev string) error {
	old := *rec
	old.Generation, old.Replaces, old.RefreshTimeout = 0, nil, 0
	return s.pastStore.Save(ctx, key, &old, prev)
}

// During a rolling deployment, processes of both versions refresh in turns. Neither takes
// the other's tokens for older ones.
func TestEarlierVersionSharesAStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := new(pastStore)
		var reverts []string
		before := newSessions(t, fc, withStore(earlierVersion{store}))
		now := newSessions(t, fc, withStore(store), noteReverts(&reverts))
		third := newSessions(t, fc, withStore(store), noteReverts(&reverts))
		logIn(t, before, "a")
		for i := range 12 {
			order := []*fincodeauth.Sessions{before, now, third}
			for j := range order {
				token(t, order[(i+j)%3].TokenSource("a"))
			}
			time.Sleep(time.Hour)
		}
		if twice := fc.PresentedMoreThanOnce(); len(twice) > 0 || len(reverts) > 0 {
			t.Errorf("%d refresh tokens were presented more than once, and the events StoreReverted are %q, want none", len(twice), reverts)
		}
	})
}

// A claim carries the RefreshTimeout of its process. A process with a shorter one waits.
func TestProcessesWithDifferentRefreshTimeoutsShareAStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := new(pastStore)
		timeout := func(d time.Duration) func(*fincodeauth.Config) {
			return func(cfg *fincodeauth.Config) { cfg.RefreshTimeout = d }
		}
		slow, quick := newSessions(t, fc, withStore(store), timeout(time.Minute)), newSessions(t, fc, withStore(store), timeout(time.Second))
		logIn(t, slow, "a")
		time.Sleep(time.Hour)
		fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{Before: 50 * time.Second})
		got := make(chan error)
		go func() {
			_, err := slow.TokenSource("a").Token()
			got <- err
		}()
		time.Sleep(time.Second)
		token(t, quick.TokenSource("a"))
		if err := <-got; err != nil {
			t.Error(err)
		}
		if n := fc.Counts().Refreshes; n != 1 {
			t.Errorf("%d refreshes, want one: the second process took over too early", n)
		}
	})
}

// If this process has seen that the store had gone back, a refusal says so.
func TestRefusalSaysThatTheStoreMayHaveGoneBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := new(pastStore)
		sessions := newSessions(t, fc, withStore(store))
		logIn(t, sessions, "a")
		logIn(t, sessions, "b")
		time.Sleep(time.Hour)
		spent := record(t, store, "b").Token
		token(t, newSessions(t, fc, withStore(fincodeauth.NewMemoryStore()), func(cfg *fincodeauth.Config) {
			if err := cfg.Store.Save(t.Context(), "b", &fincodeauth.Record{Version: "v", Token: spent}, ""); err != nil {
				t.Fatal(err)
			}
		}).TokenSource("b"))
		store.goBack(t, all)
		token(t, sessions.TokenSource("a"))
		_, err := sessions.TokenSource("b").Token()
		if !errors.Is(err, fincodeauth.ErrTokenReused) || !strings.Contains(err.Error(), "the store may have gone back") {
			t.Errorf("got error %v, want ErrTokenReused, and that the store may have gone back", err)
		}
	})
}
