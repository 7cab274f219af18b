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
	mine := s.lease.Load()
	rec, err := s.remove(ctx)
	if rec == nil || err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx)
	switch {
	case rec.Ended == endedLogout:
		return s.revokeToo(ctx, mine)
	case !hasTokens(rec.Token): // the session had ended, and FinCode knows it
		s.all.observe(LoggedOut, s.key, 0, nil)
		return nil
	}
	return s.endAtFinCode(ctx, rec)
}

// remove takes the session out of the store and out of use. It returns the record
// that it removed, nil if there was none.
func (s *session) remove(ctx context.Context) (*Record, error) {
	rec, err := s.retire(ctx)
	if err != nil {
		return nil, err
	}
	ctx = context.WithoutCancel(ctx)
	s.renew(nil, nil) // from here on, a token that arrives is revoked
	if rec == nil {   // a token may have arrived between the two lines above
		if rec, err = s.retire(ctx); rec == nil || err != nil {
			return nil, err
		}
		s.renew(nil, nil)
	}
	s.delete(ctx)
	return rec, nil
}

// forget removes the record, even a damaged one, and does not tell FinCode.
func (s *session) forget(ctx context.Context) error {
	rec, err := s.remove(ctx)
	if err != nil { // the record is damaged, or the store fails
		ctx, cancel := context.WithTimeout(ctx, s.all.cfg.RefreshTimeout)
		defer cancel()
		if err := s.all.cfg.Store.Delete(ctx, s.key); err != nil {
			return fmt.Errorf("deleting its record: %w", err)
		}
		s.renew(nil, nil) // as remove does
	}
	if rec != nil || err != nil {
		s.all.observe(LoggedOut, s.key, 0, nil)
	}
	return nil
}

// endAtFinCode has FinCode revoke both tokens of a record that was removed. FinCode
// wants a valid access token for that. If the record's access token has expired or
// was revoked, endAtFinCode refreshes it first: the record is gone, so nobody else
// presents its refresh token. But if another process had claimed the record, that
// process may have presented the refresh token. It then revokes the successor, and
// endAtFinCode does not refresh.
func (s *session) endAtFinCode(ctx context.Context, rec *Record) error {
	tok, started := rec.Token, s.all.now()
	claimed := !rec.RefreshStarted.IsZero()
	mayRefresh := !claimed && tok.RefreshToken != ""
	var err error
	expired := !s.all.newLease(tok).valid(started)
	if !expired || !mayRefresh {
		err = s.all.endpoint.logout(ctx, tok)
	}
	if mayRefresh && (expired || isUnauthorized(err)) {
		err = s.refreshAndLogOut(ctx, tok, err)
	}
	s.all.observe(LoggedOut, s.key, s.all.since(started), err)
	if err != nil && claimed {
		err = fmt.Errorf("another process was refreshing it, and revokes the token that it receives: %w", err)
	}
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
		err = s.save(context.WithoutCancel(ctx), s.all.cfg.RefreshTimeout, loggedOut(rec.Version), rec.Version)
		switch {
		case err == nil:
			return rec, nil
		case !errors.Is(err, ErrConflict):
			return nil, fmt.Errorf("replacing its record: %w", err)
		}
	}
}

// erase removes from the store p's record, or the record that another process has
// made from it. The latter is added to p.replaces, so that it is revoked with p.
func (s *session) erase(ctx context.Context, p *pending) error {
	for there := p.rec; ; {
		lost := there.Version
		err := s.save(ctx, s.all.cfg.RefreshTimeout, loggedOut(lost), lost)
		if err == nil {
			s.delete(ctx)
			if there != p.rec {
				p.replaces = append(p.replaces, there)
			}
			return nil
		}
		if !errors.Is(err, ErrConflict) {
			return err
		}
		there, err = s.load(ctx)
		switch {
		case errors.Is(err, ErrNotFound):
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

// revoke tells FinCode that nobody will use these tokens any more.
func (s *session) revoke(ctx context.Context, tok *oauth2.Token) error {
	started := s.all.now()
	err := s.all.endpoint.logout(ctx, tok)
	s.all.observe(LoggedOut, s.key, s.all.since(started), err)
	return err
}

// revokeToo is for a Logout of a session that was already logged out. Either an
// earlier Logout of this process did that: its Save took effect but returned an
// error, so FinCode was not told. Or another process did it, and tells FinCode
// itself. revokeToo does not refresh, because the other process may have rotated
// this token.
func (s *session) revokeToo(ctx context.Context, mine *lease) error {
	if mine == nil {
		return nil
	}
	valid := mine.valid(s.all.now()) // FinCode's 401 to an expired token says nothing about a logout
	err := s.revoke(ctx, mine.token)
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
