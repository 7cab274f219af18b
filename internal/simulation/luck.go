package simulation

import (
	"math/rand/v2"
	"slices"
	"time"
)

// A Fault is something that goes wrong, or at least does not go as usual.
type Fault int

const (
	// On the way to FinCode, and at it.
	ConnectionRefused Fault = iota // surely not sent
	RequestLost                    // before the server
	AnswerLost                     // after it
	RequestTwice                   // the network delivers it twice
	AnswerCut                      // in the middle of its body
	AnswerGarbage                  // a 200 that cannot be read
	Answer500                      // although it was carried out
	Answer503                      // and it was not carried out
	Answer429                      // the same
	Page403                        // a gateway's, and FinCode never saw it
	SlowFinCode                    // up to the timeout, and past it
	UnauthorizedAPI                // 401 to a good token

	// On the way to the store, and at it.
	LoadLost
	SaveLost    // not carried out
	SaveUnheard // carried out, but its answer is lost
	SaveLate    // carried out after whoever asked has given up
	DeleteLost
	SlowStore

	// Anywhere in a process.
	CrashHere
	SleepHere

	// By the script.
	Crash
	Deploy      // the process is closed, and a new one started
	Stop        // SIGSTOP, and SIGCONT up to ten minutes later
	Suspend     // the same, of a machine: its monotonic clock stands still too
	ClockJump   // of a machine's wall clock
	StoreDown   // for minutes
	FinCodeDown // for minutes
	AccessRevoked
	FamilyRevoked
	Thief // uses a refresh token
	Login
	Logout

	faults int = iota
)

var faultNames = [faults]string{
	"connections refused", "requests lost", "answers lost", "requests delivered twice", "answers cut", "answers garbled",
	"500 though done", "503", "429", "a gateway's 403", "FinCode slow", "401 to a good token",
	"Load lost", "Save lost", "Save done, answer lost", "Save done late", "Delete lost", "store slow",
	"crash in a call", "sleep in a call",
	"crash", "deploy", "stopped process", "suspended machine", "clock jump", "store down", "FinCode down",
	"access tokens revoked", "session revoked", "token stolen", "login", "logout",
}

func (f Fault) String() string { return faultNames[f] }

// A luck is what a seed decides at the beginning.
type luck struct {
	machines, callers int
	lifetime          time.Duration   // of an access token
	timeout           time.Duration   // RefreshTimeout
	length            time.Duration   // of the bad luck
	think             time.Duration   // a caller's, on average; 0: it comes in a rush only
	jwt, expiresIn    bool            // how an answer tells the lifetime
	serverClock       time.Duration   // wrong by this
	clocks            time.Duration   // the machines', wrong by up to this
	credentials       bool            // Config.Credentials
	rushes            []time.Duration // when everybody comes at once
	reuseRevokes      bool            // the family
	rotationRevokes   bool            // the access token before

	// odds are, for a fault at a call, its chance; for one of the script, how
	// often it happens.
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
	// Swarm testing: each seed has some faults and lacks the others, so that
	// none hides behind another that is always there.
	for f := range l.odds {
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
	return l
}

// hours returns up to n hours, either way.
func hours(r *rand.Rand, n int) time.Duration {
	return between(r, -time.Duration(n)*time.Hour, time.Duration(n)*time.Hour)
}

// between returns a duration from a to b.
func between(r *rand.Rand, a, b time.Duration) time.Duration {
	return a + time.Duration(r.Int64N(int64(b-a)+1))
}
