package main

import (
	"bufio"
	"cmp"
	"context"
	"crypto/rand"
	"database/sql"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/fincodeauth/fincodeauth/fincodetest"
)

// replicaVariable is the environment variable that makes the test binary the program.
const replicaVariable = "FINCODEAUTH_BFF_REPLICA"

func TestMain(m *testing.M) {
	if os.Getenv(replicaVariable) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// A replica is a process that runs the program.
type replica struct {
	cmd           *exec.Cmd
	public, admin string // URLs
	log           *lockedBuffer
	exited        chan struct{} // closed when the process has ended
}

// startReplica starts the program, and waits until it listens.
func startReplica(t *testing.T, fincode *fincodetest.Server, database string, args ...string) *replica {
	t.Helper()
	args = append([]string{"-listen", "127.0.0.1:0", "-admin", "127.0.0.1:0", "-url", fincode.URL, "-dir", t.TempDir()}, args...)
	r := &replica{cmd: exec.Command(os.Args[0], args...), log: &lockedBuffer{}, exited: make(chan struct{})}
	r.cmd.Env = append(os.Environ(), replicaVariable+"=1", "DATABASE_URL="+database,
		"GORACE=atexit_sleep_ms=50 "+os.Getenv("GORACE"), // with -race, a process sleeps for a second before it ends
		"FINCODE_KEY=MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=")
	r.cmd.Stderr = r.log
	out, err := r.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for r.admin == "" && lines.Scan() {
		if at, ok := strings.CutPrefix(lines.Text(), "Open:     "); ok {
			r.public = strings.TrimSuffix(at, "/")
		}
		if at, ok := strings.CutPrefix(lines.Text(), "Health:   "); ok {
			r.admin, _, _ = strings.Cut(at, "/readyz")
		}
	}
	go func() {
		defer close(r.exited)
		_, _ = io.Copy(io.Discard, out)
		_ = r.cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = r.cmd.Process.Kill()
		<-r.exited
	})
	if r.admin == "" {
		<-r.exited
		t.Fatalf("the program does not start:\n%s", r.log)
	}
	return r
}

// stop asks the process to stop.
func (r *replica) stop(t *testing.T) {
	t.Helper()
	if err := r.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
}

// wait waits until the process has ended, and returns its exit code.
func (r *replica) wait(t *testing.T) int {
	t.Helper()
	select {
	case <-r.exited:
	case <-time.After(2 * time.Minute):
		t.Fatalf("the process does not end:\n%s", r.log)
	}
	return r.cmd.ProcessState.ExitCode()
}

// isReady asks the replica's /readyz.
func (r *replica) isReady(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.admin+"/readyz", nil)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// A user has a browser's cookies, and no patience for errors.
type user struct {
	client *http.Client
	site   string
	email  string
}

func newUser(site, email string) (*user, error) {
	jar, err := cookiejar.New(nil)
	return &user{site: site, email: email, client: &http.Client{
		Jar:           jar,
		Timeout:       time.Minute,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, err
}

// logIn returns an error unless the login succeeds.
func (u *user) logIn() error {
	resp, err := u.client.PostForm(u.site+"/login", url.Values{"email": {u.email}, "password": {fincodetest.Password}})
	return expect("POST /login", resp, err, http.StatusSeeOther)
}

// get returns an error unless the answer is a 200.
func (u *user) get(path string) error {
	resp, err := u.client.Get(u.site + path)
	return expect("GET "+path, resp, err, http.StatusOK)
}

// send returns an error unless the answer to a POST is a 200.
func (u *user) send(path string) error {
	resp, err := u.client.Post(u.site+path, "application/json", strings.NewReader(`{"amount": "12.50"}`))
	return expect("POST "+path, resp, err, http.StatusOK)
}

func expect(what string, resp *http.Response, err error, status int) error {
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != status {
		err = fmt.Errorf("%s: %s: %.500s", what, resp.Status, body)
	}
	return err
}

// eventually waits until is returns true.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	deadline := time.After(time.Minute)
	for !is() {
		select {
		case <-deadline:
			t.Fatalf("not within a minute: %s", what)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// newSchema makes an empty schema in PostgreSQL, and returns the URL with which the
// program uses it. The schema goes when the test ends.
func newSchema(t *testing.T) *url.URL {
	t.Helper()
	address := cmp.Or(os.Getenv("FINCODEAUTH_TEST_POSTGRES"), "postgres://postgres@127.0.0.1:5432/test")
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal("FINCODEAUTH_TEST_POSTGRES is not a URL")
	}
	db, err := sql.Open("pgx", address)
	if err != nil {
		t.Fatalf("FINCODEAUTH_TEST_POSTGRES: %v", err)
	}
	t.Cleanup(func() { db.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := db.PingContext(ctx); err != nil {
		missing(t, "no PostgreSQL at %s: %v; start one there, or set FINCODEAUTH_TEST_POSTGRES to its address", u.Redacted(), err)
	}
	name := "fincodeauth_bff_" + strings.ToLower(rand.Text()[:12])
	if _, err := db.ExecContext(t.Context(), "CREATE SCHEMA "+name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := db.ExecContext(context.Background(), "DROP SCHEMA "+name+" CASCADE"); err != nil {
			t.Error(err)
		}
	})
	query := u.Query()
	query.Set("search_path", name)
	u.RawQuery = query.Encode()
	return u
}

// A cable is the network between the program and the database.
type cable struct {
	listener net.Listener
	to       string
	mu       sync.Mutex
	isCut    bool                  // guarded by mu
	conns    map[net.Conn]struct{} // guarded by mu
}

func newCable(t *testing.T, to string) *cable {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cable{listener: listener, to: to, conns: make(map[net.Conn]struct{})}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { c.carry(conn) })
		}
	})
	t.Cleanup(func() {
		listener.Close()
		c.cut()
		serving.Wait()
	})
	return c
}

// carry copies in both directions until one side ends.
func (c *cable) carry(from net.Conn) {
	to, err := net.Dial("tcp", c.to)
	if err != nil || !c.add(from, to) {
		from.Close()
		if to != nil {
			to.Close()
		}
		return
	}
	var copying sync.WaitGroup
	for _, pair := range [][2]net.Conn{{from, to}, {to, from}} {
		copying.Go(func() {
			_, _ = io.Copy(pair[0], pair[1])
			from.Close()
			to.Close()
		})
	}
	copying.Wait()
}

// add remembers the connections. It returns false if the cable is cut.
func (c *cable) add(conns ...net.Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range conns {
		c.conns[conn] = struct{}{}
	}
	return !c.isCut
}

func (c *cable) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.isCut = true
	for conn := range c.conns {
		conn.Close()
	}
	clear(c.conns)
}

func (c *cable) repair() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.isCut = false
}
