package bench_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/fincodetest"
)

// A countingStore counts the calls of the Store in it.
type countingStore struct {
	fincodeauth.Store
	loads, saves, deletes atomic.Int64
}

func (c *countingStore) Load(ctx context.Context, key string) (*fincodeauth.Record, error) {
	c.loads.Add(1)
	return c.Store.Load(ctx, key)
}

func (c *countingStore) Save(ctx context.Context, key string, rec *fincodeauth.Record, prev string) error {
	c.saves.Add(1)
	return c.Store.Save(ctx, key, rec, prev)
}

func (c *countingStore) Delete(ctx context.Context, key string) error {
	c.deletes.Add(1)
	return c.Store.Delete(ctx, key)
}

// calls returns the numbers of loads, saves and deletes since the last call of
// calls.
func (c *countingStore) calls() (calls [3]int64) {
	return [3]int64{c.loads.Swap(0), c.saves.Swap(0), c.deletes.Swap(0)}
}

func newSessions(tb testing.TB, cfg fincodeauth.Config) *fincodeauth.Sessions {
	tb.Helper()
	cfg.BaseURL = api
	sessions, err := fincodeauth.New(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { sessions.Close(context.Background()) })
	return sessions
}

func TestARotationIsOneLoadAndTwoSaves(t *testing.T) {
	fc := fincodetest.New(fincodetest.Config{})
	store := &countingStore{Store: fincodeauth.NewMemoryStore()}
	sessions := newSessions(t, fincodeauth.Config{Base: instantBase(fc), Store: store})
	expired := newAccount(t, api, fc).pair
	expired.Expiry = time.Now().Add(-time.Minute)
	if err := sessions.Adopt(t.Context(), "ada", expired); err != nil {
		t.Fatal(err)
	}
	store.calls()
	send(t, sessions.Transport("ada"), newRequest(t, api+"/balance"))
	if got, want := store.calls(), [3]int64{1, 2, 0}; got != want {
		t.Errorf("a rotation made %v loads, saves and deletes, want %v", got, want)
	}
	if n := fc.Counts().Refreshes; n != 1 {
		t.Errorf("%d rotations, want 1", n)
	}
	for range 1000 {
		send(t, sessions.Transport("ada"), newRequest(t, api+"/balance"))
	}
	if got := store.calls(); got != [3]int64{} {
		t.Errorf("1,000 requests with a good token made %v loads, saves and deletes, want none", got)
	}
}

// start makes Sessions over store, gets the first user's token and closes the
// Sessions.
func start(tb testing.TB, store fincodeauth.Store) {
	sessions, err := fincodeauth.New(fincodeauth.Config{BaseURL: api, Store: store})
	if err != nil {
		tb.Fatal(err)
	}
	if _, err := sessions.TokenSource(user(0)).Token(); err != nil {
		tb.Fatal(err)
	}
	if err := sessions.Close(tb.Context()); err != nil {
		tb.Fatal(err)
	}
}

// filled returns a store with n records.
func filled(tb testing.TB, n int) *countingStore {
	tb.Helper()
	records := madeUpStore{time.Now()}
	store := fincodeauth.NewMemoryStore()
	for i := range n {
		rec, _ := records.Load(tb.Context(), user(i))
		if err := store.Save(tb.Context(), user(i), rec, ""); err != nil {
			tb.Fatal(err)
		}
	}
	return &countingStore{Store: store}
}

// BenchmarkStartUp calls start with a store of one record and of 1,000,000.
func BenchmarkStartUp(b *testing.B) {
	for _, records := range []struct {
		name string
		n    int
	}{{"1", 1}, {"1000000", size(1_000_000, 1000)}} {
		b.Run("records="+records.name, func(b *testing.B) {
			store := filled(b, records.n)
			for b.Loop() {
				start(b, store)
			}
			b.ReportMetric(float64(store.loads.Load())/float64(b.N), "loads/op")
		})
	}
}

func TestStartingUpIsOneLoadHoweverManyRecordsThereAre(t *testing.T) {
	for _, n := range []int{1, 10_000} {
		store := filled(t, n)
		start(t, store)
		if got, want := store.calls(), [3]int64{1, 0, 0}; got != want {
			t.Errorf("with %d records, a start made %v loads, saves and deletes, want %v", n, got, want)
		}
	}
}
