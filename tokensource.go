package fincodeauth

import (
	"context"
	"errors"
	"fmt"
	"net/url"

	"golang.org/x/oauth2"
)

// A TokenSource returns a session's access token, and refreshes it before it
// expires. It is an oauth2.TokenSource, and a credentials.PerRPCCredentials of gRPC.
// Make it with Sessions.TokenSource. It is safe for concurrent use. Its errors wrap a
// *SessionError if a login is needed, ErrClosed, an *EndpointError, ErrStore, or the error
// of the connection, the context or Config.Credentials.
type TokenSource struct {
	all   *Sessions
	place place // its key "" means the key of each call's context
}

// Token implements oauth2.TokenSource. It is TokenContext without a context, so
// nothing ends its wait early. If another process is refreshing, Token waits for
// that process, or for twice RefreshTimeout if that process died. Then it may wait
// for a refresh of its own. A source for the key "" returns an error, because Token
// has no context that could name the session.
//
// The token holds the refresh token, too: do not log it or send it anywhere. It
// is shared: do not modify it.
func (ts *TokenSource) Token() (*oauth2.Token, error) {
	if ts.place.key == "" && ts.check() == nil {
		return nil, errors.New("fincodeauth: Token has no context that could name the session: call TokenContext, or make the source with the session's key")
	}
	return ts.TokenContext(context.Background())
}

// TokenContext returns the session's token. It waits only if the token has expired
// or is not loaded yet, and no longer than ctx. A refresh goes on even if its
// callers leave.
//
// The token holds the refresh token, too: do not log it or send it anywhere. It
// is shared: do not modify it.
func (ts *TokenSource) TokenContext(ctx context.Context) (*oauth2.Token, error) {
	return ts.token(ctx, true)
}

// token is TokenContext. If looks is true, a look at the store may begin (lookout.go).
func (ts *TokenSource) token(ctx context.Context, looks bool) (*oauth2.Token, error) {
	s, err := ts.session(ctx)
	if err != nil {
		return nil, err
	}
	if l := s.lease.Load(); l != nil {
		now := ts.all.env.now()
		switch wall := now.UnixNano(); {
		case wall < l.refreshAt:
			if looks {
				ts.all.env.lookOut(now, nil)
			}
			return l.token, nil
		case wall < l.expireAt:
			s.refreshEarly(ctx, now)
			return l.token, nil
		}
	}
	return ts.await(ctx, s)
}

// await waits for the flight that is under way, or starts one.
func (ts *TokenSource) await(ctx context.Context, s *session) (*oauth2.Token, error) {
	for {
		if ctx.Err() != nil {
			return nil, left(ctx, s.key)
		}
		if isAskedBy(ctx, s) {
			return nil, fmt.Errorf("fincodeauth: session %q: %w", s.key, errOwnCredentials)
		}
		select {
		case flown := <-s.fly(ctx):
			if flown.Err == errDropped {
				s = ts.all.session(s.key)
				continue
			}
			tok, _ := flown.Val.(*oauth2.Token)
			return tok, flown.Err
		case <-ctx.Done():
			return nil, left(ctx, s.key)
		}
	}
}

// left returns the error of a caller whose context has ended.
func left(ctx context.Context, key string) error {
	return fmt.Errorf("fincodeauth: session %q: waiting for a token: %w", key, endOf(ctx))
}

// Refresh returns a token to use instead of rejected, to which the API answered 401.
// If the session has another token by now, Refresh returns that token. Otherwise it
// waits for a refresh, no longer than ctx. If rejected is nil, the current token
// counts as rejected.
//
// Refresh returns the rejected token itself in two cases, in which a refresh cannot
// help. Either there is no refresh token, and Config.Credentials is nil. Or the token
// is younger than ten seconds (or a tenth of its lifetime, if that is less), so that
// the 401 must have another reason. Each replay that the API rejects doubles that
// age, up to the token's lifetime. If the refresh fails, Refresh returns its error.
func (ts *TokenSource) Refresh(ctx context.Context, rejected *oauth2.Token) (*oauth2.Token, error) {
	return ts.refresh(ctx, rejected, false)
}

// refresh is Refresh. If evenYoung is true, the token's age does not matter.
func (ts *TokenSource) refresh(ctx context.Context, rejected *oauth2.Token, evenYoung bool) (*oauth2.Token, error) {
	tok, err := ts.token(ctx, false)
	if err != nil || rejected != nil && rejected.AccessToken != tok.AccessToken {
		return tok, err
	}
	next := tok
	for range 2 { // the first refresh may have begun before the rejection, or the session may have been dropped after it
		s, err := ts.session(ctx)
		if err != nil || !s.reject(next, evenYoung) {
			return next, err
		}
		if next, err = ts.await(ctx, s); err != nil || next.AccessToken != tok.AccessToken {
			return next, err
		}
	}
	return next, nil
}

// GetRequestMetadata returns the metadata of a gRPC call: "authorization", with
// Bearer and the token. It is TokenContext for gRPC, so it waits no longer than ctx,
// and a source for the key "" uses the key of the call's context. It does not use
// the URIs: like Token, it hands the token to whoever asks, so give the source only
// to connections whose server may have the token. The fields of Config.Header and
// Config.TokenHeaders are not in the metadata, because they are for FinCode's HTTP
// API alone. The caller may change the map.
//
// With RequireTransportSecurity it makes a TokenSource a credentials.PerRPCCredentials:
// pass it to grpc.WithPerRPCCredentials. gRPC keeps only the text of the error, as
// codes.Unauthenticated, whatever the reason. To find out whether a login is needed,
// call TokenContext, and test its error for ErrLoginRequired.
func (ts *TokenSource) GetRequestMetadata(ctx context.Context, _ ...string) (map[string]string, error) {
	tok, err := ts.TokenContext(ctx)
	if err != nil {
		return nil, err
	}
	return map[string]string{"authorization": "Bearer " + tok.AccessToken}, nil
}

// RequireTransportSecurity returns true: gRPC must refuse to send the token over a
// connection that is not encrypted.
func (ts *TokenSource) RequireTransportSecurity() bool { return true }

// replayed tells the session whether the API accepted a request that was sent again
// with tok.
func (ts *TokenSource) replayed(ctx context.Context, tok *oauth2.Token, accepted bool) {
	if s, err := ts.session(ctx); err == nil {
		s.replayed(tok, accepted)
	}
}

// passed sends the event Passed, once for each origin. baseURL is the Transport's.
func (ts *TokenSource) passed(ctx context.Context, u *url.URL, baseURL string) {
	a := ts.all
	if a == nil || a.env.cfg.Observe == nil || u.Host == "" || !a.passed.first(originOf(u)) { // without a host, Base refuses it
		return
	}
	var key string
	if p := ts.named(ctx); p != nil {
		key = p.key
	}
	a.env.observe(Passed, key, 0, fmt.Errorf("requests to %q get no token: this is not the origin of BaseURL, %q, and not one of Hosts over https",
		u.Scheme+"://"+u.Host, baseURL))
}

// check returns an error if the source was not made by Sessions.TokenSource.
func (ts *TokenSource) check() error {
	if ts.all == nil {
		return errors.New("the TokenSource is empty: make it with Sessions.TokenSource")
	}
	return ts.all.check()
}

// session returns the session that ctx, or the source itself, names.
func (ts *TokenSource) session(ctx context.Context) (*session, error) {
	if err := ts.check(); err != nil {
		return nil, fmt.Errorf("fincodeauth: %w", err)
	}
	p := ts.named(ctx)
	if p == nil {
		return nil, errors.New("fincodeauth: no session: put its key into the request's context with WithSession")
	}
	return ts.all.at(p), nil
}

// named returns the place of the session: the source's own, or that of ctx; nil if
// neither has a key.
func (ts *TokenSource) named(ctx context.Context) *place {
	if ts.place.key != "" {
		return &ts.place
	}
	if p, ok := ctx.Value(sessionKey{}).(*place); ok && p.key != "" {
		return p
	}
	return nil
}

// String names the session without its tokens.
func (ts *TokenSource) String() string { return fmt.Sprintf("TokenSource(%q)", ts.place.key) }

// Format prints what String returns, whatever the verb.
func (ts *TokenSource) Format(f fmt.State, _ rune) { fmt.Fprint(f, ts.String()) }
