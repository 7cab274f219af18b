package fincodeauth

import (
	"context"
	"errors"
	"iter"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// Looking out. A process that knows more than a store that has gone back may not need the
// store for the next hour. Meanwhile, a process that knows less would present a token that
// was used. So a process looks at the store by itself, and a process that has seen the
// store come back gives the others a moment to look.
//
// # The rules
//
//  1. A look begins when somebody uses a session: lookEvery after the last one, a second
//     after a call to the store failed, and each second for a while after the store was
//     away. It begins at once when the store is back, and when it was seen to have gone
//     back.
//  2. A store that goes back loses its last writes first. So a look loads one record: the
//     last one that this process has saved or adopted. Only if the store has lost that, or
//     was seen to have lost another, the look goes on with all sessions in memory. (Of a
//     store with shards, one may go back alone. Then the look may miss it.)
//  3. A look heals what it finds (healing.go), and does nothing else. It takes the turn of
//     each session. Where somebody has the turn, that one compares what the store has.
//  4. When the store has been away, or has gone back, an early refresh is put off, and a
//     flight without a good token pauses once before it claims.
//
// # Why this is enough
//
// Nothing here is needed to keep a promise of one process. It makes the time shorter in
// which a process that knows less can act on what the store has lost. A look that is
// missed, or finds nothing, changes nothing.

const (
	lookEvery    = time.Minute      // between two looks while all is well
	lookAgain    = time.Second      // between two looks when something is wrong
	lookHarder   = 10 * time.Second // how long something is wrong after the store came back
	awayMin      = time.Second      // a store whose calls fail for this long, and never succeed, was away
	othersLookIn = 2 * time.Second  // what a flight without a good token grants others after the store came back
)

// A lookout knows when this process looks at the store by itself. Its times are counted
// from environment.started.
type lookout struct {
	sessions iter.Seq[*session] // all that are in memory

	next atomic.Int64            // no look before then; a hint, which anybody may write
	last atomic.Pointer[session] // whose record this process has saved, healed or adopted last; nil: none
	busy atomic.Bool             // a look is under way

	mu       sync.Mutex    // guards what follows
	awayFrom time.Duration // when the first call began that failed since the last answer; 0: none failed
	failedAt time.Duration // when the last of them ended
	backAt   time.Duration // when the store came back last, or was seen to have gone back; 0: never
	lost     bool          // the store has gone back, and not all sessions were looked at since
	rest     time.Duration // all sessions are not looked at before then
}

// heard notes that a call to the store began and ended, and whether the store answered it.
// It reports whether the store was away, and is back.
func (o *lookout) heard(began, ended time.Duration, answered bool) (isBack bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !answered {
		if o.awayFrom == 0 {
			o.awayFrom = max(began, 1)
		}
		o.failedAt = ended
		o.lookBy(ended + lookAgain)
		return false
	}
	wasAway := o.awayFrom != 0 && o.failedAt-o.awayFrom >= awayMin
	o.awayFrom = 0
	if wasAway {
		o.backAt = ended
		o.lookBy(ended)
	}
	return wasAway
}

// hasGoneBack notes that the store has gone back.
func (o *lookout) hasGoneBack(now time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.lost, o.backAt = true, now
	o.lookBy(now)
}

// lookBy brings the next look forward. mu is held.
func (o *lookout) lookBy(at time.Duration) {
	o.next.Store(min(o.next.Load(), int64(at)))
}

// begins reports whether a look begins now, and says when the next one does.
func (o *lookout) begins(now time.Duration) bool {
	next := o.next.Load()
	if int64(now) < next || o.busy.Load() {
		return false
	}
	pause := lookEvery
	o.mu.Lock()
	if o.backAt != 0 && now-o.backAt < lookHarder {
		pause = lookAgain
	}
	o.mu.Unlock()
	return o.next.CompareAndSwap(next, int64(now+pause)) && o.busy.CompareAndSwap(false, true)
}

// beginsAll reports whether all sessions must be looked at now, and notes that this begins.
// If the store is seen to have gone back meanwhile, they must be looked at again.
func (o *lookout) beginsAll(now time.Duration) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.lost || now < o.rest {
		return false
	}
	o.lost = false
	return true
}

// endsAll notes that all sessions were looked at, or that the store failed meanwhile. A
// process with many sessions spends a tenth of its time on that at most.
func (o *lookout) endsAll(began, ended time.Duration, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.lost = o.lost || err != nil
	o.rest = ended + 9*(ended-began)
}

// grace returns how much longer others get to look before a flight claims; 0 or less: no
// longer. left is how long the token in use stays good, and 0 if there is none: if nobody
// waits for the flight, others get more time.
func (o *lookout) grace(now, left time.Duration) time.Duration {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.backAt == 0 {
		return 0
	}
	return o.backAt + max(othersLookIn, min(lookEvery, left/2)) - now
}

// lookOut begins a look if one is due. by has the turn, and compares what the store has of
// it; nil: there is none.
func (e *environment) lookOut(now time.Time, by *session) {
	if !e.lookout.begins(now.Sub(e.started)) || e.enlist() != nil {
		return
	}
	last := e.lookout.last.Load()
	go func() {
		defer e.work.Done()
		defer e.lookout.busy.Store(false)
		ctx, cancel := e.untilClosing(context.Background())
		defer cancel()
		e.look(ctx, last, by)
	}()
}

// look heals the last session that this process has saved or adopted. If the store has
// gone back, look heals all sessions in memory.
func (e *environment) look(ctx context.Context, last, by *session) {
	if last != nil && last != by {
		_ = last.checkUp(ctx) // the lookout knows of the error
	}
	began := e.since(e.started)
	if !e.lookout.beginsAll(began) {
		return
	}
	all, ctx := errgroup.WithContext(ctx)
	all.SetLimit(8)
	for s := range e.lookout.sessions {
		if s != by && ctx.Err() == nil {
			all.Go(func() error { return s.checkUp(ctx) })
		}
	}
	err := all.Wait()
	e.lookout.endsAll(began, e.since(e.started), err)
}

// checkUp heals the session if the store has an older state of it than this process
// knows, unless somebody has the turn. It returns the error of the store.
func (s *session) checkUp(ctx context.Context) error {
	if s.pin() != nil {
		return nil
	}
	defer s.unpin()
	if !s.tryTurn() {
		return nil
	}
	defer s.endTurn()
	if s.known == nil || s.activity.unsaved != nil {
		return nil // there is nothing to compare, or the saver heals it
	}
	rec, err := s.cell().within(s.env.cfg.RefreshTimeout / 4).load(ctx) // others wait for the turn
	if err != nil || !s.known.isAhead(rec, s.env.now()) {
		return err
	}
	err = s.heal(ctx, rec)
	if errors.Is(err, ErrConflict) {
		return nil // others have healed it, or gone on
	}
	return err
}
