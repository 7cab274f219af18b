package fincodetest

import (
	"cmp"
	"slices"
)

// Counts says what a FinCode has seen.
type Counts struct {
	Logins       int // successful logins
	RefreshCalls int // all refresh calls, with those that failed
	Refreshes    int // successful refreshes: rotations
	Reuses       int // refreshes refused (403) because the token had been used
	Rejected     int // refreshes refused (401) because the token was unknown, expired or revoked
	Logouts      int // successful logouts
	APICalls     int // all API calls, with those that failed
	APIRejected  int // API calls that FinCode answered with 401; those of a fault do not count

	// MaxParallelRefreshes is the largest number of refreshes of one session that
	// were in flight at the same time. On a socket, a call whose caller has left is
	// in flight until the server notices that.
	MaxParallelRefreshes int
}

// A Presentation says how often a refresh token was presented. It does not have
// the token itself.
type Presentation struct {
	Family int // the session: 1 for the first successful login, and so on
	Serial int // 1 for the first refresh token of the session, and so on
	Times  int // refresh calls with the token, with those that had a fault
	Reuses int // those of them that FinCode refused because the token had been used
}

// Counts returns the counts so far.
func (f *FinCode) Counts() Counts {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.counts
}

// Presented returns the number of refresh calls with the token. Calls that had a
// fault count too.
func (f *FinCode) Presented(refreshToken string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	if t := f.refresh[refreshToken]; t != nil {
		return t.presented
	}
	return 0
}

// PresentedMoreThanOnce returns the refresh tokens that were in more than one
// refresh call, ordered by Family and Serial.
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

// arrive counts the call. The caller must call the function that arrive returns
// when the call is done, and before its answer is sent. A client that has the
// answer may begin the next refresh, which must not count as parallel.
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
