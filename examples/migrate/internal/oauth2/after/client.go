// Package client is an http.Client for one account, with fincodeauth.
package client

import (
	"context"
	"net/http"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/examples/migrate/internal/move"
)

// account is the key of the session in the store.
const account = "operations"

// New returns a client that goes on with the session in sessions, or with the token that
// the old version has left in the file at path.
func New(ctx context.Context, sessions *fincodeauth.Sessions, path string) (*http.Client, error) {
	if err := move.Adopt(ctx, sessions, account, path); err != nil {
		return nil, err
	}
	return sessions.Client(account), nil
}
