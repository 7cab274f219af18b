package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"

	"github.com/fincodeauth/fincodeauth"
)

// health answers probes.
//
// Alive means that the process can answer. Nothing else counts: a restart repairs
// neither the store nor FinCode, and it loses the tokens that are not saved yet.
//
// Ready means that users can be served: the store answers, and the process does
// not stop. FinCode does not count: no replica can reach it then, and users would
// get the load balancer's error instead of a page that says what is wrong.
type health struct {
	store   fincodeauth.Store
	logger  *slog.Logger
	serving atomic.Bool // false before the process listens, and once it stops
}

func newHealth(store fincodeauth.Store, logger *slog.Logger) *health {
	return &health{store: store, logger: logger}
}

func (h *health) live(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]string{"status": "alive"})
}

func (h *health) ready(w http.ResponseWriter, r *http.Request) {
	if !h.serving.Load() {
		writeJSON(w, http.StatusServiceUnavailable, map[string]string{"status": "starting or stopping"})
		return
	}
	if err := h.askStore(r.Context()); err != nil {
		h.logger.Error("not ready: the store does not answer", "error", err)
		writeJSON(w, http.StatusServiceUnavailable, map[string]string{"status": "the store does not answer"})
		return
	}
	writeJSON(w, http.StatusOK, map[string]string{"status": "ready"})
}

// askStore looks for a record that nobody has. That the store cannot be written to
// is told by the event SaveFailed, because a probe that writes all day costs more
// than it tells.
func (h *health) askStore(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, storePatience)
	defer cancel()
	_, err := h.store.Load(ctx, "readiness probe")
	if errors.Is(err, fincodeauth.ErrNotFound) {
		return nil
	}
	return err
}

// An admin is a server for what browsers must not reach.
type admin struct {
	addr net.Addr
	stop func()
}

func startAdmin(address string, h *health, m *metrics, logger *slog.Logger) (admin, error) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return admin{}, fmt.Errorf("%w: choose another address with -admin", err)
	}
	server := newHTTPServer(adminHandler(h, m), logger)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			logger.Error("the admin server failed", "error", err)
		}
	}()
	return admin{listener.Addr(), func() { server.Close(); <-done }}, nil
}

func adminHandler(h *health, m *metrics) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", h.live)
	mux.HandleFunc("GET /readyz", h.ready)
	mux.Handle("GET /metrics", m.handler())
	return mux
}
