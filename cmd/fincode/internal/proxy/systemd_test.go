package proxy_test

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/cmd/fincode/internal/proxy"
	"github.com/fincodeauth/fincodeauth/cmd/fincode/internal/proxykey"
	"github.com/fincodeauth/fincodeauth/filestore"
	"github.com/fincodeauth/fincodeauth/fincodetest"
)

// newOrder returns an order for a child with a session.
func newOrder(t *testing.T) childOrder {
	t.Helper()
	server := fincodetest.NewServer(fincodetest.Config{})
	t.Cleanup(server.Close)
	order := childOrder{BaseURL: server.URL, Folder: t.TempDir(), Name: "child"}
	_, order.Key = proxykey.New()
	store, err := filestore.New(order.Folder)
	if err != nil {
		t.Fatal(err)
	}
	sessions, err := fincodeauth.New(fincodeauth.Config{BaseURL: server.URL, Store: store, Base: server.Client().Transport})
	if err != nil {
		t.Fatal(err)
	}
	defer sessions.Close(context.Background())
	if err := sessions.Login(t.Context(), session, fincodeauth.Credentials{Email: fincodetest.Email, Password: fincodetest.Password}); err != nil {
		t.Fatal(err)
	}
	return order
}

// activate runs a child under the real systemd-socket-activate, which starts it with the
// first connection.
func activate(t *testing.T, order childOrder, addresses ...string) (stderr *buffer) {
	t.Helper()
	program, err := exec.LookPath("systemd-socket-activate")
	if err != nil {
		missing(t, "no systemd-socket-activate: install it (Debian: apt-get install systemd)")
	}
	text, err := json.Marshal(order)
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"--setenv=" + childVariable + "=" + string(text)}
	for _, address := range addresses {
		args = append(args, "--listen="+address)
	}
	stderr = &buffer{}
	cmd := exec.Command(program, append(args, os.Args[0])...)
	cmd.Stderr = stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // it has become the child, if somebody has connected
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
	})
	eventually(t, "systemd-socket-activate listens", func() bool {
		return strings.Count(stderr.String(), "Listening on") == len(addresses)
	})
	return stderr
}

// freePort returns an address that is free at this moment.
func freePort(t *testing.T, host string) string {
	t.Helper()
	listener, err := net.Listen("tcp", host+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

func TestSocketsOfSystemdAreServed(t *testing.T) {
	order := newOrder(t)
	tcp, path := freePort(t, "127.0.0.1"), filepath.Join(t.TempDir(), "proxy.sock")
	order.Unix = filepath.Join(t.TempDir(), "own.sock") // besides those of systemd
	stderr := activate(t, order, tcp, path)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for _, where := range []string{tcp, path, order.Unix} {
		if err := proxy.Wait(ctx, where); err != nil {
			t.Fatalf("%v; %s", err, stderr)
		}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+tcp+"/whoami", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth("anybody", order.Key)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("%s, want 200; %s", resp.Status, stderr)
	}
}

func TestSocketOfSystemdThatOtherMachinesReachIsRefused(t *testing.T) {
	address := freePort(t, "0.0.0.0")
	stderr := activate(t, newOrder(t), address)
	_, port, _ := net.SplitHostPort(address)
	conn, err := net.Dial("tcp", "127.0.0.1:"+port)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	eventually(t, "the child refuses the socket", func() bool { return strings.Contains(stderr.String(), "--allow-remote") })
}

func TestSystemdIsToldWhatHappens(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	told := make(chan string, 100)
	go func() {
		defer close(told)
		for p := make([]byte, 1000); ; {
			n, err := socket.Read(p)
			if err != nil {
				return
			}
			told <- string(p[:n])
		}
	}()
	want := func(line string) string {
		t.Helper()
		for deadline := time.After(10 * time.Second); ; {
			select {
			case text := <-told:
				if strings.HasPrefix(text, line) {
					return text
				}
			case <-deadline:
				t.Fatalf("systemd is not told %s", line)
			}
		}
	}
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", "100000")
	order := newOrder(t)
	order.Listen = []string{"127.0.0.1:0"}
	c := startChild(t, order)
	if text := want("READY=1"); !strings.Contains(text, "STATUS=listening on "+strings.TrimPrefix(c.url, "http://")) {
		t.Errorf("systemd is told %q, want the address", text)
	}
	want("WATCHDOG=1")
	want("WATCHDOG=1")
	c.cmd.Process.Signal(syscall.SIGTERM)
	want("STOPPING=1")
	if err := c.cmd.Wait(); err != nil {
		t.Errorf("the child ends with %v: %s", err, c.stderr)
	}
	socket.Close()
	for range told { // until the reader has ended
	}
}
