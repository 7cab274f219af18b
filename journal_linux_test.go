package fincodeauth_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/fincodetest"
)

// A full disk and a read-only one are real here: they need a mount, and so root.
func TestStoreWorksOnAFullOrReadOnlyDisk(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(t *testing.T, disk string)
		cause error
	}{
		"full": {func(t *testing.T, disk string) {
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
		}, syscall.ENOSPC},
		"read-only": {func(t *testing.T, disk string) {
			if err := syscall.Mount("", disk, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
				t.Fatal(err)
			}
		}, syscall.EROFS},
	} {
		t.Run(name, func(t *testing.T) {
			disk := t.TempDir()
			if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=256k"); err != nil {
				t.Skip("cannot mount: ", err)
			}
			t.Cleanup(func() { _ = syscall.Unmount(disk, 0) })
			dir := filepath.Join(disk, "journal")
			synctest.Test(t, func(t *testing.T) {
				fc := fincodetest.New(fincodetest.Config{})
				store := newFaultyStore()
				s := journaled(t, store, dir)
				c.spoil(t, disk)
				if _, err := fincodeauth.Journal(store, dir); name == "read-only" && (!errors.Is(err, c.cause) || !strings.Contains(err.Error(), dir)) {
					t.Errorf("Journal = %v, want an error that names the folder", err)
				}
				var seen events
				sessions := start(t, fc, s, seen.observe)
				logIn(t, sessions, "a")
				time.Sleep(time.Hour)
				token(t, sessions.TokenSource("a"))
				synctest.Wait()
				types := seen.types()
				if n := len(slices.DeleteFunc(types, func(e fincodeauth.EventType) bool { return e != fincodeauth.JournalFailed })); n != 2 {
					t.Errorf("got %d events JournalFailed, want one for the login and one for the rotation", n)
				}
				rec := record(t, store, "a")
				rec.Version, rec.Generation = rec.Version+"x", rec.Generation+1
				store.down(true)
				if err := s.Save(t.Context(), "a", rec, "s.1"); !errors.Is(err, c.cause) || !errors.Is(err, errStoreDown) {
					t.Errorf("Save = %v, want the errors of the disk and of the store", err)
				}
				for _, file := range filesOf(t, dir) {
					t.Errorf("%s is left", file)
				}
			})
		})
	}
}
