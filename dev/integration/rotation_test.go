package integration

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/fincodetest"
)

// Each refresh waits until all 200 are in flight. If a refresh kept one of the two
// connections while it waits, the others would wait for ever.
func TestNoConnectionIsHeldDuringARefresh(t *testing.T) {
	const sessions, connections = 200, 2
	for _, d := range sqlDatabases {
		t.Run(d.name, func(t *testing.T) {
			tab := openTable(t, d.sqlDatabase, d.dsn(t))
			tab.db.SetMaxOpenConns(connections)
			fc := fincodetest.New(fincodetest.Config{OpaqueTokens: true})
			keys := expired(t, fc, tab.Store, sessions)

			var inFlight atomic.Int64
			allInFlight := make(chan struct{})
			store := &countingStore{Store: tab.Store}
			all := newSessions(t, fincodeauth.Config{Store: store, Base: beforeRefresh(fc, func(ctx context.Context) error {
				if inFlight.Add(1) == sessions {
					if n := tab.db.Stats().InUse; n > 0 {
						t.Errorf("%d connections are in use while every session waits for FinCode", n)
					}
					close(allInFlight)
				}
				select {
				case <-allInFlight:
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			})})
			refreshAll(t, all, keys)
			closeAll(t, all)
			if loads, saves := store.loads.Load(), store.saves.Load(); loads != sessions || saves != 2*sessions {
				t.Errorf("%d rotations made %d loads and %d saves, want one load, one claim and one save each", sessions, loads, saves)
			}
			if n := fc.Counts().Refreshes; n != sessions {
				t.Errorf("%d rotations, want %d", n, sessions)
			}
		})
	}
}

func TestEncryptionKeyIsReplacedWithoutLosingASession(t *testing.T) {
	for _, s := range stores {
		t.Run(s.name, func(t *testing.T) {
			store := s.open(t)
			oldKey, newKey := newKey(), newKey()
			fc := fincodetest.New(fincodetest.Config{OpaqueTokens: true})
			keys := expired(t, fc, encrypted(t, store, oldKey), 20)

			// First the processes learn to read with the new key. Then they also
			// encrypt with it.
			for _, order := range [][][]byte{{oldKey, newKey}, {newKey, oldKey}} {
				all := newSessions(t, fincodeauth.Config{Store: encrypted(t, store, order...), Base: fc})
				refreshAll(t, all, keys[:5])
				closeAll(t, all)
			}

			// Every record is saved again, because a record that nobody uses would
			// stay encrypted with the old key. Some sessions are in use meanwhile.
			both := encrypted(t, store, newKey, oldKey)
			all := newSessions(t, fincodeauth.Config{Store: both, Base: fc})
			var wg sync.WaitGroup
			wg.Go(func() { refreshAll(t, all, keys[:10]) })
			for _, key := range keys {
				if err := resave(t.Context(), both, key); err != nil {
					t.Errorf("saving %s again = %v", key, err)
				}
			}
			wg.Wait()
			closeAll(t, all)

			// The processes no longer have the old key.
			all = newSessions(t, fincodeauth.Config{Store: encrypted(t, store, newKey), Base: fc})
			refreshAll(t, all, keys)
			closeAll(t, all)
			if twice := fc.PresentedMoreThanOnce(); len(twice) > 0 {
				t.Errorf("refresh tokens presented more than once: %v", twice)
			}
			if n := fc.Counts().Refreshes; n != len(keys) {
				t.Errorf("%d rotations, want one for each of %d sessions", n, len(keys))
			}
			if _, err := encrypted(t, store, oldKey).Load(t.Context(), keys[len(keys)-1]); err == nil {
				t.Error("the old key alone still decrypts a record")
			}
		})
	}
}

// resave saves the record under key again, so that the store encrypts it with its
// first key.
func resave(ctx context.Context, store fincodeauth.Store, key string) error {
	for {
		rec, err := store.Load(ctx, key)
		if errors.Is(err, fincodeauth.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		if time.Since(rec.RefreshStarted) < time.Minute { // whoever refreshes it also saves it
			time.Sleep(10 * time.Millisecond)
			continue
		}
		prev := rec.Version
		rec.Version += "." + rand.Text()
		if err := store.Save(ctx, key, rec, prev); !errors.Is(err, fincodeauth.ErrConflict) {
			return err
		}
	}
}

// newSessions makes Sessions for a FinCode in memory.
func newSessions(t testing.TB, cfg fincodeauth.Config) *fincodeauth.Sessions {
	t.Helper()
	cfg.BaseURL = fincodeauth.Sandbox("remitjunction")
	all, err := fincodeauth.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// closeAll closes the Sessions, which waits until every token is saved.
func closeAll(t testing.TB, all *fincodeauth.Sessions) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := all.Close(ctx); err != nil {
		t.Fatal(err)
	}
}

// expired logs n sessions in and then lets their access tokens expire.
func expired(t testing.TB, fc *fincodetest.FinCode, store fincodeauth.Store, n int) (keys []string) {
	t.Helper()
	all := newSessions(t, fincodeauth.Config{Store: store, Base: fc})
	for i := range n {
		key := fmt.Sprintf("user-%d", i)
		keys = append(keys, key)
		if err := all.Login(t.Context(), key, fincodeauth.Credentials{Email: fincodetest.Email, Password: fincodetest.Password}); err != nil {
			t.Fatal(err)
		}
	}
	closeAll(t, all)
	expire(t, store, keys)
	return keys
}

// expire sets the expiry of the access tokens under keys to a minute ago.
func expire(t testing.TB, store fincodeauth.Store, keys []string) {
	t.Helper()
	for _, key := range keys {
		rec, err := store.Load(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		prev := rec.Version
		rec.Version, rec.Token.Expiry = prev+"."+rand.Text(), time.Now().Add(-time.Minute)
		if err := store.Save(t.Context(), key, rec, prev); err != nil {
			t.Fatal(err)
		}
	}
}

// refreshAll asks for the tokens of all keys at once.
func refreshAll(t testing.TB, all *fincodeauth.Sessions, keys []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	for _, key := range keys {
		wg.Go(func() {
			if _, err := all.TokenSource(key).TokenContext(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// beforeRefresh returns a base that sends requests to fc and calls do before each
// refresh.
func beforeRefresh(fc *fincodetest.FinCode, do func(context.Context) error) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		if strings.HasSuffix(r.URL.Path, "/refresh-token") {
			if err := do(r.Context()); err != nil {
				return nil, err
			}
		}
		return fc.RoundTrip(r)
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// A countingStore counts the calls of the Store in it.
type countingStore struct {
	fincodeauth.Store
	loads, saves atomic.Int64
}

func (c *countingStore) Load(ctx context.Context, key string) (*fincodeauth.Record, error) {
	c.loads.Add(1)
	return c.Store.Load(ctx, key)
}

func (c *countingStore) Save(ctx context.Context, key string, rec *fincodeauth.Record, prev string) error {
	c.saves.Add(1)
	return c.Store.Save(ctx, key, rec, prev)
}
