package proxy

import (
	"io"
	"net/http"
	"sync/atomic"
)

// A state is what the probes say. It goes from starting to serving to stopping. That
// FinCode or the store is down changes nothing: a restart would not help, and clients
// should get an error that says what is wrong.
type state struct{ now atomic.Int32 }

const (
	starting int32 = iota
	serving
	endingSoon // SIGTERM has come
)

// answer answers a probe with one word. The probes are those of cloud-sql-proxy.
func (s *state) answer(w http.ResponseWriter, r *http.Request, probe string) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		methodRefused.write(w)
		return
	}
	status, word := http.StatusOK, "alive"
	switch now := s.now.Load(); {
	case probe == "/liveness":
	case now == starting:
		status, word = http.StatusServiceUnavailable, "starting"
	case probe == "/startup":
		word = "started"
	case now == endingSoon:
		status, word = http.StatusServiceUnavailable, "stopping"
	default:
		word = "ready"
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, word+"\n")
}
