package compose

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/fincodetest"
)

// api is where a FinCode without a socket is. Any host will do.
const api = "https://compose.fincode.software" + fincodetest.Root

// lifetime is that of an access token.
const lifetime = time.Hour

// The users, by session key. Each has a user at FinCode.
const (
	ada   = "ada"
	grace = "grace"
)

// newFinCode returns a FinCode that knows the users.
func newFinCode() *fincodetest.FinCode {
	fc := fincodetest.New(fincodetest.Config{AccessLifetime: lifetime})
	for _, key := range []string{ada, grace} {
		fc.AddUser(email(key), fincodetest.Password)
	}
	return fc
}

func email(key string) string { return key + "@example.com" }

// newSessions logs both users in. An empty BaseURL means api.
func newSessions(t *testing.T, cfg fincodeauth.Config) *fincodeauth.Sessions {
	t.Helper()
	cfg.BaseURL = cmp.Or(cfg.BaseURL, api)
	sessions, err := fincodeauth.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := sessions.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	for _, key := range []string{ada, grace} {
		err := sessions.Login(t.Context(), key, fincodeauth.Credentials{Email: email(key), Password: fincodetest.Password})
		if err != nil {
			t.Fatal(err)
		}
	}
	return sessions
}

// revoke revokes all access tokens when they are old enough to be refreshed for
// a 401.
func revoke(fc *fincodetest.FinCode) {
	time.Sleep(time.Minute)
	fc.RevokeAccessTokens()
}

// age makes the tokens of the sessions half an hour old, where time cannot pass: on
// sockets.
func age(t *testing.T, sessions *fincodeauth.Sessions) {
	t.Helper()
	for _, key := range []string{ada, grace} {
		tok, err := sessions.TokenSource(key).Token()
		if err != nil {
			t.Fatal(err)
		}
		old := *tok // Token's result is shared
		old.Expiry = time.Now().Add(lifetime / 2)
		if err := sessions.Adopt(t.Context(), key, &old); err != nil {
			t.Fatal(err)
		}
	}
}

// steal refreshes Ada's session without the Sessions, as a thief would.
func steal(t *testing.T, sessions *fincodeauth.Sessions, fc *fincodetest.FinCode) {
	t.Helper()
	tok, err := sessions.TokenSource(ada).Token()
	if err != nil {
		t.Fatal(err)
	}
	body := strings.NewReader(fmt.Sprintf(`{"refresh_token":%q}`, tok.RefreshToken))
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, api+"/securitymanagement/refresh-token", body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header = fincodeauth.DefaultHeader()
	resp, err := fc.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("the thief gets %s, want 200", resp.Status)
	}
}

// guarded is FinCode with other endpoints: next answers the calls of the API that
// have a good token.
func guarded(fc *fincodetest.FinCode, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, fincodetest.Root+"/securitymanagement/") {
			fc.ServeHTTP(w, r)
			return
		}
		probe := httptest.NewRequestWithContext(r.Context(), http.MethodGet, fincodetest.Root+"/whoami", nil)
		probe.Header = r.Header.Clone()
		answer := httptest.NewRecorder()
		fc.ServeHTTP(answer, probe)
		if answer.Code != http.StatusOK {
			io.Copy(io.Discard, r.Body) // so that the client, which is still sending, finds the answer
			w.WriteHeader(answer.Code)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// get sends a request of a user.
func get(t *testing.T, rt http.RoundTripper, key string) (*http.Response, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(fincodeauth.WithSession(t.Context(), key), http.MethodGet, api+"/whoami", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := rt.RoundTrip(req)
	if err == nil {
		resp.Body.Close()
	}
	return resp, err
}

// wantAlarm checks that err is a reuse, and whether it is one that raises the
// alarm.
func wantAlarm(t *testing.T, err error, want bool) {
	t.Helper()
	session, ok := errors.AsType[*fincodeauth.SessionError](err)
	if !ok || !session.Reused {
		t.Fatalf("the caller gets %v, want a *SessionError with Reused", err)
	}
	if alarm := !session.Interrupted; alarm != want {
		t.Errorf("Interrupted is %t, want %t", session.Interrupted, !want)
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// A reader hides what kind of reader it is, so that net/http cannot read it
// twice.
type reader struct{ io.Reader }

// bodyOf reads an answer.
func bodyOf(t *testing.T, resp *http.Response) string {
	t.Helper()
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// wantEcho checks that resp is FinCode's echo of a request with this body.
func wantEcho(t *testing.T, resp *http.Response, body string) {
	t.Helper()
	echo := bodyOf(t, resp)
	if resp.StatusCode != http.StatusOK || !strings.Contains(echo, fmt.Sprintf(`"body":%q`, body)) {
		t.Errorf("%s %s, want the echo of %s", resp.Status, echo, body)
	}
}
