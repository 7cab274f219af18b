package fincodeauth

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/oauth2"
)

// Logout and Forget. Both hold the session's turn from their first call to their last. So
// no refresh of this process is under way. A Logout first saves what is not saved yet, so
// the store has all that this process knows.

// logout ends the session in the store, then in this process, then at FinCode. The
// session is pinned.
func (s *session) logout(ctx context.Context) error {
	if err := s.takeTurn(ctx); err != nil {
		return err
	}
	defer s.endTurn()
	unsaved := s.activity.unsaved
	if err := s.saveOnce(ctx, s.cell().timeout); err != nil {
		return fmt.Errorf("saving its last change: %w", err)
	}
	inUse := s.lease.Load()
	gone, err := s.remove(ctx)
	if gone == nil || err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx)
	switch rec := gone.rec; {
	case rec.Ended == endedLogout:
		return s.revokeToo(ctx, inUse)
	case !hasTokens(rec.Token) && unsaved.isGivenUp(): // others ended the session, and do not know this token
		return s.revokeOrphan(ctx, unsaved.rec.Token, !unsaved.unheard)
	case !hasTokens(rec.Token): // the session had ended, and FinCode knows it
		s.env.observe(LoggedOut, s.key, 0, nil)
		return nil
	}
	err = s.revoke(ctx, gone.rec.Token, !gone.claimed && !gone.refused)
	if err != nil && gone.claimed {
		err = fmt.Errorf("it was being refreshed, and the token that the refresh receives is revoked when it arrives: %w", err)
	}
	return err
}

// forget removes the record, even a damaged one, and does not tell FinCode. The session
// is pinned.
func (s *session) forget(ctx context.Context) error {
	if err := s.takeTurn(ctx); err != nil {
		return err
	}
	defer s.endTurn()
	gone, err := s.remove(ctx)
	switch {
	case err == nil && (gone == nil || gone.rec.Ended == endedLogout):
		return nil
	case err != nil:
		if err := s.deleteDamaged(ctx, err); err != nil {
			return err
		}
		s.endSaving(fateGivenUp)
		s.replace(nil)
	}
	s.env.observe(LoggedOut, s.key, 0, nil)
	return nil
}

// deleteDamaged replaces a record that cannot be loaded by one that says that the session is
// logged out. It returns why if the record
// can be loaded, or the store does not answer: a Delete compares nothing, and one that
// is carried out late would delete what a Login has saved meanwhile.
func (s *session) deleteDamaged(ctx context.Context, why error) error {
	if _, err := s.cell().load(ctx); err == nil || errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
		return why
	}
	if err := s.cell().delete(ctx); err != nil {
		return err
	}
	// Otherwise a process that has the session in memory would take that for a loss.
	out := (&Record{Version: newVersion(""), Generation: 1}).loggedOut(s.env.now())
	if err := s.cell().save(context.WithoutCancel(ctx), out, ""); err != nil && !errors.Is(err, ErrConflict) {
		return fmt.Errorf("saving that the session is over: %w", err)
	}
	s.known = knownOf(out, s.env.now())
	return nil
}

// remove takes the session out of the store and out of use; nil: there was none. The turn
// is held.
func (s *session) remove(ctx context.Context) (*removed, error) {
	gone, err := s.retire(ctx)
	if err != nil {
		return nil, err
	}
	s.endSaving(fateGivenUp)
	s.replace(nil)
	return gone, nil
}

// retire saves that the session is logged out, and returns the record before that; nil:
// there is none. Because of the compare-and-swap, nobody can have saved a successor of
// that record's token. What is saved stays in the store, so that nobody takes the Logout
// for a loss.
func (s *session) retire(ctx context.Context) (*removed, error) {
	for tried, lost := false, ""; ; tried = true {
		there, err := s.cell().load(ctx)
		if err != nil {
			return nil, err
		}
		rec := s.newest(there)
		switch {
		case rec == nil:
			return nil, nil
		case tried && versionOf(there) == lost:
			return nil, errStale
		}
		lost = versionOf(there)
		gone := s.beforeLogout(rec)
		if rec.Ended == endedLogout && rec == there {
			s.learn(ctx, there)
			return &gone, nil
		}
		out := rec.loggedOut(s.env.now())
		err = s.cell().save(context.WithoutCancel(ctx), out, lost)
		switch {
		case err == nil:
			if rec != there && s.activity.unsaved == nil {
				s.reportReverted(revertedError(there, out))
			}
			s.env.lookout.last.Store(s)
			s.known = knownOf(out, s.env.now())
			return &gone, nil
		case !errors.Is(err, ErrConflict):
			s.activity.logout = &unheardLogout{out.Version, gone}
			return nil, fmt.Errorf("replacing its record: %w", err)
		}
	}
}

// newest returns there, or a record of what this process knows to be newer; nil: there is no
// session.
func (s *session) newest(there *Record) *Record {
	if now := s.env.now(); s.known.isAhead(there, now) {
		return s.known.record(now)
	}
	return there
}

// beforeLogout returns rec, or, if rec is that of an earlier Logout of this process,
// what that Logout has removed.
func (s *session) beforeLogout(rec *Record) removed {
	if out := s.activity.logout; out != nil && out.version == rec.Version {
		return out.removed
	}
	return s.activity.memory.removes(rec)
}

// revokeToo is for a Logout of a session that another process has logged out, and
// that process tells FinCode. It does not refresh, because the other process may have
// rotated this token.
func (s *session) revokeToo(ctx context.Context, inUse *lease) error {
	if inUse == nil {
		return nil
	}
	if !inUse.valid(s.env.now()) { // FinCode's 401 to an expired token says nothing about a logout
		return s.revoke(ctx, inUse.token, false)
	}
	return s.revokeOrphan(ctx, inUse.token, false)
}

// revokeOrphan is revoke for a token that FinCode may have revoked already.
func (s *session) revokeOrphan(ctx context.Context, tok *oauth2.Token, mayRefresh bool) error {
	err := s.revoke(ctx, tok, mayRefresh)
	if err != nil && outcomeOf(err) == refused {
		return nil
	}
	return err
}
