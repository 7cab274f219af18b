package torture

// No concurrency: one goroutine checks the ledger, after everything has ended.

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/fincodeauth/fincodeauth"
)

// A run is a ledger, with its entries sorted by session, token and process. All
// lists are in the order of time.
type run struct {
	refreshTimeout time.Duration
	entries        []Entry

	saves     map[string][]*save         // by key, with the Saves that were too late
	version   map[string]*save           // by version, the last attempt to save it
	claims    map[string][]*save         // by token, without the Saves that were too late
	presented map[string][]*presentation // by token
	key       map[string]string          // by token
	killed    map[string]time.Time       // by process
	closed    map[string]bool            // by process: it was closed in the middle of a refresh
	cuts      []time.Time
	failures  []Entry // requests that failed
}

// A save is an attempt to save a claim, a token, or the end of a session.
type save struct {
	Entry            // when the Save began
	done   time.Time // when it returned; zero: its process was killed first
	result string    // "": it succeeded
	seen   bool      // a later Save names it as the version before: it was in the store
}

// A presentation is a process's attempt to use a refresh token at FinCode.
type presentation struct {
	Entry
	status string // the HTTP status of the answer; "": there was none
}

// A breach is a promise that was broken. key is the session; "": none.
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
		r.add(e)
	}
	for token, claims := range r.claims {
		r.claims[token] = slices.DeleteFunc(claims, (*save).tooLate)
	}
	return r
}

// add sorts in one entry. Entries must come in the order of time.
func (r *run) add(e Entry) {
	switch e.Did {
	case Claiming, Saving, Ending:
		r.addSave(&save{Entry: e})
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

// addSave sorts in a Save that begins.
func (r *run) addSave(s *save) {
	r.saves[s.Key] = append(r.saves[s.Key], s)
	r.version[s.Version] = s
	if prev := r.version[s.Prev]; prev != nil {
		prev.seen = true
	}
	if s.Did == Claiming {
		r.claims[s.Token] = append(r.claims[s.Token], s)
	}
	if s.Did != Ending {
		r.key[s.Token] = s.Key
	}
}

// tooLate reports whether another Save came first: the store answered with a
// conflict.
func (s *save) tooLate() bool { return s.result == conflict }

// landed reports whether s is known to have been in the store.
func (s *save) landed() bool { return s.seen || !s.done.IsZero() && s.result == "" }

// failed reports whether the store answered with an error, so that it is not known
// whether it carried out s.
func (s *save) failed() bool { return !s.done.IsZero() && s.result != "" && s.result != conflict }

// isReleasedBy reports whether next releases the claim s: it saves the same token
// without a claim.
func (s *save) isReleasedBy(next *save) bool { return next.Token == s.Token }

// end returns when s returned. If its process was killed first, it returns when s
// began.
func (s *save) end() time.Time {
	if s.done.IsZero() {
		return s.At
	}
	return s.done
}

// broken returns the promises that were broken, by session and time.
func (r *run) broken() []breach {
	var all []breach
	for _, check := range []func() []breach{r.presentedTwice, r.endedWithoutReason, r.failedWithoutExcuse, r.cost, r.disturbedWithoutReason} {
		all = append(all, check()...)
	}
	slices.SortStableFunc(all, func(a, b breach) int { return cmp.Or(cmp.Compare(a.key, b.key), a.at.Compare(b.at)) })
	return all
}

// presentedTwice finds refresh tokens that were presented without a claim, or
// presented again without a right to that.
//
// A token may be presented again only after a takeover. The process that presented
// it before must have been killed, and must not have saved a successor. Its claim
// must not have changed for twice RefreshTimeout. This time is counted from the
// moment when the Save of the claim began, because nobody can have seen the claim
// before that.
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
				broken("again after %s, which was alive", before.By)
			case claim == nil:
			case p.At.Before(claim.At.Add(2 * r.refreshTimeout)):
				broken("again %v after the claim of %s, which may be taken over after %v", p.At.Sub(claim.At), before.By, 2*r.refreshTimeout)
			case nextLanded(r.successors(claim)) != nil:
				broken("again after %s, which had saved its successor", before.By)
			}
		}
	}
	return found
}

// endedWithoutReason finds sessions that ended although no process was killed
// between its claim and the Save of the successor, and sessions that ended for
// that reason but not as Interrupted.
func (r *run) endedWithoutReason() (found []breach) {
	for _, end := range r.ends() {
		if text := r.whyEnded(end); text == "" {
			found = append(found, breach{end.At, end.Key, fmt.Sprintf("%s ended the session (%s), and no kill explains that", end.By, end.Result)})
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

// whyEnded says which kill explains the end of a session. It returns "" if no kill
// does.
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
		// The time is counted from the claim, because a presentation may arrive
		// after its process was killed.
		return fmt.Sprintf("%s claimed and presented the token, and was killed %v after the claim; FinCode refused the token to %s %v later",
			p.By, killed.Sub(first.At).Round(time.Millisecond), end.By, end.At.Sub(killed).Round(time.Millisecond))
	}
	return ""
}

// failedWithoutExcuse finds requests that failed without an excuse.
func (r *run) failedWithoutExcuse() (found []breach) {
	for _, f := range r.failures {
		if excuse, ok := r.excuse(f); !ok {
			found = append(found, breach{f.At, f.Key, fmt.Sprintf("a request of %s failed (%s): %s", f.By, excuse, f.Result)})
		}
	}
	return found
}

// excuse says why the request f failed, and reports whether that is an excuse.
//
// A request may fail if no token was valid during the whole request, for one of
// three reasons: the session had ended, the claim of a killed process had to be
// taken over first, or the store failed. If the store failed, a process may lack the
// valid token of another process, but never its own. Whether the store had a reason to
// fail, disturbedWithoutReason checks.
func (r *run) excuse(f Entry) (string, bool) {
	switch {
	case r.hadOwnToken(f), r.hadToken(f) && !r.storeFailed(f):
		return "there was a valid token", false
	case r.hadEnded(f):
		return "the session had ended", true
	case r.stoodStill(f):
		return "the owner of the claim had been killed", true
	case r.storeFailed(f):
		return "the store failed or was slow", true
	}
	return "no reason was found", false
}

// storeFailed reports whether the store failed for the process of the request f and
// its session, or took half of a token's life for a Save. That must have been
// during the request. A failure before it counts too if the process observed
// nothing since: the request may have joined a refresh that had failed already.
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

// storeFailure reports whether e is a call that the store did not answer, or
// answered with an error.
func storeFailure(e Entry) bool {
	return e.Did == LoadFailed || e.Did == Saved && e.Result != "" && e.Result != conflict
}

// hadToken reports whether there was a valid token during the whole request f.
func (r *run) hadToken(f Entry) bool {
	return slices.ContainsFunc(r.saves[f.Key], func(s *save) bool { return s.outlived(f) })
}

// hadOwnToken is hadToken for the tokens that the process of f had saved.
func (r *run) hadOwnToken(f Entry) bool {
	return slices.ContainsFunc(r.saves[f.Key], func(s *save) bool { return s.By == f.By && s.outlived(f) })
}

// outlived reports whether s saved a token that was in the store before the request f
// began, and expired after f failed.
func (s *save) outlived(f Entry) bool {
	return s.Did == Saving && s.landed() && s.end().Before(f.Began) && s.Expiry.Add(-lifetime/10).After(f.At)
}

// hadEnded reports whether the session had ended before the request f failed, and
// no login had begun it again before f began.
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

// stoodStill reports whether the claim of a killed process was in the store while
// the request f waited.
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

// cost finds rotations that did not cost exactly one claim and one Save of a token,
// although nothing disturbed them.
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
					fmt.Sprintf("%s rotated %s, which cost %d claims and %d saves instead of one each", p.By, token, claims, saves)})
			}
		}
	}
	return found
}

// disturbed reports whether something disturbed the rotation of token: a process
// was killed, or was closed and released its claim, or the store failed, or the
// store was so slow that the claim had to be renewed.
func (r *run) disturbed(token string) bool {
	return slices.ContainsFunc(r.claims[token], func(claim *save) bool {
		attempts := r.successors(claim)
		_, wasKilled := r.killed[claim.By]
		return claim.failed() || claim.done.Sub(claim.At) > r.refreshTimeout/2 ||
			slices.ContainsFunc(attempts, (*save).failed) ||
			r.closed[claim.By] && slices.ContainsFunc(attempts, claim.isReleasedBy) ||
			wasKilled && (len(attempts) == 0 || attempts[0].done.IsZero())
	})
}

// disturbedWithoutReason finds what must never happen, and failures of the store
// without a reason. A store may fail if its time ran out, or if the supervisor had
// cut connections before.
func (r *run) disturbedWithoutReason() (found []breach) {
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

// rotations returns how often FinCode rotated a token and answered 200.
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

// claimOf returns the claim of the process that made p: its last before p, or nil.
func (r *run) claimOf(p *presentation) (claim *save) {
	for _, c := range r.claims[p.Token] {
		if c.By == p.By && c.At.Before(p.At) {
			claim = c
		}
	}
	return claim
}

// successors returns the attempts to replace claim by a token.
func (r *run) successors(claim *save) (attempts []*save) {
	for _, s := range r.saves[claim.Key] {
		if s.Did == Saving && s.Prev == claim.Version {
			attempts = append(attempts, s)
		}
	}
	return attempts
}

// tookOver reports whether the claim c followed a claim of another process.
func (r *run) tookOver(c *save) bool {
	claims := r.claims[c.Token]
	i := slices.Index(claims, c)
	return i > 0 && claims[i-1].By != c.By
}

// nextLanded returns the first of saves that was in the store, or nil.
func nextLanded(saves []*save) *save {
	if i := slices.IndexFunc(saves, (*save).landed); i >= 0 {
		return saves[i]
	}
	return nil
}
