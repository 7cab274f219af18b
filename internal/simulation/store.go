package simulation

// Rules for concurrency. world.mu guards the store, and every operation takes it
// once: operations are atomic, as the contract of fincodeauth.Store asks. A record
// in the store is a copy that nobody else has. storeOf has no state, and may wait
// or sleep, so it holds no lock then.

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/oauth2"

	"github.com/fincodeauth/fincodeauth"
)

// A store is the store that all processes share. It keeps the contract of
// fincodeauth.Store: everybody sees a change at once. Only the network between a
// process and the store is bad.
type store struct {
	world *world

	// Guarded by world.mu.
	record   *fincodeauth.Record // nil: none
	versions map[string]*version // by Record.Version; a later Save of the same replaces it
	saves    int                 // that were carried out
	down     time.Time           // the store is down until then
	silent   bool                // while it is down, it does not answer; false: it answers with an error
}

// A version is a Save that was carried out.
type version struct {
	number int // 1 for the first Save that was carried out, and so on
	by     *process
	at     time.Time
	claim  bool
	pair   *pair // nil: the record has no refresh token
}

func newStore(w *world) *store { return &store{world: w, versions: make(map[string]*version)} }

func (s *store) String() string { return "store" }

// current returns the version of the record in the store, or nil if there is no
// record. world.mu is held.
func (s *store) current() *version {
	if s.record == nil {
		return nil
	}
	return s.versions[s.record.Version]
}

// claimOf returns the process's last claim, or nil. world.mu is held.
func (s *store) claimOf(p *process) (last *version) {
	for _, v := range s.versions {
		if v.claim && v.by == p && (last == nil || v.number > last.number) {
			last = v
		}
	}
	return last
}

var errStoreDown = errors.New("the store is down")

// A storeAnswer is an answer of the store.
type storeAnswer struct {
	record *fincodeauth.Record
	err    error
}

// whileDown reports whether the store is down, and returns its answer then: nil if
// it does not answer. world.mu is held.
func (s *store) whileDown() (answer *storeAnswer, down bool) {
	switch {
	case !time.Now().Before(s.down):
		return nil, false
	case s.silent:
		return nil, true
	}
	return &storeAnswer{err: errStoreDown}, true
}

func (s *store) load() *storeAnswer {
	s.world.mu.Lock()
	defer s.world.mu.Unlock()
	if answer, down := s.whileDown(); down {
		return answer
	}
	if s.record == nil {
		return &storeAnswer{err: fincodeauth.ErrNotFound}
	}
	return &storeAnswer{record: copied(s.record)}
}

// save carries out a Save of p. late says that p has given up.
func (s *store) save(p *process, rec *fincodeauth.Record, prev string, late bool) *storeAnswer {
	s.world.mu.Lock()
	defer s.world.mu.Unlock()
	if answer, down := s.whileDown(); down {
		return answer
	}
	old, found := s.current(), ""
	if s.record != nil {
		found = s.record.Version
	}
	if found != prev {
		s.world.say(s, "refuses a Save of %v: it has %v", p, old)
		return &storeAnswer{err: fincodeauth.ErrConflict}
	}
	s.record = copied(rec)
	s.saves++
	next := &version{
		number: s.saves,
		by:     p,
		at:     time.Now(),
		claim:  !rec.RefreshStarted.IsZero(),
		pair:   s.world.fincode.pairs[rec.Token.RefreshToken],
	}
	s.versions[rec.Version] = next
	s.world.say(s, "now has %v %s", next, rec.Ended)
	s.world.promise.saved(old, next, rec, late || p.dead)
	return &storeAnswer{}
}

func (s *store) delete() *storeAnswer {
	s.world.mu.Lock()
	defer s.world.mu.Unlock()
	if answer, down := s.whileDown(); down {
		return answer
	}
	s.world.say(s, "deletes %v", s.current())
	s.record = nil
	return &storeAnswer{}
}

func (v *version) String() string {
	if v == nil {
		return "no record"
	}
	what, how := "no refresh token", ", saved by"
	if v.pair != nil {
		what = v.pair.String()
	}
	if v.claim {
		how = " claimed by"
	}
	return fmt.Sprintf("v%d: %s%s %v", v.number, what, how, v.by)
}

func copied(rec *fincodeauth.Record) *fincodeauth.Record {
	c := *rec
	if rec.Token != nil {
		c.Token = new(oauth2.Token)
		*c.Token = *rec.Token
	}
	return &c
}

// A storeOf is the store as one process sees it: through the network.
type storeOf struct{ process *process }

var _ fincodeauth.Store = storeOf{}

func (s storeOf) Load(ctx context.Context, _ string) (*fincodeauth.Record, error) {
	answer, err := s.ask(ctx, "Load", s.process.machine.world.store.load)
	if err != nil {
		return nil, err
	}
	return answer.record, nil
}

func (s storeOf) Save(ctx context.Context, _ string, rec *fincodeauth.Record, prev string) error {
	rec = copied(rec)
	_, err := s.ask(ctx, "Save", func() *storeAnswer {
		return s.process.machine.world.store.save(s.process, rec, prev, ctx.Err() != nil)
	})
	if err != nil && !errors.Is(err, fincodeauth.ErrConflict) {
		s.process.machine.world.promise.savesUnheard(rec)
	}
	return err
}

func (s storeOf) Delete(ctx context.Context, _ string) error {
	_, err := s.ask(ctx, "Delete", func() *storeAnswer {
		// A Delete compares no version. So the contract of a Store does not
		// allow that it is carried out after the process has given up.
		if ctx.Err() != nil {
			return nil
		}
		return s.process.machine.world.store.delete()
	})
	return err
}

// ask sends one request to the store. Chance decides what happens to it.
func (s storeOf) ask(ctx context.Context, what string, serve func() *storeAnswer) (*storeAnswer, error) {
	p, w := s.process, s.process.machine.world
	if err := p.step("before " + what); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	d := w.dice(what, p.id)
	way := quick(d)
	if w.happens(d, SlowStore) {
		way.slow(d, w.luck.timeout)
	}
	switch what {
	case "Load":
		way.requestLost = w.happens(d, LoadLost)
	case "Save":
		way.requestLost = w.happens(d, SaveLost)
		way.answerLost = w.happens(d, SaveUnheard)
		if w.happens(d, SaveLate) {
			way.up += w.luck.timeout + between(d, 0, 2*w.luck.timeout)
		}
	case "Delete":
		way.requestLost = w.happens(d, DeleteLost)
	}
	w.sayNow(p, "%s: %v", what, way)
	answer, err := send(ctx, w, way, serve)
	if dead := p.step("after " + what); dead != nil {
		return nil, dead
	}
	if err == nil {
		err = answer.err
	}
	if err != nil {
		w.sayNow(p, "%s: %v", what, err)
		if !errors.Is(err, fincodeauth.ErrConflict) && !errors.Is(err, fincodeauth.ErrNotFound) {
			w.promise.cannotReachTheStore(p, what)
		}
		return nil, err
	}
	return answer, nil
}
