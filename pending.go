package fincodeauth

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/oauth2"
)

// Saving. What FinCode answered must reach the store, however long that takes: until
// then it exists only in this process. So each change is saved by a goroutine of its
// own, which goes on while the store fails.
//
// Only that goroutine uses its pending, except for the fields that session.mu guards.
// A Login, an Adopt, a Logout or a Forget may begin a new era meanwhile. The goroutine
// sees that before each attempt and after each Save that succeeds, and then gives up
// its change: see giveUp. If another process has saved a record meanwhile, the
// compare-and-swap fails, and resolve decides which record stays.

// A pending is a change on its way into the store: a new token, or the end of a
// session.
type pending struct {
	era  uint32 // to which it belongs
	rec  *Record
	prev string // the version that rec replaces; written under session.mu

	// over is the pair whose refresh token was presented. A record that still has
	// this pair may be replaced, even if it has another version: another process
	// has taken over the claim.
	over *oauth2.Token

	// supersedes: rec replaces any session, because it comes from a Login or an
	// Adopt.
	supersedes bool

	// unheard: a Save of rec failed, but may have landed.
	unheard bool

	// refused is the store's last error. Guarded by session.mu: Close reads it.
	refused error

	// found is the record in the store for which the change was given up; nil:
	// there was none.
	found *Record

	// left: rec may be in the store, and the login that replaces it will revoke
	// its tokens.
	left bool

	// alone: rec is not in the store, and no other process has used it. Guarded by
	// session.mu.
	alone bool

	// replaces are earlier records of this process. Their tokens are revoked when
	// this change is settled. Guarded by session.mu until then.
	replaces []*Record

	// ended is the error of the event Ended, which is sent once rec is saved; nil:
	// rec does not end the session.
	ended *SessionError

	// failed is the error for callers while the change is pending and there is no
	// good token.
	failed error
}

// mayReplace reports whether p may replace a record that it finds in the store
// instead of the one with version prev.
func (p *pending) mayReplace(there *Record) bool {
	switch {
	case p.supersedes: // but if rec may have landed, not what others have made of it since
		return !p.unheard || sessionOf(there.Version) == sessionOf(p.prev)
	case there.Ended != "":
		return false
	case p.rec.Ended != "": // a newer pair may have the same refresh token
		return sameTokens(there.Token, p.over)
	}
	return p.over.RefreshToken != "" && there.Token.RefreshToken == p.over.RefreshToken
}

// useless returns the tokens that nobody needs any more, once p is saved (kept) or
// given up.
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

// hasComeOf reports whether r belongs to the same session as rec, and the session has
// not ended.
func (r *Record) hasComeOf(rec *Record) bool {
	return r != nil && r.Ended == "" && sessionOf(r.Version) == sessionOf(rec.Version)
}

// errOutdated: the session was ended or replaced while the token was on its way.
var errOutdated = errors.New("the session was ended or replaced meanwhile")

// keep saves p in the background, for as long as that takes. It waits for the first
// attempt, but no longer than saveWait or a tenth of the token's life. It returns
// false if the session was ended or replaced meanwhile. The token is revoked then,
// unless it is in the store and another process uses it.
func (s *session) keep(ctx context.Context, p *pending) bool {
	s.pinToo()
	first := make(chan error, 1)
	go func() {
		started := s.all.now()
		err := s.saveFirst(ctx, p, started)
		if err == nil && len(p.replaces) == 0 {
			s.unpin() // before the send: the receiver may do something that drops the session
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
				s.revoke(ctx, tok, tok == p.rec.Token && s.isAlone(p))
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

func (s *session) isAlone(p *pending) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return p.alone
}

func (s *session) setAlone(p *pending, alone bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p.alone = alone
}

// replaceInstead lets p replace the record of that version.
func (s *session) replaceInstead(p *pending, version string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p.prev = version
}

// saveFirst makes the first attempt to save p. If it fails, it sends SaveFailed.
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

// unsavedFor returns the Err of a SaveFailed: the store's error. For the end of a
// session it adds FinCode's verdict, which nobody else learns if this process dies.
func (p *pending) unsavedFor(err error) error {
	if p.ended == nil {
		return err
	}
	return fmt.Errorf("the end of the session is not saved yet (%w): %w", p.ended.Err, err)
}

// saveAgain repeats the save of p until it lands, the session is ended or replaced,
// or the context of Close ends. The first attempts are short, so that there are many
// of them before other processes think that the owner of the claim is dead.
func (s *session) saveAgain(ctx context.Context, p *pending, started time.Time) error {
	closing := s.all.closing
	most := s.all.cfg.RefreshTimeout
	for delay, limit := saveRetryMin, most/4; ; delay, limit = min(2*delay, saveRetryMax, most/4), min(2*limit, most) {
		if s.all.isAbandoned() {
			return ErrClosed
		}
		select {
		case <-time.After(s.all.jittered(delay)):
		case <-closing: // time is short: try at once, and often from now on
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

// saveNow makes one attempt to save p: over the version that it replaces, or over
// another record that it may replace. Each call to the store is bounded by limit.
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

// resolve decides what becomes of p after a conflict. It returns true if p may replace
// the record that is there, and must be saved again. Otherwise it returns nil if p is
// saved already, errOutdated if p must be given up, or the error of the store.
func (s *session) resolve(ctx context.Context, p *pending) (again bool, err error) {
	there, err := s.loadStable(ctx)
	switch {
	case errors.Is(err, ErrNotFound) && p.supersedes && !p.unheard && p.prev == "",
		err == nil && there.Version == p.prev:
		return false, errStale
	case errors.Is(err, ErrNotFound) && p.supersedes && !p.unheard:
		s.replaceInstead(p, "")
		return true, nil
	case errors.Is(err, ErrNotFound):
		return false, errOutdated
	case err != nil:
		return false, err
	case there.Version == p.rec.Version, there.Ended == "" && sameTokens(there.Token, p.rec.Token):
		return false, nil // another process may have claimed it already
	case p.mayReplace(there):
		s.replaceInstead(p, there.Version)
		return true, nil
	}
	p.found = there
	return false, errOutdated
}

// giveUp is saveNow for a p whose session was ended or replaced in this process.
// landed reports whether p may be in the store.
//
// After a Logout, p must not stay in the store. After a Login, a p that is a successor
// is saved: other processes use it until the login is saved. If the login is then given
// up, p is the session's last token.
func (s *session) giveUp(ctx context.Context, p *pending, limit time.Duration, landed bool) error {
	if s.isLoggedOutSince(p.era) {
		// p may have landed after the Logout looked, and found no record.
		if err := s.erase(ctx, p, landed); err != nil {
			return err
		}
		return errOutdated
	}
	saved := false
	if !p.supersedes && hasTokens(p.rec.Token) {
		// The login may still be given up for the record that is in the store.
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

// leave hands p, if it landed, and p's inherited records to the login that supersedes
// it: other processes use them until that login is saved. It returns false if there
// is no such login.
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

// isLoggedOutSince reports whether there was a Logout after that era.
func (s *session) isLoggedOutSince(era uint32) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return era < s.out
}

// settled notes that p is saved (kept), or given up. If p is saved and ends the
// session, settled sends Ended.
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

// version returns the version of the record in the store, "" if there is none.
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

// replace begins a new era with tok, and saves it over the record of version prev.
func (s *session) replace(ctx context.Context, tok *oauth2.Token, prev string) {
	p := &pending{rec: &Record{Version: newVersion(""), Token: tok}, prev: prev, supersedes: true, failed: errUnsaved}
	s.renew(s.all.newLease(tok), p)
	s.keep(ctx, p)
}
