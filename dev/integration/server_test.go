package integration

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
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
func newServer(t testing.TB, name, addr, path string, args ...string) *server {
	t.Helper()
	s := &server{name: name, addr: addr, path: path, args: args, log: filepath.Join(t.TempDir(), "log")}
	t.Cleanup(func() {
		s.kill()
		showLogs(t, s)
	})
	return s
}

// showLogs prints what the servers wrote at last, if the test has failed.
func showLogs(t testing.TB, servers ...*server) {
	t.Helper()
	if !t.Failed() {
		return
	}
	for _, s := range servers {
		t.Logf("%s at %s wrote at last:\n%s", s.name, s.addr, s.lastLines(60))
	}
}

// findProgram returns the path of a program that CONTRIBUTING.md says how to build.
func findProgram(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		missing(t, "no %s in the path: %v; build it as CONTRIBUTING.md says", name, err)
	}
	return path
}

// start starts the server, with more arguments than those it always has, and waits
// until it accepts connections.
func (s *server) start(t testing.TB, more ...string) {
	t.Helper()
	if err := s.launch(more...); err != nil {
		t.Fatal(err)
	}
	eventually(t, s.name+" answers at "+s.addr, func() bool {
		conn, err := net.Dial("tcp", s.addr)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
}

// launch is start that does not wait.
func (s *server) launch(more ...string) error {
	log, err := os.OpenFile(s.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close() // the program has its own copy
	s.cmd = exec.Command(s.path, append(s.args[:len(s.args):len(s.args)], more...)...)
	s.cmd.Stdout, s.cmd.Stderr = log, log
	s.cmd.Dir = os.TempDir() // another user may not enter the directory of the test
	if s.as != nil {
		s.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.as}
	}
	if err := s.cmd.Start(); err != nil {
		return err
	}
	cmd, ended := s.cmd, make(chan struct{})
	s.ended = ended
	go func() {
		defer close(ended)
		_ = cmd.Wait()
	}()
	return nil
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

// pause stops a server in the middle of whatever it does. Its connections stay.
func (s *server) pause() error { return s.cmd.Process.Signal(syscall.SIGSTOP) }

// resume lets a paused server go on.
func (s *server) resume() error { return s.cmd.Process.Signal(syscall.SIGCONT) }

// kill ends s as a power failure does.
func (s *server) kill() { s.stop(syscall.SIGKILL) }

// lastLines returns the last n lines of the log.
func (s *server) lastLines(n int) string {
	text, err := os.ReadFile(s.log)
	if err != nil {
		return fmt.Sprint(err)
	}
	lines := strings.SplitAfter(string(text), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "")
}

// sharedServers are started for the first test that needs them, and are used by all tests
// that do not break them.
type sharedServers[T interface {
	start(t testing.TB)
	stop()
}] struct {
	once    sync.Once
	servers T
	started bool
}

// stops are called after all tests.
var stops []func()

// get returns the servers. The first call starts them, with their data below dir.
func (c *sharedServers[T]) get(t testing.TB, describe func(dir string) T) T {
	t.Helper()
	c.once.Do(func() {
		dir, err := os.MkdirTemp("", "fincodeauth-")
		if err != nil {
			t.Fatal(err)
		}
		c.servers = describe(dir)
		stops = append(stops, func() {
			c.servers.stop()
			_ = os.RemoveAll(dir) // a directory for temporary files
		})
		c.servers.start(t)
		c.started = true
	})
	if !c.started {
		t.Fatal("the servers have not started: see the first test that needs them")
	}
	return c.servers
}
