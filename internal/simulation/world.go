// Package simulation plays years of bad luck in a bubble of testing/synctest:
// machines with clocks of their own share a store and a FinCode through
// networks that lose, repeat and delay; processes crash, sleep and are replaced;
// users log in and out in the middle. One seed decides everything, so that what
// went wrong once goes wrong again. All the while it checks what the package
// promises.
//
//	luck.go     what a seed decides: who there is, and what goes wrong how often
//	machine.go  machines, their clocks, and the processes that run on them
//	network.go  how a request gets from a process to the store or to FinCode
//	store.go    the store
//	fincode.go  FinCode
//	caller.go   those who want tokens
//	script.go   what happens when
//	promise.go  what must be true, whatever happens
package simulation

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/fincodeauth/fincodeauth"
)

// key is the session's; sessions know nothing of each other, so that one says
// it all.
const key = "ada"

// A Boot starts Sessions on a machine whose clock and chance are these.
type Boot func(cfg fincodeauth.Config, now func() time.Time, random func() float64) (*fincodeauth.Sessions, error)

// A Result is what became of one seed.
type Result struct {
	Stats  Stats
	Broken []string // the promises that were broken; none: all was well
	Trace  []string // what happened, if it was asked for
}

// Run plays one seed. It must be called in a bubble of testing/synctest, which
// ends with it. With trace, it writes down what happens.
func Run(seed uint64, boot Boot, trace bool) Result {
	w := newWorld(seed, boot, trace)
	w.play()
	w.rest()
	w.end()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stats.Seeds = 1
	w.stats.Simulated = time.Since(w.started)
	return Result{Stats: w.stats, Broken: w.broken, Trace: w.trace}
}

// A world is one seed's.
type world struct {
	seed     uint64
	luck     luck
	boot     Boot
	started  time.Time
	machines []*machine
	store    *store
	fincode  *fincode
	calmed   chan struct{}  // closed when nothing goes wrong any more
	over     chan struct{}  // closed at the end, when dead processes may return
	underway sync.WaitGroup // deployments and restarts
	users    sync.WaitGroup // logins and logouts
	network  sync.WaitGroup // what is on its way

	mu      sync.Mutex // guards what follows, and what hangs on it; a leaf
	calm    bool       // nothing goes wrong
	promise promise
	stats   Stats
	broken  []string
	tracing bool
	trace   []string
}

func newWorld(seed uint64, boot Boot, trace bool) *world {
	w := &world{
		seed:    seed,
		luck:    newLuck(seed),
		boot:    boot,
		started: time.Now(),
		calmed:  make(chan struct{}),
		over:    make(chan struct{}),
		tracing: trace,
	}
	w.promise.world = w
	w.store = newStore(w)
	w.fincode = newFinCode(w)
	for id := range w.luck.machines {
		w.machines = append(w.machines, newMachine(w, id))
	}
	return w
}

// dice returns chance for one purpose of one process at one instant, so that it
// does not matter which of two goroutines that run at that instant asks first.
func (w *world) dice(purpose string, who int) *rand.Rand {
	const prime = 1099511628211 // FNV-1a's
	h := uint64(14695981039346656037)
	for i := range len(purpose) {
		h = (h ^ uint64(purpose[i])) * prime
	}
	h = (h ^ uint64(who)) * prime
	h = (h ^ uint64(time.Since(w.started))) * prime
	return rand.New(rand.NewPCG(w.seed, h))
}

// happens tells whether f does now, and counts it.
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

// say adds a line to the trace; w.mu is held.
func (w *world) say(who fmt.Stringer, format string, args ...any) {
	if w.tracing {
		w.trace = append(w.trace, fmt.Sprintf("%14s  %-8s %s", time.Since(w.started), who, fmt.Sprintf(format, args...)))
	}
}

// sayNow is say without w.mu.
func (w *world) sayNow(who fmt.Stringer, format string, args ...any) {
	if w.tracing {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.say(who, format, args...)
	}
}

// breaks notes that a promise was broken; w.mu is held.
func (w *world) breaks(who fmt.Stringer, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	w.say(who, "BROKEN: %s", text)
	w.broken = append(w.broken, text)
}

// isBroken tells whether a promise was broken: nothing after that is of interest.
func (w *world) isBroken() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.broken) > 0
}

// A name is who did something, in the trace.
type name string

func (n name) String() string { return string(n) }
