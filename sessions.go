package fincodeauth

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"net/http"
	"slices"
	"time"

	"golang.org/x/oauth2"

	"github.com/fincodeauth/fincodeauth/internal/machine"
)

// Sessions are one tenant's sessions, by key: the name of an account, or the ID
// of a user. Make them with New. All methods are safe for concurrent use.
type Sessions struct {
	env      environment
	sessions *table // nil: the Sessions were not made by New
	passed   passedOnce
}

// New returns the Sessions that cfg describes, or an error that says what to change
// in cfg. It does not call FinCode. If Config.Store is a Journal, also inside Encrypt,
// New starts to save in the background what other processes left in it, until that is
// done or Close is called. It does not call another store.
func New(cfg Config) (*Sessions, error) {
	if on, ok := cfg.Base.(*machine.Base); ok {
		return newOn(cfg, on.Now, on.Random)
	}
	return newOn(cfg, time.Now, rand.Float64)
}

// newOn is New with the clock and the random numbers of a simulation.
func newOn(cfg Config, now func() time.Time, random func() float64) (*Sessions, error) {
	if err := cfg.complete(); err != nil {
		return nil, fmt.Errorf("fincodeauth: Config: %w", err)
	}
	a := &Sessions{sessions: newTable(cfg.MaxSessions)}
	a.env.begin(cfg, now, random)
	a.env.lookout.sessions = a.sessions.all
	a.env.replayLeft()
	return a, nil
}

// check returns an error if the Sessions were not made by New.
func (a *Sessions) check() error {
	if a == nil || a.sessions == nil {
		return errors.New("the Sessions are empty: make them with fincodeauth.New")
	}
	return nil
}

// TokenSource returns a source of the tokens of the session under key. The session
// need not exist yet. With the key "", TokenContext and Refresh use the key that
// WithSession put into their context, and Token returns an error.
func (a *Sessions) TokenSource(key string) *TokenSource {
	return &TokenSource{all: a, place: place{key: key}}
}

// Transport returns a RoundTripper that sends requests for the session under key.
// The session need not exist yet. With the key "", each request uses the key that
// WithSession put into its context.
func (a *Sessions) Transport(key string) *Transport {
	return &Transport{
		Source:       a.TokenSource(key),
		BaseURL:      a.env.cfg.BaseURL,
		Base:         a.env.cfg.Base,
		Header:       a.env.cfg.Header.Clone(), // the caller may change it before the first request
		RequestID:    a.env.cfg.RequestID,
		TokenHeaders: a.env.cfg.TokenHeaders,
		Hosts:        slices.Clone(a.env.cfg.Hosts),
	}
}

// Client returns an http.Client that uses Transport(key). It has no timeout.
func (a *Sessions) Client(key string) *http.Client {
	return &http.Client{Transport: a.Transport(key)}
}

// Login begins a session under key. It replaces the session that is there. When it
// returns nil, the new token is in use. The token is also saved, unless the store
// is slow or the event SaveFailed was sent: then it is saved in the background.
//
// Test the error for ErrBadCredentials, ErrAccountLocked, ErrUserNotFound,
// ErrClosed, and for an *EndpointError. Any other error comes from the connection,
// the store or ctx, or says what is wrong with key or c. Login calls the store
// before FinCode, so no password is sent while the store is down. If the record is
// damaged, call Forget first.
//
// Login waits until no other Login, Adopt, Logout or Forget of this session is under way,
// and no pass of a refresh, no save and no look at the store: a few times RefreshTimeout at most. If a change is
// not saved yet, Login goes on saving it until FinCode has answered. ctx ends the wait, and
// the calls that load the record and that log in. Once FinCode has answered, the token is kept even if ctx has
// ended. FinCode is not told of the session that is replaced: call Logout first if its
// tokens must be revoked. Config.Credentials must not call Login for its own key.
func (a *Sessions) Login(ctx context.Context, key string, c Credentials) error {
	if err := c.check(); err != nil {
		return fmt.Errorf("fincodeauth: login: %w", err)
	}
	return a.begin(ctx, key, LoggedIn, func(ctx context.Context) (*oauth2.Token, error) {
		return a.env.endpoint.login(ctx, c)
	})
}

// Adopt begins a session under key with tokens that were obtained elsewhere. It
// replaces the session that is there. From then on the refresh token belongs to the
// session: nobody else may present it. When Adopt returns nil, tok is in use, and
// is saved like the token of a Login.
//
// tok has an access token, a refresh token or both. It is copied. If its Expiry is
// zero, ExpiresIn counts from now on. If that is zero, too, the exp of the JWT
// counts. If there is none, the token is used until the API answers 401.
//
// Adopt waits as Login does, and ctx ends that wait. It never calls FinCode, so the tokens
// of the session that it replaces stay valid there.
//
// Test the error for ErrClosed. Any other error comes from the store or ctx, or
// says what is wrong with key or tok. If the record is damaged, call Forget first.
func (a *Sessions) Adopt(ctx context.Context, key string, tok *oauth2.Token) error {
	if err := a.check(); err != nil {
		return fmt.Errorf("fincodeauth: adopt: %w", err)
	}
	if !hasTokens(tok) {
		return errors.New("fincodeauth: adopt: the token is empty: give it an access token, a refresh token or both")
	}
	if !fitsHeader(tok.AccessToken) {
		return errors.New("fincodeauth: adopt: the access token has characters that no header can carry")
	}
	own := *tok
	own.Expiry = own.Expiry.Round(0)
	if own.Expiry.IsZero() {
		if own.ExpiresIn > 0 {
			own.Expiry = a.env.now().Round(0).Add(seconds(float64(own.ExpiresIn)))
		} else if claims := claimsOf(own.AccessToken); claims.Expiry > 0 {
			own.Expiry = claims.expiry()
		}
	}
	if own.Expiry.After(a.env.now().Add(century)) {
		own.Expiry = time.Time{} // JSON has no form for some times after that
	}
	return a.begin(ctx, key, Adopted, func(context.Context) (*oauth2.Token, error) { return &own, nil })
}

// begin begins a session under key with the token that obtain returns.
func (a *Sessions) begin(ctx context.Context, key string, event EventType, obtain func(context.Context) (*oauth2.Token, error)) error {
	s, err := a.pinned(key)
	if err == nil {
		defer s.unpin()
		err = s.login(ctx, event, obtain)
	}
	if err != nil {
		return fmt.Errorf("fincodeauth: session %q: %w", key, err)
	}
	return nil
}

// Logout ends the session under key: first in the store, for all processes, and then
// at FinCode, which revokes both tokens. FinCode wants a valid access token for that.
// If the access token has expired or was revoked, Logout refreshes it first. If there
// is no session, Logout returns nil.
//
// Test the error for ErrClosed. An *EndpointError, or an error of the connection,
// means that the session is gone, but FinCode may not know it. An error of the store
// means that the session is still there, or may be: call Logout again, or Forget if
// the record is damaged.
//
// Logout waits as Login does. Then it first saves what is not saved yet, once. If the
// store refuses that, the session stays. ctx ends only the wait, and the Load of the
// record. RefreshTimeout limits each other call.
func (a *Sessions) Logout(ctx context.Context, key string) error {
	s, err := a.pinned(key)
	if err == nil {
		defer s.unpin()
		err = s.logout(ctx)
	}
	if err != nil {
		return fmt.Errorf("fincodeauth: logging out session %q: %w", key, err)
	}
	return nil
}

// Forget removes the record under key, even a damaged one. (Login and Logout return
// an error for a damaged record, because a person may want to restore it.) If there
// is no record, Forget returns nil.
//
// Forget tells FinCode nothing, so the refresh token stays valid until it expires.
// If the record can be loaded, call Logout instead. Forget waits as Login does. A change
// that is not saved yet is given up with the record. If another process is refreshing,
// that process revokes the tokens that it receives.
//
// Test the error for ErrClosed. An error of the store means that the record is still
// there, or may be: call Forget again. ctx ends the wait, a Load of the record and a
// Delete, but not a Save, which RefreshTimeout limits.
func (a *Sessions) Forget(ctx context.Context, key string) error {
	s, err := a.pinned(key)
	if err == nil {
		defer s.unpin()
		err = s.forget(ctx)
	}
	if err != nil {
		return fmt.Errorf("fincodeauth: forgetting session %q: %w", key, err)
	}
	return nil
}

// Keys yields the key of each session that the Store has, in any order, also of those
// that have ended or were logged out, and of records that cannot be loaded. A key may come
// more than once. Status tells more of a key.
//
// If the store fails, Keys yields an error. If the Store is not a KeyLister, the error wraps
// errors.ErrUnsupported.
func (a *Sessions) Keys(ctx context.Context) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		if err := a.check(); err != nil {
			yield("", fmt.Errorf("fincodeauth: listing keys: %w", err))
			return
		}
		for key, err := range keysOf(a.env.withEnvironment(ctx), a.env.cfg.Store) {
			if err != nil {
				err = fmt.Errorf("fincodeauth: listing keys: %w", err)
			}
			if !yield(key, err) {
				return
			}
		}
	}
}

// String returns the BaseURL, and nothing of the sessions.
func (a *Sessions) String() string { return "Sessions(" + a.env.cfg.BaseURL + ")" }

// Format prints what String returns, whatever the verb.
func (a *Sessions) Format(f fmt.State, _ rune) { fmt.Fprint(f, a.String()) }

// session returns key's session. If it is not in memory, session adds it.
func (a *Sessions) session(key string) *session {
	s := a.sessions.find(key)
	if s == nil || s.dropped.Load() { // the table shows a dropped session until it is rebuilt
		s = a.sessions.add(&session{env: &a.env, key: key})
	}
	a.sessions.touch(s)
	return s
}

// at returns the session that p names.
func (a *Sessions) at(p *place) *session {
	s := p.found.Load()
	if s == nil || s.dropped.Load() || s.env != &a.env { // one context may be used with the Sessions of several tenants
		s = a.session(p.key)
		p.found.Store(s)
		return s
	}
	a.sessions.touch(s)
	return s
}

var errNoKey = errors.New("the key is empty: use the name of an account, or the ID of a user")

// pinned pins key's session and returns it. The caller must unpin it.
func (a *Sessions) pinned(key string) (*session, error) {
	if err := a.check(); err != nil {
		return nil, err
	}
	if key == "" {
		return nil, errNoKey
	}
	for {
		s := a.session(key)
		if err := s.pin(); err != errDropped {
			return s, err
		}
	}
}
