package why

import (
	"strings"

	"github.com/fincodeauth/fincodeauth/cmd/fincode/internal/events"
)

// A session is what the journals have of one session, in order.
type session struct {
	here     string // the journal of this machine
	entries  []events.Entry
	attempts []attempt
	tokens   map[string]bool          // the session's refresh tokens, as hashes
	records  map[string]*events.Entry // by version: what is known of the record
	ours     map[string]bool          // by version: its Save is in the journals
	over     map[string][]string      // by version: the versions that it was saved over
	stored   map[string]int           // by version: the first entry that shows that the store had it
}

// sessionOf collects what the journals have of the session under key.
func sessionOf(all []events.Entry, key string) *session {
	tokens := tokensOf(all, key)
	var own []events.Entry
	for _, e := range all {
		if e.Key == key || e.Kind == events.Gap || e.Token != "" && tokens[e.Token] || e.Next != "" && tokens[e.Next] {
			own = append(own, e)
		}
	}
	s := &session{
		entries: ordered(own),
		tokens:  tokens,
		records: make(map[string]*events.Entry),
		ours:    make(map[string]bool),
		over:    make(map[string][]string),
		stored:  make(map[string]int),
	}
	if len(all) > 0 {
		s.here = all[0].Journal
	}
	for i := range s.entries {
		s.add(i)
	}
	s.attempts = attemptsIn(s.entries)
	return s
}

// tokensOf returns the tokens of the session: those of its records, and what FinCode sent
// for one of them.
func tokensOf(all []events.Entry, key string) map[string]bool {
	tokens := make(map[string]bool)
	for _, e := range all {
		if e.Key == key && e.IsRecord() && e.Token != "" {
			tokens[e.Token] = true
		}
	}
	for grown := true; grown; {
		grown = false
		for _, e := range all {
			if e.Next != "" && tokens[e.Token] && !tokens[e.Next] {
				tokens[e.Next], grown = true, true
			}
		}
	}
	return tokens
}

// add notes what the entry with that index shows.
func (s *session) add(i int) {
	e := &s.entries[i]
	switch e.Kind {
	case events.Saving:
		s.records[e.Version], s.ours[e.Version] = e, true
		s.isStored(e.Prev, i)
	case events.Loaded:
		if s.records[e.Version] == nil {
			s.records[e.Version] = e
		}
	case events.Saved, events.Unsaved:
		s.over[e.Version] = append(s.over[e.Version], e.Prev)
	}
	s.isStored(s.shows(i), i)
}

// shows returns the version that the store had when the entry was written; "": the entry
// does not say it.
func (s *session) shows(i int) string {
	switch e := &s.entries[i]; {
	case e.Kind == events.Saved, e.Kind == events.Loaded:
		return e.Version
	case e.Kind == events.Event && e.Event == ended:
		return s.endedBy(i)
	}
	return ""
}

// endedBy returns the version of the end that the process of the entry has saved last.
func (s *session) endedBy(i int) string {
	for by := s.entries[i].Process; i >= 0; i-- {
		if rec := &s.entries[i]; rec.Kind == events.Saving && rec.Process == by && rec.Ended != "" {
			return rec.Version
		}
	}
	return ""
}

func (s *session) isStored(version string, i int) {
	if _, ok := s.stored[version]; !ok && version != "" {
		s.stored[version] = i
	}
}

// hadLater reports whether the store ever had a later pair of the same session.
func (s *session) hadLater(rec *events.Entry) bool {
	return s.everHad(rec, func(then *events.Entry) bool { return rec.Generation > 0 && then.Generation > rec.Generation })
}

// wasLoggedOut reports whether the store ever had the logout of the same session.
func (s *session) wasLoggedOut(rec *events.Entry) bool {
	return s.everHad(rec, func(then *events.Entry) bool { return then.Ended == loggedOut })
}

// everHad reports whether is is true for any record of the same session in the store.
func (s *session) everHad(rec *events.Entry, is func(*events.Entry) bool) bool {
	for version := range s.stored {
		if then := s.records[version]; then != nil && nameOf(version) == nameOf(rec.Version) && is(then) {
			return true
		}
	}
	return false
}

// nameOf returns the part of a version that names the session.
func nameOf(version string) string {
	name, _, _ := strings.Cut(version, ".")
	return name
}
