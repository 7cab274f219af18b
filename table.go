package fincodeauth

import (
	"cmp"
	"hash/maphash"
	"slices"
	"sync"
	"sync/atomic"
)

// A table holds the sessions that are in memory, and finds them by key. Each
// request finds its session without a lock. There may be a million sessions, so a
// session costs the table one slot and nothing else.
//
// One goroutine at a time changes the table: the one that holds mu. Any goroutine
// may read meanwhile, because slots is replaced as a whole, and each of its slots
// changes only once, from nil to a session.
type table struct {
	most   int    // sessions; when there are more, the least recently used are dropped
	leeway uint64 // by how many uses the order of the sessions may be wrong
	uses   atomic.Uint64
	seed   maphash.Seed

	// The number of slots is a power of two, and at least half of them are nil. A
	// session is put into the first free slot, counted from its hash, and stays
	// there. To drop sessions, or to make room, the table puts the other sessions
	// into new slots.
	slots atomic.Pointer[[]atomic.Pointer[session]]

	mu   sync.Mutex // guards what follows, and writing to slots
	held int        // sessions
	full int        // the number of sessions at which some are dropped
}

// newTable returns a table for most sessions. Its leeway is a quarter of what is
// dropped at once, so that few sessions are dropped out of order.
func newTable(most int) *table {
	t := &table{most: most, full: most, leeway: uint64(most / 64), seed: maphash.MakeSeed()}
	t.uses.Store(t.leeway + 1) // so that the first use of a session counts
	t.rebuild(16)
	return t
}

// find returns key's session, or nil.
func (t *table) find(key string) *session {
	_, s := t.look(*t.slots.Load(), key)
	return s
}

// look returns key's session and its slot. If there is no session, look returns
// nil and the slot where the session belongs. Another session may be in that slot a
// moment later, unless mu is held: do not read the slot again.
func (t *table) look(slots []atomic.Pointer[session], key string) (*atomic.Pointer[session], *session) {
	for i := maphash.String(t.seed, key); ; i++ {
		slot := &slots[i&uint64(len(slots)-1)]
		if s := slot.Load(); s == nil || s.key == key {
			return slot, s
		}
	}
}

// put stores a session that is not in slots yet. mu is held.
func (t *table) put(slots []atomic.Pointer[session], s *session) {
	slot, _ := t.look(slots, s.key)
	slot.Store(s)
}

// add makes room for a session and adds it. If another goroutine has added one
// under the same key, add returns that one.
func (t *table) add(s *session) *session {
	t.mu.Lock()
	defer t.mu.Unlock()
	if there := t.find(s.key); there != nil {
		return there
	}
	if t.held >= t.full {
		t.drop(t.held + 1 - (t.most - t.most/16))
		t.full = max(t.most, t.held+t.held/16+1) // where few can be dropped, do not try each time
	}
	if size := len(*t.slots.Load()); t.held+1 > size/2 {
		t.rebuild(2 * size)
	}
	t.touch(s)
	t.put(*t.slots.Load(), s)
	t.held++
	return s
}

// touch notes that s was used, unless its last noted use is within the leeway, so
// that requests of busy sessions do not all write to the same memory.
func (t *table) touch(s *session) {
	if t.uses.Load()-s.used.Load() > t.leeway {
		s.used.Store(t.uses.Add(1))
	}
}

// drop drops the n least recently used sessions, except those that are pinned.
// mu is held. It sorts all sessions, because the table does not keep their order:
// every request would need a lock for that. So it is called for a sixteenth of the
// sessions at once.
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

// rebuild puts the sessions that were not dropped into size new slots. mu is held.
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
