package torture

// Rules for concurrency. run starts three goroutines: keepKilling, keepCutting and
// keepWatching. Only keepKilling starts, kills and stops processes, and only it
// uses started. The HTTP server calls ServeHTTP in a goroutine for each request.
// supervisor.mu guards the counts. The ledger has its own lock. Everything else is
// fixed before run.

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"time"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/fincodetest"
)

// A supervisor runs FinCode and starts children. It kills the children and their
// connections at random, and logs in again where a session ended by that. It notes
// everything in the ledger.
type supervisor struct {
	cfg     Config
	keys    []string
	ledger  ledger
	fincode *fincodetest.FinCode

	// presenting receives the name of a child whose refresh has just arrived. It
	// has no room: ServeHTTP sends only if victim waits for a name.
	presenting chan string

	started int // children so far

	mu     sync.Mutex        // guards what follows
	counts map[string]counts // by child, the last that it reported
}

const supervisorName = "supervisor"

func newSupervisor(cfg Config) *supervisor {
	s := &supervisor{
		cfg:        cfg,
		fincode:    fincodetest.New(fincodetest.Config{AccessLifetime: lifetime, OpaqueTokens: true}),
		presenting: make(chan string),
		counts:     make(map[string]counts),
	}
	s.fincode.Inject(fincodetest.Refresh, -1, fincodetest.Fault{Before: latency, After: latency})
	for i := range cfg.Sessions {
		s.keys = append(s.keys, fmt.Sprintf("user-%02d", i))
	}
	return s
}

// run does what the Config says. It returns when everything that it started has
// ended.
func (s *supervisor) run(ctx context.Context) {
	server := httptest.NewServer(s)
	defer server.Close()
	order := order{
		Name:           supervisorName,
		Spec:           s.cfg.Spec,
		BaseURL:        server.URL + fincodetest.Root,
		Keys:           s.keys,
		Goroutines:     s.cfg.Goroutines,
		RefreshTimeout: s.cfg.RefreshTimeout,
	}
	sessions, err := newSessions(order, s.cfg.Store, s.note)
	if err != nil {
		s.broke(supervisorName, err)
		return
	}
	for _, key := range s.keys {
		s.logIn(ctx, sessions, key)
	}

	torturing, stop := context.WithTimeout(ctx, s.cfg.Duration)
	defer stop()
	var torture sync.WaitGroup
	torture.Go(func() { s.keepKilling(torturing, order) })
	torture.Go(func() { s.keepCutting(torturing) })
	torture.Go(func() { s.keepWatching(torturing, sessions) })
	torture.Wait()

	s.requestOnce(ctx, sessions.Client(""), order.BaseURL)
	closing, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := sessions.Close(closing); err != nil {
		s.broke(supervisorName, err)
	}
}

// note notes what the supervisor itself did.
func (s *supervisor) note(e Entry) {
	e.By = supervisorName
	s.ledger.add(e)
}

// broke notes something that must never happen.
func (s *supervisor) broke(name string, err error) {
	s.ledger.add(Entry{By: name, Did: Broke, Result: err.Error()})
}

func (s *supervisor) logIn(ctx context.Context, sessions *fincodeauth.Sessions, key string) {
	err := sessions.Login(ctx, key, fincodeauth.Credentials{Email: fincodetest.Email, Password: fincodetest.Password})
	if err != nil {
		s.broke(supervisorName, err)
	}
}

// keepWatching loads all records again and again, and logs in again where a session
// has ended.
func (s *supervisor) keepWatching(ctx context.Context, sessions *fincodeauth.Sessions) {
	for wait(ctx, 50*time.Millisecond) {
		for _, key := range s.keys {
			// The end of ctx must not end this Load: it would look like a failure.
			rec, err := s.cfg.Store.Load(context.WithoutCancel(ctx), key)
			switch {
			case err != nil:
				s.note(Entry{Did: Vanished, Key: key, Result: err.Error()})
			case rec.Ended != "":
				s.logIn(context.WithoutCancel(ctx), sessions, key)
			}
		}
	}
}

// requestOnce sends one request for each session. If the owner of a claim was
// killed, this request takes the claim over.
func (s *supervisor) requestOnce(ctx context.Context, client *http.Client, baseURL string) {
	var requests sync.WaitGroup
	for _, key := range s.keys {
		requests.Go(func() {
			began := time.Now()
			if err := whoami(ctx, client, baseURL, key); err != nil {
				s.note(Entry{Did: Failed, Key: key, Began: began, Result: err.Error()})
			}
		})
	}
	requests.Wait()
}

// keepCutting cuts connections at random, until ctx ends.
func (s *supervisor) keepCutting(ctx context.Context) {
	for s.cfg.Cut != nil && wait(ctx, rand.N(2*s.cfg.CutEvery)) {
		s.note(Entry{Did: Cut})
		if err := s.cfg.Cut(context.WithoutCancel(ctx)); err != nil {
			s.broke(supervisorName, fmt.Errorf("cannot cut connections: %w", err))
		}
	}
}

// keepKilling starts the children. Until ctx ends, it kills one of them again and
// again, and starts another in its place. Then it stops all of them.
func (s *supervisor) keepKilling(ctx context.Context, o order) {
	children := make([]*process, s.cfg.Children)
	for i := range children {
		children[i] = s.start(o)
	}
	for wait(ctx, rand.N(2*s.cfg.KillEvery)) {
		i := s.victim(ctx, children)
		s.kill(children[i])
		children[i] = s.start(o)
	}
	var stopping sync.WaitGroup
	for _, c := range children {
		stopping.Go(func() { s.stop(c) })
	}
	stopping.Wait()
}

// victim chooses the child to kill. Half of the time it waits for a child that
// presents a refresh token, and then for a random part of the time in which the
// rotated token can be lost. Such moments are short, so pure chance rarely hits
// them.
func (s *supervisor) victim(ctx context.Context, children []*process) int {
	if rand.N(2) == 0 {
		select {
		case name := <-s.presenting:
			wait(ctx, rand.N(3*latency))
			for i, c := range children {
				if c.name == name {
					return i
				}
			}
		case <-ctx.Done():
		}
	}
	return rand.N(len(children))
}

// ServeHTTP passes a request to FinCode. It notes the refreshes and their answers.
func (s *supervisor) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !strings.HasSuffix(r.URL.Path, "/refresh-token") {
		s.fincode.ServeHTTP(w, r)
		return
	}
	body, err := io.ReadAll(r.Body)
	var asked struct {
		RefreshToken string `json:"refresh_token"`
	}
	if err == nil {
		err = json.Unmarshal(body, &asked)
	}
	if err != nil {
		panic(http.ErrAbortHandler) // the process was killed while it sent the request
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	e := Entry{By: r.Header.Get("uuid"), Did: Presented, Token: fingerprint(asked.RefreshToken)}
	s.ledger.add(e)
	select {
	case s.presenting <- e.By:
	default:
	}
	answer := &answer{ResponseWriter: w}
	defer func() {
		e.Did, e.Result = Answered, answer.status
		s.ledger.add(e)
	}()
	s.fincode.ServeHTTP(answer, r)
}

// An answer is a ResponseWriter that remembers the status.
type answer struct {
	http.ResponseWriter
	status string // "": no answer was sent
}

func (a *answer) WriteHeader(status int) {
	a.status = fmt.Sprint(status)
	a.ResponseWriter.WriteHeader(status)
}

// wait returns true after d, or false as soon as ctx ends.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
