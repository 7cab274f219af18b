package simulation

// Rules for concurrency. Those of promise.go: world.mu guards everything. A method
// that the world calls locks it, unless its comment says that world.mu is held. All
// other methods are helpers, which are called with world.mu held.

// A store may go back to an earlier state, or to none. Then it has no order any more
// in which somebody could read what happened. So what is promised for a session that
// the store has lost something of depends on what each process knows.

import (
	"context"
	"strings"
	"time"

	"github.com/fincodeauth/fincodeauth"
)

// A past is what the store had of an account from a time on.
type past struct {
	since  time.Time
	record *fincodeauth.Record // nil: none
}

// goesBack sets the store back to what it had at a time. The store goes on from
// there. world.mu is held.
func (s *store) goesBack(to time.Time) {
	for _, a := range s.world.accounts {
		var then *fincodeauth.Record
		for _, p := range a.pasts {
			if p.since.Before(to) {
				then = p.record
			}
		}
		if versionOf(a.record) != versionOf(then) {
			s.loses(a, then)
		}
	}
}

// loses sets the account's record back to an earlier one; nil: none. world.mu is held.
func (s *store) loses(a *account, then *fincodeauth.Record) {
	before, was := a.current(), a.record
	a.put(then)
	s.world.say(s, "GOES BACK from %v to %v", before, a.current())
	a.lostAt, a.replaced = time.Now(), time.Now()
	if then != nil && (was == nil || sessionOf(was) != sessionOf(then)) {
		a.otherAt = time.Now()
	}
	for _, f := range s.world.fincode.families {
		if f.account == a {
			f.lost, f.loggedOut = true, false
		}
	}
}

// losesLast sets the store back to before its last changes, at most n. world.mu is held.
func (s *store) losesLast(n int) {
	if n = min(n, len(s.changes)); n > 0 {
		s.goesBack(s.changes[len(s.changes)-n])
	}
}

// put replaces the record, and notes that for the day on which the store goes back.
// world.mu is held.
func (a *account) put(rec *fincodeauth.Record) {
	a.record = rec
	a.pasts = append(a.pasts, past{time.Now(), rec})
	a.world.store.changes = append(a.world.store.changes, time.Now())
}

func versionOf(rec *fincodeauth.Record) string {
	if rec == nil {
		return ""
	}
	return rec.Version
}

// sessionOf returns the part of the version that names the session.
func sessionOf(rec *fincodeauth.Record) string {
	session, _, _ := strings.Cut(rec.Version, ".")
	return session
}

// gets notes that the process has a pair: FinCode or the store has given it. From then on,
// the process knows that the refresh tokens of earlier pairs were used. world.mu is held.
func (v *view) gets(of *pair) {
	if _, ok := v.got[of]; !ok {
		set(&v.got, of, time.Now())
	}
}

// knowsSpent: a process never presents a refresh token if it has a later pair of the
// session, whatever the store has. There is one exception: the process slept after it
// handed the request over.
func (k *promise) knowsSpent(s *presentation) {
	v := s.by
	if s.overslept {
		return
	}
	for of, at := range v.got {
		if v.account.mayBeUnknown(s.pair.family, at) {
			continue
		}
		if of.family == s.pair.family && of.number > s.pair.number && at.Before(s.entered) {
			k.world.breaks(v, "%v presents %v, although it has %v", v, s.pair, of)
		}
	}
}

// mayBeUnknown reports whether a process may not know any more what it knew of the session
// at a time. It may have dropped the session from memory. Or the store went back, and had
// another session after that time: nobody can tell which of the two is newer.
func (a *account) mayBeUnknown(session *family, at time.Time) bool {
	return a.world.luck.inMemory > 0 || a.isBehind(at) && a.hadAnother(session, at)
}

// hadAnother reports whether the store had another session after that time.
func (a *account) hadAnother(session *family, after time.Time) bool {
	if a.otherAt.After(after) {
		return true
	}
	for _, v := range a.versions {
		if v.at.After(after) && v.pair != nil && v.pair.family != session {
			return true
		}
	}
	return false
}

// bringsBack: a process does not save the tokens of a session that it has logged out.
func (k *promise) bringsBack(v *version) {
	if fam := v.pair.family; v.by.loggedOut[fam] && !v.by.account.mayBeUnknown(fam, fam.login.at) {
		k.world.breaks(v.by, "%v brings back %v, which was logged out there", v.by, v.pair)
	}
}

// hasNoneLeft: a process whose store was emptied, or has the end of an older pair, does not
// tell its callers to log in if it had a good pair when they asked.
func (k *promise) hasNoneLeft(v *view, q question) {
	if v.account.lostAt.IsZero() || v.userCalls > 0 || v.userCallsUntil.After(q.at) || v.sleptSince(q.at) {
		return
	}
	for of, at := range v.got {
		if !k.isUsable(of) || of.family.wasLoggedOut || !at.Before(q.at) || v.account.mayBeUnknown(of.family, at) {
			continue
		}
		if !v.account.hadAnother(of.family, of.family.login.at) { // otherwise that one may be newer
			k.world.breaks(v, "a caller of %v was told to log in, although it has %v, which FinCode accepts", v, of)
		}
	}
}

// isUsable reports whether FinCode accepts the pair's refresh token.
func (k *promise) isUsable(of *pair) bool { return !of.used && !of.family.revoked }

// isBehind reports whether the store may have lost what happened at a time: it went back
// later.
func (a *account) isBehind(at time.Time) bool { return !a.lostAt.Before(at) && !a.lostAt.IsZero() }

// isLoggedOutAfterALoss reports whether the store says that the session was logged out, and
// went back before that. Whoever has a token of the session then presents it to have it
// revoked.
func (a *account) isLoggedOutAfterALoss() bool {
	return !a.lostAt.IsZero() && a.record != nil && a.record.Ended == "logged out"
}

// wasLost reports whether FinCode may refuse the pair because the store has lost its
// successor.
func (p *pair) wasLost() bool { return p.family.lost }

// keepsTheNewest asks every living process for its token, when the bad time is over. No
// session may have ended while a process has its newest pair: the store has that pair, or
// a later one.
func (w *world) keepsTheNewest() {
	w.everyView(func(v *view) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		v.begin()
		defer v.end()
		tok, err := v.sessions.TokenSource(v.account.key).TokenContext(ctx)
		if err != nil {
			return // probe has asked whether that is right
		}
		time.Sleep(10 * time.Second) // until the process has saved it
		w.mu.Lock()
		defer w.mu.Unlock()
		w.promise.isNewest(v, w.fincode.access[tok.AccessToken])
	})
}

// isNewest checks that the store has the pair of a process, or a later one.
func (k *promise) isNewest(v *view, of *pair) {
	if of == nil || !k.isUsable(of) || of.family.wasLoggedOut {
		return
	}
	now := v.account.current()
	if now == nil || now.pair == nil || now.pair.family == of.family && now.pair.number < of.number {
		k.world.breaks(v, "%v has %v, which FinCode accepts, and the store has %v", v, of, now)
	}
}
