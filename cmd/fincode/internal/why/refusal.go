package why

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/fincodeauth/fincodeauth/cmd/fincode/internal/events"
)

// A refusal is why FinCode refused a refresh token.
type refusal struct {
	verdict Verdict
	summary string
	do      string // "": what the verdict says
	missing []string
}

// flagsOf returns what Record.Ended says (errors.go of fincodeauth).
func flagsOf(ended string) (reused, interrupted bool) {
	_, after, reused := strings.Cut(ended, "refresh token reused")
	if !reused {
		_, after, _ = strings.Cut(ended, "refresh token rejected")
	}
	return reused, strings.HasPrefix(after, " after an interruption")
}

// An inquest looks for the first use of the token of a session that has ended.
type inquest struct {
	*session
	end      *fate
	token    string   // "": not known
	first    *attempt // the first one that FinCode refused; nil: none in the journals
	used     *attempt // one that got the next token; nil: none
	open     *attempt // the first one that may have used the token before that; nil: none
	complete bool     // all that could have been done with the token is in the journals
}

// refusal says why FinCode refused the token, so that the session ended.
func (s *session) refusal(end *fate, complete bool) refusal {
	q := &inquest{session: s, end: end, token: s.tokenOf(end)}
	for i := range s.attempts {
		if a := &s.attempts[i]; a.token == q.token && a.outcome == events.Refused && (q.first == nil || q.first.comesAfter(a)) {
			q.first = a
		}
	}
	for i := range s.attempts {
		q.add(&s.attempts[i])
	}
	q.complete = complete && q.token != "" && s.knowsAllOf(q.token)
	return q.verdict()
}

// tokenOf returns the token of the session that ended: that of the other records of the same
// generation.
func (s *session) tokenOf(end *fate) string {
	for i := range s.entries {
		rec := &s.entries[i]
		if rec.IsRecord() && rec.Token != "" && nameOf(rec.Version) == nameOf(end.record.Version) && rec.Generation == end.record.Generation {
			return rec.Token
		}
	}
	return ""
}

// add notes whether the attempt may be the first use of the token.
func (q *inquest) add(a *attempt) {
	switch {
	case a.token != q.token || a == q.first:
	case a.hasUsed():
		q.used = a
	case q.open == nil && a.mayHaveUsed() && (q.first == nil || !a.comesAfter(q.first)):
		q.open = a
	}
}

// knowsAllOf reports whether everything that our processes did with the token is in the
// journals: they show how it came, and since then no record that somebody else saved.
func (s *session) knowsAllOf(token string) bool {
	came := false
	for i := range s.entries {
		e := &s.entries[i]
		switch {
		case came && e.Kind == events.Gap:
			return false
		case e.Next == token, e.Kind == events.Saving && e.Token == token && !e.Claim: // the second: Adopt was called
			came = true
		case e.Token == token && !came:
			return false
		case came && e.Kind == events.Loaded && e.Version != "" && !s.ours[e.Version]:
			return false
		}
	}
	return came
}

// verdict says what explains the refusal.
func (q *inquest) verdict() refusal {
	switch {
	case q.used != nil && (q.hadLater(q.end.record) || q.wasLoggedOut(q.end.record)):
		return refusal{verdict: WentBack, summary: fmt.Sprintf("the store went back to an older token, which %v had used already", named(q.used.process))}
	case q.used != nil:
		return refusal{verdict: Lost, summary: fmt.Sprintf("%v got the next token from FinCode, and did not save it before others took over: it died, slept or could not reach the store", named(q.used.process))}
	case q.status() == http.StatusUnauthorized:
		return refusal{verdict: Refused, summary: "FinCode refused the refresh token (401): it has revoked the session, or the token has expired"}
	case q.hadLater(q.end.record):
		return refusal{verdict: WentBack, summary: "the store went back to an older state of the session: it had a later one before"}
	case q.open != nil:
		return q.window(q.open)
	case q.complete && q.end.interrupted && !q.wasRefusedBefore():
		return refusal{verdict: Lost, summary: "a process claimed the refresh and died: most likely it had presented the token",
			missing: []string{"its request: unless its machine lost power, and with it the last lines of its journal, there was none, and somebody else used the token"}}
	case q.complete:
		return breach()
	}
	return q.cannotKnow()
}

// wasRefusedBefore reports whether FinCode had refused the token before the process presented
// it that told the end.
func (q *inquest) wasRefusedBefore() bool {
	return q.first != nil && q.first.process != q.end.record.Process
}

// status returns what FinCode answered.
func (q *inquest) status() int {
	if q.first != nil {
		return q.first.status
	}
	if q.end.reused {
		return http.StatusForbidden
	}
	return http.StatusUnauthorized
}

// window says that the session was lost between FinCode's rotation and the save.
func (q *inquest) window(a *attempt) refusal {
	r := refusal{verdict: Lost, missing: []string{"whether somebody else used the token at the same time: no client can tell that"}}
	if a.outcome == events.Unknown {
		r.summary = fmt.Sprintf("%v presented the token and got no answer that says what FinCode did (%s): the next token was in that answer", named(a.process), a.reason())
		return r
	}
	r.summary = fmt.Sprintf("%v presented the token, and died or hung before it had the answer: the next token was in that answer", named(a.process))
	return r
}

// reason says why there was no answer.
func (a *attempt) reason() string {
	switch {
	case a.err != "":
		return a.err
	case a.status != 0:
		return fmt.Sprintf("HTTP %d", a.status)
	}
	return "no answer"
}

// breach says that none of our processes used the token.
func breach() refusal {
	return refusal{
		verdict: Reused,
		summary: "FinCode says that the refresh token was used before (403), and none of our processes did that: a theft, or another client with the same session",
		missing: []string{"whether the network delivered a request twice: FinCode then says the same"},
	}
}

// cannotKnow says that the token was used, and that the journals do not say by whom.
func (q *inquest) cannotKnow() refusal {
	r := refusal{verdict: Unknown, missing: []string{q.gap()}}
	r.summary = "FinCode says that the refresh token was used before (403), and these journals do not say by whom"
	if q.end.interrupted {
		r.summary += ": most likely by a process that was interrupted"
		r.do = "log in again: no alarm. The journals of the other machines may say more"
	}
	return r
}

// gap says why nobody can tell who used the token.
func (q *inquest) gap() string {
	switch {
	case q.token == "":
		return "the journals do not reach back to the token"
	case !q.knowsAllOf(q.token):
		return "other processes changed the session, and their journals are not here, or a journal could not be written"
	}
	return "other machines may share the store: run this with the journals of all of them"
}
