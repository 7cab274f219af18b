package main

import (
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"
)

// A peer is one row of the report: its name in the benchmarks, and its module. The
// floor and fincodeauth have no module.
type peer struct{ name, module string }

var peers = []peer{
	{"floor", ""},
	{"fincodeauth", ""},
	{"oauth2", "golang.org/x/oauth2"},
	{"client-go", "k8s.io/client-go"},
	{"gcp-auth", "cloud.google.com/go/auth"},
	{"azcore", "github.com/Azure/azure-sdk-for-go/sdk/azcore"},
	{"smithy", "github.com/aws/smithy-go"},
	{"ghinstallation", "github.com/bradleyfalzon/ghinstallation/v2"},
}

// A part of the report answers one question by measurements.
type part struct {
	Title   string
	What    string // what is measured, in some sentences
	Columns []string
	Rows    [][]string
	Goals   []goal
	Picture string // the name of its file, "" without a picture
}

// Whys returns the reasons of the missed goals, each reason once.
func (p part) Whys() (list []string) {
	for _, g := range p.Goals {
		if !g.Met() && g.Why != "" && !slices.Contains(list, g.Why) {
			list = append(list, g.Why)
		}
	}
	return list
}

// A goal is a bound for a measurement.
type goal struct {
	What  string
	Got   float64
	Bound float64
	least bool // Bound is a lower bound
	unit  string
	Why   string // the reason to print if the goal was missed
}

func atMost(what string, got, bound float64, unit string) goal {
	return goal{What: what, Got: got, Bound: bound, unit: unit}
}

func atLeast(what string, got, bound float64, unit string) goal {
	return goal{What: what, Got: got, Bound: bound, unit: unit, least: true}
}

// because sets the reason to print if the goal was missed.
func (g goal) because(why string) goal {
	g.Why = why
	return g
}

// Met reports whether the measurement is within the bound. NaN, a missing
// measurement, is not.
func (g goal) Met() bool {
	if g.least {
		return g.Got >= g.Bound
	}
	return g.Got <= g.Bound
}

func (g goal) Verdict() string {
	if g.Met() {
		return "met"
	}
	return "missed"
}

// Wanted returns the bound in words.
func (g goal) Wanted() string {
	if g.least {
		return "at least " + number(g.Bound) + g.unit
	}
	return "at most " + number(g.Bound) + g.unit
}

// Measured returns the measurement in words.
func (g goal) Measured() string { return number(g.Got) + g.unit }

// parts returns all parts, in the order of the report.
func parts(r *results) []part {
	return []part{
		requests(r), lookUps(r), many(r), throughput(r), latency(r), stampede(r), rotations(r), memory(r), storeCalls(),
	}
}

// requestFields are how many header fields the callers of BenchmarkRequest set.
// fincodeauth sends 7 fields for the first of them and 10 for the second.
var requestFields = []int{3, 5}

func requests(r *results) part {
	p := part{
		Title: "One request",
		What: "A GET with three or with five header fields of its caller, over a base that answers at once. fincodeauth sends 7 fields for the three, " +
			"because one of them is a Content-Type of the caller's, and 10 for the five. The others add one field. The floor sends the same fields as fincodeauth " +
			"and does nothing else: a shallow copy of the request, a map for its header, the values set. A Go map holds up to 8 fields in one group, " +
			"and needs more allocations for more fields. So up to 8 fields the goal is a part of oauth2's time, and above 8 it is near the floor. " +
			"With 10 fields the floor itself takes " +
			number(r.ratio(request("floor", 5, 1, "sec/op"), request("oauth2", 5, 1, "sec/op"))) + " of oauth2's time with 1 goroutine.",
		Columns: []string{"", "caller's fields"},
		Picture: "request.svg",
	}
	for _, n := range procs() {
		p.Columns = append(p.Columns, goroutines(n))
	}
	p.Columns = append(p.Columns, "bytes", "allocations")
	for _, fields := range requestFields {
		for _, peer := range peers {
			row := []string{peer.name, fmt.Sprint(fields)}
			for _, n := range procs() {
				row = append(row, duration(r.median(request(peer.name, fields, n, "sec/op"))))
			}
			p.Rows = append(p.Rows, append(row, number(r.median(request(peer.name, fields, 1, "B/op"))),
				number(r.median(request(peer.name, fields, 1, "allocs/op")))))
		}
	}
	for _, n := range procs() {
		ours, theirs, floor := request("fincodeauth", 3, n, "sec/op"), request("oauth2", 3, n, "sec/op"), request("floor", 3, n, "sec/op")
		p.Goals = append(p.Goals, atMost("7 fields: of oauth2's time, "+goroutines(n), r.ratio(ours, theirs), 0.75, "").
			because("With 7 fields and "+goroutines(n)+" the floor takes "+number(r.ratio(floor, theirs))+" of oauth2's time."))
	}
	p.Goals = append(p.Goals, atMost("7 fields: allocations", r.median(request("fincodeauth", 3, 1, "allocs/op")), 3, "").
		because("With 7 fields the floor makes "+number(r.median(request("floor", 3, 1, "allocs/op")))+" allocations."))
	for _, n := range procs() {
		p.Goals = append(p.Goals, atMost("10 fields: of the floor's time, "+goroutines(n),
			r.ratio(request("fincodeauth", 5, n, "sec/op"), request("floor", 5, n, "sec/op")), 1.2, "").
			because("The floor does not read the clock, look a token up or compare the request's origin. It also shares the values of the caller's fields with its base, while fincodeauth copies them."))
	}
	return p
}

func request(peer string, fields, procs int, unit string) measure {
	return measure{fmt.Sprintf("Request/fields=%d/peer=%s", fields, peer), procs, unit}
}

func lookUps(r *results) part {
	p := part{
		Title: "One look-up of a token",
		What: "The token is in memory and valid. The floor is time.Now, because nobody knows without the time whether a token is still valid. " +
			"Each time in the table is the elapsed time divided by the number of look-ups of all goroutines. So it falls with more goroutines, if they do not block each other.",
		Columns: []string{""},
		Picture: "token.svg",
	}
	for _, n := range procs() {
		p.Columns = append(p.Columns, goroutines(n))
	}
	p.Columns = append(p.Columns, "allocations")
	for _, peer := range peers {
		if peer.name == "azcore" {
			continue // it has no call to look up a token
		}
		row := []string{peer.name}
		for _, n := range procs() {
			row = append(row, duration(r.median(lookUp(peer.name, n, "sec/op"))))
		}
		p.Rows = append(p.Rows, append(row, number(r.median(lookUp(peer.name, 1, "allocs/op")))))
	}
	for _, n := range procs() {
		p.Goals = append(p.Goals, atMost("of time.Now, "+goroutines(n),
			r.ratio(lookUp("fincodeauth", n, "sec/op"), lookUp("floor", n, "sec/op")), 1.5, ""))
		if n > 1 {
			p.Goals = append(p.Goals, atMost("of one goroutine's time, "+goroutines(n),
				r.ratio(lookUp("fincodeauth", n, "sec/op"), lookUp("fincodeauth", 1, "sec/op")), 1, ""))
		}
	}
	p.Goals = append(p.Goals, atMost("allocations", r.median(lookUp("fincodeauth", 1, "allocs/op")), 0, ""))
	return p
}

func lookUp(peer string, procs int, unit string) measure {
	return measure{"Token/peer=" + peer, procs, unit}
}

// manyLookUps are the ways to look up the token of one session among many.
var manyLookUps = []string{"fincodeauth", "fincodeauth-new-context", "oauth2-in-a-map"}

func many(r *results) part {
	p := part{
		Title: "One look-up among 100,000 sessions",
		What: "One client serves all sessions, and the context of each request names its session (WithSession). The users of the requests follow a Zipf distribution (s = 1.1). " +
			"In the row fincodeauth, each user has one context, which is made beforehand and used again: it remembers where its session was found. " +
			"In the row fincodeauth-new-context, each look-up makes a new context, as a server does that looks up one token for each of its requests; the time for the context counts. " +
			"Users of x/oauth2 need a map of sources for this; here it is a sync.Map.",
		Columns: []string{""},
	}
	for _, n := range procs() {
		p.Columns = append(p.Columns, goroutines(n))
		for _, way := range []struct{ name, context string }{{"fincodeauth", "one context for each user"}, {"fincodeauth-new-context", "a new context for each look-up"}} {
			p.Goals = append(p.Goals, atMost("more than with one session, "+way.context+", "+goroutines(n),
				1e9*r.difference(lookUpOfMany(way.name, n), lookUp("fincodeauth", n, "sec/op")), 100, " ns").
				because("A look-up waits for memory that no cache holds, three times in a row: for the context, the session, and the times of its token. "+
					"A new context must also be allocated, and its key must be hashed and compared."))
		}
	}
	for _, name := range manyLookUps {
		row := []string{name}
		for _, n := range procs() {
			row = append(row, duration(r.median(lookUpOfMany(name, n))))
		}
		p.Rows = append(p.Rows, row)
	}
	return p
}

func lookUpOfMany(peer string, procs int) measure {
	return measure{"TokenOfMany/peer=" + peer, procs, "sec/op"}
}

func throughput(r *results) part {
	p := part{
		Title: "Throughput over a network",
		What: "Each of eight callers sends one request after the other over loopback TLS. They send with fincodeauth and without it, in turns of some milliseconds. " +
			"The bare requests, which are those without it, carry the same header.",
		Columns: []string{"", "requests a second", "bare", "ratio"},
	}
	for _, proto := range []string{"HTTP1", "HTTP2"} {
		m := func(unit string) float64 { return r.median(of("Throughput/proto="+proto, unit)) }
		p.Rows = append(p.Rows, []string{proto, number(m("req/s")), number(m("bare/s")), number(m("ratio"))})
		p.Goals = append(p.Goals, atLeast("of the bare throughput, "+proto, m("ratio"), 0.97, "").
			because(proto+": client and server together have "+duration(float64(runtime.NumCPU())/m("bare/s"))+" of processor time for a bare request. "+
				"fincodeauth adds the cost of one request (see above), a copy of the header, and the garbage of both. The bare requests need no copy, because their caller set the header beforehand."))
	}
	return p
}

// rotating lists the rows of the latencies. All except the first rotate tokens.
var rotating = []string{"no-rotation", "fincodeauth", "oauth2", "oauth2-early", "client-go", "gcp-auth", "gcp-auth-early", "azcore", "azcore-early-40s", "smithy", "smithy-early"}

func latency(r *results) part {
	p := part{
		Title: "What callers see of a rotation",
		What: "2,000 requests a second for 30 s over loopback TLS. Each request is sent when it is due, even if earlier requests have no answer yet, and its time counts from that moment. Each row ran in its own process. " +
			"Tokens live 5 s, and the endpoint takes 300 ms to refresh one. A library that can refresh early was also measured with an early refresh: at a fifth of the token's life before its end, " +
			"as fincodeauth does it. azcore tries an early refresh only once in 30 s, so it got a token of 40 s for that row. The picture shows the longest latency of each 10 ms. " +
			"Stalled is the longest time by which the machine itself delayed the sending of a request. A maximum near it was caused by the machine, and the ratio of two such maxima is chance.",
		Columns: []string{"", "p50", "p99", "p99.9", "maximum", "refreshes", "failed", "stalled"},
		Picture: "latency.svg",
	}
	for _, name := range rotating {
		m := func(unit string) float64 { return r.median(of("Latency/peer="+name, unit)) }
		p.Rows = append(p.Rows, []string{name, duration(m("p50-sec")), duration(m("p99-sec")), duration(m("p99.9-sec")), duration(m("max-sec")),
			number(m("refreshes")), number(m("failed")), duration(m("stalled-sec"))})
	}
	p.Goals = []goal{atMost("of the maximum without rotations",
		r.ratio(of("Latency/peer=fincodeauth", "max-sec"), of("Latency/peer=no-rotation", "max-sec")), 1.3, "").
		because("No request waits for a rotation: a refresh takes 300 ms, so a wait would be visible. The machine decides which of 60,000 requests takes longest: " +
			"it delayed the sending of a request by up to " + duration(r.median(of("Latency/peer=fincodeauth", "stalled-sec"))) + " while tokens were rotated, and by up to " +
			duration(r.median(of("Latency/peer=no-rotation", "stalled-sec"))) + " while no token was rotated.")}
	return p
}

func stampede(r *results) part {
	p := part{
		Title:   "10,000 callers at an expired token",
		What:    "All callers ask for the token at once (those of azcore send a request), while the endpoint takes 300 ms for a refresh. Late is the time from the endpoint's answer until the last caller was served.",
		Columns: []string{"", "refreshes", "late"},
	}
	for _, peer := range peers {
		m := func(unit string) float64 { return r.median(of("Stampede/peer="+peer.name, unit)) }
		if !math.IsNaN(m("refreshes")) {
			p.Rows = append(p.Rows, []string{peer.name, number(m("refreshes")), duration(m("late-sec"))})
		}
	}
	p.Goals = []goal{
		atMost("refreshes", slices.Max(append(r.measured[of("Stampede/peer=fincodeauth", "refreshes")], 0)), 1, ""),
		atMost("late", 1e3*r.median(of("Stampede/peer=fincodeauth", "late-sec")), 20, " ms"),
	}
	return p
}

func rotations(r *results) part {
	p := part{
		Title: "100,000 sessions due at once",
		What: "256 callers refresh the sessions against fincodetest, with opaque tokens and a MemoryStore, in memory and over loopback TLS. " +
			"Bare calls are the same calls to the endpoint, made with net/http, without a store and without claims. The two take turns of 10,000.",
		Columns: []string{"", "rotations a second", "bare calls", "ratio"},
	}
	for _, way := range []struct{ name, over, why string }{
		{"in memory", "memory", "two goroutines, a timer for each call that may hang, a load and two saves " +
			"that copy the record, and the reading of an answer of any shape. The garbage collector takes about half of the time."},
		{"over TLS", "TLS", "the same as in memory, and goroutines whose stacks grow during the calls of net/http. Client and server share the processors, " +
			"and there is no distance between them, so the additional work does not happen while a call waits for the network."},
	} {
		m := func(unit string) float64 { return r.median(of("Rotations/over="+way.over, unit)) }
		adds := "A call takes " + duration(1/m("bare/s")) + " " + way.name + ", and a rotation adds " + duration(1/m("rotations/s")-1/m("bare/s")) + ": "
		p.Rows = append(p.Rows, []string{way.name, number(m("rotations/s")), number(m("bare/s")), number(m("ratio"))})
		p.Goals = append(p.Goals, atLeast("of the bare calls, "+way.name, m("ratio"), 0.8, "").because(adds+way.why))
	}
	return p
}

func memory(r *results) part {
	one, million := of("StartUp/records=1", "sec/op"), of("StartUp/records=1000000", "sec/op")
	loads := max(r.median(of("StartUp/records=1", "loads/op")), r.median(of("StartUp/records=1000000", "loads/op")))
	each := r.median(of("Memory", "B/session"))
	return part{
		Title: "A million sessions",
		What: "Memory is the heap in use while 1,000,000 sessions are held, divided by their number, without the bytes of each session's strings: the key and both tokens. " +
			"A start is New, the first Token and Close, with a MemoryStore of one record and of 1,000,000.",
		Columns: []string{"", ""},
		Rows: [][]string{
			{"memory, a session", number(each) + " bytes"},
			{"start, one record", duration(r.median(one))},
			{"start, 1,000,000 records", duration(r.median(million))},
		},
		Goals: []goal{atMost("bytes a session", each, 300, ""), atMost("loads of a start, with any number of records", loads, 1, "")},
	}
}

// storeCalls returns numbers that the tests beside the benchmarks assert. They are
// not measured.
func storeCalls() part {
	return part{
		Title:   "Calls to the store",
		What:    "Tests assert these numbers on every change.",
		Columns: []string{"", "loads", "saves"},
		Rows:    [][]string{{"a rotation", "1", "2"}, {"a request with a good token", "0", "0"}, {"a start", "1", "0"}},
	}
}

func goroutines(n int) string {
	if n == 1 {
		return "1 goroutine"
	}
	return fmt.Sprintf("%d goroutines", n)
}

// number formats x with three significant digits, and with a comma after the
// thousands.
func number(x float64) string {
	switch {
	case math.IsNaN(x):
		return "-"
	case math.Abs(x) < 100:
		return fmt.Sprintf("%.3g", x)
	}
	digits := fmt.Sprintf("%.0f", x)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return strings.Replace(digits, "-,", "-", 1)
}

// duration formats seconds with three significant digits and a fitting unit.
func duration(seconds float64) string {
	switch {
	case math.IsNaN(seconds):
		return "-"
	case seconds >= 1:
		return number(seconds) + " s"
	case seconds >= 1e-3:
		return number(1e3*seconds) + " ms"
	case seconds >= 1e-6:
		return number(1e6*seconds) + " µs"
	}
	return number(1e9*seconds) + " ns"
}
