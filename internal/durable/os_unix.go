//go:build unix

package durable

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

// SyncDir makes the names of the files in dir durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	err = d.Sync()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, errors.ErrUnsupported) {
		return nil // the file system makes names durable without it, or cannot
	}
	return err
}

// writableByOthers reports whether another user than the folder's owner can remove
// the folder's files.
func writableByOthers(info fs.FileInfo) bool { return info.Mode().Perm()&0o022 != 0 }
