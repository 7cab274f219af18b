package fincodetest

import (
	"bytes"
	"cmp"
	"io"
	"net/http"
	"time"
)

// An Operation is a kind of call: what a [Fault] can be injected into.
type Operation string

const (
	Login   Operation = "login"
	Refresh Operation = "refresh"
	Logout  Operation = "logout"
	API     Operation = "api" // every other call under the root
)

// A Fault is one way in which a call can go wrong. The zero value changes nothing.
type Fault struct {
	// Before is how long the call waits before it takes effect. If the caller
	// leaves during this time, the call does not take effect. 0: it does not wait.
	Before time.Duration

	// After is how long the call waits between its effect (of a refresh, the
	// rotation) and its answer. If the caller leaves during this time, the call
	// has taken effect all the same. 0: it does not wait.
	After time.Duration

	Kind Kind // what the caller gets; 0: FinCode's own answer

	// TakesEffect says that the call takes effect although another answer is
	// sent: a refresh rotates, and the new tokens are lost. False: the call does
	// nothing. It makes no difference for OwnAnswer, Truncated and Oversized,
	// which always take effect.
	TakesEffect bool

	Status     int    // of an ErrorStatus (0: 500), a FirewallPage (0: 403) or a Redirect (0: 307)
	RetryAfter string // the header's value: seconds or an HTTP-date; "": no such header
	Location   string // the target of a Redirect
}

// A Kind is what the caller gets from a call with a [Fault].
type Kind int

const (
	OwnAnswer    Kind = iota // FinCode's own answer; use it with Before and After
	HangUp                   // the connection closes without an answer (net/http may then repeat a GET by itself)
	ErrorStatus              // FinCode's error envelope with the fault's Status: 5xx, 429, 401
	FirewallPage             // an HTML page that is not from FinCode
	Garbage                  // status 200 and a body that is not JSON
	Truncated                // FinCode's own answer, but the connection breaks after half of the body
	Oversized                // FinCode's own answer, made longer than 1 MiB with white space: still JSON
	Redirect                 // to the fault's Location
)

// An injected fault applies to the next left calls. If left is negative, it
// applies to all calls.
type injected struct {
	fault Fault
	left  int
}

// Inject applies the fault to the next n calls of op. If n is negative, it applies
// the fault to all calls until [FinCode.ClearFaults]. If n is 0, it does nothing.
// Each call has at most one fault. Faults that were injected earlier are used up
// first.
func (f *FinCode) Inject(op Operation, n int, fault Fault) {
	if n == 0 {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults[op] = append(f.faults[op], &injected{fault, n})
}

// ClearFaults removes all faults. A call that already has a fault keeps it.
func (f *FinCode) ClearFaults() {
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.faults)
}

// nextFault removes the next fault of op from the queue and returns it.
func (f *FinCode) nextFault(op Operation) Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	queue := f.faults[op]
	if len(queue) == 0 {
		return Fault{}
	}
	first := queue[0]
	first.left--
	if first.left == 0 {
		f.faults[op] = queue[1:]
	}
	return first.fault
}

// takesEffect reports whether a call with the fault does what it asks for.
func (t Fault) takesEffect() bool {
	return t.TakesEffect || t.Kind == OwnAnswer || t.Kind == Truncated || t.Kind == Oversized
}

// spoil returns the answer to send instead of a. For a hang-up it returns an error.
func (t Fault) spoil(a answer) (answer, error) {
	switch t.Kind {
	case HangUp:
		return answer{}, io.ErrUnexpectedEOF
	case ErrorStatus:
		a = failure(cmp.Or(t.Status, http.StatusInternalServerError), "injected")
	case FirewallPage:
		a = newAnswer(cmp.Or(t.Status, http.StatusForbidden), "text/html", []byte("<html><body>Request blocked.</body></html>"))
	case Garbage:
		a = newAnswer(http.StatusOK, "application/json", []byte("}{ not JSON"))
	case Truncated:
		a.cut = true
	case Oversized:
		a.body = append(bytes.Repeat([]byte(" "), 1<<20), a.body...)
	case Redirect:
		a = newAnswer(cmp.Or(t.Status, http.StatusTemporaryRedirect), "text/plain", nil)
		a.header.Set("Location", t.Location)
	}
	if t.RetryAfter != "" {
		a.header.Set("Retry-After", t.RetryAfter)
	}
	return a, nil
}
