package fincodeauth

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/sync/singleflight"
)

// Config is what New needs to know. Only BaseURL has no useful zero value.
type Config struct {
	// BaseURL is the root of the API, such as Sandbox("remitjunction") or
	// Production("acme"), with or without a trailing slash. It must be https,
	// or http to a loopback address. Required.
	BaseURL string

	// Store keeps the sessions of this tenant, and of no other, because a record
	// does not say which BaseURL it belongs to. nil: a new MemoryStore, so that
	// the sessions end with the process.
	Store Store

	// Base sends all requests: those to the API and those for tokens. It must
	// send each request at most once, and report what became of it. So middleware
	// that retries or refuses requests (a retrier, a circuit breaker, a rate
	// limiter) belongs around the Transport, not into Base. nil:
	// http.DefaultTransport.
	Base http.RoundTripper

	// Header is set on requests that lack its fields. It is copied. It replaces
	// the default fields, without which FinCode answers 400: to add to them, use
	// ExtraHeader. nil: DefaultHeader(); empty: none.
	Header http.Header

	// ExtraHeader is set like Header, in addition to it. A field that is in both
	// has the values of ExtraHeader. It is copied. nil: none.
	ExtraHeader http.Header

	// RequestID makes the uuid header of each request that has none. It must be
	// safe for concurrent use. nil: the one in Header.
	RequestID func() string

	// TokenHeaders chooses the headers that carry the access token. 0: both.
	TokenHeaders TokenHeaders

	// Hosts are further hosts ("api.example.com", "api.example.com:8443") that
	// may be sent the token, over https or to loopback. nil: none.
	Hosts []string

	// RefreshBefore is how long before its expiry a token that is used is
	// refreshed in the background. It is at most a fifth of the token's lifetime,
	// and a random part of it, up to a tenth, is subtracted, so that processes do
	// not all refresh at once. 0: 5 minutes (FINCODE.md, Tokens).
	RefreshBefore time.Duration

	// RefreshTimeout bounds one call to FinCode's endpoint, and one call to the
	// store. All processes on one store must have the same RefreshTimeout,
	// because a claim that has not changed for twice this long is taken over. 0:
	// 15 seconds.
	RefreshTimeout time.Duration

	// MaxSessions is how many sessions are held in memory. Above that, the least
	// recently used ones are dropped, a sixteenth at once, and loaded again on
	// use. A session with unsaved work is never dropped. One whose last refresh
	// failed, or whose replays the API rejects, is kept for an hour. 0: 100,000.
	MaxSessions int

	// Credentials returns what to log in with, when FinCode ends a session. cause
	// is the *SessionError. It is not called for a breach, nor for a session that
	// never began, was logged out, or had ended before. If it returns an error,
	// callers get that error, and it is called again later. An error that is
	// ErrLoginRequired, as cause is, ends the session. It may be called
	// concurrently for different keys. ctx has the values of a caller's context,
	// and ends after RefreshTimeout. nil: a session that ends stays ended.
	Credentials func(ctx context.Context, key string, cause error) (Credentials, error)

	// Observe is called after each event, possibly concurrently. It must not
	// block, and must not call the Sessions. LogEvents makes one that logs. nil:
	// events are dropped.
	Observe func(Event)
}

const (
	defaultRefreshBefore  = 5 * time.Minute // FINCODE.md, Tokens
	defaultRefreshTimeout = 15 * time.Second
	defaultMaxSessions    = 100_000
)

// FinCode's domains (FINCODE.md, Where it lives).
const (
	sandboxDomain    = ".fincode.software"
	productionDomain = ".fincode.tech"
)

// Sandbox returns the BaseURL of a tenant's sandbox. The tenant is a name alone,
// such as "acme", without FinCode's domain.
func Sandbox(tenant string) string {
	return "https://" + url.PathEscape(tenant) + sandboxDomain + "/api/v6/services"
}

// Production returns the BaseURL of a production domain. The domain is a name
// alone, such as "acme", without FinCode's own.
func Production(domain string) string {
	return "https://" + url.PathEscape(domain) + productionDomain + "/api/v6/services"
}

// DefaultHeader returns the fields that every call to FinCode carries
// (FINCODE.md, Headers): Content-Type: application/json, platform: fincode and
// uuid: 200.
func DefaultHeader() http.Header {
	return http.Header{
		"Content-Type": {"application/json"},
		"Platform":     {"fincode"},
		"Uuid":         {"200"},
	}
}

// Sessions are one tenant's sessions, by key: the name of an account, or the ID
// of a user. Make them with New. All methods are safe for concurrent use.
type Sessions struct {
	cfg      Config // complete: its zero values are replaced by what they mean
	endpoint *endpoint
	sessions *table
	flights  singleflight.Group // by session key
	started  time.Time          // session.earlyAt counts from then
	passed   passedOnce

	// The clock and the chance of the machine: time.Now and rand.Float64, or those
	// of a simulation.
	now    func() time.Time
	random func() float64

	mu     sync.Mutex // guards what follows
	closed bool
	work   sync.WaitGroup // counts pins; once closed, only a session that is pinned is pinned again

	closing   chan struct{} // closed by Close
	abandoned chan struct{} // closed when the context of a Close ends
}

// New returns the Sessions that cfg describes, or an error that says what to change
// in cfg. It calls neither the store nor FinCode.
func New(cfg Config) (*Sessions, error) {
	return newOn(cfg, time.Now, rand.Float64)
}

// newOn is New on a machine with this clock and this chance.
func newOn(cfg Config, now func() time.Time, random func() float64) (*Sessions, error) {
	if err := cfg.complete(); err != nil {
		return nil, fmt.Errorf("fincodeauth: Config: %w", err)
	}
	return &Sessions{
		cfg:       cfg,
		endpoint:  newEndpoint(cfg.BaseURL, cfg.Base, newFields(cfg.Header, cfg.RequestID), cfg.RefreshTimeout, now),
		sessions:  newTable(cfg.MaxSessions),
		started:   now(),
		now:       now,
		random:    random,
		closing:   make(chan struct{}),
		abandoned: make(chan struct{}),
	}, nil
}

// complete checks c and replaces zero values by what they mean.
func (c *Config) complete() error {
	if _, err := newTrust(c.BaseURL, c.Hosts); err != nil {
		return err
	}
	switch {
	case c.RefreshBefore < 0:
		return fmt.Errorf("RefreshBefore is %v: use a positive duration, or 0 for %v", c.RefreshBefore, defaultRefreshBefore)
	case c.RefreshTimeout < 0, 0 < c.RefreshTimeout && c.RefreshTimeout < time.Millisecond: // 15 for 15*time.Second
		return fmt.Errorf("RefreshTimeout is %v: use a duration such as 15*time.Second, or 0 for that", c.RefreshTimeout)
	case c.MaxSessions < 0:
		return fmt.Errorf("MaxSessions is %d: use a positive number, or 0 for %d", c.MaxSessions, defaultMaxSessions)
	case c.TokenHeaders > BearerToken|XAuthToken:
		return fmt.Errorf("TokenHeaders is %d: use BearerToken, XAuthToken or both", c.TokenHeaders)
	}
	if err := cmp.Or(checkHeader("Header", c.Header), checkHeader("ExtraHeader", c.ExtraHeader)); err != nil {
		return err
	}
	if c.Store == nil {
		c.Store = NewMemoryStore()
	}
	if err := checkStore(c.Store); err != nil {
		return err
	}
	c.Header = merged(c.Header, c.ExtraHeader)
	c.Hosts = slices.Clone(c.Hosts)
	if c.RefreshBefore == 0 {
		c.RefreshBefore = defaultRefreshBefore
	}
	if c.RefreshTimeout == 0 {
		c.RefreshTimeout = defaultRefreshTimeout
	}
	if c.MaxSessions == 0 {
		c.MaxSessions = defaultMaxSessions
	}
	return nil
}

// merged returns a copy of header, nil meaning DefaultHeader, with the fields of
// extra.
func merged(header, extra http.Header) http.Header {
	if header == nil {
		header = DefaultHeader()
	}
	all := make(http.Header, len(header)+len(extra))
	for _, h := range []http.Header{header, extra} {
		for name, values := range h {
			all[http.CanonicalHeaderKey(name)] = slices.Clone(values)
		}
	}
	return all
}

// checkStore refuses a store that cannot work.
func checkStore(s Store) error {
	if isNil(s) {
		return fmt.Errorf("the Store is a nil %T: make it with its constructor, or leave Store out for a MemoryStore", s)
	}
	if c, ok := s.(interface{ check() error }); ok {
		return c.check()
	}
	return nil
}

// isNil reports whether v holds a nil pointer, function, map, slice or channel.
func isNil(v any) bool {
	switch r := reflect.ValueOf(v); r.Kind() {
	case reflect.Pointer, reflect.Func, reflect.Map, reflect.Slice, reflect.Chan:
		return r.IsNil()
	}
	return false
}

// check returns an error if the Sessions were not made by New.
func (a *Sessions) check() error {
	if a == nil || a.sessions == nil {
		return errors.New("the Sessions are empty: make them with fincodeauth.New")
	}
	return nil
}

// WithSession returns a context that names the session under key, for requests
// through a Transport or TokenSource that was made for the key "". The context
// remembers where it found the session. So make it once for many requests of one
// user, if you can.
func WithSession(ctx context.Context, key string) context.Context {
	return &sessionContext{Context: ctx, place: place{key: key}}
}

// A sessionContext is like a context.WithValue, with its value inside.
type sessionContext struct {
	context.Context
	place place
}

type sessionKey struct{}

// Value implements context.Context.
func (c *sessionContext) Value(key any) any {
	if key == (sessionKey{}) {
		return &c.place
	}
	return c.Context.Value(key)
}

// String describes the context in the way of package context.
func (c *sessionContext) String() string {
	parent := fmt.Sprintf("%T", c.Context)
	if named, ok := c.Context.(fmt.Stringer); ok {
		parent = named.String()
	}
	return fmt.Sprintf("%s.WithSession(%q)", parent, c.place.key)
}

// Format prints what String returns, for every verb. Printing the fields would race
// with requests.
func (c *sessionContext) Format(f fmt.State, _ rune) { fmt.Fprint(f, c.String()) }

// TokenSource returns the source of key's tokens. With the key "", each call uses
// the key that WithSession put into its context.
func (a *Sessions) TokenSource(key string) *TokenSource {
	return &TokenSource{all: a, place: place{key: key}}
}

// Transport returns a RoundTripper that sends requests for the session under key.
// With the key "", each request uses the key that WithSession put into its context.
func (a *Sessions) Transport(key string) *Transport {
	return &Transport{
		Source:       a.TokenSource(key),
		BaseURL:      a.cfg.BaseURL,
		Base:         a.cfg.Base,
		Header:       a.cfg.Header,
		RequestID:    a.cfg.RequestID,
		TokenHeaders: a.cfg.TokenHeaders,
		Hosts:        a.cfg.Hosts,
	}
}

// Client returns a client over Transport(key), without a timeout of its own.
func (a *Sessions) Client(key string) *http.Client {
	return &http.Client{Transport: a.Transport(key)}
}

// Login begins a session under key, and replaces the one that is there. When it
// returns nil, the new token is in use. The token is also saved, unless the event
// SaveFailed says that the store did not accept it yet.
//
// Test its error for ErrBadCredentials, ErrAccountLocked, ErrUserNotFound,
// ErrClosed, and for an *EndpointError. Any other error is that of the connection or
// of the store. The store is asked first, so that no password is sent for nothing.
//
// ctx ends the wait for FinCode. Once FinCode has answered, the token is kept even
// if ctx has ended.
func (a *Sessions) Login(ctx context.Context, key string, c Credentials) error {
	if err := c.check(); err != nil {
		return fmt.Errorf("fincodeauth: login: %w", err)
	}
	return a.begin(ctx, key, LoggedIn, func(ctx context.Context) (*oauth2.Token, error) {
		return a.endpoint.login(ctx, c)
	})
}

// Adopt begins a session under key with a pair that was obtained elsewhere, and
// replaces the one that is there. From then on the refresh token belongs to the
// session, and nobody else may present it. tok is copied. An Expiry of zero means
// ExpiresIn from now on, or the exp of the JWT. Test its error for ErrClosed. Any
// other error is that of the store, or says what is wrong with key or tok.
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
			own.Expiry = a.now().Round(0).Add(seconds(float64(own.ExpiresIn)))
		} else if claims := claimsOf(own.AccessToken); claims.Expiry > 0 {
			own.Expiry = claims.expiry()
		}
	}
	if own.Expiry.After(a.now().Add(century)) {
		own.Expiry = time.Time{} // JSON has no form for some times after that
	}
	return a.begin(ctx, key, Adopted, func(context.Context) (*oauth2.Token, error) { return &own, nil })
}

// begin replaces the session under key by the token that obtain returns.
func (a *Sessions) begin(ctx context.Context, key string, event EventType, obtain func(context.Context) (*oauth2.Token, error)) error {
	fail := func(err error) error {
		return fmt.Errorf("fincodeauth: session %q: %w", key, err)
	}
	s, err := a.pinned(key)
	if err != nil {
		return fail(err)
	}
	defer s.unpin()
	// Ask the store before FinCode: a token that cannot be saved is of no use.
	prev, err := s.version(ctx)
	if err != nil {
		return fail(err)
	}
	started := a.now()
	tok, err := obtain(ctx)
	if err != nil {
		return fail(err)
	}
	took := a.since(started)
	if event == Adopted {
		took = 0 // there was no call
	}
	a.observe(event, key, took, nil)
	s.replace(context.WithoutCancel(ctx), tok, prev)
	return nil
}

// Logout ends the session under key: first in the store, for all processes, and then
// at FinCode, which revokes both tokens. FinCode wants a valid access token for that.
// If the access token has expired or was revoked, Logout refreshes it first. No
// session is no error.
//
// An *EndpointError, or the error of a connection, means that the session is gone,
// but that FinCode may not know it. An error of the store means that the session is
// still there, or that nobody can tell: call Logout again. Test it for ErrClosed, too.
//
// ctx ends the wait for the store. Once the store has removed the session, only
// RefreshTimeout bounds each further call.
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

// Forget removes the record under key, whatever it is: a damaged one too, which
// Login and Logout leave alone because a person may want to restore it. Forget
// tells FinCode nothing, so the refresh token stays valid there until it expires:
// call Logout for a session that can be loaded. No record is no error. A refresh
// that is under way in this process goes on, and revokes what it receives.
//
// After an error, which is the store's, the record is still there, or nobody can
// tell: call Forget again. Test it for ErrClosed, too. ctx ends the wait for the
// store.
func (a *Sessions) Forget(ctx context.Context, key string) error {
	s, err := a.pinned(key)
	if err == nil {
		defer s.unpin()
		err = s.discard(ctx)
	}
	if err != nil {
		return fmt.Errorf("fincodeauth: forgetting session %q: %w", key, err)
	}
	return nil
}

// Close stops refreshing and waits until every rotated token is saved. Give ctx a
// deadline: without one, Close waits as long as the store is down. If ctx ends
// first, Close gives up the saves that are left. It then returns an error that names
// their sessions, whose tokens are lost, and that has the store's last error in its
// chain. If ctx has already ended, Close waits for one second.
//
// Calls that are under way then end within RefreshTimeout, or a few times that if
// the store is slow, too. After Close, requests, Login, Adopt, Logout and Forget
// return ErrClosed.
func (a *Sessions) Close(ctx context.Context) error {
	if err := a.check(); err != nil {
		return fmt.Errorf("fincodeauth: close: %w", err)
	}
	ended := ctx.Err() != nil
	a.mu.Lock()
	if !a.closed {
		a.closed = true
		close(a.closing)
	}
	a.mu.Unlock()
	for s := range a.sessions.all {
		s.forget(s.currentEra())
	}

	done := make(chan struct{})
	go func() {
		a.work.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		if ended {
			select {
			case <-done:
			case <-time.After(saveWait):
			}
		}
		a.abandon()
	}
	cause := context.Cause(ctx)
	if err := a.lost(cause); err != nil {
		return fmt.Errorf("fincodeauth: close: %w", err)
	}
	select {
	case <-done:
		return nil
	default:
		return fmt.Errorf("fincodeauth: close: calls for %q are still under way, and a token that they receive is lost: %w", a.busy(), cause)
	}
}

// busy returns the keys of ten sessions with calls under way.
func (a *Sessions) busy() []string {
	var keys []string
	for s := range a.sessions.all {
		if s.isPinned() {
			keys = append(keys, s.key)
		}
	}
	slices.Sort(keys)
	return keys[:min(len(keys), 10)]
}

// lost returns an error that names the sessions that were not saved, and why; nil
// if there is none. cause is what ended the wait for them; nil: an earlier Close
// gave them up.
func (a *Sessions) lost(cause error) error {
	refused := make(map[string]error)
	for s := range a.sessions.all {
		if s.unsaved() != nil {
			refused[s.key] = s.refusal()
		}
	}
	if len(refused) == 0 {
		return nil
	}
	keys := slices.Sorted(maps.Keys(refused))
	return fmt.Errorf("the store did not accept the last change of %d sessions, whose users must log in again: %q: %w: the store's last error: %w",
		len(keys), keys[:min(len(keys), 10)], cmp.Or(cause, ErrClosed), refused[keys[0]])
}

// abandon stops the savers.
func (a *Sessions) abandon() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.isAbandoned() {
		close(a.abandoned)
	}
}

func (a *Sessions) isClosing() bool   { return isClosed(a.closing) }
func (a *Sessions) isAbandoned() bool { return isClosed(a.abandoned) }

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// String names the API. It leaves the sessions out.
func (a *Sessions) String() string { return "Sessions(" + a.cfg.BaseURL + ")" }

// Format prints what String returns, whatever the verb.
func (a *Sessions) Format(f fmt.State, _ rune) { fmt.Fprint(f, a.String()) }

// since returns how long ago t was, by the monotonic clock. t was read from a.now.
func (a *Sessions) since(t time.Time) time.Duration { return a.now().Sub(t) }

// jittered returns a random duration between four fifths of d and d.
func (a *Sessions) jittered(d time.Duration) time.Duration {
	return d - time.Duration(a.random()*float64(d)/5)
}

// observe hands an event to Config.Observe.
func (a *Sessions) observe(t EventType, key string, elapsed time.Duration, err error) {
	if a.cfg.Observe != nil {
		a.cfg.Observe(Event{Type: t, Key: key, Time: a.now(), Elapsed: elapsed, Err: err})
	}
}

// session returns key's session.
func (a *Sessions) session(key string) *session {
	s := a.sessions.find(key)
	if s == nil || s.dropped.Load() { // the table shows a dropped session until it is rebuilt
		s = a.sessions.add(&session{all: a, key: key})
	}
	a.sessions.touch(s)
	return s
}

// A place names a session, and remembers where that session was found.
type place struct {
	key   string
	found atomic.Pointer[session]
}

// at returns the session that p names.
func (a *Sessions) at(p *place) *session {
	s := p.found.Load()
	if s == nil || s.dropped.Load() || s.all != a { // one context may be used with the Sessions of several tenants
		s = a.session(p.key)
		p.found.Store(s)
		return s
	}
	a.sessions.touch(s)
	return s
}

// pinned returns key's session after pinning it.
func (a *Sessions) pinned(key string) (*session, error) {
	if err := a.check(); err != nil {
		return nil, err
	}
	if key == "" {
		return nil, errors.New(`the key is empty: name the session, by an account or a user's ID`)
	}
	for {
		s := a.session(key)
		if err := s.pin(); err != errDropped {
			return s, err
		}
	}
}

// enlist counts one pin, for which Close waits. It returns ErrClosed after Close.
func (a *Sessions) enlist() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return ErrClosed
	}
	a.work.Add(1)
	return nil
}
