package fincodeauth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/sync/singleflight"
)

// The rotation protocol. A refresh token works once. So a process claims the token
// in the store, with a compare-and-swap, before it presents the token to FinCode:
//
//	load -> adopt a token that another process received
//	     -> wait for the process that is presenting it, or take over from a dead one
//	     -> claim -> present -> keep the successor
//
// The steps have the numbers of the package comment (doc.go).
//
// In a process, a key has only one flight at a time: singleflight makes sure of
// that. Only the flight uses session.rotation, so rotation needs no lock. A Login, an
// Adopt, a Logout or a Forget may run at the same time. Each of them begins a new era
// of the session. A flight does not put into use what it began in an earlier era.
//
// Nothing here runs on a caller's context, because a caller may leave while a token
// is on its way.

// A rotation is what a flight works with.
type rotation struct {
	flying bool // a flight is under way; guarded by session.mu
	memory      // used by the flight alone, and under session.mu while there is none
}

// A memory is what a session remembers between two flights.
type memory struct {
	era  uint32 // to which all of this belongs
	mine *claim // the last claim of this process; nil: no claim of this process is in the store

	// The version of another process's claim, and when this process first saw it,
	// by its own monotonic clock: clocks of two machines are never compared.
	seen      string
	seenSince time.Time

	// unwritable: the store failed to save a claim of this process. Then it may
	// also have failed to save the new token of the process that owns an older
	// claim.
	unwritable bool

	failures int       // calls to FinCode that failed in a row
	retryAt  time.Time // no call before then
	err      error     // of the last of them
}

// isEmpty reports whether there is nothing to remember.
func (r *memory) isEmpty() bool {
	return r.mine == nil && r.seen == "" && !r.unwritable && r.failures == 0
}

// A claim is a process's right to present a refresh token.
type claim struct {
	version string    // of the record that carries it
	over    string    // the version that the claim replaces
	renewal bool      // the record of that version is a claim of this process, too
	since   time.Time // when its Save began
	landed  bool      // the claim is known to have been saved

	// interrupted: the token may have been presented before, with an unknown
	// outcome. If FinCode says that it was used, that explains it.
	interrupted bool

	// verdict is FinCode's refusal of the refresh token. The token is dead then,
	// and is not presented again. nil: FinCode has not refused it.
	verdict error

	// credentials are from Config.Credentials, which this flight asked after the
	// verdict. nil: it was not asked, or returned an error.
	credentials *Credentials
}

const (
	pollMin      = 25 * time.Millisecond // between two looks at another process's claim
	pollMax      = 500 * time.Millisecond
	backoffMin   = time.Second      // before a failed call is repeated
	backoffMax   = 48 * time.Second // 1 min with the jitter
	backoffAsked = time.Hour        // the longest Retry-After that is honoured
	saveWait     = time.Second      // how long the callers of a refresh wait for its save
	saveRetryMin = 100 * time.Millisecond
	saveRetryMax = 5 * time.Second
)

// errUnsaved: the last token has expired, and is not refreshed before it is saved.
var errUnsaved error = told{errors.New("the store has not accepted the last token yet")}

// A told is an error for which an event was already sent: RefreshFailed when the call
// failed, or SaveFailed.
type told struct{ error }

func (e told) Unwrap() error { return e.error }

// errAgain: what is known of the record is out of date. Go back to step 1.
var errAgain = errors.New("the record changed")

// errStale: Load returns a record, and Save says that this record was replaced. A
// Store must not do that, but one that reads from a replica does.
var errStale = errors.New("the store loads a record that was replaced: configure it to read from where it writes")

// A landing is the result of a flight: a token that is good now, or the error that
// says why there is none, and the era of the session in which that is true.
type landing struct {
	era   uint32
	token *oauth2.Token
	err   error
}

// fly joins the flight that is under way, or starts one with the values of ctx. The
// result is a landing.
func (s *session) fly(ctx context.Context) <-chan singleflight.Result {
	return s.all.flights.DoChan(s.key, func() (any, error) {
		if err := s.pin(); err != nil {
			if err == ErrClosed {
				err = fmt.Errorf("fincodeauth: session %q: %w", s.key, err)
			}
			return nil, err
		}
		defer s.unpin()
		s.takeOff()
		defer s.land()
		return s.refresh(context.WithoutCancel(ctx)), nil
	})
}

// takeOff begins a flight: from now on, only the flight uses session.rotation.
func (s *session) takeOff() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rotation == nil {
		s.rotation = new(rotation)
	}
	s.rotation.flying = true
}

// land ends a flight, and keeps its memory if there is something to remember.
func (s *session) land() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rotation.flying = false
	if s.rotation.isEmpty() {
		s.rotation = nil
	}
}

// refresh makes one flight: it refreshes the token if that is due.
func (s *session) refresh(ctx context.Context) landing {
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
	if _, isTold := errors.AsType[told](err); !isTold && err != ErrClosed {
		s.all.observe(RefreshFailed, s.key, s.all.since(started), err)
	}
	here.err = s.failed(err)
	return here
}

// failed wraps an error for callers.
func (s *session) failed(err error) error {
	return fmt.Errorf("fincodeauth: refreshing session %q: %w", s.key, err)
}

// rotate follows the protocol until there is a good token, or an error.
func (s *session) rotate(ctx context.Context, p *patience) (*lease, error) {
	defer s.forgetCredentials()
	for {
		era := s.enter()
		l, err := s.follow(ctx, era, p)
		switch {
		case l.valid(s.all.now()):
			return l, nil
		case l != nil && p.overslept:
			err := errors.New("received an already expired token, twice: the machine was suspended, or FinCode's tokens live too short")
			s.backOff(err)
			return nil, err
		case l != nil:
			*p = patience{since: s.all.now(), pause: pollMin, overslept: true}
		case err != errAgain && s.currentEra() == era:
			return nil, err
		}
	}
}

// follow goes through the steps of the protocol once. It returns errAgain if it has
// to begin anew.
func (s *session) follow(ctx context.Context, era uint32, p *patience) (*lease, error) {
	if l := s.good(); l != nil && s.all.now().UnixNano() < l.refreshAt {
		return l, nil // an earlier flight or a Login has brought it meanwhile
	}
	if unsaved := s.unsaved(); unsaved != nil { // the next refresh token is presented only after it is saved
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
		return nil, errors.New("could not claim the refresh: the record kept changing, or the store reads from a replica")
	}
	if s.all.isClosing() {
		return nil, ErrClosed
	}
	if err := s.heldBack(); err != nil {
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

// makeDo returns the current token as long as it is good, and puts off the next early
// refresh. If the token is not good, it returns err.
func (s *session) makeDo(err error) (*lease, error) {
	l := s.good()
	if l == nil {
		return nil, err
	}
	s.later(backoffMin)
	return l, nil
}

// enter returns the session's era. If a new one has begun, it forgets what was
// remembered of the old one.
func (s *session) enter() uint32 {
	era := s.currentEra()
	if s.rotation.era != era {
		s.rotation.memory = memory{era: era}
	}
	return era
}

// look is steps 1 and 2: it loads the record, and checks whether the session ended.
func (s *session) look(ctx context.Context, era uint32) (*Record, error) {
	rec, err := s.load(ctx)
	switch {
	case s.currentEra() != era:
		return nil, errAgain // after a Login, say, rec may belong to either era
	case errors.Is(err, ErrNotFound):
		return nil, s.end(era, &SessionError{Key: s.key, Err: ErrNotFound})
	case err != nil:
		s.rotation.seen = "" // while this process cannot read, the owner of a claim may not be able to save
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
	ctx, cancel := context.WithTimeoutCause(ctx, limit, errSlowStore)
	defer cancel()
	rec, err := s.all.cfg.Store.Load(ctx, s.key)
	switch {
	case err != nil:
		return nil, fmt.Errorf("loading its record: %w", slowed(ctx, limit, err))
	case rec == nil:
		return nil, errors.New("the Store's Load returned neither a record nor an error: let it return ErrNotFound")
	case rec.Version == "": // no Save can name it as prev
		return nil, errors.New("its record is damaged and has no version: restore it, or call Sessions.Forget and log in again")
	case rec.Token == nil:
		rec.Token = &oauth2.Token{}
	case strings.HasPrefix(rec.Token.AccessToken, sealedPrefix):
		return nil, errors.New("its record is encrypted: wrap the Store with Encrypt and the key that it was saved with")
	}
	return rec, nil
}

// adopt puts the record's token into use if it is good and not the one in use:
// another process has refreshed. Otherwise it returns nil.
func (s *session) adopt(era uint32, rec *Record) *lease {
	if ours := s.lease.Load(); ours != nil && sameTokens(ours.token, rec.Token) {
		return nil
	}
	l := s.all.newLease(rec.Token)
	if !l.valid(s.all.now()) || s.isRejected(l.token) || !s.install(era, l, nil) {
		return nil
	}
	if mine := s.rotation.mine; !mine.is(rec) && !mine.mayLandOver(rec) {
		s.rotation.memory = memory{era: era}
	} // else this process's clock was set back, and what it knows of its claim is still true
	s.all.observe(Adopted, s.key, 0, nil)
	return l
}

// end takes the token out of use, because the session needs a login. It returns the
// error why, or errAgain if a login came meanwhile.
func (s *session) end(era uint32, why *SessionError) error {
	if !s.withdraw(era) {
		return errAgain
	}
	s.rotation.memory = memory{era: era}
	return why
}

// claimedByAnother reports whether another process has claimed the record (step 3).
func (s *session) claimedByAnother(rec *Record) bool {
	return !rec.RefreshStarted.IsZero() && !s.rotation.mine.is(rec)
}

// is reports whether rec carries this claim, or the claim that this one was meant to
// renew.
func (c *claim) is(rec *Record) bool {
	return c != nil && (rec.Version == c.version || c.renewal && rec.Version == c.over)
}

// mayLandOver reports whether this claim may still replace rec: its Save failed, but
// a slow store may carry it out later.
func (c *claim) mayLandOver(rec *Record) bool {
	return c != nil && !c.landed && rec.Version == c.over
}

// ownerGone reports whether the claim has not changed for so long that its owner
// must be dead. A living owner uses a claim that is at most half a RefreshTimeout
// old, for a call of at most one RefreshTimeout, and then saves or renews.
func (s *session) ownerGone(rec *Record) bool {
	r := s.rotation
	if r.seen != rec.Version {
		r.seen, r.seenSince = rec.Version, s.all.now()
	}
	return s.all.since(r.seenSince) >= 2*s.all.cfg.RefreshTimeout
}

// A patience is what one flight remembers while it waits.
type patience struct {
	since time.Time     // when it began to wait for the same thing
	claim string        // the version of the last claim of another process
	lost  string        // the version that a claim could not replace: a store that still loads it is behind
	pause time.Duration // until the next look

	// overslept: a new token had already expired when it was received, because
	// this machine slept meanwhile. That is rare, so there is one more try.
	overslept bool
}

// isSpent reports whether the flight has waited so long that callers should get an
// error.
func (s *session) isSpent(p *patience) bool {
	return s.all.since(p.since) > 3*s.all.cfg.RefreshTimeout
}

// standBy is step 3 while another process is refreshing. The current token is used as
// long as it is good. Otherwise standBy waits a moment for the next look.
func (s *session) standBy(rec *Record, p *patience) (*lease, error) {
	if rec.Version != p.claim { // a process is alive
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

// waitMore waits, longer each time. It returns errAgain, or ErrClosed.
func (s *session) waitMore(p *patience) error {
	if err := s.pauseFor(s.all.jittered(p.pause)); err != nil {
		return err
	}
	p.pause = min(2*p.pause, pollMax)
	return errAgain
}

// claim is step 4. It saves that this process is about to present the record's
// refresh token. The record may already carry a claim: one of this process, which is
// renewed, or one of a dead process, which is taken over. claim returns errAgain if
// another process was faster.
func (s *session) claim(ctx context.Context, rec *Record) (*Record, error) {
	last := s.rotation.mine
	next := &claim{version: newVersion(rec.Version), over: rec.Version, since: s.all.now(), interrupted: !rec.RefreshStarted.IsZero()}
	if last.is(rec) {
		next.renewal = true
		next.interrupted, next.verdict, next.credentials = last.interrupted, last.verdict, last.credentials
	}
	if last.mayLandOver(rec) {
		next.version = last.version // either Save may land, and both must be known as ours
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

// yield waits some seconds after a takeover. The store failed for this process, so it
// may also have failed for the owner of the older claim. If that owner is alive, it
// can now save its new token over our claim.
func (s *session) yield() error {
	if err := s.pauseFor(saveRetryMax + saveWait); err != nil {
		return err
	}
	return errAgain
}

// isOld reports whether a claim must be renewed before it is used, because others
// might take it over before a call under it ends.
func (s *session) isOld(c *claim) bool {
	now := s.all.now()
	// The monotonic clock stands still while the machine is suspended, and the wall
	// clock may be set back.
	age := max(now.Sub(c.since), now.Round(0).Sub(c.since.Round(0)))
	return age > s.all.cfg.RefreshTimeout/2
}

// save saves rec over the version prev. If the outcome is unknown, it loads the
// record to find out (step 6). The Save and the Load may each take as long as limit.
func (s *session) save(ctx context.Context, limit time.Duration, rec *Record, prev string) error {
	saving, cancel := context.WithTimeoutCause(ctx, limit, errSlowStore)
	defer cancel()
	err := s.all.cfg.Store.Save(saving, s.key, rec, prev)
	if err == nil || errors.Is(err, ErrConflict) {
		return err
	}
	err = slowed(saving, limit, err)
	if there, loadErr := s.loadWithin(ctx, limit); loadErr == nil && there.Version == rec.Version {
		return nil
	}
	return err
}

// errSlowStore is the cause of a context whose call to the store took too long.
var errSlowStore = errors.New("the store is slow")

// slowed says that the store did not answer within limit, if that is why a call
// under ctx failed with err: "context deadline exceeded" alone does not tell an
// operator whose deadline it was.
func slowed(ctx context.Context, limit time.Duration, err error) error {
	if context.Cause(ctx) == errSlowStore {
		return fmt.Errorf("the store did not answer within %v: %w", limit, err)
	}
	return err
}

// present is step 5. It presents the refresh token to FinCode, unless FinCode has
// already refused it, and acts on the answer.
func (s *session) present(ctx context.Context, era uint32, claimed *Record) (*lease, error) {
	mine := s.rotation.mine
	if mine.verdict == nil && claimed.Token.RefreshToken == "" {
		mine.verdict, mine.interrupted = errors.New("there is no refresh token"), false // nobody can have presented it
	}
	if mine.verdict == nil {
		started := s.all.now()
		tok, err := s.all.endpoint.refresh(ctx, claimed.Token)
		if err == nil {
			return s.succeed(ctx, era, claimed, tok, Refreshed, started)
		}
		switch outcomeOf(err) {
		case untouched:
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
	s.rotation.memory = memory{era: era}
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

// release saves the record without the claim, after an attempt that certainly did not
// use the token. If there was an attempt of unknown outcome before, the claim stays,
// because the next process that presents the token must know of that attempt. If
// FinCode has refused the refresh token, the record is saved without it.
func (s *session) release(ctx context.Context, claimed *Record) {
	if s.rotation.mine.interrupted {
		return
	}
	free := claimed.clone()
	free.Version = newVersion(claimed.Version)
	free.RefreshStarted = time.Time{}
	if s.rotation.mine.verdict != nil && free.Token.AccessToken != "" {
		free.Token.RefreshToken = "" // it was refused: nobody must present it again
	}
	if s.save(ctx, s.all.cfg.RefreshTimeout, free, claimed.Version) == nil {
		s.rotation.mine = nil
	} // else the claim is still in the store, and known as ours
}

// conclude acts on FinCode's verdict, unless another process has changed the record.
func (s *session) conclude(ctx context.Context, era uint32, claimed *Record) (*lease, error) {
	mine := s.rotation.mine
	answer, _ := errors.AsType[*EndpointError](mine.verdict)
	reused := answer != nil && answer.verdict() == http.StatusForbidden
	verdict := refusalOf(s.key, mine.verdict, reused, mine.interrupted)
	there, err := s.load(ctx)
	switch {
	case errors.Is(err, ErrNotFound), err == nil && there.Version != mine.version:
		return nil, errAgain
	case s.all.cfg.Credentials == nil, isBreach(verdict):
		// Even if the Load failed: the verdict must not be forgotten, and the
		// compare-and-swap checks the same as the Load.
		return nil, s.saveEnd(ctx, era, claimed, verdict)
	case err != nil:
		return nil, err
	}
	return s.logInAgain(ctx, era, claimed, verdict)
}

// logInAgain logs in with Config.Credentials. It does so under the claim, so that
// only one process logs in.
func (s *session) logInAgain(ctx context.Context, era uint32, claimed *Record, cause *SessionError) (*lease, error) {
	mine := s.rotation.mine
	if err := s.mayLogIn(ctx, claimed); err != nil {
		return nil, err
	}
	err := s.ask(ctx, cause)
	if err == nil {
		if err := s.mayLogIn(ctx, claimed); err != nil { // asking may have taken long
			return nil, err
		}
		started := s.all.now()
		var tok *oauth2.Token
		if tok, err = s.all.endpoint.login(ctx, *mine.credentials); err == nil {
			return s.succeed(ctx, era, claimed, tok, LoggedIn, started)
		}
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

// mayLogIn returns errAgain if the claim must be renewed first, and ErrClosed after
// Close. FinCode's verdict stays known in both cases.
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

// forgetCredentials forgets a password at the end of the flight that asked for it.
func (s *session) forgetCredentials() {
	if mine := s.rotation.mine; mine != nil {
		mine.credentials = nil
	}
}

// ask calls Config.Credentials, unless this flight has done that.
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

// saveEnd saves that the session ended, with its tokens cleared. Until that is saved,
// callers are not told to log in: if this process slept through a takeover, another
// process may have a newer token, and the session has not ended.
func (s *session) saveEnd(ctx context.Context, era uint32, claimed *Record, why *SessionError) error {
	p := &pending{
		era:    era,
		rec:    &Record{Version: newVersion(claimed.Version), Token: &oauth2.Token{}, Ended: why.Err.Error()},
		prev:   claimed.Version,
		over:   claimed.Token,
		ended:  why,
		failed: told{fmt.Errorf("%w; this is not final before the store answers, because another process may have a newer token", why.Err)},
	}
	s.rotation.memory = memory{era: era}
	switch {
	case !s.install(era, nil, p), !s.keep(ctx, p), s.currentEra() != era:
		return errAgain
	case s.unsaved() == p:
		return p.failed
	}
	return why
}

// backOff notes that a call to FinCode failed. The next call is made after 1 s at the
// earliest, doubled with each failure up to 1 min, or after the time that FinCode
// asked for.
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
		return told{r.err}
	}
	return nil
}

// later puts off the next refresh of a token that is still good.
func (s *session) later(delay time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.era != s.rotation.era {
		return // the flight's result is not about the token that is in use now
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
