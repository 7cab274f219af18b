package simulation

// Rules for concurrency. Goroutines of all processes call the methods of promise,
// at any time. world.mu guards everything. A method that the world calls locks it,
// unless its comment says that world.mu is held. ended locks it too. All other
// methods are helpers, which are called with world.mu held. No method waits or
// calls the package under test while world.mu is held. The same holds in
// presenting.go, saving.go, asking.go and ending.go.

import (
	"time"
)

// A promise checks what must be true whatever happens. It sees the whole world:
// all processes, the store, FinCode and the true time. The world calls it at
// every step. A method that is named after a promise checks that promise.
type promise struct {
	world     *world
	processes []*process // all that ever ran
}

// A fate is what happened to the session of one account. All promises are for each
// account by itself.
type fate struct {
	arrivals  []*arrival
	latest    *family   // that a login of the account began
	replaced  time.Time // when a login, a logout or an end changed the store last
	byUser    time.Time // when a login or a logout changed it last
	otherAt   time.Time // when the store went back to another session last; zero: never
	lostAt    time.Time // when the store lost something of it last, and went back to an earlier state; zero: never
	rotations int       // at FinCode
	takeovers int
	twice     int // requests with a refresh token that the network delivered twice
	thefts    int
}

// A history is what happened to a pair and to its refresh token.
type history struct {
	presented      []*presentation
	usedBy         *presentation // the one that FinCode accepted; nil: none, or a thief's
	stored         time.Time     // when the pair was last saved in the store; zero: never
	savedUnheard   bool          // it was, but the answer to its Save was lost
	outcomeUnknown bool          // a process presented the token and does not know the outcome
	takenOver      bool          // another process took over a claim of the token
	forgotten      bool          // a process may have taken over its own claim, because it had dropped the session
	twice          bool          // the network delivered a request with the token twice
	stolen         bool
}

// A presentation is one process's attempt to use a refresh token. A request that
// presents none is one too, with a nil pair.
type presentation struct {
	by      *view
	entered time.Time // the package handed over the request; it cannot look at the clock or at the store after that
	at      time.Time // the request left
	pair    *pair
	outcome outcome

	heard      time.Time     // when the process knew the outcome
	retryAfter time.Duration // as FinCode asked

	// interrupted: the outcome of an earlier attempt is unknown, or may be
	// unknown because its claim was taken over.
	interrupted bool

	overslept bool // what oversleeps said when the request left

	claimed time.Time // when the store got the claim under which the token is presented

	failedSaves int // Saves of the process that the store did not answer, since the answer arrived

	reused  bool // FinCode refused the token with a 403
	tooLate bool // the store had no record of the pair any more when FinCode refused the token
}

// An outcome is what a process knows about a request that it sent.
type outcome int

const (
	pending outcome = iota // no answer yet, or the process died before it
	arrived
	refused // by FinCode itself
	notSent // surely not processed
	unknown
)

func (o outcome) String() string {
	return [...]string{"has no answer yet", "got the answer", "was refused", "surely did not reach FinCode", "does not know the outcome"}[o]
}

// An arrival is a new pair that reached a process.
type arrival struct {
	by    *view
	since time.Time // whatever replaced the session after this may win over the pair
	pair  *pair
	sent  *presentation // the request that the pair answers
}

// oversleeps reports whether others may have taken the claim over although the
// process that made s cannot know that. There are two such cases: the process
// slept after it handed over the request, or the wall clock of its machine was
// changed and it slept with the claim. The process notes when it claims before the
// Save of the claim. So a change while that Save is on its way counts, too.
func (s *presentation) oversleeps(claim *version) bool {
	return s.by.sleptSince(s.entered) || s.by.sleptSince(claim.at) && s.by.machine.jumped.After(claim.asked)
}

// explained reports whether something outside the package explains that FinCode
// refuses the pair's refresh token. world.mu is held.
func (p *pair) explained() bool {
	if p.wasLost() || p.family.revokedOutside || p.family.discarded || p.family.cameBack || p.stolen || p.twice {
		return true
	}
	s := p.usedBy
	return s != nil && (s.outcome == unknown || s.by.dead || s.by.closeFailed || s.failedSaves >= 3 ||
		p.takenOver && s.by.sleptSince(s.at))
}

// expiry returns the earliest expiry that the process can have noted for the pair,
// by its wall clock. If that is not known, it returns the zero time.
func (k *promise) expiry(of *pair, v *view) time.Time {
	if k.clockChanged(v, of) {
		return time.Time{}
	}
	return of.asked.Add(k.world.luck.lifetime + time.Duration(v.machine.wrong.Load()))
}

// clockChanged reports whether the process's wall clock may differ from the clock
// by which the pair's expiry was noted.
func (k *promise) clockChanged(v *view, of *pair) bool {
	if !v.own[of] {
		return k.world.luck.clocks > 0 || k.anyJumped()
	}
	return v.machine.jumped.After(of.asked)
}

func (k *promise) anyJumped() bool {
	for _, m := range k.world.machines {
		if !m.jumped.IsZero() {
			return true
		}
	}
	return false
}

func set[K comparable, V any](m *map[K]V, k K, v V) {
	if *m == nil {
		*m = make(map[K]V)
	}
	(*m)[k] = v
}
