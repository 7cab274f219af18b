package integration

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/kubestore"
)

// A front is the load balancer before the two API servers of a Kubernetes: it passes each
// connection to one of them that is ready. mu guards what is below it.
type front struct {
	kube     *kube
	listener net.Listener

	mu    sync.Mutex
	ready [2]bool
	conns map[net.Conn]bool // of clients
	calls int               // of cut
}

// startFront starts a front, which ends with the test.
func startFront(t *testing.T, k *kube) *front {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &front{kube: k, listener: l, ready: [2]bool{true, true}, conns: make(map[net.Conn]bool)}
	var passing sync.WaitGroup
	passing.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			passing.Go(func() { f.pass(conn) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		f.cutIf(func() bool { return true })
		passing.Wait()
	})
	return f
}

// pass passes a connection to an API server, until one side closes it.
func (f *front) pass(client net.Conn) {
	defer client.Close()
	api, err := net.Dial("tcp", f.choose())
	if err != nil {
		return
	}
	defer api.Close()
	f.mu.Lock()
	f.conns[client] = true
	f.mu.Unlock()
	var back sync.WaitGroup
	back.Go(func() {
		_, _ = io.Copy(client, api) // ends when one of the two is closed
		client.Close()
	})
	_, _ = io.Copy(api, client)
	api.Close()
	back.Wait()
	f.mu.Lock()
	delete(f.conns, client)
	f.mu.Unlock()
}

// choose returns the address of an API server that is ready.
func (f *front) choose() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := rand.N(2)
	if !f.ready[i] {
		i = 1 - i
	}
	return f.kube.apis[i].addr
}

// cutIf closes the clients' connections for which choose returns true.
func (f *front) cutIf(choose func() bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for conn := range f.conns {
		if choose() {
			conn.Close()
		}
	}
}

// cut closes about half of the connections. Each fifth call also kills one of the API
// servers, and starts it again before the next call may kill the other one.
func (f *front) cut(t *testing.T) {
	f.cutIf(func() bool { return rand.N(2) == 0 })
	f.mu.Lock()
	f.calls++
	victim, kill := f.calls/5%2, f.calls%5 == 0
	if kill {
		f.ready[victim] = false
	}
	f.mu.Unlock()
	if !kill {
		return
	}
	s := f.kube.apis[victim]
	s.kill()
	s.start(t)
	f.kube.ready(t, s)
	f.mu.Lock()
	f.ready[victim] = true
	f.mu.Unlock()
}

// An eitherStore asks an API server that is ready, and then the other one if that fails.
// So it works while one of them is down.
type eitherStore struct {
	front *front
	by    [2]*kubestore.Store
}

// each calls do with one Store, and with the other one if the outcome is unclear.
func (e eitherStore) each(do func(*kubestore.Store) error) error {
	e.front.mu.Lock()
	first := 0
	if !e.front.ready[0] {
		first = 1
	}
	e.front.mu.Unlock()
	err := do(e.by[first])
	if unclear(err) {
		return do(e.by[1-first])
	}
	return err
}

func (e eitherStore) Load(ctx context.Context, key string) (rec *fincodeauth.Record, err error) {
	err = e.each(func(s *kubestore.Store) error { rec, err = s.Load(ctx, key); return err })
	return rec, err
}

// Save may save twice. The second time it finds its own version, and succeeds.
func (e eitherStore) Save(ctx context.Context, key string, rec *fincodeauth.Record, prev string) error {
	return e.each(func(s *kubestore.Store) error { return s.Save(ctx, key, rec, prev) })
}

func (e eitherStore) Delete(ctx context.Context, key string) error {
	return e.each(func(s *kubestore.Store) error { return s.Delete(ctx, key) })
}

// unclear reports whether err is no answer that the contract of a Store knows.
func unclear(err error) bool {
	return err != nil && !errors.Is(err, fincodeauth.ErrNotFound) && !errors.Is(err, fincodeauth.ErrConflict)
}

// victimKubernetes kills the API servers, too, one at a time.
func victimKubernetes(t *testing.T) (fincodeauth.Store, shared, cutter) {
	k := startKube(t, 2)
	namespace := k.newNamespace(t)
	f := startFront(t, k)
	store := eitherStore{f, [2]*kubestore.Store{
		newKube(t, k.cluster(k.apis[0], namespace, k.admin)),
		newKube(t, k.cluster(k.apis[1], namespace, k.admin)),
	}}
	sh := shared{Address: f.listener.Addr().String(), Name: namespace, Token: k.admin, CA: string(k.ca)}
	return store, sh, func(context.Context) error {
		f.cut(t)
		return nil
	}
}
