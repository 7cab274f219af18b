package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fincodeauth/fincodeauth"
)

// A pair is two Redis servers, of which one is the primary and the other one its
// replica, and a Sentinel that promotes the replica if the primary is gone for 1.5
// seconds. min-replicas-to-write is 0: the primary acknowledges writes that no
// replica has.
//
// The clients, the replica and Sentinel log in to a server under names of their own. A
// server that no longer knows a name is cut off from whoever has it, and still serves
// the others.
//
// One Sentinel is enough: several would only vote for the same thing.
type pair struct {
	servers  [2]*server
	sentinel *server
}

const (
	sentinelName = "sessions" // Sentinel's name for the pair
	replicaUser  = "replica"
	sentinelUser = "sentinel"
	clientUser   = "client"
	pairPassword = "secret" // of all of them
)

// startPair starts two servers and Sentinel.
func startPair(t *testing.T) *pair {
	t.Helper()
	p := &pair{sentinel: newSentinel(t)}
	for i := range p.servers {
		args := []string{
			"--min-replicas-to-write", "0", "--repl-diskless-sync-delay", "0",
			"--masteruser", replicaUser, "--masterauth", pairPassword,
			"--user", "default", "off", // or else whoever has no name any more would be served under this one
		}
		for _, user := range []string{replicaUser, sentinelUser, clientUser} {
			args = append(args, "--user", user, "on", ">"+pairPassword, "~*", "&*", "+@all")
		}
		p.servers[i] = newRedis(t, args...)
	}
	p.servers[0].start(t)
	p.follow(t, p.servers[1], p.servers[0])
	p.watch(t, p.servers[0])
	return p
}

// newSentinel describes a Sentinel. Its configuration is its only argument.
func newSentinel(t *testing.T) *server {
	t.Helper()
	conf := filepath.Join(t.TempDir(), "sentinel.conf")
	return newServer(t, "Sentinel", freeAddr(t), redisServer(t), conf, "--sentinel")
}

// watch starts Sentinel. It learns of replicas only every ten seconds, so primary must
// have its replica already.
func (p *pair) watch(t *testing.T, primary *server) {
	t.Helper()
	conf := p.sentinel.args[0]
	_, port, _ := net.SplitHostPort(p.sentinel.addr)
	host, of, _ := net.SplitHostPort(primary.addr)
	lines := []string{
		"bind 127.0.0.1",
		"port " + port,
		"dir " + filepath.Dir(conf),
		fmt.Sprintf("sentinel monitor %s %s %s 1", sentinelName, host, of),
		"sentinel auth-user " + sentinelName + " " + sentinelUser,
		"sentinel auth-pass " + sentinelName + " " + pairPassword,
		// Sentinel connects to a server at most once a second. With no more than that, a
		// connection that breaks after a promotion makes it promote the other server.
		"sentinel down-after-milliseconds " + sentinelName + " 1500",
		"sentinel failover-timeout " + sentinelName + " 3000",
	}
	if err := os.WriteFile(conf, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.sentinel.start(t)
}

// follow starts s as a replica of primary, without any data, and waits until it has
// all data of the primary.
func (p *pair) follow(t *testing.T, s, primary *server) {
	t.Helper()
	host, port, _ := net.SplitHostPort(primary.addr)
	s.start(t, "--replicaof", host, port)
	eventually(t, s.addr+" has what "+primary.addr+" has", func() bool { return linkIs(t, s, "up") })
}

// settle waits until there is a primary, and a replica that Sentinel can promote. It
// asks Sentinel which one is the primary, because Sentinel may have promoted a replica
// when nobody expected that: a slow machine looks like a server that is gone. The
// server that was the primary before then still believes that it is.
func (p *pair) settle(t *testing.T) (primary, replica *server) {
	t.Helper()
	eventually(t, "Sentinel knows a primary and a replica of it", func() bool {
		primary, replica = p.roles(t)
		if primary == nil {
			return false
		}
		if host, port, _ := net.SplitHostPort(primary.addr); !follows(t, replica, port) {
			_ = command(t, replica, "REPLICAOF", host, port).Err() // it is tried again
			return false
		}
		return linkIs(t, replica, "up") && p.canPromote(t, replica)
	})
	return primary, replica
}

// roles asks Sentinel which server is the primary. It returns nil if Sentinel does not
// know.
func (p *pair) roles(t *testing.T) (primary, replica *server) {
	addr, err := command(t, p.sentinel, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", sentinelName).StringSlice()
	if err != nil || len(addr) != 2 {
		return nil, nil
	}
	for i, s := range p.servers {
		if s.addr == net.JoinHostPort(addr[0], addr[1]) {
			return s, p.servers[1-i]
		}
	}
	return nil, nil
}

// awaitPromotion waits until Sentinel says that s is the primary. It returns a time
// just before that.
func (p *pair) awaitPromotion(t *testing.T, s *server) (before time.Time) {
	t.Helper()
	eventually(t, "Sentinel has promoted "+s.addr, func() bool {
		asked := time.Now()
		if primary, _ := p.roles(t); primary == s {
			return true
		}
		before = asked
		return false
	})
	return before
}

// canPromote reports whether Sentinel reaches the replica.
func (p *pair) canPromote(t *testing.T, replica *server) bool {
	ctx, cancel := context.WithTimeout(t.Context(), commandTimeout)
	defer cancel()
	client := redis.NewSentinelClient(&redis.Options{Addr: p.sentinel.addr, ContextTimeoutEnabled: true})
	defer client.Close()
	all, err := client.Replicas(ctx, sentinelName).Result()
	if err != nil {
		return false
	}
	for _, r := range all {
		if net.JoinHostPort(r["ip"], r["port"]) == replica.addr {
			return r["flags"] == "slave"
		}
	}
	return false
}

// promotions returns how often Sentinel has made another server the primary.
func (p *pair) promotions() int {
	log, _ := os.ReadFile(p.sentinel.log) // without a log, the caller misses what it expects
	return strings.Count(string(log), "+switch-master")
}

// follows reports whether s is a replica of the server on port.
func follows(t *testing.T, s *server, port string) bool {
	info, _ := command(t, s, "INFO", "replication").Text()
	return strings.Contains(info, "role:slave\r\n") && strings.Contains(info, "master_port:"+port+"\r\n")
}

// linkIs reports whether the link of a replica to its primary is "up" or "down".
func linkIs(t *testing.T, s *server, state string) bool {
	info, _ := command(t, s, "INFO", "replication").Text()
	return strings.Contains(info, "role:slave\r\n") && strings.Contains(info, "master_link_status:"+state+"\r\n")
}

// generations returns the generation of each session in s itself, whoever is the
// primary.
func generations(t *testing.T, s *server, prefix string, keys []string) map[string]int {
	t.Helper()
	found := make(map[string]int)
	for _, key := range keys {
		text, err := command(t, s, "HGET", prefix+key, "record").Text()
		if err != nil {
			t.Fatalf("reading %s of %s: %v", key, s.addr, err)
		}
		rec := new(fincodeauth.Record)
		if err := json.Unmarshal([]byte(text), rec); err != nil {
			t.Fatal(err)
		}
		found[key] = rec.Generation
	}
	return found
}

// cutOff removes names from s, which closes their connections to s.
func cutOff(t *testing.T, s *server, users ...any) {
	t.Helper()
	if err := command(t, s, append([]any{"ACL", "DELUSER"}, users...)...).Err(); err != nil {
		t.Fatal(err)
	}
}

// commandTimeout is the time limit of a command that a test sends to a server of a
// pair, which may be gone.
const commandTimeout = 3 * time.Second

// command sends one command to s, once.
func command(t *testing.T, s *server, args ...any) *redis.Cmd {
	opts := &redis.Options{Addr: s.addr, MaxRetries: -1, DialerRetries: 1, ContextTimeoutEnabled: true}
	if s.name != "Sentinel" {
		opts.Username, opts.Password = clientUser, pairPassword
	}
	client := redis.NewClient(opts)
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), commandTimeout)
	defer cancel()
	return client.Do(ctx, args...)
}
