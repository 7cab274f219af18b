package fincodeauth_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/oauth2"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/filestore"
	"github.com/fincodeauth/fincodeauth/fincodetest"
)

func TestEncryptRefusesBadKeysAndStores(t *testing.T) {
	store := fincodeauth.NewMemoryStore()
	for name, test := range map[string]struct {
		store fincodeauth.Store
		keys  [][]byte
		want  string
	}{
		"no key":         {store, nil, "no key"},
		"16 bytes":       {store, [][]byte{key1[:16]}, "16 bytes"},
		"a short key 2":  {store, [][]byte{key1, key2[:31]}, "key 2 has 31 bytes"},
		"no store":       {nil, [][]byte{key1}, "store is nil"},
		"a nil store":    {(*fincodeauth.MemoryStore)(nil), [][]byte{key1}, "nil *fincodeauth.MemoryStore"},
		"a broken store": {fincodeauth.LocalStore(nil, nil), [][]byte{key1}, "nil function"},
	} {
		if _, err := fincodeauth.Encrypt(test.store, test.keys...); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got error %v, want one that says %q", name, err, test.want)
		}
	}
}

func TestEncryptedTokensAreNotReadableOnDisk(t *testing.T) {
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
			t.Errorf("the file contains %s, want it encrypted: %s", secret, data)
		}
	}
}

func TestReplacingTheEncryptionKeyKeepsSessions(t *testing.T) {
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
		t.Error("got another token with the new key, want the old token")
	}
	if _, err := encrypted(t, store, key1).Load(t.Context(), "a"); err == nil {
		t.Error("the old key still decrypts the record, want an error")
	}
}

func TestUnreadableRecordIsReportedAndNotOverwritten(t *testing.T) {
	files, err := filestore.New(filepath.Join(t.TempDir(), "sessions"))
	if err != nil {
		t.Fatal(err)
	}
	fc := fincodetest.New(fincodetest.Config{})
	logIn(t, newSessions(t, fc, withStore(encrypted(t, files, key1))), "ada")
	plain := &fincodeauth.Record{Version: "1", Token: &oauth2.Token{AccessToken: "t", RefreshToken: "r"}}
	if err := files.Save(t.Context(), "clear", plain, ""); err != nil {
		t.Fatal(err)
	}
	moved := record(t, files, "ada")
	if err := files.Save(t.Context(), "moved", moved, ""); err != nil {
		t.Fatal(err)
	}
	if err := files.Save(t.Context(), "garbled", plain, ""); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(files.Path("garbled"), []byte(`{"version": "1", "token`), 0o600); err != nil {
		t.Fatal(err)
	}

	for key, store := range map[string]fincodeauth.Store{
		"ada":     encrypted(t, files, key2), // encrypted with another key
		"clear":   encrypted(t, files, key1), // saved without Encrypt
		"moved":   encrypted(t, files, key1), // copied from another session
		"garbled": files,                     // truncated
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
				if err == nil || errors.Is(err, fincodeauth.ErrLoginRequired) || !strings.Contains(err.Error(), key) || !strings.Contains(err.Error(), files.Path(key)) || !strings.Contains(err.Error(), "Sessions.Forget") {
					t.Errorf("%s: got error %v, want one that names the key, the file and Sessions.Forget", call, err)
				}
			}
			after, err := os.ReadFile(files.Path(key))
			if err != nil || !bytes.Equal(before, after) {
				t.Errorf("the file has changed, or reading it failed with error %v; want it unchanged", err)
			}

			if err := sessions.Forget(t.Context(), key); err != nil {
				t.Fatal(err)
			}
			logIn(t, sessions, key)
			if status := whoami(t, fc, record(t, store, key).Token); status != http.StatusOK {
				t.Errorf("after Forget and Login, FinCode answers %d to the token, want 200", status)
			}
		})
	}
}

// A process that lacks Encrypt would send the encrypted pair to FinCode, and save
// the end of the session over it.
func TestEncryptedRecordIsNotUsedOrOverwrittenWithoutEncrypt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := fincodeauth.NewMemoryStore()
		right := newSessions(t, fc, withStore(encrypted(t, store, key1)))
		logIn(t, right, "a")
		before := record(t, store, "a")
		wrong := newSessions(t, fc, withStore(store))
		time.Sleep(2 * time.Hour) // the token has expired
		_, tokenErr := wrong.TokenSource("a").Token()
		for call, err := range map[string]error{
			"Token":  tokenErr,
			"Login":  wrong.Login(t.Context(), "a", credentials),
			"Logout": wrong.Logout(t.Context(), "a"),
		} {
			if err == nil || errors.Is(err, fincodeauth.ErrLoginRequired) || !strings.Contains(err.Error(), "wrap the Store with Encrypt") {
				t.Errorf("%s = %v, want an error that asks for Encrypt", call, err)
			}
		}
		if after := record(t, store, "a"); after.Version != before.Version {
			t.Errorf("the record was overwritten: %v", after)
		}
		token(t, right.TokenSource("a"))
		wantCalls(t, fc, 1, 1)
	})
}

// A storeOfAUser has a secret, and no String.
type storeOfAUser struct {
	fincodeauth.Store
	dsn string
}

func TestEncryptedStoreDoesNotPrintTheStoreInside(t *testing.T) {
	inner := &storeOfAUser{fincodeauth.NewMemoryStore(), "postgres://u:hunter2@db"}
	if text := fmt.Sprint(encrypted(t, inner, key1)); strings.Contains(text, "hunter2") {
		t.Errorf("printed %s", text)
	}
}
