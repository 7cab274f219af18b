package proxy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	headerPatience = 10 * time.Second // for the header of a request
	idlePatience   = 2 * time.Minute  // for the next request of a connection
	maxHeader      = 64 << 10         // bytes
	endPatience    = 5 * time.Second  // for handlers whose requests were cut off
	endPoll        = 10 * time.Millisecond
)

// A CutError says that open requests were cut off at the end.
type CutError struct {
	Requests int64 // and websockets
}

func (e *CutError) Error() string {
	return fmt.Sprintf("%d open requests were cut off: give them more time with --max-sigterm-delay", e.Requests)
}

// Serve serves the listeners, and closes them at the end. It may be called once. It
// begins to end with SIGTERM or SIGINT:
//
//   - After SIGTERM, /-/readiness answers 503, and everything else goes on for
//     MinSigtermDelay, so that a load balancer notices. SIGINT skips that.
//   - Then no connection is accepted, and open requests and websockets may end, until
//     MaxSigtermDelay after the signal. After that they are cut off.
//   - A second signal, and the end of ctx, cut them off at once. So ctx must not end with
//     the first signal: see context.WithoutCancel.
//
// Serve returns nil if all requests have ended, a *CutError if some were cut off, and
// another error if a listener fails. All its goroutines have ended then. The caller
// closes the Sessions afterwards.
func (p *Proxy) Serve(ctx context.Context, listeners []net.Listener) error {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	return p.serve(ctx, listeners, signals)
}

// A run is one call of Serve.
type run struct {
	*Proxy
	server  *http.Server
	cut     context.CancelFunc // ends the contexts of all requests
	signals <-chan os.Signal
	failed  chan error     // of the listeners
	ended   sync.WaitGroup // all goroutines of the run
}

func (p *Proxy) serve(ctx context.Context, listeners []net.Listener, signals <-chan os.Signal) error {
	requests, cut := context.WithCancel(context.WithoutCancel(ctx))
	r := &run{Proxy: p, cut: cut, signals: signals, failed: make(chan error, len(listeners))}
	defer r.ended.Wait()
	r.server = p.newServer(requests)
	names := r.listen(listeners)
	system := newSystemd(p.log)
	defer system.stop()
	p.state.now.Store(serving)
	system.tell("READY=1\nSTATUS=listening on " + strings.Join(names, ", "))
	p.log.InfoContext(ctx, "the proxy serves", "addresses", names)

	signalled, err := r.wait(ctx)
	p.state.now.Store(endingSoon)
	system.tell("STOPPING=1\nSTATUS=stopping")
	p.log.InfoContext(ctx, "the proxy stops", "open", p.open.Load())
	return cmp.Or(err, r.end(ctx, signalled == syscall.SIGTERM))
}

func (p *Proxy) newServer(requests context.Context) *http.Server {
	return &http.Server{
		Handler:                      p,
		ReadHeaderTimeout:            headerPatience,
		IdleTimeout:                  idlePatience, // there is no limit for bodies, because they may be streams
		MaxHeaderBytes:               maxHeader,
		DisableGeneralOptionsHandler: true, // so that the guard sees "OPTIONS *"
		ErrorLog:                     slog.NewLogLogger(p.log.Handler(), slog.LevelWarn),
		BaseContext:                  func(net.Listener) context.Context { return requests },
	}
}

// listen serves the listeners, and returns their addresses.
func (r *run) listen(listeners []net.Listener) (names []string) {
	for _, l := range listeners {
		names = append(names, l.Addr().String())
		r.ended.Go(func() {
			if err := r.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				r.failed <- fmt.Errorf("the proxy cannot listen on %s any more: %w", l.Addr(), err)
			}
		})
	}
	return names
}

// wait returns what ends the proxy: a signal; nil, if ctx has ended; or the error of a
// listener.
func (r *run) wait(ctx context.Context) (os.Signal, error) {
	select {
	case s := <-r.signals:
		return s, nil
	case <-ctx.Done():
		return nil, nil
	case err := <-r.failed:
		return nil, err
	}
}

// end ends the run: slowly, with MinSigtermDelay, or else without it.
func (r *run) end(ctx context.Context, slowly bool) error {
	ctx, hurry := context.WithCancel(ctx)
	defer hurry()
	r.ended.Go(func() {
		select {
		case <-r.signals: // the second one
			hurry()
		case <-ctx.Done():
		}
	})
	patience, cancel := context.WithTimeout(ctx, r.cfg.MaxSigtermDelay)
	defer cancel()
	if slowly {
		select {
		case <-time.After(r.cfg.MinSigtermDelay):
		case <-ctx.Done():
		}
	}
	r.drain()
	_ = r.server.Shutdown(patience) // an error means that requests are open, which are counted below
	r.waitForRequests(patience)     // Shutdown does not wait for websockets
	left := r.open.Load()
	r.cut()
	r.server.Close()
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), endPatience)
	defer cancel()
	r.waitForRequests(last)
	if left > 0 {
		return &CutError{left}
	}
	return nil
}

// waitForRequests waits until no request is open, or until ctx ends.
func (r *run) waitForRequests(ctx context.Context) {
	ticker := time.NewTicker(endPoll)
	defer ticker.Stop()
	for r.open.Load() > 0 {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}
