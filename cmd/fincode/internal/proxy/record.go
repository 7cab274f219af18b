package proxy

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/felixge/httpsnoop"
)

// A record is what is known of a request and its answer. Only the request's goroutine
// uses it, and for an answer of 1xx that of the Transport, but never both at once.
type record struct {
	began    time.Time
	status   int   // 0: no header was written
	bytes    int64 // of the answer's body; those of a websocket are not counted
	own      bool  // the request is for /-/
	complete bool  // false: the answer was cut off

	observe func(status int, took time.Duration) // nil: nobody is told
}

func newRecord() *record { return &record{began: time.Now()} }

// watch returns a ResponseWriter with all the methods of w. It tells rec what is written.
func (rec *record) watch(w http.ResponseWriter) http.ResponseWriter {
	return httpsnoop.Wrap(w, httpsnoop.Hooks{
		WriteHeader: func(next httpsnoop.WriteHeaderFunc) httpsnoop.WriteHeaderFunc {
			return func(status int) { rec.header(status); next(status) }
		},
		Write: func(next httpsnoop.WriteFunc) httpsnoop.WriteFunc {
			return func(p []byte) (int, error) {
				rec.header(http.StatusOK)
				n, err := next(p)
				rec.bytes += int64(n)
				return n, err
			}
		},
		ReadFrom: func(next httpsnoop.ReadFromFunc) httpsnoop.ReadFromFunc {
			return func(src io.Reader) (int64, error) {
				rec.header(http.StatusOK)
				n, err := next(src)
				rec.bytes += n
				return n, err
			}
		},
		Hijack: func(next httpsnoop.HijackFunc) httpsnoop.HijackFunc { // a websocket: no header is written
			return func() (net.Conn, *bufio.ReadWriter, error) { rec.header(http.StatusSwitchingProtocols); return next() }
		},
	})
}

// header notes the first header that is final, and tells whoever observes.
func (rec *record) header(status int) {
	if rec.status != 0 || status < 200 && status != http.StatusSwitchingProtocols {
		return
	}
	rec.status = status
	if rec.observe != nil {
		rec.observe(status, time.Since(rec.began))
	}
}

// logRequest logs the request without its query and its header, which may hold secrets.
// Probes, the page and the metrics are of no interest.
func (p *Proxy) logRequest(rec *record, r *http.Request) {
	level := slog.LevelInfo
	if rec.own {
		level = slog.LevelDebug
	}
	attrs := []slog.Attr{
		slog.String("method", r.Method),
		slog.String("path", r.URL.Path),
		slog.Int("status", rec.status),
		slog.Duration("took", time.Since(rec.began)),
		slog.Int64("bytes", rec.bytes),
	}
	if !rec.complete {
		attrs = append(attrs, slog.Bool("cut", true))
	}
	p.log.LogAttrs(context.WithoutCancel(r.Context()), level, "request", attrs...)
}
