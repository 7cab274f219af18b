package simulation

import (
	"context"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"
)

// A caller wants tokens from one process, now and then.
type caller struct {
	process *process
	number  int // of all: callers that are woken at one instant go on one after another
	dice    *rand.Rand
	rush    int // the next one
}

// callers lets the process's callers loose, and returns when they have left.
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
		if c.dice.IntN(3) > 0 {
			c.token(ctx)
		} else {
			c.request(ctx)
		}
		cancel()
	}
}

// idle waits until the caller wants something, and returns false if its process
// is gone.
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

// patience returns the context of a caller who waits for ever, for a while, or
// hardly.
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

func (c *caller) token(ctx context.Context) {
	p := c.process
	promise := &p.machine.world.promise
	asked := promise.asks(p)
	tok, err := p.sessions.TokenSource(key).TokenContext(ctx)
	waited := time.Since(asked.at)
	time.Sleep(time.Duration(c.number))
	promise.gets(ctx, p, asked, waited, tok, err)
}

func (c *caller) request(ctx context.Context) {
	if resp, err := c.process.get(ctx); err == nil {
		resp.Body.Close()
	}
	time.Sleep(time.Duration(c.number))
}

// api is the last element of the path of a request to FinCode's API.
const api = "balance"

// get makes a request to the API.
func (p *process) get(ctx context.Context) (*http.Response, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute) // the API may keep silent
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, root+"/"+api, nil)
	if err != nil {
		panic(err)
	}
	resp, err := p.sessions.Client(key).Do(req)
	if err == nil {
		_, _ = io.Copy(io.Discard, resp.Body)
	}
	return resp, err
}
