package fincodeauth

import (
	"context"
	"errors"
	"fmt"
)

// Healing. A store may go back to an earlier state. Then it has older records than this
// process has seen, or none. generation.go says which of two records is newer.
//
// # The rules
//
//  1. What a process learns from each Load, Save and answer of FinCode is in
//     session.known. Only the holder of the turn uses it.
//  2. Whoever loads a record compares it with that before anything else. If this process
//     knows more, it saves that over what it has found, and looks again.
//  3. A Login and a Logout do not heal: they replace what is there. A Logout revokes the
//     newest token that this process knows.
//
// # Why this is enough
//
// The save is a compare-and-swap over the record that was found. If others have healed it
// meanwhile, or gone on from it, the save fails, and this process looks again. Two
// processes that know different states agree which of them is newer, so the newest one
// stays.

// learn notes what the store has. rec is nil if there is no record. If another process
// has logged the session out and knew only an older token, learn revokes the one that this
// process has. The turn is held.
func (s *session) learn(ctx context.Context, rec *Record) {
	before := s.known
	switch {
	case rec != nil:
		s.known = knownOf(rec, s.env.now())
	case before != nil && before.ended == "":
		s.known = nil
	}
	if tok := before.orphan(rec); tok != nil {
		_ = s.revokeOrphan(ctx, tok, true) // the event LoggedOut has the error
	}
}

// heal saves what this process knows over the older record found, or where there is none.
// The error is ErrConflict if the store has something else by now. The turn is held.
func (s *session) heal(ctx context.Context, found *Record) error {
	newer := s.known.record(s.env.now())
	err := s.cell().save(context.WithoutCancel(ctx), newer, versionOf(found))
	if err != nil {
		return fmt.Errorf("the store has gone back to an earlier state, and saving the newer one again: %w", err)
	}
	s.env.lookout.last.Store(s)
	s.reportReverted(revertedError(found, newer))
	return nil
}

// reportReverted sends StoreReverted; nil: the store has lost nothing.
func (s *session) reportReverted(err error) {
	if err != nil {
		s.env.reportReverted(s, s.key, err)
	}
}

// reportReverted sends StoreReverted, and begins to look at all sessions. by has the turn;
// nil: nobody here has.
func (e *environment) reportReverted(by *session, key string, err error) {
	now := e.now()
	e.reverted.Store(true)
	e.lookout.hasGoneBack(now.Sub(e.started))
	e.lookOut(now, by)
	e.observe(StoreReverted, key, 0, err)
}

// revertedError says what was found in a store that has gone back, and what was saved.
func revertedError(found, saved *Record) error {
	return fmt.Errorf("the store has gone back: it had %s, and this process saved %s", found.state(), saved.state())
}

// state describes a record for people; nil: there is none.
func (r *Record) state() string {
	switch {
	case r == nil:
		return "no record"
	case r.Ended != "":
		return fmt.Sprintf("generation %d of session %s, ended: %s", r.Generation, sessionOf(r.Version), r.Ended)
	}
	return fmt.Sprintf("generation %d of session %s", r.Generation, sessionOf(r.Version))
}

// errMayHaveGoneBack is added to FinCode's refusal of a token.
var errMayHaveGoneBack = errors.New("the store may have gone back, as it did for another record")

// suspecting returns FinCode's refusal of a token. If this process has seen that the store
// had gone back, that may be the reason: the token may be an older one, for which nobody
// has saved the newer one again.
func (e *environment) suspecting(refusal error) error {
	if e.reverted.Load() {
		return fmt.Errorf("%w; %w", refusal, errMayHaveGoneBack)
	}
	return refusal
}
