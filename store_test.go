package fincodeauth_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
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
	"github.com/fincodeauth/fincodeauth/storetest"
)

// A tokens has the two functions of a LocalStore, and keeps its tokens.
type tokens struct {
	mu    sync.Mutex
	byKey map[string]oauth2.Token
	saves int
	err   error // what the next save returns
}

func (k *tokens) store() fincodeauth.Store { return fincodeauth.LocalStore(k.load, k.save) }

func (k *tokens) load(_ context.Context, key string) (*oauth2.Token, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	tok, ok := k.byKey[key]
	if !ok {
		return nil, nil
	}
	return &tok, nil
}

func (k *tokens) save(_ context.Context, key string, tok *oauth2.Token) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.saves++
	if err := k.err; err != nil {
		k.err = nil
		return err
	}
	if tok == nil {
		delete(k.byKey, key)
		return nil
	}
	if k.byKey == nil {
		k.byKey = make(map[string]oauth2.Token)
	}
	k.byKey[key] = *tok
	return nil
}

func TestEveryStoreKeepsTheContract(t *testing.T) {
	stores := map[string]func(t *testing.T) fincodeauth.Store{
		"MemoryStore": func(*testing.T) fincodeauth.Store { return fincodeauth.NewMemoryStore() },
		"LocalStore":  func(*testing.T) fincodeauth.Store { return new(tokens).store() },
		"filestore":   newFileStore,
	}
	for name, newStore := range stores {
		t.Run(name, func(t *testing.T) { storetest.Run(t, newStore) })
		t.Run("Encrypt over "+name, func(t *testing.T) {
			storetest.Run(t, func(t *testing.T) fincodeauth.Store { return encrypted(t, newStore(t), key1) })
		})
	}
}

func TestLocalStoreSavesOncePerRotation(t *testing.T) {
	fc := fincodetest.New(fincodetest.Config{})
	var kept tokens
	sessions := newSessions(t, fc, withStore(kept.store()))
	logIn(t, sessions, "a")
	logIn(t, sessions, "a")
	if err := sessions.Adopt(t.Context(), "a", &oauth2.Token{RefreshToken: token(t, sessions.TokenSource("a")).RefreshToken}); err != nil {
		t.Fatal(err)
	}
	kept.saves = 0
	tok := token(t, sessions.TokenSource("a"))
	if kept.saves != 1 || kept.byKey["a"].RefreshToken != tok.RefreshToken {
		t.Errorf("got %d saves, or another token saved; want one save for the rotation, with the new token", kept.saves)
	}
	restarted := newSessions(t, fc, withStore(kept.store()))
	if token(t, restarted.TokenSource("a")).AccessToken != tok.AccessToken {
		t.Error("got another token after the restart, want the one from before")
	}
	if err := restarted.Logout(t.Context(), "a"); err != nil || len(kept.byKey) != 0 {
		t.Errorf("after Logout: got error %v and %d tokens kept, want none", err, len(kept.byKey))
	}
}

func TestLocalStoreIsUnchangedAfterAFailedSave(t *testing.T) {
	kept := tokens{err: errStoreDown}
	store := kept.store()
	rec := &fincodeauth.Record{Version: "1", Token: &oauth2.Token{AccessToken: "t"}}
	if err := store.Save(t.Context(), "a", rec, ""); !errors.Is(err, errStoreDown) {
		t.Errorf("got error %v, want that of the save function", err)
	}
	if _, err := store.Load(t.Context(), "a"); !errors.Is(err, fincodeauth.ErrNotFound) {
		t.Errorf("got error %v, want ErrNotFound", err)
	}
	if err := store.Save(t.Context(), "a", rec, ""); err != nil {
		t.Error(err)
	}
}

func TestRecordWithoutAVersionIsReportedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fincodeauth.NewMemoryStore()
		rec := &fincodeauth.Record{Token: &oauth2.Token{RefreshToken: "r-1"}}
		if err := store.Save(t.Context(), "a", rec, ""); err != nil {
			t.Fatal(err)
		}
		fc := fincodetest.New(fincodetest.Config{})
		sessions := newSessions(t, fc, withStore(store))
		var err error
		for call, do := range map[string]func(){
			"Login":  func() { err = sessions.Login(t.Context(), "a", credentials) },
			"Token":  func() { _, err = sessions.TokenSource("a").Token() },
			"Logout": func() { err = sessions.Logout(t.Context(), "a") },
		} {
			if waited := elapsed(do); err == nil || !strings.Contains(err.Error(), "has no version") || waited > 0 {
				t.Errorf("%s: got error %v after %v, want one at once that says that the record has no version", call, err, waited)
			}
		}
		wantCalls(t, fc, 0, 0)
		if err := sessions.Forget(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		logIn(t, sessions, "a")
	})
}

// A program may ask for the sessions of users who never logged in, for years.
func TestLocalStoreForgetsKeysWithoutARecord(t *testing.T) {
	store := (&tokens{}).store()
	memory := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	const keys = 100_000
	before := memory()
	for i := range keys {
		if _, err := store.Load(t.Context(), fmt.Sprint(i)); !errors.Is(err, fincodeauth.ErrNotFound) {
			t.Fatalf("Load of a key without a record = %v, want ErrNotFound", err)
		}
	}
	after := memory()
	if grown := int64(after) - int64(before); grown > keys*10 {
		t.Errorf("%d keys without a record hold %d bytes in memory, want nearly none", keys, grown)
	}
	runtime.KeepAlive(store)
}

func TestLocalStoreDeletesATokenThatCannotBeLoaded(t *testing.T) {
	var saved []*oauth2.Token
	errDamaged := errors.New("damaged")
	store := fincodeauth.LocalStore(
		func(context.Context, string) (*oauth2.Token, error) { return nil, errDamaged },
		func(_ context.Context, _ string, tok *oauth2.Token) error { saved = append(saved, tok); return nil })
	if _, err := store.Load(t.Context(), "a"); !errors.Is(err, errDamaged) {
		t.Errorf("got error %v, want that of the load function", err)
	}
	if err := store.Delete(t.Context(), "a"); err != nil || len(saved) != 1 || saved[0] != nil {
		t.Errorf("got error %v and saves of %v, want one save of a nil token", err, saved)
	}
}

func TestSlowSaveOfOneKeyDoesNotBlockOtherKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var hangs atomic.Bool
		store := fincodeauth.LocalStore(
			func(context.Context, string) (*oauth2.Token, error) { return nil, nil },
			func(ctx context.Context, key string, tok *oauth2.Token) error {
				if hangs.Load() && key == "a" {
					<-release
				}
				return nil
			})
		for n := range 300 {
			if err := store.Save(t.Context(), fmt.Sprint(n), &fincodeauth.Record{Version: "v", Token: &oauth2.Token{AccessToken: "t"}}, ""); err != nil {
				t.Fatal(err)
			}
		}
		hangs.Store(true)
		go store.Save(context.Background(), "a", &fincodeauth.Record{Version: "v", Token: &oauth2.Token{AccessToken: "t"}}, "")
		synctest.Wait()
		blocked := 0
		for n := range 300 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			if _, err := store.Load(ctx, fmt.Sprint(n)); err != nil {
				blocked++
			}
			cancel()
		}
		close(release)
		if blocked > 0 {
			t.Errorf("%d of 300 other keys were blocked by one slow save, want none", blocked)
		}
	})
}

// An emptyStore breaks the contract: its Load returns nothing.
type emptyStore struct{ fincodeauth.Store }

func (emptyStore) Load(context.Context, string) (*fincodeauth.Record, error) { return nil, nil }

func TestStoreThatLoadsNothingIsReported(t *testing.T) {
	fc := fincodetest.New(fincodetest.Config{})
	for _, store := range []fincodeauth.Store{emptyStore{}, encrypted(t, emptyStore{}, key1)} {
		err := newSessions(t, fc, withStore(store)).Login(t.Context(), "a", credentials)
		if err == nil || !strings.Contains(err.Error(), "neither a record nor an error") {
			t.Errorf("got error %v, want one that says who broke which contract", err)
		}
	}
}

// A deafStore does not answer before its context ends.
type deafStore struct{ fincodeauth.Store }

func (deafStore) Load(ctx context.Context, _ string) (*fincodeauth.Record, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func TestErrorNamesTheStoreThatDoesNotAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sessions := newSessions(t, fincodetest.New(fincodetest.Config{}), withStore(deafStore{}))
		err := sessions.Login(t.Context(), "a", credentials)
		if err == nil || !strings.Contains(err.Error(), "the store did not answer within 15s") || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got error %v, want one that says who broke which contract", err)
		}
	})
}

func TestMemoryStoreRemovesTheRecordOfALogoutAfterEightDays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := fincodeauth.NewMemoryStore()
		sessions := newSessions(t, fc, withStore(store))
		for _, key := range []string{"a", "b", "c"} {
			logIn(t, sessions, key)
			if err := sessions.Logout(t.Context(), key); err != nil {
				t.Fatal(err)
			}
		}
		logIn(t, sessions, "b")
		time.Sleep(8*24*time.Hour - time.Minute)
		logIn(t, sessions, "d")
		if err := sessions.Logout(t.Context(), "d"); err != nil {
			t.Fatal(err)
		}
		wantLoggedOut(t, store, "a")
		time.Sleep(2 * time.Minute)
		logIn(t, sessions, "e")
		if err := sessions.Logout(t.Context(), "e"); err != nil {
			t.Fatal(err)
		}
		for _, key := range []string{"a", "c"} {
			if rec, err := store.Load(t.Context(), key); !errors.Is(err, fincodeauth.ErrNotFound) {
				t.Errorf("after eight days, Load(%q) = %v, %v, want ErrNotFound", key, rec, err)
			}
		}
		record(t, store, "b")
		wantLoggedOut(t, store, "d")
	})
}

// keysOf returns what Keys yields, in order.
func keysOf(t *testing.T, sessions *fincodeauth.Sessions) []string {
	t.Helper()
	var keys []string
	for key, err := range sessions.Keys(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

func TestKeysPassesThroughEncryptAndJournal(t *testing.T) {
	fc := fincodetest.New(fincodetest.Config{})
	store := encrypted(t, journaled(t, newFileStore(t), journalDir(t)), bytes.Repeat([]byte{1}, 32))
	sessions := start(t, fc, store)
	for _, key := range []string{"a", "b"} {
		logIn(t, sessions, key)
	}
	if err := sessions.Logout(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	if got := keysOf(t, sessions); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("Keys yielded %q, want a, and b, whose record says that it was logged out", got)
	}
}

// A process died while the store was down.
func TestKeysListsWhatIsOnlyInTheJournal(t *testing.T) {
	fc := fincodetest.New(fincodetest.Config{})
	dir, inner := journalDir(t), newFaultyStore()
	logIn(t, newSessions(t, fc, withStore(inner.MemoryStore)), "a")
	first := start(t, fc, journaled(t, inner, dir))
	inner.set(successorsFail)
	logIn(t, first, "b") // the store does not accept the token
	kill(first, inner)

	second := start(t, fc, journaled(t, &faultyStore{MemoryStore: inner.MemoryStore, save: func(*fincodeauth.Record, func() error) error { return errStoreDown }}, dir))
	if got := keysOf(t, second); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("Keys yielded %q, want a, and b, which is in the journal", got)
	}
}

func TestKeysOfAStoreThatCannotListIsUnsupported(t *testing.T) {
	fc := fincodetest.New(fincodetest.Config{})
	local := fincodeauth.LocalStore(
		func(context.Context, string) (*oauth2.Token, error) { return nil, nil },
		func(context.Context, string, *oauth2.Token) error { return nil })
	for name, store := range map[string]fincodeauth.Store{"LocalStore": local, "Encrypt(LocalStore)": encrypted(t, local, bytes.Repeat([]byte{1}, 32))} {
		var errs []error
		for key, err := range newSessions(t, fc, withStore(store)).Keys(t.Context()) {
			if key != "" {
				t.Errorf("%s: Keys yielded %q", name, key)
			}
			errs = append(errs, err)
		}
		if len(errs) != 1 || !errors.Is(errs[0], errors.ErrUnsupported) || !strings.Contains(errs[0].Error(), "LocalStore does not list its keys") {
			t.Errorf("%s: Keys yielded %v, want one error that wraps ErrUnsupported and names the store", name, errs)
		}
	}
}

func TestErrorsOfTheStoreAreErrStore(t *testing.T) {
	fc := fincodetest.New(fincodetest.Config{})
	store := newFaultyStore()
	var seen events
	sessions := start(t, fc, store, seen.observe)
	if err := sessions.Adopt(t.Context(), "a", &oauth2.Token{RefreshToken: "unknown"}); err != nil {
		t.Fatal(err)
	}
	seen.types()
	store.down(true)
	for call, do := range map[string]func() error{
		"Token":  func() error { _, err := sessions.TokenSource("a").Token(); return err },
		"Login":  func() error { return sessions.Login(t.Context(), "b", credentials) },
		"Logout": func() error { return sessions.Logout(t.Context(), "a") },
		"Forget": func() error { return sessions.Forget(t.Context(), "a") },
		"Status": func() error { _, err := sessions.Status(t.Context(), "a"); return err },
	} {
		if err := do(); !errors.Is(err, fincodeauth.ErrStore) || !errors.Is(err, errStoreDown) || errors.Is(err, fincodeauth.ErrLoginRequired) {
			t.Errorf("%s returned %v, want the store's error, which is ErrStore and no ErrLoginRequired", call, err)
		}
	}
	for _, ev := range seen.all {
		if ev.Type == fincodeauth.RefreshFailed && !errors.Is(ev.Err, fincodeauth.ErrStore) {
			t.Errorf("the event %v has the error %v, want ErrStore", ev.Type, ev.Err)
		}
	}

	store.down(false)
	fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{Kind: fincodetest.ErrorStatus, Status: 503})
	if _, err := sessions.TokenSource("a").Token(); err == nil || errors.Is(err, fincodeauth.ErrStore) {
		t.Errorf("Token returned %v while FinCode failed, want an error that is not ErrStore", err)
	}
}

func TestUnsavedTokenIsReportedWithErrStore(t *testing.T) {
	fc := fincodetest.New(fincodetest.Config{})
	store := newFaultyStore()
	store.set(successorsFail)
	var seen events
	sessions := start(t, fc, store, seen.observe)
	logIn(t, sessions, "a")
	if last := seen.all[len(seen.all)-1]; last.Type != fincodeauth.SaveFailed || !errors.Is(last.Err, fincodeauth.ErrStore) {
		t.Errorf("the last event is %v with %v, want SaveFailed with ErrStore", last.Type, last.Err)
	}
	store.set(func(s *faultyStore) { s.save = nil })
}
