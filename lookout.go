package fincodeauth

import (
	"context"
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
//     something else before, the look goes on with all sessions in memory.
//  3. A look heals what it finds (healing.go), and does nothing else. It takes the turn of
//     each session. Where somebody has the turn, that one compares what the store has.
//  4. When the store has been away, or has gone back, a flight pauses once before it
//     claims.
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
	awayMin      = time.Second      // a store that answers nobody for this long was away
	othersLookIn = 2 * time.Second  // what a flight grants others after the store came back
)

// A lookout knows when this process looks at the store by itself. Its times are counted
// from environment.started.
type lookout struct {
	sessions iter.Seq[*session] // all that are in memory

	next atomic.Int64            // no look before then; a hint, which anybody may write
	last atomic.Pointer[session] // whose record this process has saved, healed or adopted last; nil: none
	busy atomic.Bool             // a look is under way

	mu       sync.Mutex    // guards what follows
	answered time.Duration // when the store answered last
	awayFrom time.Duration // when the first call began that failed since then; 0: none failed
	backAt   time.Duration // when the store came back last, or was seen to have gone back; 0: never
	lost     bool          // the store has gone back, and not all sessions were looked at since
}

// heard notes that a call to the store began and ended, and whether the store answered it.
// It reports whether calls failed, and the store is back.
func (o *lookout) heard(began, ended time.Duration, answered bool) (isBack bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !answered {
		if o.awayFrom == 0 {
			o.awayFrom = max(began, o.answered, 1)
		}
		o.lookBy(ended + lookAgain)
		return false
	}
	away, failed := max(began, o.answered), o.awayFrom != 0 // a client may have repeated a call by itself
	if failed {
		away = o.awayFrom
	}
	o.answered, o.awayFrom = max(ended, 1), 0
	if ended-away < awayMin {
		return false
	}
	o.backAt = ended
	o.lookBy(ended)
	return failed
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
	if int64(now) < next {
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

// hasLost reports whether all sessions must be looked at.
func (o *lookout) hasLost() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.lost
}

// hasHealed notes that all sessions were looked at.
func (o *lookout) hasHealed() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.lost = false
}

// grace returns how long a flight pauses before it claims. left is how long the token in
// use stays good: if nobody waits for the flight, others get more time.
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
func (e *environment) lookOut(ctx context.Context, now time.Time, by *session) {
	if !e.lookout.begins(now.Sub(e.started)) || e.enlist() != nil {
		return
	}
	last := e.lookout.last.Load()
	go func() {
		defer e.work.Done()
		defer e.lookout.busy.Store(false)
		e.look(context.WithoutCancel(ctx), last, by)
	}()
}

// look heals the last session that this process has saved or adopted. If the store has
// gone back, look heals all sessions in memory.
func (e *environment) look(ctx context.Context, last, by *session) {
	o := &e.lookout
	if last != nil && last != by {
		last.checkUp(ctx)
	}
	if !o.hasLost() {
		return
	}
	var all errgroup.Group
	all.SetLimit(8)
	for s := range o.sessions {
		if s == by {
			continue
		}
		all.Go(func() error {
			s.checkUp(ctx)
			return nil
		})
	}
	_ = all.Wait()
	o.hasHealed()
}

// checkUp heals the session if the store has an older state of it than this process
// knows, unless somebody has the turn.
func (s *session) checkUp(ctx context.Context) {
	if s.pin() != nil {
		return
	}
	defer s.unpin()
	if !s.tryTurn() {
		return
	}
	defer s.endTurn()
	if s.known == nil || s.activity.unsaved != nil {
		return // there is nothing to compare, or the saver heals it
	}
	rec, err := s.cell().load(ctx)
	if err == nil && s.known.isAhead(rec, s.env.now()) {
		_ = s.heal(ctx, rec) // after a conflict, the next look or flight finds what is there
	}
}
