package page

import (
	"errors"
	"testing"
	"time"

	"github.com/fincodeauth/fincodeauth"
)

func TestStatesAreInWordsOfAnOperator(t *testing.T) {
	now := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	in := func(d time.Duration) time.Time { return now.Add(d) }
	good := fincodeauth.Status{Exists: true, Expiry: in(time.Hour), RefreshAt: in(55 * time.Minute)}
	with := func(change func(*fincodeauth.Status)) fincodeauth.Status {
		st := good
		change(&st)
		return st
	}
	down := errors.New("the store is down")
	for _, tt := range []struct {
		name   string
		status fincodeauth.Status
		err    error
		note   note
		want   State
		title  string
		detail string
	}{
		{"good", good, nil, note{}, Ready, "Ready", ""},
		{"last refresh failed", good, nil, note{refreshError: "503"}, Ready, "Ready", "The last refresh failed: 503"},
		{"fixed token", with(func(s *fincodeauth.Status) { s.RefreshAt = time.Time{} }), nil, note{}, Ready, "Ready", ""},
		{"fixed token expired", with(func(s *fincodeauth.Status) { s.RefreshAt, s.Expiry = time.Time{}, in(-1) }), nil, note{}, Login, "Login needed: the token has expired", ""},
		{"unknown expiry", with(func(s *fincodeauth.Status) { s.RefreshAt, s.Expiry = time.Time{}, time.Time{} }), nil, note{}, Ready, "Ready", ""},
		{"idle", with(func(s *fincodeauth.Status) { s.RefreshAt = in(-time.Minute) }), nil, note{}, Due, "Refresh due", ""},
		{"long idle", with(func(s *fincodeauth.Status) { s.RefreshAt, s.Expiry = in(-time.Hour), in(-time.Minute) }), nil, note{}, Overdue, "Refresh overdue", ""},
		{"refreshing", with(func(s *fincodeauth.Status) { s.RefreshStarted = in(-time.Second) }), nil, note{}, Refreshing, "Refreshing", ""},
		{"a process died", with(func(s *fincodeauth.Status) { s.RefreshStarted = in(-time.Minute) }), nil, note{}, Overdue, "Refresh overdue", ""},
		{"unsaved", with(func(s *fincodeauth.Status) { s.Unsaved = true }), nil, note{saveError: "disk full"}, Unsaved, "Not saved yet", "disk full"},
		{"unsaved, store down", with(func(s *fincodeauth.Status) { s.Unsaved = true }), down, note{}, Unsaved, "Not saved yet", "the store is down"},
		{"store down", good, down, note{}, Unknown, "Store fails", "the store is down"},
		{"no session", fincodeauth.Status{}, nil, note{}, Login, "Login needed: there is no session", ""},
		{"refused", fincodeauth.Status{Exists: true, Ended: "refresh token rejected"}, nil, note{}, Login, "Login needed: FinCode ended the session", "refresh token rejected"},
		{"interrupted", fincodeauth.Status{Exists: true, Ended: "x", Reused: true, Interrupted: true}, nil, note{}, Login, "Login needed: a refresh was interrupted", "x"},
		{"breach", fincodeauth.Status{Exists: true, Ended: "x", Reused: true}, nil, note{}, Breach, "Possible breach: somebody else used the refresh token", "x"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := describe(tt.status, tt.err, tt.note, now, "fincode login")
			if got.State != tt.want || got.Title != tt.title || got.Detail != tt.detail {
				t.Errorf("got %s %q %q, want %s %q %q", got.State, got.Title, got.Detail, tt.want, tt.title, tt.detail)
			}
			if calm := got.State == Ready || got.State == Refreshing; calm != (got.Advice == "") {
				t.Errorf("state %s has the advice %q", got.State, got.Advice)
			}
		})
	}
}

func TestEveryEventHasWords(t *testing.T) {
	for e := fincodeauth.LoggedIn; e <= fincodeauth.JournalFailed; e++ {
		if _, ok := eventWords[e]; !ok {
			t.Errorf("%v has no words", e)
		}
	}
	if n := len(eventWords); n != int(fincodeauth.JournalFailed) {
		t.Errorf("%d events have words, want %d", n, fincodeauth.JournalFailed)
	}
	if next := fincodeauth.JournalFailed + 1; next.String() != "EventType(13)" {
		t.Errorf("%v is new: give it words", next)
	}
}

func TestEventsSayWhatMatters(t *testing.T) {
	stolen := &fincodeauth.SessionError{Key: "a", Reused: true, Err: errors.New("x")}
	lost := &fincodeauth.SessionError{Key: "a", Reused: true, Interrupted: true, Err: errors.New("x")}
	for _, tt := range []struct {
		event fincodeauth.Event
		text  string
		level string
		mark  Mark
	}{
		{fincodeauth.Event{Type: fincodeauth.Refreshed}, "Token refreshed", info, MarkRefreshed},
		{fincodeauth.Event{Type: fincodeauth.Refreshed, TookOver: true}, "Token refreshed, taken over from a process that died", info, MarkTookOver},
		{fincodeauth.Event{Type: fincodeauth.Ended, Err: stolen}, "Session ended: possible breach", serious, MarkEnded},
		{fincodeauth.Event{Type: fincodeauth.Ended, Err: lost}, "Session ended, login needed", warning, MarkEnded},
		{fincodeauth.Event{Type: fincodeauth.Ended, TookOver: true, Err: lost}, "Session ended, login needed, taken over from a process that died", warning, MarkEnded},
		{fincodeauth.Event{Type: fincodeauth.LoggedOut, Err: errors.New("x")}, "Logged out, but FinCode did not confirm it", warning, ""},
		{fincodeauth.Event{Type: 200}, "EventType(200)", info, ""},
	} {
		got := inWords(tt.event)
		if got.Text != tt.text || got.Level != tt.level || got.Mark != tt.mark {
			t.Errorf("%v: got %q %s %q, want %q %s %q", tt.event, got.Text, got.Level, got.Mark, tt.text, tt.level, tt.mark)
		}
	}
}
