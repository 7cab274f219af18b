package page

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/cmd/fincode/internal/proxykey"
	"github.com/fincodeauth/fincodeauth/fincodetest"
)

// A stage is a FinCode, sessions, and the page of a proxy.
type stage struct {
	fincode  *fincodetest.Server
	store    *moodyStore
	sessions *fincodeauth.Sessions
	page     *Page
	server   *httptest.Server
	key      string // of the proxy
	url      string // of the page
}

// newStage logs in under the first of the keys, if there is one.
func newStage(t testing.TB, lifetime time.Duration, keys ...string) *stage {
	t.Helper()
	s := &stage{fincode: fincodetest.NewServer(fincodetest.Config{AccessLifetime: lifetime}), store: &moodyStore{Store: fincodeauth.NewMemoryStore()}}
	t.Cleanup(s.fincode.Close)
	observe := func(e fincodeauth.Event) { s.page.Observe(e) }
	sessions, err := fincodeauth.New(fincodeauth.Config{BaseURL: s.fincode.URL, Store: s.store, Observe: observe})
	if err != nil {
		t.Fatal(err)
	}
	s.sessions = sessions
	key, text := proxykey.New()
	s.key = text
	s.page = New(Config{Sessions: sessions, Keys: keys, Profile: "operations", BaseURL: s.fincode.URL, Key: key, Version: "test"})
	t.Cleanup(func() {
		s.store.set(nil)
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := sessions.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	mux := http.NewServeMux()
	mux.Handle(Root, s.page)
	s.server = httptest.NewServer(mux)
	t.Cleanup(s.server.Close)
	t.Cleanup(s.page.Close) // before the server is: it waits for the streams
	s.url = s.server.URL + Root
	if len(keys) > 0 {
		s.logIn(t, keys[0])
	}
	return s
}

// logIn begins a session at FinCode.
func (s *stage) logIn(t testing.TB, key string) {
	t.Helper()
	err := s.sessions.Login(t.Context(), key, fincodeauth.Credentials{Email: fincodetest.Email, Password: fincodetest.Password})
	if err != nil {
		t.Fatal(err)
	}
}

// use makes a request with the session, as the proxy does.
func (s *stage) use(key string) error {
	began := time.Now()
	resp, err := s.sessions.Client(key).Get(s.fincode.URL + "/whoami")
	if err != nil {
		s.page.ObserveRequest(0, time.Since(began))
		return err
	}
	defer resp.Body.Close()
	s.page.ObserveRequest(resp.StatusCode, time.Since(began))
	return nil
}

// useUntil uses the session until done reports true about what a use returned.
func (s *stage) useUntil(t *testing.T, key string, done func(error) bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !done(s.use(key)); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("not within 30 s")
		}
	}
}

// get asks for a path below the page with the key.
func (s *stage) get(t testing.TB, path string) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+s.key)
	resp, err := s.server.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return resp
}
