//go:build !race

package fincodeauth_test

import (
	"context"
	"iter"
	"runtime"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/fincodetest"
)

// A million keys, most of which have no session. This test measures memory, so it is not
// for the race detector.
func TestMillionKeysTakeABoundedMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("lists a million keys several times")
	}
	const n, every = 1_100_000, 24 * time.Hour
	synctest.Test(t, func(t *testing.T) {
		store := newFaultyStore()
		var loads atomic.Int64
		store.load = func() error { loads.Add(1); return nil }
		sessions := newSessions(t, fincodetest.New(fincodetest.Config{}), withStore(store), func(c *fincodeauth.Config) { c.MaxSessions = 1000 })
		logIn(t, sessions, "7")
		loads.Store(0)
		before := heapInUse()
		stop := keepAlive(sessions, every, func(context.Context) iter.Seq2[string, error] {
			return func(yield func(string, error) bool) {
				for i := range n {
					if !yield(strconv.Itoa(i), nil) {
						return
					}
				}
			}
		})
		time.Sleep(every / 40) // five rounds
		synctest.Wait()
		grown := heapInUse() - before
		wantStopped(t, stop)
		t.Logf("%d keys: %d Loads in five rounds, and %d MB more on the heap", n, loads.Load(), grown>>20)
		if grown > 64<<20 {
			t.Errorf("the heap grew by %d MB, want at most 64", grown>>20)
		}
		// Those above a million are loaded in each round.
		if got := loads.Load(); got < n || got > n+6*(n-1<<20) {
			t.Errorf("there were %d Loads, want one for each key, and those that do not fit in each round", got)
		}
		if st := sessions.Stats(); st.InMemory > 1 {
			t.Errorf("%d sessions are in memory, want the one that there is", st.InMemory)
		}
	})
}

func heapInUse() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
