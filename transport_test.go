package fincodeauth_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jarcoal/httpmock"
	"golang.org/x/oauth2"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/fincodetest"
)

// In these tests httpmock is the API, and fincodetest answers the login and the
// refreshes.

// fixedTransport returns a Transport that sends the fixed token t-1 to mock.
func fixedTransport(mock *httpmock.MockTransport) *fincodeauth.Transport {
	return &fincodeauth.Transport{
		Source:  oauth2.StaticTokenSource(&oauth2.Token{AccessToken: "t-1"}),
		BaseURL: api,
		Base:    mock,
	}
}

func TestRequestGetsTheTokenAndFinCodeHeaders(t *testing.T) {
	for name, test := range map[string]struct {
		edit func(*fincodeauth.Transport)
		has  http.Header       // the caller's fields
		want map[string]string // the fields that are sent; "": not sent
	}{
		"all by default": {nil, nil, map[string]string{"Authorization": "Bearer t-1", "X-Auth-Token": "t-1",
			"Content-Type": "application/json", "platform": "fincode", "uuid": "200"}},
		"only Authorization": {func(tr *fincodeauth.Transport) { tr.TokenHeaders = fincodeauth.BearerToken },
			http.Header{"X-Auth-Token": {"mine"}}, map[string]string{"Authorization": "Bearer t-1", "X-Auth-Token": ""}},
		"only X-Auth-Token": {func(tr *fincodeauth.Transport) { tr.TokenHeaders = fincodeauth.XAuthToken },
			http.Header{"Authorization": {"mine"}}, map[string]string{"Authorization": "", "X-Auth-Token": "t-1"}},
		"the caller's fields stay": {nil, http.Header{"Content-Type": {"text/csv"}, "Uuid": {"7"}, "Accept": {"text/csv"}},
			map[string]string{"Content-Type": "text/csv", "uuid": "7", "Accept": "text/csv", "platform": "fincode"}},
		"a generated request ID": {func(tr *fincodeauth.Transport) { tr.RequestID = func() string { return "id-1" } },
			nil, map[string]string{"uuid": "id-1"}},
		"the caller's request ID": {func(tr *fincodeauth.Transport) { tr.RequestID = func() string { return "id-1" } },
			http.Header{"Uuid": {"7"}}, map[string]string{"uuid": "7"}},
		"another header": {func(tr *fincodeauth.Transport) { tr.Header = http.Header{"x-tenant": {"acme"}} },
			nil, map[string]string{"X-Tenant": "acme", "platform": ""}},
		"a field that the caller spelled in two ways": {nil, http.Header{"platform": {"a"}, "Platform": {"b"}}, map[string]string{"platform": "b"}},
		"a field that the caller emptied":             {nil, http.Header{"Platform": nil}, map[string]string{"platform": ""}},
		"a request ID that is not needed": {func(tr *fincodeauth.Transport) { tr.RequestID = func() string { panic("asked for") } },
			http.Header{"uuid": {"7"}}, map[string]string{"uuid": ""}},
	} {
		t.Run(name, func(t *testing.T) {
			mock := httpmock.NewMockTransport()
			var got http.Header
			mock.RegisterResponder("GET", api+"/balance", func(r *http.Request) (*http.Response, error) {
				got = r.Header
				return httpmock.NewStringResponse(200, ""), nil
			})
			tr := fixedTransport(mock)
			if test.edit != nil {
				test.edit(tr)
			}
			req, err := http.NewRequest("GET", api+"/balance", nil)
			if err != nil {
				t.Fatal(err)
			}
			for name, values := range test.has {
				req.Header[name] = values
			}
			before := fmt.Sprint(req.Header)
			resp, err := tr.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			for name, want := range test.want {
				if got.Get(name) != want {
					t.Errorf("sent %s %q, want %q", name, got.Get(name), want)
				}
			}
			if after := fmt.Sprint(req.Header); after != before {
				t.Errorf("the caller's header became %s, want it unchanged: %s", after, before)
			}
		})
	}
}

func TestHeaderNamesThatAreNotCanonicalAreNotSentTwice(t *testing.T) {
	mock := httpmock.NewMockTransport()
	mock.RegisterNoResponder(func(r *http.Request) (*http.Response, error) {
		if len(r.Header) != 5 || r.Header.Get("uuid")+r.Header.Get("Content-Type") != "" || r.Header.Get("Authorization") != "Bearer t-1" {
			t.Errorf("sent header %v, want five fields, with the caller's uuid and the Transport's token", r.Header)
		}
		return httpmock.NewStringResponse(200, ""), nil
	})
	req, err := http.NewRequest("GET", api, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"uuid", "platform", "CONTENT-TYPE", "authorization", "X-AUTH-TOKEN"} {
		req.Header[name] = []string{"mine"}
	}
	resp, err := fixedTransport(mock).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
}

func TestTokenIsSentOnlyToBaseURLAndHosts(t *testing.T) {
	for _, test := range []struct {
		url  string
		sent bool
	}{
		{api + "/balance", true},
		{"https://test.fincode.software/elsewhere", true},
		{"https://TEST.fincode.software:443/balance", true},
		{"https://test.fincode.software:8443/balance", false},
		{"http://test.fincode.software/balance", false},
		{"https://fincode.software/balance", false},
		{"https://test.fincode.software.evil.example/", false},
		{"https://test.fincode.software@evil.example/", false},
		{"https://evil.example/?test.fincode.software", false},
		{"https://files.example/", true},
		{"https://files.example:8443/", false},
		{"https://ports.example:8443/", true},
		{"https://ports.example/", false},
		{"http://files.example/", false},
		{"http://127.0.0.1:9000/", true},
		{"http://127.0.0.1/", false},
	} {
		mock := httpmock.NewMockTransport()
		var got http.Header
		mock.RegisterNoResponder(func(r *http.Request) (*http.Response, error) {
			got = r.Header
			return httpmock.NewStringResponse(200, ""), nil
		})
		tr := fixedTransport(mock)
		tr.Hosts = []string{"files.example", "ports.example:8443", "127.0.0.1:9000"}
		get(t, tr, test.url)
		// If the URL has a user, http.Client sends an Authorization of its own.
		if sent := got.Get("Authorization") == "Bearer t-1" || got.Get("X-Auth-Token") != ""; sent != test.sent {
			t.Errorf("%s: token sent %t, want %t", test.url, sent, test.sent)
		}
		if added := got.Get("platform") != ""; added != test.sent {
			t.Errorf("%s: FinCode's header added %t, want %t", test.url, added, test.sent)
		}
	}
}

func TestPassedIsReportedOncePerOrigin(t *testing.T) {
	var seen events
	sessions := newSessions(t, nil, seen.observe, func(c *fincodeauth.Config) {
		c.BaseURL = "http://127.0.0.1:8080"
		c.Base = emptyAPI
	})
	if err := sessions.Adopt(t.Context(), "a", &oauth2.Token{AccessToken: "t-1"}); err != nil {
		t.Fatal(err)
	}
	seen.types()
	for range 3 {
		for _, url := range []string{"http://localhost:8080/a", "http://LOCALHOST:8080/b", "https://files.example/c", "https://files.example:443/d", "http://127.0.0.1:8080/e"} {
			get(t, sessions.Transport("a"), url)
			req, err := http.NewRequestWithContext(fincodeauth.WithSession(t.Context(), "a"), "GET", url, nil)
			if err != nil {
				t.Fatal(err)
			}
			roundTrip(t, sessions.Transport(""), req)
		}
	}
	var origins []string
	for _, e := range seen.all {
		if e.Type != fincodeauth.Passed || e.Key != "a" || e.Err == nil || !strings.Contains(e.Err.Error(), "127.0.0.1:8080") {
			t.Fatalf("got event %+v, want Passed of key a, with the BaseURL in its error", e)
		}
		origins = append(origins, strings.Fields(e.Err.Error())[2])
	}
	if want := []string{`"http://localhost:8080"`, `"https://files.example"`}; !slices.Equal(origins, want) {
		t.Errorf("got Passed for the origins %v, want %v", origins, want)
	}
}

func TestPassedNamesTheSessionOfTheRequest(t *testing.T) {
	var seen events
	sessions := newSessions(t, nil, seen.observe, func(c *fincodeauth.Config) { c.Base = emptyAPI })
	for url, key := range map[string]string{"https://one.example/": "", "https://two.example/": "a"} {
		req, err := http.NewRequestWithContext(fincodeauth.WithSession(t.Context(), "b"), "GET", url, nil)
		if err != nil {
			t.Fatal(err)
		}
		roundTrip(t, sessions.Transport(key), req)
		want := cmp.Or(key, "b")
		if got := seen.all[len(seen.all)-1]; got.Type != fincodeauth.Passed || got.Key != want {
			t.Errorf("a request through Transport(%q) with the context of b: %v for session %q, want Passed for %q", key, got.Type, got.Key, want)
		}
	}
}

// The origins are kept in memory. A program that crawls the web with the client must
// not fill the memory.
func TestPassedIsReportedForAtMostAHundredOrigins(t *testing.T) {
	var seen events
	sessions := newSessions(t, nil, seen.observe, func(c *fincodeauth.Config) { c.Base = emptyAPI })
	for i := range 300 {
		get(t, sessions.Transport("a"), fmt.Sprintf("https://%d.example/", i))
	}
	if n := len(seen.types()); n != 100 {
		t.Errorf("got %d events, want 100", n)
	}
}

func TestRedirectToAnotherOriginCarriesNoToken(t *testing.T) {
	mock := httpmock.NewMockTransport()
	mock.RegisterResponder("GET", api+"/statement", func(r *http.Request) (*http.Response, error) {
		resp := httpmock.NewStringResponse(302, "")
		resp.Header.Set("Location", "https://files.example/statement.pdf")
		return resp, nil
	})
	mock.RegisterResponder("GET", "https://files.example/statement.pdf", func(r *http.Request) (*http.Response, error) {
		if r.Header.Get("Authorization")+r.Header.Get("X-Auth-Token") != "" {
			t.Error("the token was sent to another origin, want no token")
		}
		return httpmock.NewStringResponse(200, ""), nil
	})
	if status := get(t, fixedTransport(mock), api+"/statement"); status != 200 {
		t.Errorf("got status %d, want 200", status)
	}
}

func TestMisconfiguredTransportSaysWhatIsWrong(t *testing.T) {
	for name, test := range map[string]struct {
		edit func(*fincodeauth.Transport)
		want string
	}{
		"source":   {func(tr *fincodeauth.Transport) { tr.Source = nil }, "no Source"},
		"base URL": {func(tr *fincodeauth.Transport) { tr.BaseURL = "" }, "BaseURL is empty"},
		"https":    {func(tr *fincodeauth.Transport) { tr.BaseURL = "http://api.example.com" }, "is not https"},
		"host":     {func(tr *fincodeauth.Transport) { tr.Hosts = []string{"https://a.example"} }, "in Hosts"},
		"header":   {func(tr *fincodeauth.Transport) { tr.Header = http.Header{"A B": nil} }, `"A B" in Header`},
		"tokens":   {func(tr *fincodeauth.Transport) { tr.TokenHeaders = 4 }, "TokenHeaders is 4"},
	} {
		t.Run(name, func(t *testing.T) {
			tr := fixedTransport(httpmock.NewMockTransport())
			test.edit(tr)
			body := &closable{Reader: strings.NewReader("x")}
			req, err := http.NewRequest("POST", api, body)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := tr.RoundTrip(req); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got error %v, want one that says %q", err, test.want)
			}
			if !body.closed {
				t.Error("the request's body is open, want it closed")
			}
		})
	}
}

// A closable is a body that can be read only once.
type closable struct {
	io.Reader
	closed bool
}

func (c *closable) Close() error {
	c.closed = true
	return nil
}

func TestIncompleteAnswerOfBaseIsAnErrorOrAnEmptyBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		for name, test := range map[string]struct {
			resp *http.Response
			ok   bool
		}{
			"no answer":              {nil, false},
			"no body":                {&http.Response{StatusCode: http.StatusUnauthorized}, true},
			"a body that is missing": {&http.Response{StatusCode: http.StatusOK, ContentLength: 5}, false},
		} {
			sessions := newSessions(t, fc, func(c *fincodeauth.Config) {
				c.Base = roundTripper(func(r *http.Request) (*http.Response, error) {
					if r.Method == http.MethodPut {
						return fc.RoundTrip(r)
					}
					return test.resp, nil
				})
			})
			logIn(t, sessions, "a")
			time.Sleep(30 * time.Minute) // after a 401, a token of this age is refreshed and the request is replayed
			resp, err := sessions.Client("a").Get(fincodeauth.Sandbox("test") + "/balance")
			if (err == nil) != test.ok {
				t.Errorf("%s: got error %v, want an answer %t", name, err, test.ok)
			}
			if err == nil {
				resp.Body.Close()
			}
		}
	})
}

func TestRequestWithoutATokenIsNotSentAndItsBodyIsClosed(t *testing.T) {
	mock := httpmock.NewMockTransport()
	sessions := newSessions(t, nil, func(c *fincodeauth.Config) { c.Base = mock })
	body := &closable{Reader: strings.NewReader("x")}
	req, err := http.NewRequest("POST", api, body)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sessions.Transport("nobody").RoundTrip(req); !errors.Is(err, fincodeauth.ErrNotFound) {
		t.Errorf("got error %v, want ErrNotFound", err)
	}
	if !body.closed || mock.GetTotalCallCount() != 0 {
		t.Errorf("got body closed %t and %d requests, want the body closed and no request", body.closed, mock.GetTotalCallCount())
	}
}

// A mocked is a session with a mocked API. Its tokens come from fincodetest.
type mocked struct {
	fc       *fincodetest.FinCode
	mock     *httpmock.MockTransport
	sessions *fincodeauth.Sessions
	events   events
	revoked  atomic.Int32 // the API answers 401 until FinCode has made that many refreshes
	requests atomic.Int32 // how many requests the API received
}

func newMocked(t *testing.T) *mocked {
	t.Helper()
	m := &mocked{fc: fincodetest.New(fincodetest.Config{}), mock: httpmock.NewMockTransport()}
	m.mock.RegisterRegexpResponder("PUT", regexp.MustCompile("/securitymanagement/"), m.fc.RoundTrip)
	m.sessions = newSessions(t, m.fc, m.events.observe, func(c *fincodeauth.Config) { c.Base = m.mock })
	logIn(t, m.sessions, "a")
	time.Sleep(time.Minute) // a younger token is not refreshed for a 401
	m.events.types()
	return m
}

// revoke makes the API answer 401 until the session has a new token.
func (m *mocked) revoke() { m.revoked.Store(int32(m.fc.Counts().Refreshes) + 1) }

// answer is a responder of httpmock. It echoes the body, or answers 401 to a revoked
// token.
func (m *mocked) answer(r *http.Request) (*http.Response, error) {
	m.requests.Add(1)
	var body []byte
	if r.Body != nil {
		var err error
		if body, err = io.ReadAll(r.Body); err != nil {
			return nil, err
		}
		r.Body.Close()
	}
	if int32(m.fc.Counts().Refreshes) < m.revoked.Load() {
		return httpmock.NewStringResponse(401, "no: "+string(body)), nil
	}
	return httpmock.NewStringResponse(200, string(body)), nil
}

// do sends a request as the session, and returns the status and the body.
func (m *mocked) do(t *testing.T, req *http.Request) (int, string) {
	t.Helper()
	resp, err := m.sessions.Client("a").Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// fail sends a request as the session, and returns its error.
func (m *mocked) fail(t *testing.T, req *http.Request) error {
	t.Helper()
	resp, err := m.sessions.Client("a").Do(req)
	if err == nil {
		resp.Body.Close()
		t.Fatalf("got status %d, want an error", resp.StatusCode)
	}
	return err
}

func TestRequestIsReplayedOnceWithItsBodyAfterA401(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMocked(t)
		m.mock.RegisterResponder("POST", api+"/transfers", m.answer)
		m.revoke()
		status, body := m.do(t, request(t, "POST", strings.NewReader(`{"amount": 5}`)))
		if status != 200 || body != `{"amount": 5}` {
			t.Errorf("got status %d and body %q, want 200 and the body of the request", status, body)
		}
		if n := m.requests.Load(); n != 2 {
			t.Errorf("the API received %d requests, want 2: the first and its replay", n)
		}
		m.events.want(t, fincodeauth.Refreshed, fincodeauth.Replayed)
		wantCalls(t, m.fc, 1, 1)
	})
}

func TestRequestWithoutABodyIsReplayedAfterA401(t *testing.T) {
	for name, body := range map[string]io.Reader{"nil": nil, "NoBody": http.NoBody} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMocked(t)
				m.mock.RegisterResponder("GET", api+"/transfers", m.answer)
				m.revoke()
				if status, _ := m.do(t, request(t, "GET", body)); status != 200 {
					t.Errorf("got status %d, want 200", status)
				}
			})
		})
	}
}

func TestRequestWhoseBodyCannotBeRepeatedIsNotReplayed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMocked(t)
		m.mock.RegisterResponder("POST", api+"/transfers", m.answer)
		m.revoke()
		status, body := m.do(t, request(t, "POST", &closable{Reader: strings.NewReader("once")}))
		if status != 401 || body != "no: once" || m.requests.Load() != 1 {
			t.Errorf("got status %d and body %q after %d requests, want the 401 with its body, after one request", status, body, m.requests.Load())
		}
		// The token was refreshed all the same, so the next request succeeds.
		if status, _ := m.do(t, request(t, "POST", strings.NewReader(""))); status != 200 || m.requests.Load() != 2 {
			t.Errorf("got status %d after %d requests, want 200 after two", status, m.requests.Load())
		}
	})
}

// A caller that got the plain 401 would send a user who is logged in to the login
// page.
func Test401BecomesTheErrorOfAFailedRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMocked(t)
		m.mock.RegisterResponder("POST", api+"/transfers", m.answer)
		m.revoke()
		m.fc.Inject(fincodetest.Refresh, -1, fincodetest.Fault{Kind: fincodetest.ErrorStatus, Status: 503})
		for range 3 { // FinCode is called once: the other two requests come during the backoff
			err := m.fail(t, request(t, "POST", strings.NewReader("x")))
			if answer, ok := errors.AsType[*fincodeauth.EndpointError](err); !ok || answer.Status != 503 || errors.Is(err, fincodeauth.ErrLoginRequired) {
				t.Errorf("got error %v, want the 503 of the refresh", err)
			}
		}
		wantCalls(t, m.fc, 1, 0)
		m.fc.ClearFaults()
		time.Sleep(time.Minute)
		if status, body := m.do(t, request(t, "POST", strings.NewReader("x"))); status != 200 || body != "x" {
			t.Errorf("after FinCode recovered: got status %d and body %q, want 200 and %q", status, body, "x")
		}
	})
}

func Test401OfAnEndedSessionBecomesASessionError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMocked(t)
		m.mock.RegisterResponder("POST", api+"/transfers", m.answer)
		m.revoke()
		m.fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{Kind: fincodetest.ErrorStatus, Status: 401})
		wantSessionError(t, m.fail(t, request(t, "POST", strings.NewReader("x"))), false, false)
	})
}

func Test401BecomesTheErrorOfAnEndedContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMocked(t)
		m.mock.RegisterResponder("GET", api+"/transfers", m.answer)
		m.revoke()
		m.fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{Before: 5 * time.Second})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := m.fail(t, request(t, "GET", nil).WithContext(ctx)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got error %v, want the error of the context", err)
		}
		time.Sleep(10 * time.Second) // the refresh goes on without its caller
		if status, _ := m.do(t, request(t, "GET", nil)); status != 200 {
			t.Errorf("got status %d, want 200 with the new token", status)
		}
	})
}

func TestRevokedTokenIsReplacedAtOnceForAllRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMocked(t)
		m.mock.RegisterResponder("GET", api+"/transfers", m.answer)
		m.revoke()
		for range 100 {
			go func() {
				if status, _ := m.do(t, request(t, "GET", nil)); status != 200 {
					t.Errorf("got status %d, want 200", status)
				}
			}()
		}
		synctest.Wait()
		wantCalls(t, m.fc, 1, 1)
	})
}

func TestEndpointThatAlwaysAnswers401CausesFewRotations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMocked(t)
		m.mock.RegisterResponder("GET", api+"/transfers", httpmock.NewStringResponder(401, "<html>no</html>"))
		for range 60 * 60 { // one request a second for an hour
			if status, _ := m.do(t, request(t, "GET", nil)); status != 401 {
				t.Fatalf("got status %d, want 401", status)
			}
			time.Sleep(time.Second)
		}
		if n := m.fc.Counts().Refreshes; n < 2 || n > 10 {
			t.Errorf("got %d rotations in an hour, want 2 to 10", n)
		}
	})
}

// With every rejected replay, a token must be older before a 401 refreshes it. An
// accepted replay resets this age.
func TestAcceptedReplayMakesYoungTokensReplaceableAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMocked(t)
		m.mock.RegisterResponder("GET", api+"/never", httpmock.NewStringResponder(401, ""))
		m.mock.RegisterResponder("GET", api+"/transfers", m.answer)
		for range 300 { // the minimum age grows to minutes
			get(t, m.sessions.Transport("a"), api+"/never")
			time.Sleep(time.Second)
		}
		time.Sleep(10 * time.Minute)
		m.revoke()
		if status, _ := m.do(t, request(t, "GET", nil)); status != 200 {
			t.Fatalf("got status %d, want 200 from the replay", status)
		}
		before := m.fc.Counts().Refreshes
		time.Sleep(11 * time.Second)
		m.revoke()
		if status, _ := m.do(t, request(t, "GET", nil)); status != 200 || m.fc.Counts().Refreshes != before+1 {
			t.Errorf("got status %d after %d rotations, want 200 after 1: a token of 11 s is replaced", status, m.fc.Counts().Refreshes-before)
		}
	})
}

func TestFixedTokenIsUsedAndIts401IsReturned(t *testing.T) {
	mock := httpmock.NewMockTransport()
	mock.RegisterResponder("GET", api+"/balance", httpmock.NewStringResponder(401, ""))
	if status := get(t, fixedTransport(mock), api+"/balance"); status != 401 || mock.GetTotalCallCount() != 1 {
		t.Errorf("got status %d after %d requests, want 401 after 1", status, mock.GetTotalCallCount())
	}
}

func TestContextChoosesTheSessionOfEachRequest(t *testing.T) {
	fc := fincodetest.New(fincodetest.Config{})
	fc.AddUser("bob@example.com", "b")
	sessions := newSessions(t, fc)
	logIn(t, sessions, "ada")
	if err := sessions.Login(t.Context(), "bob", fincodeauth.Credentials{Email: "bob@example.com", Password: "b"}); err != nil {
		t.Fatal(err)
	}
	client := sessions.Client("")
	users := make(map[string]string) // by session key
	for _, key := range []string{"ada", "bob", "ada"} {
		req, err := http.NewRequestWithContext(fincodeauth.WithSession(t.Context(), key), "GET", api+"/whoami", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		var whoami struct {
			Data struct {
				User string `json:"user-id"`
			}
		}
		err = json.NewDecoder(resp.Body).Decode(&whoami)
		resp.Body.Close()
		if err != nil || resp.StatusCode != 200 {
			t.Fatalf("got status %d, error %v; want 200", resp.StatusCode, err)
		}
		if user, ok := users[key]; ok && user != whoami.Data.User {
			t.Errorf("the requests of %s were sent as user %s, then as user %s; want the same user", key, user, whoami.Data.User)
		}
		users[key] = whoami.Data.User
	}
	if users["ada"] == users["bob"] {
		t.Errorf("the requests of ada and bob were both sent as user %s, want two users", users["ada"])
	}
	if _, err := client.Get(api + "/whoami"); err == nil || !strings.Contains(err.Error(), "WithSession") {
		t.Errorf("got error %v for a request without a session, want one that names WithSession", err)
	}
}

func TestContextEndsTheWaitForAToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMocked(t)
		m.mock.RegisterResponder("GET", api+"/transfers", m.answer)
		time.Sleep(2 * time.Hour)
		m.fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{Before: 5 * time.Second})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		waited := elapsed(func() {
			if _, err := m.sessions.Client("a").Do(request(t, "GET", nil).WithContext(ctx)); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got error %v, want the error of the context", err)
			}
		})
		if waited != time.Second || m.requests.Load() != 0 {
			t.Errorf("waited %v, and the API received %d requests; want 1 s and no request", waited, m.requests.Load())
		}
		if err := m.sessions.Close(t.Context()); err != nil { // waits for the refresh, which goes on without its caller
			t.Error(err)
		}
	})
}

// The replays of one endpoint are always rejected. The successful requests to other
// endpoints must not make the session forget that.
func TestEndpointThatAlwaysAnswers401CausesFewRotationsAmongGoodTraffic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{RevokeOnRotation: true})
		fc.Inject(fincodetest.API, -1, fincodetest.Fault{Before: 500 * time.Millisecond})
		sessions := newSessions(t, fc, func(c *fincodeauth.Config) {
			c.Base = roundTripper(func(r *http.Request) (*http.Response, error) {
				if strings.HasSuffix(r.URL.Path, "/never") {
					return httpmock.NewStringResponse(401, ""), nil
				}
				return fc.RoundTrip(r)
			})
		})
		logIn(t, sessions, "a")
		tr := sessions.Transport("a")
		go func() {
			for range 36000 {
				go func() {
					req, err := http.NewRequest("GET", api+"/whoami", nil)
					if err != nil {
						t.Error(err)
						return
					}
					resp, err := tr.RoundTrip(req)
					if err != nil {
						t.Error(err)
						return
					}
					resp.Body.Close()
				}()
				time.Sleep(100 * time.Millisecond)
			}
		}()
		for range 3600 {
			get(t, tr, api+"/never")
			time.Sleep(time.Second)
		}
		if n := fc.Counts().Refreshes; n > 15 {
			t.Errorf("got %d rotations in an hour, want at most 15", n)
		}
		time.Sleep(10 * time.Minute)
	})
}

func TestRequestsShareNoHeaderValues(t *testing.T) {
	tr := fixedTransport(nil)
	tr.Base = roundTripper(func(r *http.Request) (*http.Response, error) {
		for _, v := range r.Header {
			v[0] = "changed"
		}
		return httpmock.NewStringResponse(200, ""), nil
	})
	for range 2 {
		req, _ := http.NewRequest("GET", api, nil)
		req.Header.Set("X-Mine", "1")
		tr.RoundTrip(req)
		if req.Header.Get("X-Mine") != "1" {
			t.Error("the caller's header was changed, want it unchanged")
		}
	}
	mock := httpmock.NewMockTransport()
	mock.RegisterNoResponder(func(r *http.Request) (*http.Response, error) {
		if r.Header.Get("Platform") != "fincode" || r.Header.Get("Authorization") != "Bearer t-1" {
			t.Errorf("sent header %v, want the defaults and token t-1: an earlier request changed values that are shared", r.Header)
		}
		return httpmock.NewStringResponse(200, ""), nil
	})
	tr.Base = mock
	get(t, tr, api)
}

func TestNilTokenOfASourceIsAnError(t *testing.T) {
	tr := fixedTransport(httpmock.NewMockTransport())
	tr.Source = nilSource{}
	body := &closable{Reader: strings.NewReader("x")}
	if _, err := tr.RoundTrip(request(t, "POST", body)); err == nil || !body.closed {
		t.Errorf("got error %v, body closed %t; want an error and the body closed", err, body.closed)
	}
}

// A nilSource returns neither a token nor an error.
type nilSource struct{}

func (nilSource) Token() (*oauth2.Token, error) { return nil, nil }

// A stalled body never ends, until it is closed.
type stalled struct{ closed chan struct{} }

func (s stalled) Read([]byte) (int, error) { <-s.closed; return 0, io.EOF }
func (s stalled) Close() error             { close(s.closed); return nil }

func TestStalledBodyOfA401DoesNotDelayTheReplay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMocked(t)
		m.mock.RegisterResponder("GET", api+"/transfers", func(r *http.Request) (*http.Response, error) {
			resp, err := m.answer(r)
			if err == nil && resp.StatusCode == 401 {
				resp.Body, resp.ContentLength = stalled{make(chan struct{})}, -1
			}
			return resp, err
		})
		m.revoke()
		if status, _ := m.do(t, request(t, "GET", nil)); status != 200 {
			t.Errorf("got status %d, want 200", status)
		}
	})
}

func TestBrokenBaseIsReportedWithThePrefix(t *testing.T) {
	tr := &fincodeauth.Transport{
		Source: oauth2.StaticTokenSource(&oauth2.Token{AccessToken: "a"}), BaseURL: api,
		Base: roundTripper(func(*http.Request) (*http.Response, error) { return nil, nil }),
	}
	req := request(t, "GET", nil)
	if _, err := tr.RoundTrip(req); err == nil || !strings.HasPrefix(err.Error(), "fincodeauth: Transport: the Base returned") {
		t.Errorf("got error %v, want one that says who broke which contract", err)
	}
}

func TestPassedNamesTheTransportsBaseURL(t *testing.T) {
	var seen events
	sessions := newSessions(t, fincodetest.New(fincodetest.Config{}), seen.observe, func(c *fincodeauth.Config) {
		c.Base = roundTripper(func(*http.Request) (*http.Response, error) { return nil, errors.New("no network") })
	})
	tr := sessions.Transport("a")
	tr.BaseURL = "https://other.example/v1"
	req, err := http.NewRequest(http.MethodGet, "http://other.example/v1/balance", nil)
	if err != nil {
		t.Fatal(err)
	}
	tr.RoundTrip(req)
	if len(seen.all) != 1 || !strings.Contains(seen.all[0].Err.Error(), "https://other.example/v1") || !strings.Contains(seen.all[0].Err.Error(), "over https") {
		t.Errorf("got events %v, want one Passed with the BaseURL of the Transport", seen.all)
	}
}

func TestDefaultTransportMayBeReplacedAfterNew(t *testing.T) {
	sessions, err := fincodeauth.New(fincodeauth.Config{BaseURL: api})
	if err != nil {
		t.Fatal(err)
	}
	fc := fincodetest.New(fincodetest.Config{})
	before := http.DefaultTransport
	http.DefaultTransport = fc
	defer func() { http.DefaultTransport = before }()
	logIn(t, sessions, "a")
	if status := get(t, sessions.Transport("a"), api+"/whoami"); status != http.StatusOK {
		t.Errorf("the API answered %d, want 200", status)
	}
}

// A closeCounter counts the calls of Close.
type closeCounter struct {
	io.Reader
	closed *atomic.Int32
}

func (c closeCounter) Close() error { c.closed.Add(1); return nil }

// The body of the first answer may stall, too.
func TestAnswerIsClosedUnreadIfTheRefreshFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMocked(t)
		var closed atomic.Int32
		never := make(chan struct{})
		m.mock.RegisterResponder("GET", api+"/transfers", func(*http.Request) (*http.Response, error) {
			body := readerFunc(func([]byte) (int, error) { <-never; return 0, io.EOF })
			return &http.Response{StatusCode: 401, ContentLength: 20, Body: closeCounter{body, &closed}}, nil
		})
		m.fc.Inject(fincodetest.Refresh, -1, fincodetest.Fault{Kind: fincodetest.ErrorStatus, Status: 503})
		m.fail(t, request(t, "GET", nil))
		if n := closed.Load(); n != 1 {
			t.Errorf("the body was closed %d times, want once", n)
		}
	})
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestBaseMayAddToOneFieldWithoutChangingAnother(t *testing.T) {
	tr := fixedTransport(nil)
	tr.Base = roundTripper(func(r *http.Request) (*http.Response, error) {
		want := r.Header.Clone()
		for name := range want {
			r.Header.Add(name, "added")
			want.Add(name, "added")
		}
		if !maps.EqualFunc(r.Header, want, slices.Equal) {
			t.Errorf("the header is %v, want %v", r.Header, want)
		}
		return emptyAnswer, nil
	})
	roundTrip(t, tr, request(t, "GET", nil))
}

func TestRequestThroughAnEmbeddedZeroTokenSourceIsNoPanic(t *testing.T) {
	tr := &fincodeauth.Transport{Source: struct{ *fincodeauth.TokenSource }{new(fincodeauth.TokenSource)}, BaseURL: api, Base: emptyAPI}
	roundTrip(t, tr, elsewhere(t))
}

func elsewhere(t *testing.T) *http.Request {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, "https://elsewhere.example/", nil)
	if err != nil {
		t.Fatal(err)
	}
	return req
}
