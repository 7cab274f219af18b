package fincodeauth_test

import (
	"testing"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/filestore"
	"github.com/fincodeauth/fincodeauth/internal/torture"
)

// TestProcessesKilledAtAnyMomentShareOneFolder starts this binary again, once for
// each of its processes.
func TestMain(m *testing.M) {
	torture.Main(m, func(dir string) (fincodeauth.Store, error) { return filestore.New(dir) })
}
