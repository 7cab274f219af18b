// Bff is a whole backend-for-frontend: users log in with their FinCode password in
// a browser, and the browser gets a cookie instead of FinCode's tokens.
//
//	go run ./examples/bff
//
// README.md says what it shows, and what to change for production.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"

	"github.com/fincodeauth/fincodeauth"
)

func main() {
	// After the first signal, stop restores the default, so a second one kills.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	logger := slog.New(slog.NewTextHandler(os.Stderr, nil))
	err := run(ctx, os.Args[1:], os.Getenv, os.Stdout, logger)
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		logger.Error("the program failed", "error", err)
		os.Exit(1) // an unsaved token is an error of run, so whoever started this learns of it
	}
}

// run is the program. It ends when ctx ends, after the shutdown.
func run(ctx context.Context, args []string, getenv func(string) string, out io.Writer, logger *slog.Logger) (err error) {
	opts, err := parseOptions(args, getenv)
	if err != nil {
		return err
	}
	opts, stopDemo := startDemo(opts, out)
	defer stopDemo() // deferred first, so it runs last: Close may still call FinCode

	ring, err := openKeyring(getenv, opts)
	if err != nil {
		return err
	}
	store, closeStore, err := openStore(ctx, opts)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeStore()) }()
	encrypted, err := fincodeauth.Encrypt(store, ring.atRest()...)
	if err != nil {
		return err
	}

	metrics, err := newMetrics(opts.baseURL)
	if err != nil {
		return err
	}
	health := newHealth(store, logger)
	admin, err := startAdmin(opts.admin, health, metrics, logger)
	if err != nil {
		return err
	}
	defer admin.stop() // after Close: probes and metrics are served to the end

	sessions, err := openSessions(opts, encrypted, metrics, nil, logger)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeSessions(sessions, opts.saveTimeout)) }()
	// What works on sessions in the background, such as KeepAlive, starts here, and ends with ctx.

	handler := newServer(opts, sessions, store, ring, logger).handler()
	return serve(ctx, opts, metrics.measure(handler), health, func(public net.Addr) {
		say(out, "Open:     %s", addressOf(opts, public))
		say(out, "Health:   http://%s/readyz, /livez and /metrics", admin.addr)
	})
}

// openSessions returns the sessions in store, which metrics measures from now on: also
// after Close, when the gauges show what is not saved. base sends requests; nil: the
// default transport.
func openSessions(opts options, store fincodeauth.Store, metrics *metrics, base http.RoundTripper, logger *slog.Logger) (*fincodeauth.Sessions, error) {
	sessions, err := fincodeauth.New(fincodeauth.Config{
		BaseURL: opts.baseURL,
		Store:   store,
		Base:    metrics.base(base),
		Observe: both(fincodeauth.LogEvents(logger), metrics.Observe),
	})
	if err != nil {
		return nil, err
	}
	_, err = metrics.Watch(sessions)
	return sessions, err
}

// both returns an Observe that calls a and then b.
func both(a, b func(fincodeauth.Event)) func(fincodeauth.Event) {
	return func(e fincodeauth.Event) { a(e); b(e) }
}

// say prints one line for the person who started the program.
func say(out io.Writer, format string, args ...any) { fmt.Fprintf(out, format+"\n", args...) }
