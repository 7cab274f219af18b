package fincodetest

// Rules for concurrency. start makes one goroutine, which accepts connections
// until Close. net/http has a goroutine for each connection. conns counts the
// connections, so that Close can wait for these goroutines. The fields of a Server
// do not change after start. Any goroutine may call Client and Close.

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"net/http"
	"sync"
	"time"
)

// Server is a [FinCode] on a socket of the loopback interface. It speaks HTTP/1.1.
// Make one with [NewServer] or [NewTLSServer].
type Server struct {
	*FinCode
	URL string // the base URL of the API: http://127.0.0.1:PORT/api/v6/services

	listener net.Listener
	http     *http.Server
	client   *http.Client
	cancel   context.CancelFunc // ends the context of every call
	served   chan struct{}      // closed when the server accepts no more connections
	conns    sync.WaitGroup     // open connections
}

// NewServer starts a server with plain HTTP. Like [net/http/httptest.NewServer], it
// panics if it cannot listen. Call Close when done.
func NewServer(cfg Config) *Server { return start(cfg, nil) }

// NewTLSServer is [NewServer] with TLS. Only [Server.Client] trusts its certificate.
func NewTLSServer(cfg Config) *Server {
	certificate := selfSigned()
	return start(cfg, &certificate)
}

// Client returns a client that trusts the server's certificate. It always returns
// the same client. Close closes the client's idle connections.
func (s *Server) Client() *http.Client { return s.client }

// Close closes all connections, also those with a call in progress. It returns when
// the server's goroutines have ended. It may be called more than once.
func (s *Server) Close() {
	s.listener.Close()
	<-s.served
	s.cancel()
	s.http.Close()
	s.conns.Wait()
	s.client.CloseIdleConnections()
}

// start starts a server. If certificate is nil, the server speaks plain HTTP.
func start(cfg Config, certificate *tls.Certificate) *Server {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic("fincodetest: cannot listen: " + err.Error())
	}
	ctx, cancel := context.WithCancel(context.Background())
	transport := &http.Transport{} // not a clone of http.DefaultTransport, which a test may have replaced
	s := &Server{
		FinCode:  New(cfg),
		URL:      "http://" + listener.Addr().String() + Root,
		listener: listener,
		client:   &http.Client{Transport: transport},
		cancel:   cancel,
		served:   make(chan struct{}),
	}
	if certificate != nil {
		s.URL = "https://" + listener.Addr().String() + Root
		s.listener = tls.NewListener(listener, &tls.Config{Certificates: []tls.Certificate{*certificate}})
		roots := x509.NewCertPool()
		roots.AddCert(certificate.Leaf)
		transport.TLSClientConfig = &tls.Config{RootCAs: roots}
	}
	s.http = &http.Server{
		Handler:     s.FinCode,
		BaseContext: func(net.Listener) context.Context { return ctx },
		ConnState:   s.track,
	}
	go func() {
		defer close(s.served)
		s.http.Serve(s.listener) // returns when Close closes the listener
	}()
	return s
}

// track counts the open connections. net/http calls it when a connection changes
// its state.
func (s *Server) track(_ net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		s.conns.Add(1)
	case http.StateClosed, http.StateHijacked:
		s.conns.Done()
	}
}

// selfSigned makes a certificate for 127.0.0.1.
func selfSigned() tls.Certificate {
	key := signingKey()
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(365 * 24 * time.Hour),
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		panic("fincodetest: cannot make a certificate: " + err.Error())
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		panic("fincodetest: " + err.Error())
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}
