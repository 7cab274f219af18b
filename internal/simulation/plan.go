package simulation

// Rules for concurrency. world.plan does not change once the first process has
// started. world.mu guards what is in the plan. met locks world.mu, and counts and
// looks in one go, so two goroutines of one process never get the same number. suffer
// holds no lock while it waits. later is called after the end.

import (
	"fmt"
	"math"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A Trouble is a fault that a plan places at a point.
type Trouble int

// If two troubles happen at one step, they happen in this order.
const (
	// At a step of a process.
	storeFails      Trouble = iota // it answers with errors, for longer than a takeover
	storeHangs                     // it does not answer, for as long
	storeLosesOne                  // it goes back by one change
	storeLosesTwo                  // by two, such as a claim and the successor
	storeLosesAll                  // it comes back empty
	clockSetBack                   // the wall clock of the process's machine
	loginElsewhere                 // the user logs in through the next machine
	logoutElsewhere                // the user logs out through the next machine
	stopped                        // SIGSTOP, for longer than a takeover
	suspended                      // the machine, for as long
	hibernated                     // the machine, for longer than a token lives
	killed                         // and replaced within a second

	// To a message of a process.
	requestLost   // there is silence
	requestBroken // the request is lost too, but the connection breaks
	answerLost    // the message is carried out, and there is silence
	answerBroken  // the message is carried out, and the connection breaks
	late          // carried out after the sender has given up
	slow          // almost as slow as the sender allows
	busy          // FinCode answers 503
	unauthorized  // the API answers 401 to a good token

	// Troubles is how many kinds there are.
	Troubles int = iota
)

var troubleNames = [Troubles]string{
	"store fails", "store hangs", "store loses one", "store loses two", "store loses all", "clock set back", "login elsewhere", "logout elsewhere", "stopped", "suspended", "hibernated", "killed",
	"request lost", "request broken", "answer lost", "answer broken", "late", "slow", "503", "401",
}

func (t Trouble) String() string { return troubleNames[t] }

// A Point is a place in a small world where something can go wrong: the nth time
// that a process makes a step, such as "before Save", or sends a message, such as
// "Save".
type Point struct {
	Process string
	Where   string
	Nth     int
}

// A Placed is one trouble at one point.
type Placed struct {
	Point   Point
	Trouble Trouble
}

func (f Placed) String() string {
	return fmt.Sprintf("%s %s#%d %v", f.Point.Process, f.Point.Where, f.Point.Nth, f.Trouble)
}

var placedText = regexp.MustCompile(`^(\w+) (.+)#(\d+) (.+)$`)

// parsePlaced is the reverse of Placed.String.
func parsePlaced(text string) (Placed, error) {
	part := placedText.FindStringSubmatch(text)
	if part == nil {
		return Placed{}, fmt.Errorf("%q is not a process, a place, #, a number and a fault", text)
	}
	nth, err := strconv.Atoi(part[3])
	if err != nil {
		return Placed{}, err
	}
	what := slices.Index(troubleNames[:], part[4])
	if what < 0 {
		return Placed{}, fmt.Errorf("there is no fault %q, only %q", part[4], troubleNames)
	}
	return Placed{Point{part[1], part[2], nth}, Trouble(what)}, nil
}

// isStep reports whether the point is a step of a process. Otherwise it is a message.
func (p Point) isStep() bool {
	return strings.Contains(p.Where, " ") || p.Where == "user" || p.Where == "caller" || p.Where == "credentials"
}

var stepTroubles = []Trouble{storeFails, storeHangs, storeLosesOne, storeLosesTwo, storeLosesAll, clockSetBack, loginElsewhere, logoutElsewhere, stopped, suspended, hibernated, killed}

// troubles returns what can go wrong at the point.
func (p Point) troubles() []Trouble {
	switch {
	case p.Where == "before Load", p.Where == "before Save", p.Where == "before Delete":
		return stepTroubles
	case p.isStep(): // what happens to the store here happens before the next call to it
		return stepTroubles[slices.Index(stepTroubles, clockSetBack):]
	case p.Where == "Load": // it changes nothing, so it does not matter whether it is carried out
		return []Trouble{requestLost, requestBroken, slow}
	case p.Where == "Save":
		return []Trouble{requestLost, requestBroken, answerLost, answerBroken, late, slow}
	case p.Where == "Delete": // the contract of a Store does not allow that it is carried out late
		return []Trouble{requestLost, requestBroken, answerLost, answerBroken, slow}
	case p.Where == api:
		return []Trouble{requestLost, answerBroken, unauthorized}
	}
	return []Trouble{requestLost, requestBroken, answerLost, answerBroken, late, slow, busy}
}

// A plan places the troubles of a small world. The world of a seed has none: nil.
type plan struct {
	left   []Placed      // troubles that have not happened yet, in their order
	passed map[Point]int // how often a process was at a place; Nth is 0
	points []Point       // since the last trouble happened, if recording
	near   int           // so many of points come soon after the last trouble
	last   *Placed       // the last trouble, once it has happened
	lastAt time.Time

	recording bool
}

func newPlan(troubles []Placed, recording bool) *plan {
	return &plan{left: troubles, passed: make(map[Point]int), recording: recording}
}

// soon is how long after a trouble its consequences are seen, unless somebody sleeps
// for long.
const soon = 10 * time.Second

// later returns all troubles that a plan could place after the last one. So many of
// them as near says, the first ones, would happen soon after it.
func (pl *plan) later() (all []Placed, near int) {
	for i, point := range pl.points {
		if i == pl.near {
			near = len(all)
		}
		for _, t := range point.troubles() {
			if pl.last != nil && pl.last.Point == point && t <= pl.last.Trouble {
				continue
			}
			all = append(all, Placed{point, t})
		}
	}
	if pl.near == len(pl.points) {
		near = len(all)
	}
	return all, near
}

// met is called when a process is at a place. It returns what the plan says that
// happens there.
func (w *world) met(p *process, where string) (now []Trouble) {
	if w.plan == nil {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.calm || p.dead {
		return nil
	}
	pl := w.plan
	point := Point{Process: p.name, Where: where}
	pl.passed[point]++
	point.Nth = pl.passed[point]
	for len(pl.left) > 0 && pl.left[0].Point == point {
		w.say(p, "%v", pl.left[0])
		now = append(now, pl.left[0].Trouble)
		pl.last, pl.lastAt = &pl.left[0], time.Now()
		pl.left = pl.left[1:]
	}
	if again := len(now) > 0 && !point.isStep(); pl.recording && len(pl.left) == 0 && !again {
		pl.points = append(pl.points, point)
		if pl.last == nil || time.Since(pl.lastAt) <= soon {
			pl.near++
		}
	}
	return now
}

// isOver reports whether all troubles of the plan have happened, and every machine is
// awake.
func (w *world) isOver() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	asleep := func(m *machine) bool { return time.Now().Before(m.wakeAt) }
	return len(w.plan.left) == 0 && !slices.ContainsFunc(w.machines, asleep)
}

// suffer makes the plan's troubles happen at a step of the process.
func (p *process) suffer(where string) {
	w := p.machine.world
	for _, t := range w.met(p, where) {
		// A moment later, as in step.
		time.Sleep(between(w.dice(where, p.id), 1, time.Millisecond))
		switch t {
		case storeFails, storeHangs:
			w.mu.Lock()
			w.store.down, w.store.silent = time.Now().Add(outage*w.luck.timeout), t == storeHangs
			w.mu.Unlock()
		case storeLosesOne, storeLosesTwo, storeLosesAll:
			w.mu.Lock()
			w.store.losesLast(map[Trouble]int{storeLosesOne: 1, storeLosesTwo: 2, storeLosesAll: math.MaxInt}[t])
			w.mu.Unlock()
		case clockSetBack:
			p.machine.setClock(setBack)
		case loginElsewhere:
			p.elsewhere(where, (*view).login)
		case logoutElsewhere:
			p.elsewhere(where, (*view).logout)
		case stopped, suspended:
			p.machine.sleep(pauseLength*w.luck.timeout, t == suspended)
		case hibernated:
			p.machine.sleep(w.luck.lifetime+10*time.Second, true)
		case killed:
			p.machine.crash(p)
		}
	}
}

// In units of RefreshTimeout. A takeover comes after two.
const (
	outage      = 3
	pauseLength = 5
)

// setBack makes an expired token look good again, and not look young.
const setBack = -30 * time.Second

// elsewhere lets the process of the next machine do something, a moment later: it may
// be p itself.
func (p *process) elsewhere(where string, do func(*view)) {
	w := p.machine.world
	moment := between(w.dice(where, p.id), time.Microsecond, time.Millisecond)
	w.mu.Lock()
	next := w.machines[(p.machine.id+1)%len(w.machines)].process
	w.mu.Unlock()
	if next != nil {
		w.users.Go(func() {
			time.Sleep(moment)
			do(next.views[0])
		})
	}
}

// spoil makes the plan's trouble happen to a message of the process. If FinCode does
// not carry the message out, spoil returns FinCode's answer, else nil.
func (p *process) spoil(what string, way *passage) (instead *answer) {
	w := p.machine.world
	for _, t := range w.met(p, what) {
		switch t {
		case requestLost, requestBroken:
			way.requestLost, way.reset = true, t == requestBroken
		case answerLost, answerBroken:
			way.answerLost, way.reset = true, t == answerBroken
		case late:
			way.up += w.luck.timeout * 5 / 4
		case slow:
			way.up, way.down = w.luck.timeout*40/100, w.luck.timeout*58/100
		case busy:
			return refusal(http.StatusServiceUnavailable, "SERVICE_UNAVAILABLE")
		case unauthorized:
			return refusal(http.StatusUnauthorized, "AUTH_REQUIRED")
		}
	}
	return nil
}
