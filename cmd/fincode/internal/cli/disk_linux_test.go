package cli

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/fincodeauth/fincodeauth/fincodetest"
)

// TestLoginSendsNothingIfTheDiskIsFullOrReadOnly, with a profile that is there and without.
func TestLoginSendsNothingIfTheDiskIsFullOrReadOnly(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(disk string) error
		want  string
	}{
		"full": {func(disk string) error {
			f, err := os.Create(filepath.Join(disk, "ballast"))
			for err == nil {
				_, err = f.Write(make([]byte, 4096))
			}
			if errors.Is(err, syscall.ENOSPC) {
				err = nil
			}
			return errors.Join(err, f.Close())
		}, "no space left on device: make room, and try again"},
		"read-only": {func(disk string) error {
			return syscall.Mount("", disk, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, "")
		}, "read-only file system: check who owns the folder"},
	} {
		for _, there := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				disk := t.TempDir()
				if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=256k"); err != nil {
					t.Skip("cannot mount: ", err)
				}
				t.Cleanup(func() { _ = syscall.Unmount(disk, 0) })
				b, srv := newLoginBench(t), newLoginServer(t, fincodetest.Config{})
				b.state = filepath.Join(disk, "state")
				b.env["FINCODE_STATE"] = b.state
				if there {
					b.run(loginArgs(srv)...).wantSuccess(t)
				}
				logins := srv.Counts().Logins
				if err := c.spoil(disk); err != nil {
					t.Fatal(err)
				}
				b.run(loginArgs(srv)...).wantFailure(t, 5, c.want)
				if n := srv.Counts().Logins; n != logins {
					t.Errorf("FinCode saw %d logins, want %d", n, logins)
				}
			})
		}
	}
}
