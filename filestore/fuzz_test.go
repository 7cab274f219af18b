package filestore

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/fincodeauth/fincodeauth"
)

// A person, a backup or another program may have written anything into the folder.

func FuzzFile(f *testing.F) {
	for _, content := range []string{
		``, ` `, `{`, `{}`, `null`, `[]`, `"v1"`, `secret`, tombstone, `deleted`, "deleted\r\n", "\xef\xbb\xbf{\"version\":\"v1\"}", "\x00\x00\x00\x00",
		`{"version":"v1"}`, `{"version":""}`, `{"version":1}`, `{"version":"v1","token":null}`, `{"version":"v1","token":{}}`, `{"version":"v1","token":"secret"}`,
		`{"version":"v1","token":{"access_token":"secret","token_type":"Bearer","refresh_token":"secret","expiry":"2000-01-01T01:00:00.5+02:00","expires_in":3600}}`,
		`{"version":"v1","token":{"access_token":"secret","expiry":"yesterday"}}`, `{"version":"v1","token":{"expiry":"0000-01-01T00:00:00Z"}}`,
		`{"version":"v1","refresh_started":"2000-01-01T00:00:00Z"}`, `{"version":"v1","ended":"logged out","other":{"a":[1]}}`,
		`{"version":"v1"}{"version":"v2"}`, `{"version":"v1"}` + "\n", `{"version":"v1","version":"v2"}`, `{"VERSION":"v1"}`, "{\"version\":\"\xff\"}",
		`{"version":"v1","token":` + strings.Repeat(`[`, 20000), `{"version":"v1","tok`,
	} {
		f.Add([]byte(content))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		s := newStore(t)
		save(t, s, "v0", "")
		path := s.Path(key)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		rec := new(fincodeauth.Record)
		switch err := json.Unmarshal(content, rec); {
		case string(content) == tombstone:
			checkGone(t, s)
		case err != nil || rec.Version == "":
			checkDamaged(t, s, path, content)
		default:
			checkRead(t, s, rec)
		}
	})
}

// checkGone checks that a tombstone is not a record, and that the next login
// begins a session.
func checkGone(t *testing.T, s *Store) {
	wantNone(t, s)
	wantConflict(t, s, "w1", "v0")
	save(t, s, "w1", "")
	want(t, s, "w1")
}

// checkDamaged checks that the errors name a file that is not a record, and that
// only Delete removes it.
func checkDamaged(t *testing.T, s *Store, path string, content []byte) {
	_, err := s.Load(t.Context(), key)
	wantDamaged(t, "load", path, err)
	for _, prev := range []string{"", "v0", "v1"} {
		wantDamaged(t, "save", path, s.Save(t.Context(), key, record("w1"), prev))
	}
	s = open(t, s.dir) // must not remove it
	if data, err := os.ReadFile(path); err != nil || !bytes.Equal(data, content) {
		t.Errorf("the file holds %q (%v), want it unchanged", data, err)
	}
	if err := s.Delete(t.Context(), key); err != nil {
		t.Error(err)
	}
	wantEmpty(t, s.dir)
}

// wantDamaged expects the error that names the file, says what to do, and shows
// nothing of the file's content.
func wantDamaged(t *testing.T, call, path string, err error) {
	t.Helper()
	want := fmt.Sprintf("filestore: %s %q: %s: the record is damaged: restore the file, or call Sessions.Forget, then log in again", call, key, path)
	if err == nil || err.Error() != want {
		t.Errorf("%s = %v, want %s", call, err, want)
	}
}

// checkRead checks that Load returns the record of the file's JSON, and that only
// a Save that knows its version replaces it.
func checkRead(t *testing.T, s *Store, rec *fincodeauth.Record) {
	for range 2 {
		if got, err := s.Load(t.Context(), key); err != nil || !reflect.DeepEqual(got, rec) {
			t.Errorf("Load = %v, %v; want %v", got, err, rec)
		}
		wantConflict(t, s, "w1", rec.Version+"+")
		wantConflict(t, s, "w1", "")
		s = open(t, s.dir)
	}
	save(t, s, "w1", rec.Version)
	want(t, s, "w1")
}

// ours reports whether the store makes folders with this prefix.
var ours = regexp.MustCompile(`^fincodeauth-(new|old)-`).MatchString

func FuzzForeignName(f *testing.F) {
	for _, name := range []string{
		"notes.txt", "a", ".", "..", "", "k-", "k-a", "k-A", "k-alice@example.com", "k-alice@example.com-2", "k-photos", "h-", "h-photos",
		"new-", "new-1", "new-1-link", "new-photos", "old-", "old-photos", "old-new-1", ".DS_Store", "a.draft", "1.draft", "a/b", "a\x00", "\xff", "\n",
		"fincodeauth-old-photos", "fincodeauth-newer",
		"0000000001-G.json", "0000000002-G.json", "0000000000-G.json", "1-G.json", "00000000002-G.json", "0000000002-.json", "0000000002-G.JSON",
		"0000000002-G.json.json", "18446744073709551614-G.json", "18446744073709551615-G.json", "18446744073709551616-G.json", "-1-G.json", "+000000001-G.json",
		strings.Repeat("a", 255), strings.Repeat("9", 100) + "-G.json",
	} {
		f.Add(name, []byte(`{"version":"v9"}`))
	}
	f.Add("0000000002-G.json", []byte("photo"))
	f.Fuzz(func(t *testing.T, name string, content []byte) {
		if name == "" || name == "." || name == ".." || len(name) > 255 || strings.ContainsAny(name, "/\x00") {
			return // no file has such a name
		}
		checkBeside(t, name, content)
		checkWithin(t, name, content)
	})
}

// checkBeside checks that the store leaves a folder of another program alone that
// is beside the folders of the sessions.
func checkBeside(t *testing.T, name string, content []byte) {
	s := newStore(t)
	save(t, s, "v1", "")
	theirs := filepath.Join(s.dir, name)
	if theirs == string(s.folder(key)) {
		return
	}
	path := filepath.Join(theirs, "photo")
	if err := os.Mkdir(theirs, 0o700); err != nil {
		t.Skip(err)
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	long := time.Now().Add(-2 * abandonedAfter)
	if err := os.Chtimes(theirs, long, long); err != nil {
		t.Fatal(err)
	}
	s = open(t, s.dir)
	want(t, s, "v1")
	if err := s.Delete(t.Context(), key); err != nil {
		t.Error(err)
	}
	if data, err := os.ReadFile(path); !ours(name) && (err != nil || !bytes.Equal(data, content)) {
		t.Errorf("%s holds %q (%v), want it unchanged", path, data, err)
	}
}

// checkWithin puts a file of another program into a session's folder. The store
// may remove it. A Save that succeeds must still have its effect.
func checkWithin(t *testing.T, name string, content []byte) {
	s := newStore(t)
	save(t, s, "v1", "")
	if err := os.WriteFile(filepath.Join(string(s.folder(key)), name), content, 0o600); err != nil {
		t.Skip(err)
	}
	s = open(t, s.dir)
	rec, err := s.Load(t.Context(), key)
	if err != nil {
		return // it is the highest file and not a record: FuzzFile tests that
	}
	for range 2 {
		version := rec.Version
		err := s.Save(t.Context(), key, record(version+"+"), version)
		if err == nil {
			version += "+"
		}
		if rec, _ = s.Load(t.Context(), key); rec == nil || rec.Version != version {
			t.Fatalf("after Save = %v there is %v, want %s", err, rec, version)
		}
	}
}

func FuzzKey(f *testing.F) {
	for _, pair := range [][2]string{
		{"a", "A"}, {"", "k-"}, {"a", "a "}, {".", ".."}, {"../a", "a"}, {"/", `\`}, {"a/../b", "b"}, {"con", "CON"}, {"ä", "a\u0308"}, {"ß", "ss"},
		{"=61", "a"}, {"a=", "a"}, {"k-a", "a"}, {"\xff", "\ufffd"}, {"\x00", ""}, {"\u212a", "k"}, {"*", "?"}, {"new-1", "old-1"},
		{strings.Repeat("k", 198), strings.Repeat("k", 199)}, {strings.Repeat("k", 300), strings.Repeat("K", 300)},
		{strings.TrimPrefix(folderName(strings.Repeat("k", 300)), hashPrefix), strings.Repeat("k", 300)},
	} {
		f.Add(pair[0], pair[1])
	}
	f.Fuzz(func(t *testing.T, one, two string) {
		s := newStore(t)
		for i, key := range []string{one, two} {
			name := folderName(key)
			if !plainName(name) || filepath.Join(s.dir, name) != s.Path(key) || !isFolderName(name) {
				t.Errorf("%q has the folder %q", key, name)
			}
			if back, ok := keyOf(name); ok != strings.HasPrefix(name, keyPrefix) || ok && back != key {
				t.Errorf("%q has the folder %q, which says %q, %t", key, name, back, ok)
			}
			if i == 1 && strings.EqualFold(folderName(one), name) != (one == two) {
				t.Errorf("%q and %q share the folder %s", one, two, name)
			}
		}
		saveUnder(t, s, one)
		if one == two {
			return
		}
		if _, err := s.Load(t.Context(), two); !errors.Is(err, fincodeauth.ErrNotFound) {
			t.Errorf("Load(%q) = %v after a Save of %q", two, err, one)
		}
		saveUnder(t, s, two)
		if err := s.Delete(t.Context(), one); err != nil {
			t.Error(err)
		}
		s = open(t, s.dir)
		if _, err := s.Load(t.Context(), two); err != nil {
			t.Errorf("Load(%q) = %v after a Delete of %q", two, err, one)
		}
	})
}

var plainName = regexp.MustCompile(`^[kh]-[a-z0-9=@_-]{0,198}$`).MatchString

// saveUnder saves a record under key, and expects Load to return it.
func saveUnder(t *testing.T, s *Store, key string) {
	t.Helper()
	if err := s.Save(t.Context(), key, record("v1 of "+key), ""); err != nil {
		t.Fatal(err)
	}
	if rec, err := s.Load(t.Context(), key); err != nil || !strings.HasPrefix(rec.Version, "v1 of ") {
		t.Errorf("Load(%q) = %v, %v", key, rec, err)
	}
}
