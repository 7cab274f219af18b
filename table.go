package fincodeauth

import (
	"cmp"
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
	full int // when so many are held, some are dropped
}

// newTable returns a table that holds that many sessions. Its leeway is a quarter
// of what is dropped at once: an order that is wrong by so much drops few others.
func newTable(most int) *table {
	t := &table{most: most, full: most, leeway: uint64(most / 64), seed: maphash.MakeSeed()}
	t.uses.Store(t.leeway + 1) // so that a session's first use counts
	t.rebuild(16)
	return t
}

// find returns key's session, or nil.
func (t *table) find(key string) *session {
	_, s := t.look(*t.slots.Load(), key)
	return s
}

// look returns key's session and the slot that it is in; or nil and the slot that
// it belongs into. That may be another's a moment later, unless mu is held: what
// is in it is not to be read again.
func (t *table) look(slots []atomic.Pointer[session], key string) (*atomic.Pointer[session], *session) {
	for i := maphash.String(t.seed, key); ; i++ {
		slot := &slots[i&uint64(len(slots)-1)]
		if s := slot.Load(); s == nil || s.key == key {
			return slot, s
		}
	}
}

// put puts a session that is not there into its slot; mu is held.
func (t *table) put(slots []atomic.Pointer[session], s *session) {
	slot, _ := t.look(slots, s.key)
	slot.Store(s)
}

// add makes room for a session and adds it, if nobody was faster. It returns the
// one that is there.
func (t *table) add(s *session) *session {
	t.mu.Lock()
	defer t.mu.Unlock()
	if there := t.find(s.key); there != nil {
		return there
	}
	if t.held >= t.full {
		t.drop(t.held + 1 - (t.most - t.most/16))
		t.full = max(t.most, t.held+t.held/16+1) // where few can be dropped, not each time
	}
	if size := len(*t.slots.Load()); t.held+1 > size/2 {
		t.rebuild(2 * size)
	}
	t.touch(s)
	t.put(*t.slots.Load(), s)
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
	slices.SortFunc(uses, func(x, y use) int { return cmp.Compare(x.tick, y.tick) })
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
			t.put(slots, s)
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
