package simulation

// Rules for concurrency. The fields of a machine and of a process are fixed,
// except those that their comments name as guarded by world.mu. wrong is atomic,
// because the package under test reads the clock at any time. The channels gone
// and died are closed once, with world.mu held. A step may sleep or wait, so it
// holds no lock then.

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/fincodeauth/fincodeauth"
)

// A machine has a wall clock and a monotonic clock. It runs one process after
// another.
type machine struct {
	world *world
	id    int
	wrong atomic.Int64 // nanoseconds by which the wall clock is ahead

	// Guarded by world.mu.
	process   *process  // nil: none runs
	processes int       // that ran here so far
	jumped    time.Time // when the wall clock was set last
	wakeAt    time.Time // nothing runs here before this
	frozen    []pause   // in which the monotonic clock stood still
}

// A pause is a time in which a machine or a process stood still.
type pause struct{ from, to time.Time }

func newMachine(w *world, id int) *machine {
	m := &machine{world: w, id: id}
	if w.luck.clocks > 0 {
		m.wrong.Store(int64(between(w.dice("clock", id), -w.luck.clocks, w.luck.clocks)))
	}
	return m
}

func (m *machine) String() string { return string(rune('A' + m.id)) }

// wall returns the time by the machine's wall clock.
func (m *machine) wall() time.Time { return time.Now().Add(time.Duration(m.wrong.Load())) }

// now is time.Now on the machine: a wall clock and a monotonic clock.
func (m *machine) now() time.Time {
	at := time.Now()
	m.world.mu.Lock()
	defer m.world.mu.Unlock()
	monotonic := at.Sub(m.world.started)
	for _, p := range m.frozen {
		if at.After(p.from) {
			monotonic -= min(at.Sub(p.from), p.to.Sub(p.from))
		}
	}
	return Reading(m.wall(), monotonic)
}

// Reading returns a Time with these readings of the wall clock and the monotonic
// clock. The two move apart on a machine that was suspended or whose clock was
// set. Package time has no function that makes such a Time, so Reading uses the
// layout of time.Time. The comment there explains that layout.
func Reading(wall time.Time, monotonic time.Duration) time.Time {
	type layout struct {
		wall uint64
		ext  int64
		loc  *time.Location
	}
	const hasMonotonic, secondsFrom1885ToUnix, nanosecondBits = 1 << 63, 2682288000, 30
	t := layout{
		wall: hasMonotonic | uint64(wall.Unix()+secondsFrom1885ToUnix)<<nanosecondBits | uint64(wall.Nanosecond()),
		ext:  int64(monotonic) + 1,
		loc:  time.UTC,
	}
	return *(*time.Time)(unsafe.Pointer(&t))
}

// random is rand.Float64 on the machine.
func (m *machine) random() float64 { return m.world.dice("jitter", m.id).Float64() }

// sleep stops everything on the machine for d. If frozen is true, its monotonic
// clock stands still too.
func (m *machine) sleep(d time.Duration, frozen bool) {
	m.world.mu.Lock()
	defer m.world.mu.Unlock()
	now := time.Now()
	if m.process == nil || now.Before(m.wakeAt) {
		return
	}
	m.world.say(m.process, "sleeps for %v (machine suspended: %t)", d, frozen)
	m.wakeAt = now.Add(d)
	m.process.slept = append(m.process.slept, pause{now, m.wakeAt})
	if frozen {
		m.frozen = append(m.frozen, pause{now, m.wakeAt})
	}
}

// start starts a new process on the machine, unless one runs there.
func (m *machine) start() {
	w := m.world
	p := newProcess(m)
	p.sessions = p.boot()
	for _, v := range p.views {
		v.source = p.sessions.TokenSource(v.account.key)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if m.process != nil {
		return
	}
	m.processes++
	p.id = m.processes*len(w.machines) + m.id
	p.name = fmt.Sprintf("%v%d", m, m.processes)
	m.process = p
	w.promise.processes = append(w.promise.processes, p)
	w.say(p, "starts, and its clock is wrong by %v", time.Duration(m.wrong.Load()))
	go func() {
		defer close(p.ended)
		w.callers(p)
	}()
}

// crash ends the machine's process if that is p. Nothing of p runs again. Messages
// that it sent still arrive. A new process starts some time later.
func (m *machine) crash(p *process) {
	m.world.mu.Lock()
	defer m.world.mu.Unlock()
	if p == nil || m.process != p {
		return
	}
	m.world.say(p, "CRASHES")
	p.dead = true
	close(p.died)
	p.leave()
	m.process = nil
	rest := between(m.world.dice("restart", m.id), time.Millisecond, m.world.luck.restart)
	m.world.underway.Go(func() {
		select {
		case <-time.After(rest):
		case <-m.world.calmed:
		}
		m.start()
	})
}

// A process is one run of a program that uses the package.
type process struct {
	machine  *machine
	id       int
	name     string
	sessions *fincodeauth.Sessions
	gone     chan struct{} // closed when the process crashes, or before it is closed: its callers leave
	died     chan struct{} // closed when the process crashes
	ended    chan struct{} // closed when the callers have returned
	views    []*view       // one for each account, in their order

	// Guarded by world.mu.
	dead                bool
	leaving             bool    // gone is closed
	closed, closeFailed bool    // Close has returned; with an error
	slept               []pause // the last may not be over yet
}

func newProcess(m *machine) *process {
	p := &process{machine: m, gone: make(chan struct{}), died: make(chan struct{}), ended: make(chan struct{})}
	for _, a := range m.world.accounts {
		p.views = append(p.views, &view{process: p, account: a})
	}
	return p
}

// view returns the process's view of the account.
func (p *process) view(a *account) *view { return p.views[a.number] }

// viewOf returns the process's view of the account with that key.
func (p *process) viewOf(key string) *view { return p.view(p.machine.world.account(key)) }

func (p *process) String() string { return p.name }

func (p *process) isDead() bool {
	p.machine.world.mu.Lock()
	defer p.machine.world.mu.Unlock()
	return p.dead
}

// leave sends the callers away. world.mu is held.
func (p *process) leave() {
	if !p.leaving {
		p.leaving = true
		close(p.gone)
	}
}

// sleptSince reports whether the process slept at any time after t. world.mu is
// held.
func (p *process) sleptSince(t time.Time) bool {
	for _, s := range p.slept {
		if s.to.After(t) {
			return true
		}
	}
	return false
}

// errDead is what the calls of a dead process return when the simulation is over.
var errDead = errors.New("the process is dead")

// step is called when a process is about to call the world, and when it gets the
// answer. There the process may crash or sleep. step returns when the process is
// awake. A dead process stays in step until the simulation is over, and then gets
// an error, so that it does nothing more.
func (p *process) step(where string) error {
	w := p.machine.world
	w.promise.stillRuns(p, where)
	d := w.dice(where, p.id)
	// A moment later, because two goroutines may come here at one instant. It
	// must not matter which of them is first.
	moment := func() { time.Sleep(between(d, 1, time.Millisecond)) }
	if w.happens(d, CrashHere) {
		moment()
		p.machine.crash(p)
	} else if w.happens(d, SleepHere) {
		moment()
		p.machine.sleep(time.Duration(d.Int64N(int64(10*time.Minute))), d.IntN(2) == 0)
	}
	p.suffer(where)
	for {
		w.mu.Lock()
		dead, left := p.dead, time.Until(p.machine.wakeAt)
		if p.machine.process != p { // p is closed, and the sleep is that of the next process
			left = 0
		}
		w.mu.Unlock()
		switch {
		case dead:
			<-w.over
			return errDead
		case left <= 0:
			return nil
		}
		time.Sleep(left + time.Duration(d.Int64N(int64(time.Millisecond))))
	}
}

// boot starts the package in the process.
func (p *process) boot() *fincodeauth.Sessions {
	w := p.machine.world
	cfg := fincodeauth.Config{
		BaseURL:        root,
		Store:          storeOf{p},
		Base:           p,
		RefreshTimeout: w.luck.timeout,
		MaxSessions:    w.luck.inMemory,
		Observe:        func(e fincodeauth.Event) { w.promise.observed(p.viewOf(e.Key), e) },
	}
	if w.witness != nil {
		w.witness.Watch(&cfg, Process{p})
	}
	if w.luck.credentials {
		cfg.Credentials = func(_ context.Context, key string, cause error) (fincodeauth.Credentials, error) {
			if err := p.step("credentials"); err != nil {
				return fincodeauth.Credentials{}, err
			}
			v := p.viewOf(key)
			w.promise.credentialsAsked(v, cause)
			return v.account.credentials(), nil
		}
	}
	sessions, err := w.boot(cfg, p.machine.now, p.machine.random)
	if err != nil {
		panic(err)
	}
	return sessions
}

// close closes the process as a deployment does. The process has grace to end.
func (p *process) close(grace time.Duration) {
	w := p.machine.world
	w.mu.Lock()
	if p.leaving {
		w.mu.Unlock()
		return
	}
	p.leave()
	w.say(p, "is being closed")
	w.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	err := p.sessions.Close(ctx)
	select {
	case <-p.ended:
	case <-p.died:
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if p.dead {
		return
	}
	w.say(p, "is closed: %v", err)
	p.closed = true
	p.closeFailed = err != nil
	p.machine.process = nil
}
