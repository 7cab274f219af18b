package simulation

// Rules for concurrency. The goroutine that called Run plays the script: one
// event, then the next. What takes time (a deployment, a restart, a login, a
// logout) gets a goroutine of its own. world.underway counts deployments and
// restarts, and rest waits for them. world.users counts logins and logouts, and end
// waits for them.

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/fincodeauth/fincodeauth"
)

// An event is a fault that happens at a time that the script has chosen.
type event struct {
	at    time.Duration
	fault Fault
}

// comeBack is not a fault. The users come back, and log in if their session has
// ended.
const comeBack = Fault(faults)

// isForOneAccount reports whether the script's fault f happens to one account.
func (f Fault) isForOneAccount() bool { return f >= FamilyRevoked && f != StoreGoesBack }

// script returns the events in the order of their times.
func (w *world) script() []event {
	d := w.dice("script", 0)
	var events []event
	for f := Crash; int(f) < faults; f++ {
		times := int(w.luck.odds[f])
		if f.isForOneAccount() {
			times *= w.luck.keys
		}
		for range times {
			events = append(events, event{between(d, 0, w.luck.length), f})
		}
	}
	for at := time.Duration(0); at < w.luck.length; at += w.luck.length / 30 {
		events = append(events, event{at, comeBack})
	}
	slices.SortStableFunc(events, func(a, b event) int { return cmp.Compare(a.at, b.at) })
	return events
}

// play logs in while nothing goes wrong, and then plays the time in which faults
// happen.
func (w *world) play() {
	w.calm = true
	for _, m := range w.machines {
		m.start()
	}
	time.Sleep(time.Millisecond)
	for i, a := range w.accounts {
		w.machines[i%len(w.machines)].process.view(a).login()
	}
	w.mu.Lock()
	w.calm = false
	w.mu.Unlock()
	begun := time.Now()
	for _, e := range w.script() {
		time.Sleep(time.Until(begun.Add(e.at)))
		if w.isBroken() {
			return
		}
		w.act(e.fault)
	}
	time.Sleep(time.Until(begun.Add(w.luck.length)))
}

// act makes one event of the script happen.
func (w *world) act(f Fault) {
	d := w.dice("act", int(f))
	m := w.machines[d.IntN(len(w.machines))]
	if f == comeBack {
		w.comeBack(m)
		return
	}
	a := w.accounts[0]
	if len(w.accounts) > 1 && f.isForOneAccount() {
		a = w.accounts[d.IntN(len(w.accounts))]
	}
	p := w.begins(f, m)
	switch f {
	case Crash, Deploy, Stop, Suspend, ClockJump:
		m.suffers(f, p, d)
	case Login, Logout:
		if p != nil {
			w.userComes(f, p.view(a), d)
		}
	case StoreGoesBack:
		w.storeGoesBack(d)
	default:
		w.mu.Lock()
		defer w.mu.Unlock()
		w.atTheServers(f, a, time.Now().Add(between(d, time.Second, 5*time.Minute)), d.IntN(2) == 0)
	}
}

// begins notes that the fault happens at the machine, and returns its process.
func (w *world) begins(f Fault, m *machine) *process {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stats.Faults[f]++
	w.say(name("script"), "%v (%v)", f, m)
	return m.process
}

// comeBack logs the users in that have no session. They do not come at the same
// instant, because the order would then be undecided.
func (w *world) comeBack(m *machine) {
	for _, a := range w.accounts {
		if a.isLoggedIn() {
			continue
		}
		if p := w.begins(Login, m); p != nil {
			w.users.Go(func() {
				time.Sleep(time.Duration(a.number))
				p.view(a).login()
			})
		}
	}
}

// suffers makes a fault happen to the machine, or to its process p.
func (m *machine) suffers(f Fault, p *process, d *rand.Rand) {
	switch f {
	case Crash:
		m.crash(p)
	case Deploy:
		if p != nil {
			grace := between(d, time.Second, time.Minute)
			m.world.underway.Go(func() {
				p.close(grace)
				m.start()
			})
		}
	case Stop, Suspend:
		m.sleep(between(d, time.Second, 10*time.Minute), f == Suspend)
	case ClockJump:
		m.setClock(hours(d, 6))
	}
}

// userComes makes a user log in or out.
func (w *world) userComes(f Fault, v *view, d *rand.Rand) {
	if f == Login {
		w.users.Go(v.login)
		return
	}
	w.users.Go(v.logout)
	// The user may log in in another window meanwhile. It is not the same instant,
	// because the order would then be undecided.
	if d.IntN(3) == 0 {
		w.users.Go(func() {
			time.Sleep(between(d, 1, 50*time.Millisecond))
			v.login()
		})
	}
}

// atTheServers makes a fault happen at the store or at FinCode, to the account if
// the fault is for one. w.mu is held.
func (w *world) atTheServers(f Fault, a *account, until time.Time, silent bool) {
	switch f {
	case StoreDown:
		w.store.down, w.store.silent = until, silent
	case FinCodeDown:
		w.fincode.down = until
	case AccessRevoked:
		for _, p := range w.fincode.access {
			p.revoked = true
		}
	case FamilyRevoked:
		a.latest.revoked, a.latest.revokedOutside = true, true
	case Thief:
		stolen := a.latest.latest
		stolen.stolen = true
		a.latest.revokedOutside = true
		a.thefts++
		w.fincode.rotate(&request{refresh: stolen.refresh})
	}
}

// storeGoesBack makes the store lose up to eight changes, or all of them. It may be down
// for a while, as in a failover.
func (w *world) storeGoesBack(d *rand.Rand) {
	w.mu.Lock()
	defer w.mu.Unlock()
	lost, down, length := 1+d.IntN(8), d.IntN(2) == 0, between(d, time.Second, time.Minute)
	if d.IntN(4) == 0 {
		lost = math.MaxInt
	}
	if down {
		w.store.down, w.store.silent = time.Now().Add(length), length < 30*time.Second
	}
	w.store.losesLast(lost)
}

// setClock moves the machine's wall clock.
func (m *machine) setClock(by time.Duration) {
	m.world.mu.Lock()
	defer m.world.mu.Unlock()
	m.wrong.Add(int64(by))
	m.jumped = time.Now()
	m.world.say(m, "wall clock set by %v", by)
}

// login logs the user in through the process.
func (v *view) login() {
	v.userDoes("login", func(ctx context.Context) error { return v.sessions.Login(ctx, v.account.key, v.account.credentials()) })
}

// logout logs the user out through the process.
func (v *view) logout() {
	v.userDoes("logout", func(ctx context.Context) error { return v.sessions.Logout(ctx, v.account.key) })
}

// userDoes calls do, a login or a logout by the user.
func (v *view) userDoes(what string, do func(context.Context) error) {
	w := v.machine.world
	if v.step("user") != nil {
		return
	}
	d := v.dice("user")
	ctx, cancel := context.WithTimeout(context.Background(), between(d, time.Second, time.Hour))
	defer cancel()
	w.mu.Lock()
	w.say(v, "%s begins", what)
	if v.userCalls == 0 {
		v.userCallsSince = time.Now()
	}
	v.userCalls++
	v.calls++
	w.mu.Unlock()
	err := do(ctx)
	w.mu.Lock()
	defer w.mu.Unlock()
	if v.dead {
		return
	}
	w.say(v, "%s: %v", what, err)
	v.userCalls--
	v.ends()
	w.promise.userDid(v, what, err)
}

// rest is the calm after the bad time: no more faults happen. Within the time that
// recovery allows, every process must have a good token or know that a login is
// needed. After that it must always have one.
func (w *world) rest() {
	w.calmDown()
	if w.isBroken() {
		return
	}
	notExpired, accepted := w.recovery()
	hasToken := func(v *view) { w.probe(v, "has a token", notExpired, v.hasToken) }
	w.everyView(hasToken)
	w.underway.Wait() // then ask the processes that have started meanwhile, too
	w.everyView(hasToken)
	w.everyView(func(v *view) { w.probe(v, "is accepted", accepted, v.isAccepted) })
	time.Sleep(w.luck.lifetime * 3 / 2)
	w.everyView(func(v *view) { w.probe(v, "is accepted again", time.Minute, v.isAccepted) })
	w.keepsTheNewest()
}

// everyView calls do for all accounts in every process, like everyProcess.
func (w *world) everyView(do func(*view)) {
	w.everyProcess(func(p *process) {
		var all sync.WaitGroup
		for _, v := range p.views {
			all.Go(func() {
				time.Sleep(time.Duration(v.account.number * len(w.machines)))
				do(v)
			})
		}
		all.Wait()
	})
}

// calmDown ends the faults, and waits until every machine is awake.
func (w *world) calmDown() {
	w.mu.Lock()
	w.calm = true
	w.store.down, w.fincode.down = time.Time{}, time.Time{}
	close(w.calmed)
	awake := time.Now()
	for _, m := range w.machines {
		if m.wakeAt.After(awake) {
			awake = m.wakeAt
		}
	}
	w.mu.Unlock()
	time.Sleep(time.Until(awake) + time.Second)
	w.sayNow(name("script"), "no more faults")
}

// everyProcess calls do for all processes that are not being closed, and waits
// until all calls have returned. They begin one after another and run at once.
func (w *world) everyProcess(do func(*process)) {
	var all sync.WaitGroup
	for _, m := range w.machines {
		w.mu.Lock()
		p := m.process
		runs := p != nil && !p.leaving
		w.mu.Unlock()
		if !runs {
			continue
		}
		all.Go(func() {
			time.Sleep(time.Duration(m.id))
			do(p)
		})
	}
	all.Wait()
}

// probe calls try until it succeeds or says that a login is needed. It checks that
// this takes no longer than limit.
func (w *world) probe(v *view, what string, limit time.Duration, try func(context.Context) error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*limit)
	defer cancel()
	for began := time.Now(); ; time.Sleep(250 * time.Millisecond) {
		err := try(ctx)
		took := time.Since(began)
		if err == nil || errors.Is(err, fincodeauth.ErrLoginRequired) || ctx.Err() != nil {
			w.promise.serves(v, what, took, limit, err)
			return
		}
	}
}

// hasToken returns nil if the process hands out a token that has not expired.
func (v *view) hasToken(ctx context.Context) error {
	v.begin()
	defer v.end()
	tok, err := v.sessions.TokenSource(v.account.key).TokenContext(ctx)
	if err != nil {
		return err
	}
	w := v.machine.world
	w.mu.Lock()
	defer w.mu.Unlock()
	of := w.fincode.access[tok.AccessToken]
	if of == nil {
		return errors.New("a token that does not exist")
	}
	if time.Now().After(of.expires.Add(time.Second)) && !w.promise.clockChanged(v, of) {
		return fmt.Errorf("%v has expired", of)
	}
	return nil
}

// isAccepted returns nil if the API accepts the process's token.
func (v *view) isAccepted(ctx context.Context) error {
	resp, err := v.get(ctx)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	return nil
}

// end closes everything, waits for all goroutines, and checks what must be true at
// the end.
func (w *world) end() {
	close(w.over)
	var all sync.WaitGroup
	late, cancel := context.WithCancel(context.Background())
	cancel()
	for _, p := range w.promise.processes {
		if p.isDead() {
			all.Go(func() {
				_ = p.sessions.Close(late)
				<-p.ended
			})
		}
	}
	all.Wait()
	time.Sleep(time.Minute) // until the calls that dead processes had under way have ended
	w.everyProcess(func(p *process) { p.close(time.Hour) })
	w.users.Wait()
	w.network.Wait()
	w.promise.atEnd()
}
