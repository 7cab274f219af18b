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
	seeds    = flag.Int("seeds", 500, "how many seeds are played")
	fromSeed = flag.Uint64("from", 1, "the first of them")
	oneSeed  = flag.Uint64("seed", 0, "play this seed alone, and show what happens")
	enough   = flag.Uint64("broken", 3, "stop after so many seeds that break a promise")
)

// TestSimulation plays what package internal/simulation is about.
func TestSimulation(t *testing.T) {
	if *oneSeed != 0 {
		result := play(t, *oneSeed, true)
		fmt.Println(strings.Join(result.Trace, "\n"))
		report(t, *oneSeed, result)
		return
	}
	defer debug.SetGCPercent(debug.SetGCPercent(400)) // a third faster, for 20 MB
	var next, failed atomic.Uint64
	next.Store(*fromSeed)
	var mu sync.Mutex
	var stats simulation.Stats
	t.Run("seeds", func(t *testing.T) {
		for range runtime.GOMAXPROCS(0) {
			t.Run("", func(t *testing.T) {
				t.Parallel()
				for {
					seed := next.Add(1) - 1
					if seed >= *fromSeed+uint64(*seeds) || failed.Load() >= *enough {
						return
					}
					result := play(t, seed, false)
					if len(result.Broken) > 0 {
						failed.Add(1)
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
		everythingHappened(t, &stats)
	}
}

// everythingHappened fails if something did not that the package is to survive.
func everythingHappened(t *testing.T, s *simulation.Stats) {
	for f, n := range s.Faults {
		if n == 0 {
			t.Errorf("it never happened: %v", simulation.Fault(f))
		}
	}
	if s.Takeovers == 0 || s.Interrupted == 0 || s.Breaches == 0 || slices.Contains(s.Events[fincodeauth.LoggedIn:], 0) {
		t.Errorf("there was no takeover, no end of a session, or an event is missing: %+v", *s)
	}
}

// play plays one seed in a bubble of its own.
func play(t *testing.T, seed uint64, trace bool) (result simulation.Result) {
	hangs := time.AfterFunc(time.Minute, func() { panic(fmt.Sprintf("seed %d hangs: %s", seed, again(seed))) })
	defer hangs.Stop()
	defer func() {
		if r := recover(); r != nil {
			stacks := make([]byte, 1<<20)
			t.Fatalf("seed %d: %v\n%s\n%s", seed, r, again(seed), stacks[:runtime.Stack(stacks, true)])
		}
	}()
	synctest.Test(t, func(t *testing.T) {
		// With GODEBUG=tracebacklabels=1, a panic of another goroutine tells the seed.
		pprof.Do(t.Context(), pprof.Labels("seed", fmt.Sprint(seed)), func(context.Context) {
			result = simulation.Run(seed, fincodeauth.NewOn, trace)
		})
	})
	return result
}

// again is the command that tells a seed's whole story.
func again(seed uint64) string {
	return fmt.Sprintf("go test -run '^TestSimulation$' -v . -seed %d", seed)
}

// report says what went wrong with a seed, what happened before, and how to see
// it all again.
func report(t *testing.T, seed uint64, result simulation.Result) {
	if len(result.Broken) == 0 {
		return
	}
	broken := slices.IndexFunc(result.Trace, func(line string) bool { return strings.Contains(line, "BROKEN") })
	before := []string{"(played again, it broke no promise: seeds do not decide everything)"}
	if broken >= 0 {
		before = result.Trace[max(0, broken-40) : broken+1]
	}
	t.Errorf("seed %d:\n\t%s\nwhat happened before the first of them:\n\t%s\nthe whole story:\n\t%s",
		seed, strings.Join(result.Broken, "\n\t"), strings.Join(before, "\n\t"), again(seed))
}

// TestSeedDecidesEverything: what happens at one instant may do so in any order,
// and changes nothing; but of two callers who come at one, the second may join the
// first, or fail by itself as the first did.
func TestSeedDecidesEverything(t *testing.T) {
	for seed := *fromSeed; seed < *fromSeed+uint64(*seeds); seed++ {
		once, again := play(t, seed, true).Trace, play(t, seed, true).Trace
		once, again = sortedSet(once), sortedSet(again)
		if !slices.Equal(once, again) {
			i := 0
			for i < min(len(once), len(again)) && once[i] == again[i] {
				i++
			}
			t.Fatalf("seed %d: line %d of the sorted trace was\n\t%s\nand is\n\t%s", seed, i, once[i], again[i])
		}
	}
}

func sortedSet(lines []string) []string {
	slices.Sort(lines)
	return slices.Compact(lines)
}
