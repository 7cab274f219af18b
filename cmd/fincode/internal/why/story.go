// Package why says what happened to a session, from the journals of events.
//
//	story.go    a Story, and how it is printed
//	explain.go  what the last thing that happened means: the verdict
//	refusal.go  why FinCode refused a refresh token
//	order.go    the order of what several machines did, whatever their clocks say
//	session.go  what the journals have of one session
//	attempt.go  who presented a refresh token, and what came of it
//	tell.go     the sentences
package why

import (
	"fmt"
	"io"
	"time"

	"github.com/fincodeauth/fincodeauth/cmd/fincode/internal/events"
	"github.com/fincodeauth/fincodeauth/cmd/fincode/internal/failure"
)

// A Verdict is what happened to a session in the end.
type Verdict string

const (
	Alive     Verdict = "alive"           // the session can be used
	LoggedOut Verdict = "logged out"      // somebody logged out
	Never     Verdict = "never logged in" // the journals know nothing of the session
	Lost      Verdict = "lost"            // a process used the token, and its successor never reached the store
	WentBack  Verdict = "store went back" // the store had lost something that it had saved
	Refused   Verdict = "refused"         // FinCode refused the token, which nobody had used: 401
	Reused    Verdict = "reused"          // somebody used the token, and it was none of ours
	Unknown   Verdict = "unknown"         // the journals do not reach far enough
)

// A Story is what happened to a session.
type Story struct {
	Key     string  `json:"key"`
	Verdict Verdict `json:"verdict"`

	Summary string   `json:"summary"` // the verdict as a sentence
	Do      string   `json:"do"`      // what to do
	Missing []string `json:"missing"` // what the journals do not show, and which difference that would make

	Sentences []Sentence `json:"sentences"` // the oldest first
	Earlier   int        `json:"earlier"`   // how many older sentences were left out
}

// A Sentence is one thing that a process did.
type Sentence struct {
	Time    time.Time      `json:"time"`            // by the clock of the process's machine
	Until   time.Time      `json:"until,omitzero"`  // of the last time, if it happened several times in a row
	Times   int            `json:"times,omitempty"` // how often, if several times
	Process events.Process `json:"process"`
	Text    string         `json:"text"` // begins with the process
}

// Write prints the story for a person. Times are in loc.
func (s *Story) Write(w io.Writer, loc *time.Location) error {
	p := &printer{w: w}
	p.line("%s: %s", s.Key, s.Summary)
	if s.Do != "" {
		p.line("What to do: %s", s.Do)
	}
	for _, missing := range s.Missing {
		p.line("Not known: %s", missing)
	}
	if len(s.Sentences) > 0 {
		p.line("")
	}
	if s.Earlier > 0 {
		p.line("(%d earlier lines)", s.Earlier)
	}
	day := ""
	for _, sentence := range s.Sentences {
		if d := sentence.Time.In(loc).Format("Monday, 2 January 2006"); d != day {
			day = d
			p.line("%s", d)
		}
		p.line("  %s  %s", sentence.Time.In(loc).Format("15:04:05"), sentence.full(loc))
	}
	return p.err
}

// full returns the text, and how often it happened.
func (s *Sentence) full(loc *time.Location) string {
	if s.Times < 2 {
		return s.Text
	}
	return fmt.Sprintf("%s (%d times, the last time on %s)", s.Text, s.Times, s.Until.In(loc).Format("2 January at 15:04:05"))
}

// A printer writes lines until a write fails. A journal has texts from the network, so a
// line has no character that controls a terminal.
type printer struct {
	w   io.Writer
	err error
}

func (p *printer) line(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintln(p.w, failure.Plain(fmt.Sprintf(format, args...)))
	}
}
