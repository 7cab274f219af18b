package fincodeauth

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/sync/singleflight"
)

// A flight refreshes a token for all callers that wait for it. It follows the protocol
// in passes until it has a good token or an error:
//
//	load -> adopt a token that another process received
//	     -> wait for the process that is presenting it, or take over from a dead one
//	     -> claim -> present -> save the successor
//
// # The rules
//
//  1. singleflight starts one flight at a time for each key. A Login, an Adopt, a Logout
//     or a Forget forgets the flight, so there may be two for a while. The turn keeps
//     their passes apart.
//  2. A pass holds the session's turn, and loads the record anew. From earlier passes it
//     has only the fields below. It never pauses. A flight pauses between two passes.
//  3. Nothing runs on a caller's context, because a caller may leave while a token is on
//     its way. Each call has a time limit instead.
//  4. A pass that makes a change ends there. The turn goes to the save of the change. The
//     result of the pass holds only if the change is not given up.
//
// # Why this is enough
//
// Between its load and its claim, a pass decides on what the store had. The claim is a
// compare-and-swap, so it fails if the record has changed. Between the claim and the
// save, only another process can change the record, and only after the claim has stood
// for twice RefreshTimeout. The save is a compare-and-swap, too: it notices that.
type flight struct {
	presenter

	waitsSince time.Time     // when the flight began to wait for the same thing
	waitsFor   string        // the version of the claim of another process
	lost       string        // the version that a claim could not replace: a store that still loads it is behind
	interval   time.Duration // until the next look
	granted    bool          // others had time to look at a store that came back
}

// fly joins the flight that is under way, or starts one with the values of ctx. The
// result is a *oauth2.Token that is good now, or an error that says why there is none:
// errDropped if the session has to be looked up again.
func (s *session) fly(ctx context.Context) <-chan singleflight.Result {
	return s.env.flights.DoChan(s.key, func() (any, error) {
		if err := s.pin(); err != nil {
			if err == ErrClosed {
				err = fmt.Errorf("fincodeauth: session %q: %w", s.key, err)
			}
			return nil, err
		}
		defer s.unpin()
		return s.refresh(context.WithoutCancel(ctx))
	})
}

// earlyPause is the shortest time between two attempts at an early refresh.
const earlyPause = 100 * time.Millisecond

// refreshEarly starts a refresh while the token is still good, unless another caller
// has just done that.
func (s *session) refreshEarly(ctx context.Context, now time.Time) {
	at, since := s.earlyAt.Load(), int64(now.Sub(s.env.started))
	if since >= at && s.earlyAt.CompareAndSwap(at, since+int64(earlyPause)) {
		s.fly(ctx)
	}
}

// refresh makes one flight: it refreshes the token if that is due.
func (s *session) refresh(ctx context.Context) (*oauth2.Token, error) {
	started := s.env.now()
	l, err := (&flight{presenter: presenter{session: s}}).run(ctx)
	if err == nil {
		return l.token, nil
	}
	if isEnd(err) {
		return nil, err
	}
	if _, isTold := errors.AsType[told](err); !isTold && err != ErrClosed {
		s.env.observe(RefreshFailed, s.key, s.env.since(started), err)
	}
	return nil, fmt.Errorf("fincodeauth: refreshing session %q: %w", s.key, err)
}

// isEnd reports whether err says that the session needs a login.
func isEnd(err error) bool {
	_, ok := errors.AsType[*SessionError](err)
	return ok
}

// run makes passes until there is a good token, or an error.
func (f *flight) run(ctx context.Context) (*lease, error) {
	f.waitAnew()
	for {
		r := f.turn(ctx)
		switch {
		case r.err == nil && f.env.isClosing():
			return nil, ErrClosed // the token is saved, and out of use
		case r.err == nil && r.lease.valid(f.env.now()):
			return r.lease, nil
		case r.err != nil && r.err != errAgain:
			return nil, r.err
		}
		if r.pause == 0 {
			continue
		}
		if err := f.env.pause(r.pause); err != nil {
			return nil, err
		}
	}
}

// turn takes the turn for one pass and for the save that follows it.
func (f *flight) turn(ctx context.Context) result {
	began := f.env.now()
	if err := f.takeTurn(ctx); err != nil {
		return failed(err)
	}
	f.waitsSince = f.waitsSince.Add(f.env.since(began)) // whoever had the turn was not waited for in the store
	return f.confirmed(f.passAndSave(ctx))
}

// passAndSave makes a pass and ends the turn. It keeps the turn if another pass is needed
// at once: a claim must not become old while others have the turn.
func (f *flight) passAndSave(ctx context.Context) result {
	defer f.endTurnAndSave(ctx)
	f.credentials = nil // they were for the session that was there in an earlier turn
	r := f.pass(ctx)
	for r.err == errAgain && r.pause == 0 && f.activity.unsaved == nil {
		r = f.pass(ctx)
	}
	if r.err != nil && r.err != errAgain && !isEnd(r.err) {
		f.later(backoffMin)
	}
	return r
}

// waitAnew begins to wait for something.
func (f *flight) waitAnew() { f.waitsSince, f.interval = f.env.now(), pollMin }

// confirmed returns what holds of a result after the save of its change. A session's end
// is told once it is saved: if this process slept through a takeover, another process may
// have a newer token, and the session has not ended.
func (f *flight) confirmed(r result) result {
	if r.change == nil {
		return r
	}
	switch fate := f.fateOf(r.change); {
	case fate == fateSaved:
		return r
	case fate != fateUnsaved:
		return again
	case r.err != nil:
		return failed(r.change.meanwhile)
	}
	return r
}

// pass goes through the protocol once. The turn is held.
func (f *flight) pass(ctx context.Context) result {
	if l := f.good(); l != nil && !l.isDue(f.env.now()) {
		return result{lease: l} // an earlier flight or a Login has brought it meanwhile
	}
	if c := f.activity.unsaved; c != nil { // the next refresh token is presented only after it is saved
		return f.makeDo(failed(c.meanwhile))
	}
	rec, err := f.cell().load(ctx)
	if err != nil {
		f.activity.memory.seen = "" // while this process cannot read, the owner of a claim may not be able to save
		return failed(err)
	}
	x := f.situation(rec)
	step := x.step()
	if step == stepHeal {
		return f.healAndLookAgain(ctx, rec)
	}
	f.learn(ctx, rec)
	switch step {
	case stepStop:
		return f.stop(rec)
	case stepAdopt:
		return f.adopt(x)
	case stepStandBy:
		return f.standBy(rec)
	}
	if pause := f.grace(step); pause > 0 {
		return f.giveOthersTime(pause)
	}
	return f.claim(ctx, rec)
}

// grace returns how long this process leaves the refresh to others: the store was away, and
// may have gone back. 0: it goes on. A claim of this process that is still there is renewed
// at once, because others would take it over.
func (f *flight) grace(step step) time.Duration {
	if f.granted || step == stepRenew {
		return 0
	}
	now, left := f.env.now(), time.Duration(0)
	if l := f.good(); l != nil {
		left = time.Duration(l.expireAt - now.UnixNano())
	}
	return f.env.lookout.grace(now.Sub(f.env.started), left)
}

// giveOthersTime puts off an early refresh. If there is no good token, the flight pauses,
// once.
func (f *flight) giveOthersTime(pause time.Duration) result {
	if l := f.good(); l != nil {
		f.later(f.env.jittered(pause))
		return result{lease: l}
	}
	f.granted = true
	f.waitsSince = f.env.now().Add(pause)
	return result{err: errAgain, pause: pause}
}

// situation returns what this process knows when it has loaded rec.
func (f *flight) situation(rec *Record) *situation {
	x := &situation{rec: rec, known: f.known, memory: &f.activity.memory, now: f.env.now(), timeout: f.env.cfg.RefreshTimeout}
	if l := f.lease.Load(); l != nil {
		x.inUse = l.token
	}
	if rec != nil {
		x.lease = f.env.newLease(rec.Token).of(rec)
		x.rejected = f.isRejected(rec.Token)
	}
	return x
}

// healAndLookAgain saves what this process knows to be newer than rec.
func (f *flight) healAndLookAgain(ctx context.Context, rec *Record) result {
	err := f.heal(ctx, rec)
	switch {
	case err == nil:
		return again
	case !errors.Is(err, ErrConflict):
		return f.makeDo(failed(err))
	case f.waitsTooLong(f.env.cfg.RefreshTimeout):
		return f.makeDo(failed(errStale))
	}
	return f.makeDo(f.lookLater())
}

// makeDo returns the current token as long as it is good, and puts off the next early
// refresh. If the token is not good, it returns otherwise.
func (f *flight) makeDo(otherwise result) result {
	l := f.good()
	if l == nil {
		return otherwise
	}
	f.later(backoffMin)
	return result{lease: l}
}

// stop is step 2: it takes the token out of use, because the session needs a login.
func (f *flight) stop(rec *Record) result {
	f.use(nil)
	f.activity.memory = memory{}
	if rec == nil {
		return failed(&SessionError{Key: f.key, Err: ErrNotFound})
	}
	return failed(sessionEnded(f.key, rec.Ended))
}

// adopt puts the record's token into use: another process has refreshed.
func (f *flight) adopt(x *situation) result {
	if !x.knowsItsClaim() {
		f.activity.memory = memory{}
	}
	f.use(x.lease)
	f.env.lookout.last.Store(f.session)
	f.env.observe(Adopted, f.key, 0, nil)
	return result{lease: x.lease}
}

// standBy is step 3 while another process is refreshing. The current token is used as
// long as it is good. Otherwise the flight looks again in a moment.
func (f *flight) standBy(rec *Record) result {
	f.activity.memory.watch(rec.Version, f.env.now())
	if rec.Version != f.waitsFor { // a process is alive
		f.waitsFor, f.waitsSince = rec.Version, f.env.now()
	}
	if f.waitsTooLong(timeoutOf(rec, f.env.cfg.RefreshTimeout)) {
		return f.makeDo(failed(errors.New("another process is refreshing it")))
	}
	return f.makeDo(f.lookLater())
}

// waitsTooLong reports whether the flight has waited so long that callers should get an
// error. timeout is the RefreshTimeout of whoever it waits for.
func (f *flight) waitsTooLong(timeout time.Duration) bool {
	return f.env.since(f.waitsSince) > 3*timeout
}

// lookLater is the result of a pass after which the flight waits, longer each time.
func (f *flight) lookLater() result {
	pause := f.env.jittered(f.interval)
	f.interval = min(2*f.interval, pollMax)
	return result{err: errAgain, pause: pause}
}

// claim is step 4. It saves that this process is about to present the record's refresh
// token. The record may already carry a claim: one of this process, which is renewed, or
// one of a dead process, which is taken over.
func (f *flight) claim(ctx context.Context, rec *Record) result {
	m := &f.activity.memory
	switch {
	case f.waitsTooLong(timeoutOf(rec, f.env.cfg.RefreshTimeout)):
		return failed(errors.New("could not claim the refresh: the record kept changing, or the store reads from a replica"))
	case f.env.isClosing():
		return failed(ErrClosed)
	case f.env.now().Before(m.retryAt):
		return failed(told{m.err})
	case rec.Version == f.lost:
		return f.lookLater()
	}
	claimed := rec.next()
	m.mine = m.claimOn(rec, claimed, f.env.now())
	claimed.Version = m.mine.version
	claimed.RefreshStarted = m.mine.since.UTC()
	claimed.RefreshTimeout = f.env.cfg.RefreshTimeout
	err := f.cell().save(ctx, claimed, rec.Version)
	switch {
	case errors.Is(err, ErrConflict):
		f.lost = rec.Version
		return again
	case err != nil:
		m.unwritable = true
		return failed(fmt.Errorf("claiming the refresh: %w", err))
	}
	m.mine.saved = true
	m.seen = "" // a store that goes back may have the claim again that was seen before, with a new owner
	right := m.rightOf(f.env.isClosing(), f.env.now(), f.env.cfg.RefreshTimeout)
	if right != mustRenew {
		f.waitAnew()
	}
	return f.exercise(ctx, claimed, right)
}
