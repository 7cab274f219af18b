package integration

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/etcdstore"
)

// An etcdCluster is an etcd of one or three members. A member that has lost its leader
// notices that after half a second to a second. The address of a member is the one for
// clients.
type etcdCluster struct {
	members []*server
}

// newEtcd starts a cluster for this test alone. args are for all members.
func newEtcd(t testing.TB, members int, args ...string) *etcdCluster {
	t.Helper()
	c := describeEtcd(t, t.TempDir(), members, args...)
	t.Cleanup(func() {
		c.stop()
		showLogs(t, c.members...)
	})
	c.start(t)
	return c
}

// etcds is the cluster of all tests that do not break it.
var etcds sharedServers[*etcdCluster]

// sharedEtcd returns the cluster that tests share.
func sharedEtcd(t testing.TB) *etcdCluster {
	t.Helper()
	findProgram(t, "etcd") // or else only the first test is skipped
	return etcds.get(t, func(dir string) *etcdCluster { return describeEtcd(t, dir, 3) })
}

// describeEtcd describes a cluster that is not started yet, with its data below dir.
func describeEtcd(t testing.TB, dir string, members int, args ...string) *etcdCluster {
	t.Helper()
	program, c := findProgram(t, "etcd"), new(etcdCluster)
	var names, peers []string
	for i := range members {
		names = append(names, fmt.Sprintf("etcd-%d", i))
		peers = append(peers, "http://"+freeAddr(t))
	}
	var all []string
	for i, name := range names {
		all = append(all, name+"="+peers[i])
	}
	for i, name := range names {
		addr := freeAddr(t)
		c.members = append(c.members, &server{name: name, addr: addr, path: program, log: filepath.Join(dir, name+".log"), args: append([]string{
			"--name", name, "--data-dir", filepath.Join(dir, name),
			"--listen-client-urls", "http://" + addr, "--advertise-client-urls", "http://" + addr,
			"--listen-peer-urls", peers[i], "--initial-advertise-peer-urls", peers[i],
			"--initial-cluster", strings.Join(all, ","), "--initial-cluster-token", filepath.Base(dir),
			"--heartbeat-interval", "50", "--election-timeout", "500",
		}, args...)})
	}
	return c
}

// start starts all members and waits until each of them serves clients.
func (c *etcdCluster) start(t testing.TB) {
	t.Helper()
	for _, m := range c.members {
		if err := m.launch(); err != nil {
			t.Fatal(err)
		}
	}
	for _, m := range c.members {
		if err := m.caughtUp(t.Context()); err != nil {
			c.stop()
			t.Fatalf("%v; it wrote at last:\n%s", err, m.lastLines(20))
		}
	}
}

func (c *etcdCluster) stop() {
	for _, m := range c.members {
		m.kill()
	}
}

// caughtUp waits until a member of an etcdCluster has what the leader has: a
// linearizable read waits for that.
func (s *server) caughtUp(ctx context.Context) error {
	client, err := dialEtcd(s.addr)
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		_, err := client.Get(ctx, "any")
		if err == nil || ctx.Err() != nil {
			return err
		}
	}
}

// leader returns the member that leads, as far as the members know. nil: none.
func (c *etcdCluster) leader(ctx context.Context) (*server, error) {
	for _, m := range c.members {
		status, err := m.status(ctx)
		if err != nil {
			return nil, err
		}
		if status.Leader != 0 && status.Leader == status.Header.MemberId {
			return m, nil
		}
	}
	return nil, nil
}

// status asks a member of an etcdCluster how it is.
func (s *server) status(ctx context.Context) (*clientv3.StatusResponse, error) {
	client, err := dialEtcd(s.addr)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return client.Status(ctx, s.addr)
}

// wantLeader waits until there is a leader, and returns it.
func (c *etcdCluster) wantLeader(t *testing.T) (leader *server) {
	t.Helper()
	eventually(t, "etcd has a leader", func() bool {
		var err error
		leader, err = c.leader(t.Context())
		return err == nil && leader != nil
	})
	return leader
}

// others returns the members except m.
func (c *etcdCluster) others(m *server) (others []*server) {
	for _, other := range c.members {
		if other != m {
			others = append(others, other)
		}
	}
	return others
}

// endpoints returns the addresses of members.
func endpoints(members ...*server) (addrs []string) {
	for _, m := range members {
		addrs = append(addrs, m.addr)
	}
	return addrs
}

// dialEtcd returns a client that writes no log.
func dialEtcd(endpoints ...string) (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{
		Endpoints:            endpoints,
		DialKeepAliveTime:    10 * time.Second,
		DialKeepAliveTimeout: 10 * time.Second,
		Logger:               zap.NewNop(),
	})
}

// client returns a client of these members, or of all if there are none.
func (c *etcdCluster) client(t testing.TB, members ...*server) *clientv3.Client {
	t.Helper()
	if len(members) == 0 {
		members = c.members
	}
	client, err := dialEtcd(endpoints(members...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

// An etcdPrefix is an etcdstore with its client and the name of its prefix.
type etcdPrefix struct {
	*etcdstore.Store
	client *clientv3.Client
	name   string
}

// openSharedEtcd makes a Store with a new prefix in the cluster that tests share, and
// deletes the keys with that prefix when the test ends.
func openSharedEtcd(t testing.TB) etcdPrefix {
	t.Helper()
	p := openEtcd(t, sharedEtcd(t).client(t))
	t.Cleanup(func() {
		_, _ = p.client.Delete(context.Background(), p.name, clientv3.WithPrefix())
	})
	return p
}

// openEtcd makes a Store with a new prefix.
func openEtcd(t testing.TB, client *clientv3.Client) etcdPrefix {
	t.Helper()
	name := unique("fincodeauth_test_") + "/"
	store, err := etcdstore.New(client, etcdstore.Prefix(name))
	if err != nil {
		t.Fatal(err)
	}
	return etcdPrefix{store, client, name}
}

// fill writes the keys user-1 to user-n. etcd allows 128 writes in a transaction.
func (p etcdPrefix) fill(t testing.TB, n int) {
	t.Helper()
	var puts []clientv3.Op
	for i := 1; i <= n; i++ {
		puts = append(puts, clientv3.OpPut(fmt.Sprintf("%suser-%d", p.name, i), `{"version":"v1"}`))
		if len(puts) == 128 || i == n {
			if _, err := p.client.Txn(t.Context()).Then(puts...).Commit(); err != nil {
				t.Fatal(err)
			}
			puts = nil
		}
	}
}

// victimEtcd starts a cluster of its own, because the cutter kills and pauses its
// members.
func victimEtcd(t *testing.T) (fincodeauth.Store, shared, cutter) {
	c := newEtcd(t, 3)
	p := openEtcd(t, c.client(t))
	did := make(map[string]int)
	t.Cleanup(func() { t.Logf("members of etcd that were disturbed: %v", did) })
	return patientStore{p.Store}, shared{Address: strings.Join(endpoints(c.members...), ","), Name: p.name}, func(ctx context.Context) error {
		return c.disturb(ctx, did)
	}
}

// disturb kills a member and starts it again, or pauses it for one to two seconds. Half
// of the time the member is the leader. At the end all members are as before.
func (c *etcdCluster) disturb(ctx context.Context, did map[string]int) error {
	m, role, err := c.victim(ctx)
	if err != nil {
		return err
	}
	how := "killed"
	if rand.N(2) == 0 {
		how = "paused"
		err = m.pause()
		time.Sleep(time.Second + rand.N(time.Second))
		err = errors.Join(err, m.resume())
	} else {
		m.kill()
		err = m.launch()
	}
	did[role+" "+how]++
	return errors.Join(err, m.caughtUp(ctx))
}

// victim returns the leader, or a member at random.
func (c *etcdCluster) victim(ctx context.Context) (m *server, role string, err error) {
	leader, err := c.leader(ctx)
	m = c.members[rand.N(len(c.members))]
	if leader != nil && rand.N(2) == 0 {
		m = leader
	}
	if m == leader {
		return m, "leader", err
	}
	return m, "follower", err
}

// A patientStore tries again until the Store in it succeeds. It does not honour the
// time limit of a call.
type patientStore struct{ fincodeauth.Store }

func (s patientStore) Load(ctx context.Context, key string) (rec *fincodeauth.Record, err error) {
	err = patiently(ctx, func(ctx context.Context) error {
		rec, err = s.Store.Load(ctx, key)
		return err
	})
	return rec, err
}

func (s patientStore) Save(ctx context.Context, key string, rec *fincodeauth.Record, prev string) error {
	return patiently(ctx, func(ctx context.Context) error { return s.Store.Save(ctx, key, rec, prev) })
}

// patiently calls do for up to a minute, until it succeeds or says how the record is.
func patiently(ctx context.Context, do func(context.Context) error) error {
	for until := time.Now().Add(time.Minute); ; {
		once, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		err := do(once)
		cancel()
		if err == nil || errors.Is(err, fincodeauth.ErrNotFound) || errors.Is(err, fincodeauth.ErrConflict) || time.Now().After(until) {
			return err
		}
	}
}
