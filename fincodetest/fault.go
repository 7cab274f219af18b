package fincodetest

import (
	"bytes"
	"cmp"
	"io"
	"net/http"
	"time"
)

// An Operation is a kind of call.
type Operation string

const (
	Login   Operation = "login"
	Refresh Operation = "refresh"
	Logout  Operation = "logout"
	API     Operation = "api" // every call under the root but those three
)

// A Fault is one way for a call to go wrong. The zero value changes nothing.
type Fault struct {
	// Before passes before the call takes effect. If the caller leaves meanwhile, it does not take effect.
	Before time.Duration

	// After passes between the effect (of a refresh, the rotation) and the answer. If the caller leaves meanwhile, the call has
	// taken effect all the same.
	After time.Duration

	Kind Kind // what comes back; 0: FinCode's own answer

	// TakesEffect says that the call does what it asks for although its answer is replaced: a refresh rotates, and the next
	// tokens are lost. False: it does nothing. Kinds that spoil FinCode's own answer always take effect.
	TakesEffect bool

	Status     int    // of an ErrorStatus (0: 500), a FirewallPage (0: 403) or a Redirect (0: 307)
	RetryAfter string // the header's value, in seconds or an HTTP-date; "": no such header
	Location   string // where a Redirect leads
}

// A Kind is what comes back from a call.
type Kind int

const (
	OwnAnswer    Kind = iota // FinCode's own answer: for latency alone
	HangUp                   // the connection closes without an answer (net/http itself may then repeat a GET)
	ErrorStatus              // FinCode's error envelope with any status: 5xx, 429, 401
	FirewallPage             // a page of HTML that is not FinCode's
	Garbage                  // status 200 and a body that is not JSON
	Truncated                // FinCode's own answer, whose connection breaks halfway through the body
	Oversized                // FinCode's own answer, made longer than 1 MiB with white space: still JSON
	Redirect                 // to Location
)

// An injected fault waits for the next left calls; left < 0: for all of them.
type injected struct {
	fault Fault
	left  int
}

// Inject applies the fault to the next n calls of op, or, if n is negative, to all until [FinCode.ClearFaults]. Faults injected
// before are used up first. One call has one fault.
func (f *FinCode) Inject(op Operation, n int, fault Fault) {
	if n == 0 {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults[op] = append(f.faults[op], &injected{fault, n})
}

// ClearFaults forgets all faults. Calls that one has already befallen go on with it.
func (f *FinCode) ClearFaults() {
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.faults)
}

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

func (t Fault) takesEffect() bool {
	return t.TakesEffect || t.Kind == OwnAnswer || t.Kind == Truncated || t.Kind == Oversized
}

// spoil returns what comes back instead of a, or an error for a hang-up.
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
