package fincodeauth_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"os"
	"path"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jarcoal/httpmock"
	"golang.org/x/oauth2"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/filestore"
	"github.com/fincodeauth/fincodeauth/fincodetest"
	"github.com/fincodeauth/fincodeauth/storetest"
)

// The smallest program.
func Example() {
	srv := fincodetest.NewServer(fincodetest.Config{}) // a FinCode to try this with
	defer srv.Close()
	baseURL := srv.URL // or fincodeauth.Sandbox("your-tenant"), fincodeauth.Production("your-domain")

	sessions, err := fincodeauth.New(fincodeauth.Config{BaseURL: baseURL})
	if err != nil {
		log.Fatal(err)
	}
	defer sessions.Close(context.Background())

	err = sessions.Login(context.Background(), "operations", fincodeauth.Credentials{
		Email:    fincodetest.Email,
		Password: fincodetest.Password,
	})
	if err != nil {
		log.Fatal(err)
	}

	client := sessions.Client("operations") // an *http.Client
	resp, err := client.Get(baseURL + "/whoami")
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	fmt.Println(resp.Status)
	// Output: 200 OK
}

// Many users behind one client: the context of a request says whose it is.
func ExampleWithSession() {
	srv := fincodetest.NewServer(fincodetest.Config{})
	defer srv.Close()
	srv.AddUser("grace@example.com", fincodetest.Password)

	sessions, err := fincodeauth.New(fincodeauth.Config{BaseURL: srv.URL})
	if err != nil {
		log.Fatal(err)
	}
	defer sessions.Close(context.Background())
	for key, email := range map[string]string{"ada": fincodetest.Email, "grace": "grace@example.com"} {
		credentials := fincodeauth.Credentials{Email: email, Password: fincodetest.Password}
		if err := sessions.Login(context.Background(), key, credentials); err != nil {
			log.Fatal(err)
		}
	}

	client := sessions.Client("") // one for all users, for any number of goroutines

	for _, userID := range []string{"ada", "grace", "nobody"} {
		ctx := fincodeauth.WithSession(context.Background(), userID)
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, srv.URL+"/balance", nil)
		if err != nil {
			log.Fatal(err)
		}
		resp, err := client.Do(req)
		if errors.Is(err, fincodeauth.ErrLoginRequired) {
			fmt.Println(userID, "must log in")
			continue
		}
		if err != nil {
			log.Fatal(err)
		}
		resp.Body.Close()
		fmt.Println(userID, resp.Status)
	}
	// Output:
	// ada 200 OK
	// grace 200 OK
	// nobody must log in
}

// A test with httpmock. The mock is Config.Base, so that it answers the calls
// for tokens as well as the API's.
func ExampleConfig_httpmock() {
	api := fincodeauth.Sandbox("test")
	mock := httpmock.NewMockTransport()
	mock.RegisterResponder("PUT", api+"/securitymanagement/refresh-token", httpmock.NewStringResponder(200,
		`{"access_token": "access-2", "refresh_token": "refresh-2", "expires_in": 3600}`))
	mock.RegisterMatcherResponder("GET", api+"/balance", httpmock.HeaderIs("Authorization", "Bearer access-2"),
		httpmock.NewStringResponder(200, `{"success": true, "data": {"balance": "12.50"}}`))

	sessions, err := fincodeauth.New(fincodeauth.Config{BaseURL: api, Base: mock})
	if err != nil {
		log.Fatal(err)
	}
	defer sessions.Close(context.Background())
	// With no access token, the first request has to wait for a refresh.
	err = sessions.Adopt(context.Background(), "ada", &oauth2.Token{RefreshToken: "refresh-1"})
	if err != nil {
		log.Fatal(err)
	}

	resp, err := sessions.Client("ada").Get(api + "/balance") // what the program under test does
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(string(body))
	fmt.Println(mock.GetTotalCallCount(), "calls")
	// Output:
	// {"success": true, "data": {"balance": "12.50"}}
	// 2 calls
}

// With httpmock for the API alone: a FinCode in memory keeps the tokens, and
// answers whatever is not mocked.
func ExampleConfig_httpmockAndFincodetest() {
	fc := fincodetest.New(fincodetest.Config{})
	api := fincodeauth.Sandbox("test")
	mock := httpmock.NewMockTransport()
	mock.RegisterNoResponder(fc.RoundTrip)
	mock.RegisterResponder("GET", api+"/balance", httpmock.NewStringResponder(503, ""))

	sessions, err := fincodeauth.New(fincodeauth.Config{BaseURL: api, Base: mock})
	if err != nil {
		log.Fatal(err)
	}
	defer sessions.Close(context.Background())
	err = sessions.Login(context.Background(), "ada", fincodeauth.Credentials{
		Email: fincodetest.Email, Password: fincodetest.Password,
	})
	if err != nil {
		log.Fatal(err)
	}

	for _, path := range []string{"/balance", "/rates"} {
		resp, err := sessions.Client("ada").Get(api + path)
		if err != nil {
			log.Fatal(err)
		}
		resp.Body.Close()
		fmt.Println(path, resp.StatusCode)
	}
	// Output:
	// /balance 503
	// /rates 200
}

// A logged is a RoundTripper that prints what passes.
type logged struct {
	side string
	next http.RoundTripper
}

func (l logged) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := l.next.RoundTrip(req)
	if err == nil {
		fmt.Println(l.side, req.Method, path.Base(req.URL.Path), resp.StatusCode)
	}
	return resp, err
}

// Other middleware goes outside of the Transport, where it sees the program's
// calls, or inside, where it sees everything that is sent.
func ExampleSessions_Transport_middleware() {
	srv := fincodetest.NewServer(fincodetest.Config{})
	defer srv.Close()

	sessions, err := fincodeauth.New(fincodeauth.Config{
		BaseURL: srv.URL,
		Base:    logged{"inside", http.DefaultTransport},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer sessions.Close(context.Background())

	tok := tokenHalfAnHourOld(srv)
	if err := sessions.Adopt(context.Background(), "operations", tok); err != nil {
		log.Fatal(err)
	}
	srv.RevokeAccessToken(tok.AccessToken) // so that the API answers 401

	client := &http.Client{Transport: logged{"outside", sessions.Transport("operations")}}
	resp, err := client.Get(srv.URL + "/balance")
	if err != nil {
		log.Fatal(err)
	}
	resp.Body.Close()
	// Output:
	// inside GET balance 401
	// inside PUT refresh-token 200
	// inside GET balance 200
	// outside GET balance 200
}

// whatToDo tells the errors of a request, or of Login, apart. ctx is theirs: an
// error that is context.DeadlineExceeded can also be that of a slow FinCode or
// store, while the caller still waits.
func whatToDo(ctx context.Context, err error) string {
	session, _ := errors.AsType[*fincodeauth.SessionError](err)
	endpoint, _ := errors.AsType[*fincodeauth.EndpointError](err)
	switch {
	case err == nil:
		return "nothing"
	case session != nil && session.Reused && !session.Interrupted:
		return "raise the alarm: somebody else used the refresh token of " + session.Key
	case session != nil && session.Reused:
		return "log in: a refresh was interrupted"
	case errors.Is(err, fincodeauth.ErrNotFound):
		return "log in: there is no session, or it was logged out"
	case session != nil: // also: errors.Is(err, fincodeauth.ErrLoginRequired)
		return "log in: FinCode ended the session"
	case errors.Is(err, fincodeauth.ErrBadCredentials), errors.Is(err, fincodeauth.ErrUserNotFound):
		return "ask for email and password again"
	case errors.Is(err, fincodeauth.ErrAccountLocked):
		return "have the account unlocked"
	case errors.Is(err, fincodeauth.ErrClosed):
		return "stop: the program is shutting down"
	case ctx.Err() != nil:
		return "give up: the caller has left"
	case endpoint != nil && endpoint.RetryAfter > 0:
		return "try again in " + endpoint.RetryAfter.String()
	default:
		return "try again later: the network, FinCode or the store is in trouble"
	}
}

// Telling errors apart. Those that pass through an http.Client come wrapped in
// a *url.Error, which errors.Is and errors.As see through.
func ExampleSessionError() {
	srv := fincodetest.NewServer(fincodetest.Config{})
	defer srv.Close()
	sessions, err := fincodeauth.New(fincodeauth.Config{BaseURL: srv.URL})
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	get := func(key string) error {
		resp, err := sessions.Client(key).Get(srv.URL + "/balance")
		if err == nil {
			resp.Body.Close()
		}
		return err
	}

	fmt.Println("1:", whatToDo(ctx, get("ada")))

	wrong := fincodeauth.Credentials{Email: fincodetest.Email, Password: "guess"}
	fmt.Println("2:", whatToDo(ctx, sessions.Login(ctx, "ada", wrong)))

	srv.Inject(fincodetest.Login, 1, fincodetest.Fault{Kind: fincodetest.ErrorStatus, Status: 429, RetryAfter: "30"})
	fmt.Println("3:", whatToDo(ctx, sessions.Login(ctx, "ada", wrong)))

	if err := sessions.Adopt(ctx, "ada", &oauth2.Token{RefreshToken: "unknown to FinCode"}); err != nil {
		log.Fatal(err)
	}
	fmt.Println("4:", whatToDo(ctx, get("ada")))

	stolen := expiredToken(srv)
	thief, err := fincodeauth.New(fincodeauth.Config{BaseURL: srv.URL})
	if err != nil {
		log.Fatal(err)
	}
	for _, s := range []*fincodeauth.Sessions{thief, sessions} {
		if err := s.Adopt(ctx, "grace", stolen); err != nil {
			log.Fatal(err)
		}
	}
	if _, err := thief.TokenSource("grace").Token(); err != nil {
		log.Fatal(err)
	}
	fmt.Println("5:", whatToDo(ctx, get("grace")))

	interrupted := &fincodeauth.SessionError{Key: "grace", Reused: true, Interrupted: true, Err: errors.New("as after a crash")}
	fmt.Println("6:", whatToDo(ctx, interrupted))

	if err := sessions.Close(ctx); err != nil {
		log.Fatal(err)
	}
	fmt.Println("7:", whatToDo(ctx, get("ada")))
	// Output:
	// 1: log in: there is no session, or it was logged out
	// 2: ask for email and password again
	// 3: try again in 30s
	// 4: log in: FinCode ended the session
	// 5: raise the alarm: somebody else used the refresh token of grace
	// 6: log in: a refresh was interrupted
	// 7: stop: the program is shutting down
}

// A kvStore is a Store of your own in 30 lines, over anything that replaces a
// value only if nobody else did: here a sync.Map, from a session's key to a row.
// A real one is durable, and hands ctx on.
type kvStore struct{ kv *sync.Map }

type row struct{ version, record string } // version "": no record

func (s kvStore) Load(ctx context.Context, key string) (*fincodeauth.Record, error) {
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	value, _ := s.kv.Load(key)
	found, _ := value.(row)
	if found.version == "" {
		return nil, fincodeauth.ErrNotFound
	}
	rec := new(fincodeauth.Record)
	return rec, json.Unmarshal([]byte(found.record), rec)
}

func (s kvStore) Save(ctx context.Context, key string, rec *fincodeauth.Record, prev string) error {
	data, err := json.Marshal(rec) // holds the tokens: Encrypt has them encrypted
	if err != nil || ctx.Err() != nil {
		return errors.Join(err, ctx.Err())
	}
	old, _ := s.kv.LoadOrStore(key, row{})
	if old.(row).version != prev || !s.kv.CompareAndSwap(key, old, row{rec.Version, string(data)}) {
		return fincodeauth.ErrConflict
	}
	return nil
}

func (s kvStore) Delete(ctx context.Context, key string) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	s.kv.Delete(key)
	return nil
}

func TestStoreOfYourOwnKeepsTheContract(t *testing.T) {
	storetest.Run(t, func(*testing.T) fincodeauth.Store { return kvStore{new(sync.Map)} })
}

// A Store of your own: two processes, played by two Sessions, share a session.
func ExampleStore() {
	srv := fincodetest.NewServer(fincodetest.Config{})
	defer srv.Close()
	cfg := fincodeauth.Config{BaseURL: srv.URL, Store: kvStore{new(sync.Map)}}

	var processes [2]*fincodeauth.Sessions
	for i := range processes {
		var err error
		if processes[i], err = fincodeauth.New(cfg); err != nil {
			log.Fatal(err)
		}
		defer processes[i].Close(context.Background())
	}
	if err := processes[0].Adopt(context.Background(), "operations", expiredToken(srv)); err != nil {
		log.Fatal(err)
	}
	for _, p := range processes {
		resp, err := p.Client("operations").Get(srv.URL + "/balance")
		if err != nil {
			log.Fatal(err)
		}
		resp.Body.Close()
		fmt.Println(resp.Status)
	}
	fmt.Println(srv.Counts().RefreshCalls, "refresh")
	// Output:
	// 200 OK
	// 200 OK
	// 1 refresh
}

// Sessions in a folder, encrypted, that outlive the process.
func ExampleEncrypt() {
	srv := fincodetest.NewServer(fincodetest.Config{})
	defer srv.Close()
	dir, err := os.MkdirTemp("", "sessions")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	secret := make([]byte, 32)
	rand.Read(secret)

	// run is the program: it logs in only if no run before it did.
	run := func() error {
		files, err := filestore.New(dir)
		if err != nil {
			return err
		}
		store, err := fincodeauth.Encrypt(files, secret) // of 32 bytes, from your vault
		if err != nil {
			return err
		}
		sessions, err := fincodeauth.New(fincodeauth.Config{BaseURL: srv.URL, Store: store})
		if err != nil {
			return err
		}
		defer sessions.Close(context.Background())

		_, err = sessions.TokenSource("operations").Token()
		if errors.Is(err, fincodeauth.ErrLoginRequired) && !errors.Is(err, fincodeauth.ErrTokenReused) {
			fmt.Println("logging in")
			err = sessions.Login(context.Background(), "operations", fincodeauth.Credentials{
				Email: fincodetest.Email, Password: fincodetest.Password,
			})
		}
		if err != nil {
			return err
		}

		tok, err := sessions.TokenSource("operations").Token()
		if err != nil {
			return err
		}
		file, err := os.ReadFile(files.Path("operations"))
		fmt.Println("legible in the file:", strings.Contains(string(file), tok.RefreshToken))
		return err
	}
	for range 2 {
		if err := run(); err != nil {
			log.Fatal(err)
		}
	}
	// Output:
	// logging in
	// legible in the file: false
	// legible in the file: false
}

// A fixed API token, made on FinCode's dashboard, needs no session.
func ExampleTransport() {
	srv := fincodetest.NewServer(fincodetest.Config{})
	defer srv.Close()
	apiToken := tokenHalfAnHourOld(srv).AccessToken

	client := &http.Client{Transport: &fincodeauth.Transport{
		Source:  oauth2.StaticTokenSource(&oauth2.Token{AccessToken: apiToken}),
		BaseURL: srv.URL,
	}}
	resp, err := client.Get(srv.URL + "/balance")
	if err != nil {
		log.Fatal(err)
	}
	resp.Body.Close()
	fmt.Println(resp.Status)
	// Output: 200 OK
}

// A pair of tokens that was obtained elsewhere, such as by a login in a browser.
func ExampleSessions_Adopt() {
	srv := fincodetest.NewServer(fincodetest.Config{})
	defer srv.Close()
	pair := expiredToken(srv)

	sessions, err := fincodeauth.New(fincodeauth.Config{BaseURL: srv.URL})
	if err != nil {
		log.Fatal(err)
	}
	defer sessions.Close(context.Background())
	err = sessions.Adopt(context.Background(), "ada", &oauth2.Token{
		AccessToken:  pair.AccessToken,
		RefreshToken: pair.RefreshToken, // nobody else may use it from now on
		Expiry:       pair.Expiry,
	})
	if err != nil {
		log.Fatal(err)
	}

	resp, err := sessions.Client("ada").Get(srv.URL + "/balance")
	if err != nil {
		log.Fatal(err)
	}
	resp.Body.Close()
	fmt.Println(resp.Status, "after", srv.Counts().Refreshes, "refresh")
	// Output: 200 OK after 1 refresh
}

// Events in the log.
func ExampleConfig_observe() {
	srv := fincodetest.NewServer(fincodetest.Config{})
	defer srv.Close()
	logger := slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey || a.Key == "elapsed" {
				return slog.Attr{} // another with each run
			}
			return a
		},
	}))

	sessions, err := fincodeauth.New(fincodeauth.Config{
		BaseURL: srv.URL,
		Observe: func(e fincodeauth.Event) {
			level := slog.LevelInfo
			switch e.Type {
			case fincodeauth.RefreshFailed, fincodeauth.SaveFailed:
				level = slog.LevelWarn
			case fincodeauth.Ended:
				level = slog.LevelError
			}
			attrs := []slog.Attr{slog.String("session", e.Key), slog.Duration("elapsed", e.Elapsed)}
			if e.Err != nil {
				attrs = append(attrs, slog.Any("err", e.Err))
			}
			logger.LogAttrs(context.Background(), level, e.Type.String(), attrs...)
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer sessions.Close(context.Background())

	if err := sessions.Adopt(context.Background(), "ada", expiredToken(srv)); err != nil {
		log.Fatal(err)
	}
	if _, err := sessions.TokenSource("ada").Token(); err != nil {
		log.Fatal(err)
	}
	if err := sessions.Logout(context.Background(), "ada"); err != nil {
		log.Fatal(err)
	}
	// Output:
	// level=INFO msg=Adopted session=ada
	// level=INFO msg=Refreshed session=ada
	// level=INFO msg=LoggedOut session=ada
}

// Logging in again by itself, once FinCode has ended a session.
func ExampleConfig_credentials() {
	srv := fincodetest.NewServer(fincodetest.Config{})
	defer srv.Close()

	sessions, err := fincodeauth.New(fincodeauth.Config{
		BaseURL: srv.URL,
		Credentials: func(ctx context.Context, key string, cause error) (fincodeauth.Credentials, error) {
			fmt.Println("logging in again:", key)
			return fincodeauth.Credentials{Email: fincodetest.Email, Password: fincodetest.Password}, nil
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer sessions.Close(context.Background())
	if err := sessions.Adopt(context.Background(), "operations", expiredToken(srv)); err != nil {
		log.Fatal(err)
	}
	srv.Inject(fincodetest.Refresh, 1, fincodetest.Fault{Kind: fincodetest.ErrorStatus, Status: 401})

	resp, err := sessions.Client("operations").Get(srv.URL + "/balance")
	if err != nil {
		log.Fatal(err)
	}
	resp.Body.Close()
	fmt.Println(resp.Status)
	// Output:
	// logging in again: operations
	// 200 OK
}

// tokenHalfAnHourOld returns a good pair that the API may still reject for its
// age.
func tokenHalfAnHourOld(srv *fincodetest.Server) *oauth2.Token {
	sessions, err := fincodeauth.New(fincodeauth.Config{BaseURL: srv.URL})
	if err != nil {
		log.Fatal(err)
	}
	err = sessions.Login(context.Background(), "any", fincodeauth.Credentials{
		Email: fincodetest.Email, Password: fincodetest.Password,
	})
	if err != nil {
		log.Fatal(err)
	}
	tok, err := sessions.TokenSource("any").Token()
	if err != nil {
		log.Fatal(err)
	}
	pair := *tok
	pair.Expiry = time.Now().Add(30 * time.Minute)
	return &pair
}

// expiredToken returns a pair whose access token has expired.
func expiredToken(srv *fincodetest.Server) *oauth2.Token {
	pair := tokenHalfAnHourOld(srv)
	pair.Expiry = time.Now().Add(-time.Minute)
	return pair
}
