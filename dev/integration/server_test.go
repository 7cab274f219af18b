package integration

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A server is a program that a test has for itself. The test may stop it and start
// it again.
type server struct {
	name string // for people
	addr string
	path string
	args []string
	as   *syscall.Credential // who runs it; nil: whoever runs the test
	log  string              // the file with all that it has written

	cmd   *exec.Cmd
	ended chan struct{} // closed when cmd has ended; nil: it was never started
}

// newServer describes a server that is not started yet. When the test ends, the
// server is killed. If the test has failed, the end of its log is printed.
func newServer(t *testing.T, name, addr, path string, args ...string) *server {
	t.Helper()
	s := &server{name: name, addr: addr, path: path, args: args, log: filepath.Join(t.TempDir(), "log")}
	t.Cleanup(func() {
		s.stop(syscall.SIGKILL)
		if t.Failed() {
			t.Logf("%s at %s wrote at last:\n%s", s.name, s.addr, s.lastLines(60))
		}
	})
	return s
}

// start starts the server, with more arguments than those it always has, and waits
// until it accepts connections.
func (s *server) start(t *testing.T, more ...string) {
	t.Helper()
	log, err := os.OpenFile(s.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close() // the program has its own copy
	s.cmd = exec.Command(s.path, append(s.args[:len(s.args):len(s.args)], more...)...)
	s.cmd.Stdout, s.cmd.Stderr = log, log
	s.cmd.Dir = os.TempDir() // another user may not enter the directory of the test
	if s.as != nil {
		s.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.as}
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.ended = make(chan struct{})
	go func() {
		defer close(s.ended)
		_ = s.cmd.Wait()
	}()
	eventually(t, s.name+" answers at "+s.addr, func() bool {
		conn, err := net.Dial("tcp", s.addr)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
}

// stop sends a signal and waits until the server has ended. A server that does not
// end within 10 s is killed.
func (s *server) stop(signal syscall.Signal) {
	if s.ended == nil {
		return
	}
	_ = s.cmd.Process.Signal(signal) // fails if it has ended already
	select {
	case <-s.ended:
	case <-time.After(10 * time.Second):
		_ = s.cmd.Process.Kill()
		<-s.ended
	}
}

// lastLines returns the last n lines of the log.
func (s *server) lastLines(n int) string {
	text, err := os.ReadFile(s.log)
	if err != nil {
		return fmt.Sprint(err)
	}
	lines := strings.SplitAfter(string(text), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "")
}
