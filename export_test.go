package fincodeauth

import "time"

// NewOn is New on a machine whose clock and chance are these: for the
// simulation.
var NewOn = newOn

// ClaimIsOld reports whether a claim that was made at since must be renewed before it is
// used. Package simulation, which makes the times, cannot be imported by tests of this
// package.
func ClaimIsOld(since, now time.Time, timeout time.Duration) bool {
	return (&claim{since: since}).isOld(now, timeout)
}
