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

// comeBack is not a fault. The user comes back, and logs in if the session has
// ended.
const comeBack = Fault(faults)

// isLoggedIn reports whether the store has a refresh token.
func (w *world) isLoggedIn() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := w.store.current()
	return now != nil && now.pair != nil
}

// script returns the events in the order of their times.
func (w *world) script() []event {
	d := w.dice("script", 0)
	var events []event
	for f := Crash; int(f) < faults; f++ {
		for range int(w.luck.odds[f]) {
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
	w.machines[0].process.login()
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
		if w.isLoggedIn() {
			return
		}
		f = Login
	}
	w.mu.Lock()
	w.stats.Faults[f]++
	w.say(name("script"), "%v (%v)", f, m)
	p := m.process
	w.mu.Unlock()
	switch f {
	case Crash:
		m.crash(p)
	case Deploy:
		if p != nil {
			grace := between(d, time.Second, time.Minute)
			w.underway.Go(func() {
				p.close(grace)
				m.start()
			})
		}
	case Stop, Suspend:
		m.sleep(between(d, time.Second, 10*time.Minute), f == Suspend)
	case ClockJump:
		m.setClock(hours(d, 6))
	case Login:
		if p != nil {
			w.users.Go(p.login)
		}
	case Logout:
		if p != nil {
			w.users.Go(p.logout)
			// The user may log in in another window meanwhile. It is not the same
			// instant, because the order would then be undecided.
			if d.IntN(3) == 0 {
				w.users.Go(func() {
					time.Sleep(between(d, 1, 50*time.Millisecond))
					p.login()
				})
			}
		}
	default:
		w.mu.Lock()
		defer w.mu.Unlock()
		w.atTheServers(f, time.Now().Add(between(d, time.Second, 5*time.Minute)), d.IntN(2) == 0)
	}
}

// atTheServers makes a fault happen at the store or at FinCode. w.mu is held.
func (w *world) atTheServers(f Fault, until time.Time, silent bool) {
	fam := w.fincode.families[len(w.fincode.families)-1]
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
		fam.revoked, fam.revokedOutside = true, true
	case Thief:
		fam.latest.stolen = true
		fam.revokedOutside = true
		w.fincode.rotate(&request{refresh: fam.latest.refresh})
	}
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
func (p *process) login() {
	p.userDoes("login", func(ctx context.Context, s *fincodeauth.Sessions) error { return s.Login(ctx, key, credentials) })
}

// logout logs the user out through the process.
func (p *process) logout() {
	p.userDoes("logout", func(ctx context.Context, s *fincodeauth.Sessions) error { return s.Logout(ctx, key) })
}

// userDoes calls do, a login or a logout by the user.
func (p *process) userDoes(what string, do func(context.Context, *fincodeauth.Sessions) error) {
	w := p.machine.world
	if p.step("user") != nil {
		return
	}
	d := w.dice("user", p.id)
	ctx, cancel := context.WithTimeout(context.Background(), between(d, time.Second, time.Hour))
	defer cancel()
	w.mu.Lock()
	w.say(p, "%s begins", what)
	if p.view.userCalls == 0 {
		p.view.userCallsSince = time.Now()
	}
	p.view.userCalls++
	w.mu.Unlock()
	err := do(ctx, p.sessions)
	w.mu.Lock()
	defer w.mu.Unlock()
	if p.dead {
		return
	}
	w.say(p, "%s: %v", what, err)
	p.view.userCalls--
	w.promise.userDid(p, what, err)
}

// rest is the calm after the bad time: no more faults happen. Within the time that
// recovery allows, every process must have a good token or know that a login is
// needed. After that it must always have one.
func (w *world) rest() {
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
	if w.isBroken() {
		return
	}
	w.sayNow(name("script"), "no more faults")
	notExpired, accepted := w.recovery()
	hasToken := func(p *process) { w.probe(p, "has a token", notExpired, p.hasToken) }
	w.everyProcess(hasToken)
	w.underway.Wait() // then ask the processes that have started meanwhile, too
	w.everyProcess(hasToken)
	w.everyProcess(func(p *process) { w.probe(p, "is accepted", accepted, p.isAccepted) })
	time.Sleep(w.luck.lifetime * 3 / 2)
	w.everyProcess(func(p *process) { w.probe(p, "is accepted again", time.Minute, p.isAccepted) })
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
func (w *world) probe(p *process, what string, limit time.Duration, try func(context.Context) error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*limit)
	defer cancel()
	for began := time.Now(); ; time.Sleep(250 * time.Millisecond) {
		err := try(ctx)
		took := time.Since(began)
		if err == nil || errors.Is(err, fincodeauth.ErrLoginRequired) || ctx.Err() != nil {
			w.promise.serves(p, what, took, limit, err)
			return
		}
	}
}

// hasToken returns nil if the process hands out a token that has not expired.
func (p *process) hasToken(ctx context.Context) error {
	tok, err := p.sessions.TokenSource(key).TokenContext(ctx)
	if err != nil {
		return err
	}
	w := p.machine.world
	w.mu.Lock()
	defer w.mu.Unlock()
	of := w.fincode.access[tok.AccessToken]
	if of == nil {
		return errors.New("a token that does not exist")
	}
	if time.Now().After(of.expires.Add(time.Second)) && !w.promise.clockChanged(p, of) {
		return fmt.Errorf("%v has expired", of)
	}
	return nil
}

// isAccepted returns nil if the API accepts the process's token.
func (p *process) isAccepted(ctx context.Context) error {
	resp, err := p.get(ctx)
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
