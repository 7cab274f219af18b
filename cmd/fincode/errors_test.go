//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"github.com/fincodeauth/fincodeauth/fincodetest"
)

// commandVariable makes the test program the command, so that tests run it as a process.
const commandVariable = "FINCODE_TEST_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(commandVariable) != "" {
		os.Unsetenv(commandVariable)
		main()
	}
	os.Exit(m.Run())
}

// fincode returns the command with an environment of its own, in which there is no keyring.
func fincode(t *testing.T, home string, env []string, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "XDG_STATE_HOME=" + home, "XDG_CONFIG_HOME=" + home,
		"DBUS_SESSION_BUS_ADDRESS=unix:path=" + home + "/none", "GORACE=atexit_sleep_ms=0", commandVariable + "=1"}, env...)
	return cmd
}

// result runs cmd, and returns its status and what it printed on stdout and on stderr.
func result(t *testing.T, cmd *exec.Cmd) (status int, out, errs string) {
	t.Helper()
	var o, e bytes.Buffer
	if cmd.Stdout == nil {
		cmd.Stdout = &o
	}
	cmd.Stderr = &e
	if err := cmd.Run(); cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), o.String(), e.String()
}

// TestEachMistakeIsOneLineAndAStatus runs the command as a person does.
func TestEachMistakeIsOneLineAndAStatus(t *testing.T) {
	srv := fincodetest.NewServer(fincodetest.Config{})
	t.Cleanup(srv.Close) // after the parallel subtests
	untrusted := fincodetest.NewTLSServer(fincodetest.Config{})
	t.Cleanup(untrusted.Close)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { taken.Close() })
	broken := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(broken, []byte("]["), 0o600); err != nil {
		t.Fatal(err)
	}
	password := "FINCODE_PASSWORD=" + fincodetest.Password
	login := []string{"login", "--url", srv.URL, "--email", fincodetest.Email}
	for name, c := range map[string]struct {
		env    []string
		args   []string
		status int
		want   string
	}{
		"wrong password":      {[]string{"FINCODE_PASSWORD=no"}, login, 4, "wrong email or password"},
		"unknown user":        {[]string{password}, []string{"login", "--url", srv.URL, "--email", "x@example.com"}, 4, "no such user"},
		"unknown tenant":      {[]string{password}, []string{"login", "--url", "https://nobody.invalid", "--email", "x@example.com"}, 6, "nobody.invalid"},
		"unreachable host":    {[]string{password}, []string{"login", "--url", "http://127.0.0.1:1", "--email", "x@example.com"}, 6, "connection refused"},
		"certificate":         {[]string{password}, []string{"login", "--url", untrusted.URL, "--email", "x@example.com"}, 6, "certificate"},
		"bad key":             {[]string{password, "FINCODE_KEY=s3cret"}, login, 2, "FINCODE_KEY"},
		"no terminal":         {nil, login, 2, "no terminal"},
		"port in use":         {nil, []string{"sandbox", "--addr", taken.Addr().String()}, 1, "address already in use: choose another address with --addr"},
		"privileged address":  {nil, []string{"sandbox", "--addr", "192.0.2.1:80"}, 2, "loopback"},
		"unknown command":     {nil, []string{"logn"}, 2, "did you mean login"},
		"unknown flag":        {nil, []string{"login", "--nope"}, 2, "unknown flag: --nope: see fincode login --help"},
		"argument":            {nil, []string{"login", "acme"}, 2, "see fincode login --help"},
		"wrong value":         {nil, []string{"sandbox", "--token-life", "soon"}, 2, "token-life"},
		"unknown shell":       {nil, []string{"completion", "bash", "tcsh"}, 2, "tcsh"},
		"profile name":        {nil, []string{"login", "--profile", "../x"}, 2, "the profile"},
		"configuration file":  {nil, []string{"login", "--config", broken}, 2, "not YAML"},
		"no folder for state": {[]string{password}, append(login, "--state", "/dev/null/x"), 5, "/dev/null"},
		"stdout is full":      {nil, []string{"version"}, 5, "no space left on device: make room"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd := fincode(t, t.TempDir(), c.env, c.args...)
			if name == "stdout is full" {
				full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
				if err != nil {
					t.Skip(err) // Linux alone has it
				}
				defer full.Close()
				cmd.Stdout = full
			}
			status, out, errs := result(t, cmd)
			if status != c.status || !strings.Contains(errs, c.want) || strings.Count(errs, "\n") != 1 || !strings.HasPrefix(errs, "fincode: ") || out != "" {
				t.Errorf("status %d, %q, %q; want status %d and one line with %q", status, out, errs, c.status, c.want)
			}
			if strings.Contains(errs, "s3cret") || strings.Contains(errs, fincodetest.Password) || strings.Contains(errs, "goroutine") {
				t.Errorf("a secret or a stack is in %q", errs)
			}
		})
	}
}

func TestLockedAccountHasItsStatus(t *testing.T) {
	srv := fincodetest.NewServer(fincodetest.Config{})
	defer srv.Close()
	home := t.TempDir()
	for range 20 {
		status, _, errs := result(t, fincode(t, home, []string{"FINCODE_PASSWORD=no"}, "login", "--url", srv.URL, "--email", fincodetest.Email))
		if status != 4 {
			t.Fatalf("status %d, %s", status, errs)
		}
		if strings.Contains(errs, "locked after failed logins: ask") {
			return
		}
	}
	t.Error("the account was never locked")
}

func TestWithoutAKeyringLoginWarns(t *testing.T) {
	srv := fincodetest.NewServer(fincodetest.Config{})
	defer srv.Close()
	home := t.TempDir()
	status, out, errs := result(t, fincode(t, home, []string{"FINCODE_PASSWORD=" + fincodetest.Password}, "login", "--url", srv.URL, "--email", fincodetest.Email))
	if status != 0 || !strings.HasPrefix(out, "Logged in") || !strings.Contains(errs, home+"/fincode/key; to keep it elsewhere, set FINCODE_KEY") {
		t.Errorf("status %d, %q, %q", status, out, errs)
	}
}

// TestReaderThatLeavesEndsTheCommandQuietly, as in: fincode completion bash | head -1.
func TestReaderThatLeavesEndsTheCommandQuietly(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	cmd := fincode(t, t.TempDir(), nil, "version")
	cmd.Stdout = w
	status, _, errs := result(t, cmd)
	w.Close()
	if status != 141 || errs != "" {
		t.Errorf("status %d, %q; want 141 and nothing", status, errs)
	}
}

func TestSignalEndsTheSandboxCleanly(t *testing.T) {
	for _, signal := range []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP} {
		home := t.TempDir()
		cmd := fincode(t, home, nil, "sandbox", "--addr", "127.0.0.1:0", "--fault", "login:own-answer:before=1h")
		stdout, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		line, err := bufio.NewReader(stdout).ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		url := strings.TrimSpace(strings.TrimPrefix(line, "A FinCode listens on "))
		login := fincode(t, home, []string{"FINCODE_PASSWORD=" + fincodetest.Password}, "login", "--url", url, "--email", fincodetest.Email)
		if err := login.Start(); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v: %v, want status 0", signal, err)
		}
		if err := login.Wait(); err == nil || login.ProcessState.ExitCode() != 6 {
			t.Errorf("the login ended with %v, want status 6", err)
		}
	}
}

// A terminal is a person at a pseudo-terminal.
type terminal struct {
	*os.File
	t    *testing.T
	seen strings.Builder
}

// atTerminal starts cmd at a terminal.
func atTerminal(t *testing.T, cmd *exec.Cmd) *terminal {
	t.Helper()
	f, err := pty.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return &terminal{File: f, t: t}
}

// wait reads until the command has printed text.
func (p *terminal) wait(text string) {
	p.t.Helper()
	for next := make([]byte, 1); !strings.HasSuffix(p.seen.String(), text); {
		n, err := p.Read(next)
		if err != nil {
			p.t.Fatalf("%v after %q, want %q", err, p.seen.String(), text)
		}
		p.seen.Write(next[:n])
	}
}

// waitForSilence waits until the terminal has no echo: the question is printed before that.
func (p *terminal) waitForSilence() {
	p.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if state, err := unix.IoctlGetTermios(int(p.Fd()), unix.TCGETS); err != nil || state.Lflag&unix.ECHO == 0 {
			return
		}
	}
	p.t.Fatal("the terminal still has an echo")
}

// enter types text and a line's end.
func (p *terminal) enter(text string) {
	p.t.Helper()
	if _, err := io.WriteString(p, text); err != nil {
		p.t.Fatal(err)
	}
}

func TestLoginAsksAtATerminalWithoutAnEcho(t *testing.T) {
	const password = " spaces belong to it "
	srv := fincodetest.NewServer(fincodetest.Config{})
	defer srv.Close()
	srv.AddUser("ada@example.com", password)
	home := t.TempDir()
	cmd := fincode(t, home, nil, "login", "--url", srv.URL)
	p := atTerminal(t, cmd)
	p.wait("Email: ")
	p.enter(" ada@example.com \n")
	p.wait("Password of ada@example.com: ")
	p.waitForSilence()
	p.enter(password + "\n")
	p.wait("as ada@example.com (profile default).")
	rest, _ := io.ReadAll(p) // ends with an error when the terminal has closed
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v: %s%s", err, p.seen.String(), rest)
	}
	if strings.Contains(p.seen.String(), "spaces") {
		t.Errorf("the password is on the screen: %q", p.seen.String())
	}

	cmd = fincode(t, t.TempDir(), nil, "login")
	p = atTerminal(t, cmd)
	p.wait("Tenant: ")
	p.enter("not a tenant\n")
	p.wait("--tenant \"not a tenant\": give a name without a domain, such as acme, or use --url")
	if cmd.Wait(); cmd.ProcessState.ExitCode() != 2 {
		t.Errorf("status %d, want 2", cmd.ProcessState.ExitCode())
	}
}

func TestCtrlCAtTheQuestionForThePassword(t *testing.T) {
	srv := fincodetest.NewServer(fincodetest.Config{})
	defer srv.Close()
	home := t.TempDir()
	cmd := fincode(t, home, nil, "login", "--url", srv.URL, "--email", fincodetest.Email)
	p := atTerminal(t, cmd)
	p.wait("Password of " + fincodetest.Email + ": ")
	p.enter("\x03")
	p.wait("fincode: interrupted")
	if cmd.Wait(); cmd.ProcessState.ExitCode() != 130 {
		t.Errorf("status %d, want 130", cmd.ProcessState.ExitCode())
	}
	if found, _ := filepath.Glob(home + "/fincode/profiles/*/profile*"); len(found) > 0 {
		t.Errorf("%v is left", found)
	}
}

func TestEndOfInputAtAQuestionIsAMistake(t *testing.T) {
	cmd := fincode(t, t.TempDir(), nil, "login")
	p := atTerminal(t, cmd)
	p.wait("Tenant: ")
	p.enter("\x04")
	p.wait("no tenant was typed")
	if cmd.Wait(); cmd.ProcessState.ExitCode() != 2 {
		t.Errorf("status %d, want 2", cmd.ProcessState.ExitCode())
	}
}
