package fincodeauth

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// A session is the state of one key in this process: its token, its turn, and what
// must be remembered.
//
// # The rules
//
//  1. A session has one turn. Login, Adopt, Logout and Forget, each pass of a flight,
//     each attempt to save and each look at the store take the turn first and end it
//     last. A flight and the saver pause without it. The turn may be handed from one
//     goroutine to another.
//  2. Only the holder of the turn calls the store, FinCode or Config.Credentials for
//     the session, or a goroutine that the holder waits for. (What is left in a journal
//     at the start is saved without a turn, by a compare-and-swap alone.) Only the holder uses what
//     is marked "turn" below. While nobody has pinned the session, whoever holds mu may
//     read that, too.
//  3. mu guards what is marked "mu". What is marked "turn, mu" is written by the holder
//     with mu held. So the holder reads it without mu, and others read it with mu. mu is
//     held for moments: never during a call or a wait.
//  4. lease is "turn, mu", and anybody may read it without a lock. There is one
//     exception: Close stores nil without the turn. After that, put stores only nil.
//     used and earlyAt are hints, which anybody writes.
//  5. Who takes the turn has pinned the session before. A pinned session has an activity,
//     and stays in memory.
//
// # Why this is enough
//
// What the protocol knows (memory), what was seen (known), what the store lacks (unsaved)
// and what is in use (lease) change together within one turn. So nobody in this process
// can overtake anybody: a Login finds a refresh that is done, and a refresh finds a Login
// that is done. What other processes do meanwhile is decided by the store's
// compare-and-swap, and never by this process's memory.
//
// A request with a good token never needs the turn. It reads one atomic pointer, and a
// lease does not change.
//
// A caller that arrives after a Login, an Adopt, a Logout or a Forget never gets the
// result of a flight that began before: they forget the flight (singleflight's Forget)
// before they end the turn. The earlier flight may go on. Its next pass finds what the
// other has left.
//
// # Memory
//
// There may be a million sessions. So what only sessions in trouble need is in the
// activity, and the fields that every request needs come first, within one cache line
// of 64 bytes. What the lease says is in known only while there is an activity.
type session struct {
	lease   atomic.Pointer[lease] // turn, mu: the token in use; nil: there is none, or it is not loaded yet
	used    atomic.Uint64         // when the session was used last, by the table's count
	env     *environment
	dropped atomic.Bool // mu: the table has no session under this key, or another one

	key     string
	earlyAt atomic.Int64 // no early refresh before then, counted from env.started
	known   *known       // turn, mu without an activity: the newest state that this process has seen; nil: none, or the lease has it

	mu       sync.Mutex
	activity *activity // mu: nil if no call is under way and there is nothing to remember
}

// An activity is the part of a session that exists only while a call is under way, or
// while there is something to remember.
type activity struct {
	turn chan struct{} // holds a value while somebody has the turn

	pins    int     // mu: calls, flights and saves under way; above 0, the session is not dropped
	strikes strikes // mu: what the API's answers say of the tokens

	unsaved *change        // turn, mu: what the store has not accepted yet; nil: it has everything
	memory  memory         // turn
	logout  *unheardLogout // turn: nil: there is none
	saver   chan struct{}  // turn: closed when the change is saved; nil: no saver is at work
}

// isEmpty reports whether there is nothing to remember.
func (a *activity) isEmpty() bool {
	return a.pins == 0 && a.unsaved == nil && a.memory.isEmpty() && a.strikes == (strikes{}) && a.logout == nil
}

// isNeeded reports whether the session must stay in memory: because of a call under way,
// a change or a Logout that the store may not have, what is remembered of FinCode's
// answers and of this process's claim, or because the API rejects every token of the
// session. l is the lease in use.
func (a *activity) isNeeded(now time.Time, l *lease) bool {
	return a.pins > 0 || a.unsaved != nil || a.logout != nil || a.memory.isNeeded(now) || a.strikes.count > 0 && l.valid(now)
}

// An unheardLogout is a Logout whose Save failed, but may have taken effect. If it did,
// the next Logout finds the session logged out, and must tell FinCode.
type unheardLogout struct {
	version string // of the record that says that the session is logged out
	removed
}

var errDropped = errors.New("dropped from memory")

// pin keeps the session in memory, and makes Close wait, until unpin. It returns
// ErrClosed after Close, or errDropped if the session has to be looked up again.
func (s *session) pin() error {
	if err := s.env.enlist(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dropped.Load() {
		s.env.work.Done()
		return errDropped
	}
	s.active().pins++
	return nil
}

// pinToo pins a session that is pinned already.
func (s *session) pinToo() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.env.work.Add(1)
	s.activity.pins++
}

func (s *session) unpin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.activity.pins--
	if s.activity.isEmpty() {
		s.activity = nil
		if s.known.isIn(s.lease.Load()) {
			s.known = nil
		}
	}
	s.env.work.Done()
}

// active returns the activity. It makes one if there is none. mu is held.
func (s *session) active() *activity {
	if s.activity == nil {
		s.activity = &activity{turn: make(chan struct{}, 1)}
		if s.known == nil {
			s.known = knownOfLease(s.lease.Load())
		}
	}
	return s.activity
}

func (s *session) isPinned() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.activity != nil && s.activity.pins > 0
}

// drop marks the session as dropped. It returns false, and does nothing, if the
// session is pinned or knows something that its store does not.
func (s *session) drop() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.activity; a != nil && a.isNeeded(s.env.now(), s.lease.Load()) {
		return false
	}
	s.dropped.Store(true)
	return true
}

// takeTurn waits for the session's turn, which the caller must end. If it returns an
// error, nothing was begun. The error is ErrClosed, errOwnCredentials, or wraps why ctx
// ended.
func (s *session) takeTurn(ctx context.Context) error {
	if isAskedBy(ctx, s) {
		return errOwnCredentials
	}
	select {
	case s.activity.turn <- struct{}{}:
		err := s.comesTooLate(ctx)
		if err != nil {
			s.endTurn()
		}
		return err
	case <-s.env.closing:
		return ErrClosed
	case <-ctx.Done():
		return s.comesTooLate(ctx)
	}
}

// tryTurn is takeTurn that does not wait. It returns false if somebody has the turn, and
// after Close.
func (s *session) tryTurn() bool {
	select {
	case s.activity.turn <- struct{}{}:
		if s.env.isClosing() {
			s.endTurn()
			return false
		}
		return true
	default:
		return false
	}
}

// comesTooLate returns the error of a call that must not begin any more, else nil.
func (s *session) comesTooLate(ctx context.Context) error {
	switch {
	case s.env.isClosing():
		return ErrClosed
	case ctx.Err() != nil:
		return fmt.Errorf("it could not begin: %w", endOf(ctx))
	}
	return nil
}

// takeTurnToSave is takeTurn for what must be saved even after Close. It returns false
// if a Close has given up.
func (s *session) takeTurnToSave() bool {
	select {
	case s.activity.turn <- struct{}{}:
		return true
	case <-s.env.abandoned:
		return false
	}
}

// endTurn ends the turn.
func (s *session) endTurn() { <-s.activity.turn }

// errOwnCredentials refuses a call that Config.Credentials makes for its own session.
// Credentials is called in the turn, so the call would wait for itself. It is recognized
// by its context.
var errOwnCredentials = errors.New("Config.Credentials is at work for this session, and this call would wait for it: let Credentials return the credentials, and make no call for its own key")

// An asked is the mark in the context of Config.Credentials. Credentials of one session
// may use another session, whose Credentials is then asked, too.
type asked struct {
	session  *session
	by       *asked      // nil: none
	answered atomic.Bool // nobody waits for this call of Credentials any more
}

type askedKey struct{}

// isAskedBy reports whether ctx is that of Config.Credentials for s.
func isAskedBy(ctx context.Context, s *session) bool {
	a, _ := ctx.Value(askedKey{}).(*asked)
	for a != nil && (a.session != s || a.answered.Load()) {
		a = a.by
	}
	return a != nil
}

// cell returns the session's place in the store. While a change is unsaved for which
// others may take over a claim, the calls are as short as the first attempts of the saver,
// because the saver waits for this turn. The turn is held.
func (s *session) cell() cell {
	timeout := s.env.cfg.RefreshTimeout
	if c := s.activity.unsaved; c != nil && c.presented != nil {
		timeout /= 4
	}
	return cell{session: s, timeout: timeout}
}

// use puts a lease into use; nil: none. The turn is held.
func (s *session) use(l *lease) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.put(l)
}

// replace is use for the first token of another session; nil: a Logout or a Forget has
// ended this one. What was known of the session before does not matter any more, and
// whoever comes later joins no flight that began before. The turn is held.
func (s *session) replace(l *lease) {
	s.mu.Lock()
	s.put(l)
	s.activity.strikes = strikes{}
	s.mu.Unlock()
	s.activity.memory = memory{}
	s.activity.logout = nil
	s.env.flights.Forget(s.key)
}

// put writes the lease, or nil after Close. The turn and mu are held.
func (s *session) put(l *lease) {
	if s.env.isClosing() {
		l = nil
	}
	s.lease.Store(l)
	s.activity.strikes.rejected = ""
	s.earlyAt.Store(0)
}

// withdraw takes the token out of use at a Close.
func (s *session) withdraw() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lease.Store(nil)
}

// later puts off the next early refresh of the token in use. The turn is held.
func (s *session) later(delay time.Duration) {
	at := int64(s.env.since(s.env.started) + delay)
	if at > s.earlyAt.Load() {
		s.earlyAt.Store(at)
	}
}
