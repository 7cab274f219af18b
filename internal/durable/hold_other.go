//go:build !(darwin || dragonfly || freebsd || illumos || linux || netbsd || openbsd || windows)

package durable

import (
	"errors"
	"io"
	"io/fs"
	"os"
)

// Hold returns errors.ErrUnsupported, because this system has no locks that belong to an
// open file.
func Hold(path string) (io.Closer, error) {
	return nil, &fs.PathError{Op: "lock", Path: path, Err: errors.ErrUnsupported}
}

// Read returns the content of the file at path.
func Read(path string) ([]byte, error) { return os.ReadFile(path) }
