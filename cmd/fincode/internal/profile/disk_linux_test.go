package profile

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/fincodeauth/fincodeauth/cmd/fincode/internal/failure"
)

// smallDisk mounts a disk that a test can fill, or make read-only.
func smallDisk(t *testing.T) string {
	t.Helper()
	disk := t.TempDir()
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=256k"); err != nil {
		t.Skip("cannot mount: ", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(disk, 0) })
	return disk
}

// fill writes to the disk until it is full.
func fill(t *testing.T, disk string) {
	t.Helper()
	f, err := os.Create(filepath.Join(disk, "ballast"))
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	if !errors.Is(errors.Join(err, f.Close()), syscall.ENOSPC) {
		t.Fatal(err)
	}
}

func TestDiskThatCannotBeWrittenToLeavesTheOldProfile(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(t *testing.T, disk string)
		cause error
		do    string
	}{
		"full": {fill, syscall.ENOSPC, "make room"},
		"read-only": {func(t *testing.T, disk string) {
			if err := syscall.Mount("", disk, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
				t.Fatal(err)
			}
		}, syscall.EROFS, "check who owns"},
	} {
		t.Run(name, func(t *testing.T) {
			disk := smallDisk(t)
			s := At(filepath.Join(disk, "state"))
			p := Profile{Name: "p", URL: "https://old"}
			if err := save(s, p); err != nil {
				t.Fatal(err)
			}
			opened, err := s.OpenStore(t.Context(), p, [][]byte{make([]byte, 32)}, true)
			if err != nil {
				t.Fatal(err)
			}
			opened.Close()
			c.spoil(t, disk)
			p.URL = "https://new"
			if err := save(s, p); !errors.Is(err, c.cause) || !strings.Contains(failure.Of(err, "p").Line(), c.do) {
				t.Errorf("Save = %v, want %v", err, c.cause)
			}
			if got, err := s.Load("p"); err != nil || got.URL != "https://old" {
				t.Errorf("Load = %#v, %v; want the old profile", got, err)
			}
			if drafts, _ := filepath.Glob(s.Folder("p", "profile-*")); len(drafts) > 0 {
				t.Errorf("%v is left", drafts)
			}
			_, err = s.OpenStore(t.Context(), p, [][]byte{make([]byte, 32)}, true)
			if err == nil || failure.Of(err, "p").Status != failure.Local {
				t.Errorf("OpenStore for a login = %v, want an error: a session cannot be saved", err)
			}
		})
	}
}
