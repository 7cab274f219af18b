package fincodeauth

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/oauth2"
)

// A pending is a new token, or the end of a session, on its way into the store.
type pending struct {
	era  uint32 // what it belongs to
	rec  *Record
	prev string // the version that it replaces

	// over is the pair that it follows: the one whose refresh token was
	// presented. A record that still has it may be replaced, whatever its
	// version: somebody took the claim over.
	over *oauth2.Token

	// supersedes: it replaces any other session, as a login does.
	supersedes bool

	// unheard: a Save of it may have landed although it failed.
	unheard bool

	// refused is the store's last error. Guarded by session.mu: Close reads it.
	refused error

	// found is the record that it was given up for. left: it may be in the store,
	// and is left to the login that replaces it.
	found *Record
	left  bool

	// replaces are the records of this process that were left to it. Guarded by
	// session.mu until it is settled.
	replaces []*Record

	// ended is what to tell once it is saved that the session has; nil: it has not.
	ended *SessionError

	// failed is the error of a caller who finds it pending and no good token.
	failed error
}

// mayReplace tells whether p may replace a record that it does not know.
func (p *pending) mayReplace(there *Record) bool {
	switch {
	case p.supersedes: // but not what may have come of it, or after it
		return !p.unheard || sessionOf(there.Version) == sessionOf(p.prev)
	case there.Ended != "":
		return false
	case p.rec.Ended != "": // a refresh token that stays, or is absent, may have a newer access token
		return sameTokens(there.Token, p.over)
	}
	return p.over.RefreshToken != "" && there.Token.RefreshToken == p.over.RefreshToken
}

// useless returns the tokens that nobody has a use for, once p is kept or not.
func (p *pending) useless(kept bool) (tokens []*oauth2.Token) {
	gone := p.replaces
	if !kept && !p.left {
		gone = append(gone, p.rec)
	}
	for _, rec := range gone {
		if hasTokens(rec.Token) && !p.found.hasComeOf(rec) {
			tokens = append(tokens, rec.Token)
		}
	}
	return tokens
}

// hasComeOf tells whether r is a session that began with rec's, or goes on from it.
func (r *Record) hasComeOf(rec *Record) bool {
	return r != nil && r.Ended == "" && sessionOf(r.Version) == sessionOf(rec.Version)
}

// errOutdated: the session was ended or replaced while the token was on its way.
var errOutdated = errors.New("the session was ended or replaced meanwhile")

// keep has p saved, in the background for as long as that takes, and waits for
// the first attempt, but no longer than saveWait, nor than a tenth of the token's
// life. It returns false if the session was ended or replaced: the token is
// revoked then, unless it is in the store and somebody goes by it.
func (s *session) keep(ctx context.Context, p *pending) bool {
	s.pinToo()
	first := make(chan error, 1)
	go func() {
		started := s.all.now()
		err := s.saveFirst(ctx, p, started)
		if err == nil && len(p.replaces) == 0 {
			s.unpin() // first: whoever waits may go on to what drops the session
			first <- nil
			return
		}
		defer s.unpin()
		first <- err
		if err != nil && err != errOutdated {
			err = s.saveAgain(ctx, p, started)
		}
		if err == nil || err == errOutdated {
			for _, tok := range p.useless(err == nil) {
				s.revoke(ctx, tok)
			}
		}
	}()
	wait := saveWait
	if l := s.lease.Load(); l != nil && l.lifetime > 0 {
		wait = min(wait, l.lifetime/10)
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case err := <-first:
		return err != errOutdated
	case <-timer.C:
		return true
	}
}

// saveFirst tries to save p for the first time.
func (s *session) saveFirst(ctx context.Context, p *pending, started time.Time) error {
	err := s.saveNow(ctx, p, s.all.cfg.RefreshTimeout/4)
	if err == nil || err == errOutdated {
		s.settled(p, err == nil)
	} else {
		s.refused(p, err)
		s.all.observe(SaveFailed, s.key, s.all.since(started), p.unsavedFor(err))
	}
	return err
}

// refused notes why the store did not accept p.
func (s *session) refused(p *pending, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p.refused = err
}

// unsavedFor is the Err of a SaveFailed: the store's, and for the end of a session
// FinCode's verdict too, for if this process dies nobody else learns of it.
func (p *pending) unsavedFor(err error) error {
	if p.ended == nil {
		return err
	}
	return fmt.Errorf("the end of the session is not saved yet (%w): %w", p.ended.Err, err)
}

// saveAgain saves p, which failed once, until that lands, the session is ended
// or replaced, or the context of Close ends. Many short attempts are made before
// a process that watches the claim takes its owner for dead.
func (s *session) saveAgain(ctx context.Context, p *pending, started time.Time) error {
	closing := s.all.closing
	most := s.all.cfg.RefreshTimeout
	for delay, limit := saveRetryMin, most/4; ; delay, limit = min(2*delay, saveRetryMax, most/4), min(2*limit, most) {
		if s.all.isAbandoned() {
			return ErrClosed
		}
		select {
		case <-time.After(s.all.jittered(delay)):
		case <-closing: // now or never: try at once, and often from here on
			closing, delay = nil, saveRetryMin
		case <-s.all.abandoned:
			continue
		}
		switch err := s.saveNow(ctx, p, limit); err {
		case nil:
			s.settled(p, true)
			s.all.observe(Saved, s.key, s.all.since(started), nil)
			return nil
		case errOutdated:
			s.settled(p, false)
			return err
		default:
			s.refused(p, err)
		}
	}
}

// saveNow tries once to save p: over the version that it replaces, or over
// whatever record it may replace as well. The store has until limit.
func (s *session) saveNow(ctx context.Context, p *pending, limit time.Duration) error {
	for landed := p.unheard; ; {
		if s.currentEra() != p.era {
			return s.giveUp(ctx, p, limit, landed)
		}
		err := s.save(ctx, limit, p.rec, p.prev)
		switch {
		case err == nil && s.currentEra() != p.era:
			landed = true
		case errors.Is(err, ErrConflict):
			if again, err := s.resolve(ctx, p); !again {
				return err
			}
		default:
			p.unheard = err != nil
			return err
		}
	}
}

// resolve tells, after a conflict, whether p may replace what is there and is to be
// saved again; else what became of it.
func (s *session) resolve(ctx context.Context, p *pending) (again bool, err error) {
	there, err := s.loadStable(ctx)
	switch {
	case errors.Is(err, ErrNotFound) && p.supersedes && !p.unheard && p.prev == "",
		err == nil && there.Version == p.prev:
		return false, errStale
	case errors.Is(err, ErrNotFound) && p.supersedes && !p.unheard:
		p.prev = ""
		return true, nil
	case errors.Is(err, ErrNotFound):
		return false, errOutdated
	case err != nil:
		return false, err
	case there.Version == p.rec.Version, there.Ended == "" && sameTokens(there.Token, p.rec.Token):
		return false, nil // somebody may have claimed it already
	case p.mayReplace(there):
		p.prev = there.Version
		return true, nil
	}
	p.found = there
	return false, errOutdated
}

// giveUp is saveNow for a p whose session was ended or replaced in this process.
// landed: it may be in the store.
func (s *session) giveUp(ctx context.Context, p *pending, limit time.Duration, landed bool) error {
	if s.isLoggedOutSince(p.era) {
		// It may have landed after a Logout that found no record yet.
		if err := s.erase(ctx, p); err != nil {
			return err
		}
		return errOutdated
	}
	saved := false
	if !p.supersedes && hasTokens(p.rec.Token) {
		// The login that replaced it may yet be given up for what is there.
		err := s.save(ctx, limit, p.rec, p.prev)
		if err != nil && !errors.Is(err, ErrConflict) {
			p.unheard = true
			return err
		}
		saved = err == nil
	}
	if s.leave(p, landed || saved) {
		return errOutdated
	}
	there, err := s.loadStable(ctx)
	switch {
	case err != nil && !errors.Is(err, ErrNotFound):
		return err
	case saved && there.hasComeOf(p.rec):
		return nil
	}
	p.found = there
	return errOutdated
}

// leave leaves p, if it landed, and what was left to p, to the login that is on its
// way into the store, if there is one: until that is saved, other processes go by
// what is there.
func (s *session) leave(p *pending, landed bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	heir := s.pending
	if p.era < s.out || heir == nil || !heir.supersedes {
		return false
	}
	heir.replaces = append(heir.replaces, p.replaces...)
	p.replaces = nil
	if landed {
		heir.replaces = append(heir.replaces, p.rec)
		p.left = true
	}
	return true
}

// isLoggedOutSince tells whether there was a Logout after that era.
func (s *session) isLoggedOutSince(era uint32) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return era < s.out
}

// settled notes that p needs no saving any more: it is kept, or to be dropped. If
// it is the end of the session, it is told now.
func (s *session) settled(p *pending, kept bool) {
	s.mu.Lock()
	if s.pending == p {
		s.pending = nil
	}
	if l := s.lease.Load(); !kept && l != nil && l.token == p.rec.Token {
		s.lease.Store(nil)
	}
	overtaken := s.era != p.era
	s.mu.Unlock()
	if kept && p.ended != nil && !overtaken {
		s.all.observe(Ended, s.key, 0, p.ended)
	}
}

// version returns the version of the session's record, "" if there is none.
func (s *session) version(ctx context.Context) (string, error) {
	rec, err := s.loadStable(ctx)
	if errors.Is(err, ErrNotFound) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return rec.Version, nil
}

// replace begins a new era with tok, over the record of version prev.
func (s *session) replace(ctx context.Context, tok *oauth2.Token, prev string) {
	p := &pending{rec: &Record{Version: newVersion(""), Token: tok}, prev: prev, supersedes: true, failed: errUnsaved}
	s.renew(s.all.newLease(tok), p)
	s.keep(ctx, p)
}
