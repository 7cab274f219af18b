package proxy_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fincodeauth/fincodeauth/cmd/fincode/internal/proxy"
	"github.com/fincodeauth/fincodeauth/fincodetest"
)

func TestHeaderThatIsTooLongIsRefused(t *testing.T) {
	s := newStage(t, fincodetest.Config{}, nil)
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	go fmt.Fprintf(conn, "GET /whoami HTTP/1.1\r\nHost: x\r\nX: %s\r\n\r\n", strings.Repeat("x", 200<<10))
	answer, _ := io.ReadAll(conn)
	if !strings.HasPrefix(string(answer), "HTTP/1.1 431") {
		t.Errorf("the answer is %.50q, want 431", answer)
	}
}

func TestBodyThatEndsEarlyIsTheClientsMistake(t *testing.T) {
	s := newStage(t, fincodetest.Config{}, nil)
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "POST /orders HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\nnonsense\r\n",
		strings.TrimPrefix(s.url, "http://"), s.key)
	answer, _ := io.ReadAll(conn)
	if !strings.HasPrefix(string(answer), fmt.Sprintf("HTTP/1.1 %d", http.StatusBadRequest)) || !strings.Contains(string(answer), "BAD_REQUEST") {
		t.Errorf("the answer is %q, want 400", answer)
	}
}

// TestNobodyWithoutTheKeyKeepsAConnectionBusy: a body may be a stream without an end, but
// only for those who have the key.
func TestNobodyWithoutTheKeyKeepsAConnectionBusy(t *testing.T) {
	for name, test := range map[string]struct {
		line, header string
		ends         bool
	}{
		"no key":             {"POST /orders", "Host: 127.0.0.1:8080\r\nContent-Length: 100", true},
		"no key, chunked":    {"POST /orders", "Host: 127.0.0.1:8080\r\nTransfer-Encoding: chunked", true},
		"login to the page":  {"POST /-/login", "Host: 127.0.0.1:8080\r\nContent-Length: 100", true},
		"probe":              {"GET /-/liveness", "Host: 127.0.0.1:8080\r\nContent-Length: 100", true},
		"foreign host":       {"POST /orders", "Host: evil.example\r\nContent-Length: 100", true},
		"stream and the key": {"POST /orders", "Host: 127.0.0.1:8080\r\nTransfer-Encoding: chunked\r\nAuthorization: Bearer KEY", false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGuarded(t, nil)
				ctx, stop := context.WithCancel(t.Context())
				inside, outside := net.Pipe()
				pipe := &onePipe{conns: make(chan net.Conn, 1)}
				pipe.conns <- fromLoopback{inside}
				served := make(chan error, 1)
				go func() { served <- proxy.ServeUntil(ctx, g.Proxy, []net.Listener{pipe}, nil) }()
				ended := make(chan struct{})
				go func() { io.Copy(io.Discard, outside); close(ended) }()
				fmt.Fprintf(outside, "%s HTTP/1.1\r\n%s\r\n\r\n", test.line, strings.ReplaceAll(test.header, "KEY", g.key))
				over := false
				select {
				case <-ended:
					over = true
				case <-time.After(time.Minute):
				}
				if over != test.ends {
					t.Errorf("the connection has ended within a minute: %v, want %v", over, test.ends)
				}
				stop()
				outside.Close()
				<-served
			})
		})
	}
}

// A onePipe is a listener for one connection.
type onePipe struct{ conns chan net.Conn }

func (p *onePipe) Accept() (net.Conn, error) {
	if conn, ok := <-p.conns; ok {
		return conn, nil
	}
	return nil, net.ErrClosed
}

func (p *onePipe) Close() error { close(p.conns); return nil }

func (p *onePipe) Addr() net.Addr { return loopback4 }

// A fromLoopback is a connection to 127.0.0.1:8080.
type fromLoopback struct{ net.Conn }

func (fromLoopback) LocalAddr() net.Addr { return loopback4 }
