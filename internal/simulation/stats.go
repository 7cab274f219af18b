package simulation

import (
	"fmt"
	"io"
	"time"

	"github.com/fincodeauth/fincodeauth"
)

// Stats count what happened. They show that the bad cases did happen.
type Stats struct {
	Seeds         int
	SeveralKeys   int           // seeds with several keys
	Reloads       int           // a process began to use a token again that it had handed out before
	Simulated     time.Duration // time in the bubbles
	Calls, Waits  int           // calls for a token, and those that had to wait
	Presentations int           // of refresh tokens
	Rotations     int           // at FinCode
	Takeovers     int
	Unheard       int // presentations whose process never knew the outcome
	Interrupted   int // sessions that ended with SessionError.Interrupted
	Breaches      int // sessions that ended with Reused and without Interrupted
	Events        [fincodeauth.JournalFailed + 1]int
	Faults        [faults]int
}

// Add adds the numbers of o.
func (s *Stats) Add(o Stats) {
	s.Seeds += o.Seeds
	s.SeveralKeys += o.SeveralKeys
	s.Reloads += o.Reloads
	s.Simulated += o.Simulated
	s.Calls += o.Calls
	s.Waits += o.Waits
	s.Presentations += o.Presentations
	s.Rotations += o.Rotations
	s.Takeovers += o.Takeovers
	s.Unheard += o.Unheard
	s.Interrupted += o.Interrupted
	s.Breaches += o.Breaches
	for i := range s.Events {
		s.Events[i] += o.Events[i]
	}
	for i := range s.Faults {
		s.Faults[i] += o.Faults[i]
	}
}

// Print writes the numbers to w.
func (s *Stats) Print(w io.Writer) {
	fmt.Fprintf(w, "%d seeds, %.1f simulated years: %d calls (%d waited), %d rotations, %d presentations, %d with an unknown outcome, %d takeovers\n",
		s.Seeds, s.Simulated.Hours()/24/365, s.Calls, s.Waits, s.Rotations, s.Presentations, s.Unheard, s.Takeovers)
	fmt.Fprintf(w, "%d seeds with several keys: sessions that were dropped from memory were loaded again %d times\n", s.SeveralKeys, s.Reloads)
	fmt.Fprintf(w, "sessions ended: %d interrupted, %d reused and not interrupted\n", s.Interrupted, s.Breaches)
	for t := fincodeauth.LoggedIn; int(t) < len(s.Events); t++ {
		fmt.Fprintf(w, "%9d  event %v\n", s.Events[t], t)
	}
	for f := range Fault(faults) {
		fmt.Fprintf(w, "%9d  %v\n", s.Faults[f], f)
	}
}
