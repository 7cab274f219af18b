package fincodeauth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/sync/singleflight"
)

// The rotation protocol. A refresh token works once, so whoever is about to
// present one first claims it in the store, with a compare-and-swap:
//
//	load -> adopt a token that somebody else got
//	     -> wait for the one who is presenting it, or take over from the dead
//	     -> claim -> present -> keep the successor
//
// One flight a key is under way in a process, and only it uses session.rotation.
// Nothing here runs on a caller's context: that may end while a token is on its
// way.

// A rotation is what a session remembers from one flight to the next.
type rotation struct {
	era  uint32 // what follows belongs to it
	mine *claim // the last claim of this process, as long as it may be in the store

	// Another's claim, and since when we see it: on our monotonic clock, for no
	// two clocks are compared.
	seen      string
	seenSince time.Time

	// unwritable: the store failed to take a claim of ours. Then it did not take
	// the token of the owner of an older claim either.
	unwritable bool

	failures int       // calls to FinCode that failed in a row
	retryAt  time.Time // no call before then
	err      error     // of the last call; nil: it succeeded
}

// isEmpty tells whether there is nothing to remember.
func (r *rotation) isEmpty() bool {
	return r.mine == nil && r.seen == "" && !r.unwritable && r.failures == 0
}

// A claim is a process's right to present a refresh token.
type claim struct {
	version string    // of the record that carries it
	over    string    // the version that it replaces
	renewal bool      // and that is a claim of this process, too
	since   time.Time // begun to be saved
	landed  bool      // it is known to be in the store

	// interrupted: somebody may have presented the token before and the
	// outcome is unknown; if it turns out to be used, that is why.
	interrupted bool

	// verdict is FinCode's on the refresh token, once there: it is dead and is
	// not presented again.
	verdict error

	// credentials are those to log in with after the verdict, once asked for.
	credentials *Credentials
}

const (
	pollMin      = 25 * time.Millisecond // how often another's claim is looked at
	pollMax      = 500 * time.Millisecond
	backoffMin   = time.Second      // before a failed call is tried again
	backoffMax   = 48 * time.Second // and with the jitter, 1 min
	backoffAsked = time.Hour        // the most of a Retry-After that is honoured
	saveWait     = time.Second      // how long the callers of a refresh wait for its save
	saveRetryMin = 100 * time.Millisecond
	saveRetryMax = 5 * time.Second
)

// errUnsaved: a token that expired before the store took it has no successor yet.
var errUnsaved = errors.New("the store has not taken the last token yet")

// errAgain: what was known of the record is out of date; back to step 1.
var errAgain = errors.New("the record changed")

// errStale: Load shows a record that Save says was replaced, which a Store must not.
var errStale = errors.New("the store loads a record that was replaced: have it read where it writes")

// A landing is what a flight brings: a token that is good now, or why there is
// none, in the era in which it looked.
type landing struct {
	era   uint32
	token *oauth2.Token
	err   error
}

// fly joins the flight that is under way, or starts one with the values of ctx.
// It brings a landing.
func (s *session) fly(ctx context.Context) <-chan singleflight.Result {
	return s.all.flights.DoChan(s.key, func() (any, error) {
		if err := s.pin(); err != nil {
			if err == ErrClosed {
				err = fmt.Errorf("fincodeauth: session %q: %w", s.key, err)
			}
			return nil, err
		}
		defer s.unpin()
		return s.refresh(context.WithoutCancel(ctx)), nil
	})
}

// refresh sees to it that a refresh that is due is made.
func (s *session) refresh(ctx context.Context) landing {
	if s.rotation == nil {
		s.rotation = new(rotation)
	}
	defer func() {
		if s.rotation.isEmpty() {
			s.rotation = nil
		}
	}()
	started := s.all.now()
	p := patience{since: started, pause: pollMin}
	l, err := s.rotate(ctx, &p)
	here := landing{era: s.rotation.era, err: err}
	if err == nil {
		here.token = l.token
		return here
	}
	if _, ended := errors.AsType[*SessionError](err); ended {
		return here
	}
	s.later(backoffMin)
	if !p.told && s.unsaved() == nil { // of what is unsaved, SaveFailed tells
		s.all.observe(RefreshFailed, s.key, s.all.since(started), err)
	}
	here.err = s.failed(err)
	return here
}

// failed dresses an error for callers.
func (s *session) failed(err error) error {
	return fmt.Errorf("fincodeauth: refreshing session %q: %w", s.key, err)
}

// rotate follows the protocol until there is a good token.
func (s *session) rotate(ctx context.Context, p *patience) (*lease, error) {
	defer s.forgetCredentials()
	for {
		era := s.enter()
		p.told = false
		l, err := s.follow(ctx, era, p)
		switch {
		case l.valid(s.all.now()):
			return l, nil
		case l != nil && p.overslept:
			err := errors.New("received an already expired token")
			s.backOff(err)
			return nil, err
		case l != nil:
			*p = patience{since: s.all.now(), pause: pollMin, overslept: true}
		case err != errAgain && s.currentEra() == era:
			return nil, err
		}
	}
}

// follow goes through the protocol once, step by step.
func (s *session) follow(ctx context.Context, era uint32, p *patience) (*lease, error) {
	if l := s.good(); l != nil && s.all.now().UnixNano() < l.refreshAt {
		return l, nil // an earlier flight, or a Login meanwhile, saw to it
	}
	if unsaved := s.unsaved(); unsaved != nil { // there is nothing to present until the store has it
		p.told = true
		return s.makeDo(unsaved.failed)
	}
	rec, err := s.look(ctx, era)
	if err != nil {
		return nil, err
	}
	if l := s.adopt(era, rec); l != nil {
		return l, nil
	}
	if s.claimedByAnother(rec) && !s.ownerGone(rec) {
		return s.standBy(rec, p)
	}
	if s.isSpent(p) {
		return nil, errors.New("could not claim the refresh")
	}
	if s.all.isClosing() {
		return nil, ErrClosed
	}
	if err := s.heldBack(); err != nil {
		p.told = true // when the call failed
		return nil, err
	}
	if rec.Version == p.lost {
		return nil, s.waitMore(p)
	}
	claimed, err := s.claim(ctx, rec)
	if err != nil {
		p.lost = rec.Version
		return nil, err
	}
	return s.present(ctx, era, claimed)
}

// makeDo returns the token as long as it is good, and looks again later; else
// err.
func (s *session) makeDo(err error) (*lease, error) {
	l := s.good()
	if l == nil {
		return nil, err
	}
	s.later(backoffMin)
	return l, nil
}

// enter returns the session's era; what is remembered of another is not true
// any more.
func (s *session) enter() uint32 {
	era := s.currentEra()
	if s.rotation.era != era {
		*s.rotation = rotation{era: era}
	}
	return era
}

// look is steps 1 and 2: what does everybody know, and did the session end?
func (s *session) look(ctx context.Context, era uint32) (*Record, error) {
	rec, err := s.load(ctx)
	switch {
	case s.currentEra() != era:
		return nil, errAgain // a Login, say: rec may be of either era
	case errors.Is(err, ErrNotFound):
		return nil, s.end(era, &SessionError{Key: s.key, Err: ErrNotFound})
	case err != nil:
		s.rotation.seen = "" // while we cannot read, a claim's owner cannot save
		return nil, err
	case rec.Ended != "":
		return nil, s.end(era, sessionEnded(s.key, rec.Ended))
	}
	return rec, nil
}

// load returns the session's record.
func (s *session) load(ctx context.Context) (*Record, error) {
	return s.loadWithin(ctx, s.all.cfg.RefreshTimeout)
}

func (s *session) loadWithin(ctx context.Context, limit time.Duration) (*Record, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	rec, err := s.all.cfg.Store.Load(ctx, s.key)
	switch {
	case err != nil:
		return nil, fmt.Errorf("loading its record: %w", err)
	case rec.Version == "": // nothing can be saved over it
		return nil, errors.New("its record is damaged, it has no version: restore it, or call Sessions.Forget and log in again")
	case rec.Token == nil:
		rec.Token = &oauth2.Token{}
	}
	return rec, nil
}

// adopt takes the record's token if it is another than ours and good: somebody
// refreshed. It returns nil if not.
func (s *session) adopt(era uint32, rec *Record) *lease {
	if ours := s.lease.Load(); ours != nil && sameTokens(ours.token, rec.Token) {
		return nil
	}
	l := s.all.newLease(rec.Token)
	if !l.valid(s.all.now()) || s.isRejected(l.token) || !s.install(era, l, nil) {
		return nil
	}
	if mine := s.rotation.mine; !mine.is(rec) && !mine.mayLandOver(rec) {
		*s.rotation = rotation{era: era}
	} // else a clock was set back, and what is known of the claim stays true
	s.all.observe(Adopted, s.key, 0, nil)
	return l
}

// end takes the token of a session that needs a login out of use. It returns the
// error that says so, or errAgain if there was one meanwhile.
func (s *session) end(era uint32, why *SessionError) error {
	if !s.forget(era) {
		return errAgain
	}
	*s.rotation = rotation{era: era}
	return why
}

// claimedByAnother is the question of step 3.
func (s *session) claimedByAnother(rec *Record) bool {
	return !rec.RefreshStarted.IsZero() && !s.rotation.mine.is(rec)
}

// is tells whether it is this claim that rec carries, or the one that this was
// to renew.
func (c *claim) is(rec *Record) bool {
	return c != nil && (rec.Version == c.version || c.renewal && rec.Version == c.over)
}

// mayLandOver tells whether rec is the one that this claim was to replace, and may
// yet: its save failed, but a store may be slow.
func (c *claim) mayLandOver(rec *Record) bool {
	return c != nil && !c.landed && rec.Version == c.over
}

// ownerGone tells whether the claim has stood still for so long that its owner
// must be dead: a live one is done or renews it within RefreshTimeout, and the
// half of it that a claim may be old when it is used.
func (s *session) ownerGone(rec *Record) bool {
	r := s.rotation
	if r.seen != rec.Version {
		r.seen, r.seenSince = rec.Version, s.all.now()
	}
	return s.all.since(r.seenSince) >= 2*s.all.cfg.RefreshTimeout
}

// A patience is how long a flight has been waiting for the same thing.
type patience struct {
	since time.Time
	claim string        // of another, that was looked at last
	lost  string        // the version that a claim was not saved over: a store that still shows it is behind
	pause time.Duration // until the next look

	// overslept: a new token had already expired when it was received, because
	// this machine slept meanwhile. That is rare, so there is one more try.
	overslept bool

	// told: an event has told of the error that the flight ends with.
	told bool
}

// isSpent tells whether that is so long that callers are better told.
func (s *session) isSpent(p *patience) bool {
	return s.all.since(p.since) > 3*s.all.cfg.RefreshTimeout
}

// standBy is step 3 while another process is refreshing: its token is used as
// long as it is good, and polled for otherwise.
func (s *session) standBy(rec *Record, p *patience) (*lease, error) {
	if rec.Version != p.claim { // somebody is alive
		p.claim, p.since = rec.Version, s.all.now()
	}
	if l, _ := s.makeDo(errAgain); l != nil {
		return l, nil
	}
	if s.isSpent(p) {
		return nil, errors.New("another process is refreshing it")
	}
	return nil, s.waitMore(p)
}

// waitMore waits, each time longer, and returns errAgain, or ErrClosed.
func (s *session) waitMore(p *patience) error {
	if err := s.pauseFor(s.all.jittered(p.pause)); err != nil {
		return err
	}
	p.pause = min(2*p.pause, pollMax)
	return errAgain
}

// claim is step 4: it saves that this process is about to present the record's
// refresh token, over its own claim, or, as a takeover, over that of a dead
// one. It returns errAgain if somebody was faster.
func (s *session) claim(ctx context.Context, rec *Record) (*Record, error) {
	last := s.rotation.mine
	next := &claim{version: newVersion(rec.Version), over: rec.Version, since: s.all.now(), interrupted: !rec.RefreshStarted.IsZero()}
	if last.is(rec) {
		next.renewal = true
		next.interrupted, next.verdict, next.credentials = last.interrupted, last.verdict, last.credentials
	}
	if last.mayLandOver(rec) {
		next.version = last.version // it must be known as ours
	}
	s.rotation.mine = next
	claimed := rec.clone()
	claimed.Version = next.version
	claimed.RefreshStarted = next.since.UTC()
	err := s.save(ctx, s.all.cfg.RefreshTimeout, claimed, rec.Version)
	switch {
	case errors.Is(err, ErrConflict):
		return nil, errAgain
	case err != nil:
		s.rotation.unwritable = true
		return nil, fmt.Errorf("claiming the refresh: %w", err)
	}
	next.landed = true
	switch {
	case s.all.isClosing():
		s.release(ctx, claimed)
		return nil, ErrClosed
	case s.rotation.unwritable && next.interrupted:
		s.rotation.unwritable = false
		return nil, s.yield()
	case s.isOld(next):
		return nil, errAgain
	}
	return claimed, nil
}

// yield lets the owner of a claim that was taken over save, over ours, a token
// that the store did not take before.
func (s *session) yield() error {
	if err := s.pauseFor(saveRetryMax + saveWait); err != nil {
		return err
	}
	return errAgain
}

// isOld tells whether a claim is so old that, when a call made under it ends,
// others might have taken it over: it is to be renewed first.
func (s *session) isOld(c *claim) bool {
	now := s.all.now()
	// The monotonic clock stands still while the machine is suspended.
	age := max(now.Sub(c.since), now.Round(0).Sub(c.since.Round(0)))
	return age > s.all.cfg.RefreshTimeout/2
}

// save saves rec over the version prev, and settles an unknown outcome by a
// Load (step 6). Each of them may take as long as limit.
func (s *session) save(ctx context.Context, limit time.Duration, rec *Record, prev string) error {
	saving, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err := s.all.cfg.Store.Save(saving, s.key, rec, prev)
	if err == nil || errors.Is(err, ErrConflict) {
		return err
	}
	if there, loadErr := s.loadWithin(ctx, limit); loadErr == nil && there.Version == rec.Version {
		return nil
	}
	return err
}

// present is step 5: the refresh token goes to FinCode, once, unless its
// verdict is known.
func (s *session) present(ctx context.Context, era uint32, claimed *Record) (*lease, error) {
	mine := s.rotation.mine
	if mine.verdict == nil && claimed.Token.RefreshToken == "" {
		mine.verdict, mine.interrupted = errors.New("there is no refresh token"), false // which nobody presented
	}
	if mine.verdict == nil {
		started := s.all.now()
		tok, err := s.all.endpoint.refresh(ctx, claimed.Token)
		if err == nil {
			return s.succeed(ctx, era, claimed, tok, Refreshed, started)
		}
		switch outcomeOf(err) {
		case notSent:
			s.backOff(err)
			s.release(ctx, claimed)
			return nil, err
		case unknown:
			s.backOff(err)
			mine.interrupted = true
			return nil, err
		}
		mine.verdict = err
	}
	return s.conclude(ctx, era, claimed)
}

// succeed puts a new token into use and saves it over the claim.
func (s *session) succeed(ctx context.Context, era uint32, claimed *Record, tok *oauth2.Token, how EventType, started time.Time) (*lease, error) {
	*s.rotation = rotation{era: era}
	l := s.all.newLease(tok)
	p := &pending{
		era:    era,
		rec:    &Record{Version: newVersion(claimed.Version), Token: tok},
		prev:   claimed.Version,
		over:   claimed.Token,
		failed: errUnsaved,
	}
	s.all.observe(how, s.key, s.all.since(started), nil)
	installed := s.install(era, l, p)
	kept := s.keep(ctx, p)
	if !installed || !kept || s.currentEra() != era {
		return nil, errAgain
	}
	return l, nil
}

// release gives the claim back after an attempt that surely did no harm. A
// claim that follows an unknown outcome stays: whoever presents the token next
// must know of it. If FinCode has refused the token, the record is given back
// without it.
func (s *session) release(ctx context.Context, claimed *Record) {
	if s.rotation.mine.interrupted {
		return
	}
	free := claimed.clone()
	free.Version = newVersion(claimed.Version)
	free.RefreshStarted = time.Time{}
	if s.rotation.mine.verdict != nil && free.Token.AccessToken != "" {
		free.Token.RefreshToken = "" // it was refused: nobody is to ask again
	}
	if s.save(ctx, s.all.cfg.RefreshTimeout, free, claimed.Version) == nil {
		s.rotation.mine = nil
	} // else the claim is still known as ours
}

// conclude acts on FinCode's verdict, unless the record is not ours any more.
func (s *session) conclude(ctx context.Context, era uint32, claimed *Record) (*lease, error) {
	mine := s.rotation.mine
	answer, _ := errors.AsType[*EndpointError](mine.verdict)
	reused := answer != nil && answer.verdict() == http.StatusForbidden
	verdict := refusalOf(s.key, mine.verdict, reused, mine.interrupted)
	breach := reused && !mine.interrupted
	there, err := s.load(ctx)
	switch {
	case errors.Is(err, ErrNotFound), err == nil && there.Version != mine.version:
		return nil, errAgain
	case s.all.cfg.Credentials == nil, breach:
		// Even if the Load failed: the verdict must not be forgotten, and the
		// compare-and-swap asks the same.
		return nil, s.saveEnd(ctx, era, claimed, verdict)
	case err != nil:
		return nil, err
	}
	return s.logInAgain(ctx, era, claimed, verdict)
}

// logInAgain logs in with Config.Credentials while it holds the claim, so that
// one process does.
func (s *session) logInAgain(ctx context.Context, era uint32, claimed *Record, cause *SessionError) (*lease, error) {
	mine := s.rotation.mine
	if err := s.mayLogIn(ctx, claimed); err != nil {
		return nil, err
	}
	err := s.ask(ctx, cause)
	if err == nil {
		if err := s.mayLogIn(ctx, claimed); err != nil { // to ask took time
			return nil, err
		}
		started := s.all.now()
		var tok *oauth2.Token
		if tok, err = s.all.endpoint.login(ctx, *mine.credentials); err == nil {
			return s.succeed(ctx, era, claimed, tok, LoggedIn, started)
		}
		mine.credentials = nil
	}
	if errors.Is(err, ErrLoginRequired) { // Credentials declined
		return nil, s.saveEnd(ctx, era, claimed, cause)
	}
	err = fmt.Errorf("logging in again: %w", err)
	for _, final := range []error{ErrBadCredentials, ErrAccountLocked, ErrUserNotFound} {
		if errors.Is(err, final) {
			cause.Err = fmt.Errorf("%w; %w", cause.Err, err)
			return nil, s.saveEnd(ctx, era, claimed, cause)
		}
	}
	s.backOff(err)
	return nil, err
}

// mayLogIn returns errAgain if the claim is to be renewed first, and ErrClosed if
// there are to be no more calls. What is known of the token stays known.
func (s *session) mayLogIn(ctx context.Context, claimed *Record) error {
	switch {
	case s.all.isClosing():
		s.release(ctx, claimed)
		return ErrClosed
	case s.isOld(s.rotation.mine):
		return errAgain
	}
	return nil
}

// forgetCredentials drops a password at the end of the flight that asked for it.
func (s *session) forgetCredentials() {
	if mine := s.rotation.mine; mine != nil {
		mine.credentials = nil
	}
}

// ask asks Config.Credentials, unless it was asked.
func (s *session) ask(ctx context.Context, cause *SessionError) error {
	if s.rotation.mine.credentials != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.all.cfg.RefreshTimeout)
	defer cancel()
	c, err := s.all.cfg.Credentials(ctx, s.key, cause)
	if err == nil {
		err = c.check()
	}
	if err == nil {
		s.rotation.mine.credentials = &c
	}
	return err
}

// saveEnd saves that the session ended, with its tokens cleared. Until that is
// saved nobody is told: who slept through a takeover may be wrong about it.
func (s *session) saveEnd(ctx context.Context, era uint32, claimed *Record, why *SessionError) error {
	p := &pending{
		era:    era,
		rec:    &Record{Version: newVersion(claimed.Version), Token: &oauth2.Token{}, Ended: why.Err.Error()},
		prev:   claimed.Version,
		over:   claimed.Token,
		ended:  why,
		failed: fmt.Errorf("%w; whether another process has a newer one, the store does not tell yet", why.Err),
	}
	*s.rotation = rotation{era: era}
	switch {
	case !s.install(era, nil, p), !s.keep(ctx, p), s.currentEra() != era:
		return errAgain
	case s.unsaved() == p:
		return p.failed
	}
	return why
}

// backOff notes that a call to FinCode failed: the next one is made no sooner
// than in 1 s, doubled with each failure up to 1 min, or than FinCode asked.
func (s *session) backOff(err error) {
	r := s.rotation
	delay := s.all.jittered(min(backoffMin<<min(r.failures, 6), backoffMax) * 5 / 4)
	if e, ok := errors.AsType[*EndpointError](err); ok && e.RetryAfter > 0 {
		delay = min(e.RetryAfter, backoffAsked)
	}
	r.failures++
	r.err = err
	r.retryAt = s.all.now().Add(delay)
	s.later(delay)
}

// heldBack returns the error of the last call while it is too early for the
// next.
func (s *session) heldBack() error {
	if r := s.rotation; s.all.now().Before(r.retryAt) {
		return r.err
	}
	return nil
}

// later puts off the next refresh of a token that is still good.
func (s *session) later(delay time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.era != s.rotation.era {
		return // it is not about the token in use
	}
	at := int64(s.all.since(s.all.started) + delay)
	if at > s.earlyAt.Load() {
		s.earlyAt.Store(at)
	}
}

// pauseFor waits, or returns ErrClosed.
func (s *session) pauseFor(d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-s.all.closing:
		return ErrClosed
	}
}
