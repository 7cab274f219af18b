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

// A TokenSource hands out a session's access token, and has it refreshed before
// it expires. It is an oauth2.TokenSource, made by Sessions.TokenSource, and
// safe for concurrent use. Its errors wrap a *SessionError if a login is needed,
// ErrClosed, an *EndpointError, or the error of the store or of the context.
type TokenSource struct {
	all   *Sessions
	place place // with the key "": the context's
}

// Token implements oauth2.TokenSource. It is TokenContext without a context, so it
// waits as long as a refresh takes: for another process as long as that one is
// refreshing, or twice RefreshTimeout if it died, and then for a refresh of its
// own. A source for the key "" returns an error: Token has no context that could
// name the session.
//
// The token holds the refresh token, too: do not log it or send it anywhere. It
// is shared: do not modify it.
func (ts *TokenSource) Token() (*oauth2.Token, error) {
	if ts.place.key == "" && ts.check() == nil {
		return nil, errors.New("fincodeauth: Token has no context to take the session's key from: call TokenContext, or make the source with Sessions.TokenSource(key)")
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

// Refresh returns a token other than rejected, which the API answered with 401:
// the current one if it is another already, else the next one, as soon as it is
// there. A token so young that its age cannot be why it was rejected is not
// refreshed and returned itself, as is one that cannot be refreshed. A nil
// rejected stands for the current token.
func (ts *TokenSource) Refresh(ctx context.Context, rejected *oauth2.Token) (*oauth2.Token, error) {
	tok, err := ts.TokenContext(ctx)
	if err != nil || rejected != nil && rejected.AccessToken != tok.AccessToken {
		return tok, err
	}
	next := tok
	for range 2 { // a refresh may have begun before the rejection, or the session be dropped after it, which forgets it
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

// replayed tells the session how a request fared that was sent again with tok.
func (ts *TokenSource) replayed(ctx context.Context, tok *oauth2.Token, accepted bool) {
	if s, err := ts.session(ctx); err == nil {
		s.replayed(tok, accepted)
	}
}

// passed tells, once an origin, that a request to u went without a token.
func (ts *TokenSource) passed(ctx context.Context, u *url.URL) {
	a := ts.all
	if a.cfg.Observe == nil || !a.passed.first(originOf(u)) {
		return
	}
	key := ts.place.key
	if p, ok := ctx.Value(sessionKey{}).(*place); ok && key == "" {
		key = p.key
	}
	a.observe(Passed, key, 0, fmt.Errorf("requests to %q go without a token: neither BaseURL, %q, nor Hosts has this origin",
		u.Scheme+"://"+u.Host, a.cfg.BaseURL))
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
	if ts.all == nil || ts.all.sessions == nil {
		return nil, fmt.Errorf("fincodeauth: %w", ts.check())
	}
	if ts.place.key != "" {
		return ts.all.at(&ts.place), nil
	}
	p, ok := ctx.Value(sessionKey{}).(*place)
	if !ok || p.key == "" {
		return nil, errors.New("fincodeauth: no session: put its key into the request's context with WithSession")
	}
	return ts.all.at(p), nil
}

// String names the session without its tokens.
func (ts *TokenSource) String() string { return fmt.Sprintf("TokenSource(%q)", ts.place.key) }

// Format prints what String returns, whatever the verb.
func (ts *TokenSource) Format(f fmt.State, _ rune) { fmt.Fprint(f, ts.String()) }

// A lease is a token and when to do what about it. It is immutable. Instants
// are wall clock, in nanoseconds since 1970: a machine that slept finds its
// token expired, which the monotonic clock would not say.
type lease struct {
	token     *oauth2.Token
	refreshAt int64 // from then on it is refreshed in the background
	expireAt  int64 // from then on callers wait
	issued    int64
	lifetime  time.Duration // 0: unknown
}

// never is an instant that no clock reaches.
const never = math.MaxInt64

// newLease schedules tok.
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
	// It lives no longer from now on than in all, whatever clock end was read on.
	expiry := min(end.UnixNano(), now.Add(l.lifetime).UnixNano())
	l.issued = expiry - int64(l.lifetime)
	// A request takes time to arrive.
	l.expireAt = expiry - int64(min(10*time.Second, l.lifetime/20))
	l.refreshAt = l.expireAt
	if tok.RefreshToken != "" {
		before := min(a.cfg.RefreshBefore, l.lifetime/5)
		before -= time.Duration(a.random() * float64(before) / 10) // so that processes spread
		l.refreshAt = min(expiry-int64(before), l.expireAt)
	}
	return l
}

// expiryOf is when tok expires, as it says or, if it lost that on its way
// through a store, its JWT does; zero: unknown.
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
		return epoch // just as long over, and nanoseconds count from there
	}
	return expiry
}

// lifetimeOf is how long tok lives from its issue on, as the answer it came
// with said, or the token itself; else what is left of it.
func lifetimeOf(tok *oauth2.Token, left time.Duration) time.Duration {
	if tok.ExpiresIn > 0 {
		return seconds(float64(tok.ExpiresIn))
	}
	if lifetime := claimsOf(tok.AccessToken).lifetime(); lifetime > 0 {
		return lifetime
	}
	return max(0, left)
}

// valid tells whether the token may be handed out now.
func (l *lease) valid(now time.Time) bool { return l != nil && now.UnixNano() < l.expireAt }

// A session is one key's state in this process. The rotation protocol that it
// follows is in rotation.go. There may be a million: what only sessions in trouble
// need is behind pointers, and what every request needs comes first, in 32 bytes:
// of those the processor fetches 64 at once.
type session struct {
	lease   atomic.Pointer[lease] // the token in use, written under mu; nil: none, or not loaded yet
	used    atomic.Uint64         // when it was used last, by the table's count
	all     *Sessions
	dropped atomic.Bool // set under mu: all holds another under this key, or none
	pins    int32       // under mu: calls, flights and saves under way; not dropped above 0

	key     string
	earlyAt atomic.Int64 // no early refresh before then, since all.started

	mu      sync.Mutex // guards what follows; held during no call
	era     uint32     // counts what replaced or ended the session: Login, Adopt, Logout
	out     uint32     // the era that the last Logout began
	pending *pending   // the token that no store took yet, if any
	strikes *strikes   // nil: the API rejected no token

	rotation *rotation // used by the flight alone, and by drop when there is none; nil: there is nothing to remember
}

var errDropped = errors.New("dropped from memory")

// pin keeps the session in memory, and Close waiting, until unpin. It returns
// ErrClosed, or errDropped: look it up again.
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

func (s *session) unpin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pins--
	s.all.work.Done()
}

// drop marks the session as dropped, unless it is pinned, or has what its store
// does not.
func (s *session) drop() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pins > 0 || s.pending != nil || s.remembers(s.all.now()) {
		return false
	}
	s.dropped.Store(true)
	return true
}

// remembers tells whether the session knows what is needed still, and in no store:
// when FinCode may be called again, that a claim is its own and what came of it,
// or that the API rejects whatever token it has. A claim is forgotten after an
// hour, for there may be many after an outage whose users never come back: it
// is then taken over like that of a dead process. mu is held.
func (s *session) remembers(now time.Time) bool {
	if r := s.rotation; r != nil && (now.Before(r.retryAt) || r.mine != nil && now.Sub(r.mine.since) < time.Hour) {
		return true
	}
	return s.strikes != nil && s.strikes.count > 0 && s.lease.Load().valid(now)
}

// earlyPause is how often a caller looks whether an early refresh is under way.
const earlyPause = 100 * time.Millisecond

// refreshEarly has the token refreshed while it is still good, unless somebody
// saw to that just now.
func (s *session) refreshEarly(ctx context.Context, now time.Time) {
	at, since := s.earlyAt.Load(), int64(now.Sub(s.all.started))
	if since >= at && s.earlyAt.CompareAndSwap(at, since+int64(earlyPause)) {
		s.fly(ctx)
	}
}

// await waits for a flight, its own or the one that is under way.
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

// isReplacedSince tells whether what a flight brought belongs to a session before
// this one: who came after the Login, or the Logout, must not be told of it.
func (s *session) isReplacedSince(got landing) bool {
	if got.err != nil {
		return got.era != s.currentEra()
	}
	l := s.lease.Load()
	return l == nil || l.token != got.token
}

// left is the error of a caller whose context has ended.
func (s *session) left(ctx context.Context) error {
	err := ctx.Err()
	if cause := context.Cause(ctx); cause != err {
		err = fmt.Errorf("%w: %w", err, cause)
	}
	return fmt.Errorf("fincodeauth: session %q: waiting for a token: %w", s.key, err)
}

// reject notes that the API answered tok with 401, and tells whether a refresh
// may help: not if the token is younger than min(10 s, lifetime/10), doubled
// with each strike up to its lifetime, or if there is nothing to refresh it
// with.
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
	k := s.struck()
	if age := time.Duration(s.all.now().UnixNano() - l.issued); age >= 0 && age < l.youth(k.count) {
		return false
	}
	k.rejected = tok.AccessToken
	return true
}

// struck returns the session's strikes, to be changed; mu is held.
func (s *session) struck() *strikes {
	if s.strikes == nil {
		s.strikes = new(strikes)
	}
	return s.strikes
}

// youth is the age below which a rejected token is not refreshed.
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

// Strikes count the replays that were rejected too, since one was accepted: each
// token at most once, and a rejection outweighs what accepted that token before
// or after it. For what rejects every token costs a rotation each time, which
// makes others replay as well.
type strikes struct {
	count   int
	struck  string // the last token that a replay was rejected with
	cleared string // the last token that a replay was accepted with
	before  int    // the count before that

	rejected string // the access token in use, if the API rejected it
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

// replayed notes how a request fared that was sent again with tok.
func (s *session) replayed(tok *oauth2.Token, accepted bool) {
	s.mu.Lock()
	s.struck().replayed(tok.AccessToken, accepted)
	s.mu.Unlock()
	s.all.observe(Replayed, s.key, 0, nil)
}

// currentEra names the session's present incarnation; what was begun in one is
// not installed in another.
func (s *session) currentEra() uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.era
}

// unsaved returns what the store did not take yet, nil if it has everything.
func (s *session) unsaved() *pending {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pending
}

// errNoAnswer stands for the store's error before it has returned one.
var errNoAnswer = errors.New("it has not answered")

// refusal returns the store's last error for what is unsaved.
func (s *session) refusal() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pending == nil || s.pending.refused == nil {
		return errNoAnswer
	}
	return s.pending.refused
}

// isRejected tells whether the API rejected tok.
func (s *session) isRejected(tok *oauth2.Token) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.strikes != nil && s.strikes.rejected != "" && s.strikes.rejected == tok.AccessToken
}

// good returns the lease if its token is valid and was not rejected, else nil.
func (s *session) good() *lease {
	if l := s.lease.Load(); l.valid(s.all.now()) && !s.isRejected(l.token) {
		return l
	}
	return nil
}

// install puts l into use, with what is still to be saved of it, unless the
// era has passed.
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

// renew puts l into use as a new era's, whatever was there.
func (s *session) renew(l *lease, p *pending) {
	s.mu.Lock()
	defer s.mu.Unlock()
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

// put writes the lease; mu is held. Nothing is put into use after Close.
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

// forget takes the token out of use, unless the era has passed.
func (s *session) forget(era uint32) bool {
	return s.install(era, nil, nil)
}
