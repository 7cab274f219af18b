package proxy

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"
)

// replayPatience is how long a request that could be sent again waits for a client that
// is slow to send its body.
const replayPatience = time.Second

// maxKept is about how many bytes all requests together keep of their bodies. If a body
// finds no room, it is not sent again.
const maxKept = 256 << 20

// A replaying is a RoundTripper that gives a request GetBody, so that the Transport can
// send its body again after a 401. It keeps what was read of a body, up to limit bytes,
// and holds nothing up: FinCode gets each byte as soon as the client has sent it.
type replaying struct {
	next  http.RoundTripper
	limit int64 // bytes of one body
	all   *budget
}

func newReplaying(next http.RoundTripper, limit int64) replaying {
	return replaying{next, limit, &budget{left: max(maxKept, limit)}}
}

func (t replaying) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Body == nil || req.Body == http.NoBody || req.GetBody != nil || req.ContentLength > t.limit || t.limit <= 0 {
		return t.next.RoundTrip(req)
	}
	kept := &keptBody{limit: t.limit, share: share{of: t.all}, source: req.Body, mu: make(chan struct{}, 1)}
	context.AfterFunc(req.Context(), kept.share.giveBack) // net/http ends the context after the request
	out := req.WithContext(req.Context())                 // a copy: a RoundTripper must not change its request
	out.GetBody = kept.again
	out.Body, _ = kept.again() // no error: nobody reads yet
	return t.next.RoundTrip(out)
}

// A budget is how many more bytes all requests together may keep.
type budget struct {
	mu   sync.Mutex
	left int64
}

// A share is what one request has taken of a budget. The budget's mu guards it.
type share struct {
	of    *budget
	taken int64
	over  bool // it was given back
}

// take reports whether there is room for n more bytes.
func (s *share) take(n int64) bool {
	s.of.mu.Lock()
	defer s.of.mu.Unlock()
	if s.over || s.of.left < n {
		return false
	}
	s.of.left -= n
	s.taken += n
	return true
}

func (s *share) giveBack() {
	s.of.mu.Lock()
	defer s.of.mu.Unlock()
	s.of.left += s.taken
	s.taken, s.over = 0, true
}

// A keptBody is a body that can be read from its beginning, as long as no more than
// limit bytes were read. Whoever has sent to mu may use what follows it.
type keptBody struct {
	limit int64
	share share

	mu      chan struct{} // a mutex, for which again waits only so long
	source  io.Reader
	start   []byte // what was read of source, if it is not too long
	tooLong bool   // or there was no room for it; so there is no start
	err     error  // of source; nil: it has more
	current *keptReader
}

// A keptReader reads a keptBody once. Only the last one that was made can read.
type keptReader struct {
	body *keptBody
	at   int // in start; guarded by body.mu
}

var (
	errTooLong = errors.New("the body is too long to be sent again")
	errTooSlow = errors.New("the client is too slow to send the body again")
)

// again returns a reader that begins at the start of the body.
func (b *keptBody) again() (io.ReadCloser, error) {
	select {
	case b.mu <- struct{}{}:
	case <-time.After(replayPatience):
		return nil, errTooSlow
	}
	defer func() { <-b.mu }()
	if b.tooLong {
		return nil, errTooLong
	}
	b.current = &keptReader{body: b}
	return b.current, nil
}

// Read holds mu while it waits for the client: bytes that arrive must not be lost
// between the last reader and the next one.
func (r *keptReader) Read(p []byte) (int, error) {
	b := r.body
	b.mu <- struct{}{}
	defer func() { <-b.mu }()
	switch {
	case r != b.current:
		return 0, http.ErrBodyReadAfterClose
	case r.at < len(b.start):
		n := copy(p, b.start[r.at:])
		r.at += n
		return n, nil
	case b.err != nil:
		return 0, b.err
	}
	n, err := b.source.Read(p)
	if b.err = err; err != nil && err != io.EOF {
		b.err = &bodyError{err}
	}
	b.keep(p[:n], r)
	return n, b.err
}

// keep adds what r has read to the start of the body.
func (b *keptBody) keep(p []byte, r *keptReader) {
	b.tooLong = b.tooLong || int64(len(b.start)+len(p)) > b.limit || !b.share.take(int64(len(p)))
	if b.tooLong {
		b.start, r.at = nil, 0
		b.share.giveBack()
		return
	}
	b.start = append(b.start, p...)
	r.at = len(b.start)
}

// Close leaves the body open, because it may be sent again. ReverseProxy closes it after
// the request.
func (r *keptReader) Close() error { return nil }

// A bodyError says that the client's body could not be read.
type bodyError struct{ error }

func (e *bodyError) Unwrap() error { return e.error }
