package simulation

// Rules for concurrency. Those of promise.go: world.mu guards everything. A method
// that the world calls locks it, unless its comment says that world.mu is held. All
// other methods are helpers, which are called with world.mu held.

import (
	"errors"
	"time"

	"github.com/fincodeauth/fincodeauth"
)

// observed is the Config.Observe of every process.
func (k *promise) observed(v *view, e fincodeauth.Event) {
	w := k.world
	w.mu.Lock()
	if v.dead {
		w.mu.Unlock()
		return
	}
	if e.Type == fincodeauth.StoreReverted { // its Err has names that are different each time
		w.say(v, "event %v", e.Type)
	} else {
		w.say(v, "event %v %v", e.Type, e.Err)
	}
	w.stats.Events[e.Type]++
	switch e.Type {
	case fincodeauth.Adopted:
		if now := v.account.current(); v.held != nil && v.mayBeDropped() && now != nil && now.pair == v.held {
			w.stats.Reloads++
		}
		v.installed = v.machine.wall()
	case fincodeauth.Refreshed, fincodeauth.LoggedIn:
		v.installed = v.machine.wall()
	case fincodeauth.StoreReverted:
		if v.account.lostAt.IsZero() {
			w.breaks(v, "%v says wrongly that the store has gone back: %v", v, e.Err)
		}
	}
	w.mu.Unlock()
	if e.Type == fincodeauth.Ended {
		k.ended(v, e.Err)
		k.testifies(v, e.Err)
	}
}

// credentialsAsked is called when the package calls Config.Credentials. It must not do that
// after a breach.
func (k *promise) credentialsAsked(v *view, cause error) {
	k.ended(v, cause)
	k.world.mu.Lock()
	defer k.world.mu.Unlock()
	if end, ok := errors.AsType[*fincodeauth.SessionError](cause); ok && end.Reused && !end.Interrupted {
		k.world.breaks(v, "%v asks for credentials after a breach", v)
	}
}

// ended: a session ends only for a reason outside the package. FinCode refused
// the token (it was revoked, stolen or delivered twice), an answer was lost, or a
// process died or slept between presenting and saving. Interrupted and Reused
// tell these reasons apart.
func (k *promise) ended(v *view, cause error) {
	w := k.world
	w.mu.Lock()
	defer w.mu.Unlock()
	if mine := v.lastClaim(); mine != nil && mine.pair == nil {
		return // another process presented the token and was refused
	}
	end, ok := errors.AsType[*fincodeauth.SessionError](cause)
	if !ok || v.presented == nil {
		w.breaks(v, "%v ends a session although it presented no token of it: %v", v, cause)
		return
	}
	of := v.presented.pair
	if v.presented.tooLate && v.account.lostAt.IsZero() {
		w.breaks(v, "%v ends the session of %v, although the store had something else by then: %v", v, of, cause)
	}
	if !of.explained() {
		w.breaks(v, "%v ends the session of %v, and nothing explains it: %v", v, of, cause)
	}
	overslept := v.presented.overslept && of.takenOver // the process does not know of the takeover
	if end.Interrupted != v.presented.interrupted && !of.family.cameBack && !overslept && !of.forgotten && !of.wasLost() {
		w.breaks(v, "%v says that Interrupted is %t at the end of %v, which is wrong", v, end.Interrupted, of)
	}
	if end.Reused != v.presented.reused {
		w.breaks(v, "%v says that Reused is %t at the end of %v, which is wrong", v, end.Reused, of)
	}
	switch {
	case end.Interrupted:
		w.stats.Interrupted++
	case end.Reused:
		w.stats.Breaches++
	}
}

// stillRuns: after Close a process does nothing more. where is the step that it
// is about to make.
func (k *promise) stillRuns(p *process, where string) {
	k.world.mu.Lock()
	defer k.world.mu.Unlock()
	if p.closed && !p.closeFailed && !p.dead && where != "user" && where != "caller" {
		k.world.breaks(p, "%v still runs after Close: %s", p, where)
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
func (k *promise) serves(v *view, what string, took, limit time.Duration, err error) {
	w := k.world
	w.mu.Lock()
	defer w.mu.Unlock()
	w.say(v, "%s after %v: %v", what, took, err)
	if took > limit {
		w.breaks(v, "%v: %s only %v after the last fault, and at most %v are allowed: %v", v, what, took, limit, err)
	}
}

// atEnd checks what must be true when all has ended.
func (k *promise) atEnd() {
	k.world.mu.Lock()
	defer k.world.mu.Unlock()
	for _, a := range k.world.accounts {
		k.areStored(a)
		k.fewRefreshes(a)
		if now := a.current(); now != nil && now.pair != nil && now.pair.used && !now.pair.explained() {
			k.world.breaks(k.world.store, "the store has %v, whose refresh token was used", now.pair)
		}
	}
}

// areStored: a pair that reached a living process was stored, unless a login or a
// logout replaced the session, or other processes ended the session while the
// owner of the pair seemed dead. The pair in the store can be used.
func (k *promise) areStored(of *account) {
	for _, a := range of.arrivals {
		if !a.pair.stored.IsZero() || a.pair.family.loggedOut || a.by.dead || a.by.closeFailed || !of.byUser.Before(a.since) {
			continue
		}
		if deadToOthers := a.by.sleptSince(a.since) || a.sent.failedSaves >= 3; deadToOthers && !of.replaced.Before(a.since) {
			continue // they ended the session
		}
		if !of.lostAt.IsZero() && of.hadAnother(a.pair.family, a.since) {
			continue // nobody can tell which of the two sessions is newer
		}
		k.world.breaks(a.by, "%v reached %v and was never stored", a.pair, a.by)
	}
}

// fewRefreshes: there is at most one rotation of an account for each lifetime (less
// the fifth by which a refresh may be early), takeover, 401 and login. A request that
// the network delivers twice and a thief add one each. There is no limit where clocks
// differ, because processes then disagree about what has expired. A session that was
// dropped and loaded again costs no rotation.
func (k *promise) fewRefreshes(a *account) {
	w := k.world
	if w.luck.clocks > 0 || k.anyJumped() {
		return
	}
	forced := 0
	for _, p := range k.processes {
		forced += len(p.view(a).rejected)
	}
	logins := 0
	for _, f := range w.fincode.families {
		if f.account == a {
			logins++
		}
	}
	lifetimes := int(time.Since(w.started)/(w.luck.lifetime*4/5-w.luck.timeout)) + 1
	if most := lifetimes + a.takeovers + forced + logins + a.twice + a.thefts; a.rotations > most {
		w.breaks(w.fincode, "FinCode made %d rotations for %s, which is too many for %d lifetimes, %d takeovers and %d 401s",
			a.rotations, a.key, lifetimes, a.takeovers, forced)
	}
}
