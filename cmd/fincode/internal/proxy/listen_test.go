package proxy_test

import (
	"context"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fincodeauth/fincodeauth/cmd/fincode/internal/proxy"
	"github.com/fincodeauth/fincodeauth/fincodetest"
)

var quiet = slog.New(slog.DiscardHandler)

func TestAddressesThatOtherMachinesReachAreRefused(t *testing.T) {
	for _, address := range []string{":0", "0.0.0.0:0", "[::]:0", "192.0.2.1:0"} {
		if _, err := proxy.Listen(t.Context(), proxy.Addresses{TCP: []string{"127.0.0.1:0", address}}, quiet); err == nil || !strings.Contains(err.Error(), "--allow-remote") {
			t.Errorf("%s: error %v, want one that names --allow-remote", address, err)
		}
	}
	log := &buffer{}
	listeners, err := proxy.Listen(t.Context(), proxy.Addresses{TCP: []string{":0"}, AllowRemote: true}, slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	listeners[0].Close()
	if !strings.Contains(log.String(), "level=WARN") || !strings.Contains(log.String(), "TLS") {
		t.Errorf("the log is %q, want a warning", log)
	}
	if _, err := proxy.Listen(t.Context(), proxy.Addresses{TCP: []string{"nonsense"}}, quiet); err == nil || !strings.Contains(err.Error(), "127.0.0.1:8080") {
		t.Errorf("error %v, want one that says how to write it", err)
	}
}

func TestAddressInUseIsNamed(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	address := taken.Addr().String()
	path := filepath.Join(t.TempDir(), "s")
	_, err = proxy.Listen(t.Context(), proxy.Addresses{TCP: []string{"127.0.0.1:0", address}, Unix: []string{path}}, quiet)
	if err == nil || !strings.Contains(err.Error(), address) || !strings.Contains(err.Error(), "in use") || !strings.Contains(err.Error(), "choose another") {
		t.Errorf("error %v, want one that names %s and says what to do", err, address)
	}
}

// listenUnix opens one Unix socket.
func listenUnix(t *testing.T, path string) (net.Listener, error) {
	t.Helper()
	listeners, err := proxy.Listen(t.Context(), proxy.Addresses{Unix: []string{path}}, quiet)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { listeners[0].Close() })
	return listeners[0], nil
}

func TestUnixSocketIsForItsOwnerAloneFromTheFirstMoment(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "proxy.sock")
	watching, stop := context.WithCancel(t.Context())
	var watcher sync.WaitGroup
	watcher.Go(func() { // whatever the umask is, nobody sees another mode
		for watching.Err() == nil {
			if info, err := os.Lstat(path); err == nil && info.Mode().Perm() != 0o600 {
				t.Errorf("the mode is %v", info.Mode())
				return
			}
		}
	})
	for range 50 {
		listener, err := listenUnix(t, path)
		if err != nil {
			t.Fatal(err)
		}
		if info, err := os.Lstat(path); err != nil || info.Mode() != fs.ModeSocket|0o600 {
			t.Errorf("%v, error %v, want a socket with mode 0600", info, err)
		}
		if listener.Addr().String() != path {
			t.Errorf("the address is %s, want %s", listener.Addr(), path)
		}
		listener.Close()
		if left, _ := os.ReadDir(folder); len(left) != 0 {
			t.Fatalf("%v is left", left)
		}
	}
	stop()
	watcher.Wait()
}

func TestSocketOfADeadProcessIsReplacedAndThatOfALivingOneIsNot(t *testing.T) {
	path := filepath.Join(t.TempDir(), "proxy.sock")
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close() // as kill -9 does
	living, err := listenUnix(t, path)
	if err != nil {
		t.Fatal("a dead socket is not replaced:", err)
	}
	if _, err := listenUnix(t, path); err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "in use") {
		t.Errorf("error %v, want one that says that in use", err)
	}
	go func() {
		if conn, err := living.Accept(); err == nil {
			conn.Close()
		}
	}()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal("the living one was replaced:", err)
	}
	conn.Close()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := listenUnix(t, path); err != nil {
		t.Fatal(err)
	}
	living.Close()
	if _, err := os.Lstat(path); err != nil {
		t.Error("the first listener has removed the socket of the second one")
	}
}

func TestOfProxiesThatStartAtOnceOneGetsTheSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "proxy.sock")
	for range 20 {
		won := make(chan net.Listener, 8)
		var all sync.WaitGroup
		for range cap(won) {
			all.Go(func() {
				if listeners, err := proxy.Listen(t.Context(), proxy.Addresses{Unix: []string{path}}, quiet); err == nil {
					won <- listeners[0]
				}
			})
		}
		all.Wait()
		if len(won) != 1 {
			t.Errorf("%d proxies have the socket, want 1", len(won))
		}
		for len(won) > 0 {
			(<-won).Close()
		}
	}
}

func TestUnixPathsThatCannotBe(t *testing.T) {
	folder := t.TempDir()
	file := filepath.Join(folder, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		file:                               "another kind",
		filepath.Join(folder, "none", "s"): "folder",
		filepath.Join(folder, strings.Repeat("x", 40), strings.Repeat("y", 100)): "folder",
	} {
		if _, err := listenUnix(t, path); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "--unix") {
			t.Errorf("%s: error %v, want one about: %s", path, err, want)
		}
	}
	deep := filepath.Join(folder, strings.Repeat("d", 100))
	if err := os.Mkdir(deep, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := listenUnix(t, filepath.Join(deep, "s")); err == nil || !strings.Contains(err.Error(), "shorter path") {
		t.Errorf("error %v, want one that asks for a shorter path", err)
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != "precious" {
		t.Error("the file was replaced")
	}
}

func TestConnectionsOfOtherUsersAreRefused(t *testing.T) {
	for _, test := range []struct {
		own, uid int
		want     bool
	}{{1000, 1000, true}, {1000, 0, true}, {1000, 1001, false}, {0, 0, true}, {0, 1000, false}} {
		if got := proxy.AllowedFor(test.own)(test.uid); got != test.want {
			t.Errorf("the proxy of user %d accepts user %d: %t, want %t", test.own, test.uid, got, test.want)
		}
	}
	s := newUnserved(t, fincodetest.Config{}, nil)
	path := filepath.Join(t.TempDir(), "proxy.sock")
	listener, err := listenUnix(t, path)
	if err != nil {
		t.Fatal(err)
	}
	asked := make(chan int, 10)
	proxy.OnlyFor(listener, func(uid int) bool { asked <- uid; return len(asked) > 1 })
	s.serve(listener)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := proxy.Wait(ctx, path); err != nil { // the first try is refused
		t.Error(err)
	}
	if first := <-asked; first != os.Geteuid() {
		t.Errorf("the connection is of user %d, want %d", first, os.Geteuid())
	}
	if len(asked) == 0 {
		t.Error("the first connection was accepted")
	}
}

func TestWaitSaysWhatItHasTried(t *testing.T) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := free.Addr().String()
	free.Close()
	for where, want := range map[string]string{
		address:                                 address,
		"http://fincode:secret-key@" + address:  address,
		filepath.Join(t.TempDir(), "none.sock"): "none.sock",
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 250*time.Millisecond)
		err := proxy.Wait(ctx, where)
		cancel()
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "connect") || strings.Contains(err.Error(), "secret-key") {
			t.Errorf("error %v, want one that names %s and the last error", err, want)
		}
	}
	if err := proxy.Wait(t.Context(), "http://%zz:secret-key@x"); err == nil || strings.Contains(err.Error(), "secret-key") {
		t.Errorf("error %v, want one without the key", err)
	}
}
