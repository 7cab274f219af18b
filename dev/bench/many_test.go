package bench_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/oauth2"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/fincodetest"
)

// size returns full, or short with -short.
func size(full, short int) int {
	if testing.Short() {
		return short
	}
	return full
}

// A pool has the sessions of many users behind one source of tokens, and a
// sequence of their requests. The users of the requests follow a Zipf
// distribution. Each user has one context and one key, so the processor's cache
// holds those of frequent users. A server has them in its cache too, because it
// makes them just before it asks for the token.
type pool struct {
	source   *fincodeauth.TokenSource
	peers    *sync.Map         // key -> oauth2.TokenSource
	contexts []context.Context // index: user
	names    []string          // index: user
	keys     []any             // names, converted beforehand for the sync.Map
	requests []uint32          // the user of each request
}

// fullPool makes the pool once, because 100,000 sessions take some seconds.
var fullPool = sync.OnceValues(func() (*pool, error) {
	n := size(100_000, 1000)
	sessions, err := fincodeauth.New(fincodeauth.Config{BaseURL: api, Store: madeUpStore{time.Now()}, MaxSessions: n})
	if err != nil {
		return nil, err
	}
	p := &pool{source: sessions.TokenSource(""), peers: new(sync.Map)}
	for i := range n {
		key := user(i)
		ctx := fincodeauth.WithSession(context.Background(), key)
		tok, err := p.source.TokenContext(ctx)
		if err != nil {
			return nil, err
		}
		p.peers.Store(key, oauth2.ReuseTokenSource(tok, nil))
		p.contexts = append(p.contexts, ctx)
		p.names = append(p.names, key)
		p.keys = append(p.keys, key)
	}
	zipf := rand.NewZipf(rand.New(rand.NewPCG(1, 2)), 1.1, 1, uint64(n-1))
	for range 1 << 18 {
		p.requests = append(p.requests, uint32(zipf.Uint64()))
	}
	return p, nil
})

// user returns the key of user n. It has 16 bytes, which is a size in which Go
// allocates memory: bytesEach relies on that.
func user(n int) string { return fmt.Sprintf("user-%011d", n) }

// A madeUpStore returns a valid record for every key and keeps no record.
type madeUpStore struct{ now time.Time }

func (m madeUpStore) Load(_ context.Context, key string) (*fincodeauth.Record, error) {
	return &fincodeauth.Record{Version: fmt.Sprintf("%026s.%026s", key, key), Generation: 1, Token: &oauth2.Token{ // as long as real ones
		AccessToken:  fmt.Sprintf("access-%57s", key), // 64 bytes
		RefreshToken: fmt.Sprintf("refresh%57s", key),
		Expiry:       m.now.Add(time.Hour),
		ExpiresIn:    3600,
	}}, nil
}

func (madeUpStore) Save(context.Context, string, *fincodeauth.Record, string) error { return nil }
func (madeUpStore) Delete(context.Context, string) error                            { return nil }

// BenchmarkTokenOfMany looks up tokens among 100,000 sessions. Users of x/oauth2
// need a map of sources for that.
func BenchmarkTokenOfMany(b *testing.B) {
	p, err := fullPool()
	if err != nil {
		b.Fatal(err)
	}
	ctx := b.Context()
	lookUps := []struct {
		name string
		ask  func(user uint32) error
	}{
		{"fincodeauth", func(user uint32) error {
			_, err := p.source.TokenContext(p.contexts[user])
			return err
		}},
		{"fincodeauth-new-context", func(user uint32) error {
			_, err := p.source.TokenContext(fincodeauth.WithSession(ctx, p.names[user]))
			return err
		}},
		{"oauth2-in-a-map", func(user uint32) error {
			source, _ := p.peers.Load(p.keys[user])
			_, err := source.(oauth2.TokenSource).Token()
			return err
		}},
	}
	for _, l := range lookUps {
		b.Run("peer="+l.name, func(b *testing.B) {
			var goroutines atomic.Uint32
			b.ReportAllocs()
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				i := int(goroutines.Add(1)) * len(p.requests) / 7 // each goroutine begins at another place
				for ; pb.Next(); i++ {
					if err := l.ask(p.requests[i%len(p.requests)]); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}

// workers is the number of concurrent callers in benchmarks of many sessions.
const workers = 256

// share calls do(0) to do(n-1) from that many workers. If some calls fail, share
// returns one of the errors.
func share(n int, do func(int) error) error {
	var next atomic.Int64
	var failed atomic.Pointer[error]
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				if err := do(i); err != nil {
					failed.Store(&err)
				}
			}
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}

// BenchmarkRotations refreshes the tokens of 100,000 sessions that are all due at
// once, and makes the same number of bare calls to the endpoint. The two take
// turns of ten thousand, so that a disturbance of the machine affects both. The
// store is in memory. FinCode is in memory too, or on a socket of the loopback
// interface. Tokens are opaque, because signing one takes longer than everything
// else.
func BenchmarkRotations(b *testing.B) {
	for _, way := range []struct {
		name string
		open func() site
	}{{"memory", openInMemory}, {"TLS", openServer}} {
		b.Run("over="+way.name, func(b *testing.B) {
			n := size(100_000, 500)
			var took [2]time.Duration // ours, bare
			for b.Loop() {
				elapsed, err := takeTurns(way.open(), n)
				if err != nil {
					b.Fatal(err)
				}
				took[0] += elapsed[0]
				took[1] += elapsed[1]
			}
			total := float64(n * b.N)
			b.ReportMetric(0, "ns/op") // 0 hides it: it is mostly the setup
			b.ReportMetric(total/took[0].Seconds(), "rotations/s")
			b.ReportMetric(total/took[1].Seconds(), "bare/s")
			b.ReportMetric(took[1].Seconds()/took[0].Seconds(), "ratio")
		})
	}
}

// takeTurns returns how long n rotations and n bare calls take at that site.
func takeTurns(at site, n int) (took [2]time.Duration, err error) {
	defer at.close()
	rotate, stop, err := dueSessions(at, n)
	if err != nil {
		return took, err
	}
	call, err := bareCalls(at, n)
	if err != nil {
		return took, err
	}
	ways := [len(took)]func(int) error{rotate, call}
	const turns = 10
	for turn := range turns {
		for i := range ways {
			which := (i + turn) % len(ways) // so that neither is always first
			runtime.GC()                    // frees what the other left behind
			began := time.Now()
			err := share(n/turns, func(i int) error { return ways[which](turn*n/turns + i) })
			took[which] += time.Since(began)
			if err != nil {
				return took, err
			}
		}
	}
	if got := at.Counts(); got.RefreshCalls != 2*n || got.Refreshes != 2*n {
		return took, fmt.Errorf("FinCode counted %d calls and %d rotations, want %d of each", got.RefreshCalls, got.Refreshes, 2*n)
	}
	return took, stop(context.Background())
}

// A site is a FinCode and the way to reach it.
type site struct {
	*fincodetest.FinCode
	url   string
	base  http.RoundTripper
	close func()
}

func openInMemory() site {
	fc := fincodetest.New(fincodetest.Config{OpaqueTokens: true})
	return site{fc, api, fc, func() {}}
}

func openServer() site {
	fc := fincodetest.NewTLSServer(fincodetest.Config{OpaqueTokens: true})
	base := fc.Client().Transport.(*http.Transport)
	base.MaxIdleConnsPerHost, base.MaxConnsPerHost = workers, workers // the logins open them
	return site{fc.FinCode, fc.URL, base, fc.Close}
}

// dueSessions makes n sessions whose tokens have expired. rotate refreshes one of
// them, and stop closes all.
func dueSessions(at site, n int) (rotate func(int) error, stop func(context.Context) error, err error) {
	ctx := context.Background()
	tokens, err := logInAll(at, n)
	if err != nil {
		return nil, nil, err
	}
	store := fincodeauth.NewMemoryStore()
	contexts := make([]context.Context, n)
	for i, tok := range tokens {
		contexts[i] = fincodeauth.WithSession(ctx, user(i))
		tok.Expiry = time.Now().Add(-time.Hour)
		if err := store.Save(ctx, user(i), &fincodeauth.Record{Version: "v", Token: tok}, ""); err != nil {
			return nil, nil, err
		}
	}
	sessions, err := fincodeauth.New(fincodeauth.Config{BaseURL: at.url, Base: at.base, Store: store})
	if err != nil {
		return nil, nil, err
	}
	source := sessions.TokenSource("")
	return func(i int) error {
		_, err := source.TokenContext(contexts[i])
		return err
	}, sessions.Close, nil
}

// bareCalls logs n sessions in. call refreshes the token of one of them with the
// HTTP call alone.
func bareCalls(at site, n int) (call func(int) error, err error) {
	tokens, err := logInAll(at, n)
	return func(i int) error {
		next, err := refresh(context.Background(), at.url, at.base, tokens[i].RefreshToken)
		tokens[i] = next
		return err
	}, err
}

func logInAll(at site, n int) ([]*oauth2.Token, error) {
	tokens := make([]*oauth2.Token, n)
	return tokens, share(n, func(i int) (err error) {
		tokens[i], err = logIn(context.Background(), at.url, at.base)
		return err
	})
}

// BenchmarkMemory measures the memory of one session while 1,000,000 are held.
func BenchmarkMemory(b *testing.B) {
	for b.Loop() {
		each, err := bytesEach(size(1_000_000, 10_000))
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(each, "B/session")
	}
	b.ReportMetric(0, "ns/op") // 0 hides it
}

// A benchmark does not fail when sessions grow, so there is a test too. With one
// session more than a power of two, the table has just grown and is at its
// emptiest: the worst case.
func TestASessionTakesAtMost300BytesAndItsStrings(t *testing.T) {
	each, err := bytesEach(1<<16 + 1)
	if err != nil || each > 300 {
		t.Errorf("a session takes %.0f bytes and its strings, error %v; want at most 300 bytes", each, err)
	}
}

// bytesEach returns how many bytes of the heap one session takes besides its own
// strings, when that many sessions are held.
func bytesEach(sessions int) (float64, error) {
	all, err := fincodeauth.New(fincodeauth.Config{BaseURL: api, Store: madeUpStore{time.Now()}, MaxSessions: sessions})
	if err != nil {
		return 0, err
	}
	source := all.TokenSource("")
	before := heap()
	err = share(sessions, func(i int) error {
		_, err := source.TokenContext(fincodeauth.WithSession(context.Background(), user(i)))
		return err
	})
	each := float64(heap()-before) / float64(sessions)
	runtime.KeepAlive(all)
	const strings = 16 + 64 + 64 + 32 // the key, the access token, the refresh token, the session's name
	return each - strings, err
}

// heap returns how many bytes of the heap are in use.
func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // frees what finalizers and pools kept during the first
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
