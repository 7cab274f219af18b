package fincodeauth

import (
	"time"
)

// Stats are figures of the sessions in this process's memory, for metrics.
type Stats struct {
	InMemory int // sessions in memory, at most about Config.MaxSessions
	Unsaved  int // those of them whose last change the store has not accepted yet

	// SoonestExpiry is when the first of their tokens that are still good stops being
	// used: a few seconds before it expires. Zero: there is none, or nobody knows when
	// they expire.
	SoonestExpiry time.Time
}

// Stats returns figures of the sessions in this process's memory. It calls neither the
// store nor FinCode. It looks at each session, so with 100,000 of them it takes
// milliseconds.
func (a *Sessions) Stats() Stats {
	var st Stats
	if a.check() != nil {
		return st
	}
	now := a.env.now()
	soonest := int64(never)
	for s := range a.sessions.all {
		if s.dropped.Load() {
			continue
		}
		st.InMemory++
		if s.unsavedError() != nil {
			st.Unsaved++
		}
		if l := s.lease.Load(); l.valid(now) {
			soonest = min(soonest, l.expireAt)
		}
	}
	if soonest != never {
		st.SoonestExpiry = time.Unix(0, soonest)
	}
	return st
}
