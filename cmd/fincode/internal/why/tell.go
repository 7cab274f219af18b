package why

import (
	"fmt"
	"time"

	"github.com/fincodeauth/fincodeauth/cmd/fincode/internal/events"
)

// maxSentences is how many sentences a story has.
const maxSentences = 100

// outlines have the sentence of each verdict that needs no names, and what to do.
var outlines = map[Verdict]struct{ summary, do string }{
	Alive:     {"", ""},
	LoggedOut: {"somebody logged out", "log in"},
	Never:     {"nobody has logged in, as far as the journal goes back", "log in"},
	Lost:      {"", "log in again: no alarm. Find out why processes or connections die"},
	WentBack:  {"", "log in again. The store has lost data: look at its failovers and backups"},
	Refused:   {"", "log in again: no alarm"},
	Reused:    {"", "treat this as a breach: find out who else has the token, then log in again"},
	Unknown:   {"", "rule out your own programs with the journals of the other machines. If nothing explains it, treat this as a breach"},
}

// finish adds what the verdict says by itself.
func (s *Story) finish() {
	o := outlines[s.Verdict]
	if s.Summary == "" {
		s.Summary = o.summary
	}
	if s.Do == "" {
		s.Do = o.do
	}
}

// named names a process.
func named(p events.Process) string {
	return fmt.Sprintf("%s (pid %d on %s)", p.Command, p.PID, p.Host)
}

// tell adds the sentences of the session.
func (s *session) tell(story *Story) {
	story.Missing = append([]string{}, story.Missing...)
	story.Sentences = []Sentence{}
	answers := make(map[int]*attempt)
	for i := range s.attempts {
		a := &s.attempts[i]
		if a.outcome == "" {
			answers[a.began] = a
		} else {
			answers[a.ended] = a
		}
	}
	for i := range s.entries {
		e := &s.entries[i]
		text := s.sentence(e)
		if a := answers[i]; a != nil {
			text = a.sentence()
		}
		if text != "" {
			story.add(e, text)
		}
	}
	if n := len(story.Sentences) - maxSentences; n > 0 {
		story.Earlier, story.Sentences = n, story.Sentences[n:]
	}
}

// add adds a sentence. If it says the same as the last one, that happened once more.
func (s *Story) add(e *events.Entry, text string) {
	text = named(e.Process) + " " + text
	if n := len(s.Sentences); n > 0 && s.Sentences[n-1].Text == text {
		last := &s.Sentences[n-1]
		last.Times, last.Until = max(last.Times, 1)+1, e.Time
		return
	}
	s.Sentences = append(s.Sentences, Sentence{Time: e.Time, Process: e.Process, Text: text})
}

// sentence says what the entry means; "": nothing that a person wants to
// know.
func (s *session) sentence(e *events.Entry) string {
	switch e.Kind {
	case events.Event:
		return eventSentence(e)
	case events.Saved:
		return s.takeover(e)
	case events.Gap:
		return fmt.Sprintf("could not write %d entries of this journal.", e.Dropped)
	case events.Loaded:
		switch {
		case e.Version == "":
			return "found no session in the store."
		case s.ours[e.Version]:
		case e.Ended != "":
			return "found that the session had ended: " + e.Ended + "."
		default:
			return "found a token that a process had saved whose journal is not here."
		}
	}
	return ""
}

// takeover says whether the record that was saved is a takeover of another process's claim.
func (s *session) takeover(e *events.Entry) string {
	rec, before := s.records[e.Version], s.records[e.Prev]
	if rec == nil || before == nil || !rec.Claim || !before.Claim || rec.Process == before.Process {
		return ""
	}
	if before.Kind == events.Loaded { // the claim of a process whose journal is not here
		return "took over the refresh of a process whose journal is not here."
	}
	text := fmt.Sprintf("took over the refresh of %s", named(before.Process))
	if before.Process.Host == rec.Process.Host {
		text += fmt.Sprintf(" after %v", rec.Time.Sub(before.Time).Round(time.Second))
	}
	return text + "."
}

// sentence says what came of an attempt that got no new token.
func (a *attempt) sentence() string {
	switch a.outcome {
	case "":
		return "presented the refresh token, and then wrote nothing about the answer: it died, or is still waiting."
	case events.Unknown:
		return "presented the refresh token, and does not know what FinCode did with it (" + a.reason() + ")."
	case events.Untouched:
		return "could not present the refresh token (" + a.reason() + ")."
	case events.Refused:
		if a.status == 403 {
			return "presented the refresh token, and FinCode said that it was used before (403)."
		}
		return fmt.Sprintf("presented the refresh token, and FinCode refused it (%d).", a.status)
	}
	return ""
}

// eventSentences has the sentences of the events. What is missing here is said by other
// entries, or is of no interest.
var eventSentences = map[string]string{
	"LoggedIn":      "logged in.",
	"Refreshed":     "refreshed the token.",
	"SaveFailed":    "could not save",
	"Saved":         "has saved what the store had not accepted before.",
	"Ended":         "found that the session needs a login",
	"LoggedOut":     "logged out",
	"StoreReverted": "found that the store had gone back, and saved what it knew",
	"JournalFailed": "could not write its journal of tokens",
}

func eventSentence(e *events.Entry) string {
	text := eventSentences[e.Event]
	switch {
	case text == "" || text[len(text)-1] == '.':
		return text
	case e.Error != "":
		text += ": " + e.Error
	}
	return text + "."
}
