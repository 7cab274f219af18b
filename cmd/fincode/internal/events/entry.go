// Package events keeps a local journal of what happens to sessions, for fincode why.
//
//	entry.go    what a line of the journal says
//	journal.go  the Journal, and the events of fincodeauth in it
//	calls.go    what is presented to FinCode, and what FinCode answers
//	answer.go   what an answer means for the refresh token
//	records.go  what is loaded from the store and saved in it
//	file.go     two files, to which many processes append
//	read.go     reading them
//
// The journal has no token, only keyed hashes of refresh tokens. Two journals have the
// same hash of a token if they were opened with the same key.
//
// A session never waits long for its journal, and never fails because of it. A process
// that is killed loses no entry that it has written. A power failure may lose the last
// ones.
package events

import "time"

// A Process is who writes entries.
type Process struct {
	Host    string    `json:"host"`
	PID     int       `json:"pid"`
	Started time.Time `json:"started"` // tells processes with one PID apart
	Command string    `json:"command"` // such as "proxy" or "call"
}

// A Kind says what an entry is about. The comments name the fields that are set, besides
// Time and Process.
type Kind string

const (
	// Event: fincodeauth sent an event. Event, Key, Error, Elapsed, Reused, Interrupted,
	// TookOver.
	Event Kind = "event"

	// Presenting: a request with a refresh token is about to leave. Op, Token.
	Presenting Kind = "presenting"

	// Answered: what became of a login or of such a request. Op, Token (not for a login),
	// Outcome, Next, Status, Error.
	Answered Kind = "answered"

	// Loaded: the store has another record than this process knew. Key, and the record.
	// Without a Version, the store has no record.
	Loaded Kind = "loaded"

	// Saving: a record is about to be saved. Key, Prev, and the record.
	Saving Kind = "saving"

	// Saved, Conflicted and Unsaved: what became of that. Unsaved: nobody knows whether
	// the store has it. Key, Version, Prev, Error.
	Saved      Kind = "saved"
	Conflicted Kind = "conflict"
	Unsaved    Kind = "unsaved"

	// Gap: the process could not write its entries before this one. Dropped.
	Gap Kind = "gap"
)

// An Outcome is what an answer means for the refresh token.
type Outcome string

const (
	Got       Outcome = "got"       // FinCode has sent the next token
	Refused   Outcome = "refused"   // 401 or 403 by FinCode itself: the token is dead
	Untouched Outcome = "untouched" // FinCode certainly did not use the token
	Unknown   Outcome = "unknown"   // FinCode may have used the token
	Done      Outcome = "done"      // a logout succeeded
)

// The operations of FinCode, as in fincodeauth.EndpointError.Op.
const (
	Login   = "login"
	Refresh = "refresh-token"
	Logout  = "logout"
)

// An Entry is one line of the journal.
type Entry struct {
	Time    time.Time `json:"time"` // by the wall clock of the host
	Process Process   `json:"process"`
	Kind    Kind      `json:"kind"`
	Key     string    `json:"key,omitempty"` // of the session

	Event       string        `json:"event,omitempty"` // a fincodeauth.EventType
	Elapsed     time.Duration `json:"elapsed_ns,omitempty"`
	Reused      bool          `json:"reused,omitempty"`
	Interrupted bool          `json:"interrupted,omitempty"`
	TookOver    bool          `json:"took_over,omitempty"`
	Error       string        `json:"error,omitempty"`

	Dropped int `json:"dropped,omitempty"` // how many entries

	Op      string  `json:"op,omitempty"`
	Token   string  `json:"token,omitempty"` // keyed hash of the refresh token; of a record: of the one in it
	Next    string  `json:"next,omitempty"`  // keyed hash of the refresh token that arrived
	Outcome Outcome `json:"outcome,omitempty"`
	Status  int     `json:"status,omitempty"` // of HTTP

	Version    string `json:"version,omitempty"` // of the record
	Prev       string `json:"prev,omitempty"`    // the version that it replaces; "": there is none
	Generation int    `json:"generation,omitempty"`
	Claim      bool   `json:"claim,omitempty"` // it says that a process is refreshing
	Ended      string `json:"ended,omitempty"` // why the session ended

	// Journal is the folder that the entry was read from. Read sets it.
	Journal string `json:"-"`
}

// IsRecord reports whether the entry has a record.
func (e *Entry) IsRecord() bool { return e.Kind == Loaded || e.Kind == Saving }
