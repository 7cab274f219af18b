package fincodeauth_test

import (
	"net/http"
	"testing"
	"time"

	"golang.org/x/oauth2"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/fincodetest"
)

// nothing is a base that answers at once.
var nothing = roundTripper(func(*http.Request) (*http.Response, error) { return answered, nil })

var answered = &http.Response{StatusCode: 200, Body: http.NoBody}

// benchSessions returns Sessions whose session "a" has a fresh token, and whose API
// answers nothing.
func benchSessions(tb testing.TB) *fincodeauth.Sessions {
	tb.Helper()
	fc := fincodetest.New(fincodetest.Config{})
	sessions, err := fincodeauth.New(fincodeauth.Config{
		BaseURL: api,
		Base: roundTripper(func(r *http.Request) (*http.Response, error) {
			if r.Method == http.MethodPut {
				return fc.RoundTrip(r)
			}
			return nothing(r)
		}),
	})
	if err != nil {
		tb.Fatal(err)
	}
	if err := sessions.Login(tb.Context(), "a", credentials); err != nil {
		tb.Fatal(err)
	}
	return sessions
}

func TestTokenAllocatesNothing(t *testing.T) {
	sessions := benchSessions(t)
	src := sessions.TokenSource("a")
	if n := testing.AllocsPerRun(1000, func() { token(t, src) }); n != 0 {
		t.Errorf("Token allocates %v times", n)
	}
	ctx := fincodeauth.WithSession(t.Context(), "a")
	each := sessions.TokenSource("")
	if n := testing.AllocsPerRun(1000, func() {
		if _, err := each.TokenContext(ctx); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("TokenContext with the context's session allocates %v times", n)
	}
}

// A map of up to eight fields is two allocations, a larger one is four.
func TestRoundTripAllocatesOnlyTheRequestAndItsHeader(t *testing.T) {
	for name, test := range map[string]struct {
		caller http.Header
		fields int // that are sent
		most   float64
	}{
		"none":                  {nil, 5, 3},
		"two":                   {http.Header{"A": {"1"}, "B": {"1"}}, 7, 3},
		"three":                 {http.Header{"A": {"1"}, "B": {"1"}, "C": {"1"}}, 8, 3},
		"four, one of ours":     {http.Header{"A": {"1"}, "B": {"1"}, "C": {"1"}, "Content-Type": {"a/b"}}, 8, 3},
		"five, in lower case":   {http.Header{"A": {"1"}, "B": {"1"}, "C": {"1"}, "uuid": {"1"}, "platform": {"1"}}, 8, 3},
		"five, one token's":     {http.Header{"A": {"1"}, "B": {"1"}, "C": {"1"}, "Uuid": {"1"}, "Authorization": {"1"}}, 8, 3},
		"four":                  {http.Header{"A": {"1"}, "B": {"1"}, "C": {"1"}, "D": {"1"}}, 9, 5},
		"two of several values": {http.Header{"A": {"1", "2", "3"}, "B": {"1", "2"}}, 7, 3},
	} {
		tr := benchSessions(t).Transport("a")
		req := request(t, "GET", nil)
		req.Header = test.caller
		var fields int
		tr.Base = roundTripper(func(r *http.Request) (*http.Response, error) {
			fields = len(r.Header)
			return answered, nil
		})
		if n := testing.AllocsPerRun(1000, func() { roundTrip(t, tr, req) }); n > test.most || fields != test.fields {
			t.Errorf("%s of the caller's: %v allocations to send %d fields, want at most %v for %d", name, n, fields, test.most, test.fields)
		}
	}
}

func BenchmarkTimeNow(b *testing.B) {
	var now time.Time
	for b.Loop() {
		now = time.Now()
	}
	_ = now
}

func BenchmarkToken(b *testing.B) {
	src := benchSessions(b).TokenSource("a")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := src.Token(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkTokenParallel(b *testing.B) {
	src := benchSessions(b).TokenSource("a")
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := src.Token(); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

func BenchmarkTokenOfContext(b *testing.B) {
	src := benchSessions(b).TokenSource("")
	ctx := fincodeauth.WithSession(b.Context(), "a")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := src.TokenContext(ctx); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRoundTrip(b *testing.B) {
	tr, req := benchSessions(b).Transport("a"), request(b, "GET", nil)
	b.ReportAllocs()
	for b.Loop() {
		roundTrip(b, tr, req)
	}
}

// BenchmarkRoundTripOAuth2 is what users of golang.org/x/oauth2 have: it adds
// one header.
func BenchmarkRoundTripOAuth2(b *testing.B) {
	tr := &oauth2.Transport{Source: benchSessions(b).TokenSource("a"), Base: nothing}
	req := request(b, "GET", nil)
	b.ReportAllocs()
	for b.Loop() {
		roundTrip(b, tr, req)
	}
}
