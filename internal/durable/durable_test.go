package durable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestHeldFileIsNotRead(t *testing.T) {
	dir := t.TempDir()
	draft, path := filepath.Join(dir, "draft"), filepath.Join(dir, "file")
	if err := os.WriteFile(draft, []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	held, err := Hold(draft)
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(draft, path); err != nil {
		t.Fatal(err)
	}
	if data, err := Read(path); err != ErrHeld {
		t.Errorf("Read of a held file = %q, %v; want ErrHeld", data, err)
	}
	if err := held.Close(); err != nil {
		t.Error(err)
	}
	for range 2 { // readers do not exclude each other
		if data, err := Read(path); err != nil || string(data) != "content" {
			t.Errorf("Read = %q, %v; want the content", data, err)
		}
	}
	held, err = Hold(path)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	if err := os.Remove(path); err != nil {
		t.Error(err)
	}
	if _, err := Read(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Read of a removed file = %v, want fs.ErrNotExist", err)
	}
}
