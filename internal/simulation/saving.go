package simulation

// Rules for concurrency. Those of promise.go: world.mu guards everything. A method
// that the world calls locks it, unless its comment says that world.mu is held. All
// other methods are helpers, which are called with world.mu held.

import (
	"time"

	"github.com/fincodeauth/fincodeauth"
)

// saved is called when the store has carried out a Save. old is what it replaced.
// late says that the caller has given up or is dead. world.mu is held.
func (k *promise) saved(old, v *version, rec *fincodeauth.Record, late bool) {
	if old != nil && old.claim && v.claim {
		k.claimsAgain(old, v)
	}
	if v.pair != nil {
		k.savesOwnTokens(v)
		k.replacesOlder(old, v)
		k.bringsBack(v)
		k.comesBack(old, v, late)
		v.pair.stored = time.Now()
	}
	if old != nil && old.pair != nil {
		if v.pair == nil && rec.Ended == "" {
			k.losesRefreshToken(old, v)
		}
		if rec.Ended == "logged out" {
			old.pair.family.loggedOut = true
		}
	}
	if rec.Ended == "logged out" {
		k.endsAll(v.by.account)
	}
	if a := v.by.account; old == nil || old.pair == nil || v.pair == nil || old.pair.family != v.pair.family {
		a.replaced = time.Now()
		if v.pair != nil || rec.Ended == "logged out" {
			a.byUser = time.Now()
		}
	}
}

// endsAll notes that the sessions of the account so far were logged out, also those that the
// store has lost.
func (k *promise) endsAll(a *account) {
	for _, f := range k.world.fincode.families {
		if f.account == a {
			f.wasLoggedOut = true
		}
	}
}

// savesOwnTokens: what is saved for an account has the tokens of that account.
func (k *promise) savesOwnTokens(v *version) {
	if owner := v.pair.family.account; owner != v.by.account {
		k.world.breaks(v.by, "%v saves %v of %s for %s", v.by, v.pair, owner.key, v.by.account.key)
	}
}

// replacesOlder: no older token replaces a newer one of the same session.
func (k *promise) replacesOlder(old, v *version) {
	if old != nil && old.pair != nil && old.pair.family == v.pair.family && v.pair.number < old.pair.number {
		k.world.breaks(v.by, "%v replaces %v with the older %v", v.by, old.pair, v.pair)
	}
}

// claimsAgain is called when a claim replaces another one: it is taken over, or its
// owner renews it.
func (k *promise) claimsAgain(old, v *version) {
	switch {
	case old.by != v.by:
		k.tookOver(old, v)
	case old.pair != nil && old.mayBeForgotten():
		old.pair.forgotten = true
	}
}

// tookOver: a claim is taken over only if it did not change for twice the timeout,
// and never while its owner is presenting the token, unless the owner slept or is
// dead.
func (k *promise) tookOver(old, v *version) {
	k.world.stats.Takeovers++
	v.by.account.takeovers++
	if stood := v.at.Sub(old.at); stood < 2*k.world.luck.timeout {
		k.world.breaks(v.by, "%v takes over the claim of %v after only %v", v.by, old.by, stood)
	}
	if old.pair == nil { // FinCode refused the token, and its process gave the record back without it
		return
	}
	old.pair.takenOver = true
	if old.by.dead || old.by.sleptSince(old.at) || v.by.account.isBehind(old.at) {
		return
	}
	for _, s := range old.pair.presented {
		if s.by == old.by && s.outcome == pending {
			k.world.breaks(v.by, "%v takes over the claim of %v, which is alive and presenting the token", v.by, old.by)
		}
	}
}

// mayBeForgotten reports whether the process that saved the claim may have forgotten
// it, and what FinCode said. It remembers that for an hour, even if other sessions
// need the room (docs/protocol.md, The numbers). The hour begins before the Save is
// carried out. But before the process takes its own claim over, it waits as for
// another process's claim.
func (v *version) mayBeForgotten() bool {
	l := v.by.machine.world.luck
	return l.inMemory > 0 && time.Since(v.at) > time.Hour-2*l.timeout
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
	case (late || v.pair.savedUnheard) && v.pair.number == 1 && (old == nil && !v.pair.stored.IsZero() || begins && fam.toldFinCode):
		fam.cameBack = true
	case fam.loggedOut, old == nil && v.pair.number > 1 && !fam.lost:
		k.world.breaks(v.by, "%v brings back %v, which was logged out", v.by, v.pair)
	}
}

// losesRefreshToken: a record loses its refresh token only if FinCode refused that
// token for a reason outside the package.
func (k *promise) losesRefreshToken(old, v *version) {
	if s := v.by.presented; s == nil || s.pair != old.pair || s.outcome != refused || !old.pair.explained() {
		k.world.breaks(v.by, "%v removes the refresh token from %v", v.by, old)
	}
}

// savesUnheard is called when a Save failed, unless it failed with a conflict. The
// process then does not know whether the store carried it out.
func (k *promise) savesUnheard(rec *fincodeauth.Record) {
	k.world.mu.Lock()
	defer k.world.mu.Unlock()
	if pair := k.world.fincode.pairs[rec.Token.RefreshToken]; pair != nil {
		pair.savedUnheard = pair.savedUnheard || !pair.stored.IsZero() && rec.RefreshStarted.IsZero()
	}
}

// cannotReachTheStore is called when a process got no answer from the store. If
// FinCode has refused the token, the process then may end the session without
// loading the record again: the Save of the end compares the version.
func (k *promise) cannotReachTheStore(v *view, what string) {
	k.world.mu.Lock()
	defer k.world.mu.Unlock()
	s := v.presented
	if s == nil {
		return
	}
	s.tooLate = false
	if what == "Save" && s.outcome == arrived {
		s.failedSaves++
	}
}
