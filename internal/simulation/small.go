package simulation

// Rules for concurrency. The goroutine that called Play tells the story: one chapter,
// then the next. What a process does in a chapter gets a goroutine of its own.
// world.users counts these goroutines, and end waits for them. A deployment gets one
// more, which world.underway counts, as in the script. The processes do not act at
// the same instant, so that each point of the plan is always the same.

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/fincodeauth/fincodeauth"
)

// A Small is a small world: some processes, one story, and a few troubles, each at
// one point. Everything else in it goes well.
type Small struct {
	Processes int

	// Revoked: before the second rotation, FinCode revokes the session. The
	// processes log in again with Config.Credentials.
	Revoked bool

	// Timing chooses how long each message takes, within 20 ms, and how long each
	// process waits where the package leaves that to chance.
	Timing uint64

	Troubles []Placed // in the order in which they happen
}

func (s Small) String() string {
	var text strings.Builder
	many := "processes"
	if s.Processes == 1 {
		many = "process"
	}
	fmt.Fprintf(&text, "%d %s", s.Processes, many)
	if s.Revoked {
		text.WriteString(", revoked")
	}
	if s.Timing != 0 {
		fmt.Fprintf(&text, ", timing %d", s.Timing)
	}
	for i, f := range s.Troubles {
		fmt.Fprintf(&text, "%s %v", []string{":", ";"}[min(i, 1)], f)
	}
	return text.String()
}

// ParseSmall is the reverse of Small.String.
func ParseSmall(text string) (Small, error) {
	var s Small
	kind, troubles, _ := strings.Cut(text, ":")
	for i, part := range strings.Split(kind, ", ") {
		var err error
		switch {
		case i == 0:
			_, err = fmt.Sscanf(part, "%d process", &s.Processes)
		case part == "revoked":
			s.Revoked = true
		default:
			_, err = fmt.Sscanf(part, "timing %d", &s.Timing)
		}
		if err != nil || s.Processes < 1 {
			return s, fmt.Errorf("%q does not say how many processes, revoked or not, and which timing", kind)
		}
	}
	for part := range strings.SplitSeq(troubles, ";") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		f, err := parsePlaced(part)
		if err != nil {
			return s, err
		}
		s.Troubles = append(s.Troubles, f)
	}
	return s, nil
}

// With returns the world with one trouble more.
func (s Small) With(f Placed) Small {
	s.Troubles = append(s.Troubles[:len(s.Troubles):len(s.Troubles)], f)
	return s
}

// Play plays the small world. It must be called in a testing/synctest bubble of its
// own. With trace, it records what happens.
func (s Small) Play(boot Boot, trace bool) Result {
	return s.play(boot, trace, false).result()
}

// PlayAndLookOn plays the small world, and returns all troubles that can follow the
// last one of s. So many of them as near says, the first ones, come soon after it.
func (s Small) PlayAndLookOn(boot Boot) (result Result, later []Placed, near int) {
	w := s.play(boot, false, true)
	later, near = w.plan.later()
	return w.result(), later, near
}

func (s Small) play(boot Boot, trace, recording bool) *world {
	w := newWorld(1+s.Timing, s.luck(), boot, trace)
	w.plan = newPlan(s.Troubles, recording)
	w.tell()
	w.settle()
	w.end()
	w.mu.Lock()
	defer w.mu.Unlock()
	if left := w.plan.left; len(left) > 0 && len(w.broken) == 0 {
		w.breaks(name("script"), "no promise, but this never happened: %v", left[0])
	}
	return w
}

// luck is what a seed would decide. Nothing goes wrong by chance.
func (s Small) luck() luck {
	return luck{
		machines:     s.Processes,
		keys:         1,
		lifetime:     2 * time.Minute,
		timeout:      380 * time.Millisecond, // so that others look at a claim just after a takeover is allowed
		credentials:  s.Revoked,
		restart:      time.Second,
		expiresIn:    true,
		reuseRevokes: true,
	}
}

// A chapter is a part of the story.
type chapter struct {
	at   time.Duration
	who  int // the number of a machine, counted around, or everyone
	what func(*view)
}

// everyone means the processes of all machines, one after another within
// milliseconds.
const everyone = -1

// story is what happens in every small world: a login, two rotations and a logout.
// A token lives for two minutes. It is refreshed early from the 96th second on, and
// counts as expired from the 114th.
var story = []chapter{
	{0, 0, (*view).login},
	{2 * time.Second, everyone, (*view).patientCaller},
	{40 * time.Second, 1, (*view).apiCaller},
	// The first rotation is early, and nobody waits for it.
	{100 * time.Second, everyone, (*view).patientCaller},
	{102 * time.Second, everyone, (*view).patientCaller},
	{108 * time.Second, 0, (*view).returningUser},
	{200 * time.Second, 0, (*view).isRevoked},
	{210 * time.Second, everyone, (*view).isDeployed},
	// The second one comes after the token has expired, and everybody waits.
	{222 * time.Second, 1, (*view).hastyCaller},
	{222*time.Second + time.Millisecond, everyone, (*view).patientCaller},
	{223 * time.Second, 1, (*view).apiCaller},
	{230 * time.Second, 0, (*view).returningUser},
	{240 * time.Second, everyone, (*view).recovers},
	// The logout comes when others refresh early again.
	{325 * time.Second, 1, (*view).logout},
	{325*time.Second + 5*time.Millisecond, everyone, (*view).patientCaller},
	{325*time.Second + 40*time.Millisecond, 0, (*view).isDeployed},
}

// tell plays the story. Faults may happen from its beginning on.
func (w *world) tell() {
	for _, m := range w.machines {
		m.start()
	}
	for _, s := range story {
		time.Sleep(time.Until(w.started.Add(s.at)))
		if w.isBroken() {
			return
		}
		for _, m := range w.machines {
			if s.who == everyone || s.who%len(w.machines) == m.id {
				w.enter(m, s.what)
			}
		}
	}
	time.Sleep(pauseLength * w.luck.timeout)
}

// settle is the calm after the story. If the session is logged out, as it should be,
// nobody may get a token. Otherwise settle is rest.
func (w *world) settle() {
	w.mu.Lock()
	w.calm = true
	w.mu.Unlock()
	time.Sleep(time.Second) // until the last trouble has begun: see suffer
	if w.accounts[0].isLoggedIn() || w.isBroken() {
		w.rest()
		return
	}
	w.calmDown()
	w.everyView((*view).patientCaller)
}

// enter lets the process that runs on the machine act. Processes act 3 ms after each
// other: less than a call takes, so that they compete.
func (w *world) enter(m *machine, act func(*view)) {
	w.users.Go(func() {
		time.Sleep(time.Duration(m.id)*3*time.Millisecond + time.Duration(m.id+1))
		w.mu.Lock()
		p := m.process
		w.mu.Unlock()
		if p != nil {
			act(p.views[0])
		}
	})
}

// isDeployed closes the process, and starts a new one.
func (v *view) isDeployed() {
	v.machine.world.underway.Go(func() {
		v.close(time.Minute)
		v.machine.start()
	})
}

// isRevoked has FinCode revoke the session, in the worlds that say so.
func (v *view) isRevoked() {
	w := v.machine.world
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.luck.credentials && v.account.latest != nil {
		w.say(w.fincode, "revokes the session")
		w.atTheServers(FamilyRevoked, v.account, time.Time{}, false)
	}
}

// A patientCaller waits for a token until it gets one or an error. After an error it
// soon calls again, twice at most.
func (v *view) patientCaller() {
	for range 3 {
		if err := v.callFor(time.Hour, 0); err == nil || errors.Is(err, fincodeauth.ErrLoginRequired) {
			return
		}
		time.Sleep(700 * time.Millisecond)
	}
}

// A hastyCaller leaves while its token is on the way.
func (v *view) hastyCaller() { _ = v.callFor(15*time.Millisecond, 1) }

// callFor asks for a token. number tells the callers of a process apart.
func (v *view) callFor(patience time.Duration, number int) error {
	if v.step("caller") != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c := &caller{process: v.process, number: 3*v.id + number}
	return c.token(ctx, v)
}

// An apiCaller makes a request to the API.
func (v *view) apiCaller() {
	if v.step("caller") != nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c := &caller{process: v.process, number: 3*v.id + 2}
	c.request(ctx, v)
}

// A returningUser logs in if the session has ended.
func (v *view) returningUser() {
	if !v.account.isLoggedIn() {
		v.login()
	}
}

// recovers checks that the process has a token, or knows that a login is needed. If
// the plan's troubles are over, that must be so within the time that recovery
// allows.
func (v *view) recovers() {
	w := v.machine.world
	over := w.isOver()
	limit, _ := w.recovery()
	ctx, cancel := context.WithTimeout(context.Background(), limit+time.Second)
	defer cancel()
	began := time.Now()
	err := v.hasToken(ctx)
	for err != nil && !errors.Is(err, fincodeauth.ErrLoginRequired) && ctx.Err() == nil {
		time.Sleep(time.Second)
		err = v.hasToken(ctx)
	}
	if over {
		w.promise.serves(v, "has a token", time.Since(began), limit, err)
	}
}
