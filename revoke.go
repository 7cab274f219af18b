package fincodeauth

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"golang.org/x/oauth2"
)

// revoke has FinCode revoke both tokens of a pair. FinCode wants a valid access token
// for that. If tok's has expired or was revoked, revoke refreshes it first, if mayRefresh
// is true: nobody else can present its refresh token, and FinCode has not refused it.
func (s *session) revoke(ctx context.Context, tok *oauth2.Token, mayRefresh bool) error {
	started := s.env.now()
	mayRefresh = mayRefresh && tok.RefreshToken != ""
	var err error
	expired := !s.env.newLease(tok).valid(started)
	if !expired || !mayRefresh {
		err = s.env.endpoint.logout(ctx, tok)
	}
	if mayRefresh && (expired || isUnauthorized(err)) {
		err = s.refreshAndRevoke(ctx, tok, err)
	}
	s.env.observe(LoggedOut, s.key, s.env.since(started), err)
	return err
}

// refreshAndRevoke revokes the successor of old. before is the error of the logout with
// old itself; nil: there was none.
func (s *session) refreshAndRevoke(ctx context.Context, old *oauth2.Token, before error) error {
	tok, err := s.env.endpoint.refresh(ctx, old)
	switch {
	case err == nil:
		return s.env.endpoint.logout(ctx, tok)
	case before != nil:
		return fmt.Errorf("%w; then %w", before, err)
	}
	return err
}

// isUnauthorized reports whether err is FinCode's own 401.
func isUnauthorized(err error) bool {
	e, ok := errors.AsType[*EndpointError](err)
	return ok && !e.foreign && e.meaning() == http.StatusUnauthorized
}
