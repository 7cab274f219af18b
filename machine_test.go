package fincodeauth_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/fincodetest"
	"github.com/fincodeauth/fincodeauth/internal/simulation"
)

// A machine has a wall clock and a monotonic clock, which move apart when it is
// suspended or its wall clock is set.
type machine struct {
	started time.Time
	ahead   atomic.Int64 // of the bubble's clock: the wall clock
	frozen  atomic.Int64 // how long the monotonic clock stood still
}

func newMachine() *machine { return &machine{started: time.Now()} }

// suspend lets nothing go on here for d but the wall clock. It is called by what
// runs on the machine.
func (m *machine) suspend(d time.Duration) {
	time.Sleep(d)
	m.frozen.Add(int64(d))
}

// set moves the wall clock.
func (m *machine) set(by time.Duration) { m.ahead.Add(int64(by)) }

// now is what time.Now is on the machine.
func (m *machine) now() time.Time {
	wall := time.Now().Add(time.Duration(m.ahead.Load()))
	return simulation.Reading(wall, time.Since(m.started)-time.Duration(m.frozen.Load()))
}

// newSessions is newSessions on the machine.
func (m *machine) newSessions(t *testing.T, fc *fincodetest.FinCode, edit ...func(*fincodeauth.Config)) *fincodeauth.Sessions {
	t.Helper()
	cfg := fincodeauth.Config{BaseURL: fincodeauth.Sandbox("test"), Base: fc}
	for _, e := range edit {
		e(&cfg)
	}
	sessions, err := fincodeauth.NewOn(cfg, m.now, func() float64 { return 0 })
	if err != nil {
		t.Fatal(err)
	}
	return sessions
}
