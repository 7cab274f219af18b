package compose

import (
	"cmp"
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
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/credentials/oauth"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/fincodetest"
)

// A TokenSource is gRPC's PerRPCCredentials.
var _ credentials.PerRPCCredentials = (*fincodeauth.TokenSource)(nil)

// A statusSource is a TokenSource whose errors are statuses of gRPC. With it, only
// a call that needs a login is Unauthenticated.
type statusSource struct{ *fincodeauth.TokenSource }

func (s statusSource) GetRequestMetadata(ctx context.Context, uri ...string) (map[string]string, error) {
	md, err := s.TokenSource.GetRequestMetadata(ctx, uri...)
	switch {
	case err == nil:
		return md, nil
	case ctx.Err() != nil:
		return nil, status.FromContextError(ctx.Err()).Err()
	case errors.Is(err, fincodeauth.ErrLoginRequired):
		return nil, status.Error(codes.Unauthenticated, err.Error())
	}
	return nil, status.Error(codes.Unavailable, err.Error())
}

// refreshing makes a call again, once and with a new token, if the service rejects
// the token. If there is no token, it returns the error of the package.
func refreshing(source *fincodeauth.TokenSource) grpc.UnaryClientInterceptor {
	return func(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
		tok, err := source.TokenContext(ctx)
		if err != nil {
			return err
		}
		answer := invoke(ctx, method, req, reply, conn, options...)
		if status.Code(answer) != codes.Unauthenticated {
			return answer
		}
		next, err := source.Refresh(ctx, tok)
		if err != nil || next.AccessToken == tok.AccessToken {
			return cmp.Or(err, answer)
		}
		return invoke(ctx, method, req, reply, conn, options...)
	}
}

// fromOAuth is what gRPC has for a TokenSource of x/oauth2.
func fromOAuth(source *fincodeauth.TokenSource) credentials.PerRPCCredentials {
	return oauth.TokenSource{TokenSource: source}
}

func itself(source *fincodeauth.TokenSource) credentials.PerRPCCredentials { return source }

func withStatus(source *fincodeauth.TokenSource) credentials.PerRPCCredentials {
	return statusSource{source}
}

func TestGRPCCallsWithOAuthCredentialsOutliveTheirDeadline(t *testing.T) {
	const timeout = time.Second // of a call, far below RefreshTimeout
	certificate := newCertificate(t)
	for _, test := range []struct {
		name        string
		credentials func(*fincodeauth.TokenSource) credentials.PerRPCCredentials
		want        time.Duration
	}{
		{"oauth.TokenSource", fromOAuth, 15 * time.Second}, // RefreshTimeout
		{"the TokenSource itself", itself, timeout},
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
				if took := time.Since(began); took != test.want || err == nil {
					t.Errorf("a call with a timeout of %v took %v, want %v: %v", timeout, took, test.want, err)
				}
			})
		})
	}
}

// gRPC makes codes of the errors of its credentials, and drops the errors.
func TestGRPCCallsWithoutATokenAreUnauthenticatedWhateverTheReasonUnlessTheErrorIsAStatus(t *testing.T) {
	certificate := newCertificate(t)
	for _, test := range []struct {
		name    string
		fault   fincodetest.Fault // of the refresh
		logout  bool
		itself  codes.Code // with grpc.WithPerRPCCredentials
		perCall codes.Code // with grpc.PerRPCCredentials
		status  codes.Code // with a statusSource
	}{
		{"logged out", fincodetest.Fault{}, true, codes.Unauthenticated, codes.Internal, codes.Unauthenticated},
		{"refused", fincodetest.Fault{Kind: fincodetest.ErrorStatus, Status: 401}, false, codes.Unauthenticated, codes.Internal, codes.Unauthenticated},
		{"FinCode fails", fincodetest.Fault{Kind: fincodetest.ErrorStatus, Status: 503}, false, codes.Unauthenticated, codes.Internal, codes.Unavailable},
		{"FinCode hangs", fincodetest.Fault{Before: time.Hour}, false, codes.Unauthenticated, codes.Internal, codes.DeadlineExceeded},
	} {
		for _, way := range []struct {
			name        string
			credentials func(*fincodeauth.TokenSource) credentials.PerRPCCredentials
			perCall     bool
			want        codes.Code
		}{
			{"with each call of the connection", itself, false, test.itself},
			{"with one call", itself, true, test.perCall},
			{"a statusSource", withStatus, false, test.status},
			{"a statusSource with one call", withStatus, true, test.status},
		} {
			t.Run(test.name+"/"+way.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					fc := newFinCode()
					sessions := newSessions(t, fincodeauth.Config{Base: fc})
					source := sessions.TokenSource(ada)
					time.Sleep(lifetime)
					if test.logout {
						if err := sessions.Logout(t.Context(), ada); err != nil {
							t.Fatal(err)
						}
					}
					fc.Inject(fincodetest.Refresh, -1, test.fault)
					ctx, cancel := context.WithTimeout(t.Context(), time.Second)
					defer cancel()
					var err error
					if way.perCall {
						err = newService(t, certificate, nil).call(ctx, grpc.PerRPCCredentials(way.credentials(source)))
					} else {
						err = newService(t, certificate, way.credentials(source)).call(ctx)
					}
					if code := status.Code(err); code != way.want {
						t.Errorf("the call ends with %v, want %v: %v", code, way.want, err)
					}
					if errors.Is(err, fincodeauth.ErrLoginRequired) {
						t.Error("gRPC passes errors on by now: say so in docs/compose.md")
					}
				})
			})
		}
	}
}

func TestGRPCCallsOfManyUsersNeedTheCallsContext(t *testing.T) {
	certificate := newCertificate(t)
	synctest.Test(t, func(t *testing.T) {
		sessions := newSessions(t, fincodeauth.Config{Base: newFinCode()})
		all := sessions.TokenSource("")
		service := newService(t, certificate, all)
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

// gRPC does not send a call again by itself when the service rejects its token.
func TestGRPCCallsAreMadeAgainAfterARevocationOnlyByAnInterceptor(t *testing.T) {
	certificate := newCertificate(t)
	for _, test := range []struct {
		name      string
		refreshes bool
		want      codes.Code
	}{{"with the interceptor", true, codes.OK}, {"without", false, codes.Unauthenticated}} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fc := newFinCode()
				source := newSessions(t, fincodeauth.Config{Base: fc}).TokenSource(ada)
				var options []grpc.DialOption
				if test.refreshes {
					options = append(options, grpc.WithUnaryInterceptor(refreshing(source)))
				}
				service := newService(t, certificate, source, options...)
				revoke(fc)
				service.revoked = tokenOf(t, source)
				if code := status.Code(service.call(t.Context())); code != test.want {
					t.Errorf("the call ends with %v, want %v", code, test.want)
				}
			})
		})
	}
}

func TestGRPCInterceptorReturnsErrLoginRequiredForCallersToFind(t *testing.T) {
	certificate := newCertificate(t)
	synctest.Test(t, func(t *testing.T) {
		sessions := newSessions(t, fincodeauth.Config{Base: newFinCode()})
		if err := sessions.Logout(t.Context(), ada); err != nil {
			t.Fatal(err)
		}
		source := sessions.TokenSource(ada)
		service := newService(t, certificate, source, grpc.WithUnaryInterceptor(refreshing(source)))
		if err := service.call(t.Context()); !errors.Is(err, fincodeauth.ErrLoginRequired) {
			t.Errorf("the caller gets %v, want ErrLoginRequired", err)
		}
	})
}

func TestGRPCRefusesToSendTheTokenUnencrypted(t *testing.T) {
	source := newSessions(t, fincodeauth.Config{Base: newFinCode()}).TokenSource(ada)
	conn, err := grpc.NewClient("passthrough:///example.com",
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithPerRPCCredentials(source))
	if err == nil {
		conn.Close()
		t.Error("gRPC accepts the source for a connection without TLS")
	}
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
	revoked       string // the authorization that the service rejects; "": none
}

// newService starts a service. Each call sends the credentials; nil: none.
func newService(t *testing.T, certificate tls.Certificate, perCall credentials.PerRPCCredentials, options ...grpc.DialOption) *service {
	t.Helper()
	s := new(service)
	listener := bufconn.Listen(1 << 16)
	server := grpc.NewServer(grpc.Creds(credentials.NewServerTLSFromCert(&certificate)), grpc.UnaryInterceptor(
		func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
			if values := metadata.ValueFromIncomingContext(ctx, "authorization"); len(values) > 0 {
				s.authorization = values[0]
			}
			if s.revoked != "" && s.authorization == s.revoked {
				return nil, status.Error(codes.Unauthenticated, "revoked")
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
	options = append(options,
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }),
		grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: roots, ServerName: "example.com"})))
	if perCall != nil {
		options = append(options, grpc.WithPerRPCCredentials(perCall))
	}
	conn, err := grpc.NewClient("passthrough:///example.com", options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	s.client = grpc_health_v1.NewHealthClient(conn)
	return s
}

// call makes a call.
func (s *service) call(ctx context.Context, options ...grpc.CallOption) error {
	_, err := s.client.Check(ctx, &grpc_health_v1.HealthCheckRequest{}, options...)
	return err
}
