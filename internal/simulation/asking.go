package simulation

// Rules for concurrency. Those of promise.go: world.mu guards everything. A method
// that the world calls locks it, unless its comment says that world.mu is held. All
// other methods are helpers, which are called with world.mu held.

import (
	"context"
	"errors"
	"time"

	"golang.org/x/oauth2"

	"github.com/fincodeauth/fincodeauth"
)

// A question is a caller's call for a token, and the state when it began.
type question struct {
	at    time.Time
	valid bool // the process has a good token in memory, and nothing is under way that changes it
	held  *pair
}

// callerAsks is called when a caller is about to ask for a token.
func (k *promise) callerAsks(v *view) question {
	w := k.world
	w.mu.Lock()
	defer w.mu.Unlock()
	q := question{at: time.Now(), held: v.held, valid: k.holdsGoodToken(v)}
	v.calls++
	return q
}

// holdsGoodToken reports whether the process has a good token in memory, and nothing
// is under way that changes it.
func (k *promise) holdsGoodToken(v *view) bool {
	now, l := v.account.current(), k.world.luck
	if v.held == nil || v.userCalls > 0 || v.leaving || v.mayBeDropped() || v.account.isBehind(v.heldAt) || v.held.family.latest != v.held ||
		now == nil || now.pair == nil || now.pair.family != v.held.family {
		return false
	}
	until := min(k.expiry(v.held, v).Sub(v.machine.wall()), v.installed.Add(l.lifetime).Sub(v.machine.wall()))
	return until > min(10*time.Second, l.lifetime/20)+time.Second
}

// callerGets is called when the caller has got a token or an error.
func (k *promise) callerGets(ctx context.Context, v *view, q question, waited time.Duration, tok *oauth2.Token, err error) {
	w := k.world
	w.mu.Lock()
	defer w.mu.Unlock()
	if v.dead {
		return
	}
	v.ends()
	w.stats.Calls++
	if waited > 0 {
		w.stats.Waits++
	}
	w.say(v, "a caller waited %v: %v", waited, err)
	if deadline, limited := ctx.Deadline(); limited && waited > deadline.Sub(q.at) {
		w.breaks(v, "a caller of %v waited %v, longer than its context allows", v, waited)
	}
	needsLogin := errors.Is(err, fincodeauth.ErrLoginRequired)
	if q.valid && waited > 0 && !needsLogin {
		w.breaks(v, "a caller of %v waited %v, although the process had %v, which is good", v, waited, q.held)
	}
	if needsLogin {
		k.loginIsRequired(v, q, err)
	}
	if err != nil {
		v.held = nil
		return
	}
	of := k.isGood(v, tok)
	if of != nil {
		v.gets(of)
	}
	if last := v.presented; of != nil && (last == nil || last.pair != of || last.outcome != refused) {
		v.held, v.heldAt = of, q.at.Add(waited)
	}
}

// isGood: a caller gets a token of its own account, which has not expired, and whose
// session was not logged out in this process. isGood returns the token's pair, or nil
// if there is none. A process keeps the last promise even if it has dropped the
// session: when a Logout returns without an error of the store, the store has it.
func (k *promise) isGood(v *view, tok *oauth2.Token) *pair {
	w := k.world
	of := w.fincode.access[tok.AccessToken]
	if of == nil {
		w.breaks(v, "a caller of %v got a token that does not exist", v)
		return nil
	}
	if of.family.account != v.account {
		w.breaks(v, "a caller of %v got %v of %s", v, of, of.family.account.key)
	}
	if v.loggedOut[of.family] && !of.family.cameBack && (v.account.lostAt.IsZero() || !v.account.mayBeUnknown(of.family, of.family.login.at)) {
		w.breaks(v, "a caller of %v got %v, which was logged out in that process", v, of)
	}
	if !tok.Expiry.IsZero() && v.machine.wall().After(tok.Expiry.Add(time.Second)) {
		w.breaks(v, "a caller of %v got %v, which has expired by the clock of that machine", v, of)
	}
	if time.Now().After(of.expires.Add(time.Second)) && !k.clockChanged(v, of) {
		w.breaks(v, "a caller of %v got %v, which has expired", v, of)
	}
	return of
}

// loginIsRequired: a caller is told to log in only if the session has ended. It is
// excused if the store changed a moment ago.
func (k *promise) loginIsRequired(v *view, q question, err error) {
	now, last := v.account.current(), v.presented
	justNow, replaced := q.at.Add(-6*k.world.luck.timeout), v.account.replaced
	switch {
	case now == nil || now.pair == nil: // the session has ended
		k.hasNoneLeft(v, q)
	case v.userCalls > 0, v.userCallsUntil.After(justNow), replaced.After(justNow), v.sleptSince(replaced):
	case last != nil && last.outcome == refused: // the process knows of the end and has not saved it yet
	default:
		k.world.breaks(v, "a caller of %v was told to log in, although the store has %v: %v", v, now, err)
	}
}

// userDid is called when a login or a logout has returned. world.mu is held.
func (k *promise) userDid(v *view, what string, err error) {
	v.held = nil
	v.userCallsUntil = time.Now()
	if what != "logout" {
		return
	}
	v.account.replaced, v.account.byUser = time.Now(), time.Now()
	if endpoint, _ := errors.AsType[*fincodeauth.EndpointError](err); err != nil && endpoint == nil {
		return
	}
	for _, f := range k.world.fincode.families {
		if f.account == v.account && f.loggedOut && !f.cameBack {
			set(&v.loggedOut, f, true)
		}
	}
}
