package simulation

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// A passage is how a request and its answer fare on the network.
type passage struct {
	up, down time.Duration
	lost     bool          // the request never arrives
	unheard  bool          // the answer never does
	loud     bool          // whoever asked learns of a loss from a broken connection, instead of by silence
	echo     time.Duration // if not 0, the request arrives once more, this much later
	last     bool          // and it is that one's answer that arrives
}

func (p passage) String() string {
	text := fmt.Sprintf("%v there, %v back", p.up.Round(time.Microsecond), p.down.Round(time.Microsecond))
	if p.lost {
		text += ", LOST on its way there"
	}
	if p.unheard {
		text += ", its answer LOST"
	}
	if p.echo > 0 {
		text += ", delivered TWICE"
	}
	return text
}

// errBroken is a connection that broke.
var errBroken = errors.New("connection reset by peer")

// quick is a passage without any trouble.
func quick(d *rand.Rand) passage {
	return passage{
		up:   between(d, time.Microsecond, 20*time.Millisecond),
		down: between(d, time.Microsecond, 20*time.Millisecond),
		loud: d.IntN(2) == 0,
	}
}

// slow makes a passage slow, up to and past the timeout.
func (p *passage) slow(d *rand.Rand, timeout time.Duration) {
	p.up += between(d, 0, timeout*2/3)
	p.down += between(d, 0, timeout*2/3)
}

// send has the request carried out by serve at the other side, and returns its
// answer, or an error if that does not arrive before ctx ends. serve returns
// nil if it keeps silent. What has been sent arrives even if whoever sent it
// has left or died.
func send[T any](ctx context.Context, w *world, p passage, serve func() *T) (*T, error) {
	heard := make(chan *T, 1)
	w.network.Go(func() {
		time.Sleep(p.up)
		var answer *T
		if !p.lost {
			answer = serve()
		}
		if p.echo > 0 && !p.lost {
			time.Sleep(p.echo)
			if again := serve(); p.last {
				answer = again
			}
		}
		time.Sleep(p.down)
		if p.unheard {
			answer = nil
		}
		if answer != nil || p.loud {
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
