package fincodeauth

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"golang.org/x/oauth2"
)

// generation returns a record of that generation.
func generation(n int, version string) *Record {
	rec := free(version, fmt.Sprint(n))
	rec.Generation = n
	return rec
}

func TestWhichOfTwoStatesIsNewer(t *testing.T) {
	replacing := generation(1, "new.1")
	replacing.Replaces = []string{"s", "r"}
	endOf := func(n int, why string) *Record { return generation(n, "s.1").end(why) }
	for name, c := range map[string]struct {
		known *Record // nil: nothing is known
		age   time.Duration
		there *Record
		want  bool
	}{
		"nothing is known":                          {there: generation(3, "s.1")},
		"an older pair":                             {known: generation(3, "s.1"), there: generation(2, "s.2"), want: true},
		"the same pair":                             {known: generation(3, "s.1"), there: generation(3, "s.2")},
		"a newer pair":                              {known: generation(3, "s.1"), there: generation(4, "s.2")},
		"a pair of an earlier version":              {known: generation(3, "s.1"), there: generation(0, "s.2")},
		"a pair of an earlier version is known":     {known: generation(0, "s.1"), there: generation(2, "s.2")},
		"nothing there":                             {known: generation(3, "s.1"), want: true},
		"nothing there, seen nearly a week ago":     {known: generation(3, "s.1"), age: rememberedFor - 1, want: true},
		"nothing there, seen a week ago":            {known: generation(3, "s.1"), age: rememberedFor},
		"nothing there, of an earlier version":      {known: generation(0, "s.1")},
		"nothing there, after an end":               {known: endOf(3, endedReused)},
		"nothing there, after a Logout":             {known: endOf(3, endedLogout)},
		"an older end":                              {known: generation(3, "s.1"), there: endOf(2, endedReused), want: true},
		"the end of the same pair":                  {known: generation(3, "s.1"), there: endOf(3, endedReused)},
		"the pair before its end":                   {known: endOf(3, endedReused), there: generation(3, "s.2"), want: true},
		"a pair after an end":                       {known: endOf(3, endedReused), there: generation(4, "s.2")},
		"an older Logout":                           {known: generation(3, "s.1"), there: endOf(2, endedLogout)},
		"a pair before a Logout":                    {known: endOf(3, endedLogout), there: generation(3, "s.2"), want: true},
		"a pair before a Logout that knew less":     {known: endOf(3, endedLogout), there: generation(9, "s.2"), want: true},
		"another session":                           {known: generation(3, "s.1"), there: generation(1, "x.1")},
		"another session that was logged out":       {known: generation(3, "s.1"), there: generation(1, "x.1").end(endedLogout)},
		"a session that was replaced":               {known: replacing, there: generation(9, "s.2"), want: true},
		"an earlier session that was replaced":      {known: replacing, there: generation(9, "r.2"), want: true},
		"a replaced session that was logged out":    {known: replacing, there: endOf(9, endedLogout), want: true},
		"a replaced session of an earlier version":  {known: replacing, there: generation(0, "s.2")},
		"a session that replaces the one in memory": {known: generation(3, "s.1"), there: replacing},
	} {
		t.Run(name, func(t *testing.T) {
			var k *known
			if c.known != nil {
				k = knownOf(c.known, noon.Add(-c.age))
			}
			if got := k.isAhead(c.there, noon); got != c.want {
				t.Errorf("what is known is newer: %t, want %t", got, c.want)
			}
		})
	}
}

func TestFirstSaveOverARecordWithoutAGenerationBeginsASession(t *testing.T) {
	old := generation(0, "s.1")
	next := old.next()
	if sessionOf(next.Version) == "s" || next.Generation != 1 || !slices.Equal(next.Replaces, []string{"s"}) || !sameTokens(next.Token, old.Token) {
		t.Errorf("the next record is %+v, want generation 1 of a session that replaces s, with the same pair", next)
	}
	if again := next.successor(pairOf("2")); sessionOf(again.Version) != sessionOf(next.Version) || again.Generation != 2 || !slices.Equal(again.Replaces, []string{"s"}) {
		t.Errorf("its successor is %+v, want generation 2 of the same session", again)
	}
}

func TestARecordNamesAtMostEightSessions(t *testing.T) {
	var all []string
	for i := range 20 {
		all = replacing(all, fmt.Sprint(i))
	}
	if !slices.Equal(all, []string{"19", "18", "17", "16", "15", "14", "13", "12"}) {
		t.Errorf("got %q, want the last eight, the last one first", all)
	}
}

func TestWhatTheLeaseSaysIsNotKeptTwice(t *testing.T) {
	rec := generation(3, "s.1")
	l := newLease(rec.Token, noon, 0, 0).of(rec)
	k := knownOfLease(l)
	if !k.isIn(l) || k.isAhead(generation(3, "s.2"), noon) || !k.isAhead(generation(2, "s.2"), noon) {
		t.Errorf("the lease says %+v, want generation 3 of the session s", k)
	}
	replaces := *k
	replaces.replaces = []string{"r"}
	other := *k
	other.token = &oauth2.Token{}
	for _, more := range []known{replaces, other} {
		if more.isIn(l) {
			t.Errorf("the lease is said to have all of %+v", more)
		}
	}
}
