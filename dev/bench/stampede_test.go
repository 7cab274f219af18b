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

// stampeders returns the peers that let concurrent callers share a refresh, each
// peer in its own way.
func stampeders() (list []peer) {
	for _, p := range peers {
		if p.name != floor.name && p.name != "ghinstallation" { // ghinstallation only talks to GitHub
			list = append(list, p)
		}
	}
	return list
}

// BenchmarkStampede lets 10,000 callers ask at once for a token that has expired.
// The callers of azcore send a request instead, because azcore has no call to
// look up a token.
func BenchmarkStampede(b *testing.B) {
	for _, p := range stampeders() {
		b.Run("peer="+p.name, func(b *testing.B) {
			for b.Loop() {
				refreshes, late := stampede(b, p, size(10_000, 100))
				b.ReportMetric(float64(refreshes), "refreshes")
				b.ReportMetric(float64(late), "late-ns")
			}
			b.ReportMetric(0, "ns/op") // 0 hides it: it is mostly the endpoint's delay
		})
	}
}

// stampede returns how many refreshes n callers cause, and how long after the
// first refresh was answered the last caller was served.
func stampede(tb testing.TB, p peer, n int) (refreshes int, late time.Duration) {
	tb.Helper()
	fc := fincodetest.New(fincodetest.Config{OpaqueTokens: true})
	var answered atomic.Pointer[time.Time]
	quick := instantBase(fc)
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
			t.Errorf("%d refreshes, and the last caller was served %v after the answer; want 1 refresh and no delay", refreshes, late)
		}
	})
}
