package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/fincodeauth/fincodeauth"
)

// requestPatience is how long a shutdown waits for requests under way, which is more
// than callPatience. The platform must grant more than the sum of this, -drain and
// -save-timeout (Kubernetes: terminationGracePeriodSeconds).
const requestPatience = 45 * time.Second

// serve listens until ctx ends, and then shuts down:
//
//  1. /readyz says no, and everything else goes on for -drain. The load balancer
//     notices, and sends no new requests.
//  2. No connection is accepted any more. Requests under way end.
//  3. The caller closes the sessions: every rotated token is saved.
func serve(ctx context.Context, opts options, handler http.Handler, health *health, listening func(net.Addr)) error {
	listener, err := net.Listen("tcp", opts.listen)
	if err != nil {
		return fmt.Errorf("%w: choose another address with -listen", err)
	}
	server := newHTTPServer(handler, health.logger)
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	health.serving.Store(true)
	listening(listener.Addr())

	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	health.serving.Store(false)
	health.logger.Info("stopping", "drain", opts.drain)
	select {
	case err := <-failed:
		return err
	case <-time.After(opts.drain):
	}
	return shutdown(server)
}

// shutdown waits for the requests under way. The context that stopped the program has
// ended, so this one is new.
func shutdown(server *http.Server) error {
	ctx, cancel := context.WithTimeout(context.Background(), requestPatience)
	defer cancel()
	if err := server.Shutdown(ctx); err != nil {
		return errors.Join(fmt.Errorf("requests did not end: %w", err), server.Close())
	}
	return nil
}

// closeSessions waits for the saves, at most until timeout. Its error names the users
// whose tokens are lost.
func closeSessions(sessions *fincodeauth.Sessions, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return sessions.Close(ctx)
}

func newHTTPServer(handler http.Handler, logger *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      60 * time.Second, // more than callPatience
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    32 << 10,
		ErrorLog:          slog.NewLogLogger(logger.Handler(), slog.LevelWarn),
	}
}

// addressOf returns what users open.
func addressOf(opts options, public net.Addr) string {
	if opts.publicURL != "" {
		return opts.publicURL + " (served on " + public.String() + ")"
	}
	return "http://" + public.String() + "/"
}
