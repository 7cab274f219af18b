package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fincodeauth/fincodeauth/fincodetest"
)

func TestFaultIsRead(t *testing.T) {
	for text, want := range map[string]injection{
		"login:own-answer":                             {fincodetest.Fault{Kind: fincodetest.OwnAnswer}, fincodetest.Login, 1},
		"refresh:hang-up:takes-effect":                 {fincodetest.Fault{Kind: fincodetest.HangUp, TakesEffect: true}, fincodetest.Refresh, 1},
		"logout:garbage:times=all":                     {fincodetest.Fault{Kind: fincodetest.Garbage}, fincodetest.Logout, -1},
		"api:truncated:times=3":                        {fincodetest.Fault{Kind: fincodetest.Truncated}, fincodetest.API, 3},
		"api:oversized:before=1s:after=2m":             {fincodetest.Fault{Kind: fincodetest.Oversized, Before: time.Second, After: 2 * time.Minute}, fincodetest.API, 1},
		"api:error-status:status=503":                  {fincodetest.Fault{Kind: fincodetest.ErrorStatus, Status: 503}, fincodetest.API, 1},
		"api:firewall-page:retry-after=7":              {fincodetest.Fault{Kind: fincodetest.FirewallPage, RetryAfter: "7"}, fincodetest.API, 1},
		"api:redirect:times=2:location=http://h:1/x:y": {fincodetest.Fault{Kind: fincodetest.Redirect, Location: "http://h:1/x:y"}, fincodetest.API, 2},
	} {
		if got, err := parseFault(text); err != nil || got != want {
			t.Errorf("%s: %+v, %v; want %+v", text, got, err, want)
		}
	}
}

func TestMistakeInAFaultIsNamed(t *testing.T) {
	b := newLoginBench(t)
	for text, want := range map[string]string{
		"":                              `there is no operation ""`,
		"refresh":                       `there is no kind ""`,
		"everything:hang-up":            `there is no operation "everything"`,
		"refresh:explode":               `there is no kind "explode"`,
		"refresh:hang-up:loud":          `there is no option "loud"`,
		"refresh:hang-up:xlocation=y":   `there is no option "xlocation"`,
		"refresh:hang-up:times=0":       "option times: use a positive number, or all",
		"refresh:hang-up:times=-1":      "option times: use a positive number, or all",
		"refresh:hang-up:times=x":       "option times: use a positive number, or all",
		"refresh:hang-up:before=5":      "option before: use a duration, such as 5s",
		"refresh:hang-up:after=-5s":     "option after: use a duration, such as 5s",
		"api:error-status:status=99":    "option status: use a number from 100 to 999",
		"api:error-status:status=x":     "option status: use a number from 100 to 999",
		"api:error-status:retry-after=": "option retry-after: give a value",
		"api:hang-up:takes-effect=no":   "option takes-effect: it has no value",
	} {
		b.run("sandbox", "--fault", text).wantFailure(t, 2, want, "fincode sandbox --help")
	}
	for _, life := range []string{"0s", "-1s"} {
		b.run("sandbox", "--token-life", life).wantFailure(t, 2, "--token-life")
	}
	for _, addr := range []string{"9801", "0.0.0.0:0", ":0", "example.com:80", "127.0.0.1:99999", "192.0.2.1:80"} {
		if r := b.run("sandbox", "--addr", addr); r.status == 0 || !strings.Contains(r.err, "--addr") {
			t.Errorf("--addr %s: status %d, %s", addr, r.status, r.err)
		}
	}
}

// sandboxOf runs fincode sandbox for as long as the test, and returns its URL.
func sandboxOf(t *testing.T, args ...string) string {
	t.Helper()
	b := newLoginBench(t)
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	ended := make(chan int)
	var errs bytes.Buffer
	go func() {
		ended <- Main(ctx, Process{Args: append([]string{"sandbox", "--addr", "127.0.0.1:0"}, args...), Out: w, Err: &errs,
			Getenv: func(name string) string { return b.env[name] }})
	}()
	t.Cleanup(func() {
		cancel()
		if status := <-ended; status != 0 {
			t.Errorf("the sandbox ended with status %d, want 0", status)
		}
	})
	line := make([]byte, 200)
	n, err := r.Read(line)
	if err != nil {
		t.Fatal(err)
	}
	_, url, _ := strings.Cut(string(line[:n]), "listens on ")
	return strings.TrimSpace(url)
}

func TestSandboxHasItsUserItsFaultsAndItsTokenLife(t *testing.T) {
	url := sandboxOf(t, "--token-life", "30s", "--fault", "login:error-status:status=503")
	b := newLoginBench(t)
	b.env["FINCODE_PASSWORD"] = sandboxPassword
	args := []string{"login", "--url", url, "--email", sandboxEmail}
	b.run(args...).wantFailure(t, 6, "503")
	b.run(args...).wantSuccess(t)

	body := strings.NewReader(`{"email": "` + sandboxEmail + `", "currentPassword": "` + sandboxPassword + `"}`)
	req, err := http.NewRequest(http.MethodPut, url+"/securitymanagement/login", body)
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{"Content-Type": "application/json", "platform": "fincode", "uuid": "200"} {
		req.Header.Set(name, value)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var answer struct {
		ExpiresIn int `json:"expires_in"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil || answer.ExpiresIn != 30 {
		t.Errorf("the token lives for %d s, %v; want 30", answer.ExpiresIn, err)
	}
}

func TestShellCompletesProfilesAndStores(t *testing.T) {
	b, srv := newLoginBench(t), newLoginServer(t, fincodetest.Config{})
	for _, name := range []string{"production", "preview", "default"} {
		b.run(loginArgs(srv, "--profile", name)...).wantSuccess(t)
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"login", "--profile", ""}, "default\npreview\nproduction\n:4\n"},
		{[]string{"login", "-p", "pro"}, "production\n:4\n"},
		{[]string{"login", "--tenant", ""}, ":4\n"},
		{[]string{"login", "--store", ""}, "postgres://\nredis://\nrediss://\netcd://\netcds://\nkubernetes://\ndir:/\n:6\n"},
		{[]string{"login", "--public-key", ""}, ":0\n"}, // files
		{[]string{"login", ""}, ":4\n"},
		{[]string{"ver"}, "version\n:4\n"},
	} {
		if r := b.run(append([]string{"__completeNoDesc"}, c.args...)...); r.status != 0 || r.out != c.want {
			t.Errorf("%v: status %d, %q; want %q", c.args, r.status, r.out, c.want)
		}
	}
}

func TestCompletionScriptsAreScripts(t *testing.T) {
	b := newLoginBench(t)
	for shell, check := range map[string][]string{"bash": {"bash", "-n"}, "zsh": {"zsh", "-n"}, "fish": {"fish", "--no-execute"}, "powershell": nil} {
		r := b.run("completion", shell)
		r.wantSuccess(t)
		if !strings.Contains(r.out, "__complete") {
			t.Errorf("%s: %q", shell, r.out)
		}
		if len(check) == 0 {
			continue
		}
		if _, err := exec.LookPath(check[0]); err != nil {
			continue // this machine lacks that shell
		}
		cmd := exec.Command(check[0], check[1:]...)
		cmd.Stdin = strings.NewReader(r.out)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", shell, err, out)
		}
	}
}

func TestVersionNamesVersionGoAndPlatform(t *testing.T) {
	b := newLoginBench(t)
	one, two := b.run("version"), b.run("--version")
	one.wantSuccess(t)
	if !strings.HasPrefix(one.out, "fincode ") || !strings.Contains(one.out, "go1.") || strings.Count(one.out, "\n") != 1 || one != two {
		t.Errorf("version prints %q, and --version %q", one.out, two.out)
	}
}

// TestManualHasAPageForEachCommand: it is the same each time, and names no folder of this
// machine.
func TestManualHasAPageForEachCommand(t *testing.T) {
	b := newLoginBench(t)
	dirs := []string{t.TempDir(), t.TempDir()}
	for _, dir := range dirs {
		b.run("docs", "--man", filepath.Join(dir, "man"), "--markdown", filepath.Join(dir, "markdown")).wantSuccess(t)
	}
	for _, c := range (&app{}).root().Commands() {
		for _, path := range []string{"man/fincode-" + c.Name() + ".1", "markdown/fincode_" + c.Name() + ".md"} {
			one, err := os.ReadFile(filepath.Join(dirs[0], path))
			two, _ := os.ReadFile(filepath.Join(dirs[1], path))
			if c.Hidden {
				if err == nil {
					t.Errorf("there is %s, although the command is hidden", path)
				}
				continue
			}
			home, _ := os.UserHomeDir()
			if err != nil || !bytes.Equal(one, two) || bytes.Contains(one, []byte(home+"/.")) || !bytes.Contains(one, []byte(c.Short)) {
				t.Errorf("%s: %v, or it is not the same each time", path, err)
			}
		}
	}
	if _, err := exec.LookPath("mandoc"); err == nil {
		pages, _ := filepath.Glob(dirs[0] + "/man/*.1")
		if out, err := exec.Command("mandoc", append([]string{"-T", "lint", "-W", "error"}, pages...)...).CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	}
	b.run("docs").wantFailure(t, 2, "--man or --markdown")
	b.run("docs", "--man", "/dev/null/x").wantFailure(t, 5, "/dev/null")
}

func TestBugIsOneLineWithoutAStack(t *testing.T) {
	var errs bytes.Buffer
	a := &app{Process: Process{Err: &errs, Getenv: func(string) string { return "" }}}
	status := func() (status int) {
		defer a.recoverBug(&status)
		panic("odd")
	}()
	if r := (loginRun{status: status, err: errs.String()}); true {
		r.wantFailure(t, 1, "this is a bug of fincode", "odd", "GOTRACEBACK=all")
	}
}
