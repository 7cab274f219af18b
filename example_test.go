package fincodeauth_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jarcoal/httpmock"
	"golang.org/x/oauth2"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/filestore"
	"github.com/fincodeauth/fincodeauth/fincodetest"
	"github.com/fincodeauth/fincodeauth/storetest"
)

// closeSessions gives the store 30 seconds to accept the tokens that are not
// saved yet. Without a deadline, Close waits as long as the store is down. The
// error names the sessions whose tokens are lost.
func closeSessions(sessions *fincodeauth.Sessions) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := sessions.Close(ctx); err != nil {
		log.Print(err)
	}
}

// The smallest program. The folder examples/quickstart has it with its imports.
func Example() {
	srv := fincodetest.NewServer(fincodetest.Config{}) // a FinCode to try this with
	defer srv.Close()
	baseURL := srv.URL // or fincodeauth.Sandbox("your-tenant"), fincodeauth.Production("your-domain")

	sessions, err := fincodeauth.New(fincodeauth.Config{BaseURL: baseURL})
	if err != nil {
		log.Print(err)
		return
	}
	defer closeSessions(sessions)

	err = sessions.Login(context.Background(), "operations", fincodeauth.Credentials{
		Email:    fincodetest.Email,
		Password: fincodetest.Password,
	})
	if err != nil {
		log.Print(err)
		return
	}

	client := sessions.Client("operations") // an *http.Client
	resp, err := client.Get(baseURL + "/whoami")
	if err != nil {
		log.Print(err)
		return
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
		log.Print(err)
		return
	}
	defer closeSessions(sessions)
	for key, email := range map[string]string{"ada": fincodetest.Email, "grace": "grace@example.com"} {
		credentials := fincodeauth.Credentials{Email: email, Password: fincodetest.Password}
		if err := sessions.Login(context.Background(), key, credentials); err != nil {
			log.Print(err)
			return
		}
	}

	client := sessions.Client("")
	for _, userID := range []string{"ada", "grace", "nobody"} {
		status, err := balance(context.Background(), client, srv.URL, userID)
		switch {
		case errors.Is(err, fincodeauth.ErrLoginRequired):
			fmt.Println(userID, "must log in")
		case err != nil:
			fmt.Println(userID, "try again later:", err)
		default:
			fmt.Println(userID, status)
		}
	}
	// Output:
	// ada 200 OK
	// grace 200 OK
	// nobody must log in
}

// balance asks for the balance of one user.
func balance(ctx context.Context, client *http.Client, baseURL, userID string) (status string, err error) {
	ctx = fincodeauth.WithSession(ctx, userID)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, baseURL+"/balance", nil)
	if err != nil {
		return "", err
	}
	resp, err := client.Do(req) // client is sessions.Client(""), one for all users
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	return resp.Status, nil
}

// A test with httpmock. The mock is Config.Base. It answers the calls of the API
// and the calls for tokens.
func ExampleConfig_httpmock() {
	api := fincodeauth.Sandbox("test")
	mock := httpmock.NewMockTransport()
	mock.RegisterResponder("PUT", api+"/securitymanagement/refresh-token", httpmock.NewStringResponder(200,
		`{"access_token": "access-2", "refresh_token": "refresh-2", "expires_in": 3600}`))
	mock.RegisterMatcherResponder("GET", api+"/balance", httpmock.HeaderIs("Authorization", "Bearer access-2"),
		httpmock.NewStringResponder(200, `{"success": true, "data": {"balance": "12.50"}}`))

	sessions, err := fincodeauth.New(fincodeauth.Config{BaseURL: api, Base: mock})
	if err != nil {
		log.Print(err)
		return
	}
	defer closeSessions(sessions)
	// There is no access token, so the first request waits for a refresh.
	err = sessions.Adopt(context.Background(), "ada", &oauth2.Token{RefreshToken: "refresh-1"})
	if err != nil {
		log.Print(err)
		return
	}

	resp, err := sessions.Client("ada").Get(api + "/balance") // what the program under test does
	if err != nil {
		log.Print(err)
		return
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		log.Print(err)
		return
	}
	fmt.Println(string(body))
	fmt.Println(mock.GetTotalCallCount(), "calls")
	// Output:
	// {"success": true, "data": {"balance": "12.50"}}
	// 2 calls
}

// A test with httpmock for the API alone. A FinCode in memory answers the calls
// for tokens and everything else that is not mocked.
func ExampleConfig_httpmockAndFincodetest() {
	fc := fincodetest.New(fincodetest.Config{})
	api := fincodeauth.Sandbox("test")
	mock := httpmock.NewMockTransport()
	mock.RegisterNoResponder(fc.RoundTrip)
	mock.RegisterResponder("GET", api+"/balance", httpmock.NewStringResponder(503, ""))

	sessions, err := fincodeauth.New(fincodeauth.Config{BaseURL: api, Base: mock})
	if err != nil {
		log.Print(err)
		return
	}
	defer closeSessions(sessions)
	err = sessions.Login(context.Background(), "ada", fincodeauth.Credentials{
		Email: fincodetest.Email, Password: fincodetest.Password,
	})
	if err != nil {
		log.Print(err)
		return
	}

	for _, path := range []string{"/balance", "/rates"} {
		resp, err := sessions.Client("ada").Get(api + path)
		if err != nil {
			log.Print(err)
			return
		}
		resp.Body.Close()
		fmt.Println(path, resp.StatusCode)
	}
	// Output:
	// /balance 503
	// /rates 200
}

// A logged is a RoundTripper that prints the requests that it carries.
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

// Other middleware goes outside of the Transport or inside. Outside it sees the
// program's calls. Inside it sees everything that is sent.
func ExampleSessions_Transport_middleware() {
	srv := fincodetest.NewServer(fincodetest.Config{})
	defer srv.Close()

	sessions, err := fincodeauth.New(fincodeauth.Config{
		BaseURL: srv.URL,
		Base:    logged{"inside", http.DefaultTransport},
	})
	if err != nil {
		log.Print(err)
		return
	}
	defer closeSessions(sessions)

	tok := tokenHalfAnHourOld(srv)
	if err := sessions.Adopt(context.Background(), "operations", tok); err != nil {
		log.Print(err)
		return
	}
	srv.RevokeAccessToken(tok.AccessToken) // so that the API answers 401

	client := &http.Client{Transport: logged{"outside", sessions.Transport("operations")}}
	resp, err := client.Get(srv.URL + "/balance")
	if err != nil {
		log.Print(err)
		return
	}
	resp.Body.Close()
	// Output:
	// inside GET balance 401
	// inside PUT refresh-token 200
	// inside GET balance 200
	// outside GET balance 200
}

// newProxy returns a proxy that forwards a browser's requests to FinCode. The
// middleware before it puts the user's key into the request's context, with
// WithSession.
func newProxy(sessions *fincodeauth.Sessions, baseURL *url.URL) *httputil.ReverseProxy {
	return &httputil.ReverseProxy{
		Rewrite: func(pr *httputil.ProxyRequest) {
			pr.SetURL(baseURL)
			pr.Out.Header.Del("Cookie") // it is for this server, not for FinCode
		},
		Transport: buffered{next: sessions.Transport(""), limit: 1 << 20},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			if errors.Is(err, fincodeauth.ErrLoginRequired) {
				http.Error(w, "log in", http.StatusUnauthorized)
				return
			}
			log.Print(err)
			http.Error(w, "try again later", http.StatusBadGateway)
		},
	}
}

// A buffered is a RoundTripper that gives a request GetBody, so that the
// Transport can send its body again. It keeps a body in memory while the request
// is sent. A body of more than limit bytes goes through in full, without GetBody.
type buffered struct {
	next  http.RoundTripper
	limit int64 // bytes of one body
}

func (b buffered) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Body == nil || req.Body == http.NoBody || req.GetBody != nil || req.ContentLength > b.limit {
		return b.next.RoundTrip(req)
	}
	start, err := io.ReadAll(io.LimitReader(req.Body, b.limit+1))
	if err != nil {
		req.Body.Close()
		return nil, err
	}
	out := req.WithContext(req.Context()) // a copy: a RoundTripper must not change its request
	if int64(len(start)) > b.limit {
		out.Body = struct {
			io.Reader
			io.Closer
		}{io.MultiReader(bytes.NewReader(start), req.Body), req.Body}
		return b.next.RoundTrip(out)
	}
	req.Body.Close()
	out.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(start)), nil }
	out.Body, _ = out.GetBody()
	return b.next.RoundTrip(out)
}

// A reverse proxy. Its bodies have no GetBody, so without buffered the browser
// would get the 401 of a token that FinCode has revoked.
func ExampleSessions_Transport_reverseProxy() {
	srv := fincodetest.NewServer(fincodetest.Config{})
	defer srv.Close()
	sessions, err := fincodeauth.New(fincodeauth.Config{BaseURL: srv.URL})
	if err != nil {
		log.Print(err)
		return
	}
	defer closeSessions(sessions)
	tok := tokenHalfAnHourOld(srv)
	if err := sessions.Adopt(context.Background(), "ada", tok); err != nil {
		log.Print(err)
		return
	}
	srv.RevokeAccessToken(tok.AccessToken) // so that the API answers 401

	baseURL, err := url.Parse(srv.URL)
	if err != nil {
		log.Print(err)
		return
	}
	proxy := newProxy(sessions, baseURL)
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := fincodeauth.WithSession(r.Context(), "ada") // a real server authenticates its user
		proxy.ServeHTTP(w, r.WithContext(ctx))
	}))
	defer front.Close()

	resp, err := http.Post(front.URL+"/transfers", "application/json", strings.NewReader(`{"amount": "12.50"}`))
	if err != nil {
		log.Print(err)
		return
	}
	resp.Body.Close()
	fmt.Println(resp.Status)
	// Output: 200 OK
}

func TestAReverseProxyReplaysABody(t *testing.T) {
	for name, body := range map[string]io.Reader{
		"of known length":   strings.NewReader("12.50"),
		"of unknown length": io.MultiReader(strings.NewReader("12.50")),
	} {
		t.Run(name, func(t *testing.T) {
			status, bodies := proxied(t, body)
			if want := []string{"12.50", "12.50"}; status != 200 || !slices.Equal(bodies, want) {
				t.Errorf("the browser got %d and the API got %q, want 200 and %q", status, bodies, want)
			}
		})
	}
}

func TestABodyBeyondTheLimitGoesThroughInFullAndIsNotReplayed(t *testing.T) {
	large := strings.Repeat("12.50 ", 1<<20)
	for name, body := range map[string]io.Reader{
		"of known length":   strings.NewReader(large),
		"of unknown length": io.MultiReader(strings.NewReader(large)),
	} {
		t.Run(name, func(t *testing.T) {
			status, bodies := proxied(t, body)
			if status != 401 || len(bodies) != 1 || bodies[0] != large {
				t.Errorf("the browser got %d after %d requests, want 401 after 1 that has all %d bytes", status, len(bodies), len(large))
			}
		})
	}
}

// proxied sends body through newProxy as a user whose access token FinCode has
// revoked. It returns the status that the browser gets, and what the API gets.
func proxied(t *testing.T, body io.Reader) (status int, bodies []string) {
	t.Helper()
	api := fincodeauth.Sandbox("test")
	mock := httpmock.NewMockTransport()
	mock.RegisterResponder("PUT", api+"/securitymanagement/refresh-token", httpmock.NewStringResponder(200,
		`{"access_token": "access-2", "refresh_token": "refresh-2", "expires_in": 3600}`))
	mock.RegisterResponder("POST", api+"/transfers", func(req *http.Request) (*http.Response, error) {
		data, err := io.ReadAll(req.Body)
		bodies = append(bodies, string(data))
		if req.Header.Get("Authorization") != "Bearer access-2" {
			return httpmock.NewStringResponse(401, ""), err
		}
		return httpmock.NewStringResponse(200, ""), err
	})
	sessions, err := fincodeauth.New(fincodeauth.Config{BaseURL: api, Base: mock})
	if err != nil {
		t.Fatal(err)
	}
	defer closeSessions(sessions)
	err = sessions.Adopt(t.Context(), "ada", &oauth2.Token{
		AccessToken: "access-1", RefreshToken: "refresh-1", ExpiresIn: 3600, Expiry: time.Now().Add(30 * time.Minute),
	})
	if err != nil {
		t.Fatal(err)
	}
	baseURL, err := url.Parse(api)
	if err != nil {
		t.Fatal(err)
	}
	req := httptest.NewRequest("POST", "/transfers", body)
	browser := httptest.NewRecorder()
	newProxy(sessions, baseURL).ServeHTTP(browser, req.WithContext(fincodeauth.WithSession(t.Context(), "ada")))
	return browser.Code, bodies
}

// whatToDo says what to do after an error of a request or of Login. ctx is the
// context of that call. The error context.DeadlineExceeded alone does not say
// that the caller's time is over: a slow store returns it too.
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
		return "give up: the caller does not wait any more"
	case endpoint != nil && endpoint.RetryAfter > 0:
		return "try again in " + endpoint.RetryAfter.String()
	default:
		return "try again later: the network, FinCode or the store is in trouble"
	}
}

// What to do after each kind of error. Errors that pass through an http.Client
// are wrapped in a *url.Error; errors.Is and errors.As find them there.
func ExampleSessionError() {
	srv := fincodetest.NewServer(fincodetest.Config{})
	defer srv.Close()
	sessions, err := fincodeauth.New(fincodeauth.Config{BaseURL: srv.URL})
	if err != nil {
		log.Print(err)
		return
	}
	defer closeSessions(sessions)
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
		log.Print(err)
		return
	}
	fmt.Println("4:", whatToDo(ctx, get("ada")))

	stolen := expiredToken(srv)
	thief, err := fincodeauth.New(fincodeauth.Config{BaseURL: srv.URL})
	if err != nil {
		log.Print(err)
		return
	}
	defer closeSessions(thief)
	for _, s := range []*fincodeauth.Sessions{thief, sessions} {
		if err := s.Adopt(ctx, "grace", stolen); err != nil {
			log.Print(err)
			return
		}
	}
	if _, err := thief.TokenSource("grace").Token(); err != nil {
		log.Print(err)
		return
	}
	fmt.Println("5:", whatToDo(ctx, get("grace")))

	interrupted := &fincodeauth.SessionError{Key: "grace", Reused: true, Interrupted: true, Err: errors.New("as after a crash")}
	fmt.Println("6:", whatToDo(ctx, interrupted))

	closeSessions(sessions)
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

// A kvStore is a Store of your own in 30 lines. It needs a place that replaces a
// value only if nobody else has changed that value. Here the place is a sync.Map
// from a session's key to a row. A real Store is durable and passes ctx on.
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
	data, err := json.Marshal(rec) // with the tokens, unless Encrypt is around this Store
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

// A Store of your own. Two processes share a session; two Sessions play them.
func ExampleStore() {
	srv := fincodetest.NewServer(fincodetest.Config{})
	defer srv.Close()
	cfg := fincodeauth.Config{BaseURL: srv.URL, Store: kvStore{new(sync.Map)}}

	var processes [2]*fincodeauth.Sessions
	for i := range processes {
		var err error
		if processes[i], err = fincodeauth.New(cfg); err != nil {
			log.Print(err)
			return
		}
		defer closeSessions(processes[i])
	}
	if err := processes[0].Adopt(context.Background(), "operations", expiredToken(srv)); err != nil {
		log.Print(err)
		return
	}
	for _, p := range processes {
		resp, err := p.Client("operations").Get(srv.URL + "/balance")
		if err != nil {
			log.Print(err)
			return
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

// openSessions returns sessions that are kept in the folder dir. Their tokens
// are encrypted with secret: 32 bytes from your vault.
func openSessions(baseURL, dir string, secret []byte) (*fincodeauth.Sessions, error) {
	files, err := filestore.New(dir)
	if err != nil {
		return nil, err
	}
	store, err := fincodeauth.Encrypt(files, secret)
	if err != nil {
		return nil, err
	}
	return fincodeauth.New(fincodeauth.Config{BaseURL: baseURL, Store: store})
}

// logInOnce logs in if there is no session, or if it has ended. After a breach it
// does not: a person must look first, and then call Login.
func logInOnce(ctx context.Context, sessions *fincodeauth.Sessions, key string, c fincodeauth.Credentials) error {
	_, err := sessions.TokenSource(key).TokenContext(ctx)
	session, ended := errors.AsType[*fincodeauth.SessionError](err)
	if ended && (!session.Reused || session.Interrupted) {
		return sessions.Login(ctx, key, c)
	}
	return err
}

func TestLogInOnceLogsInUnlessSomebodyElseUsedTheToken(t *testing.T) {
	for _, test := range []struct {
		name   string
		before func(*testing.T, *fincodetest.FinCode, *fincodeauth.Sessions)
		logins int
		want   error
	}{
		{"no session", func(*testing.T, *fincodetest.FinCode, *fincodeauth.Sessions) {}, 1, nil},
		{"a session", func(t *testing.T, _ *fincodetest.FinCode, s *fincodeauth.Sessions) { logIn(t, s, "a") }, 1, nil},
		{"the answer was lost", func(t *testing.T, fc *fincodetest.FinCode, s *fincodeauth.Sessions) {
			logIn(t, s, "a")
			time.Sleep(2 * time.Hour)
			fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{Kind: fincodetest.HangUp, TakesEffect: true})
			s.TokenSource("a").Token()
			time.Sleep(10 * time.Second)
		}, 2, nil},
		{"a thief", func(t *testing.T, fc *fincodetest.FinCode, s *fincodeauth.Sessions) {
			logIn(t, s, "a")
			present(t, fc, token(t, s.TokenSource("a")).RefreshToken)
			time.Sleep(2 * time.Hour)
		}, 1, fincodeauth.ErrTokenReused},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fc := fincodetest.New(fincodetest.Config{})
				sessions := newSessions(t, fc)
				test.before(t, fc, sessions)
				for range 2 {
					if err := logInOnce(t.Context(), sessions, "a", credentials); !errors.Is(err, test.want) {
						t.Errorf("logInOnce = %v, want %v", err, test.want)
					}
				}
				if n := fc.Counts().Logins; n != test.logins {
					t.Errorf("FinCode made %d logins, want %d", n, test.logins)
				}
			})
		})
	}
}

// Sessions in a folder, encrypted. They last longer than the process.
func ExampleEncrypt() {
	srv := fincodetest.NewServer(fincodetest.Config{})
	defer srv.Close()
	dir, err := os.MkdirTemp("", "sessions")
	if err != nil {
		log.Print(err)
		return
	}
	defer os.RemoveAll(dir)
	secret := make([]byte, 32)
	rand.Read(secret)

	for range 2 { // two runs of the program
		sessions, err := openSessions(srv.URL, dir, secret)
		if err != nil {
			log.Print(err)
			return
		}
		err = logInOnce(context.Background(), sessions, "operations", fincodeauth.Credentials{
			Email: fincodetest.Email, Password: fincodetest.Password,
		})
		closeSessions(sessions)
		fmt.Println(err, srv.Counts().Logins, "login")
	}
	// Output:
	// <nil> 1 login
	// <nil> 1 login
}

// saveAgain saves the session under key as it is, so that it is encrypted with the
// first key of store.
func saveAgain(ctx context.Context, store fincodeauth.Store, key string) error {
	rec, err := store.Load(ctx, key)
	if err != nil {
		return err
	}
	prev := rec.Version
	rec.Version += "." + rand.Text() // crypto/rand; what is before the first dot names the session and must stay
	return store.Save(ctx, key, rec, prev)
}

// withJournal returns a Store that keeps new tokens in the folder dir until database
// has them. What is in the folder is encrypted with secret, as in the database.
func withJournal(database fincodeauth.Store, dir string, secret []byte) (fincodeauth.Store, error) {
	store, err := fincodeauth.Journal(database, dir)
	if err != nil {
		return nil, err
	}
	return fincodeauth.Encrypt(store, secret)
}

// A databaseOfAnExample can be down.
type databaseOfAnExample struct {
	fincodeauth.Store
	down bool
}

func (d databaseOfAnExample) Save(ctx context.Context, key string, rec *fincodeauth.Record, prev string) error {
	if d.down {
		return errors.New("the database is down")
	}
	return d.Store.Save(ctx, key, rec, prev)
}

// The database is down when a user logs in, and the process ends. The next process with
// the same journal saves the session.
func ExampleJournal() {
	srv := fincodetest.NewServer(fincodetest.Config{})
	defer srv.Close()
	dir, err := os.MkdirTemp("", "journal")
	if err != nil {
		log.Print(err)
		return
	}
	defer os.RemoveAll(dir)
	secret := make([]byte, 32)
	rand.Read(secret)
	database := fincodeauth.NewMemoryStore() // or any other, except a LocalStore

	open := func(down bool) *fincodeauth.Sessions {
		store, err := withJournal(databaseOfAnExample{database, down}, dir, secret)
		if err != nil {
			log.Fatal(err)
		}
		sessions, err := fincodeauth.New(fincodeauth.Config{BaseURL: srv.URL, Store: store})
		if err != nil {
			log.Fatal(err)
		}
		return sessions
	}
	before := open(true)
	err = before.Login(context.Background(), "ada", fincodeauth.Credentials{Email: fincodetest.Email, Password: fincodetest.Password})
	fmt.Println("login:", err)
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	fmt.Println("saved:", before.Close(ctx) == nil)

	after := open(false)
	_, err = after.TokenSource("ada").Token()
	fmt.Println("token after a restart:", err)
	closeSessions(after)
	// Output:
	// login: <nil>
	// saved: false
	// token after a restart: <nil>
}

// A new key for a store. While the new key is rolled out, processes need both.
func ExampleEncrypt_newKey() {
	before, after := make([]byte, 32), make([]byte, 32)
	rand.Read(before)
	rand.Read(after)
	inner := fincodeauth.NewMemoryStore() // or any other
	ctx := context.Background()
	rec := &fincodeauth.Record{Version: rand.Text(), Token: &oauth2.Token{RefreshToken: "refresh-1"}}
	for _, step := range []struct {
		keys [][]byte
		do   func(fincodeauth.Store) error
	}{
		{[][]byte{before}, func(s fincodeauth.Store) error { return s.Save(ctx, "ada", rec, "") }},
		{[][]byte{after, before}, func(s fincodeauth.Store) error { return saveAgain(ctx, s, "ada") }},
		{[][]byte{after}, func(s fincodeauth.Store) error { _, err := s.Load(ctx, "ada"); return err }},
	} {
		store, err := fincodeauth.Encrypt(inner, step.keys...)
		if err != nil {
			log.Print(err)
			return
		}
		fmt.Println(step.do(store))
	}
	// Output:
	// <nil>
	// <nil>
	// <nil>
}

// An API token from FinCode's dashboard is fixed. It needs no session.
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
		log.Print(err)
		return
	}
	resp.Body.Close()
	fmt.Println(resp.Status)
	// Output: 200 OK
}

// A pair of tokens that comes from elsewhere, such as from a login in a browser.
func ExampleSessions_Adopt() {
	srv := fincodetest.NewServer(fincodetest.Config{})
	defer srv.Close()
	pair := expiredToken(srv)

	sessions, err := fincodeauth.New(fincodeauth.Config{BaseURL: srv.URL})
	if err != nil {
		log.Print(err)
		return
	}
	defer closeSessions(sessions)
	err = sessions.Adopt(context.Background(), "ada", &oauth2.Token{
		AccessToken:  pair.AccessToken,
		RefreshToken: pair.RefreshToken, // from now on nobody else may use it
		Expiry:       pair.Expiry,
	})
	if err != nil {
		log.Print(err)
		return
	}

	resp, err := sessions.Client("ada").Get(srv.URL + "/balance")
	if err != nil {
		log.Print(err)
		return
	}
	resp.Body.Close()
	fmt.Println(resp.Status, "after", srv.Counts().Refreshes, "refresh")
	// Output: 200 OK after 1 refresh
}

// A job that keeps sessions alive that nobody uses. Each replica runs it.
func ExampleSessions_KeepAlive() {
	srv := fincodetest.NewServer(fincodetest.Config{})
	defer srv.Close()
	sessions, err := fincodeauth.New(fincodeauth.Config{BaseURL: srv.URL})
	if err != nil {
		log.Print(err)
		return
	}
	defer closeSessions(sessions) // ends KeepAlive, too

	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- sessions.KeepAlive(ctx, 24*time.Hour, nil) }()

	stop() // when the program ends
	if err := <-ended; !errors.Is(err, context.Canceled) {
		log.Print(err) // such as a Store that does not list its keys
	}
	// Output:
}

// Which sessions are there, and how are they?
func ExampleSessions_Status() {
	srv := fincodetest.NewServer(fincodetest.Config{})
	defer srv.Close()
	sessions, err := fincodeauth.New(fincodeauth.Config{BaseURL: srv.URL})
	if err != nil {
		log.Print(err)
		return
	}
	defer closeSessions(sessions)
	credentials := fincodeauth.Credentials{Email: fincodetest.Email, Password: fincodetest.Password}
	if err := sessions.Login(context.Background(), "ada", credentials); err != nil {
		log.Print(err)
		return
	}
	if err := printSessions(context.Background(), sessions); err != nil {
		log.Print(err)
	}
	// Output: ada: user user-1, roles [CUSTOMER], the token is good for 1h0m0s
}

// printSessions prints all sessions of the store. Nothing of this calls FinCode.
func printSessions(ctx context.Context, sessions *fincodeauth.Sessions) error {
	for key, err := range sessions.Keys(ctx) {
		if err != nil {
			return err
		}
		status, err := sessions.Status(ctx, key)
		switch {
		case err != nil: // such as a damaged record
			fmt.Println(err)
		case status.Ended != "":
			fmt.Printf("%s: needs a login: %s\n", key, status.Ended)
		default:
			left := time.Until(status.Expiry).Round(time.Minute)
			fmt.Printf("%s: user %s, roles %v, the token is good for %v\n", key, status.Claims.UserID, status.Claims.Roles, left)
		}
	}
	return nil
}

// Events in the log.
func ExampleLogEvents() {
	srv := fincodetest.NewServer(fincodetest.Config{})
	defer srv.Close()
	logger := slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{
		Level: slog.LevelDebug,
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey || a.Key == "elapsed" {
				return slog.Attr{} // it differs from run to run
			}
			return a
		},
	}))

	sessions, err := fincodeauth.New(fincodeauth.Config{
		BaseURL: srv.URL,
		Observe: fincodeauth.LogEvents(logger),
	})
	if err != nil {
		log.Print(err)
		return
	}
	defer closeSessions(sessions)

	if err := sessions.Adopt(context.Background(), "ada", expiredToken(srv)); err != nil {
		log.Print(err)
		return
	}
	if _, err := sessions.TokenSource("ada").Token(); err != nil {
		log.Print(err)
		return
	}
	if err := sessions.Logout(context.Background(), "ada"); err != nil {
		log.Print(err)
		return
	}
	// Output:
	// level=DEBUG msg="fincodeauth: token adopted" type=Adopted key=ada
	// level=DEBUG msg="fincodeauth: token refreshed" type=Refreshed key=ada
	// level=INFO msg="fincodeauth: session logged out" type=LoggedOut key=ada
}

// A program that logs in again by itself after FinCode has ended a session.
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
		log.Print(err)
		return
	}
	defer closeSessions(sessions)
	if err := sessions.Adopt(context.Background(), "operations", expiredToken(srv)); err != nil {
		log.Print(err)
		return
	}
	srv.Inject(fincodetest.Refresh, 1, fincodetest.Fault{Kind: fincodetest.ErrorStatus, Status: 401})

	resp, err := sessions.Client("operations").Get(srv.URL + "/balance")
	if err != nil {
		log.Print(err)
		return
	}
	resp.Body.Close()
	fmt.Println(resp.Status)
	// Output:
	// logging in again: operations
	// 200 OK
}

// tokenHalfAnHourOld returns a pair that is half an hour old and has half an hour
// left. A token that old is refreshed after a 401.
func tokenHalfAnHourOld(srv *fincodetest.Server) *oauth2.Token {
	sessions, err := fincodeauth.New(fincodeauth.Config{BaseURL: srv.URL})
	if err != nil {
		panic(err)
	}
	defer closeSessions(sessions)
	err = sessions.Login(context.Background(), "any", fincodeauth.Credentials{
		Email: fincodetest.Email, Password: fincodetest.Password,
	})
	if err != nil {
		panic(err)
	}
	tok, err := sessions.TokenSource("any").Token()
	if err != nil {
		panic(err)
	}
	pair := *tok // Token's result is shared
	pair.Expiry = time.Now().Add(30 * time.Minute)
	return &pair
}

// expiredToken returns a pair whose access token has expired.
func expiredToken(srv *fincodetest.Server) *oauth2.Token {
	pair := tokenHalfAnHourOld(srv)
	pair.Expiry = time.Now().Add(-time.Minute)
	return pair
}
