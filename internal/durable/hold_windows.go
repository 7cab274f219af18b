package durable

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"syscall"
)

const errorSharingViolation syscall.Errno = 32

// Hold opens the file at path. Until that is closed or the process ends, Read returns
// ErrHeld. The file may be renamed and removed meanwhile.
func Hold(path string) (io.Closer, error) {
	name, err := syscall.UTF16PtrFromString(path)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	h, err := syscall.CreateFile(name, syscall.GENERIC_READ, syscall.FILE_SHARE_DELETE, nil, syscall.OPEN_EXISTING, syscall.FILE_ATTRIBUTE_NORMAL, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(h), path), nil
}

// Read returns the content of the file at path, or ErrHeld.
func Read(path string) ([]byte, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, errorSharingViolation) {
		return nil, ErrHeld
	}
	return data, err
}
