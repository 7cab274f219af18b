package why

import (
	"slices"

	"github.com/fincodeauth/fincodeauth/cmd/fincode/internal/events"
)

// loggedOut is what a record says that a Logout leaves.
const loggedOut = "logged out"

// ended is the event that a process sends when it has saved the end of a session.
const ended = "Ended"

// Explain says what happened to the session under key. entries are those of one or more
// journals, that of this machine first: Entry.Journal tells them apart. All journals must
// have been opened with the same key.
//
// complete says that these are the journals of all machines that share the store. If it is
// false, another machine may have used a token, so Explain never says Reused.
func Explain(entries []events.Entry, key string, complete bool) Story {
	s := sessionOf(entries, key)
	story := Story{Key: key}
	f := s.fate()
	switch {
	case f == nil:
		story.Verdict = Never
	case f.record == nil:
		story.Verdict, story.Summary = Unknown, "the journals have only a part of what was saved last"
	case f.ended == "" && f.gone:
		story.Verdict, story.Summary = WentBack, "the store has no record of the session any more, and nobody logged out"
	case f.ended == "":
		story.Verdict, story.Summary = Alive, s.life(f)
	case f.ended == loggedOut:
		story.Verdict = LoggedOut
	default:
		r := s.refusal(f, complete)
		story.Verdict, story.Summary, story.Do, story.Missing = r.verdict, r.summary, r.do, r.missing
	}
	story.finish()
	s.tell(&story)
	return story
}

// life says who has the session's token now.
func (s *session) life(f *fate) string {
	by := named(f.record.Process)
	switch rec := f.record; {
	case !s.ours[rec.Version] && rec.Claim:
		return "the session can be used: a process whose journal is not here is refreshing the token"
	case !s.ours[rec.Version]:
		return "the session can be used: a process whose journal is not here saved the token last"
	case rec.Claim:
		return "the session can be used: " + by + " is refreshing the token, or died while it did"
	}
	return "the session can be used: " + by + " saved the token last"
}

// A fate is the last known state of a session.
type fate struct {
	record      *events.Entry // what the store had last
	gone        bool          // the store has no record any more
	ended       string        // "": the session has not ended
	reused      bool
	interrupted bool
}

// fate returns the last known state; nil: there never was a record. It is what this machine
// saw last, and what others are known to have made of that. If the store went back, the
// journals also have states that it has lost. Only a clock could tell which state came last,
// and the clocks of two machines may differ.
func (s *session) fate() *fate {
	version, at := s.lastSeen()
	if version == "" {
		return nil
	}
	for range s.entries { // a store that goes back may make a circle
		next := s.savedOver(version)
		if next == "" {
			break
		}
		version, at = next, -1
	}
	f := &fate{record: s.records[version], gone: at >= 0 && s.isGone(at)}
	if f.record != nil {
		f.ended = f.record.Ended
		f.reused, f.interrupted = flagsOf(f.ended)
	}
	return f
}

// lastSeen returns the version that this machine saw last in the store, or, if it saw none,
// that any machine saw last. at is the index of the entry that shows it.
func (s *session) lastSeen() (version string, at int) {
	here := false
	for i := range s.entries {
		isHere := s.entries[i].Journal == s.here
		if v := s.shows(i); v != "" && (isHere || !here) {
			version, at, here = v, i, isHere
		}
	}
	return version, at
}

// savedOver returns the version that was saved over another one; "": none is known.
func (s *session) savedOver(prev string) (next string) {
	for version := range s.stored {
		if slices.Contains(s.over[version], prev) && (next == "" || s.stored[version] > s.stored[next]) {
			next = version
		}
	}
	return next
}

// isGone reports whether this machine found no record after the entry at.
func (s *session) isGone(at int) bool {
	for i := at + 1; i < len(s.entries); i++ {
		e := &s.entries[i]
		if e.Kind == events.Loaded && e.Version == "" && e.Journal == s.here {
			return true
		}
	}
	return false
}
