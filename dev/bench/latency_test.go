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

var series = flag.String("series", "", "the folder in which BenchmarkLatency writes its latencies over time")

// A latencyCase is a peer whose latencies are measured while its tokens rotate.
type latencyCase struct {
	name     string
	peer     peer
	lifetime time.Duration // of a token
	early    time.Duration // see account.early
}

const (
	lifetime = 5 * time.Second
	// inTime is how long before its expiry fincodeauth refreshes such a token.
	inTime = lifetime / 5
)

// delay is how long the endpoint takes to refresh a token.
func delay() time.Duration { return time.Duration(size(300, 20)) * time.Millisecond }

// latencyCases has one entry with the default settings for each peer whose token
// endpoint can be set, and a second entry if the peer can refresh early.
var latencyCases = []latencyCase{
	{"no-rotation", ours, time.Hour, 0},
	{"fincodeauth", ours, lifetime, 0},
	{"oauth2", peer{open: openOAuth2}, lifetime, 0},
	{"oauth2-early", peer{open: openOAuth2}, lifetime, inTime},
	{"client-go", peer{open: openClientGo}, lifetime, 0},
	{"gcp-auth", peer{open: openGCP}, lifetime, 0},
	{"gcp-auth-early", peer{open: openGCP}, lifetime, inTime},
	{"azcore", peer{open: openAzcore}, lifetime, 0},
	// azcore refreshes early only if its last refresh was 30 s ago. So this
	// token must live longer.
	{"azcore-early-40s", peer{open: openAzcore}, 40 * time.Second, 40 * time.Second / 5},
	{"smithy", peer{open: openSmithy}, lifetime, 0},
	{"smithy-early", peer{open: openSmithy}, lifetime, inTime},
}

// BenchmarkLatency sends 2,000 requests a second for 30 s, over loopback TLS,
// while tokens of 5 s are rotated by an endpoint that takes 300 ms.
func BenchmarkLatency(b *testing.B) {
	const rate = 2000
	for _, s := range latencyCases {
		b.Run("peer="+s.name, func(b *testing.B) {
			length := 30 * time.Second
			if s.lifetime == 40*time.Second {
				length = 50 * time.Second // long enough to see one refresh
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

// connections is the largest number of connections to the server. They are
// opened before the measurement begins, because a handshake takes longer than a
// request.
const connections = 64

// A latencies is the result of a measurement, as callers see it.
type latencies struct {
	of        []time.Duration // of each request, in the order of the schedule
	failed    int
	refreshes int
	stalled   time.Duration // the longest delay before sending a request; caused by the machine or the garbage collector
}

func measure(tb testing.TB, s latencyCase, rate int, length time.Duration) latencies {
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
	maps.Copy(req.Header, fincodeauth.DefaultHeader()) // only fincodeauth sets these itself
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

// warm opens the connections: it sends as many slow requests at once.
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

// openLoop sends requests on a schedule, no matter how long the earlier requests
// take. The latency of a request counts from the moment when the request was
// due. So it includes the time in which the program was too busy to send it.
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
	b.ReportMetric(0, "ns/op") // 0 hides it: the length of the run is fixed
	b.ReportMetric(float64(l.refreshes), "refreshes")
	b.ReportMetric(float64(l.failed), "failed")
	b.ReportMetric(float64(l.stalled), "stalled-ns")
}

// rank returns the index of the quantile q in n sorted values (nearest rank).
func rank(q float64, n int) int { return max(0, int(math.Ceil(q*float64(n)))-1) }

// bucket is the resolution of the latencies over time.
const bucket = 10 * time.Millisecond

// write writes the longest latency of each bucket, in nanoseconds, one per line.
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
		turn := make(chan struct{}, 1) // stands for a single connection
		l := openLoop(10, time.Second, func() error {
			turn <- struct{}{}
			defer func() { <-turn }()
			time.Sleep(300 * time.Millisecond) // while one is due every 100 ms
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
			t.Errorf("the longest wait was %v and %d requests failed, want no wait and no failure", longest, l.failed)
		}
		if n := fc.Counts().Refreshes; n < 6 {
			t.Errorf("%d rotations in 30 s with tokens that live %v, want at least 6", n, lifetime)
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
