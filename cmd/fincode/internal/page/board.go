package page

import (
	"context"
	"reflect"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fincodeauth/fincodeauth"
)

const (
	keptEvents = 500

	// The sessions are looked at every pollEvery while somebody looks at the page,
	// and sooner after an event. A poll takes at most pollTimeout, and the pause
	// after it is restFactor times as long as the poll, so that a slow store has
	// other things to do, too.
	pollEvery      = 5 * time.Second
	pollAfterEvent = time.Second
	pollTimeout    = 5 * time.Second
	restFactor     = 3
	loadsAtOnce    = 8
)

// A board has what all browsers see: the events, and how the sessions are.
type board struct {
	sessions *fincodeauth.Sessions
	keys     []string
	login    string // the command that logs in

	mu     sync.Mutex
	events []Event          // the last ones, the oldest first
	last   uint64           // number of the last event
	notes  map[string]*note // by keys

	views []Session // by keys; nil: no poll has ended yet
	rev   uint64    // counts the polls that found a change

	polling chan struct{} // closed when the poll under way has ended; nil: there is none
	polled  time.Time     // when the last poll ended
	rest    time.Duration // how long the store is left alone after it
	dirty   bool          // there were events since the last poll began
}

func newBoard(cfg Config, login string) *board {
	b := &board{sessions: cfg.Sessions, keys: slices.Clone(cfg.Keys), login: login, notes: map[string]*note{}}
	for _, e := range cfg.Earlier { // before there are notes, which are about this process
		b.add(e)
	}
	for _, key := range b.keys {
		b.notes[key] = &note{}
	}
	return b
}

// add keeps an event, and forgets the oldest one if there are too many.
func (b *board) add(e fincodeauth.Event) {
	words := inWords(e)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.last++
	words.Number = b.last
	if len(b.events) == keptEvents {
		b.events = slices.Delete(b.events, 0, 1)
	}
	b.events = append(b.events, words)
	if n := b.notes[e.Key]; n != nil {
		n.take(e)
	}
	b.dirty = true
}

// A cursor is how far a browser has come.
type cursor struct {
	event   uint64 // number of the last event that it has
	rev     uint64 // of the sessions that it has
	traffic int64  // number of the last bucket that it has; that bucket may have grown since

	sent time.Time // when it got the last buckets
}

// since returns what is new after the cursor, and moves the cursor.
func (b *board) since(c *cursor) (sessions []Session, events []Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if c.rev != b.rev {
		for _, s := range b.views {
			if s.rev > c.rev {
				sessions = append(sessions, s)
			}
		}
		c.rev = b.rev
	}
	if first := b.last - uint64(len(b.events)); c.event < b.last {
		events = slices.Clone(b.events[max(c.event, first)-first:])
		c.event = b.last
	}
	return sessions, events
}

// poll begins to look at the sessions, unless that is being done or was done a moment
// ago. The channel is closed when it is done. start runs the poll.
func (b *board) poll(now time.Time, start func(func(context.Context))) <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.polling != nil {
		return b.polling
	}
	done := make(chan struct{})
	if !b.isDue(now) {
		close(done)
		return done
	}
	b.polling, b.dirty = done, false
	start(func(ctx context.Context) {
		began := time.Now()
		statuses := b.ask(ctx)
		b.learn(statuses, began, time.Now())
		close(done)
	})
	return done
}

// isDue reports whether it is time for a poll. b.mu is held.
func (b *board) isDue(now time.Time) bool {
	pause := pollEvery
	if b.dirty {
		pause = pollAfterEvent
	}
	return b.views == nil || now.Sub(b.polled) >= max(pause, b.rest)
}

// An answer is what Sessions.Status returned.
type answer struct {
	status fincodeauth.Status
	err    error
}

// ask asks for the status of each session. It does not call FinCode.
func (b *board) ask(ctx context.Context) []answer {
	ctx, cancel := context.WithTimeout(ctx, pollTimeout)
	defer cancel()
	answers := make([]answer, len(b.keys))
	var group errgroup.Group
	group.SetLimit(loadsAtOnce)
	for i, key := range b.keys {
		group.Go(func() error {
			st, err := b.sessions.Status(ctx, key)
			st.Key = key
			answers[i] = answer{st, err}
			return nil
		})
	}
	_ = group.Wait() // no function returns an error
	return answers
}

// learn replaces what is known of the sessions.
func (b *board) learn(answers []answer, began, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	next := b.rev + 1
	views := make([]Session, len(answers))
	for i, a := range answers {
		views[i] = describe(a.status, a.err, *b.notes[a.status.Key], now, b.login)
		views[i].rev = next
		if b.views != nil && views[i].same(b.views[i]) {
			views[i].rev = b.views[i].rev
		} else {
			b.rev = next
		}
	}
	b.views, b.polling = views, nil
	b.polled, b.rest = now, now.Sub(began)*restFactor
}

// same reports whether a browser would see no difference.
func (s Session) same(other Session) bool {
	s.rev = other.rev
	return reflect.DeepEqual(s, other)
}
