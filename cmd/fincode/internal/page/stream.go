package page

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

const (
	beat         = 250 * time.Millisecond // how often a stream looks for something new
	trafficEvery = 2 * time.Second        // how often it sends the requests
	heartbeat    = 5 * time.Second        // the page knows after some of these that the connection is lost
	writeTimeout = 10 * time.Second       // a browser that reads more slowly is dropped, and connects again
	firstPoll    = 2 * time.Second        // how long the first message waits for the store
)

// A Snapshot is what the page shows, and what status.json says. A stream sends a whole
// one first, and then ones that have only what is new.
type Snapshot struct {
	Now      time.Time      `json:"now"`
	Proxy    *Proxy         `json:"proxy,omitempty"`
	Sessions []Session      `json:"sessions,omitempty"`
	Events   []Event        `json:"events,omitempty"`  // the last 500, the oldest first
	Traffic  []TrafficPoint `json:"traffic,omitempty"` // of the last 15 minutes; periods without requests are left out
}

// A Proxy is what does not change.
type Proxy struct {
	Profile string    `json:"profile,omitempty"`
	BaseURL string    `json:"base_url"`
	Version string    `json:"version,omitempty"`
	Started time.Time `json:"started"`
	Keys    int       `json:"keys"` // how many sessions there are
}

// snapshot returns what is new after the cursor, and moves the cursor. The zero cursor
// stands for a browser that knows nothing.
func (p *Page) snapshot(c *cursor) Snapshot {
	now := time.Now()
	s := Snapshot{Now: now.UTC()}
	if *c == (cursor{}) {
		s.Proxy = &Proxy{
			Profile: p.cfg.Profile,
			BaseURL: p.cfg.BaseURL,
			Version: p.cfg.Version,
			Started: p.started.UTC(),
			Keys:    len(p.cfg.Keys),
		}
	}
	s.Sessions, s.Events = p.board.since(c)
	if now.Sub(c.sent) >= trafficEvery {
		s.Traffic = p.traffic.since(c.traffic, now)
		c.traffic, c.sent = bucketNumber(now), now
	}
	return s
}

// serveEvents sends a snapshot, and then what is new, until the browser leaves.
func (p *Page) serveEvents(w http.ResponseWriter, r *http.Request) {
	select {
	case p.streams <- struct{}{}:
		defer func() { <-p.streams }()
	default:
		w.Header().Set("Retry-After", "10")
		http.Error(w, fmt.Sprintf("%d browsers look at this page already: close one of them", maxStreams), http.StatusServiceUnavailable)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("X-Accel-Buffering", "no") // for an nginx before the proxy
	if r.Method == http.MethodHead {
		return
	}
	s := stream{page: p, w: w, rc: http.NewResponseController(w)}
	defer s.rc.SetWriteDeadline(time.Time{}) // for the connection's next request
	s.run(r)
}

// A stream is one browser that looks at the page.
type stream struct {
	page   *Page
	w      http.ResponseWriter
	rc     *http.ResponseController
	cursor cursor
	wrote  time.Time
}

// run returns when the browser leaves, reads too slowly or is logged out, or when the
// page is closed.
func (s *stream) run(r *http.Request) {
	select {
	case <-s.page.poll():
	case <-time.After(firstPoll):
	case <-r.Context().Done():
		return
	}
	ticker := time.NewTicker(beat)
	defer ticker.Stop()
	for s.page.door.admits(r) && s.send() == nil {
		select {
		case <-ticker.C:
			s.page.poll()
		case <-s.page.ctx.Done():
			return
		case <-r.Context().Done():
			return
		}
	}
}

// send sends what is new, or a sign of life.
func (s *stream) send() error {
	now := time.Now()
	news := s.page.snapshot(&s.cursor)
	if news.isEmpty() && now.Sub(s.wrote) < heartbeat {
		return nil
	}
	s.wrote = now
	data, err := json.Marshal(news)
	if err != nil {
		return err
	}
	_ = s.rc.SetWriteDeadline(now.Add(writeTimeout)) // a writer without deadlines is one of a test
	if _, err := fmt.Fprintf(s.w, "data: %s\n\n", data); err != nil {
		return err
	}
	return s.rc.Flush()
}

func (s Snapshot) isEmpty() bool {
	return s.Proxy == nil && len(s.Sessions)+len(s.Events)+len(s.Traffic) == 0
}
