package simulation

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/oauth2"

	"github.com/fincodeauth/fincodeauth"
)

// A store is the one that all processes share. What it does is at once and
// for all to see, as the contract of fincodeauth.Store says; only the way to it
// is bad.
type store struct {
	world *world

	// Guarded by world.mu.
	record   *fincodeauth.Record // nil: none
	versions map[string]*version
	saves    int       // that were carried out
	down     time.Time // until then
	silent   bool      // while it is down, it does not even refuse
}

// A version is a Save that was carried out.
type version struct {
	number int // in the order of their being carried out
	by     *process
	at     time.Time
	claim  bool
	pair   *pair // nil: there is no refresh token
}

func newStore(w *world) *store { return &store{world: w, versions: make(map[string]*version)} }

func (s *store) String() string { return "store" }

// current returns what stands in the store, nil if there is nothing; world.mu
// is held.
func (s *store) current() *version {
	if s.record == nil {
		return nil
	}
	return s.versions[s.record.Version]
}

// claimOf returns the process's last claim, or nil; world.mu is held.
func (s *store) claimOf(p *process) (last *version) {
	for _, v := range s.versions {
		if v.claim && v.by == p && (last == nil || v.number > last.number) {
			last = v
		}
	}
	return last
}

var errStoreDown = errors.New("the store is down")

// A stored is the store's answer.
type stored struct {
	record *fincodeauth.Record
	err    error
}

// whileDown is the store's answer while it is down, if it is; world.mu is held.
func (s *store) whileDown() (answer *stored, down bool) {
	switch {
	case !time.Now().Before(s.down):
		return nil, false
	case s.silent:
		return nil, true
	}
	return &stored{err: errStoreDown}, true
}

func (s *store) load() *stored {
	s.world.mu.Lock()
	defer s.world.mu.Unlock()
	if answer, down := s.whileDown(); down {
		return answer
	}
	if s.record == nil {
		return &stored{err: fincodeauth.ErrNotFound}
	}
	return &stored{record: copied(s.record)}
}

// save carries a Save out; late: whoever asked for it has given it up.
func (s *store) save(p *process, rec *fincodeauth.Record, prev string, late bool) *stored {
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
		s.world.say(s, "refuses a save of %v: it has %v", p, old)
		return &stored{err: fincodeauth.ErrConflict}
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
	s.world.say(s, "has now %v %s", next, rec.Ended)
	s.world.promise.saved(old, next, rec, late || p.dead)
	return &stored{}
}

func (s *store) delete() *stored {
	s.world.mu.Lock()
	defer s.world.mu.Unlock()
	if answer, down := s.whileDown(); down {
		return answer
	}
	s.world.say(s, "deletes %v", s.current())
	s.record = nil
	return &stored{}
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

// A storeOf is the store as a process sees it.
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
	_, err := s.ask(ctx, "Save", func() *stored {
		return s.process.machine.world.store.save(s.process, rec, prev, ctx.Err() != nil)
	})
	if err != nil && !errors.Is(err, fincodeauth.ErrConflict) {
		s.process.machine.world.promise.savesUnheard(rec)
	}
	return err
}

func (s storeOf) Delete(ctx context.Context, _ string) error {
	_, err := s.ask(ctx, "Delete", func() *stored {
		if ctx.Err() != nil { // a Delete compares nothing: a late one is the store's to prevent
			return nil
		}
		return s.process.machine.world.store.delete()
	})
	return err
}

// ask sends one request to the store, as luck has it.
func (s storeOf) ask(ctx context.Context, what string, serve func() *stored) (*stored, error) {
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
		way.lost = w.happens(d, LoadLost)
	case "Save":
		way.lost = w.happens(d, SaveLost)
		way.unheard = w.happens(d, SaveUnheard)
		if w.happens(d, SaveLate) {
			way.up += w.luck.timeout + between(d, 0, 2*w.luck.timeout)
		}
	case "Delete":
		way.lost = w.happens(d, DeleteLost)
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
