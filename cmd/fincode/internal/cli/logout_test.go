package cli

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/oauth2"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/fincodetest"
)

// fixedToken returns a token without a refresh token.
func fixedToken(expiry time.Time) *oauth2.Token {
	return &oauth2.Token{AccessToken: "fixed", Expiry: expiry}
}

func TestLogoutEndsTheSessionEverywhere(t *testing.T) {
	u := loggedIn(t, fincodetest.Config{})
	u.adopt(time.Now().Add(30 * time.Minute)) // old enough that a 401 may be because of its age
	other := u.open()                         // a proxy, for instance, that has the session in its memory
	if _, err := other.TokenSource("default").TokenContext(context.Background()); err != nil {
		t.Fatal(err)
	}
	u.want(0, "logout")
	if c := u.fc.Counts(); c.Logouts != 1 {
		t.Errorf("%+v", c)
	}
	u.want(3, "call", "GET", "/whoami")
	u.want(0, "logout") // again
	if st, err := u.open().Status(context.Background(), "default"); err != nil || st.Exists {
		t.Errorf("%+v, %v", st, err)
	}
	resp, err := other.Client("default").Get(u.fc.URL + "/whoami")
	if err == nil {
		resp.Body.Close()
	}
	if !errors.Is(err, fincodeauth.ErrLoginRequired) {
		t.Errorf("the other process: %v, %v", resp, err)
	}
	if st, err := u.open().Status(context.Background(), "default"); err != nil || st.Exists {
		t.Errorf("the other process brought the session back: %+v, %v", st, err)
	}
	u.login("default")
	u.want(0, "call", "GET", "/whoami")
}

func TestLogoutThatFinCodeDidNotConfirm(t *testing.T) {
	u := loggedIn(t, fincodetest.Config{})
	u.fc.Inject(fincodetest.Logout, 1, fincodetest.Fault{Kind: fincodetest.ErrorStatus, Status: 503})
	got := u.want(6, "logout")
	if !strings.Contains(got.err, "did not confirm") {
		t.Error(got)
	}
	u.want(3, "status")
	if st, err := u.open().Status(context.Background(), "default"); err != nil || st.Exists {
		t.Errorf("%+v, %v", st, err)
	}
}

func TestLogoutDoesNotSendTokensElsewhere(t *testing.T) {
	u := loggedIn(t, fincodetest.Config{})
	other := fincodetest.NewServer(fincodetest.Config{})
	defer other.Close()
	u.want(2, "logout", "--url", other.URL)
	u.want(0, "status")
}

func TestLogoutKeepsAProfileWhoseSessionIsNotOut(t *testing.T) {
	u := loggedIn(t, fincodetest.Config{})
	damage(u)
	u.want(5, "logout")
	if v := u.status(5); v["url"] != u.fc.URL {
		t.Errorf("%v", v)
	}
}

// damage breaks the session's record.
func damage(u *user) {
	u.Helper()
	records, err := filepath.Glob(filepath.Join(u.sessions(), "*", "*.json"))
	if err != nil || len(records) != 1 {
		u.Fatal(records, err)
	}
	if err := os.WriteFile(records[0], []byte("{"), 0o600); err != nil {
		u.Fatal(err)
	}
}

func TestLogoutOfAllGoesOnAfterAFailure(t *testing.T) {
	u := newUser(t, fincodetest.Config{})
	u.want(0, "logout", "--all")
	for _, name := range []string{"a", "b", "c"} {
		u.login(name)
	}
	u.fc.Inject(fincodetest.Logout, 1, fincodetest.Fault{Kind: fincodetest.HangUp})
	got := u.want(6, "logout", "--all")
	if !strings.Contains(got.err, "fincode: a: ") || u.fc.Counts().Logouts != 2 {
		t.Errorf("%+v, %v", u.fc.Counts(), got)
	}
	u.want(3, "status", "--all")
}

func TestForgetRemovesWhateverIsThere(t *testing.T) {
	u := loggedIn(t, fincodetest.Config{})
	u.want(2, "forget") // there is no terminal to ask
	u.want(0, "status")
	u.want(0, "forget", "--yes")
	u.want(3, "status")
	u.want(0, "forget", "--yes") // again
	if c := u.fc.Counts(); c.Logouts+c.RefreshCalls != 0 {
		t.Errorf("FinCode was told: %+v", c)
	}

	u.login("default")
	damage(u)
	u.want(5, "status")
	u.want(0, "forget", "--yes")
	u.login("default")
	u.want(0, "call", "GET", "/whoami")

	key := u.env["FINCODE_KEY"]
	delete(u.env, "FINCODE_KEY") // it is lost
	u.want(3, "logout")
	u.want(0, "forget", "--yes")
	u.want(0, "logout")
	u.env["FINCODE_KEY"] = key
	u.want(3, "status")
	u.login("default")
	u.want(0, "status")

	u.env["FINCODE_KEY"] = strings.Repeat("B", 43) + "=" // it is another one
	u.want(5, "status")
	u.want(0, "forget", "--yes")
	u.want(3, "status")
}

func TestForgetWithoutAProfile(t *testing.T) {
	newUser(t, fincodetest.Config{}).want(3, "forget", "--yes")
}
