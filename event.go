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
	Key  string    // the session's; "" for a Passed whose request names no session, and for some JournalFailed
	Time time.Time // when it happened, by the local clock

	// Elapsed is how long it took: for LoggedIn, Refreshed and LoggedOut the
	// calls to FinCode; for RefreshFailed the whole refresh, with the waits for
	// other processes; for SaveFailed and Saved all attempts to save so far. It
	// is 0 for the others, and where FinCode was not called.
	Elapsed time.Duration

	// Err says why. It is set for RefreshFailed, SaveFailed, Ended (a
	// *SessionError), Passed, StoreReverted and JournalFailed, and for a LoggedOut
	// that FinCode did not confirm. It is nil for the others.
	Err error

	// TookOver: another process had claimed the refresh and then died, so this
	// process has made it. It is set for Refreshed, for a LoggedIn with
	// Config.Credentials, and for Ended.
	TookOver bool
}

// LogValue returns the event as a group with the attributes type, key, elapsed,
// took_over and error. error is a text. A zero value is left out, and so is Time,
// because a log record has its own.
func (e Event) LogValue() slog.Value { return slog.GroupValue(e.attrs()...) }

func (e Event) attrs() []slog.Attr {
	attrs := []slog.Attr{slog.String("type", e.Type.String())}
	if e.Key != "" {
		attrs = append(attrs, slog.String("key", e.Key))
	}
	if e.Elapsed != 0 {
		attrs = append(attrs, slog.Duration("elapsed", e.Elapsed))
	}
	if e.TookOver {
		attrs = append(attrs, slog.Bool("took_over", true))
	}
	if e.Err != nil {
		attrs = append(attrs, slog.String("error", e.Err.Error()))
	}
	return attrs
}

// LogEvents returns a function for Config.Observe that logs each event, with the
// attributes of Event.LogValue and at one of these levels:
//
//   - slog.LevelError: SaveFailed, StoreReverted, and an Ended that looks like a
//     breach (SessionError.Reused without Interrupted);
//   - slog.LevelWarn: any other Ended, RefreshFailed, JournalFailed, and a LoggedOut
//     with an Err;
//   - slog.LevelInfo: LoggedIn, Saved, Passed, and a LoggedOut without an Err;
//   - slog.LevelDebug: Refreshed, Adopted and Replayed, of which there are many.
//
// If logger is nil, each event goes to the slog.Default of that moment. The function
// is safe for concurrent use. Refreshes wait for the logger's handler, so the
// handler must not block.
func LogEvents(logger *slog.Logger) func(Event) {
	return func(e Event) {
		to := logger
		if to == nil {
			to = slog.Default()
		}
		if ctx := context.Background(); to.Enabled(ctx, e.level()) {
			to.LogAttrs(ctx, e.level(), "fincodeauth: "+e.message(), e.attrs()...)
		}
	}
}

// level is what LogEvents chooses.
func (e Event) level() slog.Level {
	switch e.Type {
	case Refreshed, Adopted, Replayed:
		return slog.LevelDebug
	case SaveFailed, StoreReverted:
		return slog.LevelError
	case Ended:
		if isBreach(e.Err) {
			return slog.LevelError
		}
		return slog.LevelWarn
	case RefreshFailed, JournalFailed:
		return slog.LevelWarn
	case LoggedOut:
		if e.Err != nil {
			return slog.LevelWarn
		}
	}
	return slog.LevelInfo
}

// An EventType says what happened. The zero value is no event.
type EventType uint8

const (
	// LoggedIn: a login succeeded: a call of Login, or one with
	// Config.Credentials.
	LoggedIn EventType = iota + 1
	// Refreshed: FinCode rotated the tokens for this process.
	Refreshed
	// RefreshFailed: a refresh failed, but the session has not ended. The refresh
	// is tried again when the session is used, after a pause.
	RefreshFailed
	// Adopted: this process now uses a token that was obtained elsewhere. Another
	// process or an earlier run saved it, or Adopt was called.
	Adopted
	// SaveFailed: the store did not accept a change. The event is sent for the
	// first failed attempt only. The change is a new token, which is in use
	// anyway, or the end of a session. In the second case Err has FinCode's
	// *EndpointError in its chain, if there was one, and Ended is sent once the
	// end is saved. The save is repeated until it succeeds, until a login replaces
	// the change, or until another process has ended or replaced the session. Page somebody if none of Saved, LoggedOut,
	// LoggedIn and Adopted follows.
	SaveFailed
	// Saved: a change is saved now, after a SaveFailed, or after a process left it in
	// a Journal.
	Saved
	// Ended: this process found that the session needs a login, and has saved that.
	Ended
	// Replayed: a request was sent again with a new token after a 401, whether the
	// API accepted it or not.
	Replayed
	// LoggedOut: one of three things. Logout ended the session. Forget removed its
	// record. Or a token was revoked that arrived after another process had logged
	// the session out, which says nothing about the session that is there now.
	LoggedOut
	// Passed: a request went out without a token, because its origin is not that
	// of BaseURL and not in Hosts. Err names the origin. The event is sent once
	// for each origin, for the first 100 origins. It is normal for redirects to
	// other hosts. If the API then answers 400 or 401, the request and BaseURL
	// probably spell one host in two ways, such as localhost and 127.0.0.1.
	Passed
	// StoreReverted: the store had gone back to an earlier state of the session,
	// or to none, and this process has saved what it knows to be newer. Err says
	// what was found and what was saved. The database has lost data, and may have
	// lost more: sessions that no living process knows.
	StoreReverted
	// JournalFailed: a Journal could not write, read or remove one of its files. Err
	// names the file or the folder, and says what to do. The event is sent once for
	// each file. The store works without the file, but if the process dies now, what
	// the store has not accepted may be lost. Key is "" if the file does not say
	// whose it is.
	JournalFailed
)

// eventTypes has the name of each constant, and the message that LogEvents logs.
var eventTypes = [...]struct{ name, message string }{
	LoggedIn:      {"LoggedIn", "session logged in"},
	Refreshed:     {"Refreshed", "token refreshed"},
	RefreshFailed: {"RefreshFailed", "refresh failed"},
	Adopted:       {"Adopted", "token adopted"},
	SaveFailed:    {"SaveFailed", "save failed, trying again"},
	Saved:         {"Saved", "save succeeded after a failure"},
	Ended:         {"Ended", "session ended, login needed"},
	Replayed:      {"Replayed", "request replayed"},
	LoggedOut:     {"LoggedOut", "session logged out"},
	Passed:        {"Passed", "request sent without a token"},
	StoreReverted: {"StoreReverted", "the store has gone back, newer state saved again"},
	JournalFailed: {"JournalFailed", "the journal failed"},
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

// message is what LogEvents logs.
func (e Event) message() string {
	switch {
	case e.Type == Ended && isBreach(e.Err):
		return "session ended, possible breach"
	case e.Type == LoggedOut && e.Err != nil:
		return "session logged out, but FinCode did not confirm it"
	case e.Type.isKnown():
		return eventTypes[e.Type].message
	}
	return e.Type.String()
}

func (t EventType) isKnown() bool { return int(t) < len(eventTypes) && eventTypes[t].name != "" }
