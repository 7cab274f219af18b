package cli

import (
	"context"
	"errors"
	"time"

	"golang.org/x/oauth2"

	"github.com/fincodeauth/fincodeauth"
)

// earlyPatience is how long a command waits for a refresh while the token is still valid.
const earlyPatience = 5 * time.Second

// freshToken returns the token. It waits for a refresh that is due: whoever gets the token
// keeps it for a while, and a refresh in the background might end the old one.
func (s *session) freshToken(ctx context.Context) (*oauth2.Token, error) {
	source := s.TokenSource(s.key)
	stop := s.sayAfter(patience, "waiting for a new token: FinCode is slow, or another process that refreshes it is slow or has died")
	tok, err := source.TokenContext(ctx)
	stop()
	if err != nil {
		return nil, err
	}
	st, err := s.Status(ctx, s.key)
	if err != nil || st.RefreshAt.IsZero() || st.RefreshAt.After(time.Now()) {
		return tok, nil // it is valid, even if the store fails
	}
	early, cancel := context.WithTimeout(ctx, earlyPatience)
	defer cancel()
	next, err := source.Refresh(early, tok)
	switch {
	case err == nil:
		return next, nil
	case errors.Is(err, fincodeauth.ErrLoginRequired), ctx.Err() != nil:
		return nil, err
	}
	return tok, nil // FinCode or the store fails, and tok is still valid
}

// refreshMeanwhile refreshes the token in the background if that is due. Sessions do so by
// themselves, but a command ends too soon for that. Call wait before closing the session.
func (s *session) refreshMeanwhile(ctx context.Context) (wait func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = s.freshToken(ctx) // who needs the token gets the error, too
	}()
	return func() { <-done }
}
