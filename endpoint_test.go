package fincodeauth_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/oauth2"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/fincodetest"
)

func TestLoginErrorsAreDistinct(t *testing.T) {
	for name, cfg := range map[string]fincodetest.Config{"statuses": {}, "empty bodies": {EmptyRefusals: true}} {
		t.Run(name, func(t *testing.T) {
			fc := fincodetest.New(cfg)
			fc.AddUser("bob@example.com", "b")
			sessions := newSessions(t, fc)
			login := func(email, password string) error {
				return sessions.Login(t.Context(), "a", fincodeauth.Credentials{Email: email, Password: password})
			}
			if err := login("nobody@example.com", "x"); !errors.Is(err, fincodeauth.ErrUserNotFound) {
				t.Errorf("unknown user: got error %v, want ErrUserNotFound", err)
			}
			for range 5 {
				if err := login("bob@example.com", "wrong"); !errors.Is(err, fincodeauth.ErrBadCredentials) {
					t.Errorf("wrong password: got error %v, want ErrBadCredentials", err)
				}
			}
			if err := login("bob@example.com", "b"); !errors.Is(err, fincodeauth.ErrAccountLocked) {
				t.Errorf("locked account: got error %v, want ErrAccountLocked", err)
			}
			if err := login("bob@example.com", ""); err == nil || errors.Is(err, fincodeauth.ErrBadCredentials) {
				t.Errorf("no password: got error %v, want one other than ErrBadCredentials", err)
			}
		})
	}
}

func TestFirewallPageIsNotReportedAsAWrongPassword(t *testing.T) {
	fc := fincodetest.New(fincodetest.Config{})
	for _, status := range []int{401, 403, 404} {
		fc.Inject(fincodetest.Login, 1, fincodetest.Fault{Kind: fincodetest.FirewallPage, Status: status})
		err := newSessions(t, fc).Login(t.Context(), "a", credentials)
		var ee *fincodeauth.EndpointError
		if !errors.As(err, &ee) || ee.Status != status || ee.Op != "login" {
			t.Errorf("%d: got error %v, want an EndpointError", status, err)
		}
		for _, verdict := range []error{fincodeauth.ErrBadCredentials, fincodeauth.ErrAccountLocked, fincodeauth.ErrUserNotFound} {
			if errors.Is(err, verdict) {
				t.Errorf("%d: got an error that is %q, want another one: FinCode did not answer", status, verdict)
			}
		}
	}
}

func TestUnreadableAnswerIsAnErrorWithoutTheBody(t *testing.T) {
	const secret = "eyJhbGciOi"
	for name, body := range map[string]string{
		"not JSON":             secret,
		"not an object":        `["` + secret + `"]`,
		"without a token":      `{"refresh_token": "` + secret + `"}`,
		"a token of no string": `{"access_token": {"a": "` + secret + `"}}`,
		"a token with a break": `{"access_token": "` + secret + `\n"}`,
		"a failure":            `{"success": false, "access_token": "` + secret + `", "error": {"code": "SERVER_ERROR"}}`,
		"longer than 1 MiB":    `{"access_token": "` + secret + `"}` + strings.Repeat(" ", 1<<20),
		"cut off":              `{"access_token": "` + secret + `"`,
		"empty":                ``,
		"a token in a list":    `{"data": [{"access_token": "` + secret + `"}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			sessions := newSessions(t, nil, func(c *fincodeauth.Config) { c.Base = answering(200, nil, body) })
			err := sessions.Login(t.Context(), "a", credentials)
			if err == nil || strings.Contains(err.Error(), secret) {
				t.Errorf("got error %v, want one without the body", err)
			}
		})
	}
}

func TestLifetimeIsReadFromEveryKnownField(t *testing.T) {
	// {"exp":1700000900,"iat":1700000000} and {"exp":1700000900}, unsigned.
	const both, expiryOnly = "e30.eyJleHAiOjE3MDAwMDA5MDAsImlhdCI6MTcwMDAwMDAwMH0.s", "e30.eyJleHAiOjE3MDAwMDA5MDB9.s"
	date := http.Header{"Date": {time.Unix(1700000000, 0).UTC().Format(http.TimeFormat)}}
	for name, test := range map[string]struct {
		header http.Header
		body   string
		want   time.Duration // 0: unknown
	}{
		"a number":                  {nil, `{"access_token":"t","expires_in":60}`, time.Minute},
		"a number in a string":      {nil, `{"access_token":"t","expires_in":"60"}`, time.Minute},
		"camel case under data":     {nil, `{"success":true,"data":{"accessToken":"t","expiresIn":60}}`, time.Minute},
		"both, expires_in wins":     {nil, `{"access_token":"` + both + `","expires_in":60}`, time.Minute},
		"exp and iat of the JWT":    {nil, `{"access_token":"` + both + `"}`, 15 * time.Minute},
		"JWT and a bad expires_in":  {nil, `{"access_token":"` + both + `","expires_in":"soon"}`, 15 * time.Minute},
		"JWT and a zero":            {nil, `{"access_token":"` + both + `","expires_in":0}`, 15 * time.Minute},
		"exp minus Date":            {date, `{"access_token":"` + expiryOnly + `"}`, 15 * time.Minute},
		"exp minus a very old Date": {http.Header{"Date": {"Mon, 01 Jan 0001 00:00:00 GMT"}}, `{"access_token":"` + expiryOnly + `"}`, century},
		"exp, with an iat of text":  {date, `{"access_token":"e30.eyJleHAiOjE3MDAwMDA5MDAsImlhdCI6Im5vdyJ9.s"}`, 15 * time.Minute}, // {"exp":1700000900,"iat":"now"}
		"exp without a Date":        {nil, `{"access_token":"` + expiryOnly + `"}`, 0},
		"nowhere":                   {date, `{"access_token":"t"}`, 0},
		"negative":                  {nil, `{"access_token":"t","expires_in":-5}`, 0},
		"more than time can count":  {nil, `{"access_token":"t","expires_in":1e300}`, century},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sessions := newSessions(t, nil, func(c *fincodeauth.Config) { c.Base = answering(200, test.header, test.body) })
				logIn(t, sessions, "a")
				tok := token(t, sessions.TokenSource("a"))
				if test.want == 0 && !tok.Expiry.IsZero() || test.want != 0 && time.Until(tok.Expiry) != test.want {
					t.Errorf("the token expires at %v, and now is %v; want a lifetime of %v, where 0 is unknown", tok.Expiry, time.Now(), test.want)
				}
			})
		})
	}
}

func TestFailedConnectionCountsAsNotSent(t *testing.T) {
	// The package learns from httptrace whether a connection was made, and only a
	// real http.Transport calls httptrace.
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refusing := listener.Addr().String()
	listener.Close()
	plain := fincodetest.NewServer(fincodetest.Config{})
	defer plain.Close()
	secured := fincodetest.NewTLSServer(fincodetest.Config{})
	defer secured.Close()
	for name, baseURL := range map[string]string{
		"refused":             "http://" + refusing,
		"unknown certificate": secured.URL,
		"https to plain http": strings.Replace(plain.URL, "http:", "https:", 1),
	} {
		t.Run(name, func(t *testing.T) {
			store := fincodeauth.NewMemoryStore()
			sessions := newSessions(t, nil, withStore(store), func(c *fincodeauth.Config) {
				c.BaseURL, c.Base = baseURL, &http.Transport{}
			})
			if err := sessions.Adopt(t.Context(), "a", &oauth2.Token{RefreshToken: "r-1"}); err != nil {
				t.Fatal(err)
			}
			if _, err := sessions.TokenSource("a").Token(); err == nil {
				t.Fatal("got a token, want an error: there was no connection")
			}
			if rec := record(t, store, "a"); !rec.RefreshStarted.IsZero() {
				t.Errorf("the store has %v, want the claim released", rec)
			}
		})
	}
}

func TestRefreshTokenDoesNotFollowARedirect(t *testing.T) {
	elsewhere := fincodetest.NewServer(fincodetest.Config{})
	defer elsewhere.Close()
	for _, status := range []int{http.StatusFound, http.StatusTemporaryRedirect} {
		srv := fincodetest.NewServer(fincodetest.Config{})
		defer srv.Close()
		sessions := newSessions(t, nil, func(c *fincodeauth.Config) { c.BaseURL, c.Base = srv.URL, nil })
		if err := sessions.Adopt(t.Context(), "a", &oauth2.Token{RefreshToken: "r-1"}); err != nil {
			t.Fatal(err)
		}
		srv.Inject(fincodetest.Refresh, 1, fincodetest.Fault{Kind: fincodetest.Redirect, Status: status, Location: elsewhere.URL + "/securitymanagement/refresh-token"})
		if _, err := sessions.TokenSource("a").Token(); err == nil || errors.Is(err, fincodeauth.ErrLoginRequired) {
			t.Errorf("%d: got error %v, want one that does not end the session", status, err)
		}
	}
	if n := elsewhere.Counts().RefreshCalls; n != 0 {
		t.Errorf("the refresh token was sent to another server %d times, want never", n)
	}
}

func TestNetHTTPDoesNotRepeatARefresh(t *testing.T) {
	// net/http repeats a request with an Idempotency-Key if the connection breaks.
	srv := fincodetest.NewServer(fincodetest.Config{})
	defer srv.Close()
	sessions := newSessions(t, nil, func(c *fincodeauth.Config) {
		c.BaseURL, c.Base = srv.URL, &http.Transport{}
		c.Header = fincodeauth.DefaultHeader()
		c.Header.Set("Idempotency-Key", "always-the-same")
	})
	logIn(t, sessions, "a") // leaves an open connection: net/http repeats only on a used one
	refreshToken := token(t, sessions.TokenSource("a")).RefreshToken
	if err := sessions.Adopt(t.Context(), "a", &oauth2.Token{RefreshToken: refreshToken}); err != nil {
		t.Fatal(err)
	}
	srv.Inject(fincodetest.Refresh, 1, fincodetest.Fault{Kind: fincodetest.HangUp, TakesEffect: true})
	if _, err := sessions.TokenSource("a").Token(); err == nil {
		t.Error("got a token, want an error for the lost answer")
	}
	if n := srv.Presented(refreshToken); n != 1 {
		t.Errorf("the refresh token was presented %d times, want once", n)
	}
}

func TestErrorsAndEventsContainNoSecret(t *testing.T) {
	const secret = "s3cr3t-of-ada"
	echo := roundTripper(func(r *http.Request) (*http.Response, error) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		failure, err := json.Marshal(map[string]any{"success": false, "error": map[string]string{
			"code": secret, "message": "cannot parse " + string(body) + "\nfor " + strings.Repeat("long", 20)}})
		return &http.Response{StatusCode: 400, Request: r, Body: io.NopCloser(bytes.NewReader(failure))}, err
	})
	var text bytes.Buffer
	sessions := newSessions(t, nil, func(c *fincodeauth.Config) {
		c.Base = echo
		c.Observe = func(e fincodeauth.Event) { fmt.Fprintf(&text, "%+v %v\n", e, e.Err) }
	})
	fmt.Fprintln(&text, sessions.Login(t.Context(), "a", fincodeauth.Credentials{Email: "ada@example.com", Password: secret}))
	if err := sessions.Adopt(t.Context(), "a", &oauth2.Token{RefreshToken: secret}); err != nil {
		t.Fatal(err)
	}
	_, err := sessions.TokenSource("a").Token()
	fmt.Fprintln(&text, err)
	if got := text.String(); !strings.Contains(got, "cannot parse") || strings.Contains(got, secret) || strings.Contains(got, "longlong") {
		t.Errorf("got these errors and events, want FinCode's message in them, but no secret and no word as long as a token:\n%s", got)
	}
}

func TestSecretIsRedactedInEverySpelling(t *testing.T) {
	for name, message := range map[string]string{
		"the request":         `cannot parse {"currentPassword":"s3cr3t of \"Ada\" \u0026 \u003csons\u003e"}`,
		"the same, unescaped": `cannot parse {"currentPassword":"s3cr3t of \"Ada\" & <sons>"}`,
		"the request, quoted": `cannot parse "{\"currentPassword\":\"s3cr3t of \\\"Ada\\\" \\u0026 <sons>\"}"`,
		"over two lines":      "wrong password: s3cr3t of\n\"Ada\" & <sons>",
	} {
		t.Run(name, func(t *testing.T) {
			body, err := json.Marshal(map[string]string{"message": message})
			if err != nil {
				t.Fatal(err)
			}
			sessions := newSessions(t, nil, func(c *fincodeauth.Config) { c.Base = answering(400, nil, string(body)) })
			err = sessions.Login(t.Context(), "a", fincodeauth.Credentials{Email: "ada@example.com", Password: secret})
			if err == nil || !strings.HasSuffix(err.Error(), "answered 400: [redacted]") {
				t.Errorf("got error %v, want one whose message is redacted", err)
			}
		})
	}
}

func TestSecretOfOneWordIsRedactedInJSONsSpelling(t *testing.T) {
	const password = "s3cr3t<of>Ada"
	sessions := newSessions(t, nil, func(c *fincodeauth.Config) {
		c.Base = answering(400, nil, `{"message": "cannot parse s3cr3t\\u003cof\\u003eAda"}`)
	})
	err := sessions.Login(t.Context(), "a", fincodeauth.Credentials{Email: "ada@example.com", Password: password})
	if err == nil || !strings.HasSuffix(err.Error(), "answered 400: [redacted]") {
		t.Errorf("got error %v, want one whose message is redacted", err)
	}
}

func TestErrorDoesNotQuoteTheLocation(t *testing.T) {
	for _, location := range []string{"%zz" + secret, "https://elsewhere.example/" + secret} {
		sessions := newSessions(t, nil, func(c *fincodeauth.Config) {
			c.Base = answering(302, http.Header{"Location": {location}}, "")
		})
		err := sessions.Login(t.Context(), "a", credentials)
		var ee *fincodeauth.EndpointError
		if !errors.As(err, &ee) || ee.Status != 302 || strings.Contains(err.Error(), secret) {
			t.Errorf("got error %v, want an EndpointError without the Location", err)
		}
	}
}

func TestLoginFailsIfBaseBreaksItsContract(t *testing.T) {
	for name, base := range map[string]roundTripper{
		"no answer": func(*http.Request) (*http.Response, error) { return nil, nil },
		"no body":   func(*http.Request) (*http.Response, error) { return &http.Response{StatusCode: 200}, nil },
		"a body that is missing": func(*http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 403, ContentLength: 5}, nil
		},
	} {
		sessions := newSessions(t, nil, func(c *fincodeauth.Config) { c.Base = base })
		if err := sessions.Login(t.Context(), "a", credentials); err == nil || errors.Is(err, fincodeauth.ErrAccountLocked) {
			t.Errorf("%s: got error %v, want one other than ErrAccountLocked", name, err)
		}
	}
}

// The body of a 101 is the connection itself, and no context ends a read of it.
func TestBodyOfStatus101IsNotRead(t *testing.T) {
	base := roundTripper(func(*http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: http.StatusSwitchingProtocols, Body: io.NopCloser(nil)}, nil // panics if read
	})
	sessions := newSessions(t, nil, func(c *fincodeauth.Config) { c.Base = base })
	err := sessions.Login(t.Context(), "a", credentials)
	if answered, ok := errors.AsType[*fincodeauth.EndpointError](err); !ok || answered.Status != http.StatusSwitchingProtocols {
		t.Errorf("got error %v, want an EndpointError with status 101", err)
	}
}

// The part that arrives, "403", is valid JSON. It may be the start of a gateway's page.
func TestTruncatedRefusalDoesNotEndTheSession(t *testing.T) {
	truncated := &sameAnswer{answer: answer{status: 403, body: []byte("403"), cut: true}}
	sessions := newSessions(t, nil, func(c *fincodeauth.Config) { c.Base = truncated })
	if err := sessions.Adopt(t.Context(), "a", &oauth2.Token{RefreshToken: "r-1"}); err != nil {
		t.Fatal(err)
	}
	if _, err := sessions.TokenSource("a").Token(); err == nil || errors.Is(err, fincodeauth.ErrLoginRequired) {
		t.Errorf("got error %v, want one that does not end the session", err)
	}
}

func TestRetryAfterIsAtMostACentury(t *testing.T) {
	for value, want := range map[string]time.Duration{
		"NaN": 0, "-5": 0, "1e300": century, "Fri, 31 Dec 9999 23:59:59 GMT": century,
	} {
		header := http.Header{"Retry-After": {value}, "Date": {"Mon, 02 Jan 2006 15:04:05 GMT"}}
		sessions := newSessions(t, nil, func(c *fincodeauth.Config) { c.Base = answering(503, header, "") })
		var ee *fincodeauth.EndpointError
		if err := sessions.Login(t.Context(), "a", credentials); !errors.As(err, &ee) || ee.RetryAfter != want {
			t.Errorf("Retry-After %s: got error %#v, want RetryAfter %v", value, ee, want)
		}
	}
}

func TestRetryAfterDateWithoutADateOfTheAnswerCountsFromNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		header := http.Header{"Retry-After": {time.Now().UTC().Add(30 * time.Second).Format(http.TimeFormat)}}
		sessions := newSessions(t, nil, func(c *fincodeauth.Config) { c.Base = answering(503, header, "") })
		err := sessions.Login(t.Context(), "a", credentials)
		if answer, ok := errors.AsType[*fincodeauth.EndpointError](err); !ok || answer.RetryAfter != 30*time.Second {
			t.Errorf("got error %#v, want RetryAfter 30s", answer)
		}
	})
}

func TestPrintedValuesContainNoSecret(t *testing.T) {
	const secret = "s3cr3t-of-ada"
	tok := &oauth2.Token{AccessToken: secret, RefreshToken: secret}
	store := fincodeauth.NewMemoryStore()
	encrypted, err := fincodeauth.Encrypt(store, []byte("s3cr3t-of-ada-and-19-more-bytes!"))
	if err != nil {
		t.Fatal(err)
	}
	rec := fincodeauth.Record{Version: "1", Token: tok}
	if err := store.Save(t.Context(), "a", &rec, ""); err != nil {
		t.Fatal(err)
	}
	sessions := newSessions(t, nil, withStore(store))
	src := sessions.TokenSource("a")
	token(t, src)
	c := fincodeauth.Credentials{Email: "ada@example.com", Password: secret}
	values := []any{rec, &rec, c, &c, store, encrypted, fincodeauth.LocalStore(nil, nil),
		sessions, src, sessions.Transport("a"), &fincodeauth.Transport{Source: oauth2.StaticTokenSource(tok)}}
	var text bytes.Buffer
	log := slog.New(slog.NewJSONHandler(&text, nil))
	for _, v := range values {
		log.Info("value", "v", v)
	}
	values = append(values, []fincodeauth.Record{rec}, map[string]*fincodeauth.Record{"a": &rec},
		struct{ C fincodeauth.Credentials }{c}, fincodeauth.Config{Store: store}, sessions.Client("a"))
	for _, v := range values {
		fmt.Fprintf(&text, "%v %+v %#v %s %q %d %x\n", v, v, v, v, v, v, v)
	}
	plain, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	text.Write(plain)
	for _, form := range []string{secret, fmt.Sprintf("%x", secret), fmt.Sprintf("%d", []byte(secret))} {
		if form = strings.Trim(form, "[]"); strings.Contains(text.String(), form) {
			t.Errorf("the text contains %q, want no secret:\n%s", form, text.String())
		}
	}
}

func TestPrintedValuesSayWhatTheyAre(t *testing.T) {
	store := fincodeauth.NewMemoryStore()
	encrypted, err := fincodeauth.Encrypt(store, key1)
	if err != nil {
		t.Fatal(err)
	}
	sessions := newSessions(t, nil)
	for _, test := range []struct {
		value any
		want  string
	}{
		{fincodeauth.Record{Version: "v1", Ended: "logged out"}, `Record(version v1, expiry unknown, refreshing false, ended "logged out")`},
		{fincodeauth.Record{Version: "v2", RefreshStarted: time.Now(), Token: &oauth2.Token{Expiry: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}},
			`Record(version v2, expiry 2026-03-01T12:00:00Z, refreshing true, ended "")`},
		{fincodeauth.Credentials{Email: "ada@example.com", Password: "p"}, "Credentials(ada@example.com)"},
		{store, "MemoryStore"},
		{encrypted, "Encrypt(MemoryStore)"},
		{fincodeauth.LocalStore(nil, nil), "LocalStore"},
		{sessions, "Sessions(" + api + ")"},
		{sessions.TokenSource("a"), `TokenSource("a")`},
		{sessions.Transport("a"), "Transport(" + api + ")"},
	} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%d"} {
			if got := fmt.Sprintf(verb, test.value); got != test.want {
				t.Errorf("%s of a %T prints %q, want %q", verb, test.value, got, test.want)
			}
		}
	}
}

func TestRefusalInAnyJSONEndsTheSession(t *testing.T) {
	for _, body := range []string{`"refresh token is invalid"`, `[]`, `null`} {
		synctest.Test(t, func(t *testing.T) {
			fc := fincodetest.New(fincodetest.Config{})
			sessions := newSessions(t, fc, func(c *fincodeauth.Config) {
				c.Base = roundTripper(func(r *http.Request) (*http.Response, error) {
					if strings.HasSuffix(r.URL.Path, "/refresh-token") {
						return &http.Response{StatusCode: 401, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
					}
					return fc.RoundTrip(r)
				})
			})
			logIn(t, sessions, "a")
			time.Sleep(2 * time.Hour)
			if _, err := sessions.TokenSource("a").Token(); !errors.Is(err, fincodeauth.ErrLoginRequired) {
				t.Errorf("body %s: got error %v, want ErrLoginRequired", body, err)
			}
		})
	}
}

func TestEndpointErrorLiteralMatchesItsStatus(t *testing.T) {
	if !errors.Is(&fincodeauth.EndpointError{Op: "login", Status: 401}, fincodeauth.ErrBadCredentials) {
		t.Error("an EndpointError literal of login with status 401 is not ErrBadCredentials, want it to be")
	}
}

func TestMessageIsCutAfterTwoHundredCharacters(t *testing.T) {
	for length, want := range map[int]string{200: "", 201: "…"} {
		message := strings.Repeat("abcd ", 50)[:length-1] + "e"
		body := fmt.Sprintf(`{"message": %q}`, message)
		sessions := newSessions(t, nil, func(c *fincodeauth.Config) { c.Base = answering(400, nil, body) })
		err := sessions.Login(t.Context(), "a", credentials)
		if answer, ok := errors.AsType[*fincodeauth.EndpointError](err); !ok || answer.Message != message[:200]+want {
			t.Errorf("%d characters: got error %v, want the first 200 of its message and %q", length, err, want)
		}
	}
}
