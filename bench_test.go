package fincodeauth_test

import (
	"bytes"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/oauth2"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/fincodetest"
	"github.com/fincodeauth/fincodeauth/internal/durable"
)

// emptyAPI is an API that answers 200 without a body, at once.
var emptyAPI = roundTripper(func(*http.Request) (*http.Response, error) { return emptyAnswer, nil })

var emptyAnswer = &http.Response{StatusCode: 200, Body: http.NoBody}

// benchSessions returns Sessions with emptyAPI, whose session "a" has a new token.
func benchSessions(tb testing.TB) *fincodeauth.Sessions {
	tb.Helper()
	fc := fincodetest.New(fincodetest.Config{})
	sessions, err := fincodeauth.New(fincodeauth.Config{
		BaseURL: api,
		Base: roundTripper(func(r *http.Request) (*http.Response, error) {
			if r.Method == http.MethodPut {
				return fc.RoundTrip(r)
			}
			return emptyAPI(r)
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
		t.Errorf("Token allocates %v times, want 0", n)
	}
	ctx := fincodeauth.WithSession(t.Context(), "a")
	each := sessions.TokenSource("")
	if n := testing.AllocsPerRun(1000, func() {
		if _, err := each.TokenContext(ctx); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("TokenContext with a key from the context allocates %v times, want 0", n)
	}
}

// The request is one allocation. A header map with up to eight fields is two, a larger
// one is four.
func TestRoundTripAllocatesOnlyTheRequestAndItsHeader(t *testing.T) {
	for name, test := range map[string]struct {
		caller http.Header
		fields int     // how many fields are sent
		most   float64 // allocations
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
			return emptyAnswer, nil
		})
		if n := testing.AllocsPerRun(1000, func() { roundTrip(t, tr, req) }); n > test.most || fields != test.fields {
			t.Errorf("fields of the caller: %s: got %v allocations to send %d fields, want at most %v to send %d", name, n, fields, test.most, test.fields)
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

// BenchmarkRoundTripOAuth2 measures the Transport of golang.org/x/oauth2, which adds
// one field to the header.
func BenchmarkRoundTripOAuth2(b *testing.B) {
	tr := &oauth2.Transport{Source: benchSessions(b).TokenSource("a"), Base: emptyAPI}
	req := request(b, "GET", nil)
	b.ReportAllocs()
	for b.Loop() {
		roundTrip(b, tr, req)
	}
}

// BenchmarkRotation measures a rotation at a FinCode in memory, with a MemoryStore. The
// journal adds one file, synced together with its folder. "file alone" is what that costs
// without the package.
func BenchmarkRotation(b *testing.B) {
	for name, around := range map[string]func(fincodeauth.Store) fincodeauth.Store{
		"without journal": func(s fincodeauth.Store) fincodeauth.Store { return s },
		"with journal":    func(s fincodeauth.Store) fincodeauth.Store { return journaled(b, s, journalDir(b)) },
	} {
		b.Run(name, func(b *testing.B) {
			var ahead time.Duration // of the clock
			now := func() time.Time { return time.Now().Add(ahead) }
			sessions, err := fincodeauth.NewOn(newConfig(fincodetest.New(fincodetest.Config{OpaqueTokens: true}), withStore(around(fincodeauth.NewMemoryStore()))),
				now, func() float64 { return 0 })
			if err != nil {
				b.Fatal(err)
			}
			if err := sessions.Login(b.Context(), "a", credentials); err != nil {
				b.Fatal(err)
			}
			src := sessions.TokenSource("a")
			for b.Loop() {
				ahead += time.Hour
				if _, err := src.Token(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("file alone", func(b *testing.B) {
		dir := b.TempDir()
		path, draft := filepath.Join(dir, "1.json"), filepath.Join(dir, "1.draft")
		data := bytes.Repeat([]byte{'x'}, 1500)
		for b.Loop() {
			f, err := os.Create(draft)
			if err == nil {
				err = durable.WriteFile(f, data)
			}
			if err := errors.Join(err, os.Rename(draft, path), durable.SyncDir(dir), os.Remove(path)); err != nil {
				b.Fatal(err)
			}
		}
	})
}
