package fincodeauth

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"iter"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// Keeping alive. A refresh token that nobody uses for too long dies, and FinCode does not
// say how long that is. KeepAlive refreshes the sessions that nobody uses.
//
// # The rules
//
//  1. KeepAlive makes rounds. A round lists all keys, slowly, so that it takes as long as
//     the pause until the next one would. So the work is spread over time.
//  2. A session is due when its refresh token has nearly the age at which it must be
//     refreshed. Each process adds a part of its own to that, different for each session.
//  3. A visit loads the record. If the session is due, the visit makes a flight, as a
//     request with an expired token does. Else it remembers when the session is due.
//     Until then, rounds pass the session over.
//  4. What is remembered is bounded: a hash and a time for at most a million sessions, or
//     MaxSessions if that is more. Those that do not fit are loaded in each round.
//  5. A session that fails keeps nobody from being visited. While no record can be loaded,
//     visits pause, and after a failed refresh the next refreshes do, so that a store or a
//     FinCode that is down gets few calls. If a record that could be loaded before still
//     can, the others are damaged, and nobody pauses for them.
//
// # Why this is enough
//
// The processes that share a store do not talk to each other. Rule 2 makes one of them the
// first. When the others visit the session, they load the new record, and the session is
// not due. If two come at the same moment, the protocol lets one of them refresh.

const (
	// When a session is due, as a part of the age at which it must be refreshed. The rest
	// is for the round, and for a takeover if a process dies.
	dueFrom   = 0.955
	dueSpread = 0.02

	roundsPerAge = 200 // rounds within the age at which a session must be refreshed
	roundMin     = 10 * time.Millisecond
	visitsAtOnce = 8
	dueMost      = 1 << 20 // sessions of which it is remembered when they are due
	toldMost     = 1000    // keys of failures that are remembered, so that each is told once

	visitPauseMin = 10 * time.Millisecond // after a failure; doubled with each failure in a row
	visitPauseMax = time.Second
	probeEach     = 16 // failed Loads in a row, before it is asked again whether the store is down
)

// KeepAlive refreshes each session that was not refreshed for the duration every, so that
// its refresh token does not die because nobody uses it. It returns when ctx ends, or
// after Close. Run it in a goroutine of its own:
//
//	go func() { ended <- sessions.KeepAlive(ctx, 24*time.Hour, nil) }()
//
// FinCode does not say how long an unused refresh token lives (FINCODE.md, What no page
// says, 3): choose every well below that, and not below the lifetime of an access token.
// If the refresh token is a JWT that lives for a shorter time, that time counts. A session
// is refreshed when 95.5 to 97.5 % of the time have passed, so it costs at most 1.05 times
// the fewest refreshes. If the token does not say when it was issued, the session is
// refreshed at once, and then each process counts by itself.
//
// keys lists the keys anew for each round, of which there are 200 within every. nil: the
// Store's own (Sessions.Keys). A key that has no session, a session that has ended, or one
// without a refresh token is passed over. So is a session whose token names another tenant
// than the tokens that this process has received: the Store may have sessions of two. Until
// FinCode has sent a token, sessions are refreshed one after the other. If FinCode then
// refuses one that was refreshed in time so far, the others of its tenant wait for the next
// round.
//
// Every process on a store may call KeepAlive: each session is then refreshed by one of
// them. Eight sessions are visited at once, and the work is spread over time. A process
// makes one Load within every for a session, and one more with its refresh. Beyond a million
// sessions, or MaxSessions if that is more, it loads the rest in each round. An old token that
// Adopt brings under a key that was just visited counts from that visit.
//
// A failed refresh sends the usual events, and the session is visited again in the next
// round. A record that cannot be loaded sends RefreshFailed, and so do keys that cannot be
// listed: once, until that succeeds, and for at most 1,000 keys. A session that ends sends
// Ended, as it does when it is used.
//
// Close waits until KeepAlive has returned, so keys must honour its context. The error of
// KeepAlive is ErrClosed, or wraps why ctx has ended. If the Store does not list its keys
// and keys is nil, the error wraps errors.ErrUnsupported.
func (a *Sessions) KeepAlive(ctx context.Context, every time.Duration, keys func(context.Context) iter.Seq2[string, error]) error {
	err := a.keepAlive(ctx, every, keys)
	return fmt.Errorf("fincodeauth: keep alive: %w", err)
}

func (a *Sessions) keepAlive(ctx context.Context, every time.Duration, keys func(context.Context) iter.Seq2[string, error]) error {
	if err := a.check(); err != nil {
		return err
	}
	if every < time.Millisecond { // 24 for 24*time.Hour
		return fmt.Errorf("every is %v: use the time for which a refresh token may stay unused, such as 24*time.Hour", every)
	}
	if keys == nil {
		keys = a.Keys
	}
	if err := a.env.enlist(); err != nil {
		return err
	}
	defer a.env.work.Done()
	ctx, cancel := a.env.untilClosing(ctx)
	defer cancel()
	k := &keeper{Sessions: a, every: every, keys: keys, seed: maphash.MakeSeed(), first: make(chan struct{}, 1), due: make(map[uint64]int64), told: make(map[string]int)}
	for failed := false; ; {
		began := a.env.now()
		err := k.goRound(ctx, began)
		switch {
		case a.env.isClosing():
			return ErrClosed
		case ctx.Err() != nil:
			return endOf(ctx)
		case errors.Is(err, errors.ErrUnsupported):
			return err
		}
		if err != nil && !failed {
			a.env.observe(RefreshFailed, "", 0, err)
		}
		failed = err != nil
		k.wait(ctx, k.period()-a.env.since(began))
	}
}

// A keeper is one KeepAlive. The goroutine of its rounds uses it, and the visits use what
// mu guards.
type keeper struct {
	*Sessions
	every time.Duration
	keys  func(context.Context) iter.Seq2[string, error]
	seed  maphash.Seed
	last  int // keys that the last round has listed

	readable atomic.Pointer[string] // the last key whose record could be loaded; nil: none
	unread   atomic.Int32           // records in a row that could not be loaded, while the store seems down
	failures atomic.Int32           // refreshes in a row that failed

	// first holds a value during a refresh while FinCode has sent no token: its first token
	// says whose sessions these are, and only one session is at stake at a time before that.
	first chan struct{}

	mu    sync.Mutex       // guards what follows
	due   map[uint64]int64 // when sessions are due, by the hash of the key
	round int              // that is under way
	told  map[string]int   // keys whose failure was told, and until which round that counts

	// suspects are the tenants of which FinCode has refused a token in this round, while it
	// had sent none. Another of their sessions is tried in the next round.
	suspects map[string]bool
}

// period is how long a round takes.
func (k *keeper) period() time.Duration { return max(k.every/roundsPerAge, roundMin) }

// goRound makes a round: it visits each session that may be due. It returns the error of the
// list. began is now.
func (k *keeper) goRound(ctx context.Context, began time.Time) error {
	k.begin()
	var visits errgroup.Group
	visits.SetLimit(visitsAtOnce)
	var failed error
	listed := 0
	for key, err := range k.list(ctx) {
		if ctx.Err() != nil {
			break
		}
		if err != nil {
			failed = err
			k.wait(ctx, visitPauseMin) // there may be many
			continue
		}
		if k.pace(ctx, began, listed); ctx.Err() != nil {
			break
		}
		listed++
		hash := maphash.String(k.seed, key)
		if !k.mayBeDue(hash) {
			continue
		}
		visits.Go(func() error {
			k.visit(ctx, key, hash)
			return nil
		})
	}
	_ = visits.Wait() // visits return no error
	k.last = listed
	k.end(began)
	return failed
}

// begin begins a round.
func (k *keeper) begin() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.round++
	k.suspects = make(map[string]bool)
}

// end ends a round. It forgets the sessions that were due before the round and were not
// visited in it, or not with success: their keys are gone, or are unknown anew. It also
// forgets the failures of keys that did not fail again.
func (k *keeper) end(began time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	maps.DeleteFunc(k.due, func(_ uint64, due int64) bool { return due <= began.UnixNano() })
	maps.DeleteFunc(k.told, func(_ string, round int) bool { return round < k.round })
}

// errSilent is the error of a list that was ended because no key came.
var errSilent = errors.New("it did not yield the next key in time")

// list yields what keys yields. If the next key takes longer than two rounds, list ends the
// context of keys, so that a call that hangs costs one round.
func (k *keeper) list(ctx context.Context) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		limit := max(2*k.period(), k.env.cfg.RefreshTimeout)
		silence := time.AfterFunc(limit, func() { cancel(errSilent) })
		defer silence.Stop()
		for key, err := range k.keys(ctx) {
			silence.Stop()
			if !yield(key, err) {
				return
			}
			silence.Reset(limit)
		}
		if context.Cause(ctx) == errSilent {
			yield("", fmt.Errorf("listing keys: %w: %v", errSilent, limit))
		}
	}
}

// pace waits so that the keys of a round are spread over its period, as far as the last
// round tells how many there are.
func (k *keeper) pace(ctx context.Context, began time.Time, listed int) {
	if k.last == 0 || listed%max(k.last/100, 1) != 0 {
		return
	}
	part := float64(min(listed, k.last)) / float64(k.last)
	k.wait(ctx, time.Duration(part*float64(k.period()))-k.env.since(began))
}

// wait waits, unless ctx ends.
func (k *keeper) wait(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// mayBeDue reports whether nobody knows that the session is not due.
func (k *keeper) mayBeDue(hash uint64) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.env.now().UnixNano() >= k.due[hash]
}

// remember notes when a session is due, if there is room.
func (k *keeper) remember(hash uint64, due time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, ok := k.due[hash]; ok || len(k.due) < max(dueMost, k.env.cfg.MaxSessions) {
		k.due[hash] = due.UnixNano()
	}
}

// pauseAfter pauses after n failures in a row, longer after each; 0: it does not.
func (k *keeper) pauseAfter(ctx context.Context, n int32) {
	if n > 0 {
		k.wait(ctx, k.env.jittered(min(visitPauseMin<<min(n, 10), visitPauseMax)))
	}
}

// tell sends RefreshFailed for the first failure of a key in a row. The key is visited again
// within that many rounds.
func (k *keeper) tell(key string, err error, rounds int) {
	k.mu.Lock()
	_, known := k.told[key]
	if known || len(k.told) < toldMost {
		k.told[key] = k.round + rounds
	} else {
		known = true
	}
	k.mu.Unlock()
	if !known {
		k.env.observe(RefreshFailed, key, 0, err)
	}
}

// succeeded notes that a key has not failed.
func (k *keeper) succeeded(key string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.told, key)
}
