package fincodeauth

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/oauth2"
)

// A TokenSource returns a session's access token, and refreshes it before it
// expires. It is an oauth2.TokenSource. Make it with Sessions.TokenSource. It is safe
// for concurrent use. Its errors wrap a *SessionError if a login is needed,
// ErrClosed, an *EndpointError, or the error of the connection, the store, the
// context or Config.Credentials.
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
	s, err := ts.session(ctx)
	if err != nil {
		return nil, err
	}
	if l := s.lease.Load(); l != nil {
		now := ts.all.now()
		switch wall := now.UnixNano(); {
		case wall < l.refreshAt:
			return l.token, nil
		case wall < l.expireAt:
			s.refreshEarly(ctx, now)
			return l.token, nil
		}
	}
	return s.await(ctx)
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
	tok, err := ts.TokenContext(ctx)
	if err != nil || rejected != nil && rejected.AccessToken != tok.AccessToken {
		return tok, err
	}
	next := tok
	for range 2 { // the first refresh may have begun before the rejection, or the session may have been dropped after it
		s, err := ts.session(ctx)
		if err != nil || !s.reject(next) {
			return next, err
		}
		if next, err = s.await(ctx); err != nil || next.AccessToken != tok.AccessToken {
			return next, err
		}
	}
	return next, nil
}

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
	if a == nil || a.cfg.Observe == nil || u.Host == "" || !a.passed.first(originOf(u)) { // without a host, Base refuses it
		return
	}
	var key string
	if p := ts.named(ctx); p != nil {
		key = p.key
	}
	a.observe(Passed, key, 0, fmt.Errorf("requests to %q get no token: this is not the origin of BaseURL, %q, and not one of Hosts over https",
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

// A lease is a token with the times at which something must happen to it. It does
// not change. The times are by the wall clock, in nanoseconds since 1970, because
// the monotonic clock stands still while a machine is suspended.
type lease struct {
	token     *oauth2.Token
	refreshAt int64         // from then on, the token is refreshed in the background
	expireAt  int64         // from then on, callers wait for the next token
	issued    int64         // when the token was issued; if nobody says: when this process got it
	lifetime  time.Duration // 0: unknown
}

// never is a time of a lease that does not come.
const never = math.MaxInt64

// newLease returns the lease of a token that this process got now.
func (a *Sessions) newLease(tok *oauth2.Token) *lease {
	now := a.now()
	l := &lease{token: tok, issued: now.UnixNano(), refreshAt: never, expireAt: never}
	if tok.AccessToken == "" {
		l.refreshAt, l.expireAt = 0, 0
		return l
	}
	end := expiryOf(tok, now)
	if end.IsZero() {
		return l
	}
	l.lifetime = lifetimeOf(tok, end.Sub(now))
	// end may be from a clock that is ahead of ours. But from now on, no token lives
	// longer than its whole lifetime.
	expiry := min(end.UnixNano(), now.Add(l.lifetime).UnixNano())
	l.issued = expiry - int64(l.lifetime)
	// A request takes time to arrive.
	l.expireAt = expiry - int64(min(10*time.Second, l.lifetime/20))
	l.refreshAt = l.expireAt
	if tok.RefreshToken != "" {
		before := min(a.cfg.RefreshBefore, l.lifetime/5)
		before -= time.Duration(a.random() * float64(before) / 10) // so that processes do not all refresh at once
		l.refreshAt = min(expiry-int64(before), l.expireAt)
	}
	return l
}

// expiryOf returns when tok expires; zero: unknown. A token that lost its Expiry on
// its way through a store may still have the exp of its JWT.
func expiryOf(tok *oauth2.Token, now time.Time) time.Time {
	expiry := tok.Expiry
	if expiry.IsZero() {
		if claims := claimsOf(tok.AccessToken); claims.lifetime() > 0 {
			expiry = claims.expiry()
		}
	}
	if expiry.After(now.Add(century)) {
		return time.Time{}
	}
	if epoch := time.Unix(0, 0); !expiry.IsZero() && expiry.Before(epoch) {
		return epoch // nanoseconds before 1970 may overflow, and the token has expired anyway
	}
	return expiry
}

// lifetimeOf returns how long tok lives from its issue to its expiry: what FinCode's
// answer said, or what the JWT says, or else the time that is left.
func lifetimeOf(tok *oauth2.Token, left time.Duration) time.Duration {
	if tok.ExpiresIn > 0 {
		return seconds(float64(tok.ExpiresIn))
	}
	if lifetime := claimsOf(tok.AccessToken).lifetime(); lifetime > 0 {
		return lifetime
	}
	return max(0, left)
}

// valid reports whether the token may be handed out now.
func (l *lease) valid(now time.Time) bool { return l != nil && now.UnixNano() < l.expireAt }

// A session is the state of one key in this process. Its rotation protocol is in
// rotation.go.
//
// A request with a good token reads lease, and takes no lock. mu guards everything
// that changes, except rotation: only a flight uses rotation, and a key has only one
// flight at a time.
//
// There may be a million sessions. So the fields that only sessions in trouble need
// are behind pointers, and the fields that every request needs come first, within
// one cache line of 64 bytes.
type session struct {
	lease   atomic.Pointer[lease] // the token in use, written under mu; nil: there is none, or it is not loaded yet
	used    atomic.Uint64         // when the session was used last, by the table's count
	all     *Sessions
	dropped atomic.Bool // written under mu: the table has no session under this key, or another one
	pins    int32       // guarded by mu: calls, flights and saves under way; above 0, the session is not dropped

	key     string
	earlyAt atomic.Int64 // no early refresh before then, counted from all.started

	mu      sync.Mutex // guards what follows; never held during a call to the store or FinCode
	era     uint32     // how often Login, Adopt, Logout or Forget replaced or ended the session
	out     uint32     // the era that the last Logout or Forget began
	pending *pending   // the change that is not saved yet; nil: everything is saved
	strikes *strikes   // nil: the API rejected no token, and no Logout failed

	rotation *rotation // nil: there is no flight, and nothing to remember
}

var errDropped = errors.New("dropped from memory")

// pin keeps the session in memory, and makes Close wait, until unpin. It returns
// ErrClosed after Close, or errDropped if the session has to be looked up again.
func (s *session) pin() error {
	if err := s.all.enlist(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dropped.Load() {
		s.all.work.Done()
		return errDropped
	}
	s.pins++
	return nil
}

// pinToo pins a session that is pinned already.
func (s *session) pinToo() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all.work.Add(1)
	s.pins++
}

func (s *session) isPinned() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pins > 0
}

func (s *session) unpin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pins--
	s.all.work.Done()
}

// drop marks the session as dropped. It returns false, and does nothing, if the
// session is pinned or knows something that its store does not.
func (s *session) drop() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pins > 0 || s.pending != nil || s.remembers(s.all.now()) {
		return false
	}
	s.dropped.Store(true)
	return true
}

// remembers reports whether the session still needs something that only memory has:
// when FinCode may be called again; its own claim, and what FinCode said; or that the
// API rejects every token of the session. A claim is kept for an hour, because after
// an outage there may be many claims whose users never come back. Later it is taken
// over like the claim of a dead process. mu is held.
func (s *session) remembers(now time.Time) bool {
	if r := s.rotation; r != nil && (now.Before(r.retryAt) || r.mine != nil && now.Sub(r.mine.since) < time.Hour) {
		return true
	}
	return s.strikes != nil && s.strikes.count > 0 && s.lease.Load().valid(now)
}

// earlyPause is the shortest time between two attempts at an early refresh.
const earlyPause = 100 * time.Millisecond

// refreshEarly starts a refresh while the token is still good, unless another caller
// has just done that.
func (s *session) refreshEarly(ctx context.Context, now time.Time) {
	at, since := s.earlyAt.Load(), int64(now.Sub(s.all.started))
	if since >= at && s.earlyAt.CompareAndSwap(at, since+int64(earlyPause)) {
		s.fly(ctx)
	}
}

// await waits for the flight that is under way, or starts one.
func (s *session) await(ctx context.Context) (*oauth2.Token, error) {
	for {
		if ctx.Err() != nil {
			return nil, s.left(ctx)
		}
		select {
		case flown := <-s.fly(ctx):
			switch got, _ := flown.Val.(landing); {
			case flown.Err == errDropped:
				s = s.all.session(s.key)
			case flown.Err != nil:
				return nil, flown.Err
			case !s.isReplacedSince(got):
				return got.token, got.err
			}
		case <-ctx.Done():
			return nil, s.left(ctx)
		}
	}
}

// isReplacedSince reports whether a Login, an Adopt, a Logout or a Forget came after
// the state that the flight reports. A caller that came after that must not get the
// flight's result.
func (s *session) isReplacedSince(got landing) bool {
	if got.err != nil {
		return got.era != s.currentEra()
	}
	l := s.lease.Load()
	return l == nil || l.token != got.token
}

// left returns the error of a caller whose context has ended.
func (s *session) left(ctx context.Context) error {
	err := ctx.Err()
	if cause := context.Cause(ctx); cause != err {
		err = fmt.Errorf("%w: %w", err, cause)
	}
	return fmt.Errorf("fincodeauth: session %q: waiting for a token: %w", s.key, err)
}

// reject notes that the API answered 401 to tok, and reports whether a refresh may
// help. It does not help if nothing can refresh the token, or if the token is
// younger than min(10 s, lifetime/10). Each strike doubles that age, up to the
// lifetime.
func (s *session) reject(tok *oauth2.Token) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.lease.Load()
	if l == nil || l.token.AccessToken != tok.AccessToken {
		return true
	}
	if tok.RefreshToken == "" && s.all.cfg.Credentials == nil {
		return false
	}
	k := s.writableStrikes()
	if age := time.Duration(s.all.now().UnixNano() - l.issued); age >= 0 && age < l.youth(k.count) {
		return false
	}
	k.rejected = tok.AccessToken
	return true
}

// writableStrikes returns the session's strikes for a change. It makes them if there
// are none. mu is held.
func (s *session) writableStrikes() *strikes {
	if s.strikes == nil {
		s.strikes = new(strikes)
	}
	return s.strikes
}

// youth returns the age below which a rejected token is not refreshed.
func (l *lease) youth(strikes int) time.Duration {
	lifetime := l.lifetime
	if lifetime == 0 {
		lifetime = time.Hour // FINCODE.md, Tokens
	}
	youth := min(10*time.Second, lifetime/10)
	for range strikes {
		youth = min(2*youth, lifetime)
	}
	return youth
}

// Strikes count the replays that the API rejected since it last accepted one. An
// endpoint that rejects every token would cost a rotation for each request, and each
// rotation would make other requests replay, too. Each token counts once. If one
// replay with a token was accepted and another was rejected, the rejection counts.
type strikes struct {
	count   int
	struck  string // the last token with which a replay was rejected
	cleared string // the last token with which a replay was accepted
	before  int    // the count before that replay

	rejected string // the access token in use, if the API rejected it

	retiring *retiring // a Logout that may not have told FinCode; few sessions have one, so it is here; nil: none
}

func (k *strikes) replayed(token string, accepted bool) {
	switch {
	case token == k.struck:
	case accepted && token != k.cleared:
		k.cleared, k.before, k.count = token, k.count, 0
	case !accepted:
		if token == k.cleared {
			k.count = k.before
		}
		k.count++
		k.struck = token
	}
}

// replayed notes whether the API accepted a request that was sent again with tok.
func (s *session) replayed(tok *oauth2.Token, accepted bool) {
	s.mu.Lock()
	s.writableStrikes().replayed(tok.AccessToken, accepted)
	s.mu.Unlock()
	s.all.observe(Replayed, s.key, 0, nil)
}

// currentEra returns the session's era. The result of a call that began in one era
// is not put into use in another.
func (s *session) currentEra() uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.era
}

// unsaved returns the change that is not saved yet, nil if everything is saved.
func (s *session) unsaved() *pending {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pending
}

// errNoAnswer is used as the store's last error while the store has not returned one.
var errNoAnswer = errors.New("none, it has not answered yet")

// refusal returns the store's last error for the change that is not saved.
func (s *session) refusal() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pending == nil || s.pending.refused == nil {
		return errNoAnswer
	}
	return s.pending.refused
}

// isRejected reports whether the API rejected tok.
func (s *session) isRejected(tok *oauth2.Token) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.strikes != nil && s.strikes.rejected != "" && s.strikes.rejected == tok.AccessToken
}

// good returns the lease if its token is valid and the API did not reject it, else
// nil.
func (s *session) good() *lease {
	if l := s.lease.Load(); l.valid(s.all.now()) && !s.isRejected(l.token) {
		return l
	}
	return nil
}

// install puts l into use, and p, if it is not nil, into pending. It returns false,
// and does nothing, if the era has passed.
func (s *session) install(era uint32, l *lease, p *pending) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.era != era {
		return false
	}
	s.put(l)
	if p != nil {
		s.pending = p
	}
	return true
}

// renew begins a new era with l and p. A nil l means a Logout or a Forget.
func (s *session) renew(l *lease, p *pending) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.beginEra(l, p)
}

// beginEra is renew; mu is held.
func (s *session) beginEra(l *lease, p *pending) {
	s.era++
	if l == nil {
		s.out = s.era
	}
	s.strikes = nil
	s.put(l)
	s.pending = p
	if p != nil {
		p.era = s.era
	}
}

// put writes the lease, or nil after Close. mu is held.
func (s *session) put(l *lease) {
	if s.all.isClosing() {
		l = nil
	}
	s.lease.Store(l)
	if s.strikes != nil {
		s.strikes.rejected = ""
	}
	s.earlyAt.Store(0)
}

// withdraw takes the token out of use. It returns false, and does nothing, if the era
// has passed.
func (s *session) withdraw(era uint32) bool {
	return s.install(era, nil, nil)
}
