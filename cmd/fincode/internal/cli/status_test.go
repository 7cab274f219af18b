package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/cmd/fincode/internal/failure"
	"github.com/fincodeauth/fincodeauth/cmd/fincode/internal/profile"
	"github.com/fincodeauth/fincodeauth/fincodetest"
)

func TestStatusPresentsNothing(t *testing.T) {
	u := loggedIn(t, fincodetest.Config{})
	u.adopt(time.Now().Add(-time.Minute)) // it would be refreshed if it were used
	before := u.fc.Counts()
	done := make(chan result)
	for range 8 {
		go func() { done <- u.run("status", "--json") }()
	}
	for range 8 {
		if got := <-done; got.status != 0 || !strings.Contains(got.out, `"state": "usable"`) {
			t.Error(got)
		}
	}
	if after := u.fc.Counts(); after != before {
		t.Errorf("FinCode saw %+v, and before %+v", after, before)
	}
}

func TestStatusKnowsTheLastRotationOfATokenThatDoesNotSayIt(t *testing.T) {
	u := loggedIn(t, fincodetest.Config{OpaqueTokens: true})
	at, err := time.Parse(time.RFC3339, fmt.Sprint(u.status(0)["refreshed_at"]))
	if err != nil || time.Since(at) > time.Minute {
		t.Errorf("refreshed_at is %v, %v; want the time of the login", at, err)
	}
}

// statusOf returns what status --json prints.
func (u *user) status(want int, args ...string) map[string]any {
	u.Helper()
	got := u.want(want, append([]string{"status", "--json"}, args...)...)
	if got.err != "" || strings.Contains(got.out, "\x1b") {
		u.Errorf("standard error, or escape codes: %v", got)
	}
	var v map[string]any
	if err := json.Unmarshal([]byte(got.out), &v); err != nil {
		u.Fatal(err)
	}
	return v
}

func TestStatusSaysWhyALoginIsNeeded(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name                string
		fault               fincodetest.Fault
		steal               bool
		problem             string
		reused, interrupted bool
	}{
		{"refused", fincodetest.Fault{Kind: fincodetest.ErrorStatus, Status: 401}, false, "has ended", false, false},
		{"stolen", fincodetest.Fault{Kind: fincodetest.ErrorStatus, Status: 403}, true, "POSSIBLE BREACH", true, false},
		{"interrupted", fincodetest.Fault{Kind: fincodetest.HangUp, TakesEffect: true}, false, "was lost", true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := loggedIn(t, fincodetest.Config{})
			u.adopt(time.Now().Add(-time.Minute))
			u.fc.Inject(fincodetest.Refresh, 1, c.fault)
			u.eventually("ended", func() bool { return u.run("token", "--refresh-timeout", "1s").status == 3 })
			v := u.status(3)
			if v["state"] != "login_needed" || v["reused"] != c.reused || v["interrupted"] != c.interrupted || v["ended"] == "" ||
				!strings.Contains(v["problem"].(string), c.problem) {
				t.Errorf("%v", v)
			}
		})
	}
}

func TestStatusOfATokenWithoutRefresh(t *testing.T) {
	u := loggedIn(t, fincodetest.Config{})
	tok := fixedToken(time.Now().Add(-time.Minute))
	if err := u.open().Adopt(context.Background(), "default", tok); err != nil {
		t.Fatal(err)
	}
	if v := u.status(3); !strings.Contains(v["problem"].(string), "no refresh token") {
		t.Errorf("%v", v)
	}
	tok.Expiry = time.Time{}
	if err := u.open().Adopt(context.Background(), "default", tok); err != nil {
		t.Fatal(err)
	}
	if v := u.status(0); v["expires_at"] != nil || v["refresh_at"] != nil {
		t.Errorf("%v", v)
	}
}

func TestStatusShowsARefreshThatIsUnderWay(t *testing.T) {
	now := time.Now()
	for age, want := range map[time.Duration]string{5 * time.Second: "began at", time.Minute: "died"} {
		v := statusView{takeover: 30 * time.Second}
		v.setSession(fincodeauth.Status{Exists: true, RefreshStarted: now.Add(-age)}, now)
		var text strings.Builder
		printViews(&text, []statusView{v}, now)
		if !strings.Contains(text.String(), want) {
			t.Errorf("after %v: %s", age, text.String())
		}
	}
}

func TestStatusShowsNoControlCharacters(t *testing.T) {
	v := statusView{}
	v.setSession(fincodeauth.Status{Exists: true, Claims: fincodeauth.Claims{UserID: "\x1b[31mada", Roles: []string{"a\nb", "\u009b31m"}}}, time.Now())
	var text strings.Builder
	if err := printJSON(&text, v); err != nil || strings.ContainsAny(text.String(), "\x1b\u009b") || !strings.Contains(text.String(), `"\u009b31m"`) {
		t.Errorf("%v: %q", err, text.String())
	}
	for _, row := range v.rows(time.Now()) {
		if failure.Plain(row.text) != row.text {
			t.Errorf("%q", row.text)
		}
	}
}

func TestStatusShowsWhatIsBroken(t *testing.T) {
	u := loggedIn(t, fincodetest.Config{})
	records, err := filepath.Glob(filepath.Join(u.sessions(), "*", "*.json"))
	if err != nil || len(records) != 1 {
		t.Fatal(records, err)
	}
	if err := os.WriteFile(records[0], []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if v := u.status(5); v["state"] != "unknown" || !strings.Contains(v["problem"].(string), "run fincode forget, then log in again") {
		t.Errorf("a damaged record: %v", v)
	}
	u.golden("status-damaged", strings.ReplaceAll(u.want(5, "status").out, filepath.Base(records[0]), "RECORD"))

	v := u.status(5, "--store", "postgres://ada:hunter2@127.0.0.1:1/test?sslpassword=hunter2", "--refresh-timeout", "2s")
	if v["state"] != "unknown" || !strings.Contains(v["store"].(string), "127.0.0.1:1") {
		t.Errorf("a store that is down: %v", v)
	}
	text, _ := json.Marshal(v)
	wantNoSecret(t, string(text))

	delete(u.env, "FINCODE_KEY")
	if v := u.status(3); v["state"] != "login_needed" {
		t.Errorf("without a key: %v", v)
	}
	if err := os.WriteFile(filepath.Join(u.env["FINCODE_STATE"], "profiles", "default", "profile.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if v := u.status(5); !strings.Contains(v["problem"].(string), "is damaged") {
		t.Errorf("a damaged profile: %v", v)
	}
}

// A new token that the store did not accept is in the profile's journal.
func TestStatusShowsWhatIsUnsaved(t *testing.T) {
	t.Parallel()
	u := loggedIn(t, fincodetest.Config{})
	const store = "redis://127.0.0.1:1/0"
	shard := filepath.Join(profile.At(u.env["FINCODE_STATE"]).JournalFolder(profile.Profile{Name: "default", Store: store}), "ab")
	if err := os.MkdirAll(shard, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(shard, "entry.json"), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if v := u.status(5, "--store", store, "--refresh-timeout", "1s"); v["unsaved"] != true {
		t.Errorf("%v", v)
	}
	if v := u.status(0); v["unsaved"] != false {
		t.Errorf("%v", v)
	}
}

func TestStatusOfAllProfiles(t *testing.T) {
	u := newUser(t, fincodetest.Config{})
	if got := u.want(3, "status", "--all", "--json"); got.out != "[]\n" {
		t.Error(got)
	}
	u.login("one")
	u.login("two")
	u.env["FINCODE_URL"] = "http://127.0.0.1:1" // of another FinCode: the profiles have their own
	got := u.want(0, "status", "--all")
	u.golden("status-all", got.out)
	delete(u.env, "FINCODE_URL")
	u.want(0, "forget", "--yes", "--profile", "two")
	var views []statusView
	if err := json.Unmarshal([]byte(u.want(3, "status", "--all", "--json").out), &views); err != nil {
		t.Fatal(err)
	}
	if len(views) != 2 || views[0].State != stateUsable || views[1].State != stateLoginNeeded {
		t.Errorf("%+v", views)
	}
}

func TestStatusWatchNeedsATerminal(t *testing.T) {
	u := loggedIn(t, fincodetest.Config{})
	u.want(2, "status", "--watch")
	u.want(2, "status", "--watch", "--json")
}
