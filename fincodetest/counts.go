package fincodetest

import (
	"cmp"
	"slices"
)

// Counts is what a FinCode has seen.
type Counts struct {
	Logins       int // that succeeded
	RefreshCalls int // all of them, whatever came of them
	Refreshes    int // that succeeded: rotations
	Reuses       int // refreshes refused (403) because the token had been used
	Rejected     int // refreshes refused (401) because the token was unknown, expired or revoked
	Logouts      int // that succeeded
	APICalls     int // all of them, whatever came of them
	APIRejected  int // API calls that FinCode itself, not a fault, answered with 401

	// MaxParallelRefreshes is the most refreshes of one session that were ever in flight together. On a socket, a call that its
	// caller has given up is in flight until the server has noticed.
	MaxParallelRefreshes int
}

// A Presentation says how often a refresh token came in. It does not hold the token.
type Presentation struct {
	Family int // the session: 1 for the first successful login, and so on
	Serial int // 1 for the first refresh token of the session, and so on
	Times  int // in how many refresh calls it came, those that a fault befell among them
	Reuses int // how many of them came after it had been used
}

// Counts returns a snapshot.
func (f *FinCode) Counts() Counts {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.counts
}

// Presented returns in how many refresh calls the token came, those that a fault befell among them.
func (f *FinCode) Presented(refreshToken string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	if t := f.refresh[refreshToken]; t != nil {
		return t.presented
	}
	return 0
}

// PresentedMoreThanOnce returns the refresh tokens that came in more than one refresh call, by session and age.
func (f *FinCode) PresentedMoreThanOnce() []Presentation {
	f.mu.Lock()
	defer f.mu.Unlock()
	var list []Presentation
	for _, t := range f.refresh {
		if t.presented > 1 {
			list = append(list, Presentation{t.family.id, t.serial, t.presented, t.reuses})
		}
	}
	slices.SortFunc(list, func(a, b Presentation) int {
		return cmp.Or(cmp.Compare(a.Family, b.Family), cmp.Compare(a.Serial, b.Serial))
	})
	return list
}

// arrive counts the call in. The function it returns counts it out again, before its answer is sent: a client that has the
// answer may begin the next refresh, and that one is not parallel.
func (f *FinCode) arrive(c *call) (depart func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch c.op {
	case API:
		f.counts.APICalls++
	case Refresh:
		f.counts.RefreshCalls++
		if t := f.refresh[c.fields.RefreshToken]; t != nil {
			t.presented++
			t.family.inFlight++
			f.counts.MaxParallelRefreshes = max(f.counts.MaxParallelRefreshes, t.family.inFlight)
			return func() {
				f.mu.Lock()
				defer f.mu.Unlock()
				t.family.inFlight--
			}
		}
	}
	return func() {}
}
