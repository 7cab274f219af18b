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
	saves   int         // that were carried out
	changes []time.Time // when a record was replaced or removed
	down    time.Time   // the store is down until then
	silent  bool        // while it is down, it does not answer; false: it answers with an error
}

// A shelf is what the store has of one account. world.mu guards it.
type shelf struct {
	record   *fincodeauth.Record // nil: none
	pasts    []past              // all that record ever was
	versions map[string]*version // by Record.Version; a later Save of the same replaces it
}

// A version is a Save that was carried out.
type version struct {
	number int // 1 for the first Save that was carried out, and so on
	by     *view
	asked  time.Time // when the process handed the Save over; it cannot look at the clock after that
	at     time.Time
	claim  bool
	pair   *pair // nil: the record has no refresh token
}

func newStore(w *world) *store { return &store{world: w} }

func (s *store) String() string { return "store" }

// current returns the version of the record in the store, or nil if there is no
// record. world.mu is held.
func (s *shelf) current() *version {
	if s.record == nil {
		return nil
	}
	return s.versions[s.record.Version]
}

// lastClaim returns the process's last claim of the session, or nil. world.mu is
// held.
func (v *view) lastClaim() (last *version) {
	for _, saved := range v.account.versions {
		if saved.claim && saved.by == v && (last == nil || saved.number > last.number) {
			last = saved
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

func (s *store) load(a *account) *storeAnswer {
	s.world.mu.Lock()
	defer s.world.mu.Unlock()
	if answer, down := s.whileDown(); down {
		return answer
	}
	if a.record == nil {
		return &storeAnswer{err: fincodeauth.ErrNotFound}
	}
	return &storeAnswer{record: copied(a.record)}
}

// save carries out a Save that v's process handed over at the time asked. late says that
// the process has given up.
func (s *store) save(v *view, rec *fincodeauth.Record, prev string, asked time.Time, late bool) *storeAnswer {
	s.world.mu.Lock()
	defer s.world.mu.Unlock()
	if answer, down := s.whileDown(); down {
		return answer
	}
	a := v.account
	old := a.current()
	if versionOf(a.record) != prev {
		s.world.say(s, "refuses a Save of %v: it has %v", v, old)
		return &storeAnswer{err: fincodeauth.ErrConflict}
	}
	a.put(copied(rec))
	s.saves++
	next := &version{
		number: s.saves,
		by:     v,
		asked:  asked,
		at:     time.Now(),
		claim:  !rec.RefreshStarted.IsZero(),
		pair:   s.world.fincode.pairs[rec.Token.RefreshToken],
	}
	a.versions[rec.Version] = next
	s.world.say(s, "now has %v %s", next, rec.Ended)
	s.world.promise.saved(old, next, rec, late || v.dead)
	return &storeAnswer{}
}

func (s *store) delete(a *account) *storeAnswer {
	s.world.mu.Lock()
	defer s.world.mu.Unlock()
	if answer, down := s.whileDown(); down {
		return answer
	}
	s.world.say(s, "deletes %v", a.current())
	a.put(nil)
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

func (s storeOf) Load(ctx context.Context, key string) (*fincodeauth.Record, error) {
	v := s.process.viewOf(key)
	answer, err := s.ask(ctx, v, "Load", func() *storeAnswer { return v.machine.world.store.load(v.account) })
	if err != nil {
		return nil, err
	}
	return answer.record, nil
}

func (s storeOf) Save(ctx context.Context, key string, rec *fincodeauth.Record, prev string) error {
	v := s.process.viewOf(key)
	rec = copied(rec)
	asked := time.Now()
	_, err := s.ask(ctx, v, "Save", func() *storeAnswer {
		return v.machine.world.store.save(v, rec, prev, asked, ctx.Err() != nil)
	})
	if err != nil && !errors.Is(err, fincodeauth.ErrConflict) {
		v.machine.world.promise.savesUnheard(rec)
	}
	return err
}

func (s storeOf) Delete(ctx context.Context, key string) error {
	v := s.process.viewOf(key)
	_, err := s.ask(ctx, v, "Delete", func() *storeAnswer {
		// A Delete compares no version. So the contract of a Store does not
		// allow that it is carried out after the process has given up.
		if ctx.Err() != nil {
			return nil
		}
		return v.machine.world.store.delete(v.account)
	})
	return err
}

// ask sends one request to the store, for v's account. Chance decides what happens to it.
func (s storeOf) ask(ctx context.Context, v *view, what string, serve func() *storeAnswer) (*storeAnswer, error) {
	p, w := s.process, s.process.machine.world
	if err := p.step("before " + what); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	d := v.dice(what)
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
	p.spoil(what, &way)
	w.sayNow(v, "%s: %v", what, way)
	answer, err := send(ctx, w, way, serve)
	if dead := p.step("after " + what); dead != nil {
		return nil, dead
	}
	if err == nil {
		err = answer.err
	}
	if err != nil {
		w.sayNow(v, "%s: %v", what, err)
		if !errors.Is(err, fincodeauth.ErrConflict) && !errors.Is(err, fincodeauth.ErrNotFound) {
			w.promise.cannotReachTheStore(v, what)
		}
		return nil, err
	}
	return answer, nil
}
