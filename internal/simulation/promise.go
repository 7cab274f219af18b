package simulation

import (
	"context"
	"errors"
	"net/http"
	"time"

	"golang.org/x/oauth2"

	"github.com/fincodeauth/fincodeauth"
)

// A promise is what must be true whatever happens. It knows everything, and is
// asked at every step.
type promise struct {
	world     *world
	processes []*process // all that ever ran
	arrivals  []*arrival
	replaced  time.Time // when a login, a logout or an end changed the store last
	byUser    time.Time // when a login or a logout did
}

// A history is what became of a pair, and of its refresh token.
type history struct {
	presented []*presentation
	usedBy    *presentation // that FinCode accepted; nil: none, or a thief's
	stored    bool          // it was in the store
	blind     bool          // it was, and whoever saved it was not told
	unheard   bool          // somebody presented it and does not know what became of that
	takenOver bool          // somebody's claim to present it was replaced by another's
	twice     bool          // the network delivered it twice
	stolen    bool
}

// A presentation is one process's attempt to use a refresh token.
type presentation struct {
	by      *process
	entered time.Time // the package cannot look again after that
	at      time.Time
	pair    *pair
	outcome outcome

	heard      time.Time     // when the outcome was known
	retryAfter time.Duration // as FinCode asked

	// interrupted: the outcome of an attempt before this one is unknown, or may
	// be, for its claim was taken over.
	interrupted bool

	overslept bool // see oversleeps, when the request left

	// superseded: a login or a logout was under way in the same process, which
	// drops the answer.
	superseded bool

	failedSaves int // of the process, since the answer arrived

	reused  bool // FinCode refused it with a 403
	tooLate bool // when it did, the store had another pair
}

type outcome int

const (
	pending outcome = iota // or whoever made it died
	arrived
	refused // FinCode's word
	notSent // surely not processed
	unknown
)

// An arrival is a new pair that reached a process.
type arrival struct {
	by    *process
	since time.Time // what replaced the session since then may win
	pair  *pair
	sent  *presentation // that it answers
}

// A view is what a process can know.
type view struct {
	closed, gaveUp bool
	users          int // who are logging in or out here
	usersSince     time.Time
	usersUntil     time.Time
	own            map[*pair]bool   // the pairs that it got from FinCode
	rejected       map[*pair]bool   // a call of this process with the access token was answered 401
	presented      *presentation    // last
	held           *pair            // that it handed out last
	installed      time.Time        // when it began to use a token, by its own wall clock
	out            map[*family]bool // logged out here
}

// sends is asked when a request leaves a process.
func (k *promise) sends(p *process, r *request, twice bool) *presentation {
	w := k.world
	w.mu.Lock()
	defer w.mu.Unlock()
	s := &presentation{by: p, entered: r.asked, at: time.Now()}
	if of := w.fincode.pairs[r.refresh]; r.op == "logout" && of != nil {
		of.family.saidBye = true
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
	s.interrupted = s.pair.unheard || s.pair.takenOver
	s.pair.presented = append(s.pair.presented, s)
	s.pair.twice = s.pair.twice || twice
	if fam := s.pair.family; !fam.loggedOut || fam.cameBack { // else it is for the logout
		p.view.presented = s
	}
	w.stats.Presentations++
	return s
}

// givesUp is asked when the time of a request had run out before it was sent:
// whoever made it cannot know that.
func (k *promise) givesUp(p *process, r *request) {
	k.world.mu.Lock()
	defer k.world.mu.Unlock()
	if pair := k.world.fincode.pairs[r.refresh]; r.op == "refresh-token" && pair != nil {
		pair.unheard = true
	}
}

// presentedBefore: a refresh token is presented again only after a takeover, or
// an unknown outcome of its first presentation.
func (k *promise) presentedBefore(s *presentation) {
	for _, before := range s.pair.presented {
		if before.outcome == unknown || before.outcome == notSent || before.by.dead || before.superseded || s.pair.takenOver {
			continue
		}
		k.world.breaks(s.by, "%v presents %v again, after %v did and %v", s.by, s.pair, before.by, before.outcome)
	}
}

func (o outcome) String() string {
	return [...]string{"has no answer yet", "got the answer", "was refused", "surely did not reach FinCode", "does not know what became of it"}[o]
}

// holdsTheClaim: whoever presents a token has claimed it in the store, and nobody
// has taken that claim over, unless its owner slept. A Logout presents a token
// without a claim: it has replaced the record, so that nobody else can claim it.
func (k *promise) holdsTheClaim(s *presentation) {
	claim := k.world.store.claimOf(s.by)
	owns := claim != nil && claim.pair == s.pair
	// Noted before the exception for a Logout: the process may have claimed the
	// token and slept, and another process may have logged out meanwhile.
	s.overslept = owns && s.oversleeps(claim)
	if s.pair.family.loggedOut {
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

// hasNoSuccessor: nobody presents a token whose successor is stored, unless it
// slept.
func (k *promise) hasNoSuccessor(s *presentation) {
	for _, next := range k.world.fincode.pairs {
		if next.family == s.pair.family && next.number > s.pair.number && next.stored && !s.overslept {
			k.world.breaks(s.by, "%v presents %v again, although its successor %v is in the store", s.by, s.pair, next)
		}
	}
}

// isDue: nobody refreshes a token that is far from its expiry and that the API
// did not reject.
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

// waited: a process that failed tries again after a second at the earliest, or
// when FinCode asked it to.
func (k *promise) waited(s *presentation) {
	last := s.by.view.presented
	if last == nil || last.pair != s.pair || last.outcome == pending || s.pair.family.loggedOut {
		return
	}
	if pause := s.at.Sub(last.heard); pause < max(time.Second, last.retryAfter)-time.Millisecond {
		k.world.breaks(s.by, "%v presents %v again after only %v", s.by, s.pair, pause)
	}
}

// clockChanged tells whether the process's wall clock differs from that by which
// the pair's expiry was noted.
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

// hears is asked when a process hears the answer to a request, or that there is
// none.
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
	s.superseded = p.view.users > 0 || p.view.usersUntil.After(s.at)
	if s.outcome == refused && r.op == "refresh-token" {
		p.view.held = nil // the session has ended, or is about to
		now := w.store.current()
		s.tooLate = now == nil || now.pair != s.pair
	}
	if r.op == "refresh-token" && s.outcome == unknown {
		s.pair.unheard = true
		w.stats.Unheard++
	}
	if s.outcome != arrived || a.issued == nil {
		return
	}
	set(&p.view.own, a.issued, true)
	now := w.store.current()
	if replaced := now == nil || now.pair == nil || now.pair.family != a.issued.family; r.op == "login" || !replaced {
		since := s.at
		if r.op == "login" { // the store was looked at before FinCode
			since = k.lookedAtTheStore(s)
		}
		k.arrivals = append(k.arrivals, &arrival{by: p, since: since, pair: a.issued, sent: s})
	}
}

// lookedAtTheStore is when a process that logs in may have done that last: not
// long before, unless a user logs in there, or it slept and cannot know that.
func (k *promise) lookedAtTheStore(s *presentation) time.Time {
	at, v := s.entered.Add(-k.world.luck.timeout), &s.by.view
	claim := k.world.store.claimOf(s.by)
	switch {
	case v.users > 0 && !v.usersSince.After(s.entered):
		return v.usersSince
	case v.users == 0 && claim != nil && s.oversleeps(claim) && claim.at.Before(at):
		return claim.at
	}
	return at
}

// oversleeps tells whether others may have taken the claim over by now, which who
// made s cannot know: it has been asleep since it handed the request over, or its
// wall clock was changed while it slept with the claim.
func (s *presentation) oversleeps(claim *version) bool {
	return s.by.sleptSince(s.entered) || s.by.sleptSince(claim.at) && s.by.machine.jumped.After(claim.at)
}

// cannotReachTheStore is asked when the store gave a process no answer: it ends
// a session all the same whose token was refused, and its Save compares.
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

// saved is asked when the store has carried out a Save; world.mu is held.
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
		k.givesUpRefreshing(old, v)
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

// savesUnheard is asked when a Save failed, other than by a conflict.
func (k *promise) savesUnheard(rec *fincodeauth.Record) {
	k.world.mu.Lock()
	defer k.world.mu.Unlock()
	if pair := k.world.fincode.pairs[rec.Token.RefreshToken]; pair != nil {
		pair.blind = pair.blind || pair.stored && rec.RefreshStarted.IsZero()
	}
}

// comesBack: no session that was logged out does, but for the first pair of a
// login, whose Save the store carried out too late, or again after it had done so
// without a word: where no record was, or over one that the login was to
// replace. It is dead at FinCode, or about to be.
func (k *promise) comesBack(old, v *version, late bool) {
	fam := v.pair.family
	begins := old == nil || old.pair == nil || old.pair.family != fam
	switch {
	case fam.cameBack:
	case (late || v.pair.blind) && v.pair.number == 1 && (old == nil && v.pair.stored || begins && fam.saidBye):
		fam.cameBack = true
	case fam.loggedOut, old == nil && v.pair.number > 1:
		k.world.breaks(v.by, "%v brings back %v, which was logged out", v.by, v.pair)
	}
}

// givesUpRefreshing: a record loses its refresh token only if FinCode refused that,
// and not because of the package.
func (k *promise) givesUpRefreshing(old, v *version) {
	if s := v.by.view.presented; s == nil || s.pair != old.pair || s.outcome != refused || !old.pair.explained() {
		k.world.breaks(v.by, "%v takes the refresh token out of %v", v.by, old)
	}
}

// tookOver: a claim is taken over only if it has stood still for twice the
// timeout, and never while its owner is presenting the token, unless that
// slept.
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

// observed is Config.Observe.
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

// asked is asked when Config.Credentials is: not after a breach.
func (k *promise) asked(p *process, cause error) {
	k.ended(p, cause)
	k.world.mu.Lock()
	defer k.world.mu.Unlock()
	if end, ok := errors.AsType[*fincodeauth.SessionError](cause); ok && end.Reused && !end.Interrupted {
		k.world.breaks(p, "%v asks for credentials after a breach", p)
	}
}

// ended: a session ends only if the server refused a token for a reason outside
// the package, or an answer was lost, or a process died or slept between
// presenting and saving; and Interrupted tells these apart.
func (k *promise) ended(p *process, cause error) {
	w := k.world
	w.mu.Lock()
	defer w.mu.Unlock()
	if mine := w.store.claimOf(p); mine != nil && mine.pair == nil {
		return // it was refused to another process
	}
	end, ok := errors.AsType[*fincodeauth.SessionError](cause)
	if !ok || p.view.presented == nil {
		w.breaks(p, "%v ends a session that it did not present a token of: %v", p, cause)
		return
	}
	of := p.view.presented.pair
	if p.view.presented.tooLate {
		w.breaks(p, "%v ends the session of %v, although something else had been saved before: %v", p, of, cause)
	}
	if !of.explained() {
		w.breaks(p, "%v ends the session of %v, and nothing explains it: %v", p, of, cause)
	}
	superseded := of.usedBy != nil && of.usedBy.superseded  // the claim that it left may have been taken over, by itself too
	overslept := p.view.presented.overslept && of.takenOver // and it does not know
	if end.Interrupted != p.view.presented.interrupted && !of.family.cameBack && !superseded && !overslept {
		w.breaks(p, "%v says of %v that Interrupted is %t, and it is not", p, of, end.Interrupted)
	}
	if end.Reused != p.view.presented.reused {
		w.breaks(p, "%v says of %v that Reused is %t, and it is not", p, of, end.Reused)
	}
	switch {
	case end.Interrupted:
		w.stats.Interrupted++
	case end.Reused:
		w.stats.Breaches++
	}
}

// explained tells whether something excuses that FinCode refuses the pair's
// refresh token.
func (p *pair) explained() bool {
	if p.family.outside || p.family.givenUp || p.family.cameBack || p.stolen || p.twice {
		return true
	}
	s := p.usedBy
	return s != nil && (s.outcome == unknown || s.by.dead || s.by.view.gaveUp || s.superseded || s.failedSaves >= 3 ||
		p.takenOver && s.by.sleptSince(s.at))
}

// A question is a caller's, as it stands when it is asked.
type question struct {
	at    time.Time
	valid bool // the process has a good token, and nothing under way that changes it
	held  *pair
}

// asks is asked when a caller asks for a token.
func (k *promise) asks(p *process) question {
	w := k.world
	w.mu.Lock()
	defer w.mu.Unlock()
	v := &p.view
	q := question{at: time.Now(), held: v.held}
	if now := w.store.current(); v.held == nil || v.users > 0 || p.leaving || v.held.family.latest != v.held ||
		now == nil || now.pair == nil || now.pair.family != v.held.family {
		return q
	}
	until := min(k.expiry(v.held, p).Sub(p.machine.wall()), v.installed.Add(w.luck.lifetime).Sub(p.machine.wall()))
	q.valid = until > min(10*time.Second, w.luck.lifetime/20)+time.Second
	return q
}

// expiry is the least that the process can have noted as the pair's, by its wall
// clock.
func (k *promise) expiry(of *pair, p *process) time.Time {
	if k.clockChanged(p, of) {
		return time.Time{}
	}
	return of.asked.Add(k.world.luck.lifetime + time.Duration(p.machine.wrong.Load()))
}

// gets is asked when the caller has got one, or not.
func (k *promise) gets(ctx context.Context, p *process, q question, waited time.Duration, tok *oauth2.Token, err error) {
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
		w.breaks(p, "a caller of %v waited for %v, longer than its context", p, waited)
	}
	if q.valid && waited > 0 && !errors.Is(err, fincodeauth.ErrLoginRequired) {
		w.breaks(p, "a caller of %v waited for %v, although it had %v, which is good", p, waited, q.held)
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
	if p.view.out[of.family] && !of.family.cameBack {
		w.breaks(p, "a caller of %v got %v, which was logged out there", p, of)
	}
	if !tok.Expiry.IsZero() && p.machine.wall().After(tok.Expiry.Add(time.Second)) {
		w.breaks(p, "a caller of %v got %v, which has expired by its own clock", p, of)
	}
	if time.Now().After(of.expires.Add(time.Second)) && !k.clockChanged(p, of) {
		w.breaks(p, "a caller of %v got %v, which has expired", p, of)
	}
	if last := p.view.presented; last == nil || last.pair != of || last.outcome != refused {
		p.view.held = of
	}
}

// loginIsRequired: nobody is told to log in who is logged in, unless that came to
// be only just now.
func (k *promise) loginIsRequired(p *process, q question, err error) {
	w := k.world
	now, last := w.store.current(), p.view.presented
	justNow := q.at.Add(-6 * w.luck.timeout)
	switch {
	case now == nil || now.pair == nil: // it is true
	case p.view.users > 0, p.view.usersUntil.After(justNow), k.replaced.After(justNow), p.sleptSince(k.replaced):
	case last != nil && last.outcome == refused: // it found out itself, and has yet to save it
	default:
		w.breaks(p, "a caller of %v was told to log in, although the store has %v: %v", p, now, err)
	}
}

// stillRuns: after Close a process calls nobody.
func (k *promise) stillRuns(p *process, where string) {
	k.world.mu.Lock()
	defer k.world.mu.Unlock()
	if p.view.closed && !p.view.gaveUp && !p.dead && where != "user" && where != "caller" {
		k.world.breaks(p, "%v goes on after Close: %s", p, where)
	}
}

// userDid is asked when a login or a logout has returned; world.mu is held.
func (k *promise) userDid(p *process, what string, err error) {
	p.view.held = nil
	p.view.usersUntil = time.Now()
	if what == "logout" {
		k.replaced, k.byUser = time.Now(), time.Now()
	}
	endpoint, _ := errors.AsType[*fincodeauth.EndpointError](err)
	if what == "logout" && (err == nil || endpoint != nil) {
		for _, f := range k.world.fincode.families {
			if f.loggedOut && !f.cameBack {
				set(&p.view.out, f, true)
			}
		}
	}
}

// recovery is how long it may take, after the last fault, until a process has a
// token that has not expired, or knows that a login is needed: twice the timeout
// for a claim whose owner is gone, once for what was still on its way, a minute
// for a backoff, and some seconds for waiting to let an owner save. A token that
// was revoked, or whose like was rejected, may have to become old before it is
// refreshed for a 401.
func (w *world) recovery() (notExpired, accepted time.Duration) {
	notExpired = 3*w.luck.timeout + time.Minute + 10*time.Second
	return notExpired, notExpired + w.luck.lifetime
}

// serves is asked when a process has recovered.
func (k *promise) serves(p *process, what string, took, limit time.Duration, err error) {
	w := k.world
	w.mu.Lock()
	defer w.mu.Unlock()
	w.say(p, "%s after %v: %v", what, took, err)
	if took > limit {
		w.breaks(p, "%v: %s only %v after the last fault, at most %v are allowed: %v", p, what, took, limit, err)
	}
}

// atEnd: a pair that reached a living process was stored, unless a login or a
// logout replaced it, or others ended the session while its owner seemed dead;
// and what the store has can be used.
func (k *promise) atEnd() {
	w := k.world
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, a := range k.arrivals {
		if a.pair.stored || a.pair.family.loggedOut || a.by.dead || a.by.view.gaveUp || !k.byUser.Before(a.since) {
			continue
		}
		if deadToOthers := a.by.sleptSince(a.since) || a.sent.failedSaves >= 3; deadToOthers && !k.replaced.Before(a.since) {
			continue // who ended the session
		}
		w.breaks(a.by, "%v reached %v and was never stored", a.pair, a.by)
	}
	k.fewRefreshes()
	if now := w.store.current(); now != nil && now.pair != nil && now.pair.used && !now.pair.explained() {
		w.breaks(w.store, "the store has %v, which is used up", now.pair)
	}
}

// fewRefreshes: there is at most one for a lifetime (less the fifth by which it
// may be early), a takeover, a rejection, and a login. Where clocks differ,
// processes disagree about what has expired.
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
		w.breaks(w.fincode, "FinCode made %d rotations; %d lifetimes, %d takeovers and %d rejections do not explain it",
			w.stats.Rotations, lifetimes, w.stats.Takeovers, forced)
	}
}

func set[K comparable, V any](m *map[K]V, k K, v V) {
	if *m == nil {
		*m = make(map[K]V)
	}
	(*m)[k] = v
}
