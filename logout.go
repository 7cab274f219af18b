package fincodeauth

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/oauth2"
)

// logout ends the session in the store, then in this process, then at FinCode.
func (s *session) logout(ctx context.Context) error {
	lease, claim := s.lease.Load(), s.idleClaim()
	rec, err := s.remove(ctx)
	if rec == nil || err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx)
	switch {
	case rec.Ended == endedLogout:
		return s.revokeToo(ctx, lease)
	case !hasTokens(rec.Token): // the session had ended, and FinCode knows it
		s.all.observe(LoggedOut, s.key, 0, nil)
		return nil
	}
	// The record is gone, so nobody else presents its refresh token any more, unless
	// a flight has claimed it and may be presenting it now.
	alone := rec.RefreshStarted.IsZero() || claim.isUnusedIn(rec) && claim.verdict == nil
	err = s.revoke(ctx, rec.Token, alone)
	if err != nil && !alone {
		err = fmt.Errorf("it was being refreshed, and the token that the refresh receives is revoked when it arrives: %w", err)
	}
	return err
}

// idleClaim returns a copy of this process's claim, nil if it has none or if a flight
// is using it.
func (s *session) idleClaim() *claim {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.rotation
	if r == nil || r.flying || r.mine == nil {
		return nil
	}
	mine := *r.mine
	return &mine
}

// isUnusedIn reports whether rec carries this claim, or the one that this claim was
// meant to renew, and no flight can have claimed the record since idleClaim returned
// c. A flight that follows a saved claim renews it under a new version. But a flight
// that follows a claim whose Save failed saves it under the same version.
func (c *claim) isUnusedIn(rec *Record) bool {
	switch {
	case c == nil:
		return false
	case c.landed:
		return rec.Version == c.version
	}
	return c.renewal && rec.Version == c.over
}

// remove takes the session out of the store and out of use. It returns the record
// that it removed, nil if there was none.
func (s *session) remove(ctx context.Context) (*Record, error) {
	rec, err := s.retire(ctx)
	if err != nil {
		return nil, err
	}
	ctx = context.WithoutCancel(ctx)
	s.retired(rec)  // from here on, a token that arrives is revoked
	if rec == nil { // a token may have arrived between the two lines above
		if rec, err = s.retire(ctx); rec == nil || err != nil {
			return nil, err
		}
		s.retired(rec)
	}
	s.delete(ctx)
	return rec, nil
}

// retired begins the era after a Logout that replaced rec; nil: there was no record. A
// change that would replace rec was not in the store then. If it gets there later,
// erase finds it.
func (s *session) retired(rec *Record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.pending; p != nil && (rec == nil && p.prev == "" || rec != nil && p.prev == rec.Version) {
		p.alone = true
	}
	s.beginEra(nil, nil)
}

// forget removes the record, even a damaged one, and does not tell FinCode.
func (s *session) forget(ctx context.Context) error {
	rec, err := s.remove(ctx)
	switch {
	case rec == nil && err == nil:
		return nil
	case err != nil:
		if err := s.deleteDamaged(ctx, err); err != nil {
			return err
		}
		s.renew(nil, nil) // as remove does
	}
	s.all.observe(LoggedOut, s.key, 0, nil)
	return nil
}

// deleteDamaged deletes a record that cannot be loaded. It returns why if the record
// can be loaded, or the store does not answer: a Delete compares nothing, and one that
// is carried out late would delete what a Login has saved meanwhile.
func (s *session) deleteDamaged(ctx context.Context, why error) error {
	if _, err := s.load(ctx); err == nil || errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
		return why
	}
	ctx, cancel := context.WithTimeout(ctx, s.all.cfg.RefreshTimeout)
	defer cancel()
	if err := s.all.cfg.Store.Delete(ctx, s.key); err != nil {
		return fmt.Errorf("deleting its record: %w", err)
	}
	return nil
}

// revoke has FinCode revoke both tokens of a pair. FinCode wants a valid access token
// for that. If tok's has expired or was revoked, revoke refreshes it first, provided
// that this process is alone with the pair: nobody else may present its refresh token.
func (s *session) revoke(ctx context.Context, tok *oauth2.Token, alone bool) error {
	started := s.all.now()
	mayRefresh := alone && tok.RefreshToken != ""
	var err error
	expired := !s.all.newLease(tok).valid(started)
	if !expired || !mayRefresh {
		err = s.all.endpoint.logout(ctx, tok)
	}
	if mayRefresh && (expired || isUnauthorized(err)) {
		err = s.refreshAndLogOut(ctx, tok, err)
	}
	s.all.observe(LoggedOut, s.key, s.all.since(started), err)
	return err
}

// refreshAndLogOut logs out with the successor of old. before is the error of the
// logout with old itself; nil: there was none.
func (s *session) refreshAndLogOut(ctx context.Context, old *oauth2.Token, before error) error {
	tok, err := s.all.endpoint.refresh(ctx, old)
	switch {
	case err == nil:
		return s.all.endpoint.logout(ctx, tok)
	case before != nil:
		return fmt.Errorf("%w; then %w", before, err)
	}
	return err
}

// retire saves that the session is logged out, and returns the record before that,
// nil if there is none. Because of the compare-and-swap, nobody can have saved a
// successor of that record's token.
func (s *session) retire(ctx context.Context) (*Record, error) {
	for lost := ""; ; {
		rec, err := s.load(ctx)
		switch {
		case errors.Is(err, ErrNotFound):
			return nil, nil
		case err != nil:
			return nil, err
		case rec.Version == lost:
			return nil, errStale
		}
		lost = rec.Version
		out, before := loggedOut(rec.Version), s.beforeRetiring(rec)
		err = s.save(context.WithoutCancel(ctx), s.all.cfg.RefreshTimeout, out, rec.Version)
		switch {
		case err == nil:
			return before, nil
		case !errors.Is(err, ErrConflict):
			s.noteRetiring(out, before)
			return nil, fmt.Errorf("replacing its record: %w", err)
		}
	}
}

// A retiring is a Logout whose Save failed, but may have taken effect. If it did, the
// next Logout finds the session logged out, and must tell FinCode.
type retiring struct {
	version string  // of the record that says that the session is logged out
	before  *Record // the one that it replaces
}

func (s *session) noteRetiring(out, before *Record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writableStrikes().retiring = &retiring{out.Version, before}
}

// beforeRetiring returns the record that rec replaced, if rec is that of an earlier
// Logout of this process, else rec.
func (s *session) beforeRetiring(rec *Record) *Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.strikes != nil && s.strikes.retiring != nil && s.strikes.retiring.version == rec.Version {
		return s.strikes.retiring.before
	}
	return rec
}

// erase removes from the store p's record, or the record that another process has
// made from it. The latter is added to p.replaces, so that it is revoked with p.
// landed reports whether p may be in the store.
func (s *session) erase(ctx context.Context, p *pending, landed bool) error {
	for there := p.rec; ; {
		lost := there.Version
		err := s.save(ctx, s.all.cfg.RefreshTimeout, loggedOut(lost), lost)
		if err == nil {
			s.delete(ctx)
			if there != p.rec {
				p.replaces = append(p.replaces, there)
			}
			s.setAlone(p, there == p.rec)
			return nil
		}
		if !errors.Is(err, ErrConflict) {
			return err
		}
		there, err = s.load(ctx)
		switch {
		case errors.Is(err, ErrNotFound):
			s.setAlone(p, !landed || s.isAlone(p))
			return nil
		case err != nil:
			return err
		case there.Version == lost:
			return errStale
		case !there.hasComeOf(p.rec):
			return nil
		}
	}
}

// loggedOut returns a record that says that the session is logged out, to be saved
// over the record of version prev. It is saved before a Delete, because a Delete
// compares no version.
func loggedOut(prev string) *Record {
	return &Record{Version: newVersion(prev), Token: &oauth2.Token{}, Ended: endedLogout}
}

// delete deletes a record that says that the session is logged out. If the Delete
// fails, the record stays, and still says so.
func (s *session) delete(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, saveWait/2) // loadStable waits longer
	defer cancel()
	_ = s.all.cfg.Store.Delete(ctx, s.key)
}

// revokeToo is for a Logout of a session that another process has logged out, and
// that process tells FinCode. It does not refresh, because the other process may have
// rotated this token.
func (s *session) revokeToo(ctx context.Context, mine *lease) error {
	if mine == nil {
		return nil
	}
	valid := mine.valid(s.all.now()) // FinCode's 401 to an expired token says nothing about a logout
	err := s.revoke(ctx, mine.token, false)
	if err != nil && outcomeOf(err) == refused && valid {
		return nil
	}
	return err
}

// loadStable loads the record. If the record is about to be deleted, loadStable waits
// a moment until it is gone. A record that is saved over it before that could be
// deleted in its place.
func (s *session) loadStable(ctx context.Context) (*Record, error) {
	for began := s.all.now(); ; {
		rec, err := s.load(ctx)
		if err != nil || rec.Ended != endedLogout || s.all.since(began) > saveWait {
			return rec, err
		}
		select {
		case <-time.After(pollMin):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
