package etcdstore_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/fincodeauth/fincodeauth"
)

// Another program may have written anything into etcd, and a key may be any string.

// A record that Load returns must be one that a Save can replace, and no other record
// may be replaced by that Save.
func FuzzRecord(f *testing.F) {
	for _, value := range []string{
		``, `{`, `{}`, `null`, `[]`, `secret`, `{"version":""}`, `{"version":1}`, `{"version":"v1"}`, `{"version": "v1"}`, `{"version":"v1","token":null}`,
		`{"version":"v1","token":{"access_token":"secret","refresh_token":"secret","expiry":"2000-01-01T01:00:00.5+02:00","expires_in":3600}}`,
		`{"version":"v1","token":{"expiry":"secret"}}`, `{"version":"v1","ended":"logged out"}`, "{\"version\":\"\xff\"}", `{"version":"v1","tok`,
		`{"version":"v1"} {}`, `{"version":"v1","version":"v2"}`, `{"version":"\u0076"}`, `{"version":"\u003c"}`, `{"version":"v1","VERSION":"v2"}`,
		`{"version":"v1","token":` + strings.Repeat(`[`, 20000),
	} {
		f.Add(value, "v1")
	}
	held := new(fake)
	store := held.store(f)
	f.Fuzz(func(t *testing.T, value, prev string) {
		held.calls = nil
		held.put("fincode/alice", value)
		want := new(fincodeauth.Record)
		isRecord := json.Unmarshal([]byte(value), want) == nil && want.Version != ""
		got, err := store.Load(t.Context(), "alice")
		if err == nil && (!isRecord || !reflect.DeepEqual(got, want)) {
			t.Errorf("Load = %v, want %v, if it is a record: %t", got, want, isRecord)
		}
		if text := `etcdstore: load "alice": its record is damaged: restore it, or call Sessions.Forget, then log in again`; err != nil && err.Error() != text {
			t.Errorf("Load = %v, want %s", err, text)
		}
		if err == nil && prev != got.Version && jsonOf(t, prev) != jsonOf(t, got.Version) {
			wantConflict(t, store.Save(t.Context(), "alice", &fincodeauth.Record{Version: got.Version + "."}, prev))
		}
		next := &fincodeauth.Record{Version: want.Version + ".next"}
		saveErr := store.Save(t.Context(), "alice", next, want.Version)
		if err == nil && saveErr != nil {
			t.Errorf("Load returned version %q, and a Save over it %v", got.Version, saveErr)
		}
	})
}

func wantConflict(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, fincodeauth.ErrConflict) {
		t.Errorf("Save = %v, want ErrConflict", err)
	}
}

func jsonOf(t *testing.T, text string) string {
	t.Helper()
	data, err := json.Marshal(text)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// Every record that Save writes can be loaded and replaced, whatever its version. JSON
// cannot hold invalid UTF-8, and no version has that.
func FuzzVersion(f *testing.F) {
	for _, version := range []string{"v1", `"`, `\`, "<", "\ufffd", "\u2028", "ä", "\x00", "{", `v1"}`} {
		f.Add(version, "v2")
	}
	f.Fuzz(func(t *testing.T, first, second string) {
		if first == "" || second == "" || !utf8.ValidString(first) || !utf8.ValidString(second) {
			return
		}
		store := new(fake).store(t)
		if err := store.Save(t.Context(), "alice", &fincodeauth.Record{Version: first}, ""); err != nil {
			t.Fatal(err)
		}
		if rec, err := store.Load(t.Context(), "alice"); err != nil || rec.Version != first {
			t.Errorf("Load = %v, %v; want version %q", rec, err, first)
		}
		if err := store.Save(t.Context(), "alice", &fincodeauth.Record{Version: second}, first); err != nil {
			t.Errorf("Save of %q over %q = %v", second, first, err)
		}
	})
}

// Every key is listed as it is, and no two keys share a name. A name that another
// program has written is listed as a key only if that is its name.
func FuzzKeys(f *testing.F) {
	for _, key := range []string{"", "\x00", "\xff", "a b", "a/b", "%2F", "%2f", "%", "\r\n", "ä", "..", "+"} {
		f.Add(key)
	}
	f.Fuzz(func(t *testing.T, key string) {
		held := new(fake)
		store := held.store(t)
		if err := store.Save(t.Context(), key, &fincodeauth.Record{Version: "v1"}, ""); err != nil {
			t.Fatal(err)
		}
		if keys, errs := list(t, store); len(errs) > 0 || !slices.Equal(keys, []string{key}) {
			t.Errorf("Keys yielded %q and %v, want %q", keys, errs, key)
		}
		others := new(fake)
		others.put("fincode/"+key, "")
		keys, errs := list(t, others.store(t))
		for _, listed := range keys {
			if url.PathEscape(listed) != key {
				t.Errorf("Keys yielded %q for the name %q", listed, key)
			}
		}
		if strings.Contains(key, "/") != (len(keys)+len(errs) == 0) {
			t.Errorf("Keys yielded %q and %v for the name %q", keys, errs, key)
		}
		for _, err := range errs {
			if !strings.Contains(err.Error(), fmt.Sprintf("%q", "fincode/"+key)) {
				t.Errorf("the error does not name %q: %v", key, err)
			}
		}
	})
}
