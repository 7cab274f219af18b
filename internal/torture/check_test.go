package torture

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// Each check finds the broken promise that it is for, and no check finds anything
// in a run that kept every promise. All cases are about one session. Times are in
// milliseconds, and RefreshTimeout is 1,000 of them.
func TestEachBrokenPromiseIsFound(t *testing.T) {
	const interrupted = "refresh token reused after an interruption: 403"
	begun := saving(0, "supervisor", "t1", "v1", "")
	claimed := slices.Concat(begun, claiming(100, "a", "t1", "v2", "v1"), presenting(110, "a", "t1", "200"))
	rotated := slices.Concat(claimed, saving(150, "a", "t2", "v3", "v2"))
	dead := slices.Concat(begun, claiming(100, "a", "t1", "v2", "v1"), presenting(110, "a", "t1", ""), killing(120, "a"))
	takenOver := slices.Concat(dead, claiming(2200, "b", "t1", "v3", "v2"), presenting(2210, "b", "t1", "403"))
	givenBack := slices.Concat(begun, claiming(50, "a", "t1", "v7", "v1"), saving(60, "a", "t1", "v1'", "v7"))
	afterwards := slices.Concat(claiming(100, "b", "t1", "v2", "v1'"), presenting(110, "b", "t1", "200"), saving(150, "b", "t2", "v3", "v2"))
	lost := slices.Concat(takenOver, ending(2260, "b", "v4", "v3", interrupted))

	for name, c := range map[string]struct {
		entries []Entry
		broken  string // part of what is found; "": nothing is found
	}{
		"a rotation":                {rotated, ""},
		"a claim that was too late": {slices.Concat(rotated, saved(claiming(100, "b", "t1", "v9", "v1"), conflict)), ""},
		"a takeover that succeeds": {slices.Concat(dead, claiming(2200, "b", "t1", "v3", "v2"),
			presenting(2210, "b", "t1", "200"), saving(2260, "b", "t2", "v4", "v3")), ""},
		"a session lost by a kill": {lost, ""},
		"killed while it saved, which landed": {slices.Concat(claimed, saving(150, "a", "t2", "v3", "v2")[:1], killing(151, "a"),
			claiming(900, "b", "t2", "v4", "v3"), presenting(910, "b", "t2", "200"), saving(950, "b", "t3", "v5", "v4")), ""},

		"presented without a claim":        {slices.Concat(begun, presenting(110, "a", "t1", "403")), "without a claim"},
		"presented after a claim too late": {slices.Concat(rotated, saved(claiming(100, "b", "t1", "v9", "v1"), conflict), presenting(2300, "b", "t1", "403")), "without a claim"},
		"presented again by the same":      {slices.Concat(rotated, presenting(300, "a", "t1", "403")), "after a, which was alive"},
		"taken over from the living":       {slices.Concat(claimed, claiming(2200, "b", "t1", "v3", "v2"), presenting(2210, "b", "t1", "403")), "after a, which was alive"},
		"taken over before the kill":       {slices.Concat(claimed, claiming(2200, "b", "t1", "v3", "v2"), presenting(2210, "b", "t1", "403"), killing(2220, "a")), "after a, which was alive"},
		"taken over too soon":              {slices.Concat(dead, claiming(2050, "b", "t1", "v3", "v2"), presenting(2060, "b", "t1", "403")), "may be taken over after 2s"},
		"presented again though replaced":  {slices.Concat(rotated, killing(160, "a"), claiming(2200, "b", "t1", "v4", "v2"), presenting(2210, "b", "t1", "403")), "which had saved its successor"},

		"ended without a kill":        {slices.Concat(claimed, ending(160, "a", "v3", "v2", interrupted)), "no kill explains"},
		"ended by a kill afterwards":  {slices.Concat(claimed, ending(160, "a", "v3", "v2", interrupted), killing(500, "a")), "no kill explains"},
		"ended as a breach by a kill": {slices.Concat(takenOver, ending(2260, "b", "v4", "v3", "refresh token reused: 403")), "ended the session as"},

		"two claims for a rotation": {slices.Concat(begun, claiming(50, "a", "t1", "v0", "v1"), claiming(100, "a", "t1", "v2", "v0"),
			presenting(110, "a", "t1", "200"), saving(150, "a", "t2", "v3", "v2")), "cost 2 claims and 1 saves"},
		"two saves of a rotation":        {slices.Concat(rotated, saving(160, "a", "t2", "v3", "v2")), "cost 1 claims and 2 saves"},
		"a rotation not saved":           {claimed, "cost 1 claims and 0 saves"},
		"a claim given back by a Close":  {slices.Concat(givenBack, observing(62, "a", "RefreshFailed: sessions are closed"), afterwards), ""},
		"a claim given back for nothing": {slices.Concat(givenBack, afterwards), "cost 2 claims and 1 saves"},
		"two saves, as the store failed": {slices.Concat(claimed, cutting(145), saved(saving(150, "a", "t2", "v3", "v2"), "reset"),
			saving(260, "a", "t2", "v3", "v2")), ""},

		"a request lost with a token":           {slices.Concat(rotated, losing(200, 300, "b")), "there was a valid token"},
		"a request lost, its token too old":     {slices.Concat(rotated, losing(1100, 1200, "b")), "no reason was found"},
		"a request lost, the session too":       {slices.Concat(lost, losing(2000, 2300, "b")), ""},
		"a request lost before the session was": {slices.Concat(lost, losing(2, 90, "b")), "there was a valid token"},
		"a request lost, a new session begun":   {slices.Concat(lost, saving(2300, "supervisor", "t5", "v5", "v4"), losing(2400, 2500, "b")), "there was a valid token"},
		"a request lost to a dead claim":        {slices.Concat(takenOver, losing(1000, 2100, "b")), ""},
		"a request lost, no longer dead":        {slices.Concat(takenOver, saving(2250, "b", "t2", "v4", "v3"), losing(3300, 3400, "c")), "no reason was found"},
		"a request lost to the store":           {slices.Concat(rotated, cutting(1100), failing(1210, "b"), losing(1200, 1220, "b")), ""},
		"a request lost to a slow store":        {slices.Concat(claimed, slow(saving(150, "a", "t2", "v3", "v2"), 1300), losing(1160, 1420, "a")), ""},
		"a request lost to another's store":     {slices.Concat(rotated, cutting(1100), failing(1210, "c"), losing(1200, 1220, "b")), "no reason was found"},
		"a request lost with another's token":   {slices.Concat(rotated, cutting(190), failing(290, "b"), losing(200, 300, "b")), ""},
		"a request lost with its own token":     {slices.Concat(rotated, cutting(190), failing(290, "a"), losing(200, 300, "a")), "there was a valid token"},
		"a request lost to a store in repair": {slices.Concat(rotated, cutting(1100), failing(1210, "b"),
			observing(1220, "b", "RefreshFailed: reset"), losing(1230, 1240, "b")), "no reason was found"},

		"a store that runs out of time": {slices.Concat(claimed, late(saved(saving(150, "a", "t2", "v3", "v2"), "deadline")),
			saving(420, "a", "t2", "v3", "v2")), ""},
		"a store that fails in time": {slices.Concat(claimed, saved(saving(150, "a", "t2", "v3", "v2"), "reset"),
			saving(420, "a", "t2", "v3", "v2")), "has saved: reset"},
		"a store that fails by itself": {slices.Concat(rotated, failing(200, "b")), "could not load"},
		"a record that is gone":        {slices.Concat(rotated, one(Entry{At: at(200), By: "supervisor", Did: Vanished, Result: "not found"})), "finds no record"},
		"a process that crashes":       {slices.Concat(rotated, one(Entry{At: at(200), By: "a", Did: Broke, Result: "panic"})), "panic"},
	} {
		t.Run(name, func(t *testing.T) {
			var l ledger
			for _, e := range c.entries {
				l.add(e)
			}
			found := newRun(l.entries(), time.Second).broken()
			if c.broken == "" && len(found) > 0 {
				t.Fatalf("found %q, want nothing", found[0].text)
			}
			if c.broken != "" && !slices.ContainsFunc(found, func(b breach) bool { return strings.Contains(b.text, c.broken) }) {
				t.Errorf("found %v, want something with %q", found, c.broken)
			}
		})
	}
}

const key = "alice"

func at(ms int) time.Time { return time.UnixMilli(int64(ms)) }

func one(e Entry) []Entry { return []Entry{e} }

// done returns the beginning of a Save, and its end a millisecond later.
func done(e Entry) []Entry {
	return []Entry{e, {At: e.At.Add(time.Millisecond), By: e.By, Did: Saved, Key: key, Version: e.Version, Began: e.At}}
}

// saved sets the result of a Save.
func saved(save []Entry, result string) []Entry {
	save[1].Result = result
	return save
}

// late says that the store's time ran out in a Save.
func late(save []Entry) []Entry {
	save[1].Late = true
	return save
}

// slow makes a Save take ms milliseconds.
func slow(save []Entry, ms int) []Entry {
	save[1].At = save[0].At.Add(time.Duration(ms) * time.Millisecond)
	return save
}

func claiming(ms int, by, token, version, prev string) []Entry {
	return done(Entry{At: at(ms), By: by, Did: Claiming, Key: key, Token: token, Version: version, Prev: prev})
}

func saving(ms int, by, token, version, prev string) []Entry {
	return done(Entry{At: at(ms), By: by, Did: Saving, Key: key, Token: token, Version: version, Prev: prev, Expiry: at(ms + 1000)})
}

func ending(ms int, by, version, prev, why string) []Entry {
	return done(Entry{At: at(ms), By: by, Did: Ending, Key: key, Version: version, Prev: prev, Result: why})
}

func presenting(ms int, by, token, status string) []Entry {
	return []Entry{
		{At: at(ms), By: by, Did: Presented, Token: token},
		{At: at(ms + 35), By: by, Did: Answered, Token: token, Result: status},
	}
}

func killing(ms int, by string) []Entry { return one(Entry{At: at(ms), By: by, Did: Killed}) }

func cutting(ms int) []Entry { return one(Entry{At: at(ms), By: "supervisor", Did: Cut}) }

func failing(ms int, by string) []Entry {
	return one(Entry{At: at(ms), By: by, Did: LoadFailed, Key: key, Began: at(ms - 5), Result: "reset"})
}

func observing(ms int, by, event string) []Entry {
	return one(Entry{At: at(ms), By: by, Did: Observed, Key: key, Result: event})
}

func losing(began, ms int, by string) []Entry {
	return one(Entry{At: at(ms), By: by, Did: Failed, Key: key, Began: at(began), Result: "failed"})
}
