package fincodeauth_test

import (
	"testing"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/filestore"
	"github.com/fincodeauth/fincodeauth/internal/torture"
)

// The kill test starts this binary again, as processes that share a folder.
func TestMain(m *testing.M) {
	torture.Main(m, func(dir string) (fincodeauth.Store, error) { return filestore.New(dir) })
}
