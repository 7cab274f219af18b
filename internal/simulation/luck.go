package simulation

import (
	"math/rand/v2"
	"slices"
	"time"
)

// A Fault is something that goes wrong, or that is at least unusual. The order of
// the faults decides which chance belongs to which: do not change it.
type Fault int

const (
	// On the way to FinCode, and at FinCode.
	ConnectionRefused Fault = iota // the request was surely not sent
	RequestLost                    // FinCode does not see the request
	AnswerLost                     // FinCode has carried the request out
	RequestTwice                   // the network delivers the request twice
	AnswerCut                      // the connection breaks in the middle of the body
	AnswerGarbage                  // a 200 that cannot be read
	Answer500                      // the request was carried out all the same
	Answer503                      // the request was not carried out
	Answer429                      // the request was not carried out
	Page403                        // from a gateway; FinCode does not see the request
	SlowFinCode                    // up to the timeout, or longer
	UnauthorizedAPI                // a 401 to a good token

	// On the way to the store, and at the store.
	LoadLost
	SaveLost    // the store does not see the Save
	SaveUnheard // the store carries the Save out, and its answer is lost
	SaveLate    // the store carries the Save out after the process has given up
	DeleteLost
	SlowStore

	// At any step of a process.
	CrashHere
	SleepHere

	// By the script.
	Crash
	Deploy      // the process is closed, and a new one started
	Stop        // SIGSTOP, and SIGCONT up to ten minutes later
	Suspend     // the same for a machine, whose monotonic clock stands still too
	ClockJump   // somebody sets a machine's wall clock
	StoreDown   // for minutes
	FinCodeDown // for minutes
	AccessRevoked
	FamilyRevoked
	Thief // somebody else uses a refresh token
	Login
	Logout
	StoreGoesBack // to an earlier state, or to nothing

	faults int = iota
)

var faultNames = [faults]string{
	"connections refused", "requests lost", "answers lost", "requests delivered twice", "answers cut", "answers garbled",
	"500 although carried out", "503", "429", "a gateway's 403", "FinCode slow", "401 to a good token",
	"Load lost", "Save lost", "Save carried out, answer lost", "Save carried out late", "Delete lost", "store slow",
	"crash at a step", "sleep at a step",
	"crash", "deploy", "stopped process", "suspended machine", "clock jump", "store down", "FinCode down",
	"access tokens revoked", "session revoked", "token stolen", "login", "logout", "store went back",
}

func (f Fault) String() string { return faultNames[f] }

// A luck is what a seed decides at the beginning. It does not change after that.
type luck struct {
	machines, callers int
	keys              int             // accounts, each with its own session
	inMemory          int             // MaxSessions; 0: all sessions
	lifetime          time.Duration   // of an access token
	timeout           time.Duration   // RefreshTimeout
	length            time.Duration   // of the time in which faults happen
	think             time.Duration   // between two calls of a caller, on average; 0: it only comes in a rush
	jwt, expiresIn    bool            // where an answer says the lifetime
	restart           time.Duration   // after a crash, a new process starts within this time
	serverClock       time.Duration   // FinCode's clock is wrong by this much
	clocks            time.Duration   // the machines' clocks are wrong by up to this much
	credentials       bool            // Config.Credentials is set
	rushes            []time.Duration // when all callers come at once
	reuseRevokes      bool            // a reused refresh token revokes its family
	rotationRevokes   bool            // a rotation revokes the access token before it

	// odds is the chance of a fault at a step. For a fault of the script, it is
	// how often the fault happens.
	odds [faults]float64
}

func newLuck(seed uint64) luck {
	r := rand.New(rand.NewPCG(seed, 0))
	pick := func(of ...time.Duration) time.Duration { return of[r.IntN(len(of))] }
	half := func() bool { return r.IntN(2) == 0 }
	l := luck{
		machines:        1 + r.IntN(4),
		callers:         1 + r.IntN(3),
		lifetime:        pick(time.Minute, 10*time.Minute, time.Hour),
		timeout:         pick(time.Second, 5*time.Second, 15*time.Second),
		restart:         2 * time.Minute,
		jwt:             half(),
		credentials:     r.IntN(4) == 0,
		reuseRevokes:    half(),
		rotationRevokes: half(),
	}
	l.expiresIn = !l.jwt || half()
	l.length = max(20*time.Minute, time.Duration(2+r.IntN(3))*l.lifetime)
	l.think = pick(0, l.length/10, l.length/40)
	if half() {
		l.serverClock = hours(r, 12)
	}
	if half() {
		l.clocks = hours(r, 6).Abs()
	}
	// Swarm testing: each seed has about half of the faults. A fault that is
	// always there could hide what another one does.
	for f := range l.odds[:StoreGoesBack] {
		switch {
		case half():
		case Fault(f) >= Crash:
			l.odds[f] = float64(1 + r.IntN(3))
		case Fault(f) >= CrashHere:
			l.odds[f] = 0.01 * r.Float64()
		default:
			l.odds[f] = 0.2 * r.Float64()
		}
	}
	for range 4 + r.IntN(8) {
		l.rushes = append(l.rushes, between(r, 0, l.length))
	}
	slices.Sort(l.rushes)
	l.keys = 1
	if r.IntN(3) == 0 {
		l.keys = 2 + r.IntN(4)
		l.inMemory = 1 + r.IntN(min(2, l.keys-1)) // less than keys, so that sessions are dropped
	}
	if r.IntN(4) == 0 { // in the others, what is promised does not depend on what a process knows
		l.odds[StoreGoesBack] = float64(1 + r.IntN(3))
	}
	return l
}

// hours returns a duration from -n to n hours.
func hours(r *rand.Rand, n int) time.Duration {
	return between(r, -time.Duration(n)*time.Hour, time.Duration(n)*time.Hour)
}

// between returns a duration from a to b.
func between(r *rand.Rand, a, b time.Duration) time.Duration {
	return a + time.Duration(r.Int64N(int64(b-a)+1))
}
