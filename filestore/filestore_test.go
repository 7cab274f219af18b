package filestore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/oauth2"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/storetest"
)

func TestStoreKeepsTheContract(t *testing.T) {
	storetest.Run(t, func(t *testing.T) fincodeauth.Store { return open(t, filepath.Join(t.TempDir(), "s")) })
}

// Each call goes to the next of three Stores, as if three processes used the
// folder.
func TestStoresOfOneFolderActAsOne(t *testing.T) {
	storetest.Run(t, func(t *testing.T) fincodeauth.Store {
		dir := filepath.Join(t.TempDir(), "s")
		return &turns{stores: []*Store{open(t, dir), open(t, dir), open(t, dir)}}
	})
}

type turns struct {
	stores []*Store
	calls  atomic.Uint64
}

func (r *turns) next() *Store { return r.stores[r.calls.Add(1)%uint64(len(r.stores))] }

func (r *turns) Load(ctx context.Context, key string) (*fincodeauth.Record, error) {
	return r.next().Load(ctx, key)
}

func (r *turns) Save(ctx context.Context, key string, rec *fincodeauth.Record, prev string) error {
	return r.next().Save(ctx, key, rec, prev)
}

func (r *turns) Delete(ctx context.Context, key string) error { return r.next().Delete(ctx, key) }

func TestRecordSurvivesReopen(t *testing.T) {
	s := newStore(t)
	save(t, s, "v1", "")
	want(t, open(t, s.dir), "v1")
}

func TestSessionHasOneFileAndADeletedSessionNone(t *testing.T) {
	s := newStore(t)
	prev := ""
	for i := range 5 {
		version := fmt.Sprintf("v%d", i)
		save(t, s, version, prev)
		if files := filesIn(t, s.dir); len(files) != 1 {
			t.Errorf("after %d saves there are %q", i+1, files)
		}
		prev = version
	}
	if err := s.Delete(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	wantEmpty(t, s.dir)
}

func TestDeleteOfNothingMakesNothing(t *testing.T) {
	s := newStore(t)
	if err := s.Delete(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	wantEmpty(t, s.dir)
}

func TestPathNamesTheFileThatHoldsTheRecord(t *testing.T) {
	s := newStore(t)
	folder := s.Path(key)
	if filepath.Dir(folder) != s.dir {
		t.Errorf("Path without a record = %s, want a folder in %s", folder, s.dir)
	}
	save(t, s, "v1", "")
	path := s.Path(key)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if filepath.Dir(path) != folder || !strings.Contains(string(data), `"v1"`) {
		t.Errorf("Path = %s, want the file in %s that holds the record", path, folder)
	}
}

func TestStorePrintsItsFolderOnly(t *testing.T) {
	s := newStore(t)
	want := "filestore(" + s.dir + ")"
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		if got := fmt.Sprintf(verb, s); got != want {
			t.Errorf("%s prints %s, want %s", verb, got, want)
		}
	}
}

func TestUnreadableFileIsReportedAndKept(t *testing.T) {
	for name, content := range map[string]string{
		"empty": "", "cut off": `{"version":"v1","tok`, "other JSON": `{}`, "no JSON": "secret",
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t)
			save(t, s, "v1", "")
			path := s.Path(key)
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			_, loadErr := s.Load(t.Context(), key)
			for call, err := range map[string]error{
				"Load":           loadErr,
				"Save over v1":   s.Save(t.Context(), key, record("v2"), "v1"),
				"Save over none": s.Save(t.Context(), key, record("v2"), ""),
			} {
				if err == nil || errors.Is(err, fincodeauth.ErrNotFound) || errors.Is(err, fincodeauth.ErrConflict) {
					t.Errorf("%s = %v, want an error that says what is damaged", call, err)
					continue
				}
				for _, part := range []string{key, path, "restore the file, or call Sessions.Forget, then log in again"} {
					if !strings.Contains(err.Error(), part) {
						t.Errorf("%s: the error %q lacks %q", call, err, part)
					}
				}
				if strings.Contains(err.Error(), "secret") {
					t.Errorf("%s: the error %q shows the content", call, err)
				}
			}
			open(t, s.dir) // must not remove it
			if data, err := os.ReadFile(path); err != nil || string(data) != content {
				t.Errorf("the file holds %q (%v), want it unchanged", data, err)
			}
			if err := s.Delete(t.Context(), key); err != nil {
				t.Errorf("Delete = %v", err)
			}
			wantNone(t, s)
			save(t, s, "v2", "")
			want(t, s, "v2")
		})
	}
}

// A NAS, for example, makes a folder @eaDir in each folder.
func TestFolderInASessionsFolderKeepsNoTokensOnDisk(t *testing.T) {
	for name, damage := range map[string]func(t *testing.T, s *Store){
		"record": func(*testing.T, *Store) {},
		"damaged record": func(t *testing.T, s *Store) {
			if err := os.WriteFile(s.Path(key), []byte("{"), 0o600); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t)
			save(t, s, "v1", "")
			makeForeign(t, s)
			save(t, s, "v2", "v1")
			want(t, s, "v2")
			if files := filesIn(t, s.dir); len(files) != 2 {
				t.Errorf("after the next Save there are %q, want the record and the other program's file", files)
			}
			damage(t, s)
			if err := s.Delete(t.Context(), key); err != nil {
				t.Errorf("Delete = %v", err)
			}
			wantNone(t, s)
			wantEmpty(t, s.dir)
			save(t, s, "v3", "")
			want(t, s, "v3")
		})
	}
}

// makeForeign makes a folder with a file in it, in the session's folder.
func makeForeign(t *testing.T, s *Store) (path string) {
	t.Helper()
	path = filepath.Join(string(s.folder(key)), "@eaDir")
	if err := errors.Join(os.MkdirAll(path, 0o700), os.WriteFile(filepath.Join(path, "file"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	return path
}

// A person may restore a backup of an earlier session beside the file of this one.
func TestNoRecordOfAnotherGenerationComesBack(t *testing.T) {
	for name, restored := range map[string]file{
		"lower number":                    {3, "G"},
		"higher number":                   {9, "G"},
		"same number, earlier generation": {7, "!"},
		"same number, later generation":   {7, "a"},
	} {
		for _, content := range []string{"garbage", string(data(t, "v7")), tombstone} {
			s := newStore(t)
			save(t, s, "v1", "")
			f := s.folder(key)
			now := file{7, highest(t, f).generation}
			if err := errors.Join(
				os.Remove(s.Path(key)),
				os.WriteFile(f.path(now), []byte(content), 0o600),
				os.WriteFile(f.path(restored), data(t, "v3"), 0o600),
			); err != nil {
				t.Fatal(err)
			}
			if err := s.Delete(t.Context(), key); err != nil {
				t.Errorf("%s, beside %q: Delete = %v", name, content, err)
			}
			wantNone(t, s)
			wantEmpty(t, s.dir)
			save(t, s, "w1", "")
			want(t, s, "w1")
		}
	}
}

func TestSaveRemovesAnOlderFileOfAnotherGeneration(t *testing.T) {
	s := newStore(t)
	save(t, s, "v1", "")
	save(t, s, "v2", "v1")
	f := s.folder(key)
	if err := os.WriteFile(f.path(file{1, "G"}), data(t, "old"), 0o600); err != nil {
		t.Fatal(err)
	}
	save(t, s, "v3", "v2")
	want(t, s, "v3")
	if files := filesIn(t, s.dir); len(files) != 1 {
		t.Errorf("after the next Save there are %q", files)
	}
}

func TestSaveRefusesARecordWithoutVersion(t *testing.T) {
	s := newStore(t)
	if err := s.Save(t.Context(), key, record(""), ""); err == nil {
		t.Error("Save = nil")
	}
	wantNone(t, s)
}

func TestNewRefusesAFolderItCannotUse(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for dir, part := range map[string]string{
		"":                         "no folder given",
		file:                       "is a file",
		filepath.Join(file, "sub"): "",
	} {
		if _, err := New(dir); err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("New(%q) = %v, want an error with %q", dir, err, part)
		}
	}
}

func TestStoreThatNewDidNotMakeReturnsErrors(t *testing.T) {
	t.Chdir(t.TempDir()) // where a zero Store would put its files
	for name, s := range map[string]*Store{"nil": nil, "zero": {}} {
		_, loadErr := s.Load(t.Context(), key)
		for call, err := range map[string]error{
			"Load":   loadErr,
			"Save":   s.Save(t.Context(), key, record("v1"), ""),
			"Delete": s.Delete(t.Context(), key),
		} {
			if want := "the Store was not made by filestore.New: call that"; err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s of a %s Store = %v, want %q", call, name, err, want)
			}
		}
		if path := s.Path(key); path != "" {
			t.Errorf("Path of a %s Store = %s", name, path)
		}
		if got := fmt.Sprint(s, s.String()); strings.Contains(got, "PANIC") {
			t.Errorf("a %s Store prints %s", name, got)
		}
	}
	wantEmpty(t, ".")
}

func TestFolderNamesAreSafeAndDistinct(t *testing.T) {
	keys := []string{
		"", "a", "A", "a.", "a ", ".", "..", "../a", "/", `\`, "con", "CON", "nul.txt", "a:b", "ä", "a\u0308", "\x00", "\xff",
		"=61", "a=", "k-a", strings.Repeat("k", 198), strings.Repeat("k", 199), strings.Repeat("k", 300),
	}
	keys = append(keys, strings.TrimPrefix(folderName(strings.Repeat("k", 300)), hashPrefix))
	seen := make(map[string]string)
	for _, key := range keys {
		name := folderName(key)
		if other, ok := seen[name]; ok {
			t.Errorf("%q and %q share the folder %s", key, other, name)
		}
		seen[name] = key
		if len(name) > maxName || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-_@=") != "" {
			t.Errorf("%q has the folder %q", key, name)
		}
	}
}

func BenchmarkClaimAndSave(b *testing.B) {
	s, err := New(filepath.Join(b.TempDir(), "s"))
	if err != nil {
		b.Fatal(err)
	}
	prev := ""
	for i := 0; b.Loop(); i++ {
		for _, step := range []string{"claim", "token"} {
			version := fmt.Sprint(step, i)
			if err := s.Save(b.Context(), key, record(version), prev); err != nil {
				b.Fatal(err)
			}
			prev = version
		}
	}
}

const key = "alice@example.com"

func open(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := New(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func newStore(t *testing.T) *Store {
	t.Helper()
	return open(t, filepath.Join(t.TempDir(), "s"))
}

func record(version string) *fincodeauth.Record {
	return &fincodeauth.Record{
		Version: version,
		Token: &oauth2.Token{
			AccessToken:  "access-" + version,
			RefreshToken: "refresh-" + version,
			Expiry:       time.Now().Add(time.Hour),
		},
	}
}

func save(t *testing.T, s *Store, version, prev string) {
	t.Helper()
	if err := s.Save(t.Context(), key, record(version), prev); err != nil {
		t.Fatalf("Save of %s over %q = %v", version, prev, err)
	}
}

func wantConflict(t *testing.T, s *Store, version, prev string) {
	t.Helper()
	if err := s.Save(t.Context(), key, record(version), prev); !errors.Is(err, fincodeauth.ErrConflict) {
		t.Errorf("Save of %s over %q = %v, want ErrConflict", version, prev, err)
	}
}

func want(t *testing.T, s *Store, version string) {
	t.Helper()
	rec, err := s.Load(t.Context(), key)
	if err != nil || rec.Version != version || rec.Token.AccessToken != "access-"+version {
		t.Errorf("Load = %v, %v; want %s", rec, err, version)
	}
}

func wantNone(t *testing.T, s *Store) {
	t.Helper()
	if rec, err := s.Load(t.Context(), key); !errors.Is(err, fincodeauth.ErrNotFound) {
		t.Errorf("Load = %v, %v; want ErrNotFound", rec, err)
	}
}

// filesIn returns the paths of all files in dir and in its folders.
func filesIn(t *testing.T, dir string) []string {
	t.Helper()
	var files []string
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func wantEmpty(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) > 0 {
		t.Errorf("the store's folder holds %v (%v), want nothing", entries, err)
	}
}
