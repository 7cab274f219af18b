package bench_test

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/fincodeauth/fincodeauth/fincodetest"
)

// BenchmarkThroughput sends requests over loopback TLS, with fincodeauth and
// without it. Without it, the caller sets the same header fields. The two take
// turns of some milliseconds, so that a disturbance of the machine affects both.
func BenchmarkThroughput(b *testing.B) {
	for _, major := range []int{1, 2} {
		b.Run(fmt.Sprint("proto=HTTP", major), func(b *testing.B) {
			base, url := serve(b, major)
			fc := fincodetest.New(fincodetest.Config{})
			a := newAccount(b, api, fc)
			a.url, a.base = url, base
			with := newRequest(b, url+"/balance")
			without := with.Clone(b.Context())
			maps.Copy(without.Header, ownFields(a))
			ways := []way{{ours.open(b, a), with}, {base, without}}
			var took [2]time.Duration
			const turn = 200
			for _, w := range ways { // open the connections
				w.send(b, turn)
			}
			for round := 0; b.Loop(); round++ {
				for i := range took {
					which := (i + round) % len(took) // so that neither is always first
					began := time.Now()
					ways[which].send(b, turn)
					took[which] += time.Since(began)
				}
			}
			total := float64(turn * b.N)
			b.ReportMetric(0, "ns/op") // 0 hides it: it is the time of both together
			b.ReportMetric(total/took[0].Seconds(), "req/s")
			b.ReportMetric(total/took[1].Seconds(), "bare/s")
			b.ReportMetric(took[1].Seconds()/took[0].Seconds(), "ratio")
		})
	}
}

// callers is the number of goroutines that send requests at the same time.
const callers = 8

// A way is a request and the RoundTripper that sends it.
type way struct {
	http.RoundTripper
	request *http.Request
}

func (w way) send(b *testing.B, n int) {
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			req := w.request.Clone(b.Context())
			for range n / callers {
				if err := exchange(w.RoundTripper, req); err != nil {
					b.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

// exchange sends a request and reads the answer to its end.
func exchange(rt http.RoundTripper, req *http.Request) error {
	resp, err := rt.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("answered %s", resp.Status)
	}
	return nil
}

// serve starts a server that answers a few bytes. It returns a base for requests
// to the server, and the server's URL.
func serve(b *testing.B, major int) (http.RoundTripper, string) {
	b.Helper()
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != major || r.Header.Get("X-Auth-Token") == "" {
			http.Error(w, "this is not the request that the benchmark measures", http.StatusBadRequest)
			return
		}
		io.WriteString(w, `{"success":true,"data":{"balance":"12.50"}}`)
	}))
	srv.EnableHTTP2 = major == 2
	srv.StartTLS()
	b.Cleanup(srv.Close)
	t := srv.Client().Transport.(*http.Transport)
	t.MaxIdleConnsPerHost = callers
	return t, srv.URL + fincodetest.Root
}
