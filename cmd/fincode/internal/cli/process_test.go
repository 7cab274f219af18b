//go:build unix

package cli

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/fincodeauth/fincodeauth/fincodetest"
)

// sandbox starts the built sandbox as a process, and returns its base URL.
func (u *user) sandbox(flags ...string) string {
	u.Helper()
	cmd := u.command(append([]string{"sandbox", "--addr", "127.0.0.1:0"}, flags...)...)
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		u.Fatal(err)
	}
	u.Cleanup(func() {
		cmd.Process.Signal(os.Interrupt)
		if status := u.statusOf(cmd.Wait()); status != 0 {
			u.Errorf("the sandbox ended with status %d", status)
		}
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		u.Fatal(err)
	}
	return strings.TrimSpace(line[strings.Index(line, "http://"):])
}

// A process is a run of the built command.
type process struct {
	*user
	*exec.Cmd
	out, err bytes.Buffer
}

// start starts the built command.
func (u *user) start(args ...string) *process {
	u.Helper()
	p := &process{user: u, Cmd: u.command(args...)}
	p.Stdout, p.Stderr = &p.out, &p.err
	if err := p.Start(); err != nil {
		u.Fatal(err)
	}
	return p
}

func (p *process) end() result {
	p.Helper()
	return result{p.statusOf(p.Wait()), p.out.String(), p.err.String()}
}

// startMany starts n processes at once.
func (u *user) startMany(n int, args ...string) []*process {
	u.Helper()
	all := make([]*process, n)
	for i := range all {
		all[i] = u.start(args...)
	}
	return all
}

// endAll waits for the processes, which must end with the status.
func endAll(t *testing.T, all []*process, status int, text string) {
	t.Helper()
	var wait sync.WaitGroup
	for _, p := range all {
		wait.Go(func() {
			if got := p.end(); got.status != status || !strings.Contains(got.out+got.err, text) {
				t.Errorf("want status %d and %q: %v", status, text, got)
			}
		})
	}
	wait.Wait()
}

func TestManyProcessesMakeOneRefresh(t *testing.T) {
	t.Parallel()
	u := loggedIn(t, fincodetest.Config{})
	u.adopt(time.Now().Add(-time.Second))
	u.fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{After: 300 * time.Millisecond})
	endAll(t, u.startMany(20, "call", "GET", "/whoami"), 0, "user-id")
	if c := u.fc.Counts(); c.Refreshes != 1 || c.RefreshCalls != 1 || c.APICalls != 20 || c.APIRejected != 0 {
		t.Errorf("%+v", c)
	}
	if twice := u.fc.PresentedMoreThanOnce(); len(twice) != 0 {
		t.Errorf("presented more than once: %+v", twice)
	}
}

// The killed process has not rotated the token. So the others present it again, which is
// the one exception of the README, and FinCode accepts it.
func TestOthersTakeOverFromAProcessThatWasKilled(t *testing.T) {
	t.Parallel()
	u := loggedIn(t, fincodetest.Config{})
	others := killInRefresh(t, u, fincodetest.Fault{Before: time.Minute})
	endAll(t, others, 0, "user-id")
	c, twice := u.fc.Counts(), u.fc.PresentedMoreThanOnce()
	if c.Refreshes != 1 || c.RefreshCalls != 2 || len(twice) != 1 || twice[0].Times != 2 || twice[0].Reuses != 0 {
		t.Errorf("%+v, presented more than once: %+v", c, twice)
	}
}

// The killed process has rotated the token, and its successor is lost. That ends the
// session, and it is not taken for a theft.
func TestSessionThatWasLostWithAProcessIsNoTheft(t *testing.T) {
	t.Parallel()
	u := loggedIn(t, fincodetest.Config{})
	others := killInRefresh(t, u, fincodetest.Fault{After: time.Minute})
	endAll(t, others, 3, "was lost, because a process or a connection died")
	c, twice := u.fc.Counts(), u.fc.PresentedMoreThanOnce()
	if c.Refreshes != 1 || c.RefreshCalls != 2 || len(twice) != 1 || twice[0].Times != 2 {
		t.Errorf("%+v, presented more than once: %+v", c, twice)
	}
}

// killInRefresh kills one of 20 processes in the middle of the refresh, and returns the others.
func killInRefresh(t *testing.T, u *user, fault fincodetest.Fault) []*process {
	t.Helper()
	u.adopt(time.Now().Add(-time.Second))
	u.fc.Inject(fincodetest.Refresh, 1, fault)
	args := []string{"call", "GET", "/whoami", "--refresh-timeout", "2s"}
	victim := u.start(args...)
	u.eventually("refreshing", func() bool { return u.fc.Counts().RefreshCalls == 1 })
	others := u.startMany(19, args...)
	victim.Process.Kill()
	if got := victim.end(); got.status != -1 {
		t.Errorf("the killed process: %v", got)
	}
	return others
}

func TestInterruptedCallSavesTheRotatedToken(t *testing.T) {
	u := loggedIn(t, fincodetest.Config{})
	u.adopt(time.Now().Add(-time.Second))
	u.fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{After: 500 * time.Millisecond})
	p := u.start("call", "GET", "/whoami")
	u.eventually("rotated", func() bool { return u.fc.Counts().Refreshes == 1 })
	p.Process.Signal(os.Interrupt)
	if got := p.end(); got.status != 130 || got.err != "fincode: interrupted\n" {
		t.Error(got)
	}
	u.want(0, "call", "GET", "/whoami")
	if c := u.fc.Counts(); c.RefreshCalls != 1 || c.APICalls != 1 {
		t.Errorf("%+v", c)
	}
}

// A person who waits is told that a second Ctrl-C may cost the session.
func TestInterruptedCallSaysWhyItWaits(t *testing.T) {
	t.Parallel()
	u := loggedIn(t, fincodetest.Config{})
	u.adopt(time.Now().Add(-time.Second))
	u.fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{After: 3 * time.Second})
	p := u.start("call", "GET", "/whoami")
	u.eventually("rotated", func() bool { return u.fc.Counts().Refreshes == 1 })
	p.Process.Signal(os.Interrupt)
	if got := p.end(); got.status != 130 || !strings.Contains(got.err, "waiting for the end of a refresh") {
		t.Error(got)
	}
}

// As in fincode call … | head -1, while the token is refreshed in the background.
func TestClosedPipeDoesNotLoseARefresh(t *testing.T) {
	u := loggedIn(t, fincodetest.Config{})
	u.adopt(time.Now().Add(time.Minute))
	u.fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{After: 500 * time.Millisecond})
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	var stderr bytes.Buffer
	cmd := u.command("call", "GET", "/whoami")
	cmd.Stdout, cmd.Stderr = w, &stderr
	err = cmd.Run()
	w.Close()
	if status := u.statusOf(err); status != 141 || stderr.Len() != 0 {
		t.Errorf("status %d: %s", status, stderr.String())
	}
	u.want(0, "call", "GET", "/whoami")
	if c := u.fc.Counts(); c.RefreshCalls != 1 || c.Refreshes != 1 {
		t.Errorf("%+v", c)
	}
	if v := u.status(0); v["expires_at"].(string) < time.Now().Add(50*time.Minute).UTC().Format(time.RFC3339) {
		t.Errorf("the new token is not saved: %v", v)
	}
}

func TestHangupSavesTheRotatedToken(t *testing.T) {
	u := loggedIn(t, fincodetest.Config{})
	u.adopt(time.Now().Add(-time.Second))
	u.fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{After: 500 * time.Millisecond})
	p := u.start("token")
	u.eventually("rotated", func() bool { return u.fc.Counts().Refreshes == 1 })
	p.Process.Signal(syscall.SIGHUP)
	if got := p.end(); got.status != 130 {
		t.Error(got)
	}
	u.want(0, "token")
	if c := u.fc.Counts(); c.RefreshCalls != 1 {
		t.Errorf("%+v", c)
	}
}
