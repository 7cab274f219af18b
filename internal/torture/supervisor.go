package torture

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

// A supervisor runs FinCode, starts children, kills them and their connections
// at random, logs in again who lost a session by that, and notes it all.
type supervisor struct {
	cfg     Config
	keys    []string
	ledger  ledger
	fincode *fincodetest.FinCode

	// presenting receives the name of a child whose refresh has just arrived, if
	// somebody waits for it.
	presenting chan string

	started int // children

	mu     sync.Mutex // guards what follows
	counts map[string]counts
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

// run returns when everything has ended that it started.
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

	fury, calm := context.WithTimeout(ctx, s.cfg.Duration)
	defer calm()
	var furies sync.WaitGroup
	furies.Go(func() { s.keepKilling(fury, order) })
	furies.Go(func() { s.keepCutting(fury) })
	furies.Go(func() { s.keepWatching(fury, sessions) })
	furies.Wait()

	s.visit(ctx, sessions.Client(""), order.BaseURL)
	closing, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := sessions.Close(closing); err != nil {
		s.broke(supervisorName, err)
	}
}

func (s *supervisor) note(e Entry) {
	e.By = supervisorName
	s.ledger.add(e)
}

func (s *supervisor) broke(name string, err error) {
	s.ledger.add(Entry{By: name, Did: Broke, Result: err.Error()})
}

func (s *supervisor) logIn(ctx context.Context, sessions *fincodeauth.Sessions, key string) {
	err := sessions.Login(ctx, key, fincodeauth.Credentials{Email: fincodetest.Email, Password: fincodetest.Password})
	if err != nil {
		s.broke(supervisorName, err)
	}
}

// keepWatching reads all records all the time, and begins a session again that
// ended.
func (s *supervisor) keepWatching(ctx context.Context, sessions *fincodeauth.Sessions) {
	for wait(ctx, 50*time.Millisecond) {
		for _, key := range s.keys {
			// Not under ctx: a Load that it ends would look like one that failed.
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

// visit sends a request as each session. Whose last owner was killed is taken
// over by that.
func (s *supervisor) visit(ctx context.Context, client *http.Client, baseURL string) {
	var visits sync.WaitGroup
	for _, key := range s.keys {
		visits.Go(func() {
			began := time.Now()
			if err := whoami(ctx, client, baseURL, key); err != nil {
				s.note(Entry{Did: Failed, Key: key, Began: began, Result: err.Error()})
			}
		})
	}
	visits.Wait()
}

// keepCutting terminates connections at random.
func (s *supervisor) keepCutting(ctx context.Context) {
	for s.cfg.Cut != nil && wait(ctx, rand.N(2*s.cfg.CutEvery)) {
		s.note(Entry{Did: Cut})
		if err := s.cfg.Cut(context.WithoutCancel(ctx)); err != nil {
			s.broke(supervisorName, fmt.Errorf("cutting connections: %w", err))
		}
	}
}

// keepKilling starts the children, kills one at random again and again, with
// another in its place, and stops them in the end.
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

// victim chooses a child, every other time one that is about to lose a rotated
// token: such moments are short.
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

// ServeHTTP is FinCode's, and notes the refreshes.
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
		panic(http.ErrAbortHandler) // its process was killed while it sent that
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

// An answer remembers its status.
type answer struct {
	http.ResponseWriter
	status string // "": it has not been sent
}

func (a *answer) WriteHeader(status int) {
	a.status = fmt.Sprint(status)
	a.ResponseWriter.WriteHeader(status)
}

// wait returns true after d, or false as soon as ctx has ended.
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
