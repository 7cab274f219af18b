package bench_test

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/fincodeauth/fincodeauth/fincodetest"
)

// early is the same for all peers. FinCode recommends it (FINCODE.md, Tokens),
// and it is azcore's default.
const early = 5 * time.Minute

// ready opens the peer over an instantBase and sends one request, so that the
// peer has a valid token.
func (p peer) ready(tb testing.TB) client {
	tb.Helper()
	fc := fincodetest.New(fincodetest.Config{})
	a := newAccount(tb, api, instantBase(fc))
	a.early = early
	c := p.open(tb, a)
	send(tb, c.RoundTripper, newRequest(tb, api+"/balance"))
	return c
}

func send(tb testing.TB, rt http.RoundTripper, req *http.Request) {
	resp, err := rt.RoundTrip(req)
	if err != nil || resp.StatusCode != http.StatusOK {
		tb.Error("the request was not answered with 200: error ", err)
	}
}

// requests are those of BenchmarkRequest. A Go map holds up to eight fields in
// one group. What fincodeauth sends fits into one group for the first request, but
// not for the second.
var requests = []struct {
	fields int // of the caller
	sent   int // by fincodeauth
	make   func(testing.TB, string) *http.Request
}{
	{fields: 3, sent: 7, make: newRequestOfThree},
	{fields: 5, sent: 10, make: newRequest},
}

// BenchmarkRequest sends one request after the other in each goroutine. The flag
// -cpu sets the number of goroutines.
func BenchmarkRequest(b *testing.B) {
	for _, r := range requests {
		for _, p := range peers {
			b.Run(fmt.Sprintf("fields=%d/peer=%s", r.fields, p.name), func(b *testing.B) {
				rt := p.ready(b).RoundTripper
				b.ReportAllocs()
				b.ResetTimer()
				b.RunParallel(func(pb *testing.PB) {
					req := r.make(b, api+"/balance")
					for pb.Next() {
						send(b, rt, req)
					}
				})
			})
		}
	}
}

// BenchmarkToken looks up the same token again and again.
func BenchmarkToken(b *testing.B) {
	for _, p := range peers {
		b.Run("peer="+p.name, func(b *testing.B) {
			token := p.ready(b).token
			if token == nil {
				b.Skip("this peer has no call to look up a token")
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

// The comparison is fair only if every peer does the work that is measured.
func TestEveryPeerAuthenticatesACopyOfTheRequest(t *testing.T) {
	for _, r := range requests {
		for _, p := range peers {
			t.Run(fmt.Sprintf("fields=%d/peer=%s", r.fields, p.name), func(t *testing.T) {
				fc := fincodetest.New(fincodetest.Config{})
				var sent http.Header
				a := newAccount(t, api, roundTripper(func(r *http.Request) (*http.Response, error) {
					if r.Method != http.MethodPut {
						sent = r.Header
					}
					return instantBase(fc).RoundTrip(r)
				}))
				req := r.make(t, api+"/balance")
				before := req.Header.Clone()
				c := p.open(t, a)
				send(t, c.RoundTripper, req)
				if !maps.EqualFunc(req.Header, before, slices.Equal) {
					t.Errorf("the caller's header changed to %v, was %v", req.Header, before)
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
}

// The floor is a bound only if it sends exactly what fincodeauth does.
func TestTheFloorSendsTheFieldsOfFincodeauth(t *testing.T) {
	for _, r := range requests {
		if len(r.make(t, api).Header) != r.fields {
			t.Errorf("the caller sets %d fields, want %d", len(r.make(t, api).Header), r.fields)
		}
		sentBy := func(p peer) (sent http.Header) {
			fc := fincodetest.New(fincodetest.Config{})
			a := newAccount(t, api, roundTripper(func(r *http.Request) (*http.Response, error) {
				if r.Method != http.MethodPut {
					sent = r.Header.Clone()
					for _, name := range []string{"Authorization", "X-Auth-Token"} { // each has a token of its own
						if sent.Get(name) != "" {
							sent.Set(name, "a token")
						}
					}
				}
				return instantBase(fc).RoundTrip(r)
			}))
			c := p.open(t, a)
			send(t, c.RoundTripper, r.make(t, api+"/balance"))
			return sent
		}
		of, want := sentBy(floor), sentBy(ours)
		if !maps.EqualFunc(of, want, slices.Equal) {
			t.Errorf("the floor sends %v, fincodeauth %v", of, want)
		}
		if len(want) != r.sent {
			t.Errorf("fincodeauth sends %d fields for %d of the caller, want %d", len(want), r.fields, r.sent)
		}
	}
}

func TestEveryPeerRefreshesOnce(t *testing.T) {
	for _, p := range peers {
		fc := fincodetest.New(fincodetest.Config{})
		c := p.open(t, newAccount(t, api, instantBase(fc)))
		for range 3 {
			send(t, c.RoundTripper, newRequest(t, api+"/balance"))
		}
		if n := fc.Counts().Refreshes; n > 1 {
			t.Errorf("%s: %d refreshes for 3 requests, want at most 1", p.name, n)
		}
	}
}
