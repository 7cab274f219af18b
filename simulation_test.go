package fincodeauth_test

import (
	"context"
	"flag"
	"fmt"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/internal/simulation"
)

var (
	seeds     = flag.Int("seeds", 500, "how many seeds to play")
	fromSeed  = flag.Uint64("from", 1, "the first seed to play")
	oneSeed   = flag.Uint64("seed", 0, "play only this seed, and print all that happens")
	maxBroken = flag.Uint64("broken", 3, "stop after this many seeds that break a promise")
)

// TestSimulation plays many seeds in the world of package internal/simulation, and
// fails if one of them breaks a promise of the package.
func TestSimulation(t *testing.T) {
	if *oneSeed != 0 {
		result := play(t, *oneSeed, true)
		fmt.Println(strings.Join(result.Trace, "\n"))
		report(t, *oneSeed, result)
		return
	}
	defer debug.SetGCPercent(debug.SetGCPercent(400)) // a third faster, for 20 MB more
	var next, broken atomic.Uint64
	next.Store(*fromSeed)
	var mu sync.Mutex
	var stats simulation.Stats
	t.Run("seeds", func(t *testing.T) {
		for range runtime.GOMAXPROCS(0) {
			t.Run("", func(t *testing.T) {
				t.Parallel()
				for {
					seed := next.Add(1) - 1
					if seed >= *fromSeed+uint64(*seeds) || broken.Load() >= *maxBroken {
						return
					}
					result := play(t, seed, false)
					if len(result.Broken) > 0 {
						broken.Add(1)
						result.Trace = play(t, seed, true).Trace
						report(t, seed, result)
					}
					mu.Lock()
					stats.Add(result.Stats)
					mu.Unlock()
				}
			})
		}
	})
	stats.Print(t.Output())
	if *seeds >= 5000 && !t.Failed() {
		wantEverythingHappened(t, &stats)
	}
}

// wantEverythingHappened checks that each fault and each event happened at least once.
// If one never happened, the simulation did not test that the package survives it.
func wantEverythingHappened(t *testing.T, s *simulation.Stats) {
	for f, n := range s.Faults {
		if n == 0 && simulation.Fault(f) != simulation.DeleteLost { // only Forget of a damaged record deletes, and no record is damaged
			t.Errorf("this fault never happened, want it at least once: %v", simulation.Fault(f))
		}
	}
	if s.SeveralKeys == 0 || s.Reloads == 0 {
		t.Errorf("%d seeds had several keys, and %d sessions were dropped and loaded again; want some of each", s.SeveralKeys, s.Reloads)
	}
	if s.Takeovers == 0 || s.Interrupted == 0 || s.Breaches == 0 || slices.Contains(s.Events[fincodeauth.LoggedIn:fincodeauth.Passed], 0) || s.Events[fincodeauth.StoreReverted] == 0 {
		t.Errorf("there was no takeover, no interrupted session, no breach or no event of some type; want each of them: %+v", *s)
	}
}

// play plays one seed.
func play(t *testing.T, seed uint64, trace bool) (result simulation.Result) {
	inBubble(t, fmt.Sprintf("seed %d", seed), commandFor(seed), func() {
		result = simulation.Run(seed, fincodeauth.NewOn, trace)
	})
	return result
}

// inBubble calls do, which plays what, in a synctest bubble of its own. command plays
// it again and prints all that happens.
func inBubble(t *testing.T, what, command string, do func()) {
	watchdog := time.AfterFunc(time.Minute, func() { panic(fmt.Sprintf("%s hangs: %s", what, command)) })
	defer watchdog.Stop()
	defer func() {
		if r := recover(); r != nil {
			stacks := make([]byte, 1<<20)
			t.Fatalf("%s panicked: %v\nthe whole story: %s\n%s", what, r, command, stacks[:runtime.Stack(stacks, true)])
		}
	}()
	synctest.Test(t, func(t *testing.T) {
		// With GODEBUG=tracebacklabels=1, the stack of every goroutine shows the label.
		pprof.Do(t.Context(), pprof.Labels("plays", what), func(context.Context) { do() })
	})
}

// commandFor returns the command that plays a seed again and prints all that happens.
func commandFor(seed uint64) string {
	return fmt.Sprintf("go test -run '^TestSimulation$' -v . -seed %d", seed)
}

// report fails if the seed broke a promise.
func report(t *testing.T, seed uint64, result simulation.Result) {
	reportBroken(t, fmt.Sprintf("seed %d", seed), commandFor(seed), result)
}

// reportBroken fails if a promise was broken. It prints the promise, what happened
// before, and the command that prints everything.
func reportBroken(t *testing.T, what, command string, result simulation.Result) {
	if len(result.Broken) == 0 {
		return
	}
	first := slices.IndexFunc(result.Trace, func(line string) bool { return strings.Contains(line, "BROKEN") })
	before := []string{"(no promise was broken when this was played again, so it is not always the same)"}
	if first >= 0 {
		before = result.Trace[max(0, first-40) : first+1]
	}
	// TestPlantedBugsAreFound reads the first two lines.
	t.Errorf("%s:\n\t%s\nwhat happened before the first broken promise:\n\t%s\nthe whole story:\n\t%s",
		what, strings.Join(result.Broken, "\n\t"), strings.Join(before, "\n\t"), command)
}

// TestSeedDecidesEverything checks that a seed tells the same story each time. Only
// the order within one instant may differ, so the lines are sorted. Of two callers at
// one instant, the second may join the flight of the first, or fail by itself in the
// same way, so equal lines count once.
func TestSeedDecidesEverything(t *testing.T) {
	for seed := *fromSeed; seed < *fromSeed+uint64(*seeds); seed++ {
		first, second := sortedSet(play(t, seed, true).Trace), sortedSet(play(t, seed, true).Trace)
		if !slices.Equal(first, second) {
			i := 0
			for i < min(len(first), len(second)) && first[i] == second[i] {
				i++
			}
			t.Fatalf("seed %d: two plays differ in line %d of the sorted trace, want the same lines. The first play has\n\t%s\nand the second has\n\t%s",
				seed, i, lineOf(first, i), lineOf(second, i))
		}
	}
}

// sortedSet sorts lines, and removes the lines that are there more than once.
func sortedSet(lines []string) []string {
	slices.Sort(lines)
	return slices.Compact(lines)
}

// lineOf returns line i, or says that lines has no such line.
func lineOf(lines []string, i int) string {
	if i < len(lines) {
		return lines[i]
	}
	return "(no more lines)"
}
