package compose

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/oauth"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/fincodetest"
)

// perRPC is a credentials.PerRPCCredentials: it sends the token of a session
// with each call. If source is that of the key "", the call's context says whose
// token it is.
type perRPC struct{ source *fincodeauth.TokenSource }

// GetRequestMetadata gives up when the call does, because TokenContext does.
func (c perRPC) GetRequestMetadata(ctx context.Context, _ ...string) (map[string]string, error) {
	tok, err := c.source.TokenContext(ctx)
	switch {
	case err == nil:
		return map[string]string{"authorization": "Bearer " + tok.AccessToken}, nil
	case ctx.Err() != nil:
		return nil, status.FromContextError(ctx.Err()).Err()
	case errors.Is(err, fincodeauth.ErrLoginRequired):
		return nil, status.Error(codes.Unauthenticated, err.Error())
	}
	return nil, status.Error(codes.Unavailable, err.Error())
}

// RequireTransportSecurity has gRPC refuse a connection that is not encrypted.
func (c perRPC) RequireTransportSecurity() bool { return true }

// fromOAuth is what gRPC has for a TokenSource of x/oauth2.
func fromOAuth(source *fincodeauth.TokenSource) credentials.PerRPCCredentials {
	return oauth.TokenSource{TokenSource: source}
}

func withContext(source *fincodeauth.TokenSource) credentials.PerRPCCredentials {
	return perRPC{source}
}

func TestGRPCCallsWithOAuthCredentialsOutliveTheirDeadline(t *testing.T) {
	const timeout = time.Second // of a call, far below RefreshTimeout
	certificate := newCertificate(t)
	for _, test := range []struct {
		name        string
		credentials func(*fincodeauth.TokenSource) credentials.PerRPCCredentials
		want        time.Duration
		code        codes.Code
	}{
		{"oauth.TokenSource", fromOAuth, 15 * time.Second, codes.Unauthenticated}, // RefreshTimeout
		{"perRPC", withContext, timeout, codes.DeadlineExceeded},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fc := newFinCode()
				source := newSessions(t, fincodeauth.Config{Base: fc}).TokenSource(ada)
				service := newService(t, certificate, test.credentials(source))
				if err := service.call(t.Context()); err != nil {
					t.Fatal(err)
				}
				if service.authorization != tokenOf(t, source) {
					t.Errorf("the call arrived with Authorization %.10q…, want the token", service.authorization)
				}
				time.Sleep(lifetime)
				fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{Before: time.Hour}) // FinCode hangs
				ctx, cancel := context.WithTimeout(t.Context(), timeout)
				defer cancel()
				began := time.Now()
				err := service.call(ctx)
				if took := time.Since(began); took != test.want {
					t.Errorf("a call with a timeout of %v took %v, want %v", timeout, took, test.want)
				}
				if code := status.Code(err); code != test.code {
					t.Errorf("the call ends with %v, want %v: %v", code, test.code, err)
				}
			})
		})
	}
}

func TestGRPCCallsOfManyUsersNeedTheCallsContext(t *testing.T) {
	certificate := newCertificate(t)
	synctest.Test(t, func(t *testing.T) {
		sessions := newSessions(t, fincodeauth.Config{Base: newFinCode()})
		all := sessions.TokenSource("")
		service := newService(t, certificate, withContext(all))
		for _, key := range []string{ada, grace} {
			if err := service.call(fincodeauth.WithSession(t.Context(), key)); err != nil {
				t.Fatal(err)
			}
			if service.authorization != tokenOf(t, sessions.TokenSource(key)) {
				t.Errorf("%s sends the token of another", key)
			}
		}
		if err := newService(t, certificate, fromOAuth(all)).call(fincodeauth.WithSession(t.Context(), ada)); err == nil {
			t.Error("oauth.TokenSource finds the key, which is in a context that it does not pass on")
		}
	})
}

func TestGRPCCallsOfASessionThatEndedAreUnauthenticated(t *testing.T) {
	certificate := newCertificate(t)
	synctest.Test(t, func(t *testing.T) {
		sessions := newSessions(t, fincodeauth.Config{Base: newFinCode()})
		if err := sessions.Logout(t.Context(), ada); err != nil {
			t.Fatal(err)
		}
		err := newService(t, certificate, withContext(sessions.TokenSource(ada))).call(t.Context())
		if code := status.Code(err); code != codes.Unauthenticated {
			t.Errorf("the call ends with %v, want %v: %v", code, codes.Unauthenticated, err)
		}
	})
}

// tokenOf returns the value of an Authorization field.
func tokenOf(t *testing.T, source *fincodeauth.TokenSource) string {
	t.Helper()
	tok, err := source.Token()
	if err != nil {
		t.Fatal(err)
	}
	return "Bearer " + tok.AccessToken
}

// newCertificate returns one for example.com. It is made outside of a bubble,
// because it comes from a server on a socket.
func newCertificate(t *testing.T) tls.Certificate {
	t.Helper()
	server := httptest.NewTLSServer(nil)
	defer server.Close()
	return server.TLS.Certificates[0]
}

// A service is a gRPC service, with TLS and without a socket.
type service struct {
	client        grpc_health_v1.HealthClient
	authorization string // of the last call that arrived
}

func newService(t *testing.T, certificate tls.Certificate, perCall credentials.PerRPCCredentials) *service {
	t.Helper()
	s := new(service)
	listener := bufconn.Listen(1 << 16)
	server := grpc.NewServer(grpc.Creds(credentials.NewServerTLSFromCert(&certificate)), grpc.UnaryInterceptor(
		func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
			if values := metadata.ValueFromIncomingContext(ctx, "authorization"); len(values) > 0 {
				s.authorization = values[0]
			}
			return handler(ctx, req)
		}))
	grpc_health_v1.RegisterHealthServer(server, health.NewServer())
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})

	roots := x509.NewCertPool()
	leaf, err := x509.ParseCertificate(certificate.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	roots.AddCert(leaf)
	conn, err := grpc.NewClient("passthrough:///example.com",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }),
		grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: roots, ServerName: "example.com"})),
		grpc.WithPerRPCCredentials(perCall))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	s.client = grpc_health_v1.NewHealthClient(conn)
	return s
}

// call makes a call.
func (s *service) call(ctx context.Context) error {
	_, err := s.client.Check(ctx, &grpc_health_v1.HealthCheckRequest{})
	return err
}
