package why_test

import (
	"flag"
	"fmt"
	"maps"
	"reflect"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/cmd/fincode/internal/events"
	"github.com/fincodeauth/fincodeauth/cmd/fincode/internal/why"
	"github.com/fincodeauth/fincodeauth/internal/machine"
	"github.com/fincodeauth/fincodeauth/internal/simulation"
)

var (
	seeds    = flag.Int("seeds", 200, "how many seeds to play")
	fromSeed = flag.Uint64("from", 1, "the first seed to play")
	maxShown = flag.Int("wrong", 3, "print this many stories whose verdict is wrong")
)

// TestWhyIsRightInTheSimulation plays seeds of the simulation, in which every machine has a
// journal of events that survives its processes. Whenever a session ends, it asks Explain
// twice, and compares the verdict with the truth: with the journals of all machines, and
// with that of the machine that told the end.
//
// What is right was decided before the first run:
//
//   - With all journals, the verdict that wanted names, and nothing else. There is one
//     exception: a token was stolen, or delivered twice by the network, and an attempt of a
//     process was open as well (simulation.End.Open). No client can tell whether that
//     attempt or the other use came first. Then Lost and Reused are both right.
//   - A request that the network delivers twice looks to a client like somebody else's use,
//     so Reused is right for it, and the Story says so.
//   - With one journal of several, Unknown is right if a thief, the network or another
//     machine used the token first, because nothing in that journal can show it. It is
//     wrong if a process of the same machine did.
//   - Reused is never right if a process used the token first, whatever else happened.
func TestWhyIsRightInTheSimulation(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(400))
	var next atomic.Uint64
	next.Store(*fromSeed)
	tables := []*table{{name: "all journals"}, {name: "one journal"}}
	t.Run("seeds", func(t *testing.T) {
		for range runtime.GOMAXPROCS(0) {
			t.Run("", func(t *testing.T) {
				t.Parallel()
				for {
					seed := next.Add(1) - 1
					if seed >= *fromSeed+uint64(*seeds) {
						return
					}
					judge(t, seed, tables)
				}
			})
		}
	})
	for _, table := range tables {
		table.check(t)
	}
}

// TestWatchingChangesNothing checks that a seed does the same with and without journals.
func TestWatchingChangesNothing(t *testing.T) {
	for seed := *fromSeed; seed < *fromSeed+20; seed++ {
		var alone, watched simulation.Result
		synctest.Test(t, func(*testing.T) { alone = simulation.Run(seed, boot, false) })
		synctest.Test(t, func(*testing.T) { watched = simulation.RunWatched(seed, boot, false, &witness{}) })
		if !reflect.DeepEqual(alone, watched) {
			t.Errorf("seed %d: with journals there is another result:\n%+v\nwant\n%+v", seed, watched, alone)
		}
	}
}

// judge plays a seed and adds its ends to the tables.
func judge(t *testing.T, seed uint64, tables []*table) {
	w := &witness{}
	synctest.Test(t, func(t *testing.T) {
		result := simulation.RunWatched(seed, boot, false, w)
		if len(result.Broken) > 0 {
			t.Errorf("seed %d breaks a promise: %v", seed, result.Broken[0])
		}
	})
	for _, end := range w.ends {
		if end.Replaced {
			continue // there is another state by now, so that is what Explain tells
		}
		all := slices.Clone(end.journals[end.Process.Machine()])
		for name, j := range end.journals {
			if name != end.Process.Machine() {
				all = append(all, j...)
			}
		}
		tables[0].add(seed, end, why.Explain(all, end.Key, true), false)
		alone := len(end.journals) == 1
		tables[1].add(seed, end, why.Explain(end.journals[end.Process.Machine()], end.Key, alone), !alone)
	}
}

// boot starts Sessions on a simulated machine.
func boot(cfg fincodeauth.Config, now func() time.Time, random func() float64) (*fincodeauth.Sessions, error) {
	cfg.Base = &machine.Base{RoundTripper: cfg.Base, Now: now, Random: random}
	return fincodeauth.New(cfg)
}

// A witness keeps the journals of the machines of one seed.
type witness struct {
	mu       sync.Mutex
	journals map[string][]events.Entry // by machine
	started  map[string]int            // processes, by machine
	ends     []ending
}

// An ending is the end of a session, and the journals at that time.
type ending struct {
	simulation.End
	journals map[string][]events.Entry
}

func (w *witness) Watch(cfg *fincodeauth.Config, by simulation.Process) {
	w.mu.Lock()
	if w.journals == nil {
		w.journals, w.started = make(map[string][]events.Entry), make(map[string]int)
	}
	w.started[by.Machine()]++
	process := events.Process{Host: by.Machine(), PID: w.started[by.Machine()], Command: "proxy"}
	w.mu.Unlock()
	journal, err := events.To(func(e events.Entry) { w.write(e, by) }, process, []byte("key"), by.Now)
	if err != nil {
		panic(err)
	}
	cfg.Base, cfg.Store = journal.RoundTripper(cfg.Base), journal.Store(cfg.Store)
	observe := cfg.Observe
	cfg.Observe = func(e fincodeauth.Event) {
		journal.Observe(e)
		observe(e)
	}
}

// write adds an entry, unless its process is dead.
func (w *witness) write(e events.Entry, by simulation.Process) {
	if by.IsDead() {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	e.Journal = by.Machine()
	w.journals[e.Process.Host] = append(w.journals[e.Process.Host], e)
}

func (w *witness) Ended(end simulation.End) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := make(map[string][]events.Entry)
	for name, entries := range w.journals {
		now[name] = entries[:len(entries):len(entries)]
	}
	w.ends = append(w.ends, ending{end, now})
}

// wanted returns the verdicts that are right with all journals.
func wanted(end *simulation.End) []why.Verdict {
	switch end.Truth {
	case simulation.Revoked:
		return []why.Verdict{why.Refused}
	case simulation.Stolen, simulation.Doubled:
		if end.Open {
			return []why.Verdict{why.Reused, why.Lost}
		}
		return []why.Verdict{why.Reused}
	case simulation.WentBack:
		return []why.Verdict{why.WentBack}
	case simulation.LostAnswer, simulation.Died, simulation.Overslept, simulation.NotSaved:
		return []why.Verdict{why.Lost}
	}
	return nil
}

// A table counts verdicts.
type table struct {
	name string

	mu      sync.Mutex
	counts  map[string]map[why.Verdict]int // by truth
	total   int
	unknown int // that were right
	wrong   []string
	alarms  []string // Reused, although a process used the token
}

// add compares a story with the truth. partial says that journals of other machines are
// missing.
func (a *table) add(seed uint64, end ending, story why.Story, partial bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.total++
	truth := end.Truth.String()
	if end.Open && (end.Truth == simulation.Stolen || end.Truth == simulation.Doubled) {
		truth += ", attempt open"
	}
	if a.counts == nil {
		a.counts = make(map[string]map[why.Verdict]int)
	}
	if a.counts[truth] == nil {
		a.counts[truth] = make(map[why.Verdict]int)
	}
	a.counts[truth][story.Verdict]++
	elsewhere := end.User == nil || end.Truth == simulation.Doubled || end.User.Machine() != end.Process.Machine()
	switch {
	case slices.Contains(wanted(&end.End), story.Verdict):
		return
	case story.Verdict == why.Unknown && partial && elsewhere:
		a.unknown++
		return
	}
	var text strings.Builder
	fmt.Fprintf(&text, "seed %d, %v %s: the truth is %q, and why says: ", seed, end.Process.Name(), end.Key, truth)
	_ = story.Write(&text, time.UTC)
	a.wrong = append(a.wrong, text.String())
	if story.Verdict == why.Reused && end.User != nil && end.Truth != simulation.Doubled {
		a.alarms = append(a.alarms, text.String())
	}
}

var verdicts = []why.Verdict{why.Refused, why.Reused, why.Lost, why.WentBack, why.Unknown, why.Alive, why.LoggedOut, why.Never}

// check prints the table, and fails if too much is wrong.
func (a *table) check(t *testing.T) {
	var text strings.Builder
	fmt.Fprintf(&text, "with %s: %d ends, %d wrong, %d unknown where nobody could know, %d false alarms\n", a.name, a.total, len(a.wrong), a.unknown, len(a.alarms))
	fmt.Fprintf(&text, "%32s", "")
	for _, v := range verdicts {
		fmt.Fprintf(&text, "%17s", v)
	}
	for _, truth := range slices.Sorted(maps.Keys(a.counts)) {
		fmt.Fprintf(&text, "\n%32s", truth)
		for _, v := range verdicts {
			fmt.Fprintf(&text, "%17d", a.counts[truth][v])
		}
	}
	t.Log(text.String())
	if len(a.alarms) > 0 {
		t.Errorf("why says a theft %d times although a process used the token, want never: %s", len(a.alarms), a.alarms[0])
	}
	for _, story := range a.wrong[:min(len(a.wrong), *maxShown)] {
		t.Logf("with %s, wrong:\n%s", a.name, story)
	}
	if a.total == 0 || len(a.wrong)*1000 > a.total {
		t.Errorf("with %s, %d of %d verdicts are wrong, want at most one in 1000", a.name, len(a.wrong), a.total)
	}
}
