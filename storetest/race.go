package storetest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/fincodeauth/fincodeauth"
)

const writers = 8 // goroutines that save at the same time

// oneSaveWins lets all writers replace the same version at the same moment.
// Exactly one of them must succeed.
func oneSaveWins(t *testing.T, s store) {
	prev := ""
	for round := range 20 {
		var errs [writers]error
		atOnce(writers, func(i int) {
			errs[i] = s.Save(t.Context(), key, newRecord(fmt.Sprintf("v%d.%d", round, i)), prev)
		})
		winner := ""
		for i, err := range errs {
			version := fmt.Sprintf("v%d.%d", round, i)
			switch {
			case err == nil && winner == "":
				winner = version
			case err == nil:
				t.Fatalf("Save of %s and of %s over %q both succeeded", winner, version, prev)
			case !errors.Is(err, fincodeauth.ErrConflict):
				t.Fatalf("Save of %s over %q = %v, want nil or ErrConflict", version, prev, err)
			}
		}
		if winner == "" {
			t.Fatalf("%d saves over %q all failed with ErrConflict", writers, prev)
		}
		s.want(t, key, winner)
		prev = winner
	}
}

// noUpdateIsLost lets each writer replace what it finds, again and again. Every
// conflict must come from a successful Save of another writer. So the number of
// saves of all writers is the number of attempts that one writer may need.
func noUpdateIsLost(t *testing.T, s store) {
	const saves = 5 // of each writer
	s.save(t, key, "v0", "")
	var chain history
	atOnce(writers, func(i int) {
		n := 0
		for range writers * saves {
			rec, err := s.Load(t.Context(), key)
			if err != nil {
				t.Errorf("Load = %v", err)
				return
			}
			runtime.Gosched() // without it, a fast store would see no race
			version := fmt.Sprintf("v%d.%d", i, n)
			err = s.Save(t.Context(), key, newRecord(version), rec.Version)
			if errors.Is(err, fincodeauth.ErrConflict) {
				continue
			}
			if err != nil {
				t.Errorf("Save = %v", err)
				return
			}
			chain.add(version, rec.Version)
			if n++; n == saves {
				return
			}
		}
		t.Errorf("%d attempts made only %d saves: Save returned ErrConflict although no other Save replaced the version", writers*saves, n)
	})
	if !t.Failed() {
		chain.check(t, s, "v0")
	}
}

// othersSeeASave loads in one goroutine what another goroutine has just saved.
func othersSeeASave(t *testing.T, s store) {
	saved, seen := make(chan string), make(chan string)
	go func() {
		defer close(seen)
		for version := range saved {
			rec, err := s.Load(t.Context(), key)
			if err != nil {
				seen <- fmt.Sprintf("Load right after the Save of %s = %v", version, err)
				continue
			}
			seen <- differ(rec, newRecord(version))
		}
	}()
	defer close(saved)
	prev := ""
	for i := range 50 {
		version := fmt.Sprintf("v%d", i)
		s.save(t, key, version, prev)
		saved <- version
		if diff := <-seen; diff != "" {
			t.Fatal(diff)
		}
		prev = version
	}
}

// deleteRacesSave deletes the record while two other goroutines save over it,
// each twice. No Save may bring the session back, because no Save is over nothing.
func deleteRacesSave(t *testing.T, s store) {
	for round := range 30 {
		first := fmt.Sprintf("v%d", round)
		s.save(t, key, first, "")
		atOnce(3, func(i int) {
			if i > 0 {
				saveTwice(t, s, first, i)
			} else if err := s.Delete(t.Context(), key); err != nil {
				t.Errorf("Delete = %v", err)
			}
		})
		s.wantNone(t, key)
		if t.Failed() {
			return
		}
	}
}

// saveTwice saves over the version first, and then over its own Save, until there is
// a conflict. number tells its versions from those of others.
func saveTwice(t *testing.T, s store, first string, number int) {
	prev := first
	for n := range 2 {
		version := fmt.Sprintf("%s.%d.%d", first, number, n)
		err := s.Save(t.Context(), key, newRecord(version), prev)
		if errors.Is(err, fincodeauth.ErrConflict) {
			return
		}
		if err != nil {
			t.Errorf("Save = %v", err)
		}
		prev = version
	}
}

// cancelledDuring cancels calls at random moments. A call that was cancelled may
// have its effect or not, also after it has returned. It must not have half of it.
func cancelledDuring(t *testing.T, s store) {
	s.save(t, key, "v0", "")
	var all outcomes
	done := make(chan struct{})
	go func() {
		defer close(done)
		atOnce(writers, func(i int) {
			for n := range 20 {
				cancelledSave(t, s, &all, fmt.Sprintf("v%d.%d", i, n))
			}
		})
	}()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatal("a call whose context was cancelled had not returned after a minute")
	}
	saveLast(t, s, &all, "last")
	s.want(t, key, "last")
	all.check(t, "last")
}

// saveLast saves version over what it finds, until that succeeds. Each time, a Save that
// was cancelled before may have come in between. What it finds must be whole.
func saveLast(t *testing.T, s store, all *outcomes, version string) {
	seen := make(map[string]bool)
	for {
		rec, err := s.Load(t.Context(), key)
		if err != nil {
			t.Fatalf("Load after cancelled calls = %v", err)
		}
		if diff := differ(rec, newRecord(rec.Version)); diff != "" {
			t.Fatalf("Load after cancelled calls: %s", diff)
		}
		if seen[rec.Version] {
			t.Fatalf("Save over %q = ErrConflict, but that version is still there", rec.Version)
		}
		seen[rec.Version] = true
		err = s.Save(t.Context(), key, newRecord(version), rec.Version)
		if err == nil {
			all.tried.add(version, rec.Version)
			return
		}
		if !errors.Is(err, fincodeauth.ErrConflict) {
			t.Fatalf("Save after cancelled calls = %v", err)
		}
	}
}

// cancelledSave replaces what it finds. Its context is cancelled at a random
// moment.
func cancelledSave(t *testing.T, s store, all *outcomes, version string) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	// Between 1 µs and 4 ms. Each power of two is equally likely, because some
	// stores need microseconds for a call and others need milliseconds.
	defer time.AfterFunc(4*time.Millisecond>>rand.N(13), cancel).Stop()

	allowed := func(call string, err error) {
		if !errors.Is(err, context.Canceled) && !errors.Is(err, fincodeauth.ErrConflict) {
			t.Errorf("%s while its context was cancelled = %v, want nil, ErrConflict or an error that wraps context.Canceled", call, err)
		}
	}
	rec, err := s.Load(ctx, key)
	if err != nil {
		allowed("Load", err)
		return
	}
	if diff := differ(rec, newRecord(rec.Version)); diff != "" {
		t.Errorf("Load while other calls were cancelled: %s", diff)
	}
	all.tried.add(version, rec.Version)
	err = s.Save(ctx, key, newRecord(version), rec.Version)
	switch {
	case err == nil:
		all.saved.add(version, rec.Version)
	case errors.Is(err, fincodeauth.ErrConflict):
		all.refused.add(version, rec.Version)
	default:
		allowed("Save", err)
	}
}

// The outcomes of Saves that may have been cancelled. A Save that was tried, and is
// neither of those that were saved nor of those that conflicted, has had its effect or not.
type outcomes struct{ tried, saved, refused history }

// check fails the test unless last came from every Save that succeeded, and from none
// that conflicted.
func (o *outcomes) check(t *testing.T, last string) {
	t.Helper()
	o.saved.checkNoFork(t)
	prevOf := make(map[string]string)
	for _, save := range o.tried.saves {
		prevOf[save[0]] = save[1]
	}
	landed := make(map[string]bool)
	for version := last; version != "" && !landed[version]; version = prevOf[version] {
		landed[version] = true
	}
	for _, save := range o.saved.saves {
		if !landed[save[0]] {
			t.Errorf("Save of %q over %q succeeded, but is lost: another Save replaced a version that was gone", save[0], save[1])
		}
	}
	for _, save := range o.refused.saves {
		if landed[save[0]] {
			t.Errorf("Save of %q over %q = ErrConflict, but it has replaced the record", save[0], save[1])
		}
	}
}

// A history notes which version each Save replaced, or was to replace. It is safe for
// concurrent use.
type history struct {
	mu    sync.Mutex
	saves [][2]string // version, prev
}

func (h *history) add(version, prev string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.saves = append(h.saves, [2]string{version, prev})
}

// checkNoFork fails the test if two saves replaced the same version. It returns
// the version that replaced each version.
func (h *history) checkNoFork(t *testing.T) map[string]string {
	t.Helper()
	next := make(map[string]string)
	for _, save := range h.saves {
		version, prev := save[0], save[1]
		if other, ok := next[prev]; ok {
			t.Fatalf("Save of %q and of %q over %q both succeeded", other, version, prev)
		}
		next[prev] = version
	}
	return next
}

// check fails the test unless the saves form one chain. The first save must have
// replaced the version first, and each later save the version of the save before.
// The store must hold the last version.
func (h *history) check(t *testing.T, s store, first string) {
	t.Helper()
	next := h.checkNoFork(t)
	last := first
	for range h.saves {
		version, ok := next[last]
		if !ok {
			t.Fatalf("%d saves succeeded, but none of them replaced %q: an update is lost", len(h.saves), last)
		}
		last = version
	}
	s.want(t, key, last)
}

// atOnce calls do(0) to do(n-1) at the same time, each in its own goroutine, and
// waits for all of them.
func atOnce(n int, do func(i int)) {
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i := range n {
		wg.Go(func() {
			<-start
			do(i)
		})
	}
	close(start)
	wg.Wait()
}
