package simulation

// Rules for concurrency. Those of promise.go: world.mu guards everything. A method
// that the world calls locks it, unless its comment says that world.mu is held. All
// other methods are helpers, which are called with world.mu held.

import (
	"net/http"
	"time"
)

// sends is called when a request leaves a process. It checks everything that
// must be true before a refresh token is presented. twice says that the network
// delivers the request twice.
func (k *promise) sends(v *view, r *request, twice bool) *presentation {
	w := k.world
	w.mu.Lock()
	defer w.mu.Unlock()
	s := &presentation{by: v, entered: r.asked, at: time.Now()}
	k.sendsOwnTokens(v, r)
	if of := w.fincode.pairs[r.refresh]; r.op == "logout" && of != nil {
		of.family.toldFinCode = true
	}
	if r.op != "refresh-token" {
		return s
	}
	s.pair = w.fincode.pairs[r.refresh]
	if s.pair == nil {
		w.breaks(v, "%v presents a refresh token that does not exist", v)
		return s
	}
	if len(w.broken) == 0 && !s.pair.family.cameBack && !v.account.isLoggedOutAfterALoss() {
		k.holdsTheClaim(s)
		k.presentedBefore(s)
		k.knowsSpent(s)
		k.hasNoSuccessor(s)
		k.isDue(s)
		k.waited(s)
	}
	s.interrupted = s.pair.outcomeUnknown || s.pair.takenOver
	s.pair.presented = append(s.pair.presented, s)
	if twice {
		s.pair.twice = true
		v.account.twice++
	}
	if fam := s.pair.family; !fam.loggedOut || fam.cameBack { // otherwise a Logout presents the token
		v.presented = s
	}
	w.stats.Presentations++
	return s
}

// sendsOwnTokens: a request has the tokens of its own account.
func (k *promise) sendsOwnTokens(v *view, r *request) {
	for _, of := range []*pair{k.world.fincode.pairs[r.refresh], k.world.fincode.access[r.access]} {
		if of != nil && of.family.account != v.account {
			k.world.breaks(v, "%v sends %v of %s for %s", v, of, of.family.account.key, v.account.key)
		}
	}
}

// notSentInTime is called when the time of a request ran out before it was sent.
// The process cannot know that it was not sent.
func (k *promise) notSentInTime(r *request) {
	k.world.mu.Lock()
	defer k.world.mu.Unlock()
	if pair := k.world.fincode.pairs[r.refresh]; r.op == "refresh-token" && pair != nil {
		pair.outcomeUnknown = true
	}
}

// presentedBefore: a refresh token is presented again only after a takeover,
// or after an attempt with an unknown outcome or one that was surely not sent. A
// presenter that dropped the session, an hour after its claim, does not know what it
// did: it takes over from itself.
func (k *promise) presentedBefore(s *presentation) {
	for _, before := range s.pair.presented {
		if before.outcome == unknown || before.outcome == notSent || s.pair.takenOver || s.pair.forgotten {
			continue
		}
		a := s.by.account
		if (a.isBehind(before.claimed) || a.isBehind(s.claimed)) && (before.by != s.by || a.mayBeUnknown(s.pair.family, before.claimed)) {
			continue // the store has lost one of the claims, and its process may not know of that
		}
		k.world.breaks(s.by, "%v presents %v again, although %v presented it before and %v", s.by, s.pair, before.by, before.outcome)
	}
}

// holdsTheClaim: a process that presents a token has claimed it in the store. No
// other process has taken that claim over, unless the owner slept. A Logout
// presents a token without a claim: it has replaced the record before, so nobody
// else can claim the token. Nor can anybody else claim a token that was never in
// the store: the process that received it presents it to have it revoked.
func (k *promise) holdsTheClaim(s *presentation) {
	claim := s.by.lastClaim()
	owns := claim != nil && claim.pair == s.pair
	if owns {
		s.claimed = claim.at
	}
	// This comes before the exception for a Logout. The process may have claimed
	// the token and slept, and another process may have logged out meanwhile.
	s.overslept = owns && s.oversleeps(claim)
	if s.pair.family.loggedOut || s.pair.stored.IsZero() && s.by.own[s.pair] {
		return
	}
	if a := s.by.account; s.by.userCalls > 0 && !a.lostAt.IsZero() {
		return // a Logout of what the store has lost
	}
	if !owns {
		k.world.breaks(s.by, "%v presents %v without a claim", s.by, s.pair)
		return
	}
	now := s.by.account.current()
	takenOver := now != nil && now != claim && now.claim && now.pair == s.pair
	if takenOver && !s.overslept && !s.by.account.isBehind(claim.at) {
		k.world.breaks(s.by, "%v presents %v although its claim was taken over: %v", s.by, s.pair, now)
	}
}

// hasNoSuccessor: a process does not present a token whose successor is stored,
// unless the process slept.
func (k *promise) hasNoSuccessor(s *presentation) {
	for _, next := range k.world.fincode.pairs {
		if next.family != s.pair.family || next.number <= s.pair.number || next.stored.IsZero() || s.overslept {
			continue
		}
		// If the store has gone back, it may have lost the successor, or somebody may have
		// saved it again over the claim.
		if a := s.by.account; a.lostAt.IsZero() || next.stored.After(a.lostAt) && s.claimed.After(next.stored) {
			k.world.breaks(s.by, "%v presents %v again, although its successor %v is in the store", s.by, s.pair, next)
		}
	}
}

// isDue: a process does not refresh a token that is far from its expiry, unless
// FinCode answered 401 to its access token: the API, or the logout of a Logout.
func (k *promise) isDue(s *presentation) {
	l, v := k.world.luck, s.by
	if len(s.pair.presented) > 0 || v.rejected[s.pair] || s.pair.revoked || k.clockChanged(v, s.pair) {
		return
	}
	age := time.Since(s.pair.issued)
	if due := l.lifetime - l.lifetime/5 - l.timeout - 100*time.Millisecond; age < due {
		k.world.breaks(v, "%v refreshes %v, which is only %v old", v, s.pair, age)
	}
}

// givesUp is called when a process does not wait any longer for the answer to a request.
// It waits for the answer to a refresh as long as the timeout allows, even if all callers
// leave.
func (k *promise) givesUp(v *view, r *request) {
	w := k.world
	w.mu.Lock()
	defer w.mu.Unlock()
	if waited := time.Since(r.asked); r.op == "refresh-token" && waited < w.luck.timeout-time.Millisecond {
		w.breaks(v, "%v gives up its refresh after only %v", v, waited)
	}
}

// waited: a process that failed waits before it tries again: for a second, or for
// as long as FinCode asked, whichever is longer.
func (k *promise) waited(s *presentation) {
	last := s.by.presented
	if last == nil || last.pair != s.pair || last.outcome == pending || s.pair.family.loggedOut {
		return
	}
	if pause := s.at.Sub(last.heard); pause < max(time.Second, last.retryAfter)-time.Millisecond {
		k.world.breaks(s.by, "%v presents %v again after only %v", s.by, s.pair, pause)
	}
}

// hears is called when a process gets the answer to a request, or learns that
// there is none. a is then nil.
func (k *promise) hears(v *view, r *request, s *presentation, a *answer) {
	w := k.world
	w.mu.Lock()
	defer w.mu.Unlock()
	if (r.op == api || r.op == "logout") && a != nil && a.status == http.StatusUnauthorized {
		if pair := w.fincode.access[r.access]; pair != nil {
			set(&v.rejected, pair, true)
		}
	}
	s.outcome, s.heard = outcomeOf(a), time.Now()
	if a != nil {
		s.retryAfter = a.retryAfter
		s.reused = s.outcome == refused && a.status == http.StatusForbidden
	}
	if r.op == "refresh-token" {
		k.hearsOfRotation(s)
	}
	if s.outcome == arrived && a.issued != nil {
		k.getsPair(r, s, a.issued)
	}
}

// hearsOfRotation notes what a process knows after it presented a refresh token.
func (k *promise) hearsOfRotation(s *presentation) {
	switch s.outcome {
	case refused:
		s.by.held = nil // the session has ended, or is about to
		now := s.by.account.current()
		s.tooLate = now == nil || now.pair != s.pair
	case unknown:
		s.pair.outcomeUnknown = true
		k.world.stats.Unheard++
	}
}

// getsPair notes that a process got a new pair. It has to store the pair, unless the
// session was replaced while the request was under way.
func (k *promise) getsPair(r *request, s *presentation, issued *pair) {
	set(&s.by.own, issued, true)
	s.by.gets(issued)
	a := s.by.account
	now := a.current()
	if replaced := now == nil || now.pair == nil || now.pair.family != issued.family; r.op == "login" || !replaced {
		since := s.at
		if r.op == "login" { // a login looks at the store before it calls FinCode
			since = k.lookedAtTheStore(s)
		}
		a.arrivals = append(a.arrivals, &arrival{by: s.by, since: since, pair: issued, sent: s})
	}
}

func outcomeOf(a *answer) outcome {
	switch {
	case a == nil:
		return unknown
	case a.status == http.StatusOK && a.issued != nil && !a.cut:
		return arrived
	case a.status == http.StatusUnauthorized, a.status == http.StatusForbidden && a.body[0] == '{':
		return refused
	case a.status > 400 && a.status < 500:
		return notSent
	}
	return unknown
}

// lookedAtTheStore returns the earliest time at which a process that logs in may
// have loaded the record last. That is not long before, with two exceptions: a
// user logs in there, or the process slept with a claim and cannot know that.
func (k *promise) lookedAtTheStore(s *presentation) time.Time {
	at, v := s.entered.Add(-k.world.luck.timeout), s.by
	claim := s.by.lastClaim()
	switch {
	case v.userCalls > 0 && !v.userCallsSince.After(s.entered):
		return v.userCallsSince
	case v.userCalls == 0 && claim != nil && s.oversleeps(claim) && claim.at.Before(at):
		return claim.at
	}
	return at
}
