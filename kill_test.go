package fincodeauth_test

import (
	"testing"
	"time"

	"github.com/fincodeauth/fincodeauth/filestore"
	"github.com/fincodeauth/fincodeauth/internal/torture"
)

// Processes that share a folder are killed at random instants. A refresh token is
// presented twice only after a takeover, and the folder is always readable.
func TestProcessesKilledAtAnyMomentShareOneFolder(t *testing.T) {
	dir := t.TempDir()
	store, err := filestore.New(dir)
	if err != nil {
		t.Fatal(err)
	}
	torture.Run(t, torture.Config{
		Store:          store,
		Spec:           dir,
		Children:       4,
		Goroutines:     8,
		Sessions:       12,
		Duration:       5 * time.Second,
		KillEvery:      400 * time.Millisecond,
		RefreshTimeout: time.Second,
	})
}
