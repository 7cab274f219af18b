package compose

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/fincodeauth/fincodeauth"
)

// keeping returns a RoundTripper that keeps each body in memory, so that whoever is
// inside of it can send the body again. buffered in ../../example_test.go has a
// limit, too.
func keeping(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(req *http.Request) (*http.Response, error) {
		if req.Body == nil || req.Body == http.NoBody {
			return next.RoundTrip(req)
		}
		defer req.Body.Close()
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return nil, err
		}
		out := req.WithContext(req.Context())
		out.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
		out.Body, _ = out.GetBody()
		return next.RoundTrip(out)
	})
}

func TestAReverseProxyNeedsItsBodiesKeptOutsideOfTheTransport(t *testing.T) {
	for _, test := range []struct {
		name            string
		outside, inside bool // where bodies are kept
		body            io.Reader
		want            int
	}{
		{"a body, kept outside", true, false, strings.NewReader(order), http.StatusOK},
		{"a body, kept inside", false, true, strings.NewReader(order), http.StatusUnauthorized},
		{"a body, not kept", false, false, strings.NewReader(order), http.StatusUnauthorized},
		{"no body", false, false, nil, http.StatusOK},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fc := newFinCode()
				cfg := fincodeauth.Config{Base: fc}
				if test.inside {
					cfg.Base = keeping(fc)
				}
				var transport http.RoundTripper = newSessions(t, cfg).Transport("")
				if test.outside {
					transport = keeping(transport)
				}
				revoke(fc)
				got := proxied(t, transport, test.body)
				if got.Code != test.want {
					t.Errorf("the browser gets %d %s, want %d", got.Code, got.Body, test.want)
				}
				if test.outside && !strings.Contains(got.Body.String(), `"body":"{\"amount\":\"12.50\"}"`) {
					t.Errorf("FinCode got %s, want %s", got.Body, order)
				}
			})
		})
	}
}

// proxied sends a request of Ada's browser through a reverse proxy.
func proxied(t *testing.T, transport http.RoundTripper, body io.Reader) *httptest.ResponseRecorder {
	t.Helper()
	baseURL, err := url.Parse(api)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{
		Rewrite:   func(pr *httputil.ProxyRequest) { pr.SetURL(baseURL) },
		Transport: transport,
	}
	req := httptest.NewRequestWithContext(fincodeauth.WithSession(t.Context(), ada), http.MethodPost, "/orders", body)
	browser := httptest.NewRecorder()
	proxy.ServeHTTP(browser, req)
	return browser
}
