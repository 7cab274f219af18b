package cli

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/fincodeauth/fincodeauth/fincodetest"
)

func TestTokenIsValid(t *testing.T) {
	u := loggedIn(t, fincodetest.Config{})
	u.adopt(time.Now().Add(-time.Second))
	plain := strings.TrimSpace(u.want(0, "token").out)
	if c := u.fc.Counts(); c.Refreshes != 1 {
		t.Errorf("%+v", c)
	}
	if header := u.want(0, "token", "--header").out; header != "Authorization: Bearer "+plain+"\n" {
		t.Errorf("another header than the token %s: %s", plain, header)
	}
	if strings.Count(plain, ".") != 2 || strings.Contains(plain, "\n") {
		t.Errorf("no JWT: %q", plain)
	}
}

func TestTokenThatIsDueIsRefreshedFirst(t *testing.T) {
	t.Parallel()
	u := loggedIn(t, fincodetest.Config{RevokeOnRotation: true})
	u.adopt(time.Now().Add(time.Minute))
	u.fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{Kind: fincodetest.ErrorStatus, Status: 503})
	old := u.want(0, "token", "--refresh-timeout", "1s").out // FinCode is down, but the token is valid
	if next := u.want(0, "token", "--refresh-timeout", "1s").out; next == old || u.want(0, "token").out != next {
		t.Error("the token that is due was not refreshed once")
	}
	if c := u.fc.Counts(); c.Refreshes != 1 || c.RefreshCalls != 2 {
		t.Errorf("%+v", c)
	}
}

func TestTokenIsAnExecCredential(t *testing.T) {
	u := loggedIn(t, fincodetest.Config{})
	plain := strings.TrimSpace(u.want(0, "token").out)
	for _, version := range []string{"", "client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1"} {
		delete(u.env, "KUBERNETES_EXEC_INFO")
		want := version
		if version == "" {
			want = "client.authentication.k8s.io/v1"
		} else {
			u.env["KUBERNETES_EXEC_INFO"] = `{"kind":"ExecCredential","apiVersion":"` + version + `","spec":{"interactive":false}}`
		}
		var got struct {
			Kind, APIVersion string
			Status           struct {
				Token               string
				ExpirationTimestamp time.Time
			}
		}
		if err := json.Unmarshal([]byte(u.want(0, "token", "--json").out), &got); err != nil {
			t.Fatal(err)
		}
		left := time.Until(got.Status.ExpirationTimestamp)
		if got.Kind != "ExecCredential" || got.APIVersion != want || got.Status.Token != plain || left < 59*time.Minute || left > time.Hour {
			t.Errorf("%q: %+v", version, got)
		}
	}
}

func TestTokenSaysWhatIsWrong(t *testing.T) {
	u := newUser(t, fincodetest.Config{})
	u.want(3, "token")
	u.want(2, "token", "--header", "--json")
	for _, info := range []string{"hunter2", `{"kind":"Pod","apiVersion":"v1"}`, `{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v2"}`} {
		u.env["KUBERNETES_EXEC_INFO"] = info
		wantNoSecret(t, u.want(2, "token", "--json").err)
	}
}
