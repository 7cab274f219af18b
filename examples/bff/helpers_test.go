package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/fincodetest"
)

const (
	email    = fincodetest.Email
	password = fincodetest.Password
	site     = "https://bff.example.com"
	lifetime = 10 * time.Minute // of an access token
)

// A bench is a server without sockets, in a bubble where time passes at once.
type bench struct {
	*testing.T
	fincode  *fincodetest.FinCode
	seen     *tokens
	store    *weakStore
	sessions *fincodeauth.Sessions
	health   *health
	metrics  *metrics
	opts     options
	handler  http.Handler
	log      *lockedBuffer
	logger   *slog.Logger
}

// inBubble runs test with a bench. change may change the options.
func inBubble(t *testing.T, change func(*options), test func(*bench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, change)
		defer func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			b.store.set(nil)
			if err := b.sessions.Close(ctx); err != nil {
				t.Error(err)
			}
		}()
		test(b)
	})
}

func newBench(t *testing.T, change func(*options)) *bench {
	t.Helper()
	opts, err := parseOptions([]string{"-public-url", site, "-url", "https://fincode.example.com" + fincodetest.Root, "-dir", t.TempDir()}, noEnv)
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(&opts)
	}
	b := &bench{T: t, opts: opts, log: &lockedBuffer{}}
	b.fincode = fincodetest.New(fincodetest.Config{AccessLifetime: lifetime})
	b.seen = &tokens{next: b.fincode}
	b.store = &weakStore{Store: fincodeauth.NewMemoryStore()}
	logger := slog.New(slog.NewTextHandler(b.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	b.health = newHealth(b.store, logger)
	b.health.serving.Store(true)
	b.logger = logger
	b.sessions, b.metrics, b.handler = b.replica()
	return b
}

// replica makes what a process has on the store.
func (b *bench) replica() (*fincodeauth.Sessions, *metrics, http.Handler) {
	b.Helper()
	ring := keyring{bytes.Repeat([]byte{1}, keySize)}
	encrypted, err := fincodeauth.Encrypt(b.store, ring.atRest()...)
	if err != nil {
		b.Fatal(err)
	}
	metrics, err := newMetrics(b.opts.baseURL)
	if err != nil {
		b.Fatal(err)
	}
	sessions, err := openSessions(b.opts, encrypted, metrics, b.seen, b.logger)
	if err != nil {
		b.Fatal(err)
	}
	return sessions, metrics, metrics.measure(newServer(b.opts, sessions, b.store, ring, b.logger).handler())
}

func noEnv(string) string { return "" }

// steal presents the session's refresh token, as a thief would.
func (b *bench) steal() {
	b.Helper()
	if err := steal(b.sessions, b.opts.baseURL, b.seen); err != nil {
		b.Fatal(err)
	}
}

func steal(sessions *fincodeauth.Sessions, baseURL string, fincode http.RoundTripper) error {
	tok, err := sessions.TokenSource(userKey(email)).Token()
	if err != nil {
		return err
	}
	body, _ := json.Marshal(map[string]string{"refresh_token": tok.RefreshToken})
	req := httptest.NewRequest(http.MethodPut, baseURL+"/securitymanagement/refresh-token", bytes.NewReader(body))
	req.Header = fincodeauth.DefaultHeader()
	resp, err := fincode.RoundTrip(req)
	return expect("the thief's refresh", resp, err, http.StatusOK)
}

// endAtFinCode makes FinCode refuse the session's next refresh.
func (b *bench) endAtFinCode() {
	b.fincode.Inject(fincodetest.Refresh, 1, fincodetest.Fault{Kind: fincodetest.ErrorStatus, Status: http.StatusUnauthorized})
}

// A browser has cookies, and does not follow redirects.
type browser struct {
	*bench
	client *http.Client
	jar    http.CookieJar
}

func (b *bench) newBrowser() *browser {
	b.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		b.Fatal(err)
	}
	return &browser{bench: b, jar: jar, client: &http.Client{
		Transport:     inMemory{b.handler},
		Jar:           jar,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// loggedIn returns a browser whose user has logged in.
func (b *bench) loggedIn() *browser {
	b.Helper()
	br := b.newBrowser()
	br.login(password).want(http.StatusSeeOther)
	return br
}

func (br *browser) login(password string) *reply {
	return br.post("/login", url.Values{"email": {email}, "password": {password}})
}

func (br *browser) get(path string) *reply {
	br.Helper()
	return br.do(httptest.NewRequest(http.MethodGet, site+path, nil))
}

func (br *browser) post(path string, form url.Values) *reply {
	br.Helper()
	req := httptest.NewRequest(http.MethodPost, site+path, strings.NewReader(form.Encode()))
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Origin", site)
	req.Header.Set("Sec-Fetch-Site", "same-origin")
	return br.do(req)
}

func (br *browser) do(req *http.Request) *reply {
	br.Helper()
	req.RequestURI = ""
	resp, err := br.client.Do(req)
	if err != nil {
		br.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		br.Fatal(err)
	}
	return &reply{br.T, req.Method + " " + req.URL.Path, resp, string(body)}
}

// cookies returns what the browser would send.
func (br *browser) cookies() []*http.Cookie {
	u, _ := url.Parse(site)
	return br.jar.Cookies(u)
}

// copyFrom gives the browser the cookies of another, as a thief would.
func (br *browser) copyFrom(other *browser) {
	u, _ := url.Parse(site)
	br.jar.SetCookies(u, other.cookies())
}

// A reply is what a browser got.
type reply struct {
	t    *testing.T
	what string
	*http.Response
	text string
}

// want fails the test unless the reply has the status and all texts.
func (r *reply) want(status int, texts ...string) *reply {
	r.t.Helper()
	if r.StatusCode != status {
		r.t.Fatalf("%s: %d, want %d:\n%s", r.what, r.StatusCode, status, r.text)
	}
	for _, text := range texts {
		if !strings.Contains(r.text, text) {
			r.t.Errorf("%s: the answer does not have %q:\n%s", r.what, text, r.text)
		}
	}
	return r
}

// wantHeader fails the test unless the reply has the header field.
func (r *reply) wantHeader(name, value string) *reply {
	r.t.Helper()
	if got := r.Header.Get(name); got != value {
		r.t.Errorf("%s: %s is %q, want %q", r.what, name, got, value)
	}
	return r
}

// inMemory sends requests to a handler.
type inMemory struct{ handler http.Handler }

func (m inMemory) RoundTrip(req *http.Request) (*http.Response, error) {
	in := req.Clone(req.Context())
	in.Host, in.RequestURI = req.URL.Host, req.URL.RequestURI()
	in.URL = &url.URL{Path: req.URL.Path, RawPath: req.URL.RawPath, RawQuery: req.URL.RawQuery}
	if in.Body == nil {
		in.Body = http.NoBody
	}
	rec := httptest.NewRecorder()
	m.handler.ServeHTTP(rec, in)
	return rec.Result(), nil
}

// tokens remembers the tokens that FinCode hands out.
type tokens struct {
	next http.RoundTripper
	mu   sync.Mutex
	all  []string // guarded by mu
}

func (s *tokens) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := s.next.RoundTrip(req)
	if err != nil || !strings.Contains(req.URL.Path, "/securitymanagement/") {
		return resp, err
	}
	body, err := io.ReadAll(resp.Body)
	resp.Body = io.NopCloser(bytes.NewReader(body))
	var pair map[string]any
	if json.Unmarshal(body, &pair) == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, name := range []string{"access_token", "refresh_token"} {
			if token, ok := pair[name].(string); ok {
				s.all = append(s.all, token)
			}
		}
	}
	return resp, err
}

// A weakStore fails while an error is set, and waits before each Save while a gate
// is set.
type weakStore struct {
	fincodeauth.Store
	mu   sync.Mutex
	err  error         // guarded by mu
	gate chan struct{} // guarded by mu
}

var errStoreDown = errors.New("the store is down")

func (s *weakStore) set(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

func (s *weakStore) close(gate chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gate = gate
}

func (s *weakStore) state() (chan struct{}, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.gate, s.err
}

func (s *weakStore) Load(ctx context.Context, key string) (*fincodeauth.Record, error) {
	if _, err := s.state(); err != nil {
		return nil, err
	}
	return s.Store.Load(ctx, key)
}

func (s *weakStore) Save(ctx context.Context, key string, rec *fincodeauth.Record, prev string) error {
	gate, err := s.state()
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err != nil {
		return err
	}
	return s.Store.Save(ctx, key, rec, prev)
}

// A lockedBuffer is a bytes.Buffer for many goroutines.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer // guarded by mu
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
