package fincodeauth_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/oauth2"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/fincodetest"
)

var credentials = fincodeauth.Credentials{Email: fincodetest.Email, Password: fincodetest.Password}

// newSessions returns Sessions at fc, in memory; edit changes their Config.
func newSessions(t *testing.T, fc *fincodetest.FinCode, edit func(*fincodeauth.Config)) *fincodeauth.Sessions {
	t.Helper()
	cfg := fincodeauth.Config{BaseURL: fincodeauth.Sandbox("test"), Base: fc}
	if edit != nil {
		edit(&cfg)
	}
	sessions, err := fincodeauth.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return sessions
}

// logIn begins the session under key.
func logIn(t *testing.T, sessions *fincodeauth.Sessions, key string) {
	t.Helper()
	if err := sessions.Login(t.Context(), key, credentials); err != nil {
		t.Fatal(err)
	}
}

func token(t *testing.T, src oauth2.TokenSource) *oauth2.Token {
	t.Helper()
	tok, err := src.Token()
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func TestFiveThousandCallersAtExpiryMakeOneRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		fc.Inject(fincodetest.Refresh, -1, fincodetest.Fault{Before: time.Second})
		sessions := newSessions(t, fc, nil)
		logIn(t, sessions, "a")
		src := sessions.TokenSource("a")
		old := token(t, src)
		time.Sleep(2 * time.Hour)

		var wg sync.WaitGroup
		for range 5000 {
			wg.Go(func() {
				tok, err := src.Token()
				if err != nil || tok.AccessToken == old.AccessToken {
					t.Errorf("token %v, error %v; want a new token", tok == old, err)
				}
			})
		}
		wg.Wait()
		if c := fc.Counts(); c.RefreshCalls != 1 || c.Refreshes != 1 {
			t.Errorf("counts %+v, want one refresh", c)
		}
	})
}

func TestACallerWhoLeavesLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{After: 5 * time.Second})
		store := fincodeauth.NewMemoryStore()
		sessions := newSessions(t, fc, func(c *fincodeauth.Config) { c.Store = store })
		logIn(t, sessions, "a")
		time.Sleep(2 * time.Hour)

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := sessions.TokenSource("a").TokenContext(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("error %v, want that of the context", err)
		}
		time.Sleep(10 * time.Second)
		rec, err := store.Load(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		if tok := token(t, sessions.TokenSource("a")); tok.AccessToken != rec.Token.AccessToken {
			t.Error("the rotated token is not the one in the store")
		}
		if c := fc.Counts(); c.RefreshCalls != 1 {
			t.Errorf("counts %+v, want the one refresh that nobody waited for", c)
		}
	})
}
