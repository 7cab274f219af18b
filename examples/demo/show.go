package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	random "math/rand/v2"
	"os"
	"os/signal"
	"time"

	"github.com/fincodeauth/fincodeauth/fincodetest"
)

const (
	lifetime      = 2 * time.Second // of an access token
	lifetimes     = 5
	processCount  = 4
	goroutines    = 50 // in all processes together
	sparseLine    = 2 * time.Second
	progressEvery = 100 * time.Millisecond
)

// show runs the demonstration and returns the exit status.
func show() int {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt)
	defer cancel()
	fmt.Printf("%d goroutines in %d processes, one session, access tokens that live %v, one process killed halfway\n\n",
		goroutines, processCount, lifetime)
	r, err := run(ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		return 1
	}
	r.print(os.Stdout)
	if len(r.broken()) > 0 {
		return 1
	}
	return 0
}

// run logs in, starts the processes that send requests, and kills one of them.
func run(ctx context.Context) (*result, error) {
	fincode := fincodetest.NewServer(fincodetest.Config{AccessLifetime: lifetime})
	defer fincode.Close()
	dir, err := os.MkdirTemp("", "fincodeauth-demo-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	key := make([]byte, 32)
	rand.Read(key)

	sessions, err := open(fincode.URL, dir, key)
	if err != nil {
		return nil, err
	}
	err = login(ctx, sessions, fincodetest.Email, fincodetest.Password)
	if err := errors.Join(err, closeSessions(sessions)); err != nil {
		return nil, err
	}

	var ps processes
	defer ps.stop()
	for i := range processCount {
		share := goroutines / processCount
		if i < goroutines%processCount {
			share++
		}
		if err := ps.start(job{BaseURL: fincode.URL, Dir: dir, Key: key, Goroutines: share}); err != nil {
			return nil, err
		}
	}
	r := &result{}
	if err := r.watch(ctx, &ps, fincode); err != nil {
		return nil, err
	}
	if err := ps.stop(); err != nil {
		return nil, err
	}
	r.done = ps.done()
	r.fincode = fincode.Counts()
	r.presentations = fincode.PresentedMoreThanOnce()
	r.folder, r.folderErr = look(ctx, dir, key)
	return r, nil
}

// watch shows the progress until the time is over or the session is lost. Halfway
// it kills a process and starts another one in its place.
func (r *result) watch(ctx context.Context, ps *processes, fincode *fincodetest.Server) error {
	started := time.Now()
	over := time.After(lifetimes * lifetime)
	halfway := time.After(lifetimes*lifetime/2 + random.N(lifetime) - lifetime/2)
	tick := time.NewTicker(progressEvery)
	defer tick.Stop()
	p := newProgress(os.Stdout)
	defer p.end()
	for {
		select {
		case <-ctx.Done():
			return errors.New("stopped")
		case <-over:
			return nil
		case <-halfway:
			victim := ps.all[random.N(processCount)]
			r.killed.firstToken = fincode.Counts().Refreshes
			victim.kill()
			r.killed.lastToken = fincode.Counts().Refreshes + 1
			if err := ps.start(victim.job); err != nil {
				return err
			}
		case <-tick.C:
			done := ps.done()
			p.show(time.Since(started), done, fincode.Counts().Refreshes, r.killed.lastToken > 0)
			if done.Interrupted > 0 {
				return nil
			}
		}
	}
}
