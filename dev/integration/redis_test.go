package integration

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/oauth2"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/redisstore"
	"github.com/fincodeauth/fincodeauth/storetest"
)

func TestRedisClusterKeepsTheContract(t *testing.T) {
	var addrs []string
	for range 3 {
		addrs = append(addrs, startRedis(t, "--cluster-enabled", "yes"))
	}
	for i, addr := range addrs {
		first, last := i*16384/3, (i+1)*16384/3-1
		ask(t, addr, "CLUSTER", "ADDSLOTSRANGE", first, last)
		host, port, _ := net.SplitHostPort(addr)
		ask(t, addrs[0], "CLUSTER", "MEET", host, port)
	}
	cluster := redis.NewClusterClient(&redis.ClusterOptions{Addrs: addrs})
	t.Cleanup(func() { cluster.Close() })
	eventually(t, "the cluster is up", func() bool {
		for _, addr := range addrs {
			if info, _ := ask(t, addr, "CLUSTER", "INFO").(string); !strings.Contains(info, "cluster_state:ok") || !strings.Contains(info, "cluster_size:3") {
				return false
			}
		}
		return true
	})
	storetest.Run(t, func(t *testing.T) fincodeauth.Store {
		if err := cluster.ForEachMaster(t.Context(), func(ctx context.Context, c *redis.Client) error { return c.FlushAll(ctx).Err() }); err != nil {
			t.Fatal(err)
		}
		store, err := redisstore.New(cluster)
		if err != nil {
			t.Fatal(err)
		}
		return store
	})
}

func TestRedisScriptIsLoadedAgain(t *testing.T) {
	p := openPrefix(t, openRedis(t))
	prev := ""
	for _, version := range []string{"v1", "v2"} {
		if err := p.client.ScriptFlush(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		if err := p.Save(t.Context(), "alice", &fincodeauth.Record{Version: version}, prev); err != nil {
			t.Errorf("Save after SCRIPT FLUSH = %v", err)
		}
		prev = version
	}
}

func TestRedisTTL(t *testing.T) {
	const ttl = 24 * time.Hour
	client := openRedis(t)
	withTTL := openPrefix(t, client, redisstore.TTL(ttl))
	prev := ""
	save := func(s fincodeauth.Store, expiry time.Time) time.Duration {
		t.Helper()
		rec := &fincodeauth.Record{Version: unique("v"), Token: &oauth2.Token{AccessToken: "a", Expiry: expiry}}
		if err := s.Save(t.Context(), "alice", rec, prev); err != nil {
			t.Fatal(err)
		}
		prev = rec.Version
		return client.TTL(t.Context(), withTTL.name+"alice").Val().Round(time.Minute)
	}
	for name, step := range map[string]struct {
		expiry time.Time
		want   time.Duration
	}{
		"Expired":     {time.Now().Add(-time.Hour), ttl},
		"Unknown":     {time.Time{}, ttl},
		"ShortLived":  {time.Now().Add(time.Hour), ttl},
		"OutlivesTTL": {time.Now().Add(30 * ttl), 30*ttl + time.Hour},
	} {
		client.Expire(t.Context(), withTTL.name+"alice", time.Hour)
		if got := save(withTTL, step.expiry); got != step.want {
			t.Errorf("%s: the record is kept for %v, want %v", name, got, step.want)
		}
	}
	logout := &fincodeauth.Record{Version: "v1", Ended: "logged out", RemoveAfter: time.Now().Add(8 * ttl)}
	if err := withTTL.Save(t.Context(), "bob", logout, ""); err != nil {
		t.Fatal(err)
	}
	if got := client.TTL(t.Context(), withTTL.name+"bob").Val().Round(time.Minute); got != 8*ttl {
		t.Errorf("the record of a Logout is kept for %v, want %v", got, 8*ttl)
	}

	withoutTTL, err := redisstore.New(client, redisstore.Prefix(withTTL.name))
	if err != nil {
		t.Fatal(err)
	}
	if got := save(withoutTTL, time.Now()); got > 0 {
		t.Errorf("without TTL the record is kept for %v, want until it is deleted", got)
	}
}

// If the answer to a script is lost, the client sends the script again. So the
// script runs twice.
func TestRedisSaveSucceedsWhenItsAnswerIsLost(t *testing.T) {
	opts := *openRedis(t).Options()
	var lose atomic.Bool
	opts.Dialer = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, addr)
		return &lossy{conn, &lose}, err
	}
	client := redis.NewClient(&opts)
	t.Cleanup(func() { client.Close() })
	p := openPrefix(t, client)
	prev := ""
	for _, version := range []string{"v1", "v2"} {
		lose.Store(version == "v2")
		if err := p.Save(t.Context(), "alice", &fincodeauth.Record{Version: version}, prev); err != nil {
			t.Errorf("Save of %s = %v", version, err)
		}
		prev = version
	}
	if lose.Load() {
		t.Error("no answer was lost")
	}
}

// A lossy connection closes once when lose is true, instead of returning the next
// answer that is a number. The script answers a number.
type lossy struct {
	net.Conn
	lose *atomic.Bool
}

func (l *lossy) Read(b []byte) (int, error) {
	n, err := l.Conn.Read(b)
	if bytes.HasPrefix(b[:n], []byte(":")) && l.lose.CompareAndSwap(true, false) {
		l.Close()
		return 0, io.EOF
	}
	return n, err
}

func TestRedisErrorsSayWhatToDo(t *testing.T) {
	newStore := func(t *testing.T, addr string) fincodeauth.Store {
		client := redis.NewClient(&redis.Options{Addr: addr, MaxRetries: 1, DialerRetries: 1})
		t.Cleanup(func() { client.Close() })
		return openPrefix(t, client).Store
	}
	t.Run("Loading", func(t *testing.T) {
		wantErrors(t, newStore(t, startLoading(t)), "still loading its data, try again soon: LOADING ")
	})
	t.Run("Refused", func(t *testing.T) {
		store := newStore(t, freeAddr(t))
		wantErrors(t, store, "connection refused")
		if _, err := store.Load(t.Context(), "alice"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("Load = %v, which does not wrap ECONNREFUSED", err)
		}
	})
	t.Run("OthersKey", func(t *testing.T) {
		p := openPrefix(t, openRedis(t))
		if err := p.client.Set(t.Context(), p.name+"alice", "x", 0).Err(); err != nil {
			t.Fatal(err)
		}
		want := "another program uses this key, set another Prefix: WRONGTYPE "
		_, err := p.Load(t.Context(), "alice")
		wantError(t, "Load", err, want)
		wantError(t, "Save", p.Save(t.Context(), "alice", &fincodeauth.Record{Version: "v1"}, ""), want)
	})
	t.Run("ClosedClient", func(t *testing.T) {
		client := redis.NewClient(openRedis(t).Options())
		client.Close()
		wantErrors(t, openPrefix(t, client).Store, "client is closed")
	})
}

// Redis becomes a replica before the new token is saved. The same happens to the
// old primary in a failover.
func TestRotatedTokenIsKeptUntilRedisAcceptsWritesAgain(t *testing.T) {
	addr := startRedis(t)
	client := redis.NewClient(&redis.Options{Addr: addr})
	t.Cleanup(func() { client.Close() })
	nobody, port, _ := net.SplitHostPort(freeAddr(t))
	testKept(t, openPrefix(t, client).Store, "this Redis is a replica: give the client the primary's address, or Sentinel's: READONLY ",
		func(ctx context.Context) error { return client.Do(ctx, "REPLICAOF", nobody, port).Err() },
		func(ctx context.Context) error { return client.Do(ctx, "REPLICAOF", "NO", "ONE").Err() })
}

// startRedis starts a Redis for this test alone and returns its address. The test
// may break this Redis.
func startRedis(t *testing.T, args ...string) string {
	t.Helper()
	s := newRedis(t, args...)
	s.start(t)
	return s.addr
}

// newRedis describes a Redis for this test alone.
func newRedis(t *testing.T, args ...string) *server {
	t.Helper()
	addr := freeAddr(t)
	_, port, _ := net.SplitHostPort(addr)
	args = append([]string{"--bind", "127.0.0.1", "--port", port, "--save", "", "--dir", t.TempDir(), "--repl-diskless-load", "disabled"}, args...)
	return newServer(t, "redis-server", addr, redisServer(t), args...)
}

// redisServer returns the path of redis-server, which is also Sentinel.
func redisServer(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("redis-server")
	if err != nil {
		missing(t, "no redis-server in the path: %v; install Redis", err)
	}
	return path
}

// startLoading starts a server that answers as Redis does while it loads its data.
func startLoading(t *testing.T) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				// The first line of a command is "*" and the number of its words.
				// Each word has two lines: "$" and its length, then the word.
				lines := bufio.NewScanner(conn)
				for lines.Scan() {
					words, _ := strconv.Atoi(strings.TrimPrefix(lines.Text(), "*"))
					for range 2 * words {
						lines.Scan()
					}
					io.WriteString(conn, "-LOADING Redis is loading the dataset in memory\r\n")
				}
			}()
		}
	}()
	return l.Addr().String()
}

// freeAddr returns an address on which no program listens. A Redis in a cluster
// also uses the port that is 10000 higher, so the port must be below 55000.
func freeAddr(t testing.TB) string {
	t.Helper()
	for range 100 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
		if l.Addr().(*net.TCPAddr).Port < 55000 {
			return l.Addr().String()
		}
	}
	t.Fatal("no free port below 55000")
	return ""
}

// ask sends one command to the Redis at addr.
func ask(t *testing.T, addr string, args ...any) any {
	t.Helper()
	client := redis.NewClient(&redis.Options{Addr: addr})
	defer client.Close()
	answer, err := client.Do(t.Context(), args...).Result()
	if err != nil {
		t.Fatalf("%v: %v", args, err)
	}
	return answer
}

// eventually waits until ok is true.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("after 30 seconds it is still not true that %s", what)
		}
	}
}
