package simulation

// Rules for concurrency. A message is a goroutine of its own, which outlives
// whoever sent it. It calls serve without any lock. Its answer goes into a channel
// with room for it, so the goroutine never waits for a receiver.

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// A passage is what happens to a request and its answer on the network.
type passage struct {
	up, down     time.Duration
	requestLost  bool          // the request does not arrive
	answerLost   bool          // the answer does not arrive
	reset        bool          // after a loss the connection breaks; false: there is silence
	repeatAfter  time.Duration // the request arrives a second time, this much later; 0: it arrives once
	answerRepeat bool          // the answer to the second arrival is delivered; false: the first
}

func (p passage) String() string {
	text := fmt.Sprintf("%v there, %v back", p.up.Round(time.Microsecond), p.down.Round(time.Microsecond))
	if p.requestLost {
		text += ", LOST on its way there"
	}
	if p.answerLost {
		text += ", its answer LOST"
	}
	if p.repeatAfter > 0 {
		text += ", delivered TWICE"
	}
	return text
}

// errBroken says that the connection broke.
var errBroken = errors.New("connection reset by peer")

// quick returns a passage without any trouble.
func quick(d *rand.Rand) passage {
	return passage{
		up:    between(d, time.Microsecond, 20*time.Millisecond),
		down:  between(d, time.Microsecond, 20*time.Millisecond),
		reset: d.IntN(2) == 0,
	}
}

// slow makes a passage slow. Together its two ways may take longer than the
// timeout.
func (p *passage) slow(d *rand.Rand, timeout time.Duration) {
	p.up += between(d, 0, timeout*2/3)
	p.down += between(d, 0, timeout*2/3)
}

// send calls serve on the other side, which carries the request out, and returns
// its answer. If no answer arrives before ctx ends, it returns an error. serve
// returns nil if it does not answer. The request arrives even if its sender has
// left or died.
func send[T any](ctx context.Context, w *world, p passage, serve func() *T) (*T, error) {
	heard := make(chan *T, 1)
	w.network.Go(func() {
		if answer := carry(p, serve); answer != nil || p.reset {
			heard <- answer
		}
	})
	select {
	case answer := <-heard:
		if answer == nil {
			return nil, errBroken
		}
		return answer, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// carry brings a request to the other side, and returns the answer that comes back;
// nil: none does.
func carry[T any](p passage, serve func() *T) *T {
	time.Sleep(p.up)
	var answer *T
	if !p.requestLost {
		answer = serve()
	}
	if p.repeatAfter > 0 && !p.requestLost {
		time.Sleep(p.repeatAfter)
		if again := serve(); p.answerRepeat {
			answer = again
		}
	}
	time.Sleep(p.down)
	if p.answerLost {
		return nil
	}
	return answer
}
