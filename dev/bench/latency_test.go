package bench_test

import (
	"flag"
	"fmt"
	"maps"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/fincodetest"
)

var series = flag.String("series", "", "the folder to write BenchmarkLatency's latencies over time to")

// A seen is a peer whose rotations callers see.
type seen struct {
	name     string
	peer     peer
	lifetime time.Duration // of a token
	early    time.Duration // as an account's
}

const (
	lifetime = 5 * time.Second
	// inTime is when fincodeauth refreshes such a token: a fifth of its life early.
	inTime = lifetime / 5
)

// delay is how long the endpoint takes to refresh a token.
func delay() time.Duration { return time.Duration(size(300, 20)) * time.Millisecond }

// rotations are what is measured: for each peer that can be given another token
// endpoint, what it does by default, and what it can do early.
var rotations = []seen{
	{"no-rotation", ours, time.Hour, 0},
	{"fincodeauth", ours, lifetime, 0},
	{"oauth2", peer{open: openOAuth2}, lifetime, 0},
	{"oauth2-early", peer{open: openOAuth2}, lifetime, inTime},
	{"client-go", peer{open: openClientGo}, lifetime, 0},
	{"gcp-auth", peer{open: openGCP}, lifetime, 0},
	{"gcp-auth-early", peer{open: openGCP}, lifetime, inTime},
	{"azcore", peer{open: openAzcore}, lifetime, 0},
	// Early only if the last refresh was 30 s ago: the token must live longer.
	{"azcore-early-40s", peer{open: openAzcore}, 40 * time.Second, 40 * time.Second / 5},
	{"smithy", peer{open: openSmithy}, lifetime, 0},
	{"smithy-early", peer{open: openSmithy}, lifetime, inTime},
}

// BenchmarkLatency sends 2,000 requests a second for 30 s, over loopback TLS,
// while tokens of 5 s are rotated by an endpoint that takes 300 ms.
func BenchmarkLatency(b *testing.B) {
	const rate = 2000
	for _, s := range rotations {
		b.Run("peer="+s.name, func(b *testing.B) {
			length := 30 * time.Second
			if s.lifetime == 40*time.Second {
				length = 50 * time.Second // to see one
			}
			if testing.Short() {
				length = 200 * time.Millisecond
			}
			for b.Loop() {
				l := measure(b, s, rate, length)
				if err := l.write(*series, s.name, rate); err != nil {
					b.Fatal(err)
				}
				l.report(b)
			}
		})
	}
}

// connections is how many there may be to the server. They are open before the
// measurement begins: a handshake takes longer than a request.
const connections = 64

// A latencies is what callers saw.
type latencies struct {
	of        []time.Duration // each request, in the order of their schedule
	failed    int
	refreshes int
	stalled   time.Duration // the most that one was sent too late: the machine's fault, or the garbage collector's
}

func measure(tb testing.TB, s seen, rate int, length time.Duration) latencies {
	tb.Helper()
	fc := fincodetest.NewTLSServer(fincodetest.Config{AccessLifetime: s.lifetime, OpaqueTokens: true})
	defer fc.Close()
	base := fc.Client().Transport.(*http.Transport)
	base.MaxIdleConnsPerHost, base.MaxConnsPerHost = connections, connections
	warm(tb, fc, base)

	fc.Inject(fincodetest.Refresh, -1, fincodetest.Fault{After: delay()})
	a := newAccount(tb, fc.URL, base)
	a.early = s.early
	c := s.peer.open(tb, a)
	req := newRequest(tb, fc.URL+"/balance")
	maps.Copy(req.Header, fincodeauth.DefaultHeader()) // the peers know nothing of these
	if err := exchange(c.RoundTripper, req); err != nil {
		tb.Fatal(err)
	}
	before := fc.Counts().Refreshes
	l := openLoop(rate, length, func() error { return exchange(c.RoundTripper, req) })
	l.refreshes = fc.Counts().Refreshes - before
	if n := fc.Counts().Reuses; n > 0 {
		tb.Errorf("%d refresh tokens were presented twice", n)
	}
	return l
}

// warm opens the connections, with as many slow requests at once.
func warm(tb testing.TB, fc *fincodetest.Server, base http.RoundTripper) {
	tb.Helper()
	fc.Inject(fincodetest.API, connections, fincodetest.Fault{Before: delay(), Kind: fincodetest.ErrorStatus, Status: http.StatusOK})
	req := newRequest(tb, fc.URL+"/balance")
	var wg sync.WaitGroup
	for range connections {
		wg.Go(func() {
			if err := exchange(base, req); err != nil {
				tb.Error(err)
			}
		})
	}
	wg.Wait()
}

// openLoop sends requests on a schedule, however long the ones before take. A
// latency counts from when the request was due: one that cannot be sent because
// the program is stuck was late for its caller all the same.
func openLoop(rate int, length time.Duration, send func() error) (l latencies) {
	l.of = make([]time.Duration, int(length.Seconds()*float64(rate)))
	var failed atomic.Int64
	var wg sync.WaitGroup
	began := time.Now()
	for i := range l.of {
		due := began.Add(time.Duration(i) * time.Second / time.Duration(rate))
		time.Sleep(time.Until(due))
		l.stalled = max(l.stalled, time.Since(due))
		wg.Go(func() {
			if send() != nil {
				failed.Add(1)
			}
			l.of[i] = time.Since(due)
		})
	}
	wg.Wait()
	l.failed = int(failed.Load())
	return l
}

func (l latencies) report(b *testing.B) {
	sorted := slices.Sorted(slices.Values(l.of))
	for _, q := range []struct {
		name string
		at   float64
	}{{"p50", 0.5}, {"p99", 0.99}, {"p99.9", 0.999}, {"max", 1}} {
		b.ReportMetric(float64(sorted[rank(q.at, len(sorted))]), q.name+"-ns")
	}
	b.ReportMetric(0, "ns/op") // the length, which is set
	b.ReportMetric(float64(l.refreshes), "refreshes")
	b.ReportMetric(float64(l.failed), "failed")
	b.ReportMetric(float64(l.stalled), "stalled-ns")
}

// rank is the index of a quantile among n sorted values: the nearest rank.
func rank(q float64, n int) int { return max(0, int(math.Ceil(q*float64(n)))-1) }

// bucket is the resolution in which latencies over time are kept.
const bucket = 10 * time.Millisecond

// write keeps the longest latency of each bucket, in nanoseconds, a line each.
func (l latencies) write(folder, name string, rate int) error {
	if folder == "" {
		return nil
	}
	var text strings.Builder
	for some := range slices.Chunk(l.of, int(bucket.Seconds()*float64(rate))) {
		fmt.Fprintln(&text, slices.Max(some).Nanoseconds())
	}
	return os.WriteFile(filepath.Join(folder, name), []byte(text.String()), 0o600)
}

func TestALatencyCountsFromWhenTheRequestWasDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turn := make(chan struct{}, 1) // as if there were one connection
		l := openLoop(10, time.Second, func() error {
			turn <- struct{}{}
			defer func() { <-turn }()
			time.Sleep(300 * time.Millisecond) // and one is due each 100 ms
			return nil
		})
		for i, got := range slices.Sorted(slices.Values(l.of)) {
			if want := time.Duration(300+200*i) * time.Millisecond; got != want {
				t.Errorf("request %d took %v, want %v", i, got, want)
			}
		}
	})
}

func TestNoCallerWaitsForARotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{AccessLifetime: lifetime, OpaqueTokens: true})
		fc.Inject(fincodetest.Refresh, -1, fincodetest.Fault{After: delay()})
		c := ours.open(t, newAccount(t, api, fc))
		req := newRequest(t, api+"/balance")
		l := openLoop(100, 30*time.Second, func() error { return exchange(c.RoundTripper, req) })
		if longest := slices.Max(l.of); longest > 0 || l.failed > 0 {
			t.Errorf("the longest wait was %v, and %d requests failed; want none", longest, l.failed)
		}
		if n := fc.Counts().Refreshes; n < 6 {
			t.Errorf("%d rotations in 30 s of tokens that live %v", n, lifetime)
		}
	})
}

func TestRankIsTheNearest(t *testing.T) {
	for _, test := range []struct {
		q    float64
		n    int
		want int
	}{{0.5, 1, 0}, {0.5, 10, 4}, {0.99, 100, 98}, {0.999, 60_000, 59_939}, {1, 10, 9}} {
		if got := rank(test.q, test.n); got != test.want {
			t.Errorf("rank(%v, %d) = %d, want %d", test.q, test.n, got, test.want)
		}
	}
}
