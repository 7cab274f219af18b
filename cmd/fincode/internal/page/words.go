package page

import (
	"errors"
	"time"

	"github.com/fincodeauth/fincodeauth"
)

// A State is what a session is like, for scripts. The zero value is not a state.
type State string

const (
	Ready      State = "ready"
	Due        State = "due"        // it is time for a refresh, and nobody has used the session since
	Refreshing State = "refreshing" // a process is presenting the refresh token
	Overdue    State = "overdue"    // the token has expired, or a refresh does not end
	Unsaved    State = "unsaved"    // the store has not accepted the new token yet
	Login      State = "login"      // a login is needed
	Breach     State = "breach"     // somebody else used the refresh token
	Unknown    State = "unknown"    // the store failed
)

// stuckAfter is how long a refresh takes at most, if its process lives: twice the
// default of fincodeauth.Config.RefreshTimeout.
const stuckAfter = 30 * time.Second

// A Session says how a session is, in words. It holds no token.
type Session struct {
	Key     string `json:"key"`
	State   State  `json:"state"`
	Title   string `json:"title"`             // the state in a few words
	Advice  string `json:"advice,omitempty"`  // what to do
	Command string `json:"command,omitempty"` // what to run after that
	Detail  string `json:"detail,omitempty"`  // an error, as the package reports it

	Issued         time.Time `json:"issued,omitzero"` // when the access token was issued, by FinCode's clock
	Expiry         time.Time `json:"expiry,omitzero"`
	RefreshAt      time.Time `json:"refresh_at,omitzero"`
	RefreshStarted time.Time `json:"refresh_started,omitzero"`
	Rotated        time.Time `json:"rotated,omitzero"` // when this process last got a new token

	User  string   `json:"user,omitempty"`
	Roles []string `json:"roles,omitempty"`

	rev uint64 // of the poll that found it changed
}

// A note is what the events of this process said last about a session.
type note struct {
	refreshError string // of the last refresh, if it failed
	saveError    string // of the last save, if it failed
	rotated      time.Time
}

// take notes what an event says.
func (n *note) take(e fincodeauth.Event) {
	switch e.Type {
	case fincodeauth.LoggedIn, fincodeauth.Refreshed, fincodeauth.Adopted:
		n.refreshError, n.rotated = "", e.Time
		// A token in use says nothing about the save: see Saved.
	case fincodeauth.RefreshFailed:
		n.refreshError = errorText(e.Err)
	case fincodeauth.SaveFailed:
		n.saveError = errorText(e.Err)
	case fincodeauth.Saved, fincodeauth.Ended, fincodeauth.LoggedOut:
		n.saveError = ""
	}
}

// describe puts a Status into words. err is that of Sessions.Status. login is the
// command that logs in.
func describe(st fincodeauth.Status, err error, n note, now time.Time, login string) Session {
	s := Session{
		Key:            st.Key,
		Issued:         st.Claims.Issued,
		Expiry:         st.Expiry,
		RefreshAt:      st.RefreshAt,
		RefreshStarted: st.RefreshStarted,
		Rotated:        n.rotated,
		User:           st.Claims.UserID,
		Roles:          st.Claims.Roles,
	}
	switch {
	case st.Unsaved: // also if the store fails: then this is why it matters
		s.State, s.Title, s.Detail = Unsaved, "Not saved yet", n.saveError
		s.Advice = "The store has not accepted the last change. If this process dies now, the change is lost, unless the journal has it. Keep the process running, and check the store."
		if err != nil && s.Detail == "" {
			s.Detail = err.Error()
		}
	case err != nil:
		s.State, s.Title, s.Detail = Unknown, "Store fails", err.Error()
		s.Advice = "Nobody knows how the session is now. Requests work while the token in memory is good. Check the store."
	case st.Ended != "":
		s.describeEnd(st, login)
	case !st.Exists:
		s.State, s.Title = Login, "Login needed: there is no session"
		s.Advice, s.Command = "Nobody has logged in, or somebody logged out. Log in with:", login
	default:
		s.describeToken(n, now, login)
	}
	return s
}

// describeEnd says why a session ended.
func (s *Session) describeEnd(st fincodeauth.Status, login string) {
	s.Detail, s.Command = st.Ended, login
	switch {
	case st.Reused && !st.Interrupted:
		s.State, s.Title = Breach, "Possible breach: somebody else used the refresh token"
		s.Advice = "Find out who: another program of yours with a copy of the token, or a thief. Then log in with:"
	case st.Reused || st.Interrupted:
		s.State, s.Title = Login, "Login needed: a refresh was interrupted"
		s.Advice = "This is not a breach: the answer to an earlier refresh was lost. Log in with:"
	default:
		s.State, s.Title = Login, "Login needed: FinCode ended the session"
		s.Advice = "Log in with:"
	}
}

// describeToken says how the token of a session is that has not ended.
func (s *Session) describeToken(n note, now time.Time, login string) {
	expired := !s.Expiry.IsZero() && !now.Before(s.Expiry)
	switch {
	case !s.RefreshStarted.IsZero() && now.Sub(s.RefreshStarted) > stuckAfter:
		s.State, s.Title = Overdue, "Refresh overdue"
		s.Advice = "The process that began the refresh has probably died. The next request takes over."
	case !s.RefreshStarted.IsZero():
		s.State, s.Title = Refreshing, "Refreshing"
	case s.RefreshAt.IsZero() && expired:
		s.State, s.Title = Login, "Login needed: the token has expired"
		s.Advice, s.Command = "There is no refresh token. Log in with:", login
	case s.RefreshAt.IsZero() || now.Before(s.RefreshAt):
		s.State, s.Title = Ready, "Ready"
	case expired:
		s.State, s.Title = Overdue, "Refresh overdue"
		s.Advice = "The access token has expired. The next request waits for a refresh."
	default:
		s.State, s.Title = Due, "Refresh due"
		s.Advice = "The next request starts the refresh. It does not wait for it."
	}
	if n.refreshError != "" && s.State != Login {
		s.Detail = "The last refresh failed: " + n.refreshError
	}
}

// A Mark is where an event appears on the timeline of rotations. "": nowhere.
type Mark string

const (
	MarkRefreshed Mark = "refreshed"
	MarkTookOver  Mark = "took-over"
	MarkElsewhere Mark = "elsewhere"
	MarkSavedLate Mark = "saved-late"
	MarkFailed    Mark = "failed"
	MarkEnded     Mark = "ended"
)

// An Event is an event of a session, in words.
type Event struct {
	Number uint64    `json:"number"` // counts from 1, without gaps
	Time   time.Time `json:"time"`
	Key    string    `json:"key,omitempty"`
	Type   string    `json:"type"`  // the name of a fincodeauth.EventType
	Level  string    `json:"level"` // info, warning or error
	Mark   Mark      `json:"mark,omitempty"`
	Text   string    `json:"text"`
	Error  string    `json:"error,omitempty"`
	TookMS int64     `json:"took_ms,omitempty"`
}

const (
	info    = "info"
	warning = "warning"
	serious = "error"
)

// eventWords has what each type of event is called, and where it appears.
var eventWords = map[fincodeauth.EventType]struct {
	text, level string
	mark        Mark
}{
	fincodeauth.LoggedIn:      {"Logged in", info, ""},
	fincodeauth.Refreshed:     {"Token refreshed", info, MarkRefreshed},
	fincodeauth.RefreshFailed: {"Refresh failed, will be tried again", warning, MarkFailed},
	fincodeauth.Adopted:       {"Token of another process in use", info, MarkElsewhere},
	fincodeauth.SaveFailed:    {"Not saved, trying again", serious, MarkFailed},
	fincodeauth.Saved:         {"Saved after a failure", info, MarkSavedLate},
	fincodeauth.Ended:         {"Session ended, login needed", warning, MarkEnded},
	fincodeauth.Replayed:      {"Request sent again after a 401", info, ""},
	fincodeauth.LoggedOut:     {"Logged out", info, ""},
	fincodeauth.Passed:        {"Request sent without a token", info, ""},
	fincodeauth.StoreReverted: {"The store had gone back, newer state saved again", serious, MarkFailed},
	fincodeauth.JournalFailed: {"The journal failed", warning, ""},
}

// inWords puts an event into words.
func inWords(e fincodeauth.Event) Event {
	w, known := eventWords[e.Type]
	if !known {
		w.text, w.level = e.Type.String(), info
	}
	switch {
	case e.Type == fincodeauth.Ended && isBreach(e.Err):
		w.text, w.level = "Session ended: possible breach", serious
	case e.Type == fincodeauth.LoggedOut && e.Err != nil:
		w.text, w.level = "Logged out, but FinCode did not confirm it", warning
	case e.TookOver && e.Type == fincodeauth.Refreshed:
		w.text, w.mark = "Token refreshed, taken over from a process that died", MarkTookOver
	case e.TookOver:
		w.text += ", taken over from a process that died"
	}
	return Event{
		Time:   e.Time.UTC(),
		Key:    e.Key,
		Type:   e.Type.String(),
		Level:  w.level,
		Mark:   w.mark,
		Text:   w.text,
		Error:  errorText(e.Err),
		TookMS: e.Elapsed.Milliseconds(),
	}
}

// isBreach reports whether a session ended because somebody else used its token.
func isBreach(err error) bool {
	e, ok := errors.AsType[*fincodeauth.SessionError](err)
	return ok && e.Reused && !e.Interrupted
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
