package torture

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/fincodeauth/fincodeauth"
)

// A run is a ledger, put in order by who did what to which session.
type run struct {
	refreshTimeout time.Duration
	entries        []Entry

	saves     map[string][]*save         // by key, those that were too late among them
	version   map[string]*save           // by version, the last attempt at it
	claims    map[string][]*save         // by token, without those that were too late
	presented map[string][]*presentation // by token
	key       map[string]string          // by token
	killed    map[string]time.Time       // by process
	closed    map[string]bool            // by process: it was told to end in the middle of a refresh
	cuts      []time.Time
	failures  []Entry // of requests
}

// A save is an attempt to save a claim, a token, or an end.
type save struct {
	Entry            // as it began
	done   time.Time // zero: its process was killed first
	result string    // "": it succeeded
	seen   bool      // somebody found it in the store
}

// A presentation is one of a refresh token at FinCode.
type presentation struct {
	Entry
	status string // of the answer; "": there was none
}

// A breach is a promise that was broken.
type breach struct {
	at        time.Time
	key, text string
}

func newRun(entries []Entry, refreshTimeout time.Duration) *run {
	r := &run{
		refreshTimeout: refreshTimeout,
		entries:        entries,
		saves:          make(map[string][]*save),
		version:        make(map[string]*save),
		claims:         make(map[string][]*save),
		presented:      make(map[string][]*presentation),
		key:            make(map[string]string),
		killed:         make(map[string]time.Time),
		closed:         make(map[string]bool),
	}
	for _, e := range entries {
		r.take(e)
	}
	for token, claims := range r.claims {
		r.claims[token] = slices.DeleteFunc(claims, (*save).tooLate)
	}
	return r
}

func (r *run) take(e Entry) {
	switch e.Did {
	case Claiming, Saving, Ending:
		s := &save{Entry: e}
		r.saves[e.Key] = append(r.saves[e.Key], s)
		r.version[e.Version] = s
		if prev := r.version[e.Prev]; prev != nil {
			prev.seen = true
		}
		if e.Did == Claiming {
			r.claims[e.Token] = append(r.claims[e.Token], s)
		}
		if e.Did != Ending {
			r.key[e.Token] = e.Key
		}
	case Saved:
		if s := r.version[e.Version]; s != nil {
			s.done, s.result = e.At, e.Result
		}
	case Presented:
		r.presented[e.Token] = append(r.presented[e.Token], &presentation{Entry: e})
	case Answered:
		for _, p := range r.presented[e.Token] {
			if p.By == e.By && p.status == "" {
				p.status = e.Result
			}
		}
	case Killed:
		r.killed[e.By] = e.At
	case Observed:
		if strings.HasSuffix(e.Result, fincodeauth.ErrClosed.Error()) {
			r.closed[e.By] = true
		}
	case Cut:
		r.cuts = append(r.cuts, e.At)
	case Failed:
		r.failures = append(r.failures, e)
	}
}

func (s *save) tooLate() bool { return s.result == conflict }

// landed tells whether s is known to have been in the store.
func (s *save) landed() bool { return s.seen || !s.done.IsZero() && s.result == "" }

// failed tells whether the store refused to say what became of s.
func (s *save) failed() bool { return !s.done.IsZero() && s.result != "" && s.result != conflict }

// givenBack tells whether next gives the claim s back: it saves the same token.
func (s *save) givenBack(next *save) bool { return next.Token == s.Token }

// end is when s was surely in the store, or at the latest then.
func (s *save) end() time.Time {
	if s.done.IsZero() {
		return s.At
	}
	return s.done
}

// broken returns the promises that were broken, session by session.
func (r *run) broken() []breach {
	var all []breach
	for _, check := range []func() []breach{r.presentedTwice, r.endedForNothing, r.lostForNothing, r.cost, r.failedForNothing} {
		all = append(all, check()...)
	}
	slices.SortStableFunc(all, func(a, b breach) int { return cmp.Or(cmp.Compare(a.key, b.key), a.at.Compare(b.at)) })
	return all
}

// presentedTwice finds refresh tokens that were presented without a claim, or
// again other than by a takeover: by another process, the one before having
// been killed without a trace of what it got, and not before its claim had stood
// still for twice RefreshTimeout. The claim's age is counted from the moment its
// save began, when nobody can have seen it yet.
func (r *run) presentedTwice() (found []breach) {
	for token, all := range r.presented {
		for i, p := range all {
			broken := func(format string, args ...any) {
				found = append(found, breach{p.At, r.key[token], p.By + " presented " + token + " " + fmt.Sprintf(format, args...)})
			}
			if r.claimOf(p) == nil {
				broken("without a claim")
			}
			if i == 0 {
				continue
			}
			before := all[i-1]
			claim := r.claimOf(before)
			killed, wasKilled := r.killed[before.By]
			switch {
			case !wasKilled || killed.After(p.At):
				broken("after %s, which was alive", before.By)
			case claim == nil:
			case p.At.Before(claim.At.Add(2 * r.refreshTimeout)):
				broken("%v after the claim of %s, which may be taken over after %v", p.At.Sub(claim.At), before.By, 2*r.refreshTimeout)
			case nextLanded(r.successors(claim)) != nil:
				broken("after %s, which had saved its successor", before.By)
			}
		}
	}
	return found
}

// endedForNothing finds sessions that ended other than as Interrupted, by a kill
// between the claim of a process and its save of the successor.
func (r *run) endedForNothing() (found []breach) {
	for _, end := range r.ends() {
		if text := r.whyEnded(end); text == "" {
			found = append(found, breach{end.At, end.Key, fmt.Sprintf("%s ended the session (%s) that no kill explains", end.By, end.Result)})
		} else if !strings.HasPrefix(end.Result, "refresh token reused after an interruption") {
			found = append(found, breach{end.At, end.Key, fmt.Sprintf("%s ended the session as %q, but %s", end.By, end.Result, text)})
		}
	}
	return found
}

// ends returns the saves that ended sessions.
func (r *run) ends() (ends []*save) {
	for _, saves := range r.saves {
		for _, s := range saves {
			if s.Did == Ending && s.landed() {
				ends = append(ends, s)
			}
		}
	}
	slices.SortFunc(ends, func(a, b *save) int { return a.At.Compare(b.At) })
	return ends
}

// whyEnded says which kill cost the session that end ended; "": none did.
func (r *run) whyEnded(end *save) string {
	claim := r.version[end.Prev]
	if claim == nil {
		return ""
	}
	for _, p := range r.presented[claim.Token] {
		first := r.claimOf(p)
		killed, wasKilled := r.killed[p.By]
		if first == nil || !wasKilled || killed.After(end.At) || nextLanded(r.successors(first)) != nil {
			continue
		}
		// The time from the claim on: what it sent may arrive when it is dead.
		return fmt.Sprintf("%s was killed %v after it claimed the token, which it presented, and %s was refused it %v later",
			p.By, killed.Sub(first.At).Round(time.Millisecond), end.By, end.At.Sub(killed).Round(time.Millisecond))
	}
	return ""
}

// lostForNothing finds requests that failed without an excuse.
func (r *run) lostForNothing() (found []breach) {
	for _, f := range r.failures {
		if excuse, ok := r.excuse(f); !ok {
			found = append(found, breach{f.At, f.Key, fmt.Sprintf("%s lost a request although %s: %s", f.By, excuse, f.Result)})
		}
	}
	return found
}

// excuse says why the request f failed, and whether that is an excuse. There must
// have been no token that was valid all the while: for the session had ended, or
// the claim of a killed process stood in the way, or the store failed, which
// failedForNothing judges.
func (r *run) excuse(f Entry) (string, bool) {
	switch {
	case r.hadToken(f):
		return "there was a valid token", false
	case r.hadEnded(f):
		return "the session had ended", true
	case r.stoodStill(f):
		return "the owner of the claim had been killed", true
	case r.storeFailed(f):
		return "the store failed or was slow", true
	}
	return "nothing explains it", false
}

// storeFailed tells whether, during the request f, the store failed its process
// over the session, or took half a token's life for a save. The request may have
// joined a refresh that had failed already but not said so.
func (r *run) storeFailed(f Entry) bool {
	if slices.ContainsFunc(r.saves[f.Key], func(s *save) bool {
		slow := s.By == f.By && s.done.Sub(s.At) > lifetime/2
		return slow && s.At.Before(f.At) && s.done.After(f.Began)
	}) {
		return true
	}
	failing := false
	for _, e := range r.entries {
		if e.By != f.By || e.Key != f.Key || e.At.After(f.At) {
			continue
		}
		if storeFailure(e) {
			failing = true
		} else if e.Did == Observed && !strings.HasPrefix(e.Result, fincodeauth.SaveFailed.String()) && e.At.Before(f.Began) {
			failing = false
		}
	}
	return failing
}

// storeFailure tells whether e is a call to the store without an answer.
func storeFailure(e Entry) bool {
	return e.Did == LoadFailed || e.Did == Saved && e.Result != "" && e.Result != conflict
}

// hadToken tells whether a token was in the store before the request f began
// that was valid until after it failed.
func (r *run) hadToken(f Entry) bool {
	return slices.ContainsFunc(r.saves[f.Key], func(s *save) bool {
		return s.Did == Saving && s.landed() && s.end().Before(f.Began) && s.Expiry.Add(-lifetime/10).After(f.At)
	})
}

// hadEnded tells whether the session had ended before the request f failed, and
// not begun again before f did.
func (r *run) hadEnded(f Entry) bool {
	for i, s := range r.saves[f.Key] {
		if s.Did != Ending || s.tooLate() || s.At.After(f.At) {
			continue
		}
		if next := nextLanded(r.saves[f.Key][i+1:]); next == nil || !next.end().Before(f.Began) {
			return true
		}
	}
	return false
}

// stoodStill tells whether the claim of a process that had been killed was in
// the store while the request f waited.
func (r *run) stoodStill(f Entry) bool {
	for i, s := range r.saves[f.Key] {
		killed, wasKilled := r.killed[s.By]
		if s.Did != Claiming || s.tooLate() || !wasKilled || killed.After(f.At) {
			continue
		}
		next := nextLanded(r.saves[f.Key][i+1:])
		if next == nil || next.end().After(killed) && next.end().After(f.Began) {
			return true
		}
	}
	return false
}

// cost finds rotations that cost other than one claim and one save, although
// nothing disturbed them: no process was killed, or closed so that it gave its
// claim back, nor did the store fail or take so long that the claim had to be
// renewed.
func (r *run) cost() (found []breach) {
	for token, all := range r.presented {
		for _, p := range all {
			claim := r.claimOf(p)
			if p.status != "200" || claim == nil {
				continue
			}
			claims, saves := len(r.claims[token]), len(r.successors(claim))
			if (claims != 1 || saves != 1) && !r.disturbed(token) {
				found = append(found, breach{p.At, r.key[token],
					fmt.Sprintf("%s rotated %s, which cost %d claims and %d saves", p.By, token, claims, saves)})
			}
		}
	}
	return found
}

// disturbed tells whether the rotation of token met with a kill, with a Close, or
// with a store that failed or was slow.
func (r *run) disturbed(token string) bool {
	return slices.ContainsFunc(r.claims[token], func(claim *save) bool {
		attempts := r.successors(claim)
		_, wasKilled := r.killed[claim.By]
		return claim.failed() || claim.done.Sub(claim.At) > r.refreshTimeout/2 ||
			slices.ContainsFunc(attempts, (*save).failed) ||
			r.closed[claim.By] && slices.ContainsFunc(attempts, claim.givenBack) ||
			wasKilled && (len(attempts) == 0 || attempts[0].done.IsZero())
	})
}

// failedForNothing finds what must never happen, and failures of the store
// without a reason: it ran out of time, or the supervisor had cut connections.
func (r *run) failedForNothing() (found []breach) {
	for _, e := range r.entries {
		broken := e.Did == Broke || e.Did == Vanished
		if storeFailure(e) {
			cut := len(r.cuts) > 0 && r.cuts[0].Before(e.At)
			broken = !cut && !e.Late
		}
		if broken {
			found = append(found, breach{e.At, e.Key, fmt.Sprintf("%s %s: %s", e.By, e.Did, e.Result)})
		}
	}
	return found
}

// rotations is how often FinCode rotated a token and said so.
func (r *run) rotations() (n int) {
	for _, all := range r.presented {
		for _, p := range all {
			if p.status == "200" {
				n++
			}
		}
	}
	return n
}

// claimOf returns the claim under which p was made, or nil.
func (r *run) claimOf(p *presentation) (claim *save) {
	for _, c := range r.claims[p.Token] {
		if c.By == p.By && c.At.Before(p.At) {
			claim = c
		}
	}
	return claim
}

// successors returns the attempts to save a token over claim.
func (r *run) successors(claim *save) (attempts []*save) {
	for _, s := range r.saves[claim.Key] {
		if s.Did == Saving && s.Prev == claim.Version {
			attempts = append(attempts, s)
		}
	}
	return attempts
}

// tookOver tells whether the claim c followed that of another process.
func (r *run) tookOver(c *save) bool {
	claims := r.claims[c.Token]
	i := slices.Index(claims, c)
	return i > 0 && claims[i-1].By != c.By
}

// nextLanded returns the first of saves that landed, or nil.
func nextLanded(saves []*save) *save {
	if i := slices.IndexFunc(saves, (*save).landed); i >= 0 {
		return saves[i]
	}
	return nil
}
