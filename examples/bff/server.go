package main

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/fincodeauth/fincodeauth"
)

// A server answers browsers. Its fields do not change.
type server struct {
	opts     options
	sessions *fincodeauth.Sessions
	client   *http.Client // one for all users: the context of a request names the user
	logins   logins
	cookies  cookies
	logger   *slog.Logger
}

func newServer(opts options, sessions *fincodeauth.Sessions, store fincodeauth.Store, ring keyring, logger *slog.Logger) *server {
	return &server{
		opts:     opts,
		sessions: sessions,
		client:   sessions.Client(""),
		logins:   logins{store},
		cookies:  newCookies(ring, opts.secure()),
		logger:   logger,
	}
}

// handler returns all routes. A path that is not here is a 404.
func (s *server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", s.home)
	mux.HandleFunc("GET /login", s.showLogin)
	mux.HandleFunc("POST /login", s.login)
	mux.HandleFunc("POST /logout", s.logout)
	mux.HandleFunc("GET /session.json", s.news)
	mux.HandleFunc("GET /static/{name}", s.static)
	proxy := s.proxied(s.newProxy())
	for _, pattern := range s.opts.proxied {
		mux.Handle(below("/api", pattern), proxy)
	}
	return s.guarded(s.sameOrigin().Handler(mux))
}

// sameOrigin refuses what another site makes a browser send. It needs no token in
// the forms, because browsers say where a request comes from. That the cookie is
// SameSite is a second lock.
func (s *server) sameOrigin() *http.CrossOriginProtection {
	protection := http.NewCrossOriginProtection()
	if s.opts.publicURL != "" {
		// Behind some load balancers, Host is not what the user typed.
		if err := protection.AddTrustedOrigin(s.opts.origin()); err != nil {
			s.logger.Error("-public-url is no origin", "error", err) // not possible after checkPublicURL
		}
	}
	protection.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.logger.Warn("a request from another site was refused", "method", r.Method, "path", r.URL.Path)
		s.render(w, http.StatusForbidden, "problem.html", problem{
			Title: "This request came from another site",
			Text:  "For your security we did nothing. Go back to our site and try again.",
		})
	}))
	return protection
}

// guarded sets the headers that tell browsers what not to do, on all answers.
func (s *server) guarded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "+
			"img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
		h.Set("X-Frame-Options", "DENY") // frame-ancestors, for old browsers
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "same-origin") // with no-referrer, a form's Origin would be null
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store") // nothing stays on a shared computer, not even behind the Back button
		if s.opts.secure() {
			h.Set("Strict-Transport-Security", "max-age=31536000")
		}
		next.ServeHTTP(w, r)
	})
}

// touch notes that the user did something, and returns the visitor's context.
func (s *server) touch(w http.ResponseWriter, r *http.Request) (visitor, context.Context, error) {
	v, ctx, err := s.identify(r)
	if err == nil {
		v.Seen = time.Now()
		err = s.cookies.write(w, v)
	}
	return v, ctx, err
}
