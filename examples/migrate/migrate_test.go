package migrate

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/oauth2"

	"github.com/fincodeauth/fincodeauth"
	handafter "github.com/fincodeauth/fincodeauth/examples/migrate/internal/handwritten/after"
	handbefore "github.com/fincodeauth/fincodeauth/examples/migrate/internal/handwritten/before"
	"github.com/fincodeauth/fincodeauth/examples/migrate/internal/move"
	oauth2after "github.com/fincodeauth/fincodeauth/examples/migrate/internal/oauth2/after"
	oauth2before "github.com/fincodeauth/fincodeauth/examples/migrate/internal/oauth2/before"
	"github.com/fincodeauth/fincodeauth/filestore"
	"github.com/fincodeauth/fincodeauth/fincodetest"
)

// docs/migrate.md shows these programs. The tests run them against a FinCode in memory.

var api = fincodeauth.Sandbox("test")

const (
	account  = "operations"
	lifetime = time.Hour
)

// A world is a FinCode with one session, the file in which the old versions keep its
// tokens, and the store of the new ones.
type world struct {
	*fincodetest.FinCode
	path  string
	store fincodeauth.Store
}

// inWorld runs test in a bubble in which time passes at once.
func inWorld(t *testing.T, cfg fincodetest.Config, test func(*testing.T, *world)) {
	synctest.Test(t, func(t *testing.T) {
		store, err := filestore.New(filepath.Join(t.TempDir(), "sessions"))
		if err != nil {
			t.Fatal(err)
		}
		w := &world{fincodetest.New(cfg), filepath.Join(t.TempDir(), "token.json"), store}
		before := http.DefaultTransport
		http.DefaultTransport = w.FinCode
		defer func() { http.DefaultTransport = before }()
		w.logIn(t)
		test(t, w)
	})
}

// logIn logs in as the old versions did, and leaves the tokens in the file.
func (w *world) logIn(t *testing.T) {
	t.Helper()
	body := `{"email": "` + fincodetest.Email + `", "currentPassword": "` + fincodetest.Password + `"}`
	req, err := http.NewRequest(http.MethodPut, api+"/securitymanagement/login", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header = fincodeauth.DefaultHeader()
	resp, err := w.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	tok := new(oauth2.Token)
	if err := json.Unmarshal(answer, tok); err != nil {
		t.Fatal(err)
	}
	tok.Expiry = time.Now().Add(lifetime)
	data, err := json.Marshal(tok)
	if err == nil {
		err = os.WriteFile(w.path, data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (w *world) sessions(t *testing.T) *fincodeauth.Sessions {
	t.Helper()
	sessions, err := fincodeauth.New(fincodeauth.Config{BaseURL: api, Store: w.store})
	if err != nil {
		t.Fatal(err)
	}
	return sessions
}

// wantPresented checks that no refresh token was presented twice, or that one was, and
// that there was no other login than the first.
func (w *world) wantPresented(t *testing.T, twice bool) {
	t.Helper()
	if list := w.PresentedMoreThanOnce(); twice != (len(list) > 0) {
		t.Errorf("tokens that were presented more than once: %v, want some: %t", list, twice)
	}
	if n := w.Counts().Logins; n != 1 {
		t.Errorf("FinCode made %d logins, want the first one alone", n)
	}
}

// A get sends a request to the API, and returns the answer's status; 0 if there was an
// error.
type get func(context.Context) int

func statusOf(resp *http.Response, err error) int {
	if err != nil {
		return 0
	}
	resp.Body.Close()
	return resp.StatusCode
}

func through(client *http.Client) get {
	return func(ctx context.Context) int {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, api+"/balance", nil)
		if err != nil {
			return 0
		}
		return statusOf(client.Do(req))
	}
}

// The versions of the program. Each call starts a process. ctx is that of its start.
var versions = []struct {
	name          string
	before, after func(context.Context, *testing.T, *world) get
}{
	{"handwritten", handwrittenBefore, handwrittenAfter},
	{"oauth2", withOAuth2, withSessions},
}

func handwrittenBefore(_ context.Context, t *testing.T, w *world) get {
	client, err := handbefore.Open(api, w.path)
	if err != nil {
		t.Fatal(err)
	}
	return func(ctx context.Context) int { return statusOf(client.Get(ctx, "/balance")) }
}

func handwrittenAfter(ctx context.Context, t *testing.T, w *world) get {
	client, err := handafter.Open(ctx, api, w.path, w.store)
	if err != nil {
		t.Fatal(err)
	}
	return func(ctx context.Context) int { return statusOf(client.Get(ctx, "/balance")) }
}

func withOAuth2(ctx context.Context, t *testing.T, w *world) get {
	client, err := oauth2before.New(ctx, api, w.path)
	if err != nil {
		t.Fatal(err)
	}
	return through(client)
}

func withSessions(ctx context.Context, t *testing.T, w *world) get {
	client, err := oauth2after.New(ctx, w.sessions(t), w.path)
	if err != nil {
		t.Fatal(err)
	}
	return through(client)
}

func TestTwoProcessesPresentATokenTwiceBeforeAndOnceAfter(t *testing.T) {
	for _, v := range versions {
		t.Run(v.name+" before", func(t *testing.T) {
			inWorld(t, fincodetest.Config{}, func(t *testing.T, w *world) {
				one, two := v.before(t.Context(), t, w), v.before(t.Context(), t, w)
				time.Sleep(2 * lifetime)
				if a, b := one(t.Context()), two(t.Context()); a != 200 || b != 0 {
					t.Errorf("the processes get %d and %d, want 200 and an error", a, b)
				}
				w.wantPresented(t, true)
			})
		})
		t.Run(v.name+" after", func(t *testing.T) {
			inWorld(t, fincodetest.Config{}, func(t *testing.T, w *world) {
				one, two := v.after(t.Context(), t, w), v.after(t.Context(), t, w)
				time.Sleep(2 * lifetime)
				if a, b := one(t.Context()), two(t.Context()); a != 200 || b != 200 {
					t.Errorf("the processes get %d and %d, want 200 both", a, b)
				}
				w.wantPresented(t, false)
			})
		})
	}
}

// The handwritten client refreshes on its caller's context.
func TestCallerThatLeavesLosesTheTokenBeforeAndNotAfter(t *testing.T) {
	for _, test := range []struct {
		name  string
		start func(context.Context, *testing.T, *world) get
		then  int
	}{
		{"before", handwrittenBefore, 0},
		{"after", handwrittenAfter, 200},
	} {
		t.Run(test.name, func(t *testing.T) {
			inWorld(t, fincodetest.Config{}, func(t *testing.T, w *world) {
				get := test.start(t.Context(), t, w)
				time.Sleep(2 * lifetime)
				w.Inject(fincodetest.Refresh, 1, fincodetest.Fault{After: 5 * time.Second})
				hasty, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				if status := get(hasty); status != 0 {
					t.Fatalf("the hasty caller gets %d, want an error", status)
				}
				if status := get(t.Context()); status != test.then {
					t.Errorf("the next caller gets %d, want %d", status, test.then)
				}
				w.wantPresented(t, test.then == 0)
			})
		})
	}
}

// The TokenSource for x/oauth2 refreshes on the context that its client was made with.
func TestStartWithAContextThatEndsStopsRefreshesBeforeAndNotAfter(t *testing.T) {
	for _, test := range []struct {
		name  string
		start func(context.Context, *testing.T, *world) get
		then  int
	}{
		{"before", withOAuth2, 0},
		{"after", withSessions, 200},
	} {
		t.Run(test.name, func(t *testing.T) {
			inWorld(t, fincodetest.Config{}, func(t *testing.T, w *world) {
				starting, cancel := context.WithCancel(t.Context())
				get := test.start(starting, t, w)
				cancel()
				time.Sleep(2 * lifetime)
				if status := get(t.Context()); status != test.then {
					t.Errorf("after the first lifetime a request gets %d, want %d", status, test.then)
				}
			})
		})
	}
}

// x/oauth2's own refresh is a POST of a form. FinCode wants a PUT of JSON.
func TestConfigOfOAuth2CannotRefreshAtFinCode(t *testing.T) {
	inWorld(t, fincodetest.Config{}, func(t *testing.T, w *world) {
		config := &oauth2.Config{Endpoint: oauth2.Endpoint{TokenURL: api + "/securitymanagement/refresh-token"}}
		_, err := config.TokenSource(t.Context(), &oauth2.Token{RefreshToken: "r"}).Token()
		answer, ok := errors.AsType[*oauth2.RetrieveError](err)
		if !ok || answer.Response.StatusCode != http.StatusMethodNotAllowed {
			t.Errorf("got error %v, want FinCode's 405", err)
		}
	})
}

func TestSessionMovesForwardBackAndForwardWithoutALogin(t *testing.T) {
	for _, v := range versions {
		t.Run(v.name, func(t *testing.T) {
			inWorld(t, fincodetest.Config{}, func(t *testing.T, w *world) {
				for range 2 {
					old := v.before(t.Context(), t, w)
					time.Sleep(2 * lifetime)
					if status := old(t.Context()); status != 200 {
						t.Fatalf("the old version gets %d, want 200", status)
					}
					next := v.after(t.Context(), t, w)
					time.Sleep(2 * lifetime)
					if status := next(t.Context()); status != 200 {
						t.Fatalf("the new version gets %d, want 200", status)
					}
					if err := move.GiveBack(t.Context(), w.store, w.sessions(t), account, w.path); err != nil {
						t.Fatal(err)
					}
				}
				w.wantPresented(t, false)
			})
		})
	}
}

func TestSecondProcessDoesNotAdoptAgain(t *testing.T) {
	inWorld(t, fincodetest.Config{}, func(t *testing.T, w *world) {
		for range 3 {
			withSessions(t.Context(), t, w)
		}
		rec, err := w.store.Load(t.Context(), account)
		if err != nil {
			t.Fatal(err)
		}
		if len(rec.Replaces) != 0 || rec.Generation != 1 {
			t.Errorf("the record is of generation %d and replaces %v, want the first adoption alone", rec.Generation, rec.Replaces)
		}
	})
}

func TestSessionThatIsBeingRefreshedIsNotGivenBack(t *testing.T) {
	inWorld(t, fincodetest.Config{}, func(t *testing.T, w *world) {
		withSessions(t.Context(), t, w)
		rec, err := w.store.Load(t.Context(), account)
		if err != nil {
			t.Fatal(err)
		}
		prev := rec.Version
		rec.Version, rec.RefreshStarted = rec.Version+".claim", time.Now()
		if err := w.store.Save(t.Context(), account, rec, prev); err != nil {
			t.Fatal(err)
		}
		if err := move.GiveBack(t.Context(), w.store, w.sessions(t), account, w.path); err == nil {
			t.Error("got no error, want one: another process may be presenting the token")
		}
		if _, err := os.Stat(w.path); err == nil {
			t.Error("the old version has the tokens, want them in the store alone")
		}
	})
}

// A process of the old version that goes on refreshing has the token in its memory.
func TestOldVersionThatGoesOnRefreshingIsAReuse(t *testing.T) {
	for _, v := range versions {
		t.Run(v.name, func(t *testing.T) {
			for _, ends := range []bool{false, true} {
				inWorld(t, fincodetest.Config{RevokeFamilyOnReuse: ends}, func(t *testing.T, w *world) {
					old, next := v.before(t.Context(), t, w), v.after(t.Context(), t, w)
					time.Sleep(2 * lifetime)
					statuses := [3]int{next(t.Context()), old(t.Context()), 0}
					time.Sleep(2 * lifetime)
					statuses[2] = next(t.Context())
					want := [3]int{200, 0, 200}
					if ends {
						want[2] = 0
					}
					if statuses != want {
						t.Errorf("if a reuse ends the session (%t): the new, the old and the new version get %v, want %v", ends, statuses, want)
					}
				})
			}
		})
	}
}

func TestDamagedFileIsNotAdoptedAndNotPrinted(t *testing.T) {
	inWorld(t, fincodetest.Config{}, func(t *testing.T, w *world) {
		if err := os.WriteFile(w.path, []byte(`"s3cr3t`), 0o600); err != nil {
			t.Fatal(err)
		}
		err := move.Adopt(t.Context(), w.sessions(t), account, w.path)
		if err == nil || strings.Contains(err.Error(), "s3cr3t") {
			t.Errorf("got error %v, want one without the tokens", err)
		}
		if _, err := os.Stat(w.path + ".adopted"); err != nil {
			t.Errorf("the file is gone: %v", err)
		}
	})
}
