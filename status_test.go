package fincodeauth_test

import (
	"context"
	"encoding/base64"
	"errors"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/oauth2"

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

// status returns the Status of "a", and expects no error.
func status(t *testing.T, sessions *fincodeauth.Sessions) fincodeauth.Status {
	t.Helper()
	st, err := sessions.Status(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func TestStatusFollowsASession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := fincodeauth.NewMemoryStore()
		sessions := newSessions(t, fc, withStore(store))
		if got, want := status(t, sessions), (fincodeauth.Status{Key: "a"}); !reflect.DeepEqual(got, want) {
			t.Errorf("the status of no session is %+v, want %+v", got, want)
		}
		logIn(t, sessions, "a")
		now := time.Now()
		got := status(t, sessions)
		if early := now.Add(time.Hour).Sub(got.RefreshAt); early < 4*time.Minute || early > 5*time.Minute {
			t.Errorf("RefreshAt is %v before the expiry, want 5 minutes, or a little less", early)
		}
		got.RefreshAt = time.Time{}
		if !got.Expiry.Equal(now.Add(time.Hour)) || !got.Claims.Issued.Equal(now.Truncate(time.Second)) || !got.Claims.Expiry.Equal(now.Truncate(time.Second).Add(time.Hour)) {
			t.Errorf("the times are %v, %v and %v, want now and in an hour", got.Expiry, got.Claims.Issued, got.Claims.Expiry)
		}
		got.Expiry, got.Claims.Issued, got.Claims.Expiry = time.Time{}, time.Time{}, time.Time{}
		want := fincodeauth.Status{Key: "a", Exists: true, Claims: fincodeauth.Claims{UserID: "user-1", Roles: []string{"CUSTOMER"}}}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("the status after a login is %+v, want %+v", got, want)
		}

		if err := sessions.Logout(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		if got := status(t, sessions); got.Exists || got.Ended != "logged out" || !got.Expiry.IsZero() {
			t.Errorf("the status after a Logout is %+v, want no session, which was logged out", got)
		}
		if c := fc.Counts(); c.RefreshCalls+c.APICalls != 0 {
			t.Errorf("FinCode got %+v, want only the login and the logout", c)
		}
	})
}

// Each process has its own Status, and that of a process that has nothing in memory comes
// from the store.
func TestStatusIsTheSameInAnotherProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := fincodeauth.NewMemoryStore()
		one, two := newSessions(t, fc, withStore(store)), newSessions(t, fc, withStore(store))
		logIn(t, one, "a")
		token(t, two.TokenSource("a"))
		time.Sleep(2 * time.Hour)
		token(t, one.TokenSource("a"))
		for name, sessions := range map[string]*fincodeauth.Sessions{"one": one, "two": two, "three": newSessions(t, fc, withStore(store))} {
			got := status(t, sessions)
			if left := time.Until(got.Expiry); !got.Exists || left != time.Hour || got.Claims.UserID != "user-1" || got.RefreshAt.IsZero() {
				t.Errorf("the status in process %s is %+v, want the token of the refresh, which lives for %v more", name, got, time.Hour)
			}
		}
		if in := newSessions(t, fc, withStore(store)); status(t, in).Exists && in.Stats().InMemory != 0 {
			t.Error("Status put the session into memory, want it not to count as a use")
		}
		wantCalls(t, fc, 1, 1)
	})
}

func TestStatusSaysWhyASessionEnded(t *testing.T) {
	for name, end := range map[string]func(t *testing.T, fc *fincodetest.FinCode, store fincodeauth.Store){
		"reused": func(t *testing.T, fc *fincodetest.FinCode, store fincodeauth.Store) {
			logIn(t, newSessions(t, fc, withStore(store)), "a")
			present(t, fc, record(t, store, "a").Token.RefreshToken)
		},
		"interrupted": func(t *testing.T, fc *fincodetest.FinCode, store fincodeauth.Store) {
			saveDeadClaim(t, fc, store, time.Now(), true)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fc := fincodetest.New(fincodetest.Config{})
				store := fincodeauth.NewMemoryStore()
				end(t, fc, store)
				sessions := newSessions(t, fc, withStore(store))
				started := record(t, store, "a").RefreshStarted
				if got := status(t, sessions); !got.RefreshStarted.Equal(started) || got.Ended != "" {
					t.Errorf("the status is %+v, want the claim of %v", got, started)
				}
				time.Sleep(2 * time.Hour)
				_, err := sessions.TokenSource("a").Token()
				wantSessionError(t, err, true, name == "interrupted")
				for _, s := range []*fincodeauth.Sessions{sessions, newSessions(t, fc, withStore(store))} {
					got := status(t, s)
					if !got.Exists || !got.Reused || got.Interrupted != (name == "interrupted") || !strings.Contains(err.Error(), got.Ended) || got.Ended == "" {
						t.Errorf("the status is %+v, want what the error says: %v", got, err)
					}
				}
			})
		})
	}
}

func TestStatusKnowsMoreThanTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := newFaultyStore()
		sessions := newSessions(t, fc, withStore(store))
		logIn(t, sessions, "a")
		old := record(t, store.MemoryStore, "a")
		time.Sleep(2 * time.Hour)
		store.set(successorsFail)
		token(t, sessions.TokenSource("a"))
		if got := status(t, sessions); !got.Unsaved || time.Until(got.Expiry) < 59*time.Minute || !got.RefreshStarted.IsZero() {
			t.Errorf("the status is %+v, want the unsaved token", got)
		}
		if got := status(t, newSessions(t, fc, withStore(store))); got.Unsaved || time.Until(got.Expiry) > 0 || got.RefreshStarted.IsZero() {
			t.Errorf("the status in another process is %+v, want the expired token and the claim", got)
		}
		store.set(func(s *faultyStore) { s.save = nil })
		time.Sleep(time.Minute)

		if err := store.MemoryStore.Save(t.Context(), "a", old, record(t, store.MemoryStore, "a").Version); err != nil {
			t.Fatal(err)
		}
		if got := status(t, sessions); got.Unsaved || time.Until(got.Expiry) < 58*time.Minute {
			t.Errorf("the status is %+v, want the newer token, although the store has gone back", got)
		}
		if record(t, store.MemoryStore, "a").Version != old.Version {
			t.Error("Status changed the record")
		}
	})
}

func TestStatusSaysWhatThisProcessKnowsWhileTheStoreIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := newFaultyStore()
		sessions := newSessions(t, fc, withStore(store))
		logIn(t, sessions, "a")
		store.down(true)
		got, err := sessions.Status(t.Context(), "a")
		if !errors.Is(err, errStoreDown) || !got.Exists || time.Until(got.Expiry) < 59*time.Minute {
			t.Errorf("Status = %+v, %v; want the token in use and the store's error", got, err)
		}
		got, err = sessions.Status(t.Context(), "b")
		if !errors.Is(err, errStoreDown) || got.Exists || got.Key != "b" {
			t.Errorf("Status = %+v, %v; want only the key and the store's error", got, err)
		}
	})
}

func TestStatusAfterClose(t *testing.T) {
	fc := fincodetest.New(fincodetest.Config{})
	sessions := newSessions(t, fc)
	logIn(t, sessions, "a")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := sessions.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if got := status(t, sessions); !got.Exists || got.Expiry.IsZero() {
		t.Errorf("the status is %+v, want that of the store", got)
	}
}

func TestStatusRefusesAnEmptyKey(t *testing.T) {
	fc := fincodetest.New(fincodetest.Config{})
	if _, err := newSessions(t, fc).Status(t.Context(), ""); err == nil || !strings.Contains(err.Error(), "the key is empty") {
		t.Errorf("Status = %v, want an error that says that the key is empty", err)
	}
	if _, err := new(fincodeauth.Sessions).Status(t.Context(), "a"); err == nil || !strings.Contains(err.Error(), "make them with fincodeauth.New") {
		t.Errorf("Status = %v, want an error that names New", err)
	}
}

// claimsIn returns the claims that Status reads from an access token.
func claimsIn(t *testing.T, accessToken string) fincodeauth.Claims {
	t.Helper()
	sessions := newSessions(t, fincodetest.New(fincodetest.Config{}))
	if err := sessions.Adopt(t.Context(), "a", &oauth2.Token{AccessToken: accessToken}); err != nil {
		t.Fatal(err)
	}
	return status(t, sessions).Claims
}

func TestClaimsTolerateWhatIsMissingOrOdd(t *testing.T) {
	jwt := func(payload string) string {
		return "e30." + base64.RawURLEncoding.EncodeToString([]byte(payload)) + ".c2ln"
	}
	for name, tc := range map[string]struct {
		token string
		want  fincodeauth.Claims
	}{
		"opaque":         {"opaque", fincodeauth.Claims{}},
		"no claims":      {jwt(`{}`), fincodeauth.Claims{}},
		"not an object":  {jwt(`[]`), fincodeauth.Claims{}},
		"a number":       {jwt(`{"user-id": 12345678}`), fincodeauth.Claims{UserID: "12345678"}},
		"one role":       {jwt(`{"roles": "ADMIN"}`), fincodeauth.Claims{Roles: []string{"ADMIN"}}},
		"odd roles":      {jwt(`{"roles": [1, "ADMIN", null, {"name": "X"}]}`), fincodeauth.Claims{Roles: []string{"ADMIN"}}},
		"roles no array": {jwt(`{"roles": {"a": 1}, "user-id": true}`), fincodeauth.Claims{}},
		"negative times": {jwt(`{"iat": -1, "exp": -5}`), fincodeauth.Claims{}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := claimsIn(t, tc.token); !reflect.DeepEqual(got, tc.want) {
				t.Errorf("the claims are %+v, want %+v", got, tc.want)
			}
		})
	}
}
