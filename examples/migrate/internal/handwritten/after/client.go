// Package client sends requests to FinCode for one account. fincodeauth refreshes.
package client

import (
	"context"
	"errors"
	"net/http"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/examples/migrate/internal/move"
)

// A Client sends requests with the account's token.
type Client struct {
	baseURL  string
	sessions *fincodeauth.Sessions
	http     *http.Client
}

// account is the key of the session in the store.
const account = "operations"

// Open returns a client that goes on with the session in store, or with the tokens that
// the old version has left in the file at path.
func Open(ctx context.Context, baseURL, path string, store fincodeauth.Store) (*Client, error) {
	sessions, err := fincodeauth.New(fincodeauth.Config{BaseURL: baseURL, Store: store})
	if err != nil {
		return nil, err
	}
	if err := move.Adopt(ctx, sessions, account, path); err != nil {
		return nil, errors.Join(err, sessions.Close(ctx))
	}
	return &Client{baseURL: baseURL, sessions: sessions, http: sessions.Client(account)}, nil
}

// Close waits until every token is saved. Give ctx a deadline.
func (c *Client) Close(ctx context.Context) error { return c.sessions.Close(ctx) }

// Get sends a GET request to a path of the API, such as "/balance".
func (c *Client) Get(ctx context.Context, path string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.baseURL+path, nil)
	if err != nil {
		return nil, err
	}
	return c.http.Do(req)
}
