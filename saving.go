package fincodeauth

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Saving. What FinCode answered must reach the store, however long that takes: until
// then it exists only in this process.
//
// # The rules
//
//  1. A session has at most one unsaved change. A refresh does not begin while there is
//     one. A Login goes on saving it until FinCode has answered, and then replaces it. A
//     Logout saves it first.
//  2. Whoever brings a change gives the turn to a goroutine, which tries once to save the
//     change, and waits a moment for that.
//  3. If that attempt fails, the session has a saver, a goroutine that tries again and
//     again. It takes the turn for each attempt, and pauses without it. Whoever saves the
//     change ends the saver.
//  4. Only a Close that gives up ends the saver early. The change then stays unsaved, and
//     Close names the session.
//
// # Why this is enough
//
// A Save whose answer is lost may have landed, or may land later. While the change is
// unsaved, the same version is saved again, so it does not matter which Save landed. If
// another process has saved a record meanwhile, the compare-and-swap fails, and
// change.fateOver decides which record stays. A Login knows the sessions that it replaces,
// also those whose Save may still land: it is saved over them.

// errUnsaved: the last token has expired, and is not refreshed before it is saved.
var errUnsaved error = told{errors.New("the store has not accepted the last token yet")}

// bring makes c the session's unsaved change, and returns it. If there is one already, c
// is a login, and replaces it. The turn is held.
func (s *session) bring(c *change) *change {
	s.mu.Lock()
	defer s.mu.Unlock()
	if before := s.activity.unsaved; before != nil {
		c.rec.Replaces = replacing(c.rec.Replaces, sessionOf(before.rec.Version))
		before.fate = fateGivenUp
	}
	if c.rec.Ended == "" {
		s.known = knownOf(c.rec, s.env.now())
	}
	c.storeErr = errNoAnswer
	s.activity.unsaved = c
	return c
}

// fateOf returns what has become of a change.
func (s *session) fateOf(c *change) fate {
	s.mu.Lock()
	defer s.mu.Unlock()
	return c.fate
}

// endTurnAndSave ends the turn. If the turn has brought a change, a goroutine of its own
// inherits the turn for the first attempt to save it. endTurnAndSave waits for that, but
// no longer than saveWaitOf says.
func (s *session) endTurnAndSave(ctx context.Context) {
	if c := s.activity.unsaved; c == nil || !c.started.IsZero() {
		s.endTurn()
		return
	}
	s.pinToo()
	timer := time.NewTimer(saveWaitOf(s.lease.Load()))
	defer timer.Stop()
	tried := make(chan struct{})
	go func() {
		var saved <-chan struct{}
		defer func() {
			s.unpin() // before the receiver goes on, because it may do something that drops the session
			if saved == nil {
				close(tried)
			}
		}()
		if saved = s.saveFirst(ctx); saved != nil {
			close(tried)
			s.saveAgain(ctx, saved)
		}
	}()
	select {
	case <-tried:
	case <-timer.C:
	}
}

// saveFirst makes the first attempt to save a change, and ends the turn. If the session
// needs a saver now, it returns the channel that ends the saver, else nil.
func (s *session) saveFirst(ctx context.Context) (saved <-chan struct{}) {
	defer s.endTurn()
	if s.saveOnce(ctx, s.env.cfg.RefreshTimeout/4) == nil || s.activity.saver != nil {
		return nil
	}
	s.activity.saver = make(chan struct{})
	return s.activity.saver
}

// saveWaitOf returns how long callers wait until a token is saved: a second, or a tenth of
// its life if that is less.
func saveWaitOf(l *lease) time.Duration {
	if l == nil || l.lifetime == 0 {
		return saveWait
	}
	return min(saveWait, l.lifetime/10)
}

// saveAgain is the saver: it repeats the save until the change is saved, or the context of
// Close ends. The first attempts are short, so that there are many of them before other
// processes think that the owner of the claim is dead. saved is closed when the change is
// saved, whoever has saved it.
func (s *session) saveAgain(ctx context.Context, saved <-chan struct{}) {
	closing := s.env.closing
	delay, limit := saveRetryMin, s.env.cfg.RefreshTimeout/4
	for !s.env.isAbandoned() {
		select {
		case <-time.After(s.env.jittered(delay)):
		case <-closing: // time is short: try at once, and often from now on
			closing, delay = nil, saveRetryMin
		case <-s.env.abandoned:
			return
		case <-saved:
			return
		}
		if !s.takeTurnToSave() {
			return
		}
		s.saveAndEndTurn(ctx, limit)
		delay, limit = s.nextDelay(delay), min(2*limit, s.env.cfg.RefreshTimeout)
	}
}

// saveAndEndTurn makes one attempt to save, and ends the turn. The change has the error.
func (s *session) saveAndEndTurn(ctx context.Context, limit time.Duration) {
	defer s.endTurn()
	_ = s.saveOnce(ctx, limit)
}

// nextDelay returns how long to wait after a failed attempt to save.
func (s *session) nextDelay(last time.Duration) time.Duration {
	return min(2*last, saveRetryMax, s.env.cfg.RefreshTimeout/4)
}

// saveWhile calls do, which may take long, and returns when do has. Meanwhile it saves
// what is unsaved, because the saver does not get the turn: otherwise another process
// could take over from this one. The turn is held.
func (s *session) saveWhile(ctx context.Context, do func()) {
	if s.activity.unsaved == nil {
		do()
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		do()
	}()
	for delay := saveRetryMin; s.activity.unsaved != nil; delay = s.nextDelay(delay) {
		select {
		case <-done:
			return
		case <-time.After(s.env.jittered(delay)):
			_ = s.saveOnce(ctx, s.env.cfg.RefreshTimeout/4)
		}
	}
	<-done
}

// saveOnce makes one attempt to save the unsaved change, if there is one. It returns the
// store's error if the change stays unsaved. limit is for each call to the store. The turn
// is held.
func (s *session) saveOnce(ctx context.Context, limit time.Duration) error {
	ctx = context.WithoutCancel(ctx) // what FinCode answered does not depend on a caller
	c := s.activity.unsaved
	if c == nil {
		return nil
	}
	if c.started.IsZero() {
		c.started = s.env.now()
	}
	err := s.save(ctx, c, limit)
	if err != nil {
		s.reportUnsaved(c, err)
	}
	return err
}

// save saves c over the version that it replaces, or over another record that it may
// replace.
func (s *session) save(ctx context.Context, c *change, limit time.Duration) error {
	var lost error // what the store has lost
	for {
		err := s.cell().within(limit).save(ctx, c.rec, c.prev)
		if err == nil {
			s.settle(ctx, c, fateSaved)
			s.reportReverted(lost)
			s.known = knownOf(c.rec, s.env.now())
			s.env.lookout.last.Store(s)
			return nil
		}
		if !errors.Is(err, ErrConflict) {
			c.unheard = true
			return err
		}
		there, err := s.cell().within(limit).loadStable(ctx)
		if err != nil {
			return err
		}
		switch fate := c.fateOver(there); fate {
		case fateStale:
			return errStale
		case fateReplaces:
			if c.showsLoss(there) {
				lost = revertedError(there, c.rec)
			}
			if c.presented == nil {
				c.rec.Replaces = replacing(c.rec.Replaces, sessionOf(versionOf(there)))
			}
			c.prev = versionOf(there)
		default:
			s.settle(ctx, c, fate)
			s.known = nil
			if there != nil {
				s.known = knownOf(there, s.env.now())
			}
			return nil
		}
	}
}

// settle acts on the fate of c. After a logout, the token of c is revoked.
func (s *session) settle(ctx context.Context, c *change, fate fate) {
	s.endSaving(fate)
	switch {
	case fate == fateLoggedOut && hasTokens(c.rec.Token):
		_ = s.revoke(ctx, c.rec.Token, !c.unheard) // the event LoggedOut has the error
	case fate == fateSaved:
		s.reportSaved(c)
	}
}

// endSaving ends the saving of the unsaved change, if there is one. If the change was not
// saved, its token is taken out of use. The turn is held.
func (s *session) endSaving(fate fate) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.activity.unsaved; c != nil {
		c.fate = fate
		s.activity.unsaved = nil
		if l := s.lease.Load(); fate != fateSaved && l != nil && l.token == c.rec.Token {
			s.lease.Store(nil)
		}
	}
	if s.activity.saver != nil {
		close(s.activity.saver)
		s.activity.saver = nil
	}
}

// reportSaved sends the events that follow the save of a change.
func (s *session) reportSaved(c *change) {
	if c.ended != nil {
		s.env.send(Event{Type: Ended, Key: s.key, Err: c.ended, TookOver: c.tookOver})
	}
	if c.reported {
		s.env.observe(Saved, s.key, s.env.since(c.started), nil)
	}
}

// reportUnsaved notes why the store did not accept c, and sends SaveFailed for the first time
// that it did not. For the end of a session, the event has FinCode's refusal, too, which
// nobody else learns if this process dies.
func (s *session) reportUnsaved(c *change, err error) {
	s.mu.Lock()
	c.storeErr = err
	s.mu.Unlock()
	if c.reported {
		return
	}
	c.reported = true
	if c.ended != nil {
		err = fmt.Errorf("the end of the session is not saved yet (%w): %w", c.ended.Err, err)
	}
	s.env.observe(SaveFailed, s.key, s.env.since(c.started), err)
}

// errNoAnswer is used as the store's last error while the store has not returned one.
var errNoAnswer = errors.New("none, it has not answered yet")

// unsavedError returns the store's last error for the change that is not saved; nil:
// everything is saved.
func (s *session) unsavedError() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.activity == nil || s.activity.unsaved == nil {
		return nil
	}
	return s.activity.unsaved.storeErr
}
