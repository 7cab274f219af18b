package fincodeauth

import (
	"hash/maphash"
	"slices"
	"sync"
	"sync/atomic"
)

// A table holds the sessions that are in memory, and finds them by key. To find
// one takes no lock, and no memory but a slot: there may be a million.
type table struct {
	most   int    // sessions; then the least recently used are dropped
	leeway uint64 // of uses, by which their order is wrong at most
	uses   atomic.Uint64
	seed   maphash.Seed

	// Its length is a power of two, and half of it at least is nil. A session is
	// in the first slot from its hash on that was free, and stays there: to drop
	// sessions, or for more room, the others are put into new slots.
	slots atomic.Pointer[[]atomic.Pointer[session]]

	mu   sync.Mutex // guards what follows, and the writing of slots
	held int
}

// newTable returns a table that holds that many sessions. Whoever watched its
// order could not tell if it were wrong by a quarter of what is dropped at once.
func newTable(most int) *table {
	t := &table{most: most, leeway: uint64(most / 64), seed: maphash.MakeSeed()}
	t.uses.Store(t.leeway + 1) // so that a session's first use counts
	t.rebuild(16)
	return t
}

// find returns key's session, or nil.
func (t *table) find(key string) *session {
	return t.slot(*t.slots.Load(), key).Load()
}

// slot returns the slot that key's session is in, or belongs into.
func (t *table) slot(slots []atomic.Pointer[session], key string) *atomic.Pointer[session] {
	for i := maphash.String(t.seed, key); ; i++ {
		slot := &slots[i&uint64(len(slots)-1)]
		if s := slot.Load(); s == nil || s.key == key {
			return slot
		}
	}
}

// add makes room for a session and adds it, if nobody was faster. It returns the
// one that is there.
func (t *table) add(s *session) *session {
	t.mu.Lock()
	defer t.mu.Unlock()
	if there := t.find(s.key); there != nil {
		return there
	}
	if t.held >= t.most {
		t.drop(t.held + 1 - (t.most - t.most/16))
	}
	if size := len(*t.slots.Load()); t.held+1 > size/2 {
		t.rebuild(2 * size)
	}
	t.touch(s)
	t.slot(*t.slots.Load(), s.key).Store(s)
	t.held++
	return s
}

// touch notes that s is used: but not within the leeway of the last time, so that
// sessions that are used a lot share no memory that anybody writes.
func (t *table) touch(s *session) {
	if t.uses.Load()-s.used.Load() > t.leeway {
		s.used.Store(t.uses.Add(1))
	}
}

// drop drops the n least recently used sessions, but none that is pinned. It is
// called with mu held, for a sixteenth of the sessions at once: their order is
// not kept, or every request would have to take a lock to write it down.
func (t *table) drop(n int) {
	type use struct {
		s    *session
		tick uint64
	}
	uses := make([]use, 0, t.held)
	for s := range t.all {
		uses = append(uses, use{s, s.used.Load()})
	}
	slices.SortFunc(uses, func(x, y use) int { return int(int64(x.tick - y.tick)) })
	for _, u := range uses {
		if n > 0 && u.s.drop() {
			n--
			t.held--
		}
	}
	t.rebuild(len(*t.slots.Load()))
}

// rebuild puts the sessions that were not dropped into as many slots. It is called
// with mu held.
func (t *table) rebuild(size int) {
	slots := make([]atomic.Pointer[session], size)
	for s := range t.all {
		if !s.dropped.Load() {
			t.slot(slots, s.key).Store(s)
		}
	}
	t.slots.Store(&slots)
}

// all ranges over the sessions.
func (t *table) all(yield func(*session) bool) {
	slots := t.slots.Load()
	if slots == nil {
		return
	}
	for i := range *slots {
		if s := (*slots)[i].Load(); s != nil && !yield(s) {
			return
		}
	}
}
