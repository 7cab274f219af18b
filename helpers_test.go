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

// Helpers that several test files use: Sessions with a FinCode in memory, a
// store that fails on command, a machine whose clocks can be wrong, a recorder
// of events, and a FinCode that gives the same answer to every call.

var api = fincodeauth.Sandbox("test")

var credentials = fincodeauth.Credentials{Email: fincodetest.Email, Password: fincodetest.Password}

// newConfig returns a Config whose requests go to fc and whose sessions are kept
// in memory. Each edit may change the Config.
func newConfig(fc *fincodetest.FinCode, edits ...func(*fincodeauth.Config)) fincodeauth.Config {
	cfg := fincodeauth.Config{BaseURL: api, Base: fc}
	for _, edit := range edits {
		edit(&cfg)
	}
	return cfg
}

// newSessions returns the Sessions of one process, with the Config of newConfig.
func newSessions(t *testing.T, fc *fincodetest.FinCode, edits ...func(*fincodeauth.Config)) *fincodeauth.Sessions {
	t.Helper()
	sessions, err := fincodeauth.New(newConfig(fc, edits...))
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

// record returns the record that the store has under key.
func record(t *testing.T, store fincodeauth.Store, key string) *fincodeauth.Record {
	t.Helper()
	rec, err := store.Load(context.Background(), key)
	if err != nil {
		t.Fatal(err)
	}
	return rec
}

// wantCalls checks how many refresh calls FinCode received, and how many of them
// rotated the token.
func wantCalls(t *testing.T, fc *fincodetest.FinCode, calls, refreshes int) {
	t.Helper()
	if c := fc.Counts(); c.RefreshCalls != calls || c.Refreshes != refreshes {
		t.Errorf("FinCode received %d refresh calls and rotated %d tokens, want %d calls and %d rotations", c.RefreshCalls, c.Refreshes, calls, refreshes)
	}
}

// wantSessionError checks that err is a SessionError with these values of Reused
// and Interrupted.
func wantSessionError(t *testing.T, err error, reused, interrupted bool) {
	t.Helper()
	var se *fincodeauth.SessionError
	if !errors.As(err, &se) || !errors.Is(err, fincodeauth.ErrLoginRequired) {
		t.Fatalf("got error %v, want a SessionError", err)
	}
	if se.Reused != reused || se.Interrupted != interrupted || errors.Is(err, fincodeauth.ErrTokenReused) != reused {
		t.Errorf("got Reused %t and Interrupted %t, want %t and %t, in error %v", se.Reused, se.Interrupted, reused, interrupted, err)
	}
}

// events records the events that Config.Observe receives.
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

// types returns the types of the recorded events, and forgets these events.
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

// want checks the types of the events since the last call of types or want.
func (e *events) want(t *testing.T, want ...fincodeauth.EventType) {
	t.Helper()
	if got := e.types(); !slices.Equal(got, want) {
		t.Errorf("got events %v, want %v", got, want)
	}
}

var errStoreDown = errors.New("store is down")

// A faultyStore is a MemoryStore that fails, or is slow, on command. Where a
// function below is nil, the store works.
type faultyStore struct {
	*fincodeauth.MemoryStore

	mu     sync.Mutex
	load   func() error                                           // runs before a Load; its error is the Load's
	save   func(rec *fincodeauth.Record, save func() error) error // runs instead of a Save; may call save
	delete func() error                                           // runs before a Delete; its error is the Delete's
}

// set changes the functions of the store.
func (s *faultyStore) set(change func(*faultyStore)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(s)
}

// down(true) makes every call fail with errStoreDown. down(false) makes every
// call work again.
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

// newFaultyStores returns two connections to the same store. Each of them fails
// independently of the other.
func newFaultyStores() (one, two *faultyStore) {
	one = newFaultyStore()
	return one, &faultyStore{MemoryStore: one.MemoryStore}
}

// cutOffAfter makes the store unreachable after it has saved a record of that
// kind. The caller of this Save gets an error, although the record is in the
// store.
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

// countSaves counts in saved how often each version was saved, until the store's
// save function is replaced.
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

// successorsFail makes the store refuse new tokens, and accept claims and ends.
func successorsFail(s *faultyStore) {
	s.save = func(rec *fincodeauth.Record, save func() error) error {
		if isSuccessor(rec) {
			return errStoreDown
		}
		return save()
	}
}

// endsFail makes the store refuse the ends of sessions, and accept the rest.
func endsFail(s *faultyStore) {
	s.save = func(rec *fincodeauth.Record, save func() error) error {
		if rec.Ended != "" {
			return errStoreDown
		}
		return save()
	}
}

func isClaim(rec *fincodeauth.Record) bool { return !rec.RefreshStarted.IsZero() }

// isSuccessor reports whether rec is neither a claim nor the end of a session:
// it has a new token, or gives a claim back.
func isSuccessor(rec *fincodeauth.Record) bool {
	return rec.RefreshStarted.IsZero() && rec.Ended == ""
}

// A jsonStore keeps records as they come out of JSON, as the durable stores do.
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

// elapsed returns how long f takes, by the clock of the synctest bubble.
func elapsed(f func()) time.Duration {
	start := time.Now()
	f()
	return time.Since(start)
}

// A machine has a wall clock and a monotonic clock. The two differ after the
// machine was suspended, or after its wall clock was changed.
type machine struct {
	started time.Time
	ahead   atomic.Int64 // how far the wall clock is ahead of the bubble's clock, in ns
	frozen  atomic.Int64 // how long the monotonic clock stood still, in ns
}

// suspend suspends the machine for d: only its wall clock goes on. The caller
// must be the code that runs on the machine.
func (m *machine) suspend(d time.Duration) {
	time.Sleep(d)
	m.frozen.Add(int64(d))
}

// moveWallClock sets the wall clock forward by d, or back if d is negative.
func (m *machine) moveWallClock(d time.Duration) { m.ahead.Add(int64(d)) }

// now is time.Now on the machine.
func (m *machine) now() time.Time {
	wall := time.Now().Add(time.Duration(m.ahead.Load()))
	return simulation.Reading(wall, time.Since(m.started)-time.Duration(m.frozen.Load()))
}

// newSessions returns the Sessions of a process that runs on the machine.
func (m *machine) newSessions(t *testing.T, fc *fincodetest.FinCode, edits ...func(*fincodeauth.Config)) *fincodeauth.Sessions {
	t.Helper()
	sessions, err := fincodeauth.NewOn(newConfig(fc, edits...), m.now, func() float64 { return 0 })
	if err != nil {
		t.Fatal(err)
	}
	return sessions
}

func newMachine() *machine { return &machine{started: time.Now()} }

// roundTripper turns a function into a RoundTripper.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// request returns a request to FinCode's API.
func request(tb testing.TB, method string, body io.Reader) *http.Request {
	tb.Helper()
	req, err := http.NewRequest(method, api+"/transfers", body)
	if err != nil {
		tb.Fatal(err)
	}
	return req
}

// roundTrip fails unless the answer's status is 200.
func roundTrip(tb testing.TB, rt http.RoundTripper, req *http.Request) {
	resp, err := rt.RoundTrip(req)
	if err != nil || resp.StatusCode != 200 {
		tb.Fatal("the request did not get status 200: ", err)
	}
}

// get sends a GET request and returns the status of the answer.
func get(t *testing.T, rt http.RoundTripper, url string) int {
	t.Helper()
	resp, err := (&http.Client{Transport: rt}).Get(url)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return resp.StatusCode
}

// whoami calls FinCode with tok, without Sessions, and returns the status: 200 if
// the token is valid, 401 if it expired or was revoked.
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

// present presents a refresh token at FinCode without Sessions, as a thief would.
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
		t.Fatalf("could not present the refresh token: %v", err)
	}
	resp.Body.Close()
}

// saveDeadClaim logs in, and then leaves the store as a process does that claimed
// the refresh at started and died while it presented the token. With rotated set,
// FinCode has rotated the token before that process died.
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

// withCredentials makes Sessions log in again when a session ends.
func withCredentials(c *fincodeauth.Config) {
	c.Credentials = func(context.Context, string, error) (fincodeauth.Credentials, error) { return credentials, nil }
}

// refreshTimeout is the default of Config.RefreshTimeout.
const refreshTimeout = 15 * time.Second

// secret is used as a password or as a refresh token. JSON can write it in several
// ways. secretAccess is used as an access token.
const (
	secret       = `s3cr3t of "Ada" & <sons>`
	secretAccess = "s3cr3t-access-t0ken"
)

// century is the longest lifetime and the longest Retry-After that are accepted.
const century = 100 * 365 * 24 * time.Hour

// An answer is one HTTP response of FinCode.
type answer struct {
	status int
	header http.Header
	body   []byte
	cut    bool // the connection breaks after the body
}

// A sameAnswer is a FinCode that gives the same answer to every call, and records
// the calls. It is for one call at a time.
type sameAnswer struct {
	answer
	calls []string // the last path element of each call
}

// answering returns a FinCode that gives this answer to every call.
func answering(status int, header http.Header, body string) *sameAnswer {
	return &sameAnswer{answer: answer{status: status, header: header, body: []byte(body)}}
}

func (f *sameAnswer) RoundTrip(r *http.Request) (*http.Response, error) {
	f.calls = append(f.calls, path.Base(r.URL.Path))
	body := io.Reader(bytes.NewReader(f.body))
	if f.cut {
		body = io.MultiReader(body, broken{})
	}
	return &http.Response{StatusCode: f.status, Header: f.header.Clone(), Body: io.NopCloser(body), Request: r}, nil
}

// A broken is a body whose connection broke.
type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }
