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

	// Store keeps the sessions of this tenant only, because a record does not say
	// which BaseURL it belongs to. nil: a new MemoryStore, so that the sessions
	// end with the process.
	Store Store

	// Base sends all requests: those to the API and those for tokens. It must
	// send each request at most once, and return the answer or the error. So
	// middleware that retries or refuses requests (a retrier, a circuit breaker,
	// a rate limiter) goes around the Transport, not into Base. nil:
	// http.DefaultTransport.
	Base http.RoundTripper

	// Header has the fields that are added to each request that lacks them. It
	// replaces DefaultHeader, without whose fields FinCode answers 400: to add
	// fields to those, use ExtraHeader. New copies it. nil: DefaultHeader();
	// empty: none.
	Header http.Header

	// ExtraHeader has fields that are added in addition to those of Header. If a
	// field is in both, the values of ExtraHeader are sent. New copies it. nil:
	// none.
	ExtraHeader http.Header

	// RequestID returns the uuid header of a request that has none. It replaces
	// the uuid of Header and ExtraHeader. It is called once each time a request
	// is sent, so a replay gets another uuid. It must be safe for concurrent use.
	// nil: the uuid of Header or ExtraHeader.
	RequestID func() string

	// TokenHeaders chooses the headers that carry the access token to the API.
	// FinCode's logout always gets both. 0: both.
	TokenHeaders TokenHeaders

	// Hosts are other hosts to which the token may be sent, over https, or over
	// http if they are loopback addresses. "api.example.com" means port 443, and
	// "api.example.com:8443" that port. A loopback address without a port means
	// any port over http. New copies Hosts. nil: none.
	Hosts []string

	// RefreshBefore is how long before its expiry a token is refreshed in the
	// background, if it is in use. At most a fifth of the token's lifetime
	// counts. A random part, at most a tenth, is subtracted, so that processes do
	// not all refresh at once. 0: 5 minutes (FINCODE.md, Tokens).
	RefreshBefore time.Duration

	// RefreshTimeout limits each call to the store, and each call for tokens to
	// FinCode. All processes on one store must have the same RefreshTimeout,
	// because a claim that has not changed for twice this long is taken over. New
	// refuses less than a millisecond. 0: 15 seconds.
	RefreshTimeout time.Duration

	// MaxSessions is how many sessions are kept in memory. If there are more, the
	// least recently used ones are dropped, a sixteenth of MaxSessions at once.
	// They are loaded again when they are used. Some are not dropped: a session
	// with an unsaved change or a call under way; one whose refresh failed, for
	// up to an hour; and one whose replays the API rejects, until its token
	// expires. 0: 100,000.
	MaxSessions int

	// Credentials returns what to log in with when FinCode refused the refresh
	// token, or when there is none. cause is the *SessionError that callers get
	// otherwise. Credentials is not called after a breach, and not for a session
	// that never began, was logged out, or had already ended.
	//
	// If Credentials returns an error, or if the login fails, callers get that
	// error, and a later refresh tries again. But the session ends if the error
	// is ErrLoginRequired (as cause is), ErrBadCredentials, ErrAccountLocked or
	// ErrUserNotFound.
	//
	// Credentials may be called concurrently for different keys. ctx has the
	// values of a caller's context, and ends after RefreshTimeout. nil: a session
	// that ends stays ended.
	Credentials func(ctx context.Context, key string, cause error) (Credentials, error)

	// Observe is called after each event. It may be called concurrently. Logins
	// and refreshes wait for it, so it must not block, and it must not call
	// methods of the Sessions. LogEvents returns one that logs. nil: events are
	// dropped.
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

// Sandbox returns the BaseURL of a tenant's sandbox. The tenant is a name without a
// domain: Sandbox("acme") is "https://acme.fincode.software/api/v6/services".
func Sandbox(tenant string) string {
	return "https://" + url.PathEscape(tenant) + sandboxDomain + "/api/v6/services"
}

// Production returns the BaseURL of a tenant's production. The domain is a name
// without FinCode's: Production("acme") is
// "https://acme.fincode.tech/api/v6/services".
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
	cfg      Config // complete: defaults have replaced its zero values
	endpoint *endpoint
	sessions *table
	flights  singleflight.Group // by session key
	started  time.Time          // session.earlyAt counts from then
	passed   passedOnce

	// These are time.Now and rand.Float64, except in a simulation.
	now    func() time.Time
	random func() float64

	mu     sync.Mutex // guards what follows
	closed bool
	work   sync.WaitGroup // counts the pins of all sessions; after Close, only pinToo adds to it

	closing   chan struct{} // closed by Close
	abandoned chan struct{} // closed when the context of a Close ends
}

// New returns the Sessions that cfg describes, or an error that says what to change
// in cfg. It calls neither the store nor FinCode.
func New(cfg Config) (*Sessions, error) {
	return newOn(cfg, time.Now, rand.Float64)
}

// newOn is New with the clock and the random numbers of a simulation.
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

// complete checks c, copies its maps and slices, and replaces zero values by their
// defaults.
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
	}
	if err := cmp.Or(c.TokenHeaders.check(), checkHeader("Header", c.Header), checkHeader("ExtraHeader", c.ExtraHeader)); err != nil {
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

// merged returns a copy of header with the fields of extra. A nil header stands for
// DefaultHeader.
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
		return fmt.Errorf("the Store is a nil %T: make it with its constructor", s)
	}
	if c, ok := s.(interface{ check() error }); ok {
		return c.check()
	}
	return nil
}

// isNil reports whether v is nil, or is a nil pointer, function, map, slice or channel.
func isNil(v any) bool {
	switch r := reflect.ValueOf(v); r.Kind() {
	case reflect.Invalid:
		return true
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

// WithSession returns a context that names the session under key. A Transport or a
// TokenSource that was made for the key "" uses that session. One that was made for
// another key ignores it. The context remembers where it found the session, so use
// one context for many requests of one user, if you can.
func WithSession(ctx context.Context, key string) context.Context {
	return &sessionContext{Context: ctx, place: place{key: key}}
}

// A sessionContext is like a context.WithValue whose value is a place. It costs one
// allocation less.
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
		BaseURL:      a.cfg.BaseURL,
		Base:         a.cfg.Base,
		Header:       a.cfg.Header.Clone(), // the caller may change it before the first request
		RequestID:    a.cfg.RequestID,
		TokenHeaders: a.cfg.TokenHeaders,
		Hosts:        slices.Clone(a.cfg.Hosts),
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
// ctx ends the wait for the store and for FinCode. Once FinCode has answered, the
// token is kept even if ctx has ended.
func (a *Sessions) Login(ctx context.Context, key string, c Credentials) error {
	if err := c.check(); err != nil {
		return fmt.Errorf("fincodeauth: login: %w", err)
	}
	return a.begin(ctx, key, LoggedIn, func(ctx context.Context) (*oauth2.Token, error) {
		return a.endpoint.login(ctx, c)
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

// begin begins a session under key with the token that obtain returns.
func (a *Sessions) begin(ctx context.Context, key string, event EventType, obtain func(context.Context) (*oauth2.Token, error)) error {
	fail := func(err error) error {
		return fmt.Errorf("fincodeauth: session %q: %w", key, err)
	}
	s, err := a.pinned(key)
	if err != nil {
		return fail(err)
	}
	defer s.unpin()
	// The store comes before FinCode, because a token that cannot be saved is useless.
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
// If the access token has expired or was revoked, Logout refreshes it first. If there
// is no session, Logout returns nil.
//
// Test the error for ErrClosed. An *EndpointError, or an error of the connection,
// means that the session is gone, but FinCode may not know it. An error of the store
// means that the session is still there, or may be: call Logout again, or Forget if
// the record is damaged.
//
// ctx ends only the first wait, in which the store loads the record. RefreshTimeout
// limits each call after that.
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
// If the record can be loaded, call Logout instead. If a refresh is under way, it
// goes on, and the tokens that it receives are revoked.
//
// Test the error for ErrClosed. An error of the store means that the record is still
// there, or may be: call Forget again. ctx ends the wait for a Load or a Delete of
// the store, but not for a Save, which RefreshTimeout limits.
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

// Close stops refreshing. It waits until the calls that are under way have ended and
// every rotated token is saved. Give ctx a deadline: without one, Close waits as
// long as the store is down. If ctx has already ended, Close waits for one second.
//
// If ctx ends first, Close returns an error that wraps the cause of that end. Close
// then gives up the changes that are not saved. The error names their sessions,
// whose users must log in again, and wraps the store's last error. If everything is
// saved, the error names the sessions with calls under way: a token that such a call
// receives is lost. These calls end within RefreshTimeout, or within a few times
// RefreshTimeout if the store is slow, too.
//
// After Close, requests, Login, Adopt, Logout and Forget return ErrClosed. Close may
// be called again.
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
		s.withdraw(s.currentEra())
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
		busy := a.busy()
		if len(busy) == 0 { // the last call has just ended
			return fmt.Errorf("fincodeauth: close: %w", cause)
		}
		return fmt.Errorf("fincodeauth: close: calls to FinCode or the store for %q are still under way, and what they achieve may be lost: %w", busy, cause)
	}
}

// busy returns the keys of sessions with calls under way, at most ten.
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

// lost returns an error that names the sessions whose last change is not saved, and
// says why; nil if there are none. cause is why this Close stopped waiting; nil: it
// did not, but an earlier Close gave the sessions up.
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
	return fmt.Errorf("the store did not accept the last change of %d session(s), whose users must log in again: %q: %w: the store's last error: %w",
		len(keys), keys[:min(len(keys), 10)], cmp.Or(cause, ErrClosed), refused[keys[0]])
}

// abandon makes the goroutines that still save changes give up.
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

// String returns the BaseURL, and nothing of the sessions.
func (a *Sessions) String() string { return "Sessions(" + a.cfg.BaseURL + ")" }

// Format prints what String returns, whatever the verb.
func (a *Sessions) Format(f fmt.State, _ rune) { fmt.Fprint(f, a.String()) }

// since returns how long ago t was, by the monotonic clock. t must be from a.now.
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

// session returns key's session. If it is not in memory, session adds it.
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

// pinned pins key's session and returns it. The caller must unpin it.
func (a *Sessions) pinned(key string) (*session, error) {
	if err := a.check(); err != nil {
		return nil, err
	}
	if key == "" {
		return nil, errors.New("the key is empty: use the name of an account, or the ID of a user")
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
