package main

import (
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
)

// printed returns the output of three runs on a machine with as many cores as this
// one.
func printed() []string {
	procs := ""
	if n := runtime.NumCPU(); n > 1 {
		procs = "-" + strconv.Itoa(n)
	}
	run := func(ours, theirs, ratio string) string {
		return strings.ReplaceAll(`goos: linux
goarch: amd64
cpu: Some CPU
BenchmarkRequest/fields=3/peer=floor        	1000	 400.0 ns/op	 900 B/op	 3 allocs/op
BenchmarkRequest/fields=3/peer=fincodeauth  	1000	 `+ours+` ns/op	 900 B/op	 3 allocs/op
BenchmarkRequest/fields=3/peer=oauth2       	1000	 `+theirs+` ns/op	 1300 B/op	 7 allocs/op
BenchmarkRequest/fields=5/peer=floor        	1000	 500.0 ns/op	 1112 B/op	 5 allocs/op
BenchmarkRequest/fields=5/peer=fincodeauth  	1000	 `+ours+` ns/op	 1112 B/op	 5 allocs/op
BenchmarkRequest/fields=5/peer=oauth2       	1000	 800.0 ns/op	 1624 B/op	 8 allocs/op
BenchmarkToken/peer=fincodeauth    	1000	 50.0 ns/op	 0 B/op	 0 allocs/op
BenchmarkRotations/over=memory@    	1	 64000 bare/s	 `+ratio+` ratio	 26000 rotations/s
BenchmarkLatency/peer=fincodeauth@ 	1	 0 failed	 3000000 max-ns	 600000 p50-ns	 1000000 p99-ns	 2000000 p99.9-ns	 7 refreshes	 100000 stalled-ns
PASS
`, "@", procs)
	}
	return []string{run("600", "1000", "0.7"), run("900", "3000", "0.9"), run("700", "1400", "0.8")}
}

func read(t *testing.T) *results {
	t.Helper()
	found := newResults(3)
	for _, text := range printed() {
		if err := found.add([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	return found
}

func TestResultsAreMediansOfTheRuns(t *testing.T) {
	found := read(t)
	if found.cpu != "Some CPU" {
		t.Errorf("the CPU is %q, want %q", found.cpu, "Some CPU")
	}
	for _, test := range []struct {
		what      string
		got, want float64
	}{
		{"ours", 1e9 * found.median(request("fincodeauth", 3, 1, "sec/op")), 700},
		{"the ratio, run by run", found.ratio(request("fincodeauth", 3, 1, "sec/op"), request("oauth2", 3, 1, "sec/op")), 0.5},
		{"with all cores", found.median(of("Rotations/over=memory", "ratio")), 0.8},
		{"a quantile", 1e3 * found.median(of("Latency/peer=fincodeauth", "p99.9-sec")), 2},
	} {
		if math.Abs(test.got-test.want) > 1e-9 {
			t.Errorf("%s: %v, want %v", test.what, test.got, test.want)
		}
	}
	if got := found.median(of("Memory", "B/session")); !math.IsNaN(got) {
		t.Errorf("a value that was not measured is %v, want NaN", got)
	}
}

func TestAGoalIsMetAtItsBoundAndNotWithoutAMeasurement(t *testing.T) {
	for _, test := range []struct {
		goal goal
		want string
	}{
		{atMost("", 0.5, 0.5, ""), "met"},
		{atMost("", 0.51, 0.5, ""), "missed"},
		{atLeast("", 0.8, 0.8, ""), "met"},
		{atLeast("", 0.79, 0.8, ""), "missed"},
		{atMost("", math.NaN(), 0.5, ""), "missed"},
		{atLeast("", math.NaN(), 0.8, ""), "missed"},
	} {
		if got := test.goal.Verdict(); got != test.want {
			t.Errorf("%v, wanted %s: %s, want %s", test.goal.Got, test.goal.Wanted(), got, test.want)
		}
	}
}

func TestTheDocumentHasItsTablesAndPictures(t *testing.T) {
	found := read(t)
	found.series = map[string][]float64{"oauth2": {0.001, 0.3}, "fincodeauth": {0.001, 0.001}}
	doc := newDocument(found)
	doc.Versions = []version{{"oauth2", "golang.org/x/oauth2", "v0.0.1"}}
	dir := t.TempDir()
	if err := doc.write(dir); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(dir, "performance.md"))
	if err != nil {
		t.Fatal(err)
	}
	text := string(data)
	for _, want := range []string{
		"medians of 3 runs", "Some CPU", runtime.Version(), "| oauth2 | golang.org/x/oauth2 | v0.0.1 |",
		"| 7 fields: of oauth2's time, 1 goroutine | at most 0.75 | 0.5 | met |",
		"| 7 fields: allocations | at most 3 | 3 | met |",
		"| 10 fields: of the floor's time, 1 goroutine | at most 1.2 | 1.4 | **missed** |",
		"the floor itself takes 0.625 of oauth2's time",
		"| bytes a session | at most 300 | - | **missed** |",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the document lacks %q:\n%s", want, text)
		}
	}
	for _, name := range []string{"request.svg", "token.svg", "latency.svg"} {
		if !strings.Contains(text, "performance/"+name) {
			t.Errorf("the document does not show %s", name)
		}
		if info, err := os.Stat(filepath.Join(dir, "performance", name)); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNumbersHaveThreeDigitsAndTheirUnits(t *testing.T) {
	for _, test := range []struct{ got, want string }{
		{number(0.12345), "0.123"},
		{number(99.96), "100"},
		{number(1234567), "1,234,567"},
		{number(-123456), "-123,456"},
		{number(math.NaN()), "-"},
		{duration(47.3e-9), "47.3 ns"},
		{duration(1.2345e-6), "1.23 µs"},
		{duration(0.3), "300 ms"},
		{duration(0), "0 ns"},
		{duration(math.NaN()), "-"},
	} {
		if test.got != test.want {
			t.Errorf("%q, want %q", test.got, test.want)
		}
	}
}
