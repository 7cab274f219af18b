package fincodeauth_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/oauth2"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/filestore"
	"github.com/fincodeauth/fincodeauth/fincodetest"
	"github.com/fincodeauth/fincodeauth/storetest"
)

// tokens are what the functions of a LocalStore keep.
type tokens struct {
	mu    sync.Mutex
	byKey map[string]oauth2.Token
	saves int
	err   error // of the next save
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

func newFileStore(t *testing.T) fincodeauth.Store {
	t.Helper()
	s, err := filestore.New(filepath.Join(t.TempDir(), "sessions"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

var key1, key2 = bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 32)

func encrypted(t *testing.T, s fincodeauth.Store, keys ...[]byte) fincodeauth.Store {
	t.Helper()
	e, err := fincodeauth.Encrypt(s, keys...)
	if err != nil {
		t.Fatal(err)
	}
	return e
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

func TestALocalStoreSavesATokenOnceARotation(t *testing.T) {
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
		t.Errorf("%d saves for a rotation, want one, of the new token", kept.saves)
	}
	restarted := newSessions(t, fc, withStore(kept.store()))
	if token(t, restarted.TokenSource("a")).AccessToken != tok.AccessToken {
		t.Error("another token after a restart")
	}
	if err := restarted.Logout(t.Context(), "a"); err != nil || len(kept.byKey) != 0 {
		t.Errorf("after the logout: error %v, %d tokens kept", err, len(kept.byKey))
	}
}

func TestALocalStoreWhoseSaveFailsKeepsWhatItHad(t *testing.T) {
	kept := tokens{err: errStoreDown}
	store := kept.store()
	rec := &fincodeauth.Record{Version: "1", Token: &oauth2.Token{AccessToken: "t"}}
	if err := store.Save(t.Context(), "a", rec, ""); !errors.Is(err, errStoreDown) {
		t.Errorf("error %v, want the function's", err)
	}
	if _, err := store.Load(t.Context(), "a"); !errors.Is(err, fincodeauth.ErrNotFound) {
		t.Errorf("error %v, want ErrNotFound", err)
	}
	if err := store.Save(t.Context(), "a", rec, ""); err != nil {
		t.Error(err)
	}
}

func TestEncryptRefusesBadKeys(t *testing.T) {
	store := fincodeauth.NewMemoryStore()
	for name, test := range map[string]struct {
		store fincodeauth.Store
		keys  [][]byte
		want  string
	}{
		"none":           {store, nil, "no key"},
		"16 bytes":       {store, [][]byte{key1[:16]}, "16 bytes"},
		"the second":     {store, [][]byte{key1, key2[:31]}, "key 2 has 31 bytes"},
		"no store":       {nil, [][]byte{key1}, "store is nil"},
		"a broken store": {fincodeauth.LocalStore(nil, nil), [][]byte{key1}, "nil function"},
	} {
		if _, err := fincodeauth.Encrypt(test.store, test.keys...); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: error %v, want one that says %q", name, err, test.want)
		}
	}
}

func TestNoTokenIsLegibleOnDisk(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "sessions")
	files, err := filestore.New(dir)
	if err != nil {
		t.Fatal(err)
	}
	tok := &oauth2.Token{AccessToken: "access-1", RefreshToken: "refresh-1"}
	if err := encrypted(t, files, key1).Save(t.Context(), "a", &fincodeauth.Record{Version: "1", Token: tok}, ""); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(files.Path("a"))
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{"access-1", "refresh-1"} {
		if bytes.Contains(data, []byte(secret)) {
			t.Errorf("%s is legible in %s", secret, data)
		}
	}
}

func TestAnEncryptionKeyIsReplacedWithoutLosingASession(t *testing.T) {
	fc := fincodetest.New(fincodetest.Config{})
	store := fincodeauth.NewMemoryStore()
	old := newSessions(t, fc, withStore(encrypted(t, store, key1)))
	logIn(t, old, "a")
	want := token(t, old.TokenSource("a")).AccessToken

	both := encrypted(t, store, key2, key1)
	rec := record(t, both, "a")
	prev := rec.Version
	rec.Version += "+"
	if err := both.Save(t.Context(), "a", rec, prev); err != nil {
		t.Fatal(err)
	}
	if got := token(t, newSessions(t, fc, withStore(encrypted(t, store, key2))).TokenSource("a")).AccessToken; got != want {
		t.Error("another token under the new key")
	}
	if _, err := encrypted(t, store, key1).Load(t.Context(), "a"); err == nil {
		t.Error("the old key still decrypts")
	}
}

func TestARecordThatCannotBeReadIsNamedAndNotOverwritten(t *testing.T) {
	files, err := filestore.New(filepath.Join(t.TempDir(), "sessions"))
	if err != nil {
		t.Fatal(err)
	}
	fc := fincodetest.New(fincodetest.Config{})
	logIn(t, newSessions(t, fc, withStore(encrypted(t, files, key1))), "ada")
	clear := &fincodeauth.Record{Version: "1", Token: &oauth2.Token{AccessToken: "t", RefreshToken: "r"}}
	if err := files.Save(t.Context(), "clear", clear, ""); err != nil {
		t.Fatal(err)
	}
	moved := record(t, files, "ada")
	if err := files.Save(t.Context(), "moved", moved, ""); err != nil {
		t.Fatal(err)
	}
	if err := files.Save(t.Context(), "garbled", clear, ""); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(files.Path("garbled"), []byte(`{"version": "1", "token`), 0o600); err != nil {
		t.Fatal(err)
	}

	for key, store := range map[string]fincodeauth.Store{
		"ada":     encrypted(t, files, key2), // another key
		"clear":   encrypted(t, files, key1), // saved without Encrypt
		"moved":   encrypted(t, files, key1), // another session's record
		"garbled": files,
	} {
		t.Run(key, func(t *testing.T) {
			before, err := os.ReadFile(files.Path(key))
			if err != nil {
				t.Fatal(err)
			}
			sessions := newSessions(t, fc, withStore(store))
			for call, err := range map[string]error{
				"Login":  sessions.Login(t.Context(), key, credentials),
				"Token":  func() error { _, err := sessions.TokenSource(key).Token(); return err }(),
				"Logout": sessions.Logout(t.Context(), key),
			} {
				if err == nil || errors.Is(err, fincodeauth.ErrLoginRequired) || !strings.Contains(err.Error(), key) || !strings.Contains(err.Error(), files.Path(key)) {
					t.Errorf("%s: error %v, want one that names the key and the file", call, err)
				}
			}
			after, err := os.ReadFile(files.Path(key))
			if err != nil || !bytes.Equal(before, after) {
				t.Errorf("the record was overwritten (%v)", err)
			}
		})
	}
}

func TestARecordWithoutAVersionIsReportedAtOnce(t *testing.T) {
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
				t.Errorf("%s: error %v after %v, want one that says what is wrong, at once", call, err, waited)
			}
		}
		wantCalls(t, fc, 0, 0)
	})
}

func TestASlowSaveOfOneKeyHoldsBackNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang := make(chan struct{})
		var armed atomic.Bool
		store := fincodeauth.LocalStore(
			func(context.Context, string) (*oauth2.Token, error) { return nil, nil },
			func(ctx context.Context, key string, tok *oauth2.Token) error {
				if armed.Load() && key == "a" {
					<-hang
				}
				return nil
			})
		for n := range 300 {
			if err := store.Save(t.Context(), fmt.Sprint(n), &fincodeauth.Record{Version: "v", Token: &oauth2.Token{AccessToken: "t"}}, ""); err != nil {
				t.Fatal(err)
			}
		}
		armed.Store(true)
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
		close(hang)
		if blocked > 0 {
			t.Errorf("%d of 300 other keys blocked by one slow save", blocked)
		}
	})
}
