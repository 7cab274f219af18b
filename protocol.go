package fincodeauth

import (
	"errors"
	"net/http"
	"slices"
	"time"

	"golang.org/x/oauth2"
)

// The decisions of the rotation protocol, which docs/protocol.md explains. They are
// functions without I/O: from what was loaded or answered, what this process
// remembers, and the time, they say what to do. flight.go, saving.go and logout.go do
// it. The steps have the numbers of the package comment (doc.go).

const (
	pollMin      = 25 * time.Millisecond // between two looks at another process's claim
	pollMax      = 500 * time.Millisecond
	backoffMin   = time.Second      // before a failed call is repeated
	backoffMax   = 48 * time.Second // 1 min with the jitter
	backoffAsked = time.Hour        // the longest Retry-After that is honoured
	saveWait     = time.Second      // how long the callers of a refresh wait for its save
	saveRetryMin = 100 * time.Millisecond
	saveRetryMax = 5 * time.Second
	claimKept    = time.Hour // how long a claim without a refusal keeps its session in memory
)

// A claim is a process's right to present a refresh token.
type claim struct {
	version string        // of the record that carries it
	over    string        // the version that the claim replaces
	renewal bool          // the record of that version is a claim of this process, too
	since   time.Time     // when its Save began
	saved   bool          // the claim is known to have been saved
	token   *oauth2.Token // the pair that may be presented

	tookOver bool // it replaces the claim of another process, or renews one that did

	// interrupted: the token may have been presented before, with an unknown
	// outcome. If FinCode says that it was used, that explains it.
	interrupted bool

	// refusal is FinCode's refusal of the refresh token. The token is dead then,
	// and is not presented again. nil: FinCode has not refused it.
	refusal error
}

// isIn reports whether rec carries this claim, or the claim that this one was meant to
// renew.
func (c *claim) isIn(rec *Record) bool {
	return c != nil && (rec.Version == c.version || c.renewal && rec.Version == c.over)
}

// isOn reports whether the claim is on the pair that rec has. The store may have lost the
// claim itself.
func (c *claim) isOn(rec *Record) bool { return c != nil && sameTokens(c.token, rec.Token) }

// mayLandOver reports whether this claim may still replace rec: its Save failed, but
// a slow store may carry it out later.
func (c *claim) mayLandOver(rec *Record) bool {
	return c != nil && !c.saved && rec.Version == c.over
}

// isOld reports whether the claim must be renewed before it is used, because others
// might take it over before a call under it ends.
func (c *claim) isOld(now time.Time, timeout time.Duration) bool {
	// The monotonic clock stands still while the machine is suspended, and the wall
	// clock may be set back.
	age := max(now.Sub(c.since), now.Round(0).Sub(c.since.Round(0)))
	return age > timeout/2
}

// A memory is what a process remembers of a session from one pass of the protocol to
// the next. Only the holder of the session's turn uses it.
type memory struct {
	mine *claim // the last claim of this process; nil: there is none that the store may have

	// The version of another process's claim, and when this process first saw it,
	// by its own monotonic clock: clocks of two machines are never compared.
	seen      string
	seenSince time.Time

	// unwritable: the store failed to save a claim of this process. Then it may
	// also have failed to save the new token of the process that owns an older
	// claim.
	unwritable bool

	failures int       // calls to FinCode that failed in a row
	retryAt  time.Time // no call before then
	err      error     // of the last of them
}

// isEmpty reports whether there is nothing to remember.
func (m *memory) isEmpty() bool {
	return m.mine == nil && m.seen == "" && !m.unwritable && m.failures == 0
}

// isNeeded reports whether the session must stay in memory. A claim is kept for an
// hour, because after an outage there may be many claims whose users never come back.
// Later it is taken over like the claim of a dead process. A refusal is kept for as long
// as it is not saved: otherwise the token would be presented again, and a theft would
// look like an interruption.
func (m *memory) isNeeded(now time.Time) bool {
	return now.Before(m.retryAt) || m.mine != nil && (m.mine.refusal != nil || now.Sub(m.mine.since) < claimKept)
}

// watch notes that another process's claim was seen, and since when.
func (m *memory) watch(version string, now time.Time) {
	if m.seen != version {
		m.seen, m.seenSince = version, now
	}
}

// backOff notes that a call to FinCode failed, and returns how long to wait before the
// next one: 1 s, doubled with each failure up to 1 min, or as long as FinCode asked.
// jittered makes a duration shorter by a random part.
func (m *memory) backOff(err error, now time.Time, jittered func(time.Duration) time.Duration) time.Duration {
	delay := jittered(min(backoffMin<<min(m.failures, 6), backoffMax) * 5 / 4)
	if e, ok := errors.AsType[*EndpointError](err); ok && e.RetryAfter > 0 {
		delay = min(e.RetryAfter, backoffAsked)
	}
	m.failures++
	m.err = err
	m.retryAt = now.Add(delay)
	return delay
}

// A step is what a process does next when it has loaded a record.
type step uint8

const (
	stepHeal     step = iota + 1 // step 1: the store has gone back, so save what this process knows
	stepStop                     // step 2: the session has ended, or there is none
	stepAdopt                    // step 1: another process has refreshed, so use its token
	stepStandBy                  // step 3: another process is refreshing
	stepTakeOver                 // step 3: the process that was refreshing is gone, so claim in its place
	stepRenew                    // step 4: this process has claimed already, so claim again
	stepClaim                    // step 4: nobody is refreshing
)

// A situation is what a process knows when it has loaded a record.
type situation struct {
	rec      *Record       // nil: there is no record
	known    *known        // what this process knew before; nil: nothing
	lease    *lease        // of the record's token
	rejected bool          // the API rejected that token
	inUse    *oauth2.Token // nil: this process has none
	memory   *memory
	now      time.Time
	timeout  time.Duration // RefreshTimeout
}

// step decides what to do: steps 1 to 4.
func (x *situation) step() step {
	switch rec := x.rec; {
	case x.known.isAhead(rec, x.now):
		return stepHeal
	case rec == nil, rec.Ended != "":
		return stepStop
	case x.isNews() && x.lease.valid(x.now) && !x.rejected:
		return stepAdopt
	case rec.RefreshStarted.IsZero():
		return stepClaim
	case x.memory.mine.isIn(rec):
		return stepRenew
	case x.ownerIsGone():
		return stepTakeOver
	}
	return stepStandBy
}

// isNews reports whether the record's token is not the one in use.
func (x *situation) isNews() bool { return x.inUse == nil || !sameTokens(x.inUse, x.rec.Token) }

// ownerIsGone reports whether the claim of another process has not changed for so long
// that its owner must be dead. A living owner uses a claim that is at most half a
// RefreshTimeout old, for a call of at most one RefreshTimeout, and then saves or
// renews.
func (x *situation) ownerIsGone() bool {
	return x.memory.seen == x.rec.Version && x.now.Sub(x.memory.seenSince) >= 2*timeoutOf(x.rec, x.timeout)
}

// timeoutOf returns the longer RefreshTimeout of two: that of this process, and that of
// the process whose claim rec carries.
func timeoutOf(rec *Record, own time.Duration) time.Duration {
	return max(own, min(rec.RefreshTimeout, maxRefreshTimeout))
}

// knowsItsClaim reports whether what this process remembers of its claim is still true,
// although the record has a token that it can adopt: its clock was set back.
func (x *situation) knowsItsClaim() bool {
	mine := x.memory.mine
	return mine.isIn(x.rec) || mine.mayLandOver(x.rec) || mine.isOn(x.rec)
}

// claimOn returns the claim on rec that this process makes with the record claimed.
func (m *memory) claimOn(rec, claimed *Record, now time.Time) *claim {
	last := m.mine
	next := &claim{version: claimed.Version, over: rec.Version, since: now, token: rec.Token}
	next.interrupted = !rec.RefreshStarted.IsZero()
	next.tookOver = next.interrupted
	switch {
	case last.isIn(rec):
		next.renewal, next.tookOver = true, last.tookOver
		next.interrupted, next.refusal = last.interrupted, last.refusal
	case !last.isOn(rec):
	case last.refusal != nil: // another process has claimed a dead token, or the store has lost the last claim
		next.interrupted, next.refusal = last.interrupted, last.refusal
	case last.saved || last.renewal: // otherwise only its record said so, and the owner of that may have released it since
		next.interrupted = next.interrupted || last.interrupted
	}
	if last.mayLandOver(rec) {
		next.version = last.version // either Save may land, and both must be known as ours
	}
	return next
}

// A right is what a process may do with a claim that it has just saved.
type right uint8

const (
	mayPresent  right = iota + 1 // step 5
	mustRenew                    // the claim is too old
	mustYield                    // the owner of the claim before may be alive, and comes first
	mustRelease                  // the process is being closed
)

// rightOf decides what this process may do with its claim. The store may have failed to
// save claims of this process. Then it may also have failed for the owner of an older
// claim, who can now save its new token over this one.
func (m *memory) rightOf(closing bool, now time.Time, timeout time.Duration) right {
	switch {
	case closing:
		return mustRelease
	case m.unwritable && m.mine.interrupted:
		return mustYield
	case m.mine.isOld(now, timeout):
		return mustRenew
	}
	return mayPresent
}

// released returns the record that gives a claim back, after an attempt that certainly
// did not use the token; nil: the claim must stay. It stays after an attempt of unknown
// outcome, because the next process that presents the token must know of that attempt. If
// FinCode has refused the refresh token, the record goes back without it.
func (c *claim) released(claimed *Record) *Record {
	if c.interrupted {
		return nil
	}
	free := claimed.next()
	if c.refusal != nil && free.Token.AccessToken != "" {
		free.Token.RefreshToken = "" // nobody must present it again
	}
	return free
}

// A removed is what a Logout has removed from the store.
type removed struct {
	rec     *Record
	claimed bool // by another process, which may be presenting the refresh token
	refused bool // FinCode refused the refresh token
}

// removes returns what a Logout of this process removes with rec.
func (m *memory) removes(rec *Record) removed {
	return removed{
		rec:     rec,
		claimed: !rec.RefreshStarted.IsZero() && !m.mine.isIn(rec),
		refused: m.mine.isOn(rec) && m.mine.refusal != nil,
	}
}

// An outcome says what a failed call did to the refresh token that it presented.
type outcome uint8

const (
	unknown   outcome = iota // FinCode may have rotated the token, and the answer is lost
	untouched                // FinCode certainly did not use the token: the call was not sent, or was turned away
	refused                  // FinCode refused the token: it is dead
)

// outcomeOf returns the outcome of the call that failed with err.
func outcomeOf(err error) outcome {
	if e, ok := errors.AsType[*EndpointError](err); ok {
		switch status := e.meaning(); {
		case status == http.StatusUnauthorized, status == http.StatusForbidden:
			if e.foreign {
				return untouched
			}
			return refused
		case status == http.StatusRequestTimeout:
			return unknown
		case status >= 300 && status < 500:
			return untouched
		}
		return unknown
	}
	if e, ok := errors.AsType[*callError](err); ok && !e.sent {
		return untouched
	}
	return unknown
}

// endsSession reports whether the session ends because Config.Credentials, or the login
// with what it returned, failed with err.
func endsSession(err error) bool {
	for _, final := range []error{ErrLoginRequired, ErrBadCredentials, ErrAccountLocked, ErrUserNotFound} {
		if errors.Is(err, final) {
			return true
		}
	}
	return false
}

// A change is on its way into the store: a login, a new token, or the end of a session.
// The holder of the session's turn uses it. What the comments mark with "mu" it writes
// with session.mu held, because others read that.
type change struct {
	rec  *Record
	prev string // the version that rec replaces

	// presented is the pair whose refresh token was presented. A record that still has
	// this pair may be replaced, even if it has another version: another process
	// has taken over the claim. nil: rec comes from a Login or an Adopt, and replaces
	// any session.
	presented *oauth2.Token

	unheard bool // a Save of rec failed, but may have landed

	// What follows is for callers, and for whoever saves.

	// ended is the error of the event Ended, which is sent once rec is saved; nil:
	// rec does not end the session.
	ended    *SessionError
	tookOver bool // of the event Ended

	meanwhile error     // for callers, while the change is unsaved and there is no good token
	started   time.Time // when its first Save began; zero: it was not tried
	reported  bool      // SaveFailed was sent
	storeErr  error     // mu: the store's last error
	fate      fate      // mu: what became of it
}

// isGivenUp reports whether the change was given up, and has tokens that nobody else knows.
func (c *change) isGivenUp() bool {
	return c != nil && c.fate == fateGivenUp && hasTokens(c.rec.Token)
}

// A fate is what becomes of a change. Some fates are only answers to a conflict, and the
// change stays unsaved.
type fate uint8

const (
	fateUnsaved   fate = iota // it must be saved again: nobody knows more
	fateSaved                 // it is in the store, or another process has gone on from it
	fateGivenUp               // another session, or a newer pair, is in its place
	fateLoggedOut             // the session was logged out: nobody may use the tokens of the change
	fateReplaces              // answer: it must be saved over the record that was found
	fateStale                 // answer: the store loads a record that was replaced
)

// fateOver decides what becomes of the change after a conflict. there is the record in
// the store; nil: there is none.
func (c *change) fateOver(there *Record) fate {
	switch {
	case versionOf(there) == c.prev:
		return fateStale
	case there == nil: // the store has lost it: a Logout would have left a record
		return fateReplaces
	case there.Version == c.rec.Version, hasTokens(c.rec.Token) && sameTokens(there.Token, c.rec.Token):
		return fateSaved // another process may have claimed it already
	case c.mayReplace(there):
		return fateReplaces
	case there.Ended == endedLogout:
		return fateLoggedOut
	}
	return fateGivenUp
}

// showsLoss reports whether the store has gone back since the claim or the Save that the
// change follows: it has there now. A login replaces whatever is there.
func (c *change) showsLoss(there *Record) bool {
	if c.presented == nil {
		return false
	}
	before := knownOf(c.rec, time.Time{})
	before.ended = ""
	if c.rec.Ended == "" {
		before.generation--
	}
	return there == nil || before.isAhead(there, time.Time{})
}

// mayReplace reports whether the change may replace a record that is in the store
// instead of the one with version prev.
func (c *change) mayReplace(there *Record) bool {
	switch {
	case c.presented == nil: // but if rec may have landed, not what others have made of it since
		return !c.unheard || slices.Contains(c.rec.Replaces, sessionOf(there.Version))
	case c.rec.Ended != "" && there.Ended == "" && there.Generation == c.rec.Generation:
		return sameTokens(there.Token, c.presented)
	case knownOf(c.rec, time.Time{}).isAhead(there, time.Time{}):
		return true
	case there.Ended != "":
		return false
	case c.rec.Ended != "": // a newer pair may have the same refresh token
		return sameTokens(there.Token, c.presented)
	}
	return c.presented.RefreshToken != "" && there.Token.RefreshToken == c.presented.RefreshToken
}
