// Package simulation plays years of bad luck in a testing/synctest bubble.
// Machines, each with its own clocks, share a store and a FinCode. The networks
// between them lose, repeat and delay messages. Processes crash, sleep and are
// replaced. Users log in and out in the middle of all that. At every step the
// simulation checks what the package promises. In some seeds there are several
// users, each with a session of their own, and too little memory for all of them.
//
// One seed decides everything, so a failure can be played again.
//
//	world.go    one seed's world, its chance and its trace
//	luck.go     what a seed decides: how many machines, and how often each fault happens
//	account.go  the users' accounts, and each process's view of an account
//	machine.go  machines, their clocks, and the processes that run on them
//	network.go  how a request gets from a process to the store or to FinCode
//	store.go    the store
//	fincode.go  FinCode
//	caller.go   the callers, which want tokens
//	script.go   what happens at which time
//	small.go    small worlds, in which nothing happens by chance
//	plan.go     what goes wrong in a small world, and where
//	stats.go    how often each thing happened
//	witness.go  who looks on, and what ended a session in truth
//
// What must be true, whatever happens:
//
//	promise.go     what is known of each token and each session
//	presenting.go  promises about refresh tokens that a process presents
//	saving.go      promises about what the store gets
//	asking.go      promises to callers
//	ending.go      promises about the end: of a session, of a process, of bad luck
//
// # Rules for concurrency
//
// Many goroutines run at once: the callers, the users, the script, the messages
// on their way, and those of the package under test. One mutex, world.mu, guards
// everything that changes. It is held for moments only: nobody sleeps, waits or
// calls the package under test with it. No other lock is taken while it is held,
// so no order of locks can be wrong.
//
// # Rules for chance
//
// What happens at one instant of the bubble may happen in any order. The order
// must not change the result. So all chance comes from world.dice, which depends
// on the seed, the place and the instant, and not on who asked before. Goroutines
// that would act at the same instant are moved apart by a few nanoseconds. A draw
// that is added, removed or moved changes what every seed does. docs/protocol.md
// names seeds.
package simulation

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/fincodeauth/fincodeauth"
)

// A Boot starts Sessions on a machine. now is the machine's time.Now, and random is
// its rand.Float64.
type Boot func(cfg fincodeauth.Config, now func() time.Time, random func() float64) (*fincodeauth.Sessions, error)

// A Result is what happened with one seed.
type Result struct {
	Stats  Stats
	Broken []string // the promises that were broken; none: all was well
	Trace  []string // what happened, if Run was called with trace
}

// Run plays one seed. It must be called in a testing/synctest bubble of its
// own. With trace, it records what happens.
func Run(seed uint64, boot Boot, trace bool) Result {
	return RunWatched(seed, boot, trace, nil)
}

// RunWatched is Run with a witness; nil: none. A witness changes nothing of what a seed
// does.
func RunWatched(seed uint64, boot Boot, trace bool, witness Witness) Result {
	w := newWorld(seed, newLuck(seed), boot, trace)
	w.witness = witness
	w.play()
	w.rest()
	w.end()
	return w.result()
}

// result returns what happened, at the end.
func (w *world) result() Result {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stats.Seeds = 1
	if w.luck.keys > 1 {
		w.stats.SeveralKeys = 1
	}
	w.stats.Simulated = time.Since(w.started)
	return Result{Stats: w.stats, Broken: w.broken, Trace: w.trace}
}

// A world is one seed's.
type world struct {
	seed     uint64
	luck     luck
	plan     *plan // nil: only chance decides what goes wrong
	boot     Boot
	witness  Witness // nil: none
	started  time.Time
	machines []*machine
	accounts []*account
	store    *store
	fincode  *fincode
	calmed   chan struct{}  // closed when faults stop
	over     chan struct{}  // closed at the end, when calls of dead processes may return
	underway sync.WaitGroup // deployments and restarts
	users    sync.WaitGroup // logins and logouts
	network  sync.WaitGroup // messages on their way

	// mu guards what follows, and what the comments of the other types say. The
	// fields above do not change after newWorld. See the package's comment.
	mu      sync.Mutex
	calm    bool // no fault happens
	promise promise
	stats   Stats
	broken  []string
	tracing bool
	trace   []string
}

func newWorld(seed uint64, luck luck, boot Boot, trace bool) *world {
	w := &world{
		seed:    seed,
		luck:    luck,
		boot:    boot,
		started: time.Now(),
		calmed:  make(chan struct{}),
		over:    make(chan struct{}),
		tracing: trace,
	}
	w.promise.world = w
	for number := range w.luck.keys {
		w.accounts = append(w.accounts, newAccount(w, number))
	}
	w.store = newStore(w)
	w.fincode = newFinCode(w)
	for id := range w.luck.machines {
		w.machines = append(w.machines, newMachine(w, id))
	}
	return w
}

// dice returns the chance for one purpose of one process at one instant. It does
// not matter which of two goroutines at that instant asks first. purpose is part
// of what a seed decides: do not change its text.
func (w *world) dice(purpose string, who int) *rand.Rand {
	const prime = 1099511628211 // of FNV-1a
	h := uint64(14695981039346656037)
	for i := range len(purpose) {
		h = (h ^ uint64(purpose[i])) * prime
	}
	h = (h ^ uint64(who)) * prime
	h = (h ^ uint64(time.Since(w.started))) * prime
	return rand.New(rand.NewPCG(w.seed, h))
}

// happens reports whether the fault f happens now, and counts it.
func (w *world) happens(d *rand.Rand, f Fault) bool {
	hit := d.Float64() < w.luck.odds[f]
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.calm || !hit {
		return false
	}
	w.stats.Faults[f]++
	return true
}

// say adds a line to the trace. w.mu is held.
func (w *world) say(who fmt.Stringer, format string, args ...any) {
	if w.tracing {
		w.trace = append(w.trace, fmt.Sprintf("%14s  %-8s %s", time.Since(w.started), who, fmt.Sprintf(format, args...)))
	}
}

// sayNow is say for callers that do not hold w.mu.
func (w *world) sayNow(who fmt.Stringer, format string, args ...any) {
	if w.tracing {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.say(who, format, args...)
	}
}

// breaks notes that a promise was broken. w.mu is held.
func (w *world) breaks(who fmt.Stringer, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	w.say(who, "BROKEN: %s", text)
	w.broken = append(w.broken, text)
}

// isBroken reports whether a promise was broken. Whatever happens after that is of
// no interest.
func (w *world) isBroken() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.broken) > 0
}

// A name says in the trace who did something.
type name string

func (n name) String() string { return string(n) }
