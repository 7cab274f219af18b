package fincodeauth_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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

// The API of these tests is an httpmock; fincodetest answers for the endpoint
// where tokens are to be refreshed.

// fixed returns a Transport with a fixed token over mock.
func fixed(mock *httpmock.MockTransport) *fincodeauth.Transport {
	return &fincodeauth.Transport{
		Source:  oauth2.StaticTokenSource(&oauth2.Token{AccessToken: "t-1"}),
		BaseURL: api,
		Base:    mock,
	}
}

func TestRequestGetsTheTokenAndFinCodeHeaders(t *testing.T) {
	for name, test := range map[string]struct {
		edit func(*fincodeauth.Transport)
		has  http.Header // of the request
		want map[string]string
	}{
		"all by default": {nil, nil, map[string]string{"Authorization": "Bearer t-1", "X-Auth-Token": "t-1",
			"Content-Type": "application/json", "platform": "fincode", "uuid": "200"}},
		"Authorization alone": {func(tr *fincodeauth.Transport) { tr.TokenHeaders = fincodeauth.BearerToken },
			http.Header{"X-Auth-Token": {"mine"}}, map[string]string{"Authorization": "Bearer t-1", "X-Auth-Token": ""}},
		"X-Auth-Token alone": {func(tr *fincodeauth.Transport) { tr.TokenHeaders = fincodeauth.XAuthToken },
			http.Header{"Authorization": {"mine"}}, map[string]string{"Authorization": "", "X-Auth-Token": "t-1"}},
		"the caller's fields stay": {nil, http.Header{"Content-Type": {"text/csv"}, "Uuid": {"7"}, "Accept": {"text/csv"}},
			map[string]string{"Content-Type": "text/csv", "uuid": "7", "Accept": "text/csv", "platform": "fincode"}},
		"a request ID of its own": {func(tr *fincodeauth.Transport) { tr.RequestID = func() string { return "id-1" } },
			nil, map[string]string{"uuid": "id-1"}},
		"the caller's request ID": {func(tr *fincodeauth.Transport) { tr.RequestID = func() string { return "id-1" } },
			http.Header{"Uuid": {"7"}}, map[string]string{"uuid": "7"}},
		"another header": {func(tr *fincodeauth.Transport) { tr.Header = http.Header{"x-tenant": {"acme"}} },
			nil, map[string]string{"X-Tenant": "acme", "platform": ""}},
		"a field that the caller wrote in both ways": {nil, http.Header{"platform": {"a"}, "Platform": {"b"}}, map[string]string{"platform": "b"}},
		"a field that the caller emptied":            {nil, http.Header{"Platform": nil}, map[string]string{"platform": ""}},
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
			tr := fixed(mock)
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
					t.Errorf("%s is %q, want %q", name, got.Get(name), want)
				}
			}
			if after := fmt.Sprint(req.Header); after != before {
				t.Errorf("the caller's header became %s", after)
			}
		})
	}
}

func TestHeaderNamesThatAreNotCanonicalAreNotSentTwice(t *testing.T) {
	mock := httpmock.NewMockTransport()
	mock.RegisterNoResponder(func(r *http.Request) (*http.Response, error) {
		if len(r.Header) != 5 || r.Header.Get("uuid")+r.Header.Get("Content-Type") != "" || r.Header.Get("Authorization") != "Bearer t-1" {
			t.Errorf("header %v, want five fields, the caller's uuid and the Transport's token", r.Header)
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
	resp, err := fixed(mock).RoundTrip(req)
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
		tr := fixed(mock)
		tr.Hosts = []string{"files.example", "ports.example:8443", "127.0.0.1:9000"}
		get(t, tr, test.url)
		// A URL's user makes http.Client send an Authorization of its own.
		if sent := got.Get("Authorization") == "Bearer t-1" || got.Get("X-Auth-Token") != ""; sent != test.sent {
			t.Errorf("%s: token sent %t, want %t", test.url, sent, test.sent)
		}
		if touched := got.Get("platform") != ""; touched != test.sent {
			t.Errorf("%s: touched %t, want %t", test.url, touched, test.sent)
		}
	}
}

func TestPassedIsReportedOncePerOrigin(t *testing.T) {
	var seen events
	sessions := newSessions(t, nil, seen.observe, func(c *fincodeauth.Config) {
		c.BaseURL = "http://127.0.0.1:8080"
		c.Base = nothing
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
	var told []string
	for _, e := range seen.all {
		if e.Type != fincodeauth.Passed || e.Key != "a" || e.Err == nil || !strings.Contains(e.Err.Error(), "127.0.0.1:8080") {
			t.Fatalf("event %+v", e)
		}
		told = append(told, strings.Fields(e.Err.Error())[2])
	}
	if want := []string{`"http://localhost:8080"`, `"https://files.example"`}; !slices.Equal(told, want) {
		t.Errorf("told of %v, want %v", told, want)
	}
}

// A program that crawls the web through the client tells of some origins only,
// and remembers no more.
func TestPassedIsReportedForAtMostAHundredOrigins(t *testing.T) {
	var seen events
	sessions := newSessions(t, nil, seen.observe, func(c *fincodeauth.Config) { c.Base = nothing })
	for i := range 300 {
		get(t, sessions.Transport("a"), fmt.Sprintf("https://%d.example/", i))
	}
	if n := len(seen.types()); n != 100 {
		t.Errorf("%d events, want 100", n)
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
			t.Error("the token went along")
		}
		return httpmock.NewStringResponse(200, ""), nil
	})
	if status := get(t, fixed(mock), api+"/statement"); status != 200 {
		t.Errorf("status %d", status)
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
	} {
		t.Run(name, func(t *testing.T) {
			tr := fixed(httpmock.NewMockTransport())
			test.edit(tr)
			body := &closable{Reader: strings.NewReader("x")}
			req, err := http.NewRequest("POST", api, body)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := tr.RoundTrip(req); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want %q", err, test.want)
			}
			if !body.closed {
				t.Error("the body was not closed")
			}
		})
	}
}

// closable is a body that cannot be had again.
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
		for name, c := range map[string]struct {
			resp *http.Response
			ok   bool
		}{
			"no answer":              {nil, false},
			"no body":                {&http.Response{StatusCode: http.StatusUnauthorized}, true},
			"a body that is missing": {&http.Response{StatusCode: http.StatusOK, ContentLength: 5}, false},
		} {
			sessions := newSessions(t, fc, func(c2 *fincodeauth.Config) {
				c2.Base = roundTripper(func(r *http.Request) (*http.Response, error) {
					if r.Method == http.MethodPut {
						return fc.RoundTrip(r)
					}
					return c.resp, nil
				})
			})
			logIn(t, sessions, "a")
			time.Sleep(30 * time.Minute) // so that a 401 has a request sent again
			resp, err := sessions.Client("a").Get(fincodeauth.Sandbox("test") + "/balance")
			if (err == nil) != c.ok {
				t.Errorf("%s: error %v", name, err)
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
		t.Errorf("error %v, want ErrNotFound", err)
	}
	if !body.closed || mock.GetTotalCallCount() != 0 {
		t.Errorf("body closed %t, %d calls", body.closed, mock.GetTotalCallCount())
	}
}

// A mocked is a session over a mocked API, whose tokens come from fincodetest.
type mocked struct {
	fc       *fincodetest.FinCode
	mock     *httpmock.MockTransport
	sessions *fincodeauth.Sessions
	events   events
	revoked  atomic.Int32 // the API accepts no token older than that many refreshes
	requests atomic.Int32 // at the API
}

func newMocked(t *testing.T) *mocked {
	t.Helper()
	m := &mocked{fc: fincodetest.New(fincodetest.Config{}), mock: httpmock.NewMockTransport()}
	m.mock.RegisterRegexpResponder("PUT", regexp.MustCompile("/securitymanagement/"), m.fc.RoundTrip)
	m.sessions = newSessions(t, m.fc, m.events.observe, func(c *fincodeauth.Config) { c.Base = m.mock })
	logIn(t, m.sessions, "a")
	time.Sleep(time.Minute) // no token is young any more
	m.events.types()
	return m
}

// revoke makes the API accept no token that the session has.
func (m *mocked) revoke() { m.revoked.Store(int32(m.fc.Counts().Refreshes) + 1) }

// answer is an API that echoes the body, or answers 401.
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

// do sends a request as the session and returns the answer, its body read.
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
		t.Fatalf("status %d, want an error", resp.StatusCode)
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
			t.Errorf("status %d, body %q", status, body)
		}
		if n := m.requests.Load(); n != 2 {
			t.Errorf("%d requests, want the first and its replay", n)
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
					t.Errorf("status %d", status)
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
			t.Errorf("status %d, body %q, %d requests; want the first answer, unread", status, body, m.requests.Load())
		}
		// But the next request has a new token.
		if status, _ := m.do(t, request(t, "POST", strings.NewReader(""))); status != 200 || m.requests.Load() != 2 {
			t.Errorf("status %d after %d requests", status, m.requests.Load())
		}
	})
}

// Whoever gets the bare 401 sends a user who is logged in to the login page.
func Test401BecomesTheErrorOfAFailedRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMocked(t)
		m.mock.RegisterResponder("POST", api+"/transfers", m.answer)
		m.revoke()
		m.fc.Inject(fincodetest.Refresh, -1, fincodetest.Fault{Kind: fincodetest.ErrorStatus, Status: 503})
		for range 3 { // FinCode is asked once: the others fail by the backoff
			err := m.fail(t, request(t, "POST", strings.NewReader("x")))
			if answer, ok := errors.AsType[*fincodeauth.EndpointError](err); !ok || answer.Status != 503 || errors.Is(err, fincodeauth.ErrLoginRequired) {
				t.Errorf("error %v, want that of the refresh", err)
			}
		}
		wantCalls(t, m.fc, 1, 0)
		m.fc.ClearFaults()
		time.Sleep(time.Minute)
		if status, body := m.do(t, request(t, "POST", strings.NewReader("x"))); status != 200 || body != "x" {
			t.Errorf("after FinCode recovered: status %d, body %q", status, body)
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
			t.Errorf("error %v, want the context's", err)
		}
		time.Sleep(10 * time.Second)
		if status, _ := m.do(t, request(t, "GET", nil)); status != 200 {
			t.Errorf("status %d, want that of the token that arrived meanwhile", status)
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
					t.Errorf("status %d", status)
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
		for range 60 * 60 { // a request a second for an hour
			if status, _ := m.do(t, request(t, "GET", nil)); status != 401 {
				t.Fatalf("status %d", status)
			}
			time.Sleep(time.Second)
		}
		if n := m.fc.Counts().Refreshes; n < 2 || n > 10 {
			t.Errorf("%d rotations in an hour", n)
		}
	})
}

func TestAcceptedReplayMakesYoungTokensReplaceableAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMocked(t)
		m.mock.RegisterResponder("GET", api+"/never", httpmock.NewStringResponder(401, ""))
		m.mock.RegisterResponder("GET", api+"/transfers", m.answer)
		for range 300 { // strikes: the minimum age grows to minutes
			get(t, m.sessions.Transport("a"), api+"/never")
			time.Sleep(time.Second)
		}
		time.Sleep(10 * time.Minute)
		m.revoke()
		if status, _ := m.do(t, request(t, "GET", nil)); status != 200 {
			t.Fatalf("status %d: the replay was not made", status)
		}
		before := m.fc.Counts().Refreshes
		time.Sleep(11 * time.Second)
		m.revoke()
		if status, _ := m.do(t, request(t, "GET", nil)); status != 200 || m.fc.Counts().Refreshes != before+1 {
			t.Errorf("status %d, %d rotations; want a token of 11 s replaced", status, m.fc.Counts().Refreshes-before)
		}
	})
}

func TestFixedTokenIsUsedAndIts401IsReturned(t *testing.T) {
	mock := httpmock.NewMockTransport()
	mock.RegisterResponder("GET", api+"/balance", httpmock.NewStringResponder(401, ""))
	if status := get(t, fixed(mock), api+"/balance"); status != 401 || mock.GetTotalCallCount() != 1 {
		t.Errorf("status %d after %d calls", status, mock.GetTotalCallCount())
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
	seen := make(map[string]string)
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
			t.Fatalf("status %d, error %v", resp.StatusCode, err)
		}
		if who, ok := seen[key]; ok && who != whoami.Data.User {
			t.Errorf("%s was somebody else before", key)
		}
		seen[key] = whoami.Data.User
	}
	if seen["ada"] == seen["bob"] {
		t.Error("both requests were sent as the same user")
	}
	if _, err := client.Get(api + "/whoami"); err == nil || !strings.Contains(err.Error(), "WithSession") {
		t.Errorf("error %v for a request without a session, want one that says what to do", err)
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
				t.Errorf("error %v, want that of the context", err)
			}
		})
		if waited != time.Second || m.requests.Load() != 0 {
			t.Errorf("waited %v, %d requests", waited, m.requests.Load())
		}
		if err := m.sessions.Close(t.Context()); err != nil { // the refresh goes on without its caller
			t.Error(err)
		}
	})
}

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
			t.Errorf("%d rotations in an hour", n)
		}
		time.Sleep(10 * time.Minute)
	})
}

func TestRequestsShareNoHeaderValues(t *testing.T) {
	tr := fixed(nil)
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
			t.Error("the caller's header changed")
		}
	}
	mock := httpmock.NewMockTransport()
	mock.RegisterNoResponder(func(r *http.Request) (*http.Response, error) {
		if r.Header.Get("Platform") != "fincode" || r.Header.Get("Authorization") != "Bearer t-1" {
			t.Error("shared values were changed for every later request")
		}
		return httpmock.NewStringResponse(200, ""), nil
	})
	tr.Base = mock
	get(t, tr, api)
}

func TestNilTokenOfASourceIsAnError(t *testing.T) {
	tr := fixed(httpmock.NewMockTransport())
	tr.Source = nilSource{}
	body := &closable{Reader: strings.NewReader("x")}
	if _, err := tr.RoundTrip(request(t, "POST", body)); err == nil || !body.closed {
		t.Errorf("error %v, body closed %t", err, body.closed)
	}
}

type nilSource struct{}

func (nilSource) Token() (*oauth2.Token, error) { return nil, nil }

// A stalled body never ends.
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
			t.Errorf("status %d", status)
		}
	})
}
