// Package durable has what filestore and fincodeauth.Journal need of a disk: a private
// folder, and files that survive a power failure.
package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// ErrHeld says that a process holds the file.
var ErrHeld = errors.New("a process holds the file")

// WriteFile writes data to f, durably, and closes f. The name of a new file is durable
// after a SyncDir of its folder.
func WriteFile(f *os.File, data []byte) error {
	_, err := f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// MakeDir makes the folder dir, or makes an existing empty folder private. It refuses a
// folder in which other users could remove or replace sessions.
func MakeDir(dir string) error {
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if target, err := os.Readlink(dir); err == nil {
			return fmt.Errorf("%s is a symbolic link to %s, which does not exist: make that folder, or remove the link", dir, target)
		}
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		return SyncDir(filepath.Dir(dir))
	case err != nil:
		return err
	case !info.IsDir():
		return fmt.Errorf("%s is a file: name a folder", dir)
	}
	entries, err := os.ReadDir(dir)
	switch {
	case err != nil:
		return err
	case len(entries) == 0:
		return os.Chmod(dir, 0o700)
	case writableByOthers(info):
		return fmt.Errorf("%s has mode %04o, so other users can remove the sessions: run chmod 700 on it, or name a new folder inside it",
			dir, info.Mode().Perm())
	}
	return nil
}
