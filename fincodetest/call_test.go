package fincodetest_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/fincodeauth/fincodeauth/fincodetest"
	"github.com/jarcoal/httpmock"
)

func TestLoginAnswersWithTheReasonOfAFailure(t *testing.T) {
	fc := fincodetest.New(fincodetest.Config{})
	for _, test := range []struct {
		name, email, password string
		status                int
		code                  string
	}{
		{"right", fincodetest.Email, fincodetest.Password, 200, ""},
		{"wrong password", fincodetest.Email, "wrong", 401, "AUTH_REQUIRED"},
		{"no such user", "nobody@example.com", "x", 404, "NOT_FOUND"},
		{"no email", "", "x", 422, "VALIDATION_ERROR"},
		{"no password", fincodetest.Email, "", 422, "VALIDATION_ERROR"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := login(t, fc, test.email, test.password)
			wantStatus(t, "login", got, test.status)
			if got.code() != test.code {
				t.Errorf("code %q, want %q", got.code(), test.code)
			}
		})
	}
}

func TestFailedLoginsInARowLockTheAccount(t *testing.T) {
	for _, test := range []struct{ config, failures int }{{0, 5}, {2, 2}} {
		fc := fincodetest.New(fincodetest.Config{MaxFailedLogins: test.config})
		attempt := func(password string, status int) {
			t.Helper()
			wantStatus(t, "login", login(t, fc, fincodetest.Email, password), status)
		}
		for range test.failures - 1 {
			attempt("wrong", 401)
		}
		attempt(fincodetest.Password, 200) // the count of failures starts again
		for range test.failures {
			attempt("wrong", 401)
		}
		attempt(fincodetest.Password, 403)
		fc.AddUser(fincodetest.Email, fincodetest.Password)
		attempt(fincodetest.Password, 200)
	}
}

func TestAddedUserLogsInManyTimes(t *testing.T) {
	fc := fincodetest.New(fincodetest.Config{RevokeFamilyOnReuse: true})
	fc.AddUser("grace@example.com", "hopper")
	first, second := login(t, fc, "grace@example.com", "hopper"), login(t, fc, "grace@example.com", "hopper")
	refresh(t, fc, first.refresh())
	refresh(t, fc, first.refresh())
	wantStatus(t, "the reused session", whoami(t, fc, first.access()), 401)
	wantStatus(t, "the other session", whoami(t, fc, second.access()), 200)
	if got, other := claims(t, first.access())["user-id"], claims(t, session(t, fc).access())["user-id"]; got == other {
		t.Errorf("two users have the same user-id: %v", got)
	}
}

func TestRefreshTokenWorksOnce(t *testing.T) {
	fc := fincodetest.New(fincodetest.Config{})
	first := session(t, fc)
	second := refresh(t, fc, first.refresh())
	wantStatus(t, "first use", second, 200)
	if second.refresh() == first.refresh() || second.access() == first.access() {
		t.Error("a refresh returned an old token")
	}
	wantStatus(t, "second use", refresh(t, fc, first.refresh()), 403)
	wantStatus(t, "the old access token", whoami(t, fc, first.access()), 200)
	wantStatus(t, "the new access token", whoami(t, fc, second.access()), 200)
	wantStatus(t, "the successor", refresh(t, fc, second.refresh()), 200)
}

func TestRefreshRefusesEverythingButRefreshTokens(t *testing.T) {
	fc := fincodetest.New(fincodetest.Config{})
	wantStatus(t, "unknown", refresh(t, fc, "unknown"), 401)
	wantStatus(t, "an access token", refresh(t, fc, session(t, fc).access()), 401)
	wantStatus(t, "none", refresh(t, fc, ""), 422)
}

func TestReuseRevokesTheFamilyIfAsked(t *testing.T) {
	fc := fincodetest.New(fincodetest.Config{RevokeFamilyOnReuse: true})
	first := session(t, fc)
	second := refresh(t, fc, first.refresh())
	wantStatus(t, "reuse", refresh(t, fc, first.refresh()), 403)
	wantStatus(t, "the first access token", whoami(t, fc, first.access()), 401)
	wantStatus(t, "the second access token", whoami(t, fc, second.access()), 401)
	wantStatus(t, "the successor", refresh(t, fc, second.refresh()), 401)
}

func TestRotationRevokesThePreviousAccessTokenIfAsked(t *testing.T) {
	fc := fincodetest.New(fincodetest.Config{RevokeOnRotation: true})
	first := session(t, fc)
	second := refresh(t, fc, first.refresh())
	wantStatus(t, "the old access token", whoami(t, fc, first.access()), 401)
	wantStatus(t, "the new access token", whoami(t, fc, second.access()), 200)
}

func TestKeptRefreshTokenStaysValid(t *testing.T) {
	fc := fincodetest.New(fincodetest.Config{KeepRefreshToken: true})
	first := session(t, fc)
	for range 3 {
		got := refresh(t, fc, first.refresh())
		wantStatus(t, "refresh", got, 200)
		if got.access() == "" || got.access() == first.access() || got.refresh() != "" {
			t.Errorf("got %s, want a new access token and no refresh token", got.body)
		}
	}
}

func TestLogoutRevokesBothTokens(t *testing.T) {
	fc := fincodetest.New(fincodetest.Config{})
	s, other := session(t, fc), session(t, fc)
	wantStatus(t, "no access token", must(t, fc, logoutRequest("", s.refresh())), 401)
	wantStatus(t, "another session's refresh token", must(t, fc, logoutRequest(s.access(), other.refresh())), 401)
	wantStatus(t, "no refresh token", must(t, fc, logoutRequest(s.access(), "")), 422)
	bearerOnly := logoutRequest(s.access(), s.refresh())
	bearerOnly.Header.Del("x-auth-token")
	bearerOnly.Header.Set("Authorization", "Bearer "+s.access())
	wantStatus(t, "no x-auth-token", must(t, fc, bearerOnly), 401)

	got := must(t, fc, logoutRequest(s.access(), s.refresh()))
	wantStatus(t, "logout", got, 200)
	if got.json()["message"] == nil {
		t.Errorf("logout: body %s, want a message", got.body)
	}
	wantStatus(t, "the access token", whoami(t, fc, s.access()), 401)
	wantStatus(t, "the refresh token", refresh(t, fc, s.refresh()), 401)
	wantStatus(t, "the other session", whoami(t, fc, other.access()), 200)
}

func TestAnswerToAMalformedCallNamesTheMistake(t *testing.T) {
	fc := fincodetest.New(fincodetest.Config{})
	access := session(t, fc).access()
	for _, test := range []struct {
		name         string
		request      *http.Request
		dropHeader   string
		status       int
		bodyContains string
	}{
		{"method", newRequest(t.Context(), "POST", host+"/securitymanagement/login", "{}"), "", 405, "PUT"},
		{"body", newRequest(t.Context(), "PUT", host+"/securitymanagement/login", "{"), "", 400, "JSON"},
		{"body of another type", newRequest(t.Context(), "PUT", host+"/securitymanagement/logout", "[]"), "", 400, "JSON"},
		{"content type", refreshRequest(t.Context(), "x"), "Content-Type", 400, "Content-Type"},
		{"platform", loginRequest("a", "b"), "platform", 400, "platform"},
		{"uuid", apiRequest("GET", "/whoami", "", access), "uuid", 400, "uuid"},
		{"root", newRequest(t.Context(), "GET", "https://x/api/v5/services/whoami", ""), "", 404, fincodetest.Root},
		{"prefix of the root", newRequest(t.Context(), "GET", host+"-x", ""), "", 404, fincodetest.Root},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.request.Header.Del(test.dropHeader)
			got := must(t, fc, test.request)
			wantStatus(t, "call", got, test.status)
			if !strings.Contains(got.body, test.bodyContains) {
				t.Errorf("the body does not contain %q: %s", test.bodyContains, got.body)
			}
		})
	}
}

func TestTrailingSlashIsIgnored(t *testing.T) {
	fc := fincodetest.New(fincodetest.Config{})
	r := loginRequest(fincodetest.Email, fincodetest.Password)
	r.URL.Path += "/"
	wantStatus(t, "login", must(t, fc, r), 200)
}

func TestAccessTokenIsAcceptedInEitherHeader(t *testing.T) {
	fc := fincodetest.New(fincodetest.Config{})
	s, other := session(t, fc), session(t, fc)
	for _, test := range []struct {
		name                  string
		authorization, xToken []string
		status                int
	}{
		{"Authorization", []string{"Bearer " + s.access()}, nil, 200},
		{"Authorization in lower case", []string{"bearer " + s.access()}, nil, 200},
		{"X-Auth-Token", nil, []string{s.access()}, 200},
		{"both", []string{"Bearer " + s.access()}, []string{s.access()}, 200},
		{"two different", []string{"Bearer " + s.access()}, []string{other.access()}, 401},
		{"two different in one header", nil, []string{s.access(), other.access()}, 401},
		{"another scheme", []string{"Basic " + s.access()}, []string{s.access()}, 401},
		{"neither", nil, nil, 401},
		{"a refresh token", nil, []string{s.refresh()}, 401},
		{"tampered with", nil, []string{s.access() + "x"}, 401},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newRequest(t.Context(), "GET", host+"/whoami", "")
			r.Header["Authorization"], r.Header["X-Auth-Token"] = test.authorization, test.xToken
			got := must(t, fc, r)
			wantStatus(t, "whoami", got, test.status)
			if test.status == 401 && got.code() != "AUTH_REQUIRED" {
				t.Errorf("code %q, want AUTH_REQUIRED", got.code())
			}
		})
	}
}

func TestRevokedAccessTokensAreRefusedAndRefreshed(t *testing.T) {
	fc := fincodetest.New(fincodetest.Config{})
	a, b := session(t, fc), session(t, fc)
	fc.RevokeAccessToken(a.access())
	fc.RevokeAccessToken("unknown")
	wantStatus(t, "the revoked one", whoami(t, fc, a.access()), 401)
	wantStatus(t, "the other", whoami(t, fc, b.access()), 200)
	fc.RevokeAccessTokens()
	wantStatus(t, "all revoked", whoami(t, fc, b.access()), 401)
	wantStatus(t, "refreshed", whoami(t, fc, refresh(t, fc, b.refresh()).access()), 200)
}

func TestAPIEchoesTheRequest(t *testing.T) {
	fc := fincodetest.New(fincodetest.Config{})
	r := apiRequest("POST", "/customers/7?expand=all&expand=none", `{"name":"Ada"}`, session(t, fc).access())
	r.Header.Set("X-Custom", "kept")
	got := must(t, fc, r)
	wantStatus(t, "echo", got, 200)
	data := got.json()["data"].(map[string]any)
	for field, want := range map[string]string{"method": "POST", "path": "/customers/7", "body": `{"name":"Ada"}`} {
		if data[field] != want {
			t.Errorf("%s = %v, want %s", field, data[field], want)
		}
	}
	if query := data["query"].(map[string]any)["expand"].([]any); len(query) != 2 {
		t.Errorf("query: expand = %v, want two values", query)
	}
	if values := data["headers"].(map[string]any)["X-Custom"].([]any); values[0] != "kept" {
		t.Errorf("headers: X-Custom = %v, want kept", values)
	}
}

func TestEchoOfALongBodyIsCapped(t *testing.T) {
	fc := fincodetest.New(fincodetest.Config{})
	body := strings.Repeat("x", 3<<20)
	r := apiRequest("POST", "/upload", body, session(t, fc).access())
	source := strings.NewReader(body)
	r.Body = io.NopCloser(source)
	got := must(t, fc, r)
	if echoed := got.json()["data"].(map[string]any)["body"].(string); len(echoed) != 1<<20 {
		t.Errorf("%d bytes were echoed, want 1 MiB", len(echoed))
	}
	if source.Len() != 0 {
		t.Errorf("%d bytes were not read, want all to be read", source.Len())
	}
}

func TestRoundTripClosesTheBodyAndObeysItsContext(t *testing.T) {
	fc := fincodetest.New(fincodetest.Config{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r := refreshRequest(ctx, "x")
	body := &closeRecorder{Reader: r.Body}
	r.Body = body
	if _, err := fc.RoundTrip(r); err != context.Canceled {
		t.Errorf("error %v, want context.Canceled", err)
	}
	if !body.closed {
		t.Error("the request's body was not closed")
	}
}

type closeRecorder struct {
	io.Reader
	closed bool
}

func (c *closeRecorder) Close() error { c.closed = true; return nil }

func TestHeadHasNoBody(t *testing.T) {
	fc := fincodetest.New(fincodetest.Config{})
	got := must(t, fc, apiRequest("HEAD", "/customers", "", session(t, fc).access()))
	if got.status != 200 || got.body != "" {
		t.Errorf("status %d, body %q; want 200 and an empty body", got.status, got.body)
	}
}

func TestAnswersUnderHTTPMock(t *testing.T) {
	mock := httpmock.NewMockTransport()
	mock.RegisterNoResponder(fincodetest.New(fincodetest.Config{}).RoundTrip)
	wantStatus(t, "whoami", whoami(t, mock, session(t, mock).access()), 200)
}
