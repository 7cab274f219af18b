// Package page is the proxy's status page: how the sessions are, when their tokens were
// rotated, how many requests there are, and what happens, as it happens.
//
//	page.go     Config, New, and the paths
//	login.go    who may see the page: the proxy's key, and cookies
//	html.go     the documents, of the files in web
//	board.go    the sessions and events, which all browsers see
//	words.go    a session and an event, in words
//	traffic.go  the requests of the last 15 minutes
//	stream.go   what a browser gets, as it happens
package page

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/cmd/fincode/internal/failure"
	"github.com/fincodeauth/fincodeauth/cmd/fincode/internal/proxykey"
)

// Root is the path of the page. Everything of the page is below it.
const Root = "/-/"

// maxStreams is how many browsers can look at the page at once.
const maxStreams = 32

// Config is what New needs to know.
type Config struct {
	Sessions *fincodeauth.Sessions // required
	Keys     []string              // the sessions to show, each once; empty: none
	Profile  string                // its name, for the page and its advice; "": no name
	BaseURL  string                // of FinCode, for the page
	Key      proxykey.Key          // of the proxy; the zero Key lets nobody in
	Version  string                // of the program; "": none
	Earlier  []fincodeauth.Event   // events of earlier processes, the oldest first; nil: none
}

// A Page is the status page. It is an http.Handler for the paths below Root. What stands
// before it must check Host, Origin and Sec-Fetch-Site. It is safe for concurrent use.
type Page struct {
	cfg     Config
	started time.Time
	board   *board
	traffic traffic
	door    *doorkeeper
	html    documents
	mux     *http.ServeMux
	streams chan struct{} // has a slot for each stream

	// Close ends ctx, and then waits for the polls. mu keeps a poll from starting
	// in between.
	mu    sync.Mutex
	ctx   context.Context
	end   context.CancelFunc
	polls sync.WaitGroup
}

// New returns a page. Call Close when the proxy stops.
func New(cfg Config) *Page {
	p := &Page{
		cfg:     cfg,
		started: time.Now(),
		board:   newBoard(cfg, failure.InProfile("fincode login", cfg.Profile)),
		door:    newDoorkeeper(cfg.Key),
		html:    newDocuments(),
		mux:     http.NewServeMux(),
		streams: make(chan struct{}, maxStreams),
	}
	p.ctx, p.end = context.WithCancel(context.Background())
	p.mux.HandleFunc("GET /-/{$}", p.serveHome)
	p.mux.HandleFunc("GET /-/status.json", p.onlyWithKey(p.serveStatus))
	p.mux.HandleFunc("GET /-/events", p.onlyWithKey(p.serveEvents))
	p.mux.HandleFunc("GET /-/login", backHome)
	p.mux.HandleFunc("POST /-/login", p.serveLogin)
	p.mux.HandleFunc("GET /-/logout", backHome)
	p.mux.HandleFunc("POST /-/logout", p.serveLogout)
	return p
}

// Observe shows an event. It is for Config.Observe of the Sessions, and does not block.
func (p *Page) Observe(e fincodeauth.Event) { p.board.add(e) }

// ObserveRequest counts a request that the proxy has answered. took is the time until
// its answer began, or until the request failed; status is 0 if FinCode did not answer.
func (p *Page) ObserveRequest(status int, took time.Duration) {
	p.traffic.add(time.Now(), status, took)
}

// Close ends all streams, so that a shutdown of the server does not wait for them. The
// rest of the page works on, with what is known.
func (p *Page) Close() {
	p.mu.Lock()
	p.end()
	p.mu.Unlock()
	p.polls.Wait()
}

// ServeHTTP answers a request below Root.
func (p *Page) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'")
	p.mux.ServeHTTP(w, r)
}

// onlyWithKey refuses requests that have neither the key nor a cookie.
func (p *Page) onlyWithKey(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !p.door.admits(r) {
			w.Header().Set("WWW-Authenticate", "Bearer")
			http.Error(w, "the proxy's key is missing or wrong: send it as Authorization: Bearer KEY, or log in at "+Root, http.StatusUnauthorized)
			return
		}
		next(w, r)
	}
}

func (p *Page) serveHome(w http.ResponseWriter, r *http.Request) {
	switch {
	case p.door.admits(r):
		p.html.home.serve(w, http.StatusOK)
	case r.URL.Query().Has("ended"):
		p.html.loginAgain.serve(w, http.StatusUnauthorized)
	default:
		p.html.loginForm.serve(w, http.StatusUnauthorized)
	}
}

func (p *Page) serveLogin(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxLoginLen)
	switch {
	case p.door.key.Matches(strings.TrimSpace(r.PostFormValue("key"))):
		http.SetCookie(w, p.door.enter(r))
		backHome(w, r)
	case p.door.holdUp(r):
		p.html.wrongKey.serve(w, http.StatusUnauthorized)
	default:
		w.Header().Set("Retry-After", "2")
		p.html.tooMany.serve(w, http.StatusTooManyRequests)
	}
}

func (p *Page) serveLogout(w http.ResponseWriter, r *http.Request) {
	http.SetCookie(w, p.door.leave(r))
	backHome(w, r)
}

func backHome(w http.ResponseWriter, r *http.Request) {
	http.Redirect(w, r, Root, http.StatusSeeOther)
}

// serveStatus answers with everything that the page shows.
func (p *Page) serveStatus(w http.ResponseWriter, r *http.Request) {
	select {
	case <-p.poll():
	case <-r.Context().Done():
		return
	}
	w.Header().Set("Content-Type", "application/json")
	body, err := json.MarshalIndent(p.snapshot(&cursor{}), "", "  ")
	if err != nil { // no type in it can fail
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	_, _ = w.Write(append(body, '\n')) // whoever asked has left
}

// poll looks at the sessions if it is time to. The channel is closed when that is done.
func (p *Page) poll() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ctx.Err() != nil {
		return p.ctx.Done()
	}
	return p.board.poll(time.Now(), func(do func(context.Context)) {
		p.polls.Go(func() { do(p.ctx) })
	})
}
