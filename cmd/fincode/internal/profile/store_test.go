package profile

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/cmd/fincode/internal/failure"
	"github.com/fincodeauth/fincodeauth/filestore"
	"github.com/fincodeauth/fincodeauth/fincodetest"
	"github.com/fincodeauth/fincodeauth/redisstore"
	"github.com/fincodeauth/fincodeauth/sqlstore"
)

const (
	postgres = "postgres://postgres@127.0.0.1:5432/test"
	redisURL = "redis://127.0.0.1:6379/9" // a database of its own
)

// A shared is a store elsewhere: its address for the command, and the store of a service
// that uses it, too.
type shared struct {
	address string
	open    func(t *testing.T) fincodeauth.Store
}

// sharedStores returns the stores of which this machine has the servers.
func sharedStores(t *testing.T) map[string]shared {
	t.Helper()
	dir := t.TempDir()
	stores := map[string]shared{"dir": {"dir:" + dir, func(t *testing.T) fincodeauth.Store {
		return must(filestore.New(dir))(t)
	}}}
	if answers(t, "127.0.0.1:5432") {
		address := postgres + "?search_path=" + newSchema(t)
		stores["PostgreSQL"] = shared{address, func(t *testing.T) fincodeauth.Store {
			db := must(sql.Open("pgx", address))(t)
			t.Cleanup(func() { db.Close() })
			return must(sqlstore.New(db, sqlstore.PostgreSQL))(t)
		}}
	}
	if answers(t, "127.0.0.1:6379") {
		client := redis.NewClient(must(redis.ParseURL(redisURL))(t))
		t.Cleanup(func() { client.Close() })
		client.FlushDB(t.Context()) // what an earlier test left
		stores["Redis"] = shared{redisURL, func(t *testing.T) fincodeauth.Store {
			return must(redisstore.New(client))(t)
		}}
	}
	return stores
}

// must returns v, or ends the test if err is set.
func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// answers reports whether there is a server. If FINCODEAUTH_REQUIRE_SERVICES is 1, there must
// be one.
func answers(t *testing.T, address string) bool {
	t.Helper()
	conn, err := net.DialTimeout("tcp", address, time.Second)
	if err == nil {
		conn.Close()
	} else if os.Getenv("FINCODEAUTH_REQUIRE_SERVICES") == "1" {
		t.Fatal(err)
	}
	return err == nil
}

// newSchema makes a schema for the test.
func newSchema(t *testing.T) string {
	t.Helper()
	db := must(sql.Open("pgx", postgres))(t)
	name := "fincode_" + strings.ToLower(rand.Text())
	if _, err := db.Exec("CREATE SCHEMA " + name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		db.Exec("DROP SCHEMA " + name + " CASCADE")
		db.Close()
	})
	return name
}

// newSessions returns the Sessions of one process.
func newSessions(t *testing.T, srv *fincodetest.Server, store fincodeauth.Store) *fincodeauth.Sessions {
	t.Helper()
	s := must(fincodeauth.New(fincodeauth.Config{BaseURL: srv.URL, Store: store}))(t)
	t.Cleanup(func() { s.Close(context.Background()) })
	return s
}

func whoami(t *testing.T, s *fincodeauth.Sessions, url string) {
	t.Helper()
	resp, err := s.Client("operations").Get(url + "/whoami")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("status %d, want 200", resp.StatusCode)
	}
}

// TestSessionIsSharedWithAService: each token is refreshed once, although both use it until
// it expires.
func TestSessionIsSharedWithAService(t *testing.T) {
	key := []byte(strings.Repeat("k", 32))
	for mode, plain := range map[string]bool{"encrypted": false, "plain": true} {
		t.Run(mode, func(t *testing.T) {
			for name, st := range sharedStores(t) {
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					srv := fincodetest.NewServer(fincodetest.Config{AccessLifetime: time.Second})
					defer srv.Close()
					state := At(t.TempDir())
					p := Profile{Name: "p", URL: srv.URL, Session: "operations", Store: st.address, Plain: plain}
					opened := must(state.OpenStore(t.Context(), p, [][]byte{key}, true))(t)
					t.Cleanup(func() { opened.Close() })
					command := newSessions(t, srv, opened.Store)
					if err := command.Login(t.Context(), "operations", fincodeauth.Credentials{Email: fincodetest.Email, Password: fincodetest.Password}); err != nil {
						t.Fatal(err)
					}

					store := st.open(t)
					for key, err := range store.(fincodeauth.KeyLister).Keys(t.Context()) {
						if key != "operations" || err != nil {
							t.Errorf("the store has %q, %v; want the session alone", key, err)
						}
					}
					rec := must(store.Load(t.Context(), "operations"))(t)
					if strings.HasPrefix(rec.Token.AccessToken, "eyJ") != plain {
						t.Errorf("the token is encrypted: %v, want %v", !plain, plain)
					}
					if !plain {
						store = must(fincodeauth.Encrypt(store, key))(t)
					}
					service := newSessions(t, srv, store)
					for deadline := time.Now().Add(20 * time.Second); srv.Counts().Refreshes < 2 && time.Now().Before(deadline); {
						done := make(chan struct{})
						go func() { defer close(done); whoami(t, service, srv.URL) }()
						whoami(t, command, srv.URL)
						<-done
					}
					if c := srv.Counts(); c.Refreshes < 2 || c.MaxParallelRefreshes > 1 || c.Logins != 1 || len(srv.PresentedMoreThanOnce()) > 0 {
						t.Errorf("FinCode saw %+v, want one login, and each token presented once", c)
					}
				})
			}
		})
	}
}

func TestPlainSessionIsNotOpenedWithAKey(t *testing.T) {
	srv := fincodetest.NewServer(fincodetest.Config{})
	defer srv.Close()
	p := Profile{Name: "p", URL: srv.URL, Store: "dir:" + t.TempDir()}
	state := At(t.TempDir())
	plain := p
	plain.Plain = true
	opened := must(state.OpenStore(t.Context(), plain, nil, true))(t)
	if err := newSessions(t, srv, opened.Store).Login(t.Context(), "p", fincodeauth.Credentials{Email: fincodetest.Email, Password: fincodetest.Password}); err != nil {
		t.Fatal(err)
	}
	opened = must(state.OpenStore(t.Context(), p, [][]byte{make([]byte, 32)}, false))(t)
	_, err := newSessions(t, srv, opened.Store).TokenSource("p").Token()
	line := failure.Of(err, "p").Line()
	if !strings.Contains(line, "was saved without Encrypt") || !strings.Contains(line, "fincode forget --profile p") {
		t.Errorf("the error is %q", line)
	}
}

// TestPasswordOfTheStoreIsInNoError, whatever fails.
func TestPasswordOfTheStoreIsInNoError(t *testing.T) {
	logging.Disable() // as in main
	addresses := []string{
		"postgres://postgres:s3cret@127.0.0.1:1/test",
		"postgres://postgres@127.0.0.1:1/test?password=s3cret",
		"postgres://postgres:s3cret@127.0.0.1:1/test?sslmode=s3cret",
		"postgres://postgres:s3cret@127.0.0.1:1/test?sslrootcert=/nowhere",
		"postgres://postgres:s3cret%21%40%2F@127.0.0.1:1/test",
		"postgres://postgres:s3cret@nowhere.invalid/test",
		"redis://:s3cret@127.0.0.1:1/9",
		"redis://app:s3cret%21@127.0.0.1:1/9",
		"redis://:s3cret@127.0.0.1:1/nine",
		"redis://:s3cret@127.0.0.1:1/9?unknown=s3cret",
		"redis://:s3cret@nowhere.invalid/9",
		"etcd://app:s3cret@127.0.0.1:1",
		"etcds://app:s3cret@127.0.0.1:1/p?cacert=/nowhere",
		"etcds://app:s3cret@127.0.0.1:1/p?cert=/nowhere&key=/s3cret",
		"kubernetes://fincode?proxy=127.0.0.1:1",
		"kubernetes://fincode", // this is not a pod
		"mysql://app:s3cret@h/d",
		"postgres://postgres:s3cret%zz@127.0.0.1/test",
	}
	if answers(t, "127.0.0.1:5432") {
		addresses = append(addresses, "postgres://nobody:s3cret@127.0.0.1:5432/test", "postgres://postgres:s3cret@127.0.0.1:5432/no_such_database",
			postgres+"?search_path=no_such_schema")
	}
	if answers(t, "127.0.0.1:6379") {
		addresses = append(addresses, "redis://nobody:s3cret@127.0.0.1:6379/9")
	}
	for _, address := range addresses {
		t.Run(Redacted(address), func(t *testing.T) {
			t.Parallel()
			for _, forLogin := range []bool{true, false} {
				opened, err := At(t.TempDir()).OpenStore(t.Context(), Profile{Name: "p", Store: address}, [][]byte{make([]byte, 32)}, forLogin)
				if err == nil {
					_, err = opened.Store.Load(t.Context(), "p")
					opened.Close()
					if forLogin || errors.Is(err, fincodeauth.ErrNotFound) {
						t.Errorf("%s was opened", address)
					}
					continue
				}
				line := failure.Of(err, "p").Line()
				if f := failure.Of(err, "p"); f.Status != failure.Local && f.Status != failure.Usage {
					t.Errorf("%s: status %d, %s", address, f.Status, line)
				}
				if strings.Contains(line, "s3cret") || strings.Contains(err.Error(), "s3cret") {
					t.Errorf("%s: the password is in %s", address, line)
				}
			}
		})
	}
}

func TestStoreThatHangsIsNotWaitedForForever(t *testing.T) {
	listener := must(net.Listen("tcp", "127.0.0.1:0"))(t) // accepts connections, and never answers
	defer listener.Close()
	for _, scheme := range []string{"postgres", "redis", "etcd"} {
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		began := time.Now()
		_, err := At(t.TempDir()).OpenStore(ctx, Profile{Name: "p", Store: scheme + "://u@" + listener.Addr().String() + "/1"}, [][]byte{make([]byte, 32)}, true)
		cancel()
		if err == nil || time.Since(began) > 5*time.Second {
			t.Errorf("%s: %v after %v", scheme, err, time.Since(began))
		}
	}
}

// The client of etcd only says that there was no answer in time.
func TestLoginSaysWhyEtcdCannotBeReached(t *testing.T) {
	srv := httptest.NewUnstartedServer(nil)
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.EnableHTTP2 = true // gRPC needs it
	srv.StartTLS()
	t.Cleanup(srv.Close)
	member := srv.Listener.Addr().String()
	closed := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	closed.Close()
	for address, want := range map[string]string{
		"etcds://" + member:                "x509: certificate signed by unknown authority",
		"etcds://u:s3cret@" + member:       "x509: certificate signed by unknown authority",
		"etcd://" + member:                 "error reading server preface",
		"etcd://" + closed.Addr().String(): "connection refused",
	} {
		t.Run(address, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			defer cancel()
			_, err := At(t.TempDir()).OpenStore(ctx, Profile{Name: "p", Store: address}, [][]byte{make([]byte, 32)}, true)
			if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "s3cret") {
				t.Errorf("OpenStore = %v, want %q in it", err, want)
			}
		})
	}
}
