package simulation

// Rules for concurrency. Each caller is one goroutine, and only that goroutine
// uses the caller's fields. It stops when its process is gone.

import (
	"context"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"
)

// A caller wants tokens from one process, now and then. If there are several
// accounts, it chooses one of them each time.
type caller struct {
	process *process
	number  int // no two callers have the same: see token
	dice    *rand.Rand
	rush    int // index of the next rush
}

// callers runs the process's callers, and returns when all of them have left.
func (w *world) callers(p *process) {
	var all sync.WaitGroup
	for i := range w.luck.callers {
		c := &caller{process: p, number: p.id*w.luck.callers + i + 1}
		c.dice = w.dice("caller", c.number)
		all.Go(c.run)
	}
	all.Wait()
}

func (c *caller) run() {
	for c.idle() {
		if c.process.step("caller") != nil {
			return
		}
		ctx, cancel := c.patience()
		v := c.process.views[0]
		if n := len(c.process.views); n > 1 {
			v = c.process.views[c.dice.IntN(n)]
		}
		if c.dice.IntN(3) > 0 {
			_ = c.token(ctx, v)
		} else {
			c.request(ctx, v)
		}
		cancel()
	}
}

// idle waits until the caller wants something. It returns false if the process is
// gone.
func (c *caller) idle() bool {
	w := c.process.machine.world
	wait := 1000 * time.Hour
	if w.luck.think > 0 {
		wait = time.Duration(c.dice.ExpFloat64() * float64(w.luck.think))
	}
	now := time.Since(w.started)
	for c.rush < len(w.luck.rushes) && w.luck.rushes[c.rush] < now {
		c.rush++
	}
	if c.rush < len(w.luck.rushes) {
		wait = min(wait, w.luck.rushes[c.rush]-now+between(c.dice, 1, 300*time.Millisecond))
	}
	select {
	case <-time.After(wait):
		return true
	case <-c.process.gone:
		return false
	}
}

// patience returns the context of a caller that waits without a limit, for a
// while, or for some milliseconds.
func (c *caller) patience() (context.Context, context.CancelFunc) {
	var limit time.Duration
	switch timeout := c.process.machine.world.luck.timeout; c.dice.IntN(3) {
	case 0:
		return context.WithCancel(context.Background())
	case 1:
		limit = between(c.dice, time.Millisecond, 100*time.Millisecond)
	case 2:
		limit = between(c.dice, time.Millisecond, 6*timeout)
	}
	return context.WithTimeout(context.Background(), limit)
}

func (c *caller) token(ctx context.Context, v *view) error {
	promise := &v.machine.world.promise
	asked := promise.callerAsks(v)
	tok, err := v.source.TokenContext(ctx)
	waited := time.Since(asked.at)
	time.Sleep(time.Duration(c.number)) // callers that one event wakes go on one after another
	promise.callerGets(ctx, v, asked, waited, tok, err)
	return err
}

func (c *caller) request(ctx context.Context, v *view) {
	if resp, err := v.get(ctx); err == nil {
		resp.Body.Close()
	}
	time.Sleep(time.Duration(c.number))
}

// api is the last element of the path of a request to FinCode's API.
const api = "balance"

// accountField is a header field of such a request. It says which account the request
// is for, so that the simulation can check whose token it carries.
const accountField = "Account"

// get makes a request to the API for the account, as the process.
func (v *view) get(ctx context.Context) (*http.Response, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute) // the API may never answer
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, root+"/"+api, nil)
	if err != nil {
		panic(err)
	}
	req.Header.Set(accountField, v.account.key)
	v.begin()
	defer v.end()
	resp, err := v.sessions.Client(v.account.key).Do(req)
	if err == nil {
		_, _ = io.Copy(io.Discard, resp.Body)
	}
	return resp, err
}
