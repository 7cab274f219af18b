// Package proxy is an HTTP proxy that adds FinCode's access token to the requests of
// local programs. No refresh token leaves it.
//
//	proxy.go      Config, New, and the way of a request through the others
//	guard.go      refuses what a web page could send: a foreign Host or Origin
//	paths.go      refuses paths with two meanings, and those whose answers hold tokens
//	filter.go     refuses what the user refuses: paths, methods, all but reading
//	forward.go    sends the request to FinCode, and the answer back
//	replay.go     keeps small bodies, so that a request can be sent again
//	problem.go    the proxy's own errors
//	record.go     one log line for each request
//	health.go     startup, liveness, readiness
//	metrics.go    what Prometheus reads
//	listen.go     TCP addresses and the sockets of systemd
//	unix.go       Unix sockets
//	serve.go      from the first connection to the last
//	systemd.go    what systemd is told
//	wait.go       waits until a proxy serves
package proxy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/cmd/fincode/internal/proxykey"
)

// DefaultMaxReplayBody is a good value for Config.MaxReplayBody.
const DefaultMaxReplayBody = 1 << 20

// A Config says what a Proxy does. Sessions, Session, BaseURL and Key are required.
type Config struct {
	Sessions *fincodeauth.Sessions
	Session  string // the key of the session whose token is added
	BaseURL  string // that of Sessions

	// Key is what each request needs, except the three probes, and the Page, which
	// authenticates by itself.
	Key proxykey.Key

	// Page answers everything under /-/ that is not a probe or the metrics. Its
	// requests have passed the guard, but need no key. Their contexts end when the
	// proxy stops accepting connections. nil: those paths are a 404.
	Page http.Handler

	// Metrics answers /-/metrics and counts the requests. nil: neither.
	Metrics *Metrics

	// Observe learns the status of each forwarded request, and how long it took until
	// the header of the answer. It is called concurrently, and must not block. nil:
	// nobody learns it.
	Observe func(status int, took time.Duration)

	// AcceptPaths, RejectPaths and RejectMethods are regular expressions. As in kubectl
	// proxy, an expression matches if it matches any part: "^/payments/" means the
	// beginning, and "^GET$" all of it. Paths are decoded, begin with a slash, and do
	// not have the path of BaseURL. A path must match one of AcceptPaths, if there are
	// any, and none of RejectPaths. FinCode may take several spellings for one path, so
	// AcceptPaths is the safer one.
	AcceptPaths, RejectPaths, RejectMethods []string

	// ReadOnly refuses everything but GET, HEAD and OPTIONS, and websockets, which can
	// do anything.
	ReadOnly bool

	// MaxReplayBody is how many bytes of a body are kept in memory, so that the request
	// can be sent again after a 401. A longer body is streamed, and not sent again. 0: no
	// body is kept.
	MaxReplayBody int64

	// AllowedHosts are further values of Host, such as "proxy.example.com:8080", or
	// without a port, for any port. The address that a connection came to, and localhost
	// with its port, are always allowed.
	AllowedHosts []string

	// MinSigtermDelay is how long the proxy goes on after SIGTERM. 0: it does not.
	MinSigtermDelay time.Duration

	// MaxSigtermDelay is how long after SIGTERM open requests may end. It must be 0 or at
	// least MinSigtermDelay. 0: they are cut off after MinSigtermDelay.
	MaxSigtermDelay time.Duration

	Logger *slog.Logger // nil: slog.Default()
}

// A Proxy is an http.Handler. Serve serves it on listeners. It is safe for concurrent
// use.
type Proxy struct {
	cfg     Config
	target  *url.URL // BaseURL
	root    string   // its path, without a slash at the end
	guard   guard
	filter  filter
	reverse *httputil.ReverseProxy
	handler http.Handler // guarded, or the metrics around it
	log     *slog.Logger

	state    state
	open     atomic.Int64 // requests and websockets
	draining context.Context
	drain    context.CancelFunc // called when no more connections are accepted
}

// New returns a Proxy. Its errors name the flag of the command that is wrong.
func New(cfg Config) (*Proxy, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	target, err := url.Parse(cfg.BaseURL)
	if err != nil || target.Host == "" {
		return nil, errors.New("the base URL does not parse: write it as https://tenant.fincode.software/api/v6/services")
	}
	filter, err := newFilter(cfg)
	if err != nil {
		return nil, err
	}
	guard, err := newGuard(cfg.AllowedHosts)
	if err != nil {
		return nil, err
	}
	p := &Proxy{
		cfg:    cfg,
		target: target,
		root:   strings.TrimRight(target.Path, "/"),
		guard:  guard,
		filter: filter,
		log:    cmp.Or(cfg.Logger, slog.Default()),
	}
	p.draining, p.drain = context.WithCancel(context.Background())
	p.reverse = p.newReverse()
	p.handler = http.HandlerFunc(p.guarded)
	if cfg.Metrics != nil {
		p.handler = cfg.Metrics.measure(p.handler)
	}
	return p, nil
}

func (c *Config) check() error {
	switch {
	case c.Sessions == nil || c.Session == "":
		return errors.New("the proxy has no session")
	case c.Key == (proxykey.Key{}):
		return errors.New("the proxy has no key: anybody could use it")
	case c.MinSigtermDelay < 0 || c.MaxSigtermDelay < 0:
		return errors.New("--min-sigterm-delay and --max-sigterm-delay must not be negative")
	case c.MaxSigtermDelay != 0 && c.MaxSigtermDelay < c.MinSigtermDelay:
		return fmt.Errorf("--max-sigterm-delay %v is shorter than --min-sigterm-delay %v, and includes it: make it longer, or 0 to wait for no request", c.MaxSigtermDelay, c.MinSigtermDelay)
	}
	return nil
}

// ServeHTTP answers a request, or forwards it to FinCode.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.open.Add(1)
	defer p.open.Add(-1)
	p.handler.ServeHTTP(w, r)
}

// guarded logs the request, and refuses it if the guard does.
func (p *Proxy) guarded(w http.ResponseWriter, r *http.Request) {
	rec := newRecord()
	defer p.logRequest(rec, r)
	w = rec.watch(w)
	limitBody(w, r)
	if problem, bad := p.guard.refuses(r); bad {
		problem.write(w)
	} else if rest, own := strings.CutPrefix(r.URL.Path, "/-"); own && (rest == "" || rest[0] == '/') {
		rec.own = true
		p.serveOwn(w, r, rest)
	} else if !p.cfg.Key.Authorizes(r) {
		keyRequired.write(w)
	} else {
		p.forward(w, r, rec)
	}
	rec.complete = true
}

// limitBody gives the body of a request some time to arrive. Otherwise somebody without the
// key could keep connections busy for ever. forward takes the limit away.
func limitBody(w http.ResponseWriter, r *http.Request) {
	if r.ContentLength != 0 {
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(headerPatience)) // an error: w is one of a test
	}
}

// serveOwn answers what is below /-, where path begins.
func (p *Proxy) serveOwn(w http.ResponseWriter, r *http.Request, path string) {
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", "no-store")
	switch path {
	case "":
		http.Redirect(w, r, "/-/", http.StatusTemporaryRedirect)
	case "/startup", "/liveness", "/readiness":
		p.state.answer(w, r, path)
	case "/metrics":
		p.serveMetrics(w, r)
	default:
		p.servePage(w, r)
	}
}

func (p *Proxy) serveMetrics(w http.ResponseWriter, r *http.Request) {
	switch {
	case !p.cfg.Key.Authorizes(r):
		keyRequired.write(w)
	case p.cfg.Metrics == nil:
		notFound.write(w)
	default:
		p.cfg.Metrics.handler().ServeHTTP(w, r)
	}
}

// servePage ends the page's streams before a shutdown waits for open requests.
func (p *Proxy) servePage(w http.ResponseWriter, r *http.Request) {
	if p.cfg.Page == nil {
		notFound.write(w)
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(p.draining, cancel)()
	p.cfg.Page.ServeHTTP(w, r.WithContext(ctx))
}
