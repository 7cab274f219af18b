package bench_test

import (
	"maps"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/fincodeauth/fincodeauth/fincodetest"
)

// early is the same for all: FinCode's advice (FINCODE.md, Tokens), and azcore's default.
const early = 5 * time.Minute

// ready returns a peer with a token that is good, over nothing.
func (p peer) ready(tb testing.TB) client {
	tb.Helper()
	fc := fincodetest.New(fincodetest.Config{})
	a := newAccount(tb, api, nothing(fc))
	a.early = early
	c := p.open(tb, a)
	send(tb, c.RoundTripper, newRequest(tb, api+"/balance"))
	return c
}

func send(tb testing.TB, rt http.RoundTripper, req *http.Request) {
	resp, err := rt.RoundTrip(req)
	if err != nil || resp.StatusCode != http.StatusOK {
		tb.Error("no answer: ", err)
	}
}

// BenchmarkRequest sends one request after the other, in as many goroutines as
// -cpu says.
func BenchmarkRequest(b *testing.B) {
	for _, p := range peers {
		b.Run("peer="+p.name, func(b *testing.B) {
			rt := p.ready(b).RoundTripper
			b.ReportAllocs()
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				req := newRequest(b, api+"/balance")
				for pb.Next() {
					send(b, rt, req)
				}
			})
		})
	}
}

// BenchmarkToken looks a token up.
func BenchmarkToken(b *testing.B) {
	for _, p := range peers {
		b.Run("peer="+p.name, func(b *testing.B) {
			token := p.ready(b).token
			if token == nil {
				b.Skip("it has no call for that")
			}
			ctx := b.Context()
			b.ReportAllocs()
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if err := token(ctx); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}

// A comparison is worth something only if all do what they are measured for.
func TestEveryPeerAuthenticatesACopyOfTheRequest(t *testing.T) {
	for _, p := range peers {
		t.Run(p.name, func(t *testing.T) {
			fc := fincodetest.New(fincodetest.Config{})
			var sent http.Header
			a := newAccount(t, api, roundTripper(func(r *http.Request) (*http.Response, error) {
				if r.Method != http.MethodPut {
					sent = r.Header
				}
				return nothing(fc).RoundTrip(r)
			}))
			req := newRequest(t, api+"/balance")
			before := req.Header.Clone()
			c := p.open(t, a)
			send(t, c.RoundTripper, req)
			if !maps.EqualFunc(req.Header, before, slices.Equal) {
				t.Errorf("the caller's header is %v now, was %v", req.Header, before)
			}
			for name, values := range before {
				if !slices.Equal(sent[name], values) {
					t.Errorf("%s is %q, want %q", name, sent[name], values)
				}
			}
			scheme := "Bearer "
			if p.name == "ghinstallation" {
				scheme = "token "
			}
			if got, want := sent.Get("Authorization"), scheme+a.pair.AccessToken; got != want {
				t.Errorf("Authorization is %.20q…, want %.20q…", got, want)
			}
		})
	}
}

func TestEveryPeerRefreshesOnce(t *testing.T) {
	for _, p := range peers {
		fc := fincodetest.New(fincodetest.Config{})
		c := p.open(t, newAccount(t, api, nothing(fc)))
		for range 3 {
			send(t, c.RoundTripper, newRequest(t, api+"/balance"))
		}
		if n := fc.Counts().Refreshes; n > 1 {
			t.Errorf("%s: %d refreshes for 3 requests", p.name, n)
		}
	}
}
