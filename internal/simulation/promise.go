package simulation

// Rules for concurrency. Goroutines of all processes call the methods of promise,
// at any time. world.mu guards everything in this file. A method that the world
// calls locks it, unless its comment says that world.mu is held. ended locks it
// too. All other methods are helpers, which are called with world.mu held. No
// method waits or calls the package under test while world.mu is held.

import (
	"context"
	"errors"
	"net/http"
	"time"

	"golang.org/x/oauth2"

	"github.com/fincodeauth/fincodeauth"
)

// A promise checks what must be true whatever happens. It sees the whole world:
// all processes, the store, FinCode and the true time. The world calls it at
// every step. A method that is named after a promise checks that promise.
type promise struct {
	world     *world
	processes []*process // all that ever ran
	arrivals  []*arrival
	replaced  time.Time // when a login, a logout or an end changed the store last
	byUser    time.Time // when a login or a logout changed it last
}

// A history is what happened to a pair and to its refresh token.
type history struct {
	presented      []*presentation
	usedBy         *presentation // the one that FinCode accepted; nil: none, or a thief's
	stored         bool          // the pair was in the store
	savedUnheard   bool          // it was, but the answer to its Save was lost
	outcomeUnknown bool          // a process presented the token and does not know the outcome
	takenOver      bool          // another process took over a claim of the token
	twice          bool          // the network delivered a request with the token twice
	stolen         bool
}

// A presentation is one process's attempt to use a refresh token. A request that
// presents none is one too, with a nil pair.
type presentation struct {
	by      *process
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

	// superseded: a login or a logout was under way in the same process. The
	// process then drops the answer.
	superseded bool

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

// An arrival is a new pair that reached a process.
type arrival struct {
	by    *process
	since time.Time // whatever replaced the session after this may win over the pair
	pair  *pair
	sent  *presentation // the request that the pair answers
}

// A view is what a process can know.
type view struct {
	closed, closeFailed bool             // Close has returned; with an error
	userCalls           int              // logins and logouts that are under way here
	userCallsSince      time.Time        // when the first of them began
	userCallsUntil      time.Time        // when one of them returned last
	own                 map[*pair]bool   // the pairs that the process got from FinCode itself
	rejected            map[*pair]bool   // a call of this process with the access token was answered 401
	presented           *presentation    // the last one of a refresh token
	held                *pair            // the pair that the process handed out last; nil: it may have another now
	installed           time.Time        // when the process began to use its token, by its own wall clock
	loggedOut           map[*family]bool // the sessions that a user logged out here
}

// sends is called when a request leaves a process. It checks everything that
// must be true before a refresh token is presented. twice says that the network
// delivers the request twice.
func (k *promise) sends(p *process, r *request, twice bool) *presentation {
	w := k.world
	w.mu.Lock()
	defer w.mu.Unlock()
	s := &presentation{by: p, entered: r.asked, at: time.Now()}
	if of := w.fincode.pairs[r.refresh]; r.op == "logout" && of != nil {
		of.family.toldFinCode = true
	}
	if r.op != "refresh-token" {
		return s
	}
	s.pair = w.fincode.pairs[r.refresh]
	if s.pair == nil {
		w.breaks(p, "%v presents a refresh token that does not exist", p)
		return s
	}
	if len(w.broken) == 0 && !s.pair.family.cameBack {
		k.presentedBefore(s)
		k.holdsTheClaim(s)
		k.hasNoSuccessor(s)
		k.isDue(s)
		k.waited(s)
	}
	s.interrupted = s.pair.outcomeUnknown || s.pair.takenOver
	s.pair.presented = append(s.pair.presented, s)
	s.pair.twice = s.pair.twice || twice
	if fam := s.pair.family; !fam.loggedOut || fam.cameBack { // otherwise a Logout presents the token
		p.view.presented = s
	}
	w.stats.Presentations++
	return s
}

// notSentInTime is called when the time of a request ran out before it was sent.
// The process cannot know that it was not sent.
func (k *promise) notSentInTime(p *process, r *request) {
	k.world.mu.Lock()
	defer k.world.mu.Unlock()
	if pair := k.world.fincode.pairs[r.refresh]; r.op == "refresh-token" && pair != nil {
		pair.outcomeUnknown = true
	}
}

// presentedBefore: a refresh token is presented again only after a takeover,
// after an attempt with an unknown outcome or one that was surely not sent, after
// the death of its presenter, or if a login or a logout was under way in the
// process that presented it before.
func (k *promise) presentedBefore(s *presentation) {
	for _, before := range s.pair.presented {
		if before.outcome == unknown || before.outcome == notSent || before.by.dead || before.superseded || s.pair.takenOver {
			continue
		}
		k.world.breaks(s.by, "%v presents %v again, although %v presented it before and %v", s.by, s.pair, before.by, before.outcome)
	}
}

func (o outcome) String() string {
	return [...]string{"has no answer yet", "got the answer", "was refused", "surely did not reach FinCode", "does not know the outcome"}[o]
}

// holdsTheClaim: a process that presents a token has claimed it in the store. No
// other process has taken that claim over, unless the owner slept. A Logout
// presents a token without a claim: it has replaced the record before, so nobody
// else can claim the token. Nor can anybody else claim a token that was never in
// the store: the process that received it presents it to have it revoked.
func (k *promise) holdsTheClaim(s *presentation) {
	claim := k.world.store.claimOf(s.by)
	owns := claim != nil && claim.pair == s.pair
	// This comes before the exception for a Logout. The process may have claimed
	// the token and slept, and another process may have logged out meanwhile.
	s.overslept = owns && s.oversleeps(claim)
	if s.pair.family.loggedOut || !s.pair.stored && s.by.view.own[s.pair] {
		return
	}
	if !owns {
		k.world.breaks(s.by, "%v presents %v without a claim", s.by, s.pair)
		return
	}
	now := k.world.store.current()
	takenOver := now != nil && now != claim && now.claim && now.pair == s.pair
	if takenOver && !s.overslept {
		k.world.breaks(s.by, "%v presents %v although its claim was taken over: %v", s.by, s.pair, now)
	}
}

// hasNoSuccessor: a process does not present a token whose successor is stored,
// unless the process slept.
func (k *promise) hasNoSuccessor(s *presentation) {
	for _, next := range k.world.fincode.pairs {
		if next.family == s.pair.family && next.number > s.pair.number && next.stored && !s.overslept {
			k.world.breaks(s.by, "%v presents %v again, although its successor %v is in the store", s.by, s.pair, next)
		}
	}
}

// isDue: a process does not refresh a token that is far from its expiry, unless
// FinCode answered 401 to its access token: the API, or the logout of a Logout.
func (k *promise) isDue(s *presentation) {
	l, p := k.world.luck, s.by
	if len(s.pair.presented) > 0 || p.view.rejected[s.pair] || s.pair.revoked || k.clockChanged(p, s.pair) {
		return
	}
	age := time.Since(s.pair.issued)
	if due := l.lifetime - l.lifetime/5 - l.timeout - 100*time.Millisecond; age < due {
		k.world.breaks(p, "%v refreshes %v, which is only %v old", p, s.pair, age)
	}
}

// waited: a process that failed waits before it tries again: for a second, or for
// as long as FinCode asked, whichever is longer.
func (k *promise) waited(s *presentation) {
	last := s.by.view.presented
	if last == nil || last.pair != s.pair || last.outcome == pending || s.pair.family.loggedOut {
		return
	}
	if pause := s.at.Sub(last.heard); pause < max(time.Second, last.retryAfter)-time.Millisecond {
		k.world.breaks(s.by, "%v presents %v again after only %v", s.by, s.pair, pause)
	}
}

// clockChanged reports whether the process's wall clock may differ from the clock
// by which the pair's expiry was noted.
func (k *promise) clockChanged(p *process, of *pair) bool {
	if !p.view.own[of] {
		return k.world.luck.clocks > 0 || k.anyJumped()
	}
	return p.machine.jumped.After(of.asked)
}

func (k *promise) anyJumped() bool {
	for _, m := range k.world.machines {
		if !m.jumped.IsZero() {
			return true
		}
	}
	return false
}

// hears is called when a process gets the answer to a request, or learns that
// there is none. a is then nil.
func (k *promise) hears(p *process, r *request, s *presentation, a *answer) {
	w := k.world
	w.mu.Lock()
	defer w.mu.Unlock()
	if (r.op == api || r.op == "logout") && a != nil && a.status == http.StatusUnauthorized {
		if pair := w.fincode.access[r.access]; pair != nil {
			set(&p.view.rejected, pair, true)
		}
	}
	s.outcome, s.heard = outcomeOf(a), time.Now()
	if a != nil {
		s.retryAfter = a.retryAfter
		s.reused = s.outcome == refused && a.status == http.StatusForbidden
	}
	s.superseded = p.view.userCalls > 0 || p.view.userCallsUntil.After(s.at)
	if s.outcome == refused && r.op == "refresh-token" {
		p.view.held = nil // the session has ended, or is about to
		now := w.store.current()
		s.tooLate = now == nil || now.pair != s.pair
	}
	if r.op == "refresh-token" && s.outcome == unknown {
		s.pair.outcomeUnknown = true
		w.stats.Unheard++
	}
	if s.outcome != arrived || a.issued == nil {
		return
	}
	set(&p.view.own, a.issued, true)
	now := w.store.current()
	if replaced := now == nil || now.pair == nil || now.pair.family != a.issued.family; r.op == "login" || !replaced {
		since := s.at
		if r.op == "login" { // a login looks at the store before it calls FinCode
			since = k.lookedAtTheStore(s)
		}
		k.arrivals = append(k.arrivals, &arrival{by: p, since: since, pair: a.issued, sent: s})
	}
}

// lookedAtTheStore returns the earliest time at which a process that logs in may
// have loaded the record last. That is not long before, with two exceptions: a
// user logs in there, or the process slept with a claim and cannot know that.
func (k *promise) lookedAtTheStore(s *presentation) time.Time {
	at, v := s.entered.Add(-k.world.luck.timeout), &s.by.view
	claim := k.world.store.claimOf(s.by)
	switch {
	case v.userCalls > 0 && !v.userCallsSince.After(s.entered):
		return v.userCallsSince
	case v.userCalls == 0 && claim != nil && s.oversleeps(claim) && claim.at.Before(at):
		return claim.at
	}
	return at
}

// oversleeps reports whether others may have taken the claim over although the
// process that made s cannot know that. There are two such cases: the process
// slept after it handed over the request, or the wall clock of its machine was
// changed and it slept with the claim.
func (s *presentation) oversleeps(claim *version) bool {
	return s.by.sleptSince(s.entered) || s.by.sleptSince(claim.at) && s.by.machine.jumped.After(claim.at)
}

// cannotReachTheStore is called when a process got no answer from the store. If
// FinCode has refused the token, the process then may end the session without
// loading the record again: the Save of the end compares the version.
func (k *promise) cannotReachTheStore(p *process, what string) {
	k.world.mu.Lock()
	defer k.world.mu.Unlock()
	s := p.view.presented
	if s == nil {
		return
	}
	s.tooLate = false
	if what == "Save" && s.outcome == arrived {
		s.failedSaves++
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

// saved is called when the store has carried out a Save. old is what it replaced.
// late says that the caller has given up or is dead. world.mu is held.
func (k *promise) saved(old, v *version, rec *fincodeauth.Record, late bool) {
	if old != nil && old.claim && v.claim && old.by != v.by {
		k.tookOver(old, v)
	}
	if old != nil && old.pair != nil && v.pair != nil && old.pair.family == v.pair.family && v.pair.number < old.pair.number {
		k.world.breaks(v.by, "%v replaces %v with the older %v", v.by, old.pair, v.pair)
	}
	if v.pair != nil {
		k.comesBack(old, v, late)
		v.pair.stored = true
	}
	if v.pair == nil && rec.Ended == "" && old != nil && old.pair != nil {
		k.losesRefreshToken(old, v)
	}
	if rec.Ended == "logged out" && old != nil && old.pair != nil {
		old.pair.family.loggedOut = true
	}
	if old == nil || old.pair == nil || v.pair == nil || old.pair.family != v.pair.family {
		k.replaced = time.Now()
		if v.pair != nil || rec.Ended == "logged out" {
			k.byUser = time.Now()
		}
	}
}

// savesUnheard is called when a Save failed, unless it failed with a conflict. The
// process then does not know whether the store carried it out.
func (k *promise) savesUnheard(rec *fincodeauth.Record) {
	k.world.mu.Lock()
	defer k.world.mu.Unlock()
	if pair := k.world.fincode.pairs[rec.Token.RefreshToken]; pair != nil {
		pair.savedUnheard = pair.savedUnheard || pair.stored && rec.RefreshStarted.IsZero()
	}
}

// comesBack: a session that was logged out does not come back. There is one
// exception, the first pair of a login. The store may carry out its Save too
// late, or a second time after the answer to the first was lost. It does so where
// there is no record, or over a record that the login wanted to replace. That
// session is dead at FinCode, or will be soon.
func (k *promise) comesBack(old, v *version, late bool) {
	fam := v.pair.family
	begins := old == nil || old.pair == nil || old.pair.family != fam
	switch {
	case fam.cameBack:
	case (late || v.pair.savedUnheard) && v.pair.number == 1 && (old == nil && v.pair.stored || begins && fam.toldFinCode):
		fam.cameBack = true
	case fam.loggedOut, old == nil && v.pair.number > 1:
		k.world.breaks(v.by, "%v brings back %v, which was logged out", v.by, v.pair)
	}
}

// losesRefreshToken: a record loses its refresh token only if FinCode refused that
// token for a reason outside the package.
func (k *promise) losesRefreshToken(old, v *version) {
	if s := v.by.view.presented; s == nil || s.pair != old.pair || s.outcome != refused || !old.pair.explained() {
		k.world.breaks(v.by, "%v removes the refresh token from %v", v.by, old)
	}
}

// tookOver: a claim is taken over only if it did not change for twice the timeout,
// and never while its owner is presenting the token, unless the owner slept or is
// dead.
func (k *promise) tookOver(old, v *version) {
	k.world.stats.Takeovers++
	old.pair.takenOver = true
	if stood := v.at.Sub(old.at); stood < 2*k.world.luck.timeout {
		k.world.breaks(v.by, "%v takes over the claim of %v after only %v", v.by, old.by, stood)
	}
	if old.by.dead || old.by.sleptSince(old.at) {
		return
	}
	for _, s := range old.pair.presented {
		if s.by == old.by && s.outcome == pending {
			k.world.breaks(v.by, "%v takes over the claim of %v, which is alive and presenting the token", v.by, old.by)
		}
	}
}

// observed is the Config.Observe of every process.
func (k *promise) observed(p *process, e fincodeauth.Event) {
	w := k.world
	w.mu.Lock()
	if p.dead {
		w.mu.Unlock()
		return
	}
	w.say(p, "event %v %v", e.Type, e.Err)
	w.stats.Events[e.Type]++
	switch e.Type {
	case fincodeauth.Refreshed, fincodeauth.Adopted, fincodeauth.LoggedIn:
		p.view.installed = p.machine.wall()
	}
	w.mu.Unlock()
	if e.Type == fincodeauth.Ended {
		k.ended(p, e.Err)
	}
}

// credentialsAsked is called when the package calls Config.Credentials. It must not do that
// after a breach.
func (k *promise) credentialsAsked(p *process, cause error) {
	k.ended(p, cause)
	k.world.mu.Lock()
	defer k.world.mu.Unlock()
	if end, ok := errors.AsType[*fincodeauth.SessionError](cause); ok && end.Reused && !end.Interrupted {
		k.world.breaks(p, "%v asks for credentials after a breach", p)
	}
}

// ended: a session ends only for a reason outside the package. FinCode refused
// the token (it was revoked, stolen or delivered twice), an answer was lost, or a
// process died or slept between presenting and saving. Interrupted and Reused
// tell these reasons apart.
func (k *promise) ended(p *process, cause error) {
	w := k.world
	w.mu.Lock()
	defer w.mu.Unlock()
	if mine := w.store.claimOf(p); mine != nil && mine.pair == nil {
		return // another process presented the token and was refused
	}
	end, ok := errors.AsType[*fincodeauth.SessionError](cause)
	if !ok || p.view.presented == nil {
		w.breaks(p, "%v ends a session although it presented no token of it: %v", p, cause)
		return
	}
	of := p.view.presented.pair
	if p.view.presented.tooLate {
		w.breaks(p, "%v ends the session of %v, although the store had something else by then: %v", p, of, cause)
	}
	if !of.explained() {
		w.breaks(p, "%v ends the session of %v, and nothing explains it: %v", p, of, cause)
	}
	superseded := of.usedBy != nil && of.usedBy.superseded  // its claim may have been taken over, by any process
	overslept := p.view.presented.overslept && of.takenOver // the process does not know of the takeover
	if end.Interrupted != p.view.presented.interrupted && !of.family.cameBack && !superseded && !overslept {
		w.breaks(p, "%v says that Interrupted is %t at the end of %v, which is wrong", p, end.Interrupted, of)
	}
	if end.Reused != p.view.presented.reused {
		w.breaks(p, "%v says that Reused is %t at the end of %v, which is wrong", p, end.Reused, of)
	}
	switch {
	case end.Interrupted:
		w.stats.Interrupted++
	case end.Reused:
		w.stats.Breaches++
	}
}

// explained reports whether something outside the package explains that FinCode
// refuses the pair's refresh token. world.mu is held.
func (p *pair) explained() bool {
	if p.family.revokedOutside || p.family.discarded || p.family.cameBack || p.stolen || p.twice {
		return true
	}
	s := p.usedBy
	return s != nil && (s.outcome == unknown || s.by.dead || s.by.view.closeFailed || s.superseded || s.failedSaves >= 3 ||
		p.takenOver && s.by.sleptSince(s.at))
}

// A question is a caller's call for a token, and the state when it began.
type question struct {
	at    time.Time
	valid bool // the process has a good token, and nothing is under way that changes it
	held  *pair
}

// callerAsks is called when a caller is about to ask for a token.
func (k *promise) callerAsks(p *process) question {
	w := k.world
	w.mu.Lock()
	defer w.mu.Unlock()
	v := &p.view
	q := question{at: time.Now(), held: v.held}
	if now := w.store.current(); v.held == nil || v.userCalls > 0 || p.leaving || v.held.family.latest != v.held ||
		now == nil || now.pair == nil || now.pair.family != v.held.family {
		return q
	}
	until := min(k.expiry(v.held, p).Sub(p.machine.wall()), v.installed.Add(w.luck.lifetime).Sub(p.machine.wall()))
	q.valid = until > min(10*time.Second, w.luck.lifetime/20)+time.Second
	return q
}

// expiry returns the earliest expiry that the process can have noted for the pair,
// by its wall clock. If that is not known, it returns the zero time.
func (k *promise) expiry(of *pair, p *process) time.Time {
	if k.clockChanged(p, of) {
		return time.Time{}
	}
	return of.asked.Add(k.world.luck.lifetime + time.Duration(p.machine.wrong.Load()))
}

// callerGets is called when the caller has got a token or an error.
func (k *promise) callerGets(ctx context.Context, p *process, q question, waited time.Duration, tok *oauth2.Token, err error) {
	w := k.world
	w.mu.Lock()
	defer w.mu.Unlock()
	if p.dead {
		return
	}
	w.stats.Calls++
	if waited > 0 {
		w.stats.Waits++
	}
	w.say(p, "a caller waited %v: %v", waited, err)
	deadline, limited := ctx.Deadline()
	if limited && waited > deadline.Sub(q.at) {
		w.breaks(p, "a caller of %v waited %v, longer than its context allows", p, waited)
	}
	if q.valid && waited > 0 && !errors.Is(err, fincodeauth.ErrLoginRequired) {
		w.breaks(p, "a caller of %v waited %v, although the process had %v, which is good", p, waited, q.held)
	}
	if errors.Is(err, fincodeauth.ErrLoginRequired) {
		k.loginIsRequired(p, q, err)
	}
	if err != nil {
		p.view.held = nil
		return
	}
	of := w.fincode.access[tok.AccessToken]
	if of == nil {
		w.breaks(p, "a caller of %v got a token that does not exist", p)
		return
	}
	if p.view.loggedOut[of.family] && !of.family.cameBack {
		w.breaks(p, "a caller of %v got %v, which was logged out in that process", p, of)
	}
	if !tok.Expiry.IsZero() && p.machine.wall().After(tok.Expiry.Add(time.Second)) {
		w.breaks(p, "a caller of %v got %v, which has expired by the clock of that machine", p, of)
	}
	if time.Now().After(of.expires.Add(time.Second)) && !k.clockChanged(p, of) {
		w.breaks(p, "a caller of %v got %v, which has expired", p, of)
	}
	if last := p.view.presented; last == nil || last.pair != of || last.outcome != refused {
		p.view.held = of
	}
}

// loginIsRequired: a caller is told to log in only if the session has ended. It is
// excused if the store changed a moment ago.
func (k *promise) loginIsRequired(p *process, q question, err error) {
	w := k.world
	now, last := w.store.current(), p.view.presented
	justNow := q.at.Add(-6 * w.luck.timeout)
	switch {
	case now == nil || now.pair == nil: // the session has ended
	case p.view.userCalls > 0, p.view.userCallsUntil.After(justNow), k.replaced.After(justNow), p.sleptSince(k.replaced):
	case last != nil && last.outcome == refused: // the process knows of the end and has not saved it yet
	default:
		w.breaks(p, "a caller of %v was told to log in, although the store has %v: %v", p, now, err)
	}
}

// stillRuns: after Close a process does nothing more. where is the step that it
// is about to make.
func (k *promise) stillRuns(p *process, where string) {
	k.world.mu.Lock()
	defer k.world.mu.Unlock()
	if p.view.closed && !p.view.closeFailed && !p.dead && where != "user" && where != "caller" {
		k.world.breaks(p, "%v still runs after Close: %s", p, where)
	}
}

// userDid is called when a login or a logout has returned. world.mu is held.
func (k *promise) userDid(p *process, what string, err error) {
	p.view.held = nil
	p.view.userCallsUntil = time.Now()
	if what == "logout" {
		k.replaced, k.byUser = time.Now(), time.Now()
	}
	endpoint, _ := errors.AsType[*fincodeauth.EndpointError](err)
	if what == "logout" && (err == nil || endpoint != nil) {
		for _, f := range k.world.fincode.families {
			if f.loggedOut && !f.cameBack {
				set(&p.view.loggedOut, f, true)
			}
		}
	}
}

// recovery returns how long a process may need after the last fault. After
// notExpired it must have a token that has not expired, or know that a login is
// needed: twice the timeout for a claim whose owner is gone, once for a call that
// was still on its way, a minute for a backoff, and some seconds in which an owner
// may save first. After accepted FinCode's API must accept its token: a revoked
// token may have to become old before a 401 refreshes it.
func (w *world) recovery() (notExpired, accepted time.Duration) {
	notExpired = 3*w.luck.timeout + time.Minute + 10*time.Second
	return notExpired, notExpired + w.luck.lifetime
}

// serves is called when a process has recovered, or when its time for that is
// over. It took that long, and limit is allowed.
func (k *promise) serves(p *process, what string, took, limit time.Duration, err error) {
	w := k.world
	w.mu.Lock()
	defer w.mu.Unlock()
	w.say(p, "%s after %v: %v", what, took, err)
	if took > limit {
		w.breaks(p, "%v: %s only %v after the last fault, and at most %v are allowed: %v", p, what, took, limit, err)
	}
}

// atEnd: a pair that reached a living process was stored, unless a login or a
// logout replaced the session, or other processes ended the session while the
// owner of the pair seemed dead. The pair in the store can be used.
func (k *promise) atEnd() {
	w := k.world
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, a := range k.arrivals {
		if a.pair.stored || a.pair.family.loggedOut || a.by.dead || a.by.view.closeFailed || !k.byUser.Before(a.since) {
			continue
		}
		if deadToOthers := a.by.sleptSince(a.since) || a.sent.failedSaves >= 3; deadToOthers && !k.replaced.Before(a.since) {
			continue // they ended the session
		}
		w.breaks(a.by, "%v reached %v and was never stored", a.pair, a.by)
	}
	k.fewRefreshes()
	if now := w.store.current(); now != nil && now.pair != nil && now.pair.used && !now.pair.explained() {
		w.breaks(w.store, "the store has %v, whose refresh token was used", now.pair)
	}
}

// fewRefreshes: there is at most one rotation for each lifetime (less the fifth by
// which a refresh may be early), takeover, 401 and login. A request that the
// network delivers twice and a thief add one each. There is no limit where clocks
// differ, because processes then disagree about what has expired.
func (k *promise) fewRefreshes() {
	w := k.world
	if w.luck.clocks > 0 || k.anyJumped() {
		return
	}
	forced := 0
	for _, p := range k.processes {
		forced += len(p.view.rejected)
	}
	lifetimes := int(time.Since(w.started)/(w.luck.lifetime*4/5-w.luck.timeout)) + 1
	if most := lifetimes + w.stats.Takeovers + forced + len(w.fincode.families) + w.stats.Faults[RequestTwice] + w.stats.Faults[Thief]; w.stats.Rotations > most {
		w.breaks(w.fincode, "FinCode made %d rotations, which is too many for %d lifetimes, %d takeovers and %d 401s",
			w.stats.Rotations, lifetimes, w.stats.Takeovers, forced)
	}
}

func set[K comparable, V any](m *map[K]V, k K, v V) {
	if *m == nil {
		*m = make(map[K]V)
	}
	(*m)[k] = v
}
