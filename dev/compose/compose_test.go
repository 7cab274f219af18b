package compose

import (
	"context"
	"fmt"
	"io"
	"net/http"
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

// newSessions logs both users in.
func newSessions(t *testing.T, cfg fincodeauth.Config) *fincodeauth.Sessions {
	t.Helper()
	cfg.BaseURL = api
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
