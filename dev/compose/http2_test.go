package compose

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/fincodetest"
)

// A tlsServer is a server with TLS and HTTP/2 on a socket.
type tlsServer struct {
	*httptest.Server
	conns atomic.Int64 // accepted so far
}

func newTLSServer(t *testing.T, handler http.Handler) *tlsServer {
	t.Helper()
	s := &tlsServer{Server: httptest.NewUnstartedServer(handler)}
	s.EnableHTTP2 = true
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			s.conns.Add(1)
		}
	}
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

// transport returns a RoundTripper of its own that trusts the server.
func (s *tlsServer) transport(t *testing.T, attemptHTTP2 bool) *http.Transport {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: attemptHTTP2}
	t.Cleanup(transport.CloseIdleConnections)
	return transport
}

// streams is how many requests are open at once. The server allows 250.
const streams = 100

// Many requests are open on one connection when FinCode revokes the token. Many
// others find that out. One refresh is enough for all, and no request is lost.
func TestManyHTTP2StreamsOnOneConnectionShareARefresh(t *testing.T) {
	fc := newFinCode()
	var open sync.WaitGroup
	open.Add(streams)
	release := make(chan struct{})
	server := newTLSServer(t, guarded(fc, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/long") {
			open.Done()
			<-release
		}
		w.Header().Set("Protocol", r.Proto)
		io.Copy(w, r.Body)
	})))
	root := server.URL + fincodetest.Root
	sessions := newSessions(t, fincodeauth.Config{BaseURL: root, Base: server.transport(t, true)})
	client := sessions.Client(ada)
	send := func(path string) error {
		resp, err := client.Post(root+path, "application/json", strings.NewReader(order))
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err == nil && (resp.StatusCode != http.StatusOK || string(body) != order || resp.Header.Get("Protocol") != "HTTP/2.0") {
			err = errors.New(resp.Status + " over " + resp.Header.Get("Protocol"))
		}
		return err
	}
	all := func(path string) (wait func()) {
		var sent sync.WaitGroup
		for range streams {
			sent.Go(func() {
				if err := send(path); err != nil {
					t.Errorf("%s: %v, want the body back over HTTP/2.0", path, err)
				}
			})
		}
		return sent.Wait
	}

	age(t, sessions)
	waitForLong := all("/long")
	open.Wait()
	fc.RevokeAccessTokens()
	all("/short")()
	close(release)
	waitForLong()

	if counts := fc.Counts(); counts.Refreshes != 1 || counts.RefreshCalls != 1 {
		t.Errorf("%d refreshes in %d calls, want 1", counts.Refreshes, counts.RefreshCalls)
	}
	if n := server.conns.Load(); n != 1 {
		t.Errorf("there were %d connections, want 1", n)
	}
}

// net/http does not use HTTP/2 by itself if an http.Transport has a TLSClientConfig of its own.
func TestABaseWithATLSConfigNeedsForceAttemptHTTP2(t *testing.T) {
	for _, test := range []struct {
		name  string
		force bool
		one   bool // connection is enough
	}{{"ForceAttemptHTTP2", true, true}, {"net/http's own settings", false, false}} {
		t.Run(test.name, func(t *testing.T) {
			var open sync.WaitGroup
			open.Add(streams)
			server := newTLSServer(t, guarded(newFinCode(), http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
				open.Done()
				open.Wait() // all are open at once
			})))
			root := server.URL + fincodetest.Root
			client := newSessions(t, fincodeauth.Config{BaseURL: root, Base: server.transport(t, test.force)}).Client(ada)
			var sent sync.WaitGroup
			for range streams {
				sent.Go(func() {
					resp, err := client.Get(root + "/orders")
					if err != nil {
						t.Error(err)
						return
					}
					resp.Body.Close()
				})
			}
			sent.Wait()
			if n := server.conns.Load(); test.one && n != 1 || !test.one && n < streams {
				t.Errorf("%d requests at once take %d connections, want that one is enough: %t", streams, n, test.one)
			}
		})
	}
}
