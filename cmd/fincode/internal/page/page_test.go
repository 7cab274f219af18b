package page

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/cmd/fincode/internal/proxykey"
)

func status(t *testing.T, s *stage) Snapshot {
	t.Helper()
	var got Snapshot
	if err := json.NewDecoder(s.get(t, "status.json").Body).Decode(&got); err != nil {
		t.Fatal(err)
	}
	return got
}

func TestStatusHasSessionsEventsAndRequests(t *testing.T) {
	s := newStage(t, time.Hour, "operations", "nobody")
	if err := s.use("operations"); err != nil {
		t.Fatal(err)
	}
	got := status(t, s)
	if len(got.Sessions) != 2 || got.Sessions[0].State != Ready || got.Sessions[1].State != Login {
		t.Errorf("got the sessions %+v, want one that is ready, and one that needs a login", got.Sessions)
	}
	if len(got.Events) != 1 || got.Events[0].Type != "LoggedIn" {
		t.Errorf("got the events %+v, want one login", got.Events)
	}
	if len(got.Traffic) != 1 || got.Traffic[0].Total != 1 {
		t.Errorf("got the requests %+v, want one", got.Traffic)
	}
}

func TestStatusHasNoToken(t *testing.T) {
	s := newStage(t, time.Hour, "operations")
	rec, err := s.store.Load(t.Context(), "operations")
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(s.get(t, "status.json").Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, token := range []string{rec.Token.AccessToken, rec.Token.RefreshToken, s.key} {
		if strings.Contains(string(body), token) {
			t.Error("status.json has a secret")
		}
	}
}

func TestOneLookAtTheStoreServesAllBrowsers(t *testing.T) {
	s := newStage(t, time.Hour, "operations")
	status(t, s)
	before, began := s.store.loads.Load(), time.Now()
	for range 50 {
		status(t, s)
	}
	most := 1 + int64(time.Since(began)/pollAfterEvent)
	if n := s.store.loads.Load() - before; n > most {
		t.Errorf("50 times status.json: %d loads, want at most %d", n, most)
	}
	if got := s.fincode.Counts(); got.Refreshes != 0 || got.Logins != 1 {
		t.Errorf("FinCode saw %+v, want the login alone", got)
	}
}

func TestPageNeedsTheKey(t *testing.T) {
	s := newStage(t, time.Hour)
	for _, path := range []string{"", "status.json", "events", "?ended"} {
		for _, header := range []string{"", "Bearer wrong", "Basic " + s.key, "Bearer"} {
			r := httptest.NewRequest(http.MethodGet, Root+path, nil)
			r.Header.Set("Authorization", header)
			r.AddCookie(&http.Cookie{Name: cookieName(r), Value: "wrong"})
			w := httptest.NewRecorder()
			s.page.ServeHTTP(w, r)
			if w.Code != http.StatusUnauthorized || strings.Contains(w.Body.String(), "sessions-title") {
				t.Errorf("%q with %q: got %d", path, header, w.Code)
			}
		}
	}
}

func TestEmptyCookieOpensNothing(t *testing.T) {
	s := newStage(t, time.Hour)
	r := httptest.NewRequest(http.MethodGet, Root+"status.json", nil)
	r.Header.Set("Cookie", cookieName(r)+"=")
	w := httptest.NewRecorder()
	s.page.ServeHTTP(w, r)
	if w.Code != http.StatusUnauthorized {
		t.Errorf("got %d, want 401", w.Code)
	}
}

func TestAnswersForbidEverythingElse(t *testing.T) {
	s := newStage(t, time.Hour)
	for _, path := range []string{"", "status.json", "nothing"} {
		h := s.get(t, path).Header
		for name, want := range map[string]string{
			"Cache-Control":           "no-store",
			"X-Content-Type-Options":  "nosniff",
			"Referrer-Policy":         "no-referrer",
			"Content-Security-Policy": "default-src 'none'",
		} {
			if !strings.HasPrefix(h.Get(name), want) {
				t.Errorf("%q: %s is %q, want %q", path, name, h.Get(name), want)
			}
		}
		if policy := h.Get("Content-Security-Policy"); strings.Contains(policy, "unsafe") || !strings.Contains(policy, "frame-ancestors 'none'") {
			t.Errorf("%q: the policy is %q", path, policy)
		}
	}
}

// enter posts a key as the form does.
func enter(p *Page, key string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, "http://127.0.0.1:8080/-/login", strings.NewReader(url.Values{"key": {key}}.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	w := httptest.NewRecorder()
	p.ServeHTTP(w, r)
	return w
}

// look asks for the page with the cookies of an answer.
func look(p *Page, cookies []*http.Cookie) int {
	r := httptest.NewRequest(http.MethodGet, "http://127.0.0.1:8080/-/", nil)
	for _, c := range cookies {
		r.AddCookie(c)
	}
	w := httptest.NewRecorder()
	p.ServeHTTP(w, r)
	return w.Code
}

func TestCookieOpensThePageForTwelveHours(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key, text := proxykey.New()
		p := New(Config{Key: key})
		defer p.Close()
		w := enter(p, " "+text+"\n")
		cookies := w.Result().Cookies()
		if w.Code != http.StatusSeeOther || len(cookies) != 1 {
			t.Fatalf("got %d and %d cookies, want 303 and one", w.Code, len(cookies))
		}
		c := cookies[0]
		if !c.HttpOnly || c.SameSite != http.SameSiteStrictMode || c.Path != "/-/" || c.Name != "fincode-page-8080" {
			t.Errorf("the cookie %s is open to others", c.Name)
		}
		if strings.Contains(c.Value, text) {
			t.Error("the cookie has the key")
		}
		if code := look(p, cookies); code != http.StatusOK {
			t.Errorf("at once: got %d, want 200", code)
		}
		time.Sleep(loginLife)
		if code := look(p, cookies); code != http.StatusUnauthorized {
			t.Errorf("after 12 hours: got %d, want 401", code)
		}
	})
}

func TestLogoutEndsTheLoginAtTheProxy(t *testing.T) {
	key, text := proxykey.New()
	p := New(Config{Key: key})
	defer p.Close()
	cookies := enter(p, text).Result().Cookies()
	r := httptest.NewRequest(http.MethodPost, "http://127.0.0.1:8080/-/logout", nil)
	r.AddCookie(cookies[0])
	w := httptest.NewRecorder()
	p.ServeHTTP(w, r)
	if left := w.Result().Cookies(); len(left) != 1 || left[0].MaxAge >= 0 {
		t.Errorf("the browser keeps its cookie: %v", left)
	}
	if code := look(p, cookies); code != http.StatusUnauthorized {
		t.Errorf("got %d, want 401", code)
	}
}

func TestOldestLoginMakesRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key, text := proxykey.New()
		p := New(Config{Key: key})
		defer p.Close()
		first := enter(p, text).Result().Cookies()
		for range maxLogins {
			time.Sleep(time.Second)
			enter(p, text)
		}
		if n := len(p.door.logins); n != maxLogins {
			t.Errorf("%d logins are kept, want %d", n, maxLogins)
		}
		if code := look(p, first); code != http.StatusUnauthorized {
			t.Errorf("the first login: got %d, want 401", code)
		}
	})
}

func TestWrongKeysAreSlowAndTheRightOneIsNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key, text := proxykey.New()
		p := New(Config{Key: key})
		defer p.Close()
		began := time.Now()
		codes := make(chan int, 100)
		for range cap(codes) {
			go func() { codes <- enter(p, "wrong").Code }()
		}
		synctest.Wait()
		if code := enter(p, text).Code; code != http.StatusSeeOther || time.Since(began) != 0 {
			t.Errorf("the right key: got %d after %v, want 303 at once", code, time.Since(began))
		}
		count := map[int]int{}
		for range cap(codes) {
			count[<-codes]++
		}
		if count[http.StatusUnauthorized] != wrongAtOnce || count[http.StatusTooManyRequests] != cap(codes)-wrongAtOnce {
			t.Errorf("got %v, want %d times 401, and 429 else", count, wrongAtOnce)
		}
		if took := time.Since(began); took != wrongDelay {
			t.Errorf("a wrong key was answered after %v, want %v", took, wrongDelay)
		}
	})
}

func TestHugeLoginIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := New(Config{})
		defer p.Close()
		if code := enter(p, strings.Repeat("x", 1<<20)).Code; code != http.StatusUnauthorized {
			t.Errorf("got %d, want 401", code)
		}
	})
}

func TestEventsAreBounded(t *testing.T) {
	p := New(Config{Keys: []string{"a"}, Earlier: []fincodeauth.Event{{Type: fincodeauth.LoggedIn, Key: "a"}}})
	defer p.Close()
	for i := range 3 * keptEvents {
		p.Observe(fincodeauth.Event{Type: fincodeauth.RefreshFailed, Key: fmt.Sprint("key", i), Err: errors.New("x")})
	}
	var c cursor
	_, events := p.board.since(&c)
	if len(events) != keptEvents || events[0].Number != 2*keptEvents+2 || events[keptEvents-1].Number != 3*keptEvents+1 {
		t.Errorf("got %d events, from %d to %d", len(events), events[0].Number, events[len(events)-1].Number)
	}
	if len(p.board.notes) != 1 {
		t.Errorf("there are notes about %d sessions, want 1", len(p.board.notes))
	}
	if _, again := p.board.since(&c); len(again) != 0 {
		t.Errorf("the browser gets %d events twice", len(again))
	}
}

// read returns the next message of a stream.
func read(t *testing.T, lines *bufio.Scanner) Snapshot {
	t.Helper()
	for lines.Scan() {
		if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
			var s Snapshot
			if err := json.Unmarshal([]byte(data), &s); err != nil {
				t.Fatal(err)
			}
			return s
		}
	}
	t.Fatal("the stream has ended")
	return Snapshot{}
}

func TestStreamSendsEverythingAndThenChanges(t *testing.T) {
	s := newStage(t, time.Hour, "operations")
	lines := bufio.NewScanner(s.get(t, "events").Body)
	first := read(t, lines)
	if first.Proxy == nil || len(first.Sessions) != 1 || len(first.Events) != 1 {
		t.Fatalf("first: got %+v, want everything", first)
	}
	s.page.Observe(fincodeauth.Event{Type: fincodeauth.Passed, Err: errors.New("x")})
	for {
		if next := read(t, lines); len(next.Events) > 0 {
			if next.Proxy != nil || len(next.Events) != 1 || next.Events[0].Type != "Passed" {
				t.Errorf("then: got %+v, want the new event alone", next)
			}
			return
		}
	}
}

func TestQuietStreamShowsThatItLives(t *testing.T) {
	s := newStage(t, time.Hour)
	lines := bufio.NewScanner(s.get(t, "events").Body)
	first := read(t, lines)
	if next := read(t, lines); next.Now.Sub(first.Now) > 2*heartbeat {
		t.Errorf("the stream was quiet for %v", next.Now.Sub(first.Now))
	}
}

func TestCloseEndsStreams(t *testing.T) {
	s := newStage(t, time.Hour, "operations")
	lines := bufio.NewScanner(s.get(t, "events").Body)
	read(t, lines)
	s.page.Close()
	for lines.Scan() {
	}
	if err := lines.Err(); err != nil {
		t.Errorf("the stream did not end in order: %v", err)
	}
	if got := status(t, s); len(got.Sessions) != 1 {
		t.Errorf("after Close: got %+v, want what was known", got)
	}
}

func TestStreamEndsWithTheLogin(t *testing.T) {
	s := newStage(t, time.Hour)
	cookie := s.page.door.enter(httptest.NewRequest(http.MethodGet, s.url, nil))
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url+"events", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.AddCookie(cookie)
	resp, err := s.server.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	read(t, lines)
	s.page.door.leave(r)
	for lines.Scan() {
	}
	if err := lines.Err(); err != nil {
		t.Error(err)
	}
}

func TestStreamsAreLimited(t *testing.T) {
	s := newStage(t, time.Hour)
	for range maxStreams {
		read(t, bufio.NewScanner(s.get(t, "events").Body))
	}
	if code := s.get(t, "events").StatusCode; code != http.StatusServiceUnavailable {
		t.Errorf("got %d, want 503", code)
	}
}

func TestHeadOfTheStreamEnds(t *testing.T) {
	key, text := proxykey.New()
	p := New(Config{Key: key})
	defer p.Close()
	r := httptest.NewRequest(http.MethodHead, Root+"events", nil)
	r.Header.Set("Authorization", "Bearer "+text)
	w := httptest.NewRecorder()
	p.ServeHTTP(w, r) // returns
	if got := w.Header().Get("Content-Type"); got != "text/event-stream" {
		t.Errorf("got the type %q", got)
	}
}

// A stuckWriter is a browser that does not read.
type stuckWriter struct{ http.ResponseWriter }

func (w stuckWriter) Write([]byte) (int, error)          { return 0, http.ErrHandlerTimeout }
func (w stuckWriter) SetWriteDeadline(t time.Time) error { return nil }

func TestBrowserThatDoesNotReadIsDropped(t *testing.T) {
	key, text := proxykey.New()
	p := New(Config{Key: key})
	defer p.Close()
	r := httptest.NewRequest(http.MethodGet, Root+"events", nil)
	r.Header.Set("Authorization", "Bearer "+text)
	p.ServeHTTP(stuckWriter{httptest.NewRecorder()}, r) // returns
	if n := len(p.streams); n != 0 {
		t.Errorf("%d streams are left, want 0", n)
	}
}

func TestHundredsOfSessionsAreShown(t *testing.T) {
	keys := make([]string, 300)
	for i := range keys {
		keys[i] = fmt.Sprintf("user-%03d", i)
	}
	s := newStage(t, time.Hour, keys...)
	if got := status(t, s); len(got.Sessions) != len(keys) {
		t.Errorf("got %d sessions, want %d", len(got.Sessions), len(keys))
	}
}
