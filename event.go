package fincodeauth

import (
	"context"
	"fmt"
	"log/slog"
	"time"
)

// An Event is something that happened to a session. Config.Observe receives
// each one, for logs (LogEvents) and metrics. It holds no token.
type Event struct {
	Type EventType
	Key  string    // the session's
	Time time.Time // when it happened, by the local clock

	// Elapsed is how long it took: for LoggedIn, Refreshed and LoggedOut the
	// calls to FinCode; for RefreshFailed the whole refresh, with the waits for
	// other processes; for SaveFailed and Saved the attempts to save. It is 0
	// for the others.
	Elapsed time.Duration

	// Err is the reason. It is set for RefreshFailed, SaveFailed, Ended (a
	// *SessionError) and Passed, and for a LoggedOut that FinCode did not
	// confirm. It is nil for the others.
	Err error
}

// LogValue returns the event as a group: its type, key, elapsed time and error's
// text. What it does not have is left out.
func (e Event) LogValue() slog.Value { return slog.GroupValue(e.attrs()...) }

func (e Event) attrs() []slog.Attr {
	attrs := []slog.Attr{slog.String("type", e.Type.String()), slog.String("key", e.Key)}
	if e.Elapsed != 0 {
		attrs = append(attrs, slog.Duration("elapsed", e.Elapsed))
	}
	if e.Err != nil {
		attrs = append(attrs, slog.String("error", e.Err.Error()))
	}
	return attrs
}

// LogEvents returns a function for Config.Observe that logs each event, with the
// attributes of Event.LogValue:
//
//   - as an error: SaveFailed, and an Ended that looks like a breach
//     (SessionError.Reused without Interrupted);
//   - as a warning: any other Ended, RefreshFailed, and a LoggedOut that FinCode
//     did not confirm;
//   - for debugging: Refreshed, Adopted and Replayed, of which there are many;
//   - as information: all others.
//
// A nil logger stands for slog.Default at each event. The function may be called
// concurrently, as the logger may. It returns when the logger's handler does.
func LogEvents(logger *slog.Logger) func(Event) {
	return func(e Event) {
		to := logger
		if to == nil {
			to = slog.Default()
		}
		to.LogAttrs(context.Background(), e.level(), "fincodeauth: "+e.Type.what(), e.attrs()...)
	}
}

// level is what LogEvents chooses.
func (e Event) level() slog.Level {
	switch e.Type {
	case Refreshed, Adopted, Replayed:
		return slog.LevelDebug
	case SaveFailed:
		return slog.LevelError
	case Ended:
		if isBreach(e.Err) {
			return slog.LevelError
		}
		return slog.LevelWarn
	case RefreshFailed:
		return slog.LevelWarn
	case LoggedOut:
		if e.Err != nil {
			return slog.LevelWarn
		}
	}
	return slog.LevelInfo
}

// EventType tells Events apart.
type EventType uint8

const (
	// LoggedIn: a Login succeeded, one made with Config.Credentials included.
	LoggedIn EventType = iota + 1
	// Refreshed: FinCode rotated the tokens for this process.
	Refreshed
	// RefreshFailed: a refresh failed. It is tried again on use.
	RefreshFailed
	// Adopted: this process now uses a token that was obtained elsewhere: another
	// process, or an earlier run, saved it, or Adopt was called.
	Adopted
	// SaveFailed: the store did not accept a change. The change is a new token,
	// which is in use all the same, or the end of a session, which Ended tells
	// once it is saved; Err then has FinCode's EndpointError in its chain, if
	// there was one. The save is repeated until it succeeds. Page somebody if
	// neither Saved nor LoggedOut follows.
	SaveFailed
	// Saved: a change whose save had failed is durable now.
	Saved
	// Ended: this process found that the session needs a login, and has saved that.
	Ended
	// Replayed: a request was sent again with a new token after a 401.
	Replayed
	// LoggedOut: Logout ended the session, or Forget removed its record, or a
	// token was revoked that arrived after the session had been logged out or
	// replaced by a login. The last says nothing about the session that is there
	// now.
	LoggedOut
	// Passed: a request went out without a token, because neither Config.BaseURL
	// nor Config.Hosts has its origin. Err names the origin. This is told once for
	// each origin, and for the first 100 of them. It is normal for redirects to
	// other hosts. If the API then answers 400 or 401, the request and BaseURL
	// probably spell one host in two ways, such as localhost and 127.0.0.1.
	Passed
)

// eventTypes are the names of the constants, and what LogEvents says.
var eventTypes = [...]struct{ name, what string }{
	LoggedIn:      {"LoggedIn", "session logged in"},
	Refreshed:     {"Refreshed", "token refreshed"},
	RefreshFailed: {"RefreshFailed", "refresh failed"},
	Adopted:       {"Adopted", "token adopted"},
	SaveFailed:    {"SaveFailed", "save failed"},
	Saved:         {"Saved", "save succeeded"},
	Ended:         {"Ended", "session ended"},
	Replayed:      {"Replayed", "request replayed"},
	LoggedOut:     {"LoggedOut", "session logged out"},
	Passed:        {"Passed", "request sent without a token"},
}

// String returns the constant's name.
func (t EventType) String() string {
	if t.isKnown() {
		return eventTypes[t].name
	}
	return fmt.Sprintf("EventType(%d)", uint8(t))
}

// MarshalText returns what String returns, for JSON and other text formats.
func (t EventType) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

func (t EventType) what() string {
	if t.isKnown() {
		return eventTypes[t].what
	}
	return t.String()
}

func (t EventType) isKnown() bool { return int(t) < len(eventTypes) && eventTypes[t].name != "" }
