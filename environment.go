package fincodeauth

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/sync/singleflight"
)

// An environment is what all sessions of one Sessions share. Nothing in it changes,
// except what mu guards, reverted, and flights, lookout and tenants, which have locks of their own.
type environment struct {
	cfg      Config // complete: defaults have replaced its zero values
	endpoint *endpoint
	flights  singleflight.Group // by session key
	started  time.Time          // session.earlyAt counts from then
	reverted atomic.Bool        // the store had gone back, for any session
	lookout  lookout
	tenants  tenants

	// These are time.Now and rand.Float64, except in a simulation.
	now    func() time.Time
	random func() float64

	mu   sync.Mutex     // guards closing both channels, and work until then
	work sync.WaitGroup // counts the pins of all sessions; after Close, only a session that is pinned adds to it

	closing   chan struct{} // closed by Close
	abandoned chan struct{} // closed when the context of a Close ends
}

// begin makes an empty environment ready. cfg is complete.
func (e *environment) begin(cfg Config, now func() time.Time, random func() float64) {
	e.cfg = cfg
	e.endpoint = newEndpoint(cfg.BaseURL, cfg.Base, newFields(cfg.Header, cfg.RequestID), cfg.RefreshTimeout, now)
	e.started = now()
	e.lookout.next.Store(int64(lookEvery))
	e.now, e.random = now, random
	e.closing, e.abandoned = make(chan struct{}), make(chan struct{})
}

// enlist counts one pin. Close waits for all pins. enlist returns ErrClosed after Close.
func (e *environment) enlist() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.isClosing() {
		return ErrClosed
	}
	e.work.Add(1)
	return nil
}

// close begins a Close: nothing new begins from now on.
func (e *environment) close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.isClosing() {
		close(e.closing)
	}
}

// abandon makes the goroutines that still save changes give up.
func (e *environment) abandon() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.isAbandoned() {
		close(e.abandoned)
	}
}

func (e *environment) isClosing() bool   { return isClosed(e.closing) }
func (e *environment) isAbandoned() bool { return isClosed(e.abandoned) }

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// untilClosing returns a context that ends at a Close. Call cancel when it is not needed any
// more.
func (e *environment) untilClosing(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		select {
		case <-e.closing:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

// pause waits, or returns ErrClosed.
func (e *environment) pause(d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-e.closing:
		return ErrClosed
	}
}

// since returns how long ago t was, by the monotonic clock. t must be from now.
func (e *environment) since(t time.Time) time.Duration { return e.now().Sub(t) }

// jittered returns a random duration between four fifths of d and d.
func (e *environment) jittered(d time.Duration) time.Duration {
	return d - time.Duration(e.random()*float64(d)/5)
}

// newLease returns the lease of a token that this process got now.
func (e *environment) newLease(tok *oauth2.Token) *lease {
	return newLease(tok, e.now(), e.cfg.RefreshBefore, e.random())
}

// observe hands an event to Config.Observe.
func (e *environment) observe(t EventType, key string, elapsed time.Duration, err error) {
	e.send(Event{Type: t, Key: key, Elapsed: elapsed, Err: err})
}

// send hands an event of this moment to Config.Observe.
func (e *environment) send(ev Event) {
	if e.cfg.Observe != nil {
		ev.Time = e.now()
		e.cfg.Observe(ev)
	}
}
