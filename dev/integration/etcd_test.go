package integration

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"golang.org/x/oauth2"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/etcdstore"
)

func TestEtcdErrorsSayWhatToDo(t *testing.T) {
	t.Run("Unreachable", func(t *testing.T) {
		client, err := dialEtcd(freeAddr(t))
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		store := hurried{openEtcd(t, client).Store, 300 * time.Millisecond}
		wantErrors(t, store, "etcd did not answer in time, so a write may or may not have taken effect: check the client's Endpoints and TLS; ")
		if _, err := store.Load(t.Context(), "alice"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Load = %v, which does not wrap DeadlineExceeded", err)
		}
	})
	t.Run("ClosedClient", func(t *testing.T) {
		client := sharedEtcd(t).client(t)
		client.Close()
		wantErrors(t, hurried{openEtcd(t, client).Store, 300 * time.Millisecond}, "the client was closed: keep it open")
	})
	t.Run("NoSpace", func(t *testing.T) {
		p := openEtcd(t, newEtcd(t, 1, "--quota-backend-bytes", "1000000").client(t))
		if err := p.Save(t.Context(), "bob", &fincodeauth.Record{Version: "v1"}, ""); err != nil {
			t.Fatal(err)
		}
		eventually(t, "etcd is full", func() bool {
			_, err := p.client.Put(t.Context(), p.name+"filler", strings.Repeat("x", 100_000))
			return errors.Is(err, rpctypes.ErrNoSpace)
		})
		want := "etcd's database is full: compact and defragment it, or raise --quota-backend-bytes, then run etcdctl alarm disarm: "
		err := p.Save(t.Context(), "bob", &fincodeauth.Record{Version: "v2"}, "v1")
		wantError(t, "Save", err, want)
		if !errors.Is(err, rpctypes.ErrNoSpace) {
			t.Errorf("Save = %v, which does not wrap ErrNoSpace", err)
		}
		wantError(t, "Save of a logout", p.Save(t.Context(), "bob", &fincodeauth.Record{Version: "v2", RemoveAfter: time.Now()}, "v1"), want)
		if rec, err := p.Load(t.Context(), "bob"); err != nil || rec.Version != "v1" {
			t.Errorf("Load = %v, %v; want the record from before", rec, err)
		}
	})
	t.Run("TooLarge", func(t *testing.T) {
		p := openSharedEtcd(t)
		for _, size := range []int{1_800_000, 3_000_000} { // more than the server accepts, and than the client sends
			rec := &fincodeauth.Record{Version: "v1", Token: &oauth2.Token{AccessToken: strings.Repeat("x", size)}}
			wantError(t, "Save", p.Save(t.Context(), "alice", rec, ""), "the record is too large for etcd: raise --max-request-bytes, and the client's MaxCallSendMsgSize: ")
		}
	})
}

// A hurried store gives each call of the Store in it a time limit.
type hurried struct {
	fincodeauth.Store
	limit time.Duration
}

func (h hurried) Load(ctx context.Context, key string) (*fincodeauth.Record, error) {
	ctx, cancel := context.WithTimeout(ctx, h.limit)
	defer cancel()
	return h.Store.Load(ctx, key)
}

func (h hurried) Save(ctx context.Context, key string, rec *fincodeauth.Record, prev string) error {
	ctx, cancel := context.WithTimeout(ctx, h.limit)
	defer cancel()
	return h.Store.Save(ctx, key, rec, prev)
}

func (h hurried) Delete(ctx context.Context, key string) error {
	ctx, cancel := context.WithTimeout(ctx, h.limit)
	defer cancel()
	return h.Store.Delete(ctx, key)
}

func TestEtcdSaysWhichPermissionIsMissing(t *testing.T) {
	c := newEtcd(t, 1)
	admin, ctx := c.client(t), t.Context()
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(nil, addEtcdRoot(ctx, admin))
	for role, kind := range map[string]clientv3.PermissionType{
		"reader": clientv3.PermissionType(clientv3.PermRead),
		"writer": clientv3.PermissionType(clientv3.PermReadWrite),
	} {
		must(nil, addEtcdUser(ctx, admin, role, "fincode/", kind))
	}
	must(admin.AuthEnable(ctx))
	as := func(name string) *etcdstore.Store {
		t.Helper()
		store, err := etcdstore.New(c.clientOf(t, name))
		must(nil, err)
		return store
	}

	writer := as("writer")
	must(nil, writer.Save(ctx, "bob", &fincodeauth.Record{Version: "v1"}, ""))
	must(nil, writer.Save(ctx, "bob", &fincodeauth.Record{Version: "v2", Ended: "logged out", RemoveAfter: time.Now().Add(time.Hour)}, "v1"))
	wantKeys(t, writer, "bob")
	must(nil, writer.Delete(ctx, "bob"))

	want := `the client's user needs a role with the permission readwrite on the prefix "fincode/": etcdserver: permission denied`
	reader := as("reader")
	wantError(t, "Save", reader.Save(ctx, "alice", &fincodeauth.Record{Version: "v1"}, ""), want)
	wantError(t, "Delete", reader.Delete(ctx, "alice"), want)
	wantErrors(t, openEtcd(t, c.client(t)).Store, "etcd does not know who the client is: give the client a Username and Password, or a certificate, that etcd accepts: ")
}

func TestEtcdWithoutAMajoritySaysSo(t *testing.T) {
	c, _ := loseMajority(t)
	p := openEtcd(t, c.client(t))
	wantErrors(t, hurried{p.Store, time.Second}, "a majority of etcd's members must be up and reach each other")
	err := p.Save(t.Context(), "alice", &fincodeauth.Record{Version: "v2"}, "v1")
	wantError(t, "Save without a time limit", err, "etcd has no leader: a majority of etcd's members must be up and reach each other: etcdserver: no leader")
}

// A client with a member of two clusters each sees what it sees when one member is cut
// off from the others: every second call reaches a member without a leader. It must not
// wait there until its time is over.
func TestMemberOfEtcdWithoutALeaderHoldsNobodyUp(t *testing.T) {
	broken, survivor := loseMajority(t)
	healthy := newEtcd(t, 1)
	p := openEtcd(t, broken.client(t, survivor, healthy.members[0]))
	for range 10 {
		if err := hasty(t.Context(), p.Store); err != nil {
			t.Errorf("while another member has a leader: %v", err)
		}
	}
}

// hasty saves, loads and deletes a record. Each call must take less than a second.
func hasty(ctx context.Context, s fincodeauth.Store) error {
	h := hurried{s, time.Second}
	if err := h.Save(ctx, "alice", &fincodeauth.Record{Version: "v1"}, ""); err != nil {
		return err
	}
	if _, err := h.Load(ctx, "alice"); err != nil {
		return err
	}
	return h.Delete(ctx, "alice")
}

// Two of three members are gone, and one of them comes back.
func TestSaveOutwaitsAnElectionOfEtcd(t *testing.T) {
	c, survivor := loseMajority(t)
	store := openEtcd(t, c.client(t, survivor)).Store
	saved := make(chan error, 1)
	go func() { saved <- store.Save(t.Context(), "alice", &fincodeauth.Record{Version: "v1"}, "") }()
	if err := c.others(survivor)[0].launch(); err != nil {
		t.Fatal(err)
	}
	if err := <-saved; err != nil {
		t.Errorf("Save during an election = %v", err)
	}
}

// loseMajority starts a cluster and kills two of its three members. The survivor knows
// that there is no leader.
func loseMajority(t *testing.T) (c *etcdCluster, survivor *server) {
	t.Helper()
	c = newEtcd(t, 3)
	survivor = c.members[0]
	for _, m := range c.others(survivor) {
		m.kill()
	}
	eventually(t, "the survivor has no leader", func() bool {
		status, err := survivor.status(t.Context())
		return err == nil && status.Leader == 0
	})
	return c, survivor
}

// The client does not know that a member hangs, and sends every third call there. None of
// them may fail.
func TestCallsOfEtcdGoToTheNextMemberIfOneHangs(t *testing.T) {
	c := newEtcd(t, 3)
	p := openEtcd(t, c.client(t))
	store := hurried{p.Store, 5 * time.Second}
	if err := store.Save(t.Context(), "alice", &fincodeauth.Record{Version: "v0"}, ""); err != nil {
		t.Fatal(err)
	}
	follower := c.others(c.wantLeader(t))[0]
	answered := make(map[uint64]bool)
	eventually(t, "the client has a connection to each member", func() bool {
		resp, err := p.client.Get(t.Context(), p.name)
		if err != nil {
			t.Fatal(err)
		}
		answered[resp.Header.MemberId] = true
		return len(answered) == len(c.members)
	})
	if err := follower.pause(); err != nil {
		t.Fatal(err)
	}
	slow := 0
	for i := range 6 {
		began := time.Now()
		prev, next := fmt.Sprint("v", i), fmt.Sprint("v", i+1)
		if err := store.Save(t.Context(), "alice", &fincodeauth.Record{Version: next}, prev); err != nil {
			t.Errorf("Save = %v", err)
		}
		if rec, err := store.Load(t.Context(), "alice"); err != nil || rec.Version != next {
			t.Errorf("Load = %v, %v; want %s", rec, err, next)
		}
		if time.Since(began) > time.Second {
			slow++
		}
	}
	if slow == 0 {
		t.Error("no call was sent to the member that hangs, so this shows nothing")
	}
	if err := follower.resume(); err != nil {
		t.Fatal(err)
	}
}

// A leader that hangs keeps its connections. What it was told may or may not happen.
func TestSaveWhileEtcdsLeaderHangsIsNoConflict(t *testing.T) {
	c := newEtcd(t, 3)
	p := openEtcd(t, c.client(t))
	if err := p.Save(t.Context(), "alice", &fincodeauth.Record{Version: "v1"}, ""); err != nil {
		t.Fatal(err)
	}
	leader := c.wantLeader(t)
	if err := leader.pause(); err != nil {
		t.Fatal(err)
	}
	failed := 0
	store := hurried{p.Store, time.Second}
	eventually(t, "a Save succeeds", func() bool {
		err := store.Save(t.Context(), "alice", &fincodeauth.Record{Version: "v2"}, "v1")
		if err != nil {
			failed++
			wantError(t, "Save", err, "")
		}
		return err == nil
	})
	if err := leader.resume(); err != nil {
		t.Fatal(err)
	}
	if rec, err := p.Load(t.Context(), "alice"); err != nil || rec.Version != "v2" {
		t.Errorf("Load = %v, %v after %d Saves that failed; want v2", rec, err, failed)
	}
}

func TestEtcdRemovesTheRecordOfALogout(t *testing.T) {
	p := openSharedEtcd(t)
	for _, key := range []string{"alice", "bob"} {
		if err := p.Save(t.Context(), key, &fincodeauth.Record{Version: "v1", Ended: "logged out", RemoveAfter: time.Now().Add(time.Second)}, ""); err != nil {
			t.Fatal(err)
		}
		if kv := p.value(t, key); kv.Lease == 0 {
			t.Errorf("the logout of %s has no lease", key)
		}
	}
	if err := p.Save(t.Context(), "bob", &fincodeauth.Record{Version: "v2"}, "v1"); err != nil { // as a Login does
		t.Fatal(err)
	}
	if kv := p.value(t, "bob"); kv.Lease != 0 {
		t.Error("bob has logged in again, and his record still has a lease")
	}
	eventually(t, "the logout of alice is gone", func() bool {
		_, err := p.Load(t.Context(), "alice")
		return errors.Is(err, fincodeauth.ErrNotFound)
	})
	if rec, err := p.Load(t.Context(), "bob"); err != nil || rec.Version != "v2" {
		t.Errorf("Load of bob = %v, %v; want v2", rec, err)
	}
}

// keyValue is what etcd keeps under a key.
type keyValue struct {
	Value string
	Lease int64
}

func (p etcdPrefix) value(t *testing.T, key string) keyValue {
	t.Helper()
	found, err := p.client.Get(t.Context(), p.name+key)
	if err != nil || len(found.Kvs) != 1 {
		t.Fatalf("Get of %s = %v, %v", key, found, err)
	}
	return keyValue{string(found.Kvs[0].Value), found.Kvs[0].Lease}
}

func TestKeysOfEtcdSurviveACompaction(t *testing.T) {
	p := openSharedEtcd(t)
	const n = 25_000 // three pages
	p.fill(t, n)
	found := 0
	for key, err := range p.Keys(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if found%10_000 == 0 { // the first key of a page
			p.compact(t, key)
		}
		found++
	}
	if found != n {
		t.Errorf("Keys yielded %d keys, want %d", found, n)
	}
}

// compact removes what etcd keeps of the past. Before that it writes, so that the last
// page is in the past.
func (p etcdPrefix) compact(t *testing.T, key string) {
	t.Helper()
	put, err := p.client.Put(t.Context(), p.name+key, `{"version":"v2"}`)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.client.Compact(t.Context(), put.Header.Revision, clientv3.WithCompactPhysical()); err != nil {
		t.Fatal(err)
	}
}

// etcd asks for a user before the new token is saved.
func TestRotatedTokenIsKeptUntilEtcdAcceptsTheClient(t *testing.T) {
	c := newEtcd(t, 1)
	client := c.client(t)
	if err := addEtcdRoot(t.Context(), client); err != nil {
		t.Fatal(err)
	}
	testKept(t, openEtcd(t, client).Store, "etcd does not know who the client is: ",
		func(ctx context.Context) error { _, err := client.AuthEnable(ctx); return err },
		func(ctx context.Context) error { _, err := c.clientOf(t, "root").AuthDisable(ctx); return err })
}

// addEtcdRoot adds the user root, whom etcd needs before it asks for users. All users
// have the password "secret".
func addEtcdRoot(ctx context.Context, client *clientv3.Client) error {
	_, err := client.RoleAdd(ctx, "root")
	if err == nil {
		_, err = client.UserAdd(ctx, "root", "secret")
	}
	if err == nil {
		_, err = client.UserGrantRole(ctx, "root", "root")
	}
	return err
}

// addEtcdUser adds a user, and a role of the same name that gives a permission on a prefix.
func addEtcdUser(ctx context.Context, client *clientv3.Client, name, prefix string, kind clientv3.PermissionType) error {
	_, err := client.RoleAdd(ctx, name)
	if err == nil {
		_, err = client.RoleGrantPermission(ctx, name, prefix, clientv3.GetPrefixRangeEnd(prefix), kind)
	}
	if err == nil {
		_, err = client.UserAdd(ctx, name, "secret")
	}
	if err == nil {
		_, err = client.UserGrantRole(ctx, name, name)
	}
	return err
}

// clientOf returns a client that logs in as a user.
func (c *etcdCluster) clientOf(t *testing.T, user string) *clientv3.Client {
	t.Helper()
	client, err := clientv3.New(clientv3.Config{Endpoints: endpoints(c.members...), Username: user, Password: "secret", Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}
