package proxy_test

import (
	"bufio"
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/cmd/fincode/internal/proxy"
	"github.com/fincodeauth/fincodeauth/cmd/fincode/internal/proxykey"
	"github.com/fincodeauth/fincodeauth/filestore"
	"github.com/fincodeauth/fincodeauth/fincodetest"
	"github.com/fincodeauth/fincodeauth/sqlstore"
)

const (
	postgresDSN = "postgres://postgres@127.0.0.1:5432/test"

	manyProxies  = 4
	manyClients  = 6 // each sends one request after the other
	manyFor      = 10 * time.Second
	manyKill     = 800 * time.Millisecond // between two kills
	manyLife     = 2 * time.Second        // of an access token
	manyRefresh  = 60 * time.Millisecond  // that FinCode takes for a rotation, half of it before its effect
	manyTimeout  = 500 * time.Millisecond // RefreshTimeout
	manyPatience = 15 * time.Second       // of a client
)

// childVariable makes this binary a proxy of its own. Its value is a childOrder in JSON.
const childVariable = "FINCODE_PROXY_TEST_CHILD"

// A childOrder is what a child serves.
type childOrder struct {
	Name    string // the value of the header Uuid of the child's calls
	BaseURL string
	Folder  string // of a filestore; "": Table is used
	Table   string // in PostgreSQL
	Key     string // the proxy's
	Listen  []string
	Unix    string
	Delay   time.Duration // MinSigtermDelay
}

// obey serves a proxy until it gets a signal. It prints the addresses.
func obey(text string) (status int) {
	var order childOrder
	if err := errors.Join(json.Unmarshal([]byte(text), &order), serveChild(order)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func serveChild(order childOrder) error {
	store, closer, err := order.open()
	if err != nil {
		return err
	}
	defer closer()
	sessions, err := fincodeauth.New(fincodeauth.Config{
		BaseURL:        order.BaseURL,
		Store:          store,
		Base:           proxy.NewBase(),
		RefreshTimeout: manyTimeout,
		ExtraHeader:    http.Header{"Uuid": {order.Name}},
	})
	if err != nil {
		return err
	}
	key, err := proxykey.Parse(order.Key)
	if err != nil {
		return err
	}
	logger := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	p, err := proxy.New(proxy.Config{Sessions: sessions, Session: session, BaseURL: order.BaseURL, Key: key, MaxReplayBody: proxy.DefaultMaxReplayBody, Logger: logger,
		MinSigtermDelay: order.Delay, MaxSigtermDelay: order.Delay + 5*time.Second})
	if err != nil {
		return err
	}
	addresses := proxy.Addresses{TCP: order.Listen}
	if order.Unix != "" {
		addresses.Unix = []string{order.Unix}
	}
	listeners, err := proxy.Listen(context.Background(), addresses, logger)
	if err != nil {
		return err
	}
	for _, l := range listeners {
		fmt.Println(l.Addr())
	}
	ctx, cancel := context.WithTimeout(context.Background(), manyPatience)
	defer cancel()
	return errors.Join(p.Serve(context.Background(), listeners), sessions.Close(ctx))
}

func (o childOrder) open() (fincodeauth.Store, func() error, error) {
	if o.Folder != "" {
		store, err := filestore.New(o.Folder)
		return store, func() error { return nil }, err
	}
	db, err := sql.Open("pgx", postgresDSN)
	if err != nil {
		return nil, nil, err
	}
	store, err := sqlstore.New(db, sqlstore.PostgreSQL, sqlstore.Table(o.Table))
	return store, db.Close, err
}

// Several proxies serve one session to clients. One of them is killed, and started
// again, all the time.
func TestOfManyProxiesOneIsKilledUnderLoad(t *testing.T) {
	t.Run("filestore", func(t *testing.T) {
		t.Parallel()
		runMany(t, childOrder{Folder: t.TempDir()})
	})
	t.Run("PostgreSQL", func(t *testing.T) {
		t.Parallel()
		runMany(t, childOrder{Table: newTable(t)})
	})
}

// newTable makes a table. Without PostgreSQL, it skips the test, or fails it if
// FINCODEAUTH_REQUIRE_SERVICES is 1.
func newTable(t *testing.T) string {
	t.Helper()
	table := fmt.Sprintf("fincode_proxy_test_%d_%d", os.Getpid(), rand.N(1_000_000))
	db, err := sql.Open("pgx", postgresDSN)
	if err != nil {
		t.Fatal(err)
	}
	store, err := sqlstore.New(db, sqlstore.PostgreSQL, sqlstore.Table(table))
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Migrate(t.Context()); err != nil {
		db.Close()
		missing(t, "no PostgreSQL on 127.0.0.1:5432: "+err.Error())
	}
	t.Cleanup(func() {
		db.ExecContext(context.Background(), "DROP TABLE "+table)
		db.Close()
	})
	return table
}

// missing skips the test because a service or a program is missing, or fails it.
func missing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("FINCODEAUTH_REQUIRE_SERVICES") == "1" {
		t.Fatal(what)
	}
	t.Skip(what)
}

// A many is a run of the test.
type many struct {
	*testing.T
	order    childOrder
	up       *fincodetest.FinCode
	sessions *fincodeauth.Sessions // of the test, for logins

	mu          sync.Mutex
	children    []*childProxy // those that live
	presented   map[string][]presentation
	interrupted int                  // sessions that ended in the one window
	dead        map[string]time.Time // when children were killed, by name
	started     int
	refreshing  chan string // the name of a child that presents a token at this moment

	requests, retries, kills atomic.Int64
	slowest                  atomic.Int64 // in nanoseconds
}

// A presentation is a refresh call.
type presentation struct {
	by string // the child
	at time.Time
}

// A childProxy is a proxy in a process of its own.
type childProxy struct {
	name, url string
	cmd       *exec.Cmd
	stderr    *buffer
	killed    atomic.Bool // or will be in a moment
}

func runMany(t *testing.T, order childOrder) {
	m := &many{T: t, up: fincodetest.New(fincodetest.Config{AccessLifetime: manyLife}), presented: map[string][]presentation{}, dead: map[string]time.Time{}, refreshing: make(chan string)}
	m.up.Inject(fincodetest.Refresh, -1, fincodetest.Fault{Before: manyRefresh / 2, After: manyRefresh / 2})
	server := httptest.NewServer(http.HandlerFunc(m.watch))
	defer server.Close()
	order.BaseURL = server.URL + fincodetest.Root
	order.Listen = []string{"127.0.0.1:0"}
	_, order.Key = proxykey.New()
	m.order = order
	m.openSessions()
	m.login()
	for range manyProxies {
		m.start()
	}
	ctx, stop := context.WithTimeout(t.Context(), manyFor)
	defer stop()
	var working sync.WaitGroup
	for range manyClients {
		working.Go(func() { m.work(ctx) })
	}
	m.killAgainAndAgain(ctx)
	working.Wait()
	for _, c := range m.children {
		m.kill(c)
	}
	m.judge()
}

// watch notes the refresh calls.
func (m *many) watch(w http.ResponseWriter, r *http.Request) {
	if strings.HasSuffix(r.URL.Path, "/refresh-token") {
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		m.mu.Lock()
		m.presented[string(body)] = append(m.presented[string(body)], presentation{r.Header.Get("Uuid"), time.Now()})
		m.mu.Unlock()
		select {
		case m.refreshing <- r.Header.Get("Uuid"):
		default:
		}
	}
	m.up.ServeHTTP(w, r)
}

func (m *many) openSessions() {
	store, closer, err := m.order.open()
	if err != nil {
		m.Fatal(err)
	}
	m.sessions, err = fincodeauth.New(fincodeauth.Config{BaseURL: m.order.BaseURL, Store: store, Base: &http.Transport{DisableKeepAlives: true}})
	if err != nil {
		m.Fatal(err)
	}
	m.Cleanup(func() { m.sessions.Close(context.Background()); closer() })
}

func (m *many) login() {
	if err := m.sessions.Login(context.Background(), session, fincodeauth.Credentials{Email: fincodetest.Email, Password: fincodetest.Password}); err != nil {
		m.Error(err)
	}
}

// start starts a child, and waits until it serves.
func (m *many) start() {
	m.mu.Lock()
	m.started++
	order := m.order
	order.Name = fmt.Sprint("proxy-", m.started)
	m.mu.Unlock()
	c := startChild(m.T, order)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.children = append(m.children, c)
}

func startChild(t *testing.T, order childOrder) *childProxy {
	t.Helper()
	text, err := json.Marshal(order)
	if err != nil {
		t.Fatal(err)
	}
	c := &childProxy{name: order.Name, cmd: exec.Command(os.Args[0]), stderr: &buffer{}}
	c.cmd.Env = append(os.Environ(), childVariable+"="+string(text))
	c.cmd.Stderr = c.stderr
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		c.cmd.Wait()
		t.Fatalf("the child does not serve: %s", c.stderr)
	}
	c.url = "http://" + strings.TrimSpace(line)
	return c
}

func (m *many) kill(c *childProxy) {
	c.killed.Store(true)
	c.cmd.Process.Kill()
	c.cmd.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dead[c.name] = time.Now()
}

// killAgainAndAgain kills any child, and now and then one that presents a token. A child
// must live for longer than a takeover takes, or nobody takes over.
func (m *many) killAgainAndAgain(ctx context.Context) {
	for {
		var name string
		select {
		case <-ctx.Done():
			return
		case <-time.After(manyKill):
		case name = <-m.refreshing:
			if rand.N(3) > 0 {
				continue
			}
			time.Sleep(rand.N(manyRefresh * 5 / 4)) // before the rotation, between it and the save, or after both
		}
		m.kill(m.victim(name))
		m.kills.Add(1)
		m.start()
	}
}

// victim takes a child from the living. name may be "", for any child.
func (m *many) victim(name string) *childProxy {
	m.mu.Lock()
	defer m.mu.Unlock()
	i := slices.IndexFunc(m.children, func(c *childProxy) bool { return c.name == name })
	if i < 0 {
		i = rand.N(len(m.children))
	}
	c := m.children[i]
	m.children = slices.Delete(m.children, i, i+1)
	return c
}

// work sends requests. A request that was under way at a killed proxy is sent to
// another one. Nothing else may fail.
func (m *many) work(ctx context.Context) {
	client := &http.Client{Timeout: manyPatience, Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	for ctx.Err() == nil {
		began := time.Now()
		for !m.request(client) {
			m.retries.Add(1)
		}
		m.requests.Add(1)
		took := int64(time.Since(began))
		for old := m.slowest.Load(); took > old && !m.slowest.CompareAndSwap(old, took); old = m.slowest.Load() {
		}
		time.Sleep(rand.N(20 * time.Millisecond)) // the load
	}
}

// request sends one request to some proxy, and reports whether it is done.
func (m *many) request(client *http.Client) bool {
	m.mu.Lock()
	c := m.children[rand.N(len(m.children))]
	m.mu.Unlock()
	req, err := http.NewRequest(http.MethodPost, c.url+"/orders", strings.NewReader("{}"))
	if err != nil {
		m.Error(err)
		return true
	}
	req.Header.Set("Authorization", "Bearer "+m.order.Key)
	resp, err := client.Do(req)
	if err == nil {
		defer resp.Body.Close()
		_, err = io.Copy(io.Discard, resp.Body)
	}
	switch {
	case err != nil && c.killed.Load():
		return false
	case err != nil:
		m.Errorf("%s lives, and a request to it fails: %v; %s", c.name, err, c.stderr)
		return true
	case resp.Header.Get(proxy.ProblemHeader) == "LOGIN_REQUIRED":
		m.loginAgain()
		return false
	case resp.StatusCode != http.StatusOK:
		m.Errorf("%s answers %s (%s): %s", c.name, resp.Status, resp.Header.Get(proxy.ProblemHeader), c.stderr)
	}
	return true
}

// loginAgain logs in, if the session has ended in the one window in which it may.
func (m *many) loginAgain() {
	m.mu.Lock()
	defer m.mu.Unlock()
	st, err := m.sessions.Status(context.Background(), session)
	switch {
	case err != nil:
		m.Error(err)
	case st.Ended == "": // another client has logged in
		return
	case !st.Interrupted:
		m.Errorf("the session has ended: %s", st.Ended)
	}
	m.interrupted++
	m.login()
}

// judge checks that a token was presented again only after its presenter was killed.
func (m *many) judge() {
	again, wrong := 0, 0
	for _, all := range m.presented {
		for i := 1; i < len(all); i++ {
			again++
			if killed, ok := m.dead[all[i-1].by]; !ok || killed.After(all[i].at) {
				wrong++
				m.Errorf("%s presented a token %v after %s, which lived", all[i].by, all[i].at.Sub(all[i-1].at), all[i-1].by)
			}
		}
	}
	counts := m.up.Counts()
	m.Logf("%d requests, %d sent again to another proxy, the slowest took %v; %d kills; %d rotations; %d tokens presented again after a kill during a refresh, %d otherwise; %d sessions interrupted",
		m.requests.Load(), m.retries.Load(), time.Duration(m.slowest.Load()).Round(time.Millisecond), m.kills.Load(), counts.Refreshes, again, wrong, m.interrupted)
	if counts.Reuses < m.interrupted || counts.Reuses > again || counts.Rejected != 0 || counts.APIRejected != 0 || counts.MaxParallelRefreshes > 1 {
		m.Errorf("FinCode has seen %+v with %d interrupted sessions", counts, m.interrupted)
	}
	if len(m.up.PresentedMoreThanOnce()) > again || counts.Refreshes == 0 || m.kills.Load() < 5 || m.requests.Load() < 100 {
		m.Errorf("too little has happened: %+v", counts)
	}
}
