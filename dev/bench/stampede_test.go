package bench_test

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fincodeauth/fincodeauth/fincodetest"
)

// stampeders are those that serialise or join the callers of a refresh, each in
// its own way.
func stampeders() (list []peer) {
	for _, p := range peers {
		if p.name != floor.name && p.name != "ghinstallation" { // which speaks to GitHub alone
			list = append(list, p)
		}
	}
	return list
}

// BenchmarkStampede lets 10,000 callers ask at once for a token that has expired;
// those of azcore, which has no call for that, send a request.
func BenchmarkStampede(b *testing.B) {
	for _, p := range stampeders() {
		b.Run("peer="+p.name, func(b *testing.B) {
			for b.Loop() {
				refreshes, late := stampede(b, p, size(10_000, 100))
				b.ReportMetric(float64(refreshes), "refreshes")
				b.ReportMetric(float64(late), "late-ns")
			}
			b.ReportMetric(0, "ns/op") // the delay, mostly
		})
	}
}

// stampede returns how many refreshes n callers cause, and how long after the
// answer to the first the last of them has been served.
func stampede(tb testing.TB, p peer, n int) (refreshes int, late time.Duration) {
	tb.Helper()
	fc := fincodetest.New(fincodetest.Config{OpaqueTokens: true})
	var answered atomic.Pointer[time.Time]
	quick := nothing(fc)
	a := newAccount(tb, api, roundTripper(func(r *http.Request) (*http.Response, error) {
		resp, err := quick.RoundTrip(r)
		if now := time.Now(); r.Method == http.MethodPut {
			answered.CompareAndSwap(nil, &now)
		}
		return resp, err
	}))
	answered.Store(nil)
	a.pair.Expiry = time.Now().Add(-time.Minute)
	a.early = early
	c := p.open(tb, a)
	fc.Inject(fincodetest.Refresh, -1, fincodetest.Fault{After: delay()})

	ask := c.token
	if ask == nil {
		req := newRequest(tb, api+"/balance")
		ask = func(context.Context) error { return exchange(c.RoundTripper, req) }
	}
	start := make(chan struct{})
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			<-start
			if err := ask(context.Background()); err != nil {
				tb.Error(err)
			}
		})
	}
	close(start)
	wg.Wait()
	return fc.Counts().RefreshCalls, time.Since(*answered.Load())
}

func TestAStampedeIsOneRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		if refreshes, late := stampede(t, ours, 1000); refreshes != 1 || late != 0 {
			t.Errorf("%d refreshes, and the last caller served %v after the answer, want 1 and at once", refreshes, late)
		}
	})
}
