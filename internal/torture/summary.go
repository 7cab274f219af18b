package torture

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// summary returns what happened in the store and at FinCode.
func (r *run) summary() string {
	var claims, tooLate, takeovers int
	for _, saves := range r.saves {
		for _, s := range saves {
			if s.tooLate() {
				tooLate++
			}
		}
	}
	for _, all := range r.claims {
		claims += len(all)
		for _, c := range all {
			if r.tookOver(c) {
				takeovers++
			}
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "rotations        %d, with %d claims; %d more saves were too late\n", r.rotations(), claims, tooLate)
	fmt.Fprintf(&b, "kills            %d, and connections were cut %d times\n", len(r.killed), len(r.cuts))
	fmt.Fprintf(&b, "takeovers        %d\n", takeovers)
	ends := r.ends()
	fmt.Fprintf(&b, "sessions ended   %d\n", len(ends))
	for _, end := range ends {
		fmt.Fprintf(&b, "                 %s: %s\n", end.Key, r.whyEnded(end))
	}
	fmt.Fprintf(&b, "requests failed  %d\n", len(r.failures))
	excuses := make(map[string]int)
	for _, f := range r.failures {
		excuse, _ := r.excuse(f)
		excuses[excuse]++
	}
	for _, excuse := range slices.Sorted(maps.Keys(excuses)) {
		fmt.Fprintf(&b, "                 %d: %s\n", excuses[excuse], excuse)
	}
	return b.String()
}

// summary returns what the children counted. The counts of a killed child lack its
// last moments.
func (s *supervisor) summary() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var sum counts
	for _, c := range s.counts {
		sum.Requests += c.Requests
		sum.Longest = max(sum.Longest, c.Longest)
	}
	return fmt.Sprintf("requests         %d\nlongest request  %v\n", sum.Requests, sum.Longest.Round(time.Millisecond))
}

// history returns what any process did to the session of b, from 4 RefreshTimeouts
// before the breach to one after it.
func (r *run) history(b breach) string {
	if b.key == "" {
		return ""
	}
	from, to := b.at.Add(-4*r.refreshTimeout), b.at.Add(r.refreshTimeout)
	var text strings.Builder
	for _, e := range r.entries {
		concerns := e.Key == b.key || e.Token != "" && r.key[e.Token] == b.key || e.Did == Killed || e.Did == Cut || e.Did == Broke
		if concerns && e.At.After(from) && e.At.Before(to) {
			fmt.Fprintln(&text, e)
		}
	}
	return text.String()
}

// String returns e as a line of a history.
func (e Entry) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %-10s %s", e.At.Format("15:04:05.000000"), e.By, e.Did)
	for _, part := range []struct{ name, value string }{
		{"token", e.Token}, {"as version", e.Version}, {"over", e.Prev}, {"result", e.Result},
	} {
		if part.value != "" {
			fmt.Fprintf(&b, ", %s %s", part.name, part.value)
		}
	}
	if !e.Began.IsZero() {
		fmt.Fprintf(&b, ", after %v", e.At.Sub(e.Began).Round(time.Millisecond))
	}
	return b.String()
}
