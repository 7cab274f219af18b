package simulation

// Rules for concurrency. Watch is called without a lock, before the process runs. Ended
// is called with world.mu held. The other functions are helpers, which are called with
// world.mu held, except the methods of Process and testifies, which lock it.

import (
	"errors"
	"time"

	"github.com/fincodeauth/fincodeauth"
)

// A Witness looks on while a seed is played: it records what the processes do, and
// hears why each session ended in truth.
type Witness interface {
	// Watch may wrap the Store, the Base and the Observe of a process that starts.
	Watch(cfg *fincodeauth.Config, by Process)
	// Ended is called when a process has sent the event Ended. It must not call the
	// world.
	Ended(End)
}

// A Process is one process of a simulation, for a Witness.
type Process struct{ process *process }

// Name returns a name that no other process of the seed has. It may be called once the
// process does something.
func (p Process) Name() string { return p.process.name }

// Machine returns the name of the process's machine.
func (p Process) Machine() string { return p.process.machine.String() }

// Machines returns how many machines there are.
func (p Process) Machines() int { return len(p.process.machine.world.machines) }

// Now returns the time by the wall clock of the process's machine.
func (p Process) Now() time.Time { return p.process.machine.wall() }

// IsDead reports whether the process has crashed.
func (p Process) IsDead() bool { return p.process.isDead() }

// A Truth is why FinCode refused the refresh token that a process presented.
type Truth int

const (
	Revoked     Truth = iota + 1 // FinCode had revoked the session, and nobody had used the token
	Stolen                       // a thief used the token first
	Doubled                      // the network delivered the process's own request twice
	WentBack                     // the store had what came after the token, or the claim of whoever used it, and lost that
	LostAnswer                   // a process used the token, and the answer did not arrive
	Died                         // a process used the token, and died before it saved the answer
	Overslept                    // a process used the token, and was asleep or slow while others took over
	NotSaved                     // a process used the token, and could not save the answer
	Unexplained                  // none of these: the simulation cannot tell
)

func (t Truth) String() string {
	return [...]string{"", "revoked", "stolen", "delivered twice", "store went back", "answer lost", "died", "overslept", "not saved", "unexplained"}[t]
}

// An End is the end of a session that a process has saved and told.
type End struct {
	Key     string
	Process Process // which told it
	Truth   Truth
	// User is the process that used the token first; nil: no process did.
	User *Process
	// Open: the outcome of an earlier attempt of a process to use the token was not
	// known, or its claim was taken over. If the token was also stolen, no client can
	// tell whether that attempt or the thief came first.
	Open bool
	// Replaced: when the process told the end, the store had another state of the account,
	// because somebody had logged in or out meanwhile, or the store had gone back since.
	Replaced bool
}

// testifies tells the witness why a session ended.
func (k *promise) testifies(v *view, cause error) {
	w := k.world
	if w.witness == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	end, ok := errors.AsType[*fincodeauth.SessionError](cause)
	last := v.lastRefusal()
	if !ok || last == nil {
		return // k.ended has complained
	}
	of := last.pair
	told := End{Key: v.account.key, Process: Process{v.process}, Truth: of.truth(last), Open: end.Interrupted || of.outcomeUnknown || of.takenOver}
	now := v.account.record
	told.Replaced = now == nil || now.Ended == "" || now.Ended == "logged out"
	if of.usedBy != nil {
		told.User = &Process{of.usedBy.by.process}
	}
	w.witness.Ended(told)
}

// lastRefusal returns the refused presentation because of which the session ends. It is
// another process's if that one gave the record back without the refresh token.
func (v *view) lastRefusal() *presentation {
	if mine := v.lastClaim(); mine != nil && mine.pair != nil {
		return v.presented
	}
	var last *presentation
	for _, p := range v.machine.world.promise.processes {
		if s := p.view(v.account).presented; s != nil && s.outcome == refused && (last == nil || s.heard.After(last.heard)) {
			last = s
		}
	}
	return last
}

// truth returns why FinCode refused the pair's refresh token in the presentation.
func (p *pair) truth(last *presentation) Truth {
	use := p.usedBy
	switch {
	case !p.used:
		return Revoked
	case use == nil:
		return Stolen
	case use == last, use.outcome == refused, use.outcome == notSent: // the answer to the second arrival came back
		return Doubled
	case p.family.account.hadLater(), use.outcome == arrived && p.family.account.wasLoggedOut():
		return WentBack
	case use.outcome == unknown:
		return LostAnswer
	case use.by.dead:
		return Died
	case use.by.sleptSince(use.entered):
		return Overslept
	case use.by.closeFailed, use.failedSaves > 0:
		return NotSaved
	case p.wasLost():
		return WentBack
	case use.outcome == pending:
		return Overslept
	}
	return Unexplained
}

// hadLater reports whether the store ever had a later pair of the session that it has now.
func (s *shelf) hadLater() bool {
	return s.everHad(func(then *fincodeauth.Record) bool { return then.Generation > s.record.Generation })
}

// wasLoggedOut reports whether the store ever had the logout of the session that it has now.
func (s *shelf) wasLoggedOut() bool {
	return s.everHad(func(then *fincodeauth.Record) bool { return then.Ended == "logged out" })
}

// everHad reports whether is is true for any state of the session that the store has now.
func (s *shelf) everHad(is func(*fincodeauth.Record) bool) bool {
	for _, p := range s.pasts {
		if s.record != nil && p.record != nil && sessionOf(p.record) == sessionOf(s.record) && is(p.record) {
			return true
		}
	}
	return false
}
