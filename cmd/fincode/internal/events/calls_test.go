package events

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/fincodetest"
)

const baseURL = "https://acme.fincode.software/api/v6/services"

// A trial is a session of fincodeauth with a journal in memory.
type trial struct {
	fc       *fincodetest.FinCode
	sessions *fincodeauth.Sessions
	journal  *Journal
	store    *fincodeauth.MemoryStore

	mu      sync.Mutex
	entries []Entry
}

func newTrial(t *testing.T, cfg fincodetest.Config) *trial {
	t.Helper()
	r := &trial{fc: fincodetest.New(cfg), store: fincodeauth.NewMemoryStore()}
	var err error
	r.journal, err = To(func(e Entry) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.entries = append(r.entries, e)
	}, Process{Host: "web-1", PID: 1, Command: "call"}, []byte("key"), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	r.sessions, err = fincodeauth.New(fincodeauth.Config{
		BaseURL: baseURL,
		Base:    r.journal.RoundTripper(r.fc),
		Store:   r.journal.Store(r.store),
		Observe: r.journal.Observe,
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *trial) login(t *testing.T) {
	t.Helper()
	err := r.sessions.Login(t.Context(), "ada", fincodeauth.Credentials{Email: fincodetest.Email, Password: fincodetest.Password})
	if err != nil {
		t.Fatal(err)
	}
}

// last returns the last entry of that kind and operation.
func (r *trial) last(kind Kind, op string) Entry {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := len(r.entries) - 1; i >= 0; i-- {
		if e := r.entries[i]; e.Kind == kind && e.Op == op {
			return e
		}
	}
	return Entry{}
}

// hashInStore returns the hash of the refresh token in the store.
func (r *trial) hashInStore(t *testing.T) string {
	t.Helper()
	rec, err := r.store.Load(context.Background(), "ada")
	if err != nil {
		t.Fatal(err)
	}
	return r.journal.hash(rec.Token.RefreshToken)
}

func TestHashesAreRightForEveryFormOfTheAnswer(t *testing.T) {
	for _, cfg := range []fincodetest.Config{
		{},
		{OpaqueTokens: true},
		{CamelCase: true},
		{UnderData: true},
		{UnderData: true, CamelCase: true, OpaqueTokens: true},
		{ExpiresIn: fincodetest.ExpiresInString},
		{ExpiresIn: fincodetest.ExpiresInFraction},
		{ExpiresIn: fincodetest.ExpiresInAbsent},
		{KeepRefreshToken: true},
		{RevokeOnRotation: true},
	} {
		t.Run(fmt.Sprintf("%+v", cfg), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newTrial(t, cfg)
				r.login(t)
				first := r.hashInStore(t)
				if got := r.last(Answered, Login); got.Outcome != Got || got.Next != first || got.Token != "" {
					t.Errorf("the login is noted as %+v, want the hash %s", got, first)
				}
				time.Sleep(2 * time.Hour)
				if _, err := r.sessions.TokenSource("ada").TokenContext(t.Context()); err != nil {
					t.Fatal(err)
				}
				second := r.hashInStore(t)
				if (second == first) != cfg.KeepRefreshToken {
					t.Errorf("the token is kept: %t, want %t", second == first, cfg.KeepRefreshToken)
				}
				if got := r.last(Presenting, Refresh); got.Token != first {
					t.Errorf("the request is noted as %+v, want the hash %s", got, first)
				}
				if got := r.last(Answered, Refresh); got.Outcome != Got || got.Token != first || got.Next != second {
					t.Errorf("the answer is noted as %+v, want the hashes %s and %s", got, first, second)
				}
				if err := r.sessions.Logout(t.Context(), "ada"); err != nil {
					t.Fatal(err)
				}
				logout := r.last(Answered, Logout)
				if logout.Op != Logout || logout.Token == "" || logout.Outcome != Done {
					t.Errorf("the logout is noted as %+v, want done", logout)
				}
			})
		})
	}
}

func TestOutcomeIsWhatThePackageThinks(t *testing.T) {
	fault := func(f fincodetest.Fault) *fincodetest.Fault { return &f }
	for name, test := range map[string]struct {
		cfg    fincodetest.Config
		fault  *fincodetest.Fault
		want   Outcome
		status int
	}{
		"hang up":              {fault: fault(fincodetest.Fault{Kind: fincodetest.HangUp}), want: Unknown},
		"hang up, rotated":     {fault: fault(fincodetest.Fault{Kind: fincodetest.HangUp, TakesEffect: true}), want: Unknown},
		"slow":                 {fault: fault(fincodetest.Fault{After: time.Minute}), want: Unknown},
		"cut":                  {fault: fault(fincodetest.Fault{Kind: fincodetest.Truncated}), want: Unknown, status: 200},
		"too long":             {fault: fault(fincodetest.Fault{Kind: fincodetest.Oversized}), want: Unknown, status: 200},
		"garbage":              {fault: fault(fincodetest.Fault{Kind: fincodetest.Garbage}), want: Unknown, status: 200},
		"500":                  {fault: fault(fincodetest.Fault{Kind: fincodetest.ErrorStatus}), want: Unknown, status: 500},
		"408":                  {fault: fault(fincodetest.Fault{Kind: fincodetest.ErrorStatus, Status: 408}), want: Unknown, status: 408},
		"429":                  {fault: fault(fincodetest.Fault{Kind: fincodetest.ErrorStatus, Status: 429}), want: Untouched, status: 429},
		"429 as 200":           {cfg: fincodetest.Config{FailuresAs200: true}, fault: fault(fincodetest.Fault{Kind: fincodetest.ErrorStatus, Status: 429}), want: Untouched, status: 429},
		"401":                  {fault: fault(fincodetest.Fault{Kind: fincodetest.ErrorStatus, Status: 401}), want: Refused, status: 401},
		"403":                  {fault: fault(fincodetest.Fault{Kind: fincodetest.ErrorStatus, Status: 403}), want: Refused, status: 403},
		"403 as 200":           {cfg: fincodetest.Config{FailuresAs200: true}, fault: fault(fincodetest.Fault{Kind: fincodetest.ErrorStatus, Status: 403}), want: Refused, status: 403},
		"403 without a body":   {cfg: fincodetest.Config{EmptyRefusals: true}, fault: fault(fincodetest.Fault{Kind: fincodetest.ErrorStatus, Status: 403}), want: Refused, status: 403},
		"a firewall's 403":     {fault: fault(fincodetest.Fault{Kind: fincodetest.FirewallPage}), want: Untouched, status: 403},
		"redirect":             {fault: fault(fincodetest.Fault{Kind: fincodetest.Redirect, Location: "/elsewhere"}), want: Untouched, status: 307},
		"FinCode's own answer": {want: Got, status: 200},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newTrial(t, test.cfg)
				r.login(t)
				time.Sleep(2 * time.Hour)
				if test.fault != nil {
					r.fc.Inject(fincodetest.Refresh, 1, *test.fault)
				}
				_, _ = r.sessions.TokenSource("ada").TokenContext(t.Context())
				synctest.Wait()
				got := r.last(Answered, Refresh)
				if got.Outcome != test.want || got.Status != test.status || (got.Next != "") != (test.want == Got) {
					t.Errorf("noted %+v, want the outcome %q and the status %d", got, test.want, test.status)
				}
				// A claim that is still there says that the package does not know the outcome.
				rec, err := r.store.Load(t.Context(), "ada")
				if err != nil {
					t.Fatal(err)
				}
				if claimed := !rec.RefreshStarted.IsZero(); claimed != (test.want == Unknown) {
					t.Errorf("the package keeps its claim: %t, and the journal says %q", claimed, got.Outcome)
				}
			})
		})
	}
}

func TestResponseHasItsWholeBody(t *testing.T) {
	broken := errors.New("connection reset")
	long := strings.Repeat("x", 3*maxBody)
	for name, test := range map[string]struct {
		body string
		err  error
	}{
		"empty":        {},
		"short":        {body: `{"access_token": "a"}`},
		"long":         {body: long},
		"broken":       {body: `{"access`, err: broken},
		"long, broken": {body: long, err: broken},
	} {
		t.Run(name, func(t *testing.T) {
			closed := false
			j := &Journal{write: func(Entry) {}, now: time.Now}
			base := roundTripper(func(*http.Request) (*http.Response, error) {
				body := io.Reader(strings.NewReader(test.body))
				if test.err != nil {
					body = io.MultiReader(body, failing{test.err})
				}
				return &http.Response{StatusCode: 200, Body: readCloser{body, closer(func() { closed = true })}}, nil
			})
			req, err := http.NewRequest(http.MethodPut, baseURL+"/securitymanagement/refresh-token", strings.NewReader(`{"refresh_token":"r"}`))
			if err != nil {
				t.Fatal(err)
			}
			resp, err := j.RoundTripper(base).RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(resp.Body)
			if string(got) != test.body || err != test.err {
				t.Errorf("the body has %d bytes and the error %v, want %d and %v", len(got), err, len(test.body), test.err)
			}
			resp.Body.Close()
			if !closed {
				t.Error("Close did not reach the body of the base")
			}
		})
	}
}

func TestRequestGoesOutOnceWithItsBodyAndContext(t *testing.T) {
	type mark struct{}
	ctx := context.WithValue(t.Context(), mark{}, true)
	for _, path := range []string{"/securitymanagement/refresh-token", "/securitymanagement/logout", "/securitymanagement/login", "/balance"} {
		const body = `{"refresh_token":"r"}`
		calls := 0
		base := roundTripper(func(r *http.Request) (*http.Response, error) {
			calls++
			if got, err := io.ReadAll(r.Body); string(got) != body || err != nil {
				t.Errorf("%s: the body is %q, %v", path, got, err)
			}
			if r.Context().Value(mark{}) == nil {
				t.Errorf("%s: the context has lost its values", path)
			}
			return nil, errors.New("no answer")
		})
		var noted []Entry
		j, err := To(func(e Entry) { noted = append(noted, e) }, Process{}, []byte("key"), time.Now)
		if err != nil {
			t.Fatal(err)
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodPut, baseURL+path, bytes.NewReader([]byte(body)))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := j.RoundTripper(base).RoundTrip(req); err == nil || calls != 1 {
			t.Errorf("%s: %v after %d calls, want the base's error after one", path, err, calls)
		}
		if path == "/balance" && len(noted) > 0 {
			t.Errorf("%s: noted %v, want nothing", path, noted)
		}
	}
}

func TestNoTokenAndNoPasswordIsInTheFiles(t *testing.T) {
	j, f := testJournal(t, maxFile, failOnError(t))
	secrets := map[string]bool{fincodetest.Password: true}
	synctest.Test(t, func(t *testing.T) { liveFor3Logins(t, j, secrets) })
	delete(secrets, "")
	data, err := os.ReadFile(filepath.Join(f.dir, currentName))
	if err != nil {
		t.Fatal(err)
	}
	if len(secrets) < 20 || !bytes.Contains(data, []byte(`"got"`)) || !bytes.Contains(data, []byte("Ended")) {
		t.Fatalf("only %d secrets were seen, and the journal has %d bytes", len(secrets), len(data))
	}
	for secret := range secrets {
		if bytes.Contains(data, []byte(secret)) {
			t.Error("the journal has a token or the password")
		}
	}
	if text := fmt.Sprintf("%v %+v %#v", j, j, j); strings.Contains(text, string(j.hashKey)) || !strings.Contains(text, "proxy") {
		t.Error("a Journal prints its key")
	}
}

// liveFor3Logins logs in, refreshes, and loses the session, three times. It adds the tokens
// to secrets.
func liveFor3Logins(t *testing.T, j *Journal, secrets map[string]bool) {
	fc := fincodetest.New(fincodetest.Config{OpaqueTokens: true})
	spy := storeSpy{fincodeauth.NewMemoryStore(), func(rec *fincodeauth.Record) {
		secrets[rec.Token.AccessToken], secrets[rec.Token.RefreshToken] = true, true
	}}
	sessions, err := fincodeauth.New(fincodeauth.Config{BaseURL: baseURL, Base: j.RoundTripper(fc), Store: j.Store(spy), Observe: j.Observe})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := sessions.Login(t.Context(), "ada", fincodeauth.Credentials{Email: fincodetest.Email, Password: fincodetest.Password}); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			time.Sleep(2 * time.Hour)
			if _, err := sessions.TokenSource("ada").TokenContext(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{Kind: fincodetest.ErrorStatus, Status: 401})
		time.Sleep(2 * time.Hour)
		if _, err := sessions.TokenSource("ada").TokenContext(t.Context()); !errors.Is(err, fincodeauth.ErrLoginRequired) {
			t.Fatalf("TokenContext = %v, want that a login is required", err)
		}
	}
}

func TestHashesDependOnTheKey(t *testing.T) {
	journal := func(key string) *Journal {
		j, err := To(func(Entry) {}, Process{}, []byte(key), time.Now)
		if err != nil {
			t.Fatal(err)
		}
		return j
	}
	first, again, another := journal("a").hash("token"), journal("a").hash("token"), journal("b").hash("token")
	if first != again || first == another {
		t.Error("want the same hash with the same key, and another one with another key")
	}
	if _, err := To(func(Entry) {}, Process{}, nil, time.Now); err == nil {
		t.Error("To without a key returns no error")
	}
}

func TestStoreListsItsKeysIfTheInnerOneDoes(t *testing.T) {
	j := &Journal{write: func(Entry) {}, now: time.Now, seen: make(map[string]string)}
	if _, ok := j.Store(fincodeauth.NewMemoryStore()).(fincodeauth.KeyLister); !ok {
		t.Error("the Store of a KeyLister is none")
	}
	if _, ok := j.Store(struct{ fincodeauth.Store }{fincodeauth.NewMemoryStore()}).(fincodeauth.KeyLister); ok {
		t.Error("the Store of a Store without keys says that it lists them")
	}
}

// A storeSpy hands each record that is saved to a function.
type storeSpy struct {
	fincodeauth.Store
	saw func(*fincodeauth.Record)
}

func (s storeSpy) Save(ctx context.Context, key string, rec *fincodeauth.Record, prev string) error {
	s.saw(rec)
	return s.Store.Save(ctx, key, rec, prev)
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

type closer func()

func (f closer) Close() error { f(); return nil }
