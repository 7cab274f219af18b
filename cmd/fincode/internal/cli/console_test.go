//go:build unix

package cli

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/creack/pty"
	"github.com/hinshun/vt10x"
	"golang.org/x/sys/unix"

	"github.com/fincodeauth/fincodeauth/fincodetest"
)

// hasEcho reports whether the terminal prints what is typed.
func (c *console) hasEcho() bool {
	c.Helper()
	state, err := unix.IoctlGetTermios(int(c.keys.Fd()), getTermios)
	if err != nil {
		c.Fatal(err)
	}
	return state.Lflag&unix.ECHO != 0
}

func TestLoginAsksWithoutShowingThePassword(t *testing.T) {
	t.Parallel()
	u := newUser(t, fincodetest.Config{})
	c := u.console(100, 20, u.command("login", "--url", u.fc.URL))
	c.wait("Email:")
	c.press(fincodetest.Email + "\n")
	c.wait("Password of " + fincodetest.Email + ":")
	c.eventually("without echo", func() bool { return !c.hasEcho() })
	c.press(fincodetest.Password + "\n")
	if status := c.end(); status != 0 {
		t.Errorf("status %d: %s", status, c.text())
	}
	u.golden("console-login", c.text())
	wantNoSecret(t, c.printed())
}

func TestCtrlCInThePasswordPromptBringsTheEchoBack(t *testing.T) {
	t.Parallel()
	u := newUser(t, fincodetest.Config{})
	c := u.console(100, 20, u.command("login", "--url", u.fc.URL, "--email", fincodetest.Email))
	c.wait("Password of")
	c.eventually("without echo", func() bool { return !c.hasEcho() })
	c.press("hunt\x03")
	echo := false
	c.eventually("with echo, or at its end", func() bool {
		echo = echo || c.hasEcho()
		select {
		case <-c.done:
			return true
		default:
			return echo
		}
	})
	if status := c.end(); status != 130 || !echo {
		t.Errorf("status %d, echo %v: %s", status, echo, c.text())
	}
	if n := u.fc.Counts().Logins; n != 0 {
		t.Errorf("%d logins", n)
	}
}

func TestCallPrintsPrettyJSONOnATerminal(t *testing.T) {
	t.Parallel()
	u := loggedIn(t, fincodetest.Config{})
	c := u.console(100, 30, u.command("call", "GET", "/whoami"))
	if status := c.end(); status != 0 {
		t.Errorf("status %d: %s", status, c.text())
	}
	u.golden("console-call", c.text())
	if !strings.Contains(c.printed(), "\x1b[") {
		t.Errorf("no colours: %q", c.printed())
	}
	u.env["NO_COLOR"] = "1"
	c = u.console(100, 30, u.command("call", "GET", "/whoami"))
	if status := c.end(); status != 0 || strings.Contains(c.printed(), "\x1b") {
		t.Errorf("status %d, or colours in spite of NO_COLOR: %q", status, c.printed())
	}
	u.golden("console-call", c.text())
}

// files returns a server with the answers that a fincodetest does not give, for users who
// are logged in at fc.
func files(t *testing.T, fc *fincodetest.Server) *httptest.Server {
	t.Helper()
	stop := make(chan struct{})
	large := strings.Repeat("0123456789abcdef", 4<<20/16)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch strings.TrimPrefix(r.URL.Path, fincodetest.Root) {
		case "/binary":
			w.Header().Set("Content-Type", "application/pdf")
			io.WriteString(w, "%PDF\x00\x1b[2J")
		case "/escape":
			w.Header().Set("Content-Type", "text/plain")
			io.WriteString(w, "hello \x1b]0;title\a")
		case "/split": // io.Copy reads 32 KiB at a time
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			io.WriteString(w, strings.Repeat("a", 32<<10-1)+"\u009b31m")
		case "/byte":
			w.Header().Set("Content-Type", "text/plain")
			io.WriteString(w, "caf\xe9 \x9b31m\n")
		case "/deep":
			w.Header().Set("Content-Type", "application/json")
			io.WriteString(w, strings.Repeat("[", 5000)+strings.Repeat("[],", 50_000)+"[]"+strings.Repeat("]", 5000))
		case "/text":
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			io.WriteString(w, "grüße\n")
		case "/slow": // half of it
			w.Header().Set("Content-Length", "4194304")
			io.WriteString(w, large[:2<<20])
			w.(http.Flusher).Flush()
			<-stop
		case "/large":
			io.WriteString(w, large)
		case "/upload":
			io.CopyN(io.Discard, r.Body, 2<<20)
			if r.URL.RawQuery == "stop" {
				<-stop // while the body is unread, the server does not notice that the caller has left
			}
			io.Copy(io.Discard, r.Body)
			io.WriteString(w, "thanks\n")
		default:
			fc.FinCode.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(srv.Close)
	t.Cleanup(func() { close(stop) })
	return srv
}

func TestTerminalGetsNoControlCharacters(t *testing.T) {
	t.Parallel()
	u := newUser(t, fincodetest.Config{})
	u.url = files(t, u.fc).URL + fincodetest.Root
	u.login("default")
	for _, path := range []string{"/binary", "/escape", "/split"} {
		c := u.console(100, 10, u.command("call", "GET", path))
		if status := c.end(); status != 1 || strings.ContainsAny(c.printed(), "\x1b\u009b") || !strings.Contains(c.text(), "-o FILE") {
			t.Errorf("%s: status %d: %q", path, status, c.printed())
		}
	}
	c := u.console(100, 10, u.command("call", "GET", "/text"))
	if status := c.end(); status != 0 || c.printed() != "grüße\r\n" {
		t.Errorf("status %d: %q", status, c.printed())
	}
	c = u.console(100, 10, u.command("call", "GET", "/byte"))
	if status := c.end(); status != 0 || c.printed() != "caf\ufffd \ufffd31m\r\n" {
		t.Errorf("status %d: %q", status, c.printed())
	}
	c = u.console(100, 10, u.command("call", "GET", "/deep"))
	if status := c.end(); status != 0 || len(c.printed()) > 1<<20 {
		t.Errorf("status %d, and %d bytes for deep JSON", status, len(c.printed()))
	}
	if got := u.exec("call", "GET", "/binary"); got.status != 0 || got.out != "%PDF\x00\x1b[2J" {
		t.Errorf("in a pipe: %v", got)
	}
}

func TestLargeBodiesHaveABar(t *testing.T) {
	t.Parallel()
	u := newUser(t, fincodetest.Config{})
	u.url = files(t, u.fc).URL + fincodetest.Root
	u.login("default")
	dir := t.TempDir()
	file := filepath.Join(dir, "answer")

	c := u.console(80, 10, u.command("call", "GET", "/slow", "-o", file))
	c.wait("receiving")
	c.wait("%")
	c.press("\x03")
	if status := c.end(); status != 130 || strings.Contains(c.text(), "receiving") || !strings.Contains(c.text(), "interrupted") {
		t.Errorf("status %d: %s", status, c.text())
	}
	if left, err := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("the folder has %v, %v", left, err)
	}

	c = u.console(80, 10, u.command("call", "GET", "/large", "-o", file))
	if status := c.end(); status != 0 || strings.TrimSpace(c.text()) != "" {
		t.Errorf("status %d: %s", status, c.text())
	}
	if info, err := os.Stat(file); err != nil || info.Size() != 4<<20 {
		t.Errorf("%v, %v", info, err)
	}

	if err := os.Truncate(file, 64<<20); err != nil { // more than the buffers of a connection hold
		t.Fatal(err)
	}
	c = u.console(80, 10, u.command("call", "POST", "/upload?stop", "-d", "@"+file))
	c.wait("sending")
	c.wait("%")
	c.press("\x03")
	if status := c.end(); status != 130 {
		t.Errorf("status %d: %s", status, c.text())
	}

	c = u.console(80, 10, u.command("call", "POST", "/upload", "-d", "@"+file))
	if status := c.end(); status != 0 || strings.TrimSpace(c.text()) != "thanks" {
		t.Errorf("status %d: %s", status, c.text())
	}
}

func TestForgetAsksOnATerminal(t *testing.T) {
	t.Parallel()
	u := loggedIn(t, fincodetest.Config{})
	for _, answer := range []string{"no\n", "\n", "\x03", "\x04"} {
		c := u.console(100, 10, u.command("forget"))
		c.wait("(yes/no)")
		c.press(answer)
		if status := c.end(); status == 0 {
			t.Errorf("%q: %s", answer, c.text())
		}
		u.want(0, "status")
	}
	c := u.console(100, 10, u.command("forget"))
	c.wait("(yes/no)")
	c.press("yes\n")
	if status := c.end(); status != 0 {
		t.Errorf("status %d: %s", status, c.text())
	}
	u.want(3, "status")
}

func TestWatchIsALiveScreen(t *testing.T) {
	t.Parallel()
	u := loggedIn(t, fincodetest.Config{})
	before := u.fc.Counts()
	c := u.console(100, 30, u.command("status", "--watch"))
	c.wait("usable")
	c.wait("FINCODE_KEY")
	first := stateLines(c.text())
	u.golden("console-watch", first)
	c.eventually("counting down", func() bool { return stateLines(c.text()) != first })
	if !strings.Contains(c.printed(), "\x1b[?1049h") {
		t.Error("it does not use the alternate screen")
	}

	if err := pty.Setsize(c.keys, &pty.Winsize{Cols: 40, Rows: 40}); err != nil {
		t.Fatal(err)
	}
	c.screen.Resize(40, 40)
	c.eventually("narrow", func() bool { return strings.Contains(c.text(), "FINCODE_KEY") && isNarrow(c.text()) })

	if after := u.fc.Counts(); after != before {
		t.Errorf("FinCode saw %+v", after)
	}
	u.want(0, "logout")
	c.wait("login needed")
	c.press("q")
	if status := c.end(); status != 0 || !c.hasEcho() || !strings.Contains(c.printed(), "\x1b[?1049l") {
		t.Errorf("status %d, echo %v", status, c.hasEcho())
	}
}

// stateLines returns the lines of a watch without the first one, whose time varies.
func stateLines(text string) string {
	_, rest, _ := strings.Cut(text, "\n")
	return rest
}

func isNarrow(text string) bool {
	for line := range strings.Lines(text) {
		if len([]rune(line)) > 41 {
			return false
		}
	}
	return true
}

func TestWatchEndsWithEachKey(t *testing.T) {
	t.Parallel()
	u := loggedIn(t, fincodetest.Config{})
	u.env["NO_COLOR"] = "1"
	for _, key := range []string{"q", "\x03", "\x1b"} {
		c := u.console(40, 30, u.command("status", "--watch", "--all"))
		c.wait("usable")
		if strings.Contains(c.printed(), "\x1b[32m") {
			t.Errorf("colours in spite of NO_COLOR: %q", c.printed())
		}
		c.press(key)
		if status := c.end(); status != 0 || !c.hasEcho() {
			t.Errorf("%q: status %d, echo %v", key, status, c.hasEcho())
		}
	}
	c := u.console(40, 30, u.command("status", "--watch"))
	c.wait("usable")
	c.cmd.Process.Signal(os.Interrupt)
	if status := c.end(); status != 130 || !c.hasEcho() {
		t.Errorf("SIGINT: status %d, echo %v", status, c.hasEcho())
	}
}

// In this process, so that the race detector sees it.
func TestWatchEndsWithItsContext(t *testing.T) {
	t.Parallel()
	u := loggedIn(t, fincodetest.Config{})
	keys, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer keys.Close()
	if err := pty.Setsize(tty, &pty.Winsize{Cols: 80, Rows: 24}); err != nil {
		t.Fatal(err)
	}
	c := &console{user: u, keys: keys, screen: vt10x.New(vt10x.WithSize(80, 24))}
	go io.Copy(c, keys)
	ctx, cancel := context.WithCancel(context.Background())
	status := make(chan int)
	go func() {
		status <- Main(ctx, Process{Args: []string{"status", "--watch"}, In: tty, Out: tty, Err: tty, Getenv: func(name string) string { return u.env[name] }})
	}()
	c.wait("usable")
	cancel()
	if got := <-status; got != 130 || !c.hasEcho() {
		t.Errorf("status %d, echo %v", got, c.hasEcho())
	}
	tty.Close()
}

func TestWatchShowsWhatIsBroken(t *testing.T) {
	t.Parallel()
	u := loggedIn(t, fincodetest.Config{})
	damage(u)
	c := u.console(60, 30, u.command("status", "--watch"))
	c.wait("unknown")
	c.wait("damaged")
	u.want(0, "forget", "--yes")
	c.wait("login needed")
	u.login("default")
	c.wait("usable")
	c.press("q")
	if status := c.end(); status != 0 {
		t.Errorf("status %d", status)
	}
}
