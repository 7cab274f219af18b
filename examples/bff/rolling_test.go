package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fincodeauth/fincodeauth/fincodetest"
)

const (
	rollingUsers    = 24
	rollingReplicas = 3
	rollingRestarts = 10
	rollingLifetime = 3 * time.Second       // of an access token
	rollingPause    = 80 * time.Millisecond // between two requests of a user, on average
	rollingDrain    = "2s"                  // the balancer looks every probeInterval
	probeInterval   = 25 * time.Millisecond
)

// Three replicas are replaced one by one under load, as in a deployment. Nobody
// notices: neither the users nor FinCode.
func TestRollingRestartIsNoticedByNobody(t *testing.T) {
	t.Parallel()
	fincode := fincodetest.NewServer(fincodetest.Config{AccessLifetime: rollingLifetime, OpaqueTokens: true})
	t.Cleanup(fincode.Close)
	database := newSchema(t).String()
	start := func() *replica {
		return startReplica(t, fincode, database, "-drain", rollingDrain, "-proxy", "GET /whoami, POST /transfers")
	}
	lb := newBalancer(t)
	replicas := make([]*replica, rollingReplicas)
	for i := range replicas {
		replicas[i] = start()
		lb.add(t, replicas[i])
	}

	load := newLoad(t, fincode, lb.url)
	for i := range rollingRestarts {
		old := replicas[i%rollingReplicas]
		replicas[i%rollingReplicas] = start()
		lb.add(t, replicas[i%rollingReplicas])
		old.stop(t)
		if code := old.wait(t); code != 0 {
			t.Errorf("restart %d: exit code %d\n%s", i+1, code, old.log)
		}
	}
	load.stop()

	counts := fincode.Counts()
	t.Logf("%d requests of %d users, %d rotations, %d restarts", load.requests.Load(), rollingUsers, counts.Refreshes, rollingRestarts)
	for i, err := range load.failures() {
		if i < 10 {
			t.Errorf("a request failed: %v", err)
		}
	}
	if again := fincode.PresentedMoreThanOnce(); len(again) != 0 {
		t.Errorf("refresh tokens were presented twice: %v", again)
	}
	if counts.Logins != rollingUsers || counts.Reuses != 0 || counts.Rejected != 0 || counts.MaxParallelRefreshes != 1 {
		t.Errorf("a session has ended, or refreshes were parallel: %+v", counts)
	}
	if counts.Refreshes < 3*rollingUsers {
		t.Errorf("FinCode rotated %d times: too few for this test to show anything", counts.Refreshes)
	}
}

// A load is many users who never stop clicking.
type load struct {
	requests atomic.Int64
	cancel   context.CancelFunc
	working  sync.WaitGroup
	mu       sync.Mutex
	failed   []error // guarded by mu
}

// newLoad logs all users in, and lets them begin.
func newLoad(t *testing.T, fincode *fincodetest.Server, site string) *load {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	l := &load{cancel: cancel}
	t.Cleanup(l.stop)
	for i := range rollingUsers {
		email := fmt.Sprintf("user%d@example.com", i)
		fincode.AddUser(email, fincodetest.Password)
		u, err := newUser(site, email)
		if err == nil {
			err = u.logIn()
		}
		if err != nil {
			t.Fatal(err)
		}
		l.working.Go(func() { l.work(ctx, u) })
	}
	return l
}

func (l *load) work(ctx context.Context, u *user) {
	actions := []func() error{
		func() error { return u.get("/") },
		func() error { return u.get("/session.json") },
		func() error { return u.get("/api/whoami") },
		func() error { return u.send("/api/transfers") }, // net/http never repeats a POST by itself
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(rand.N(2 * rollingPause)):
		}
		l.requests.Add(1)
		if err := actions[rand.N(len(actions))](); err != nil {
			l.mu.Lock()
			l.failed = append(l.failed, fmt.Errorf("%s: %w", u.email, err))
			l.mu.Unlock()
		}
	}
}

// stop ends the load when its last requests have their answers.
func (l *load) stop() {
	l.cancel()
	l.working.Wait()
}

func (l *load) failures() []error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.failed)
}

// A balancer sends requests to the replicas that are ready, in turn.
type balancer struct {
	url  string
	next atomic.Uint64
	mu   sync.Mutex
	all  []*backend // guarded by mu
}

type backend struct {
	proxy *httputil.ReverseProxy
	ready atomic.Bool
}

func newBalancer(t *testing.T) *balancer {
	t.Helper()
	b := &balancer{}
	srv := httptest.NewServer(b)
	t.Cleanup(srv.Close)
	b.url = srv.URL
	return b
}

// add adds a replica, and returns when it gets requests. The balancer asks for the
// replica's readiness until the process ends.
func (b *balancer) add(t *testing.T, r *replica) {
	t.Helper()
	target, err := url.Parse(r.public)
	if err != nil {
		t.Fatal(err)
	}
	be := &backend{proxy: &httputil.ReverseProxy{
		Transport: &http.Transport{MaxIdleConnsPerHost: rollingUsers},
		Rewrite: func(pr *httputil.ProxyRequest) {
			pr.SetURL(target)
			pr.Out.Host = pr.In.Host // the program compares it with Origin
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			http.Error(w, "the balancer: "+err.Error(), http.StatusBadGateway)
		},
	}}
	go func() {
		for {
			be.ready.Store(r.isReady(context.Background()))
			select {
			case <-r.exited:
				b.remove(be)
				return
			case <-time.After(probeInterval):
			}
		}
	}()
	eventually(t, "the new replica is ready", be.ready.Load)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.all = append(b.all, be)
}

func (b *balancer) remove(be *backend) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.all = slices.DeleteFunc(b.all, func(other *backend) bool { return other == be })
}

func (b *balancer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	be, err := b.pick()
	if err != nil {
		http.Error(w, "the balancer: "+err.Error(), http.StatusBadGateway)
		return
	}
	be.proxy.ServeHTTP(w, r)
}

func (b *balancer) pick() (*backend, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for range b.all {
		if be := b.all[b.next.Add(1)%uint64(len(b.all))]; be.ready.Load() {
			return be, nil
		}
	}
	return nil, errNothingLeft
}

var errNothingLeft = errors.New("no replica is ready")
