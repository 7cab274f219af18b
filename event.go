package fincodeauth

import "time"

// An Event is something that happened to a session. Config.Observe receives
// each one, for logs and metrics; it holds no token.
type Event struct {
	Type EventType
	Key  string    // the session's
	Time time.Time // when it happened, local clock

	// Elapsed is how long it took: the call to FinCode of LoggedIn, Refreshed
	// and LoggedOut, all of a RefreshFailed, waits for other processes
	// included, the attempts to save of SaveFailed and Saved. 0 for the others.
	Elapsed time.Duration

	// Err is why: of RefreshFailed, SaveFailed, Ended (a *SessionError) and of a
	// LoggedOut that FinCode could not be told of. nil for the others.
	Err error
}

// EventType tells Events apart.
type EventType uint8

const (
	// LoggedIn: a Login succeeded, one made with Config.Credentials included.
	LoggedIn EventType = iota + 1
	// Refreshed: FinCode rotated the tokens for this process.
	Refreshed
	// RefreshFailed: a refresh failed and will be tried again on use.
	RefreshFailed
	// Adopted: a token that was obtained elsewhere is in use now: another
	// process, or an earlier run, saved it, or Adopt was called.
	Adopted
	// SaveFailed: the store did not take a change: a new token, which is in use all
	// the same, or the end of a session, which Ended tells once it is saved; then
	// FinCode's EndpointError is in the chain of Err, if there was one. It is tried
	// again until it lands. Page somebody if neither Saved nor LoggedOut follows.
	SaveFailed
	// Saved: a change whose save had failed is durable now.
	Saved
	// Ended: this process found that the session needs a login, and has saved that.
	Ended
	// Replayed: a request was sent again with a new token after a 401.
	Replayed
	// LoggedOut: Logout removed the session, or a token was revoked that arrived
	// after the session had been logged out or replaced by a login: that says
	// nothing about the session that is there now.
	LoggedOut
)

var eventNames = [...]string{
	LoggedIn:      "LoggedIn",
	Refreshed:     "Refreshed",
	RefreshFailed: "RefreshFailed",
	Adopted:       "Adopted",
	SaveFailed:    "SaveFailed",
	Saved:         "Saved",
	Ended:         "Ended",
	Replayed:      "Replayed",
	LoggedOut:     "LoggedOut",
}

// String returns the constant's name.
func (t EventType) String() string {
	if int(t) < len(eventNames) && eventNames[t] != "" {
		return eventNames[t]
	}
	return "EventType(?)"
}
