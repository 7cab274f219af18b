package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fincodeauth/fincodeauth/fincodetest"
)

func TestCallTakesAPathInEveryForm(t *testing.T) {
	u := loggedIn(t, fincodetest.Config{})
	origin := strings.TrimSuffix(u.fc.URL, fincodetest.Root)
	for _, path := range []string{"/whoami", "whoami", fincodetest.Root + "/whoami", u.fc.URL + "/whoami", strings.ToUpper(origin[:4]) + origin[4:] + fincodetest.Root + "/whoami"} {
		if got := u.want(0, "call", "get", path); !strings.Contains(got.out, `"user-id"`) {
			t.Errorf("%s: %v", path, got)
		}
	}
	if got := u.want(0, "call", "GET", "/x/a%2Fb?c=d e&f=%20"); !strings.Contains(got.out, `"query":{"c":["d e"],"f":[" "]}`) {
		t.Errorf("a query: %v", got)
	}
}

func TestNoTokenLeavesForAnotherOrigin(t *testing.T) {
	u := loggedIn(t, fincodetest.Config{})
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("another origin got a request") }))
	defer other.Close()
	host := strings.TrimPrefix(other.URL, "http://")
	for _, path := range []string{
		other.URL + "/whoami", "//" + host + "/whoami", "https://" + strings.TrimPrefix(u.fc.URL, "http://") + "/whoami",
		"http://user:hunter2@" + strings.TrimPrefix(u.fc.URL, "http://"), "mailto:ada@example.com", "http:/whoami", "/a#b", "/%zz",
	} {
		got := u.want(2, "call", "GET", path)
		wantNoSecret(t, got.err)
	}
	u.want(2, "call", "GET", "/whoami", "--url", other.URL)
	u.want(2, "token", "--tenant", "acme")
	u.want(0, "call", "GET", "/whoami", "--url", u.fc.URL+"/")
	u.fc.Inject(fincodetest.API, 1, fincodetest.Fault{Kind: fincodetest.Redirect, Location: other.URL + "/stolen"})
	if got := u.want(0, "call", "POST", "/x", "-d", "{}"); !strings.Contains(got.err, "does not follow") {
		t.Errorf("a redirect: %v", got)
	}
}

func TestCallRefusesWhatHoldsTokens(t *testing.T) {
	u := loggedIn(t, fincodetest.Config{})
	before := u.fc.Counts()
	for _, path := range []string{
		"/securitymanagement/login", "securitymanagement/refresh-token?x", "/SecurityManagement/logout/", "/x/../securitymanagement//login",
		"/%73ecuritymanagement/login", "/securitymanagement/login;x=1", u.fc.URL + "/securitymanagement/logout",
	} {
		u.want(2, "call", "PUT", path)
	}
	for _, method := range []string{"TRACE", "connect", "", "G T", "/whoami"} {
		u.want(2, "call", method, "/whoami")
	}
	if after := u.fc.Counts(); after != before {
		t.Errorf("FinCode got calls: %+v", after)
	}
}

func TestCallSendsBodyAndHeader(t *testing.T) {
	u := loggedIn(t, fincodetest.Config{})
	file := filepath.Join(t.TempDir(), "body")
	if err := os.WriteFile(file, []byte("from a file"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ data, in, want string }{
		{"a text", "", "a text"},
		{"", "", ""},
		{"@" + file, "", "from a file"},
		{"-", "from a pipe", "from a pipe"},
	} {
		got := runIn(strings.NewReader(c.in), u.env, "call", "POST", "/x", "-d", c.data, "-H", "X-One: 1", "-H", "x-one:  2 ")
		for _, want := range []string{`"body":"` + c.want + `"`, `"X-One":["1","2"]`, fmt.Sprintf(`"Content-Length":["%d"]`, len(c.want))} {
			if got.status != 0 || !strings.Contains(got.out, want) {
				t.Errorf("-d %q: no %s in %v", c.data, want, got)
			}
		}
	}
}

func TestCallRefusesWrongFlags(t *testing.T) {
	u := loggedIn(t, fincodetest.Config{})
	dir := t.TempDir()
	for _, flags := range [][]string{
		{"-H", "no colon hunter2"}, {"-H", "Authorization: Bearer hunter2"}, {"-H", "x-auth-token: hunter2"}, {"-H", "Host: example.com"},
		{"-H", "Content-Length: 3"}, {"-H", "a b: hunter2"}, {"-H", ": hunter2"}, {"-H", "A: hunter2\r\nB: c"},
		{"-d", "@" + dir}, {"-d", "@" + dir + "/none"}, {"-o", dir}, {"--timeout", "-1s"}, {"--timeout", "3"},
	} {
		got := u.want(2, append([]string{"call", "POST", "/x"}, flags...)...)
		wantNoSecret(t, got.err)
	}
	if got := u.want(5, "call", "GET", "/x", "-o", dir+"/none/file"); !strings.Contains(got.err, "none") {
		t.Errorf("a missing folder: %v", got)
	}
	if n := u.fc.Counts().APICalls; n != 0 {
		t.Errorf("FinCode got %d calls", n)
	}
}

// A token that FinCode has revoked is replaced, and the body is sent again.
func TestBodyIsSentAgainAfterA401(t *testing.T) {
	file := filepath.Join(t.TempDir(), "body")
	if err := os.WriteFile(file, []byte("again"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, data := range []string{"again", "@" + file, "-"} {
		u := loggedIn(t, fincodetest.Config{})
		u.adopt(time.Now().Add(30 * time.Minute)) // otherwise the token is too young for its age to be the cause
		u.fc.RevokeAccessTokens()
		got := runIn(strings.NewReader("again"), u.env, "call", "POST", "/x", "-d", data)
		if got.status != 0 || !strings.Contains(got.out, `"body":"again"`) {
			t.Errorf("-d %q: %v", data, got)
		}
		if c := u.fc.Counts(); c.Refreshes != 1 || c.APICalls != 2 {
			t.Errorf("-d %q: %+v", data, c)
		}
	}
}

func TestLongStandardInputIsStreamed(t *testing.T) {
	t.Parallel()
	u := loggedIn(t, fincodetest.Config{})
	got := runIn(io.LimitReader(zeros{}, maxReplayed+1000), u.env, "call", "POST", "/x", "-d", "-")
	if got.status != 0 || !strings.Contains(got.err, "is not sent again") {
		t.Errorf("%.300v", got)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestCallThatIsInterruptedWhileItReadsEnds(t *testing.T) {
	u := loggedIn(t, fincodetest.Config{})
	ctx, cancel := context.WithCancel(context.Background())
	in, w := io.Pipe()
	defer w.Close()
	go func() {
		w.Write([]byte("half")) // returns when the command reads
		cancel()
	}()
	if got := runUntil(ctx, in, u.env, "call", "POST", "/x", "-d", "-"); got.status != 130 {
		t.Error(got)
	}
}

func TestHTTPErrorIsStatus22AndItsBodyIsPrinted(t *testing.T) {
	u := loggedIn(t, fincodetest.Config{})
	u.fc.Inject(fincodetest.API, -1, fincodetest.Fault{Kind: fincodetest.ErrorStatus, Status: 404})
	got := u.want(22, "call", "GET", "/nothing?secret=hunter2")
	if !strings.Contains(got.out, "NOT_FOUND") || strings.Count(got.err, "\n") != 1 {
		t.Error(got)
	}
	wantNoSecret(t, got.err)
	file := filepath.Join(t.TempDir(), "old")
	if err := os.WriteFile(file, []byte("old"), 0o640); err != nil {
		t.Fatal(err)
	}
	if got := u.want(22, "call", "GET", "/nothing", "-o", file); !strings.Contains(got.out, "NOT_FOUND") {
		t.Error(got)
	}
	wantFile(t, file, "old", 0o640)
}

func TestOutputIsReplacedAtTheEndOnly(t *testing.T) {
	u := loggedIn(t, fincodetest.Config{})
	file := filepath.Join(t.TempDir(), "answer")
	u.want(0, "call", "GET", "/x", "-o", file)
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("a new file: %v, %v", info, err)
	}
	if err := os.WriteFile(file, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(file, 0o640); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	u.fc.Inject(fincodetest.API, 1, fincodetest.Fault{Kind: fincodetest.Truncated})
	if got := u.want(6, "call", "GET", "/x", "-o", link); !strings.Contains(got.err, "connection broke") {
		t.Error(got)
	}
	wantFile(t, file, "old", 0o640)

	if got := u.want(0, "call", "GET", "/x", "-i", "-o", link); !strings.HasPrefix(got.out, "HTTP/1.1 200 OK\n") || got.err != "" {
		t.Error(got)
	}
	data, err := os.ReadFile(file)
	if err != nil || !bytes.Contains(data, []byte(`"path":"/x"`)) {
		t.Errorf("%s, %v", data, err)
	}
	if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link: %v, %v", info, err)
	}
	u.want(0, "call", "GET", "/x", "-o", os.DevNull)
}

// wantFile checks a file, and that nothing else is in its folder.
func wantFile(t *testing.T, path, content string, mode os.FileMode) {
	t.Helper()
	data, err := os.ReadFile(path)
	info, statErr := os.Stat(path)
	if err != nil || statErr != nil || string(data) != content || info.Mode().Perm() != mode {
		t.Errorf("%s: %q, %v, %v, %v", path, data, info, err, statErr)
	}
	if entries, err := os.ReadDir(filepath.Dir(path)); err != nil || len(entries) != 1 {
		t.Errorf("the folder has %v, %v", entries, err)
	}
}

func TestCallThatTakesTooLongEnds(t *testing.T) {
	u := loggedIn(t, fincodetest.Config{})
	u.fc.Inject(fincodetest.API, -1, fincodetest.Fault{Before: time.Minute})
	if got := u.want(6, "call", "GET", "/x", "--timeout", "50ms"); !strings.Contains(got.err, "--timeout") {
		t.Error(got)
	}
}

func TestCallWithoutASessionNeedsALogin(t *testing.T) {
	u := newUser(t, fincodetest.Config{})
	u.want(3, "call", "GET", "/whoami")
	u.want(3, "call", "GET", "/whoami", "--url", u.url)
	u.login("default")
	u.fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{Kind: fincodetest.ErrorStatus, Status: 401})
	u.adopt(time.Now().Add(-time.Second))
	u.want(3, "call", "GET", "/whoami")
	if n := u.fc.Counts().APICalls; n != 0 {
		t.Errorf("FinCode got %d calls", n)
	}
}
