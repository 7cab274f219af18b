package fincodeauth

import (
	"context"
	"fmt"

	"golang.org/x/oauth2"
)

// revoke has FinCode revoke both tokens of a pair. FinCode wants a valid access token
// for that. If tok's has expired or was revoked, revoke refreshes it first, provided
// that this process is alone with the pair: nobody else may present its refresh token.
func (s *session) revoke(ctx context.Context, tok *oauth2.Token, alone bool) error {
	started := s.env.now()
	mayRefresh := alone && tok.RefreshToken != ""
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
