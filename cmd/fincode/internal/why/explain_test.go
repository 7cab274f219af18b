package why_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/fincodeauth/fincodeauth/cmd/fincode/internal/events"
	"github.com/fincodeauth/fincodeauth/cmd/fincode/internal/why"
)

var (
	proxy = events.Process{Host: "web-1", PID: 812, Command: "proxy"}
	call  = events.Process{Host: "web-1", PID: 901, Command: "call"}
	other = events.Process{Host: "web-2", PID: 77, Command: "proxy"} // on another machine
)

// A script writes a journal, one second after another.
type script struct {
	entries []events.Entry
	now     time.Time
}

func begin() *script { return &script{now: time.Date(2026, 3, 2, 12, 3, 0, 0, time.UTC)} }

func (s *script) note(by events.Process, e events.Entry) *script {
	s.now = s.now.Add(time.Second)
	e.Time, e.Process, e.Journal = s.now, by, by.Host
	s.entries = append(s.entries, e)
	return s
}

func (s *script) wait(d time.Duration) *script {
	s.now = s.now.Add(d)
	return s
}

// saves is a Save of the record, and its outcome.
func (s *script) saves(by events.Process, rec events.Entry, how events.Kind) *script {
	rec.Kind, rec.Key = events.Saving, "ada"
	s.note(by, rec)
	return s.note(by, events.Entry{Kind: how, Key: "ada", Version: rec.Version, Prev: rec.Prev})
}

func (s *script) logsIn(by events.Process, version, prev, token string) *script {
	s.note(by, events.Entry{Kind: events.Answered, Op: events.Login, Outcome: events.Got, Next: token})
	s.note(by, events.Entry{Kind: events.Event, Key: "ada", Event: "LoggedIn"})
	return s.saves(by, events.Entry{Version: version, Prev: prev, Generation: 1, Token: token}, events.Saved)
}

func (s *script) claims(by events.Process, version, prev, token string, generation int) *script {
	return s.saves(by, events.Entry{Version: version, Prev: prev, Generation: generation, Token: token, Claim: true}, events.Saved)
}

func (s *script) presents(by events.Process, token string) *script {
	return s.note(by, events.Entry{Kind: events.Presenting, Op: events.Refresh, Token: token})
}

func (s *script) hears(by events.Process, token string, outcome events.Outcome, status int, next string) *script {
	return s.note(by, events.Entry{Kind: events.Answered, Op: events.Refresh, Token: token, Outcome: outcome, Status: status, Next: next})
}

func (s *script) refreshed(by events.Process, version, prev, token string, generation int) *script {
	s.note(by, events.Entry{Kind: events.Event, Key: "ada", Event: "Refreshed"})
	return s.saves(by, events.Entry{Version: version, Prev: prev, Generation: generation, Token: token}, events.Saved)
}

func (s *script) loads(by events.Process, rec events.Entry) *script {
	rec.Kind, rec.Key = events.Loaded, "ada"
	return s.note(by, rec)
}

// ends saves the end of the session, and tells it.
func (s *script) ends(by events.Process, version, prev string, generation int, text string) *script {
	s.saves(by, events.Entry{Version: version, Prev: prev, Generation: generation, Ended: text}, events.Saved)
	return s.note(by, events.Entry{Kind: events.Event, Key: "ada", Event: "Ended", Error: text,
		Reused: strings.Contains(text, "reused"), Interrupted: strings.Contains(text, "interruption")})
}

const (
	reused      = "refresh token reused: refresh-token answered 403"
	interrupted = "refresh token reused after an interruption: refresh-token answered 403"
	rejected    = "refresh token rejected: refresh-token answered 401"
)

// died is a proxy that presented the token and died, and a call that took over.
func died() *script {
	return begin().logsIn(proxy, "s.1", "", "t1").
		claims(proxy, "s.2", "s.1", "t1", 1).presents(proxy, "t1").
		loads(call, events.Entry{Version: "s.2", Generation: 1, Token: "t1", Claim: true}).wait(24*time.Second).
		claims(call, "s.3", "s.2", "t1", 1).presents(call, "t1").hears(call, "t1", events.Refused, 403, "").
		ends(call, "s.4", "s.3", 1, interrupted)
}

func TestVerdicts(t *testing.T) {
	for name, test := range map[string]struct {
		script  *script
		partial bool // not all machines' journals
		want    why.Verdict
		summary string // a part of it
		missing string // a part of what is missing; "": nothing need be
	}{
		"no journal": {script: begin(), want: why.Never, summary: "nobody has logged in"},
		"another session": {script: begin().note(proxy, events.Entry{Kind: events.Event, Key: "bob", Event: "LoggedIn"}),
			want: why.Never},
		"a refresh": {
			script: begin().logsIn(proxy, "s.1", "", "t1").claims(call, "s.2", "s.1", "t1", 1).presents(call, "t1").
				hears(call, "t1", events.Got, 200, "t2").refreshed(call, "s.3", "s.2", "t2", 2),
			want: why.Alive, summary: "call (pid 901 on web-1) saved the token last"},
		"a load that is noted late": {
			script: begin().logsIn(proxy, "s.1", "", "t1").claims(call, "s.2", "s.1", "t1", 1).presents(call, "t1").
				hears(call, "t1", events.Refused, 401, "").ends(call, "s.3", "s.2", 1, rejected).
				loads(proxy, events.Entry{Version: "s.2", Generation: 1, Token: "t1", Claim: true}),
			want: why.Refused},
		"a refresh is under way": {
			script: begin().logsIn(proxy, "s.1", "", "t1").claims(call, "s.2", "s.1", "t1", 1).presents(call, "t1"),
			want:   why.Alive, summary: "call (pid 901 on web-1) is refreshing"},
		"a logout": {
			script: begin().logsIn(proxy, "s.1", "", "t1").saves(call, events.Entry{Version: "s.2", Prev: "s.1", Generation: 1, Ended: "logged out"}, events.Saved),
			want:   why.LoggedOut, summary: "logged out"},
		"a login after the end": {script: died().logsIn(call, "u.1", "s.4", "t9"), want: why.Alive},
		"revoked at FinCode": {
			script: begin().logsIn(proxy, "s.1", "", "t1").claims(proxy, "s.2", "s.1", "t1", 1).presents(proxy, "t1").
				hears(proxy, "t1", events.Refused, 401, "").ends(proxy, "s.3", "s.2", 1, rejected),
			want: why.Refused, summary: "401"},
		"a crash": {script: died(), want: why.Lost, summary: "proxy (pid 812 on web-1) presented the token, and died or hung"},
		"a crash, and the journal does not know what is complete": {script: died(), partial: true, want: why.Lost, summary: "proxy (pid 812"},
		"an answer that was lost": {
			script: begin().logsIn(proxy, "s.1", "", "t1").claims(proxy, "s.2", "s.1", "t1", 1).presents(proxy, "t1").
				note(proxy, events.Entry{Kind: events.Answered, Op: events.Refresh, Token: "t1", Outcome: events.Unknown, Error: "connection reset"}).
				claims(proxy, "s.3", "s.2", "t1", 1).presents(proxy, "t1").hears(proxy, "t1", events.Refused, 403, "").
				ends(proxy, "s.4", "s.3", 1, interrupted),
			want: why.Lost, summary: "connection reset"},
		"a crash with the answer": {
			script: begin().logsIn(proxy, "s.1", "", "t1").claims(proxy, "s.2", "s.1", "t1", 1).presents(proxy, "t1").
				hears(proxy, "t1", events.Got, 200, "t2").wait(30*time.Second).
				claims(call, "s.3", "s.2", "t1", 1).presents(call, "t1").hears(call, "t1", events.Refused, 403, "").
				ends(call, "s.4", "s.3", 1, interrupted),
			want: why.Lost, summary: "proxy (pid 812 on web-1) got the next token"},
		"a store that went back": {
			script: begin().logsIn(proxy, "s.1", "", "t1").claims(proxy, "s.2", "s.1", "t1", 1).presents(proxy, "t1").
				hears(proxy, "t1", events.Got, 200, "t2").refreshed(proxy, "s.3", "s.2", "t2", 2).
				loads(call, events.Entry{Version: "s.1", Generation: 1, Token: "t1"}).
				claims(call, "s.4", "s.1", "t1", 1).presents(call, "t1").hears(call, "t1", events.Refused, 403, "").
				ends(call, "s.5", "s.4", 1, reused),
			want: why.WentBack, summary: "proxy (pid 812 on web-1) had used"},
		"a store that went back, from another machine's token": {
			script: begin().loads(proxy, events.Entry{Version: "s.3", Generation: 5, Token: "t5"}).
				loads(proxy, events.Entry{Version: "s.1", Generation: 4, Token: "t4"}).
				claims(proxy, "s.4", "s.1", "t4", 4).presents(proxy, "t4").hears(proxy, "t4", events.Refused, 403, "").
				ends(proxy, "s.5", "s.4", 4, reused),
			partial: true, want: why.WentBack, summary: "had a later one before"},
		"an empty store": {
			script: begin().logsIn(proxy, "s.1", "", "t1").loads(proxy, events.Entry{}),
			want:   why.WentBack, summary: "has no record"},
		"a theft": {
			script: begin().logsIn(proxy, "s.1", "", "t1").claims(proxy, "s.2", "s.1", "t1", 1).presents(proxy, "t1").
				hears(proxy, "t1", events.Refused, 403, "").ends(proxy, "s.3", "s.2", 1, reused),
			want: why.Reused, summary: "none of our processes"},
		"a theft, and a crash after the refusal": {
			script: begin().logsIn(proxy, "s.1", "", "t1").claims(proxy, "s.2", "s.1", "t1", 1).presents(proxy, "t1").
				hears(proxy, "t1", events.Refused, 403, "").wait(30*time.Second).
				claims(call, "s.3", "s.2", "t1", 1).presents(call, "t1").hears(call, "t1", events.Refused, 403, "").
				ends(call, "s.4", "s.3", 1, interrupted),
			want: why.Reused},
		"a crash, and no request in the journal": {
			script: begin().logsIn(proxy, "s.1", "", "t1").claims(proxy, "s.2", "s.1", "t1", 1).wait(30*time.Second).
				claims(call, "s.3", "s.2", "t1", 1).presents(call, "t1").hears(call, "t1", events.Refused, 403, "").
				ends(call, "s.4", "s.3", 1, interrupted),
			want: why.Lost, missing: "lost power"},
		"entries that could not be written": {
			script: begin().logsIn(proxy, "s.1", "", "t1").note(call, events.Entry{Kind: events.Gap, Dropped: 3}).
				claims(proxy, "s.2", "s.1", "t1", 1).presents(proxy, "t1").
				hears(proxy, "t1", events.Refused, 403, "").ends(proxy, "s.3", "s.2", 1, reused),
			want: why.Unknown, missing: "could not be written"},
		"a theft, and an attempt of unknown outcome after the refusal": {
			script: begin().logsIn(proxy, "s.1", "", "t1").claims(proxy, "s.2", "s.1", "t1", 1).presents(proxy, "t1").
				hears(proxy, "t1", events.Refused, 403, "").wait(30*time.Second).
				claims(call, "s.3", "s.2", "t1", 1).presents(call, "t1").hears(call, "t1", events.Unknown, 500, "").
				claims(call, "s.4", "s.3", "t1", 1).presents(call, "t1").hears(call, "t1", events.Refused, 403, "").
				ends(call, "s.5", "s.4", 1, interrupted),
			want: why.Reused},
		"a logout that the store has lost": {
			script: begin().logsIn(proxy, "s.1", "", "t1").
				saves(call, events.Entry{Version: "s.2", Prev: "s.1", Generation: 1, Ended: "logged out"}, events.Saved).
				presents(call, "t1").hears(call, "t1", events.Got, 200, "t2").
				loads(proxy, events.Entry{Version: "s.1", Generation: 1, Token: "t1"}).
				claims(proxy, "s.3", "s.1", "t1", 1).presents(proxy, "t1").hears(proxy, "t1", events.Refused, 403, "").
				ends(proxy, "s.4", "s.3", 1, reused),
			want: why.WentBack, summary: "call (pid 901 on web-1) had used"},
		"a theft, or another machine": {
			script: begin().logsIn(proxy, "s.1", "", "t1").claims(proxy, "s.2", "s.1", "t1", 1).presents(proxy, "t1").
				hears(proxy, "t1", events.Refused, 403, "").ends(proxy, "s.3", "s.2", 1, reused),
			partial: true, want: why.Unknown, missing: "other machines"},
		"a token that was never presented before a gateway's answer": {
			script: begin().logsIn(proxy, "s.1", "", "t1").claims(proxy, "s.2", "s.1", "t1", 1).presents(proxy, "t1").
				hears(proxy, "t1", events.Untouched, 429, "").
				claims(proxy, "s.3", "s.2", "t1", 1).presents(proxy, "t1").hears(proxy, "t1", events.Refused, 403, "").
				ends(proxy, "s.4", "s.3", 1, reused),
			want: why.Reused},
		"a gap in the journal": {
			script: begin().loads(proxy, events.Entry{Version: "s.1", Generation: 7, Token: "t1"}).
				claims(proxy, "s.2", "s.1", "t1", 7).presents(proxy, "t1").
				hears(proxy, "t1", events.Refused, 403, "").ends(proxy, "s.3", "s.2", 7, reused),
			want: why.Unknown, missing: "their journals are not here"},
		"another machine's crash": {
			script: begin().loads(proxy, events.Entry{Version: "s.1", Generation: 7, Token: "t1", Claim: true}).
				claims(proxy, "s.2", "s.1", "t1", 7).presents(proxy, "t1").
				hears(proxy, "t1", events.Refused, 403, "").ends(proxy, "s.3", "s.2", 7, interrupted),
			partial: true, want: why.Unknown, summary: "most likely by a process that was interrupted"},
		"another machine's end": {
			script: begin().logsIn(proxy, "s.1", "", "t1").loads(proxy, events.Entry{Version: "s.9", Generation: 3, Ended: reused}),
			want:   why.Unknown, missing: "do not reach back"},
		"only the end of a journal": {
			script: begin().note(proxy, events.Entry{Kind: events.Saved, Key: "ada", Version: "s.2", Prev: "s.1"}),
			want:   why.Unknown, summary: "a part"},
	} {
		t.Run(name, func(t *testing.T) {
			story := why.Explain(test.script.entries, "ada", !test.partial)
			missing := strings.Join(story.Missing, "\n")
			if story.Verdict != test.want || !strings.Contains(story.Summary, test.summary) || !strings.Contains(missing, test.missing) {
				t.Errorf("the verdict is %q: %s\nmissing: %s\nwant %q with %q, and missing %q", story.Verdict, story.Summary, missing, test.want, test.summary, test.missing)
			}
			if story.Summary == "" || story.Verdict != why.Alive && story.Do == "" {
				t.Errorf("the story has the summary %q and says to do %q, want both", story.Summary, story.Do)
			}
		})
	}
}

// On two machines, the order of the Saves counts, and not the clocks.
func TestClocksOfTwoMachinesMayDiffer(t *testing.T) {
	for _, ahead := range []time.Duration{0, -3 * time.Hour, 3 * time.Hour} {
		here, there := begin(), begin()
		here.logsIn(proxy, "s.1", "", "t1").claims(proxy, "s.2", "s.1", "t1", 1).presents(proxy, "t1")
		there.wait(40*time.Second+ahead).loads(other, events.Entry{Version: "s.2", Generation: 1, Token: "t1", Claim: true}).
			claims(other, "s.3", "s.2", "t1", 1).presents(other, "t1").hears(other, "t1", events.Refused, 403, "").
			ends(other, "s.4", "s.3", 1, interrupted)
		for _, entries := range [][]events.Entry{append(here.entries, there.entries...), append(there.entries, here.entries...)} {
			story := why.Explain(entries, "ada", true)
			if story.Verdict != why.Lost || !strings.Contains(story.Summary, "proxy (pid 812 on web-1) presented") {
				t.Errorf("with a clock that is %v ahead, the verdict is %q: %s; want %q by the proxy on web-1", ahead, story.Verdict, story.Summary, why.Lost)
			}
		}
	}
}

// A container has another host name after each start, and the same journal.
func TestHostMayChangeItsName(t *testing.T) {
	s := begin().logsIn(proxy, "s.1", "", "t1")
	s.saves(other, events.Entry{Version: "s.2", Prev: "s.1", Generation: 1, Ended: "logged out"}, events.Saved)
	s.logsIn(other, "u.1", "", "t2")
	for i := range s.entries {
		s.entries[i].Journal = "events"
	}
	if story := why.Explain(s.entries, "ada", true); story.Verdict != why.Alive {
		t.Errorf("the verdict is %q: %s; want %q", story.Verdict, story.Summary, why.Alive)
	}
}

func TestStoryIsPrintedForAPerson(t *testing.T) {
	story := why.Explain(died().entries, "ada", true)
	var text bytes.Buffer
	if err := story.Write(&text, time.UTC); err != nil {
		t.Fatal(err)
	}
	const want = `ada: proxy (pid 812 on web-1) presented the token, and died or hung before it had the answer: the next token was in that answer
What to do: log in again: no alarm. Find out why processes or connections die
Not known: whether somebody else used the token at the same time: no client can tell that

Monday, 2 March 2026
  12:03:02  proxy (pid 812 on web-1) logged in.
  12:03:07  proxy (pid 812 on web-1) presented the refresh token, and then wrote nothing about the answer: it died, or is still waiting.
  12:03:34  call (pid 901 on web-1) took over the refresh of proxy (pid 812 on web-1) after 28s.
  12:03:36  call (pid 901 on web-1) presented the refresh token, and FinCode said that it was used before (403).
  12:03:39  call (pid 901 on web-1) found that the session needs a login: refresh token reused after an interruption: refresh-token answered 403.
`
	if text.String() != want {
		t.Errorf("Write prints\n%s\nwant\n%s", &text, want)
	}
	data, err := json.Marshal(story)
	if err != nil {
		t.Fatal(err)
	}
	var back why.Story
	if err := json.Unmarshal(data, &back); err != nil || back.Verdict != story.Verdict || len(back.Sentences) != 5 {
		t.Errorf("the JSON %s reads as %+v, %v", data, back, err)
	}
}

func TestLongStoryIsShortened(t *testing.T) {
	s := begin()
	for i := range 1000 {
		by := proxy
		if i%3 == 0 {
			by = call
		}
		s.note(by, events.Entry{Kind: events.Event, Key: "ada", Event: "Refreshed"})
	}
	story := why.Explain(s.entries, "ada", true)
	if len(story.Sentences) != 100 || story.Earlier < 100 || story.Sentences[98].Times+story.Sentences[99].Times < 2 {
		t.Errorf("the story has %d sentences, %d earlier ones, and ends with %+v; want 100, with repeated ones joined", len(story.Sentences), story.Earlier, story.Sentences[98:])
	}
}

// TestPrintedStoryDoesNotCommandTheTerminal: FinCode's answers are in the journal, and so is
// what other machines wrote.
func TestPrintedStoryDoesNotCommandTheTerminal(t *testing.T) {
	const evil = "\x1b]0;title\a\u009b31m\r\n\u202efine"
	s := begin().logsIn(events.Process{Host: evil, Command: evil}, "1", "", "t1")
	s.note(proxy, events.Entry{Kind: events.Event, Key: "ada", Event: "SaveFailed", Error: evil})
	story := why.Explain(s.entries, "ada", true)
	var text strings.Builder
	if err := story.Write(&text, time.UTC); err != nil {
		t.Fatal(err)
	}
	if strings.ContainsAny(text.String(), "\x1b\a\r\u009b\u202e") || strings.Contains(text.String(), "\nfine") {
		t.Errorf("%q", text.String())
	}
}
