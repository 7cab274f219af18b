package proxy_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/oauth2"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/cmd/fincode/internal/proxy"
	"github.com/fincodeauth/fincodeauth/cmd/fincode/internal/proxykey"
	"github.com/fincodeauth/fincodeauth/fincodetest"
)

// Some tests start this binary again, as a proxy of its own.
func TestMain(m *testing.M) {
	if order := os.Getenv(childVariable); order != "" {
		os.Exit(obey(order))
	}
	goleak.VerifyTestMain(m)
}

const session = "ada"

// An upstream is a FinCode on a socket with endpoints of a test. Each call needs a valid
// access token.
type upstream struct {
	*fincodetest.FinCode
	mux *http.ServeMux // what is not in it is FinCode's own
	url string         // the base URL

	mu      sync.Mutex
	secrets []string // refresh tokens that FinCode has seen
}

func newUpstream(t *testing.T, cfg fincodetest.Config) *upstream {
	t.Helper()
	up := &upstream{FinCode: fincodetest.New(cfg), mux: http.NewServeMux()}
	server := httptest.NewServer(http.HandlerFunc(up.serve))
	t.Cleanup(server.Close)
	up.url = server.URL + fincodetest.Root
	return up
}

func (up *upstream) serve(w http.ResponseWriter, r *http.Request) {
	if _, pattern := up.mux.Handler(r); pattern == "" {
		up.note(r)
		up.FinCode.ServeHTTP(w, r)
		return
	}
	probe := httptest.NewRequestWithContext(r.Context(), http.MethodGet, fincodetest.Root+"/whoami", nil)
	probe.Header = r.Header.Clone()
	answer := httptest.NewRecorder()
	up.FinCode.ServeHTTP(answer, probe)
	if answer.Code != http.StatusOK {
		w.WriteHeader(answer.Code)
		return
	}
	up.mux.ServeHTTP(w, r)
}

// note remembers the refresh token of a call.
func (up *upstream) note(r *http.Request) {
	if !strings.Contains(r.URL.Path, "securitymanagement") {
		return
	}
	body, _ := io.ReadAll(r.Body)
	r.Body = io.NopCloser(bytes.NewReader(body))
	var fields struct {
		RefreshToken string `json:"refresh_token"`
	}
	if json.Unmarshal(body, &fields) == nil && fields.RefreshToken != "" {
		up.mu.Lock()
		defer up.mu.Unlock()
		up.secrets = append(up.secrets, fields.RefreshToken)
	}
}

// handle adds an endpoint. pattern is a path below the base URL.
func (up *upstream) handle(pattern string, handler http.HandlerFunc) {
	up.mux.HandleFunc(fincodetest.Root+pattern, handler)
}

// A stage is a proxy that serves, before an upstream.
type stage struct {
	*testing.T
	up       *upstream
	sessions *fincodeauth.Sessions
	proxy    *proxy.Proxy
	key      string
	url      string
	base     *http.Transport // to FinCode
	log      *buffer
	client   *http.Client // it has no key
	signals  chan os.Signal
	stop     context.CancelFunc
	served   chan error // what Serve returns
}

// newStage serves a proxy. change may change its Config; nil: it does not.
func newStage(t *testing.T, cfg fincodetest.Config, change func(*proxy.Config)) *stage {
	t.Helper()
	s := newUnserved(t, cfg, change)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.serve(listener)
	return s
}

func newUnserved(t *testing.T, cfg fincodetest.Config, change func(*proxy.Config)) *stage {
	t.Helper()
	s := &stage{T: t, up: newUpstream(t, cfg), log: &buffer{}, signals: make(chan os.Signal, 2), served: make(chan error, 1)}
	logger := s.logger()
	metrics, err := proxy.NewMetrics(s.up.url)
	if err != nil {
		t.Fatal(err)
	}
	s.base = proxy.NewBase()
	t.Cleanup(s.base.CloseIdleConnections)
	s.sessions, err = fincodeauth.New(fincodeauth.Config{
		BaseURL: s.up.url,
		Base:    metrics.Base(s.base),
		Observe: func(e fincodeauth.Event) { metrics.Observe(e); fincodeauth.LogEvents(logger)(e) },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.sessions.Close(context.Background()) })
	if _, err := metrics.Watch(s.sessions); err != nil {
		t.Fatal(err)
	}
	credentials := fincodeauth.Credentials{Email: fincodetest.Email, Password: fincodetest.Password}
	if err := s.sessions.Login(t.Context(), session, credentials); err != nil {
		t.Fatal(err)
	}
	config := proxy.Config{Sessions: s.sessions, Session: session, BaseURL: s.up.url, MaxReplayBody: proxy.DefaultMaxReplayBody, Metrics: metrics, Logger: logger}
	config.Key, s.key = proxykey.New()
	if change != nil {
		change(&config)
	}
	if s.proxy, err = proxy.New(config); err != nil {
		t.Fatal(err)
	}
	s.client = &http.Client{
		Transport:     &http.Transport{MaxIdleConnsPerHost: 10},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	t.Cleanup(s.client.CloseIdleConnections)
	return s
}

// serve serves the proxy on listeners until the test ends. The first one is that of url.
func (s *stage) serve(listeners ...net.Listener) {
	s.url = "http://" + listeners[0].Addr().String()
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.served <- proxy.ServeUntil(ctx, s.proxy, listeners, s.signals)
	}()
	s.Cleanup(func() { stop(); <-done })
}

// ended returns what Serve returns.
func (s *stage) ended() error {
	s.Helper()
	select {
	case err := <-s.served:
		return err
	case <-time.After(20 * time.Second):
		s.Fatal("Serve does not return")
		return nil
	}
}

// age makes the session's token look half an hour old, so that a 401 is taken for the
// end of the token.
func (s *stage) age() {
	s.Helper()
	tok, err := s.sessions.TokenSource(session).Token()
	if err != nil {
		s.Fatal(err)
	}
	old := &oauth2.Token{AccessToken: tok.AccessToken, RefreshToken: tok.RefreshToken, ExpiresIn: 3600, Expiry: time.Now().Add(30 * time.Minute)}
	if err := s.sessions.Adopt(s.Context(), session, old); err != nil {
		s.Fatal(err)
	}
}

// A reply is an answer that was read to its end.
type reply struct {
	*http.Response
	text string
}

// request returns a request with the key.
func (s *stage) request(method, path string, body io.Reader) *http.Request {
	s.Helper()
	req, err := http.NewRequestWithContext(s.Context(), method, s.url+path, body)
	if err != nil {
		s.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+s.key)
	return req
}

func (s *stage) do(req *http.Request) reply {
	s.Helper()
	resp, err := s.client.Do(req)
	if err != nil {
		s.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		s.Fatal(err)
	}
	return reply{resp, string(text)}
}

func (s *stage) get(path string) reply {
	s.Helper()
	return s.do(s.request(http.MethodGet, path, nil))
}

// echo returns what FinCode has got: a request to a path that FinCode does not know.
func (s *stage) echo(req *http.Request) (got struct {
	Method, Path, Body string
	Query              map[string][]string
	Headers            http.Header
}) {
	s.Helper()
	answer := s.do(req)
	envelope := struct{ Data any }{&got}
	if err := json.Unmarshal([]byte(answer.text), &envelope); err != nil || answer.StatusCode != http.StatusOK {
		s.Fatalf("%s %s, error %v", answer.Status, answer.text, err)
	}
	return got
}

// code returns the code of an error in FinCode's form.
func (r reply) code(t *testing.T) string {
	t.Helper()
	var envelope struct {
		Success *bool
		Error   struct{ Code, Message string }
	}
	if err := json.Unmarshal([]byte(r.text), &envelope); err != nil || envelope.Success == nil || *envelope.Success || envelope.Error.Message == "" {
		t.Errorf("%s %q is no error in FinCode's form: %v", r.Status, r.text, err)
	}
	return envelope.Error.Code
}

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it does not happen: " + what)
		}
	}
}

// A buffer is a bytes.Buffer for several goroutines.
type buffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// logger logs to the stage's buffer.
func (s *stage) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// loginAgain begins the session anew.
func (s *stage) loginAgain() {
	s.Helper()
	if err := s.sessions.Login(s.Context(), session, fincodeauth.Credentials{Email: fincodetest.Email, Password: fincodetest.Password}); err != nil {
		s.Fatal(err)
	}
}
