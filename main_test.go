package fincodeauth_test

import (
	"fmt"
	"os"
	"testing"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/filestore"
	"github.com/fincodeauth/fincodeauth/internal/torture"
)

// The kill tests start this binary again, once for each of their processes.
func TestMain(m *testing.M) {
	if order := os.Getenv(killedVariable); order != "" {
		fmt.Fprintln(os.Stderr, useUntilKilled(order))
		os.Exit(1)
	}
	torture.Main(m, func(dir string) (fincodeauth.Store, error) { return filestore.New(dir) })
}
