//go:build unix

package filestore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fincodeauth/fincodeauth"
)

func TestOnlyTheOwnerCanUseFoldersAndFiles(t *testing.T) {
	s := newStore(t)
	save(t, s, "v1", "")
	for _, version := range []string{"v2", "v3"} { // create makes the first file, and publish makes the others
		err := filepath.WalkDir(s.dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := e.Info()
			if err == nil && info.Mode().Perm()&0o077 != 0 {
				t.Errorf("%s has mode %v", path, info.Mode())
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		save(t, s, version, "v"+string(version[1]-1))
	}
}

func TestNewMakesAnEmptyFolderPrivate(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o775); err != nil {
		t.Fatal(err)
	}
	if _, err := New(dir); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode %v, error %v; want 0700", info.Mode(), err)
	}
}

func TestNewRefusesAFolderThatOthersCanWriteTo(t *testing.T) {
	for mode, refused := range map[fs.FileMode]bool{0o775: true, 0o707: true, 0o755: false, 0o700: false} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "app.log"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
		_, err := New(dir)
		if (err != nil) != refused || refused && !strings.Contains(err.Error(), "chmod 700") {
			t.Errorf("New of a folder with mode %v = %v, want an error that says chmod 700: %t", mode.Perm(), err, refused)
		}
	}
}

// damagedPlaces put something else in the place of a session's folder or of its
// record.
var damagedPlaces = map[string]struct {
	damage func(t *testing.T, s *Store) (path string) // of the damage
	want   string
}{
	"dangling link as the session's folder": {func(t *testing.T, s *Store) string {
		return replaceByLink(t, string(s.folder(key)))
	}, "is a symbolic link that does not lead to a folder"},
	"file as the session's folder": {func(t *testing.T, s *Store) string {
		path := string(s.folder(key))
		if err := errors.Join(os.RemoveAll(path), os.WriteFile(path, []byte("secret"), 0o600)); err != nil {
			t.Fatal(err)
		}
		return path
	}, "is not a folder"},
	"link to a file as the session's folder": {func(t *testing.T, s *Store) string {
		path, target := string(s.folder(key)), filepath.Join(t.TempDir(), "file")
		if err := errors.Join(os.RemoveAll(path), os.WriteFile(target, []byte("secret"), 0o600), os.Symlink(target, path)); err != nil {
			t.Fatal(err)
		}
		return path
	}, "is a symbolic link that does not lead to a folder"},
	"dangling link as the record": {func(t *testing.T, s *Store) string {
		return replaceByLink(t, s.Path(key))
	}, "the record is damaged"},
	"link to itself as the record": {func(t *testing.T, s *Store) string {
		path := s.Path(key)
		if err := errors.Join(os.Remove(path), os.Symlink(path, path)); err != nil {
			t.Fatal(err)
		}
		return path
	}, "the record is damaged"},
	"folder as the record": {func(t *testing.T, s *Store) string {
		path := s.Path(key)
		if err := errors.Join(os.Remove(path), os.Mkdir(path, 0o700)); err != nil {
			t.Fatal(err)
		}
		return path
	}, "the record is damaged"},
}

// replaceByLink puts a symbolic link to nothing in the place of path.
func replaceByLink(t *testing.T, path string) string {
	t.Helper()
	if err := errors.Join(os.RemoveAll(path), os.Symlink(filepath.Join(t.TempDir(), "nothing"), path)); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestDamagedPlaceIsReportedAndDeleteRemovesIt(t *testing.T) {
	for name, c := range damagedPlaces {
		t.Run(name, func(t *testing.T) {
			s := newStore(t)
			save(t, s, "v1", "")
			path := c.damage(t, s)
			// A call that never ended would now return the context's error.
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			_, loadErr := s.Load(ctx, key)
			for call, err := range map[string]error{
				"Load":           loadErr,
				"Save over none": s.Save(ctx, key, record("v2"), ""),
				"Save over v1":   s.Save(ctx, key, record("v2"), "v1"),
			} {
				if err == nil || errors.Is(err, fincodeauth.ErrNotFound) || errors.Is(err, fincodeauth.ErrConflict) {
					t.Errorf("%s = %v, want an error that says what is damaged", call, err)
					continue
				}
				for _, part := range []string{key, path, c.want, "call Sessions.Forget, then log in again"} {
					if !strings.Contains(err.Error(), part) {
						t.Errorf("%s: the error %q lacks %q", call, err, part)
					}
				}
			}
			s = open(t, s.dir) // New must not remove it
			if _, err := os.Lstat(path); err != nil {
				t.Errorf("New removed it: %v", err)
			}
			if err := s.Delete(ctx, key); err != nil {
				t.Errorf("Delete = %v", err)
			}
			wantNone(t, s)
			wantEmpty(t, s.dir)
			save(t, s, "v2", "")
			want(t, s, "v2")
		})
	}
}

// A missing folder may come back with its sessions, for example when its disk is
// mounted. So its absence says nothing about a session.
func TestMissingStoreFolderIsReported(t *testing.T) {
	for name, remove := range map[string]func(t *testing.T, dir string){
		"dangling link": func(t *testing.T, dir string) { replaceByLink(t, dir) },
		"gone": func(t *testing.T, dir string) {
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t)
			save(t, s, "v1", "")
			remove(t, s.dir)
			_, loadErr := s.Load(t.Context(), key)
			for call, err := range map[string]error{
				"Load":           loadErr,
				"Save over none": s.Save(t.Context(), key, record("v2"), ""),
				"Save over v1":   s.Save(t.Context(), key, record("v2"), "v1"),
				"Delete":         s.Delete(t.Context(), key),
			} {
				want := "the store's folder " + s.dir + " is missing: restore it with its content"
				if err == nil || !strings.Contains(err.Error(), want) || errors.Is(err, fincodeauth.ErrNotFound) || errors.Is(err, fincodeauth.ErrConflict) {
					t.Errorf("%s = %v, want %q", call, err, want)
				}
			}
		})
	}
}

func TestNewRefusesADanglingLink(t *testing.T) {
	dir := replaceByLink(t, filepath.Join(t.TempDir(), "s"))
	target, err := os.Readlink(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("filestore: %s is a symbolic link to %s, which does not exist: make that folder, or remove the link", dir, target)
	if _, err := New(dir); err == nil || err.Error() != want {
		t.Errorf("New = %v, want %s", err, want)
	}
}

// The owner of a folder can remove a file in it without being able to read it.
// Root can read every file.
func TestDeleteRemovesARecordThatItMayNotRead(t *testing.T) {
	s := newStore(t)
	save(t, s, "v1", "")
	path := s.Path(key)
	if err := os.Chmod(path, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Load(t.Context(), key); os.Geteuid() != 0 && (err == nil || !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), path)) {
		t.Errorf("Load = %v, want an error that names %s", err, path)
	}
	if err := s.Delete(t.Context(), key); err != nil {
		t.Errorf("Delete = %v", err)
	}
	wantEmpty(t, s.dir)
}

// Root may remove everything.
func TestDeleteThatCannotRemoveAFolderSaysSo(t *testing.T) {
	s := newStore(t)
	save(t, s, "v1", "")
	path := makeForeign(t, s)
	if err := os.Chmod(path, 0o500); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Chmod(path, 0o700) }) // for the removal of t.TempDir
	err := s.Delete(t.Context(), key)
	if os.Geteuid() != 0 {
		if err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "remove it, then try again") {
			t.Errorf("Delete = %v, want an error that names %s and says what to do", err, path)
		}
		for _, file := range filesIn(t, s.dir) {
			if data, _ := os.ReadFile(file); strings.Contains(string(data), "access-v1") {
				t.Errorf("%s still holds the tokens", file)
			}
		}
		if err := os.Chmod(path, 0o700); err != nil {
			t.Fatal(err)
		}
		err = s.Delete(t.Context(), key)
	}
	if err != nil {
		t.Errorf("Delete = %v", err)
	}
	wantNone(t, s)
	wantEmpty(t, s.dir)
}
