//go:build unix

package filestore

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFoldersAndFilesAreTheOwnersAlone(t *testing.T) {
	s := newStore(t)
	save(t, s, "v1", "")
	for _, version := range []string{"v2", "v3"} { // the first file is made in another way than the others
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

func TestNewRefusesAFolderInWhichOthersCanWrite(t *testing.T) {
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
			t.Errorf("New of a folder with mode %v = %v, want an error that says chmod 700: %t", mode, err, refused)
		}
	}
}
