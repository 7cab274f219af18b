//go:build linux

package secret

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestKeyIsMadeInTheKeyringAndFoundByAnotherProcess(t *testing.T) {
	bus := startKeyring(t)
	dir := t.TempDir()
	made := inProcess(t, bus.env, "make", dir)
	wantText(t, made, Keyring.String())
	if found := inProcess(t, bus.env, "find", dir); found != made {
		t.Errorf("another process found %q, want %q", found, made)
	}
	if again := inProcess(t, bus.env, "make", dir); again != made {
		t.Errorf("making it again gave %q, want %q", again, made)
	}
	data, err := os.ReadFile(filepath.Join(dir, fileName))
	if err != nil || !strings.HasPrefix(string(data), inRing) || len(data) > 40 {
		t.Errorf("the file has %q, %v; want the name of the key alone", data, err)
	}
}

func TestLockedKeyringIsAnErrorThatSaysWhatToDo(t *testing.T) {
	bus := startKeyring(t)
	dir := t.TempDir()
	made := inProcess(t, bus.env, "make", dir)
	before, _ := os.ReadFile(filepath.Join(dir, fileName))
	bus.call(t, "org.freedesktop.Secret.Service.Lock", "array:objpath:"+collection)
	wantText(t, inProcess(t, bus.env, "make", dir), "error:", "unlock it", Variable)
	if after, _ := os.ReadFile(filepath.Join(dir, fileName)); !bytes.Equal(before, after) {
		t.Error("the file has changed")
	}
	bus.restart(t)
	if found := inProcess(t, bus.env, "find", dir); found != made {
		t.Errorf("after unlocking, the key is %q, want %q", found, made)
	}
}

func TestKeyringThatIsGoneIsAnErrorThatSaysWhatToDo(t *testing.T) {
	bus := startKeyring(t)
	dir := t.TempDir()
	inProcess(t, bus.env, "make", dir)
	for name, env := range map[string][]string{"no D-Bus": noBus(t), "another keyring": startKeyring(t).env} {
		before, _ := os.ReadFile(filepath.Join(dir, fileName))
		got := inProcess(t, env, "make", dir)
		wantText(t, got, "error:", "keyring", Variable)
		if after, _ := os.ReadFile(filepath.Join(dir, fileName)); !bytes.Equal(before, after) {
			t.Errorf("%s: the file has changed", name)
		}
	}
}

func TestTwentyProcessesMakeOneKey(t *testing.T) {
	for name, bus := range map[string]*keyringBus{"keyring": startKeyring(t), "file": {env: noBus(t)}} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			got := make([]string, 20)
			var wg sync.WaitGroup
			for i := range got {
				wg.Go(func() { got[i] = inProcess(t, bus.env, "make", dir) })
			}
			wg.Wait()
			for _, g := range got {
				if g != got[0] || strings.Contains(g, "error") {
					t.Errorf("processes have different keys: %q and %q", g, got[0])
				}
			}
			if bus.dir == "" {
				wantText(t, got[0], File.String())
			} else if n := bus.items(t); n != 1 {
				t.Errorf("there are %d items in the keyring, want 1", n)
			}
			if entries, _ := os.ReadDir(dir); len(entries) != 1 {
				t.Errorf("the folder has %v, want the key alone", entries)
			}
		})
	}
}

func TestWithoutAKeyringTheKeyIsInAPrivateFile(t *testing.T) {
	dir := t.TempDir()
	wantText(t, inProcess(t, noBus(t), "make", dir), File.String())
	info, err := os.Stat(filepath.Join(dir, fileName))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file has mode %v, %v; want 0600", info.Mode(), err)
	}
}

func TestBusThatHangsIsNotWaitedForForever(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bus")
	listener, err := net.Listen("unix", path) // accepts connections, and never answers
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	env := append(noBus(t), "DBUS_SESSION_BUS_ADDRESS=unix:path="+path)
	dir := t.TempDir()
	wantText(t, inProcess(t, env, "make", dir), File.String())
	if err := os.WriteFile(filepath.Join(dir, fileName), []byte(inRing+"X"), 0o600); err != nil {
		t.Fatal(err)
	}
	wantText(t, inProcess(t, env, "find", dir), "error:", "no answer within 1s", Variable)
}

// collection is the collection in which the tests' keyrings keep their items.
const collection = "/org/freedesktop/secrets/collection/login"

// A keyringBus is a D-Bus of its own with an unlocked keyring of its own.
type keyringBus struct {
	dir  string
	env  []string
	stop func()
}

// noBus returns the environment of a process that finds no D-Bus.
func noBus(t *testing.T) []string {
	dir := t.TempDir()
	return []string{"HOME=" + dir, "XDG_RUNTIME_DIR=" + dir, "DBUS_SESSION_BUS_ADDRESS=unix:path=" + dir + "/none"}
}

// startKeyring starts a D-Bus and a keyring, which end with the test.
func startKeyring(t *testing.T) *keyringBus {
	t.Helper()
	for _, program := range []string{"dbus-daemon", "dbus-send", "gnome-keyring-daemon"} {
		if _, err := exec.LookPath(program); err != nil {
			if os.Getenv("FINCODEAUTH_REQUIRE_SERVICES") == "1" {
				t.Fatal(err)
			}
			t.Skip(err)
		}
	}
	dir, err := os.MkdirTemp("", "keyring") // t.TempDir's path is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	config := fmt.Sprintf(`<busconfig><type>session</type><listen>unix:path=%s/bus</listen>
		<policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/></policy></busconfig>`, dir)
	if err := os.WriteFile(dir+"/bus.conf", []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	b := &keyringBus{dir: dir, env: []string{"HOME=" + dir, "XDG_RUNTIME_DIR=" + dir, "XDG_DATA_HOME=" + dir,
		"DBUS_SESSION_BUS_ADDRESS=unix:path=" + dir + "/bus"}}
	t.Cleanup(b.start(t, "", "dbus-daemon", "--nofork", "--config-file="+dir+"/bus.conf"))
	b.startDaemon(t)
	t.Cleanup(func() { b.stop() })
	return b
}

// startDaemon starts the keyring, and waits until it answers.
func (b *keyringBus) startDaemon(t *testing.T) {
	t.Helper()
	b.stop = b.start(t, "password", "gnome-keyring-daemon", "--foreground", "--unlock", "--components=secrets")
	var out []byte
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if out, _ = b.send("/org/freedesktop/secrets", "org.freedesktop.DBus.Properties.Get", "string:org.freedesktop.Secret.Service", "string:Collections"); bytes.Contains(out, []byte(collection)) {
			return
		}
	}
	t.Fatalf("the keyring does not answer: %s", out)
}

// restart ends the keyring, and starts it again: it is unlocked then.
func (b *keyringBus) restart(t *testing.T) {
	b.stop()
	b.startDaemon(t)
}

// start starts a program, and returns the function that ends it.
func (b *keyringBus) start(t *testing.T, input, name string, args ...string) (stop func()) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(b.env, "PATH="+os.Getenv("PATH"))
	cmd.Stdin = strings.NewReader(input)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return sync.OnceFunc(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
}

// send calls a method on the bus.
func (b *keyringBus) send(object, method string, args ...string) ([]byte, error) {
	cmd := exec.Command("dbus-send", append([]string{"--session", "--reply-timeout=2000", "--print-reply", "--dest=org.freedesktop.secrets", object, method}, args...)...)
	cmd.Env = append(b.env, "PATH="+os.Getenv("PATH"))
	return cmd.CombinedOutput()
}

// call calls a method of the keyring.
func (b *keyringBus) call(t *testing.T, method string, args ...string) {
	t.Helper()
	if out, err := b.send("/org/freedesktop/secrets", method, args...); err != nil {
		t.Fatalf("%s: %v\n%s", method, err, out)
	}
}

// items returns how many items the keyring has.
func (b *keyringBus) items(t *testing.T) int {
	t.Helper()
	out, err := b.send(collection, "org.freedesktop.DBus.Properties.Get", "string:org.freedesktop.Secret.Collection", "string:Items")
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return strings.Count(string(out), "object path")
}
