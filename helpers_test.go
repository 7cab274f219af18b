package fincodeauth_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/oauth2"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/filestore"
	"github.com/fincodeauth/fincodeauth/fincodetest"
	"github.com/fincodeauth/fincodeauth/internal/simulation"
)

// What several test files use: Sessions over a FinCode in memory, a store that
// fails on command, a machine with wrong clocks, a memory for events, and a
// FinCode that gives one answer to everything.

var api = fincodeauth.Sandbox("test")

var credentials = fincodeauth.Credentials{Email: fincodetest.Email, Password: fincodetest.Password}

// newSessions returns Sessions at fc, in memory; edit changes their Config.
func newSessions(t *testing.T, fc *fincodetest.FinCode, edit ...func(*fincodeauth.Config)) *fincodeauth.Sessions {
	t.Helper()
	cfg := fincodeauth.Config{BaseURL: fincodeauth.Sandbox("test"), Base: fc}
	for _, e := range edit {
		e(&cfg)
	}
	sessions, err := fincodeauth.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return sessions
}

func withStore(s fincodeauth.Store) func(*fincodeauth.Config) {
	return func(c *fincodeauth.Config) { c.Store = s }
}

func logIn(t *testing.T, sessions *fincodeauth.Sessions, key string) {
	t.Helper()
	if err := sessions.Login(t.Context(), key, credentials); err != nil {
		t.Fatal(err)
	}
}

func token(t *testing.T, src oauth2.TokenSource) *oauth2.Token {
	t.Helper()
	tok, err := src.Token()
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// record returns what the store has under key.
func record(t *testing.T, store fincodeauth.Store, key string) *fincodeauth.Record {
	t.Helper()
	rec, err := store.Load(context.Background(), key)
	if err != nil {
		t.Fatal(err)
	}
	return rec
}

// wantCalls checks how many refreshes FinCode was asked for and made.
func wantCalls(t *testing.T, fc *fincodetest.FinCode, calls, refreshes int) {
	t.Helper()
	if c := fc.Counts(); c.RefreshCalls != calls || c.Refreshes != refreshes {
		t.Errorf("FinCode saw %d refresh calls and made %d refreshes, want %d and %d", c.RefreshCalls, c.Refreshes, calls, refreshes)
	}
}

// wantSessionError checks that err is a SessionError of the given kind.
func wantSessionError(t *testing.T, err error, reused, interrupted bool) {
	t.Helper()
	var se *fincodeauth.SessionError
	if !errors.As(err, &se) || !errors.Is(err, fincodeauth.ErrLoginRequired) {
		t.Fatalf("error %v, want a SessionError", err)
	}
	if se.Reused != reused || se.Interrupted != interrupted || errors.Is(err, fincodeauth.ErrTokenReused) != reused {
		t.Errorf("reused %t, interrupted %t; want %t, %t (%v)", se.Reused, se.Interrupted, reused, interrupted, err)
	}
}

// events remembers what Config.Observe was told.
type events struct {
	mu  sync.Mutex
	all []fincodeauth.Event
}

func (e *events) observe(c *fincodeauth.Config) {
	c.Observe = func(ev fincodeauth.Event) {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.all = append(e.all, ev)
	}
}

// types returns the types of the events since the last call of types.
func (e *events) types() []fincodeauth.EventType {
	e.mu.Lock()
	defer e.mu.Unlock()
	var types []fincodeauth.EventType
	for _, ev := range e.all {
		types = append(types, ev.Type)
	}
	e.all = nil
	return types
}

func (e *events) want(t *testing.T, want ...fincodeauth.EventType) {
	t.Helper()
	if got := e.types(); !slices.Equal(got, want) {
		t.Errorf("events %v, want %v", got, want)
	}
}

var errStoreDown = errors.New("store is down")

// A faultyStore is a MemoryStore that fails as it is told.
type faultyStore struct {
	*fincodeauth.MemoryStore

	mu     sync.Mutex
	load   func() error                                           // before a Load; nil: it works
	save   func(rec *fincodeauth.Record, save func() error) error // in the place of a Save; nil: it works
	delete func() error                                           // before a Delete; nil: it works
}

// set changes how the store fails.
func (s *faultyStore) set(change func(*faultyStore)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(s)
}

// down makes everything fail, or work again.
func (s *faultyStore) down(down bool) {
	s.set(func(s *faultyStore) {
		s.load, s.save, s.delete = nil, nil, nil
		if down {
			fail := func() error { return errStoreDown }
			s.load, s.delete = fail, fail
			s.save = func(*fincodeauth.Record, func() error) error { return errStoreDown }
		}
	})
}

func (s *faultyStore) Load(ctx context.Context, key string) (*fincodeauth.Record, error) {
	s.mu.Lock()
	fail := s.load
	s.mu.Unlock()
	if fail != nil {
		if err := fail(); err != nil {
			return nil, err
		}
	}
	return s.MemoryStore.Load(ctx, key)
}

func (s *faultyStore) Save(ctx context.Context, key string, rec *fincodeauth.Record, prev string) error {
	s.mu.Lock()
	instead := s.save
	s.mu.Unlock()
	save := func() error { return s.MemoryStore.Save(ctx, key, rec, prev) }
	if instead != nil {
		return instead(rec, save)
	}
	return save()
}

func (s *faultyStore) Delete(ctx context.Context, key string) error {
	s.mu.Lock()
	fail := s.delete
	s.mu.Unlock()
	if fail != nil {
		if err := fail(); err != nil {
			return err
		}
	}
	return s.MemoryStore.Delete(ctx, key)
}

func newFaultyStore() *faultyStore {
	return &faultyStore{MemoryStore: fincodeauth.NewMemoryStore()}
}

// newFaultyStores returns two ways to one store, each of which fails by itself.
func newFaultyStores() (one, two *faultyStore) {
	one = newFaultyStore()
	return one, &faultyStore{MemoryStore: one.MemoryStore}
}

// cutOffAfter makes the store unreachable when it has taken a record of that
// kind, before it says so.
func cutOffAfter(kind func(*fincodeauth.Record) bool) func(*faultyStore) {
	return func(s *faultyStore) {
		s.save = func(rec *fincodeauth.Record, save func() error) error {
			if err := save(); err != nil || !kind(rec) {
				return err
			}
			s.down(true)
			return errStoreDown
		}
	}
}

// countSaves counts in saved what the store takes of each version, until it is
// told otherwise.
func countSaves(saved map[string]int) func(*faultyStore) {
	return func(s *faultyStore) {
		instead := s.save
		s.save = func(rec *fincodeauth.Record, save func() error) error {
			counted := func() error {
				err := save()
				if err == nil {
					saved[rec.Version]++
				}
				return err
			}
			if instead != nil {
				return instead(rec, counted)
			}
			return counted()
		}
	}
}

// successorsFail makes the store refuse new tokens, but not claims.
func successorsFail(s *faultyStore) {
	s.save = func(rec *fincodeauth.Record, save func() error) error {
		if isSuccessor(rec) {
			return errStoreDown
		}
		return save()
	}
}

func endsFail(s *faultyStore) {
	s.save = func(rec *fincodeauth.Record, save func() error) error {
		if rec.Ended != "" {
			return errStoreDown
		}
		return save()
	}
}

func isClaim(rec *fincodeauth.Record) bool { return !rec.RefreshStarted.IsZero() }

// isSuccessor tells a rotated token's save from a claim's and an end's.
func isSuccessor(rec *fincodeauth.Record) bool {
	return rec.RefreshStarted.IsZero() && rec.Ended == ""
}

// A jsonStore keeps records in the form in which all stores that last do.
type jsonStore struct{ *fincodeauth.MemoryStore }

func (s jsonStore) Save(ctx context.Context, key string, rec *fincodeauth.Record, prev string) error {
	data, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	kept := new(fincodeauth.Record)
	if err := json.Unmarshal(data, kept); err != nil {
		return err
	}
	return s.MemoryStore.Save(ctx, key, kept, prev)
}

func newJSONStore() jsonStore { return jsonStore{fincodeauth.NewMemoryStore()} }

func newFileStore(t *testing.T) fincodeauth.Store {
	t.Helper()
	s, err := filestore.New(filepath.Join(t.TempDir(), "sessions"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

var key1, key2 = bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 32)

func encrypted(t *testing.T, s fincodeauth.Store, keys ...[]byte) fincodeauth.Store {
	t.Helper()
	e, err := fincodeauth.Encrypt(s, keys...)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// elapsed returns how long f takes on the bubble's clock.
func elapsed(f func()) time.Duration {
	start := time.Now()
	f()
	return time.Since(start)
}

// A machine has a wall clock and a monotonic clock, which move apart when it is
// suspended or its wall clock is set.
type machine struct {
	started time.Time
	ahead   atomic.Int64 // of the bubble's clock: the wall clock
	frozen  atomic.Int64 // how long the monotonic clock stood still
}

// suspend lets nothing go on here for d but the wall clock. It is called by what
// runs on the machine.
func (m *machine) suspend(d time.Duration) {
	time.Sleep(d)
	m.frozen.Add(int64(d))
}

// set moves the wall clock.
func (m *machine) set(by time.Duration) { m.ahead.Add(int64(by)) }

// now is what time.Now is on the machine.
func (m *machine) now() time.Time {
	wall := time.Now().Add(time.Duration(m.ahead.Load()))
	return simulation.Reading(wall, time.Since(m.started)-time.Duration(m.frozen.Load()))
}

// newSessions is newSessions on the machine.
func (m *machine) newSessions(t *testing.T, fc *fincodetest.FinCode, edit ...func(*fincodeauth.Config)) *fincodeauth.Sessions {
	t.Helper()
	cfg := fincodeauth.Config{BaseURL: fincodeauth.Sandbox("test"), Base: fc}
	for _, e := range edit {
		e(&cfg)
	}
	sessions, err := fincodeauth.NewOn(cfg, m.now, func() float64 { return 0 })
	if err != nil {
		t.Fatal(err)
	}
	return sessions
}

func newMachine() *machine { return &machine{started: time.Now()} }

// roundTripper makes a RoundTripper of a function.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// get sends a GET and returns the status.
func get(t *testing.T, rt http.RoundTripper, url string) int {
	t.Helper()
	resp, err := (&http.Client{Transport: rt}).Get(url)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return resp.StatusCode
}

// whoami tells how FinCode answers a plain call with tok.
func whoami(t *testing.T, fc *fincodetest.FinCode, tok *oauth2.Token) int {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, fincodeauth.Sandbox("test")+"/whoami", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header = fincodeauth.DefaultHeader()
	req.Header.Set("Authorization", "Bearer "+tok.AccessToken)
	resp, err := fc.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return resp.StatusCode
}

// present presents a refresh token behind the back of the sessions.
func present(t *testing.T, fc *fincodetest.FinCode, refreshToken string) {
	t.Helper()
	body := strings.NewReader(`{"refresh_token":"` + refreshToken + `"}`)
	req, err := http.NewRequest(http.MethodPut, fincodeauth.Sandbox("test")+"/securitymanagement/refresh-token", body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header = fincodeauth.DefaultHeader()
	resp, err := fc.RoundTrip(req)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("presenting the token failed: %v", err)
	}
	resp.Body.Close()
}

// saveDeadClaim logs in and leaves the claim of a process that died while it
// presented the token: after FinCode had rotated it, if rotated is set.
func saveDeadClaim(t *testing.T, fc *fincodetest.FinCode, store fincodeauth.Store, started time.Time, rotated bool) {
	t.Helper()
	logIn(t, newSessions(t, fc, withStore(store)), "a")
	rec := record(t, store, "a")
	prev := rec.Version
	rec.Version, rec.RefreshStarted = "of-a-dead-process", started
	if err := store.Save(t.Context(), "a", rec, prev); err != nil {
		t.Fatal(err)
	}
	if rotated {
		present(t, fc, rec.Token.RefreshToken)
	}
}

func withCredentials(c *fincodeauth.Config) {
	c.Credentials = func(context.Context, string, error) (fincodeauth.Credentials, error) { return credentials, nil }
}

// refreshTimeout is Config's default.
const refreshTimeout = 15 * time.Second

// secret is what a call presents: a password, or a refresh token. JSON may write
// it in several ways. secretAccess is the token that a logout presents as well.
const (
	secret       = `s3cr3t of "Ada" & <sons>`
	secretAccess = "s3cr3t-access-t0ken"
)

// century is the most that FinCode may say of the future.
const century = 100 * 365 * 24 * time.Hour

// An answer is what FinCode answers to every call.
type answer struct {
	status int
	header http.Header
	body   []byte
	cut    bool // the connection breaks behind the body
}

// A sameAnswer is a FinCode that gives one answer, and notes what it was asked.
type sameAnswer struct {
	answer
	calls []string // the last elements of their paths
}

func (f *sameAnswer) RoundTrip(r *http.Request) (*http.Response, error) {
	f.calls = append(f.calls, path.Base(r.URL.Path))
	body := io.Reader(bytes.NewReader(f.body))
	if f.cut {
		body = io.MultiReader(body, broken{})
	}
	return &http.Response{StatusCode: f.status, Header: f.header.Clone(), Body: io.NopCloser(body), Request: r}, nil
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }
