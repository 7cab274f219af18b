package etcdstore_test

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/fincodeauth/fincodeauth/etcdstore"
)

// A fake is an etcd in memory. It understands the calls that a Store makes, and panics
// on others.
type fake struct {
	clientv3.KV
	clientv3.Lease
	values map[string]string
	past   map[string][]string // all values of each name, until it is deleted; their places, from 1 on, are their revisions

	fail  func() error // of each call, before etcd executes it; nil: none fails
	times int          // how often etcd gets each transaction; 0: once
	hangs int          // how many calls get no answer until their context ends; etcd does not execute them
	mute  func()       // what happens after the next transaction, which etcd executes, and whose answer is lost; nil: nothing is lost

	calls []string // what was called
}

// store returns a Store in f.
func (f *fake) store(t testing.TB, opts ...etcdstore.Option) *etcdstore.Store {
	t.Helper()
	client := clientv3.NewCtxClient(t.Context())
	client.KV, client.Lease = f, f
	store, err := etcdstore.New(client, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return store
}

// put writes a value as another program would.
func (f *fake) put(name, value string) {
	if f.values == nil {
		f.values, f.past = make(map[string]string), make(map[string][]string)
	}
	f.values[name] = value
	f.past[name] = append(f.past[name], value)
}

func (f *fake) called(ctx context.Context, format string, args ...any) error {
	f.calls = append(f.calls, fmt.Sprintf(format, args...))
	if f.hangs > 0 {
		f.hangs--
		<-ctx.Done()
		return ctx.Err()
	}
	if f.fail != nil {
		return f.fail()
	}
	return nil
}

func (f *fake) Get(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	op := clientv3.OpGet(key, opts...)
	call := "get " + key
	if op.RangeBytes() != nil {
		call = fmt.Sprintf("get %q to %q, keys only %t, at most %d", key, op.RangeBytes(), op.IsKeysOnly(), op.Limit())
	}
	if op.IsSerializable() || op.Rev() != 0 {
		call += ", perhaps old"
	}
	if err := f.called(ctx, "%s", call); err != nil {
		return nil, err
	}
	if n := op.Rev(); n > 0 {
		was := &mvccpb.KeyValue{Key: op.KeyBytes(), Value: []byte(f.past[key][n-1]), ModRevision: n}
		return &clientv3.GetResponse{Kvs: []*mvccpb.KeyValue{was}}, nil
	}
	found := f.find(op)
	return (*clientv3.GetResponse)(found), nil
}

func (f *fake) find(op clientv3.Op) *pb.RangeResponse {
	resp := new(pb.RangeResponse)
	from, to := string(op.KeyBytes()), string(op.RangeBytes())
	for _, name := range slices.Sorted(maps.Keys(f.values)) {
		if name != from && (to == "" || name < from || name >= to) {
			continue
		}
		if op.Limit() > 0 && int64(len(resp.Kvs)) == op.Limit() {
			resp.More = true
			break
		}
		kv := &mvccpb.KeyValue{Key: []byte(name), ModRevision: int64(len(f.past[name]))}
		if !op.IsKeysOnly() {
			kv.Value = []byte(f.values[name])
		}
		resp.Kvs = append(resp.Kvs, kv)
	}
	return resp
}

func (f *fake) Delete(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.DeleteResponse, error) {
	if err := f.called(ctx, "delete %s with %d options", key, len(opts)); err != nil {
		return nil, err
	}
	delete(f.values, key)
	delete(f.past, key)
	return new(clientv3.DeleteResponse), nil
}

func (f *fake) Grant(ctx context.Context, ttl int64) (*clientv3.LeaseGrantResponse, error) {
	if err := f.called(ctx, "grant %d s", ttl); err != nil {
		return nil, err
	}
	return &clientv3.LeaseGrantResponse{ID: 7, TTL: ttl}, nil
}

// Close is called by the client's Close.
func (f *fake) Close() error { return nil }

func (f *fake) Txn(ctx context.Context) clientv3.Txn { return &fakeTxn{fake: f, ctx: ctx} }

type fakeTxn struct {
	*fake
	ctx          context.Context
	cmps         []clientv3.Cmp
	then, orElse clientv3.Op
}

func (x *fakeTxn) If(cmps ...clientv3.Cmp) clientv3.Txn { x.cmps = cmps; return x }
func (x *fakeTxn) Then(ops ...clientv3.Op) clientv3.Txn { x.then = ops[0]; return x }
func (x *fakeTxn) Else(ops ...clientv3.Op) clientv3.Txn { x.orElse = ops[0]; return x }

func (x *fakeTxn) Commit() (resp *clientv3.TxnResponse, err error) {
	if err := x.called(x.ctx, "txn %s", x.then.KeyBytes()); err != nil {
		return nil, err
	}
	for range max(x.times, 1) {
		resp = x.execute()
	}
	if happens := x.mute; happens != nil {
		x.mute = nil
		happens()
		<-x.ctx.Done()
		return nil, x.ctx.Err()
	}
	return resp, nil
}

func (x *fakeTxn) execute() *clientv3.TxnResponse {
	if x.holds() {
		x.put(string(x.then.KeyBytes()), string(x.then.ValueBytes()))
		return &clientv3.TxnResponse{Succeeded: true}
	}
	found := &pb.ResponseOp_ResponseRange{ResponseRange: x.find(x.orElse)}
	return &clientv3.TxnResponse{Responses: []*pb.ResponseOp{{Response: found}}}
}

// holds compares as etcd does (applyCompare in its server).
func (x *fakeTxn) holds() bool {
	for _, c := range x.cmps {
		value, there := x.values[string(c.KeyBytes())]
		var order int
		switch c.GetCompare().Target {
		case pb.Compare_VALUE:
			if !there {
				return false
			}
			order = bytes.Compare([]byte(value), c.ValueBytes())
		case pb.Compare_CREATE:
			if there { // created at revision 1, and the Store compares with 0
				order = 1
			}
		}
		want := map[pb.Compare_CompareResult]int{pb.Compare_LESS: -1, pb.Compare_EQUAL: 0, pb.Compare_GREATER: 1}
		if order != want[c.GetCompare().Result] {
			return false
		}
	}
	return true
}
