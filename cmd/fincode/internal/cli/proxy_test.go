//go:build unix

package cli

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/fincodeauth/fincodeauth/cmd/fincode/internal/proxy"
	"github.com/fincodeauth/fincodeauth/fincodetest"
)

// A proxied is a proxy that runs as a process of its own.
type proxied struct {
	*process
	url, key string
	status   int
	once     sync.Once
}

// proxy starts the built proxy, and waits until it serves. With --key-file, the key is
// empty.
func (u *user) proxy(flags ...string) *proxied {
	u.Helper()
	out := filepath.Join(u.TempDir(), "out")
	file, err := os.Create(out)
	if err != nil {
		u.Fatal(err)
	}
	defer file.Close()
	p := &proxied{process: &process{user: u, Cmd: u.command(append([]string{"proxy", "--listen", "127.0.0.1:0"}, flags...)...)}}
	p.Stdout, p.Stderr = file, &p.process.err
	if err := p.Start(); err != nil {
		u.Fatal(err)
	}
	u.Cleanup(func() { p.stop(syscall.SIGTERM) })
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		text, _ := os.ReadFile(out)
		p.url, p.key = after(string(text), "Listening on "), after(string(text), "Key: ")
		if p.url != "" && (p.key != "" || strings.Contains(strings.Join(flags, " "), "--key-file")) {
			break
		}
		if time.Now().After(deadline) {
			u.Fatalf("the proxy does not say where it listens: %s", text)
		}
	}
	if got := u.exec("wait", "--listen", strings.TrimPrefix(p.url, "http://"), "--timeout", "20s"); got.status != 0 {
		u.Fatalf("wait: %v", got)
	}
	return p
}

// after returns the rest of the line of text that begins with prefix.
func after(text, prefix string) string {
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, prefix); ok && strings.HasSuffix(line, "\n") {
			return strings.TrimSpace(rest)
		}
	}
	return ""
}

// stop sends the signal, once, and returns the proxy's status.
func (p *proxied) stop(signal os.Signal) int {
	p.once.Do(func() {
		p.Process.Signal(signal)
		p.status = p.statusOf(p.Wait())
	})
	return p.status
}

// get sends a request with the key, and returns the answer.
func (p *proxied) get(path string) (int, string) {
	p.Helper()
	req, err := http.NewRequest(http.MethodGet, p.url+path, nil)
	if err != nil {
		p.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+p.key)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		p.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		p.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func TestProxyOfTheBuiltCommand(t *testing.T) {
	u := loggedIn(t, fincodetest.Config{})
	p := u.proxy("--log-format", "json")
	for path, want := range map[string]string{
		"/whoami":                  `"user-id":"user-1"`,
		"/api/v6/services/whoami":  `"user-id":"user-1"`,
		"/-/metrics":               "fincode_journal_failures_total",
		"/-/status.json":           `"LoggedIn"`, // by another process
		"/-/":                      "<!doctype html>",
		"/-/readiness":             "ready",
		"/payments/1?currency=EUR": "EUR",
	} {
		if status, body := p.get(path); status != 200 || !strings.Contains(strings.ToLower(body), strings.ToLower(want)) {
			t.Errorf("%s: status %d, want 200 and %s: %.300s", path, status, want, body)
		}
	}
	if status, _ := p.get("/securitymanagement/refresh-token"); status != http.StatusForbidden {
		t.Errorf("a call for tokens: status %d, want 403", status)
	}
	if status := p.stop(syscall.SIGTERM); status != 0 {
		t.Errorf("after SIGTERM: status %d, want 0: %s", status, p.process.err.String())
	}
	for line := range strings.Lines(p.process.err.String()) {
		if !json.Valid([]byte(line)) {
			t.Errorf("a line of the log is not JSON: %s", line)
		}
	}
	if strings.Contains(p.process.err.String(), p.key) {
		t.Error("the log shows the key")
	}
}

func TestProxyServesTheTokenThatAnotherCommandRefreshed(t *testing.T) {
	u := loggedIn(t, fincodetest.Config{AccessLifetime: 4 * time.Second})
	p := u.proxy()
	for end := time.Now().Add(9 * time.Second); time.Now().Before(end); {
		if status, body := p.get("/whoami"); status != 200 {
			t.Fatalf("the proxy answers %d: %s", status, body)
		}
		if got := u.exec("call", "GET", "/whoami"); got.status != 0 {
			t.Fatalf("call: %v", got)
		}
	}
	if twice := u.fc.PresentedMoreThanOnce(); len(twice) > 0 {
		t.Errorf("%d refresh tokens were presented twice, want none", len(twice))
	}
	if n := u.fc.Counts().Refreshes; n < 2 || n > 5 {
		t.Errorf("%d refreshes within 9 s of tokens that live for 4 s, want 2 to 5", n)
	}
	story := u.want(0, "why")
	for _, want := range []string{"can be used", "refreshed the token", "login (pid"} {
		if !strings.Contains(story.out, want) {
			t.Errorf("why does not say %q: %v", want, story)
		}
	}
}

func TestMistakesOfTheProxyAreRefusedAtItsStart(t *testing.T) {
	u := loggedIn(t, fincodetest.Config{})
	short := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(short, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		status int
		want   string
		flags  []string
	}{
		{2, "can be guessed", []string{"--key-file", short}},
		{2, "--accept-paths", []string{"--accept-paths", "("}},
		{2, "--max-sigterm-delay", []string{"--min-sigterm-delay", "5s", "--max-sigterm-delay", "1s"}},
		{2, "--allow-remote", []string{"--listen", "0.0.0.0:0"}},
		{2, "--log-format", []string{"--log-format", "xml"}},
		{2, "--log-level", []string{"--log-level", "loud"}},
		{3, "fincode login", []string{"--profile", "nobody"}},
	} {
		args := append([]string{"proxy", "--listen", "127.0.0.1:0"}, test.flags...)
		if got := u.run(args...); got.status != test.status || !strings.Contains(got.err, test.want) || strings.Count(got.err, "\n") != 1 {
			t.Errorf("%q: want status %d and one line with %q, got %v", args, test.status, test.want, got)
		}
	}
	p := u.proxy()
	if got := u.run("proxy", "--listen", strings.TrimPrefix(p.url, "http://")); got.status != 1 || !strings.Contains(got.err, "--listen") {
		t.Errorf("an address in use: want status 1 and a line with --listen, got %v", got)
	}
	u.env["JOURNAL_STREAM"] = "8:1"
	if got := u.run("proxy", "--listen", "127.0.0.1:0"); got.status != 2 || !strings.Contains(got.err, "--key-file") {
		t.Errorf("under systemd without a key file: want status 2 and a line with --key-file, got %v", got)
	}
}

func TestWaitSaysThatNobodyServes(t *testing.T) {
	u := newUser(t, fincodetest.Config{})
	if got := u.run("wait", "--listen", "127.0.0.1:1", "--timeout", "200ms"); got.status != 1 || !strings.Contains(got.err, "127.0.0.1:1") {
		t.Errorf("want status 1 and a line with the address, got %v", got)
	}
	if got := u.run("wait", "--timeout", "1ns"); got.status != 1 || !strings.Contains(got.err, proxy.DefaultAddress) {
		t.Errorf("without an address: want status 1 and a line with the default one, got %v", got)
	}
}

func TestWaitWithoutAnAddressLooksAtTheDefaultOne(t *testing.T) {
	got, err := proxyAddresses(nil, nil)
	if err != nil || !slices.Equal(got, []string{proxy.DefaultAddress}) {
		t.Errorf("%q, %v", got, err)
	}
}

func TestWaitTakesAUnixSocketByARelativePath(t *testing.T) {
	t.Chdir(t.TempDir())
	whole, err := filepath.Abs("p.sock")
	if err != nil {
		t.Fatal(err)
	}
	got, err := proxyAddresses([]string{"127.0.0.1:1"}, []string{"p.sock"})
	if err != nil || !slices.Equal(got, []string{"127.0.0.1:1", whole}) {
		t.Errorf("%q, %v", got, err)
	}
}

func TestClientsInOtherLanguages(t *testing.T) {
	u := loggedIn(t, fincodetest.Config{})
	p := u.proxy()
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, []byte(p.key+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	withKey := strings.Replace(p.url, "http://", "http://fincode:"+p.key+"@", 1)
	for _, client := range []struct{ program, file, url string }{
		{"curl", "whoami.sh", withKey},
		{"python3", "whoami.py", p.url},
		{"node", "whoami.mjs", p.url},
	} {
		t.Run(client.program, func(t *testing.T) {
			path, err := exec.LookPath(client.program)
			if err != nil {
				t.Skip(err) // the language is not installed
			}
			if client.program == "curl" {
				path = "/bin/sh"
			}
			cmd := exec.CommandContext(t.Context(), path, "../../clients/"+client.file)
			cmd.Env = append(os.Environ(), "FINCODE_PROXY="+client.url, "FINCODE_PROXY_KEY_FILE="+key)
			out, err := cmd.CombinedOutput()
			if err != nil || !bytes.Contains(out, []byte("user-1")) {
				t.Errorf("error %v, want the user's claims: %s", err, out)
			}
		})
	}
}

// The README shows a session in a terminal. Each line that begins with "$ fincode" or with
// "$ curl" is run, and prints what the README says, but for times, addresses and keys.
func TestTranscriptInTheREADME(t *testing.T) {
	readme, err := os.ReadFile("../../../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, transcript, _ := strings.Cut(string(readme), "```console\n")
	transcript, _, _ = strings.Cut(transcript, "```")
	u := newUser(t, fincodetest.Config{})
	u.env["FINCODE_PASSWORD"] = sandboxPassword
	sandbox := u.sandbox()
	var p *proxied
	steps := strings.Split("\n"+transcript, "\n$ ")[1:]
	if len(steps) < 4 {
		t.Fatalf("the README has %d commands, want a login, a call, a proxy and a request to it", len(steps))
	}
	for _, step := range steps {
		command, want, _ := strings.Cut(step, "\n")
		command = strings.ReplaceAll(command, "http://127.0.0.1:9801/api/v6/services", sandbox)
		var got string
		if strings.HasPrefix(command, "fincode proxy") {
			p = u.proxy()
			got = "Listening on " + p.url + "\nKey: " + p.key + "\nStatus page: " + p.url + "/-/#key=" + p.key + "\n"
		} else {
			got = u.shell(command, p)
		}
		if normal(got) != normal(want) {
			t.Errorf("$ %s\nprints\n%s\nand the README says\n%s", command, normal(got), normal(want))
		}
	}
}

// shell runs a line of the README.
func (u *user) shell(line string, p *proxied) string {
	u.Helper()
	if p != nil {
		line = regexp.MustCompile(`http://fincode:\w+@127\.0\.0\.1:8080`).ReplaceAllString(line, strings.Replace(p.url, "//", "//fincode:"+p.key+"@", 1))
	}
	cmd := exec.CommandContext(u.Context(), "/bin/sh", "-c", line)
	cmd.Env = append(u.command().Env, "PATH="+filepath.Dir(binary(u.T))+":"+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		u.Errorf("%s: %v", line, err)
	}
	return string(out)
}

// A time of another day has its date.
var changing = regexp.MustCompile(`127\.0\.0\.1:\d+|(\d{4}-\d\d-\d\d )?\d\d:\d\d:\d\d|\b[A-Z0-9]{26}\b|\b\d{10}\b|pid \d+ on \S+\)|\w+day, \d+ \w+ \d{4}`)

// normal returns text without what is different each time.
func normal(text string) string {
	text = regexp.MustCompile(`(?m)^Password of .*:$`).ReplaceAllString(text, "") // the test sets FINCODE_PASSWORD
	return strings.TrimSpace(changing.ReplaceAllString(text, "…"))
}
