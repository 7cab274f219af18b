package proxy_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/fincodeauth/fincodeauth/cmd/fincode/internal/proxy"
	"github.com/fincodeauth/fincodeauth/fincodetest"
)

func TestPathsWithAndWithoutTheServiceRootAreTheSameCall(t *testing.T) {
	s := newStage(t, fincodetest.Config{}, nil)
	for path, want := range map[string]string{
		"/orders/7":                                  "/orders/7",
		fincodetest.Root + "/orders/7":               "/orders/7",
		fincodetest.Root + "suffix":                  fincodetest.Root + "suffix",
		"/people/ada%40example.com/a%2Bb%20c/%C3%A9": "/people/ada@example.com/a+b c/é",
	} {
		if got := s.echo(s.request(http.MethodGet, path, nil)).Path; got != want {
			t.Errorf("%s: FinCode gets %s, want %s", path, got, want)
		}
	}
	got := s.echo(s.request(http.MethodGet, "/orders?a=1;2&b=%zz&c=x%2Fy", nil)) // net/url drops what it cannot parse
	if !slices.Equal(got.Query["c"], []string{"x/y"}) {
		t.Errorf("FinCode gets the query %v", got.Query)
	}
}

func TestFinCodeGetsNothingThatIsForTheProxy(t *testing.T) {
	s := newStage(t, fincodetest.Config{}, nil)
	req := s.request(http.MethodPut, "/orders", strings.NewReader("{}"))
	for _, name := range []string{"X-Auth-Token", "X_auth_token", "Cookie", "Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Prefix",
		"X-Real-Ip", "Referer", "Proxy-Authorization", "X-Http-Method-Override", "X-Original-Url", "Keep-Alive", "X-Listed"} {
		req.Header.Set(name, "planted")
	}
	req.Header.Set("Connection", "X-Listed")
	req.Header.Set("Origin", s.url)
	req.Header.Set("Sec-Fetch-Site", "same-origin")
	req.Header.Set("Uuid", "mine")
	req.Header.Set("X-Client", "mine")
	got := s.echo(req)
	if text := fmt.Sprint(got.Headers); strings.Contains(text, "planted") || strings.Contains(text, s.key) || strings.Contains(text, "127.0.0.1") || got.Headers.Get("Sec-Fetch-Site") != "" {
		t.Errorf("FinCode gets %s", strings.ReplaceAll(text, s.key, "THE KEY"))
	}
	for name, want := range map[string]string{"Uuid": "mine", "X-Client": "mine", "Platform": "fincode", "Content-Type": "application/json"} {
		if got.Headers.Get(name) != want {
			t.Errorf("FinCode gets %s %q, want %q", name, got.Headers.Get(name), want)
		}
	}
	if got.Body != "{}" || !strings.HasPrefix(got.Headers.Get("Authorization"), "Bearer ") {
		t.Errorf("FinCode gets the body %q, want {} and a token", got.Body)
	}
}

func TestAnswersDoNotActForTheProxysOrigin(t *testing.T) {
	s := newStage(t, fincodetest.Config{}, nil)
	s.up.handle("/page", func(w http.ResponseWriter, _ *http.Request) {
		for _, name := range []string{"Set-Cookie", "Access-Control-Allow-Origin", "Access-Control-Allow-Credentials", "Alt-Svc", "Clear-Site-Data", proxy.ProblemHeader} {
			w.Header().Set(name, "planted")
		}
		w.Header().Set("Etag", `"7"`)
		w.Header().Set("Content-Type", "text/html")
		io.WriteString(w, "<script>alert(1)</script>")
	})
	got := s.get("/page")
	if text := fmt.Sprint(got.Header); strings.Contains(text, "planted") || !strings.Contains(text, "sandbox") || got.Header.Get("Etag") != `"7"` {
		t.Errorf("the client gets %s", text)
	}
}

func TestRedirectsBelowTheBaseURLLeadToTheProxy(t *testing.T) {
	s := newStage(t, fincodetest.Config{}, nil)
	origin := strings.TrimSuffix(s.up.url, fincodetest.Root)
	var location atomic.Value
	s.up.handle("/old/place", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", location.Load().(string))
		w.WriteHeader(http.StatusFound)
	})
	for given, want := range map[string]string{
		s.up.url + "/new?a=b":                 "/api/v6/services/new?a=b",
		fincodetest.Root + "/new":             "/api/v6/services/new",
		"next":                                "/api/v6/services/old/next",
		"//evil.example.com/x":                "http://evil.example.com/x",
		"https://elsewhere.example.com/x?y=z": "https://elsewhere.example.com/x?y=z",
		origin + "/portal":                    origin + "/portal",
		"/portal":                             origin + "/portal",
	} {
		location.Store(given)
		if got := s.get("/old/place"); got.StatusCode != http.StatusFound || got.Header.Get("Location") != want {
			t.Errorf("FinCode says %s, the client gets %s %s, want %s", given, got.Status, got.Header.Get("Location"), want)
		}
	}
}

func TestRequestIsSentAgainAfterARevocation(t *testing.T) {
	for _, test := range []struct {
		name    string
		size    int
		chunked bool
		want    int
	}{
		{"no body", 0, false, http.StatusOK},
		{"a body", 1000, false, http.StatusOK},
		{"a body of unknown length", 1000, true, http.StatusOK},
		{"the longest body", 4096, true, http.StatusOK},
		{"a body that is too long", 4097, false, http.StatusUnauthorized},
		{"a body of unknown length that is too long", 4097, true, http.StatusUnauthorized},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newStage(t, fincodetest.Config{}, func(c *proxy.Config) { c.MaxReplayBody = 4096 })
			s.age()
			s.up.RevokeAccessTokens()
			text := strings.Repeat("x", test.size)
			var body io.Reader = strings.NewReader(text)
			if test.chunked {
				body = struct{ io.Reader }{body}
			}
			got := s.do(s.request(http.MethodPost, "/orders", body))
			if got.StatusCode != test.want {
				t.Errorf("%s, want %d", got.Status, test.want)
			}
			if test.want == http.StatusOK && !strings.Contains(got.text, `"body":"`+text+`"`) {
				t.Errorf("FinCode gets %.200s, want the same body", got.text)
			}
			if got.StatusCode == http.StatusUnauthorized && got.Header.Get(proxy.ProblemHeader) != "" {
				t.Error("FinCode's 401 looks like the proxy's")
			}
			if n := s.up.Counts().Refreshes; n != 1 {
				t.Errorf("there were %d refreshes, want 1", n)
			}
		})
	}
}

func TestServerSentEventsArriveAtOnce(t *testing.T) {
	s := newStage(t, fincodetest.Config{}, nil)
	next := make(chan struct{})
	s.up.handle("/events", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for i := range 5 {
			fmt.Fprintf(w, "data: %d\n\n", i)
			http.NewResponseController(w).Flush()
			select { // until the client has the event
			case <-next:
			case <-r.Context().Done():
				return
			}
		}
	})
	resp, err := s.client.Do(s.request(http.MethodGet, "/events", nil))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for i := range 5 {
		if !lines.Scan() || lines.Text() != fmt.Sprint("data: ", i) || !lines.Scan() {
			t.Fatalf("got %q, %v, want event %d", lines.Text(), lines.Err(), i)
		}
		next <- struct{}{}
	}
}

func TestBothSidesOfADialogueStream(t *testing.T) {
	s := newStage(t, fincodetest.Config{}, nil)
	s.up.handle("/dialogue", func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).EnableFullDuplex()
		lines := bufio.NewScanner(r.Body)
		for lines.Scan() {
			fmt.Fprintln(w, "re: "+lines.Text())
			http.NewResponseController(w).Flush()
		}
	})
	reader, writer := io.Pipe()
	req := s.request(http.MethodPost, "/dialogue", reader)
	go fmt.Fprintln(writer, "line 0")
	resp, err := s.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for i := range 5 {
		if !lines.Scan() || lines.Text() != fmt.Sprint("re: line ", i) {
			t.Fatalf("got %q, %v, want the answer to line %d", lines.Text(), lines.Err(), i)
		}
		fmt.Fprintln(writer, "line", i+1)
	}
	writer.Close()
	io.Copy(io.Discard, resp.Body)
}

func TestTrailersOfAnswersPass(t *testing.T) {
	s := newStage(t, fincodetest.Config{}, nil)
	s.up.handle("/trailers", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Trailer", "X-Sum")
		io.WriteString(w, "body")
		w.Header().Set("X-Sum", "42")
		w.Header().Set(http.TrailerPrefix+"X-Late", "late")
	})
	if got := s.get("/trailers"); got.Trailer.Get("X-Sum") != "42" || got.Trailer.Get("X-Late") != "late" {
		t.Errorf("%s, trailer %v, want both trailers", got.Status, got.Trailer)
	}
}

func TestWebsocketsPass(t *testing.T) {
	s := newStage(t, fincodetest.Config{}, nil)
	s.up.handle("/live", echoMessages)
	s.age()
	s.up.RevokeAccessTokens() // the handshake is sent again
	conn := s.dial("/live")
	defer conn.CloseNow()
	wantMessage(t, conn)
	conn.Close(websocket.StatusNormalClosure, "")
	eventually(t, "the websocket is logged", func() bool {
		return strings.Contains(s.log.String(), "path=/live status=101")
	})
}

func echoMessages(w http.ResponseWriter, r *http.Request) {
	conn, err := websocket.Accept(w, r, nil)
	if err != nil {
		return // Accept has answered
	}
	defer conn.CloseNow()
	for {
		kind, message, err := conn.Read(context.Background())
		if err != nil || conn.Write(context.Background(), kind, message) != nil {
			return
		}
	}
}

func (s *stage) dial(path string) *websocket.Conn {
	s.Helper()
	header := http.Header{"Authorization": {"Bearer " + s.key}, "Origin": {s.url}}
	conn, _, err := websocket.Dial(s.Context(), "ws"+s.url[len("http"):]+path, &websocket.DialOptions{HTTPClient: s.client, HTTPHeader: header})
	if err != nil {
		s.Fatal(err)
	}
	return conn
}

func wantMessage(t *testing.T, conn *websocket.Conn) {
	t.Helper()
	if err := conn.Write(t.Context(), websocket.MessageText, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, got, err := conn.Read(t.Context()); err != nil || string(got) != "hello" {
		t.Errorf("got %q, %v, want hello", got, err)
	}
}

func TestLargeBodiesGoEitherWayInConstantMemory(t *testing.T) {
	const (
		large = 64 << 20
		bound = 16 << 20 // of client, proxy and FinCode together
	)
	s := newStage(t, fincodetest.Config{}, nil)
	s.up.handle("/files", func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			n, _ := io.Copy(io.Discard, r.Body)
			io.WriteString(w, strconv.FormatInt(n, 10))
			return
		}
		io.Copy(w, &zeros{large})
	})
	for name, run := range map[string]func() int64{
		"up":                 func() int64 { return s.upload(large, true) },
		"up, unknown length": func() int64 { return s.upload(large, false) },
		"down": func() int64 {
			resp, err := s.client.Do(s.request(http.MethodGet, "/files", nil))
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			n, _ := io.Copy(io.Discard, resp.Body)
			return n
		},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		n := run()
		runtime.ReadMemStats(&after)
		allocated := after.TotalAlloc - before.TotalAlloc
		t.Logf("%s: %.1f MB were allocated", name, float64(allocated)/(1<<20))
		if n != large || allocated > bound {
			t.Errorf("%s: %d bytes arrived, and %d MB were allocated, want %d and at most %d MB", name, n, allocated>>20, large, bound>>20)
		}
	}
}

func (s *stage) upload(n int64, known bool) int64 {
	req := s.request(http.MethodPost, "/files", &zeros{n})
	if known {
		req.ContentLength = n
	}
	arrived, _ := strconv.ParseInt(s.do(req).text, 10, 64)
	return arrived
}

// A zeros is a body of n bytes that is in no memory.
type zeros struct{ n int64 }

func (z *zeros) Read(p []byte) (int, error) {
	if z.n == 0 {
		return 0, io.EOF
	}
	n := min(int64(len(p)), z.n)
	clear(p[:n])
	z.n -= n
	return int(n), nil
}

func TestErrorsSayWhatTheClientCanDo(t *testing.T) {
	answer := func(status int) func(*stage) {
		return func(s *stage) {
			s.age()
			s.up.RevokeAccessTokens()
			s.up.Inject(fincodetest.Refresh, -1, fincodetest.Fault{Kind: fincodetest.ErrorStatus, Status: status, RetryAfter: "7"})
		}
	}
	for name, test := range map[string]struct {
		arrange func(*stage)
		status  int
		code    string
		retry   string
	}{
		"ended":       {answer(http.StatusUnauthorized), http.StatusUnauthorized, "LOGIN_REQUIRED", ""},
		"breach":      {answer(http.StatusForbidden), http.StatusUnauthorized, "POSSIBLE_BREACH", ""},
		"logged out":  {func(s *stage) { s.sessions.Logout(s.Context(), session) }, http.StatusUnauthorized, "LOGIN_REQUIRED", ""},
		"not now":     {answer(http.StatusServiceUnavailable), http.StatusBadGateway, "FINCODE_REFRESH_FAILED", "7"},
		"hang-up":     {func(s *stage) { s.up.Inject(fincodetest.API, -1, fincodetest.Fault{Kind: fincodetest.HangUp}) }, http.StatusBadGateway, "FINCODE_UNREACHABLE", ""},
		"closed":      {func(s *stage) { s.sessions.Close(s.Context()) }, http.StatusServiceUnavailable, "PROXY_STOPPING", "5"},
		"wrong order": {func(s *stage) { s.key = "another key" }, http.StatusUnauthorized, "PROXY_KEY_REQUIRED", ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t, fincodetest.Config{}, nil)
			test.arrange(s)
			got := s.do(s.request(http.MethodPost, "/orders", strings.NewReader("{}")))
			if code := got.code(t); got.StatusCode != test.status || code != test.code || got.Header.Get(proxy.ProblemHeader) != test.code || got.Header.Get("Retry-After") != test.retry {
				t.Errorf("%s, code %s, Retry-After %q, want %d %s %q", got.Status, code, got.Header.Get("Retry-After"), test.status, test.code, test.retry)
			}
			if (got.StatusCode == http.StatusUnauthorized) != (got.Header.Get("WWW-Authenticate") != "") {
				t.Error("a 401 has no WWW-Authenticate, or another answer has one")
			}
		})
	}
}

func TestClientThatLeavesIsNoAlarm(t *testing.T) {
	var observed atomic.Int64
	s := newStage(t, fincodetest.Config{}, func(c *proxy.Config) {
		c.Observe = func(status int, _ time.Duration) { observed.Store(int64(status)) }
	})
	arrived := make(chan struct{})
	s.up.handle("/slow", func(_ http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-r.Context().Done()
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-arrived; cancel() }()
	if _, err := s.client.Do(s.request(http.MethodGet, "/slow", nil).WithContext(ctx)); err == nil {
		t.Fatal("there is an answer")
	}
	eventually(t, "the request is logged with 499", func() bool { return strings.Contains(s.log.String(), "status=499") })
	if observed.Load() != 499 || strings.Contains(s.log.String(), "level=WARN") {
		t.Errorf("observed %d, want 499; the log: %s", observed.Load(), s.log)
	}
}
