package compose

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-retryablehttp"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/fincodetest"
)

// retriesOf returns a retrier around client: the right order.
func retriesOf(client *http.Client) *retryablehttp.Client {
	retrier := retryablehttp.NewClient()
	retrier.Logger = nil
	retrier.HTTPClient = client
	return retrier
}

const order = `{"amount":"12.50"}`

func TestRetryablehttpRequestsAreSentAgainWithTheirBodyAfterARevocation(t *testing.T) {
	for name, body := range map[string]any{
		"bytes":          []byte(order),
		"a buffer":       bytes.NewBufferString(order),
		"a bytes.Reader": bytes.NewReader([]byte(order)),
		"a ReadSeeker":   struct{ io.ReadSeeker }{strings.NewReader(order)},
		"any reader":     reader{strings.NewReader(order)},
		"a function":     func() (io.Reader, error) { return strings.NewReader(order), nil },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fc := newFinCode()
				sessions := newSessions(t, fincodeauth.Config{Base: fc})
				revoke(fc)
				req, err := retryablehttp.NewRequestWithContext(t.Context(), http.MethodPost, api+"/orders", body)
				if err != nil {
					t.Fatal(err)
				}
				resp, err := retriesOf(sessions.Client(ada)).Do(req)
				if err != nil {
					t.Fatal(err)
				}
				wantEcho(t, resp, order)
				if counts := fc.Counts(); counts.APICalls != 2 || counts.Refreshes != 1 {
					t.Errorf("%d calls and %d refreshes, want 2 and 1", counts.APICalls, counts.Refreshes)
				}
			})
		})
	}
}

// A StandardClient takes requests of net/http. It keeps a copy of the body for
// its own retries, and adds no GetBody.
func TestRetryablehttpStandardClientRequestsGetTheirUsersA401WithoutGetBody(t *testing.T) {
	getBody := func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(order)), nil }
	for _, test := range []struct {
		name    string
		body    io.Reader
		getBody func() (io.ReadCloser, error)
		want    int
	}{
		{"any reader", reader{strings.NewReader(order)}, nil, http.StatusUnauthorized},
		{"any reader, and GetBody set by hand", reader{strings.NewReader(order)}, getBody, http.StatusOK},
		{"a strings.Reader, for which net/http sets GetBody", strings.NewReader(order), nil, http.StatusOK},
		{"no body", nil, nil, http.StatusOK},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fc := newFinCode()
				sessions := newSessions(t, fincodeauth.Config{Base: fc})
				revoke(fc)
				req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, api+"/orders", test.body)
				if err != nil {
					t.Fatal(err)
				}
				if test.getBody != nil {
					req.GetBody = test.getBody
				}
				resp, err := retriesOf(sessions.Client(ada)).StandardClient().Do(req)
				if err != nil {
					t.Fatal(err)
				}
				resp.Body.Close()
				if resp.StatusCode != test.want {
					t.Errorf("the caller gets %s, want %d", resp.Status, test.want)
				}
			})
		})
	}
}

func TestRetryablehttpStandardClientSendsAnyBodyAgainAfterA503(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := newFinCode()
		sessions := newSessions(t, fincodeauth.Config{Base: fc})
		fc.Inject(fincodetest.API, 1, fincodetest.Fault{Kind: fincodetest.ErrorStatus, Status: http.StatusServiceUnavailable})
		resp, err := retriesOf(sessions.Client(ada)).StandardClient().Post(api+"/orders", "application/json", reader{strings.NewReader(order)})
		if err != nil {
			t.Fatal(err)
		}
		wantEcho(t, resp, order)
	})
}

func TestRetryablehttpRepeatsWhatOnlyALoginCanFixUnlessCheckRetryStopsIt(t *testing.T) {
	stop := func(ctx context.Context, resp *http.Response, err error) (bool, error) {
		if errors.Is(err, fincodeauth.ErrLoginRequired) {
			return false, err
		}
		return retryablehttp.DefaultRetryPolicy(ctx, resp, err)
	}
	for _, test := range []struct {
		name  string
		check retryablehttp.CheckRetry
		want  time.Duration
	}{
		{"its own policy", retryablehttp.DefaultRetryPolicy, 15 * time.Second}, // 1 + 2 + 4 + 8
		{"a CheckRetry that stops", stop, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fc := newFinCode()
				sessions := newSessions(t, fincodeauth.Config{Base: fc})
				if err := sessions.Logout(t.Context(), ada); err != nil {
					t.Fatal(err)
				}
				retrier := retriesOf(sessions.Client(ada))
				retrier.CheckRetry = test.check
				began := time.Now()
				resp, err := retrier.Get(api + "/whoami")
				if err == nil {
					resp.Body.Close()
				}
				if !errors.Is(err, fincodeauth.ErrLoginRequired) {
					t.Errorf("the caller gets %v, want ErrLoginRequired", err)
				}
				if took := time.Since(began); took != test.want {
					t.Errorf("that took %v, want %v", took, test.want)
				}
			})
		})
	}
}

func TestRetriesInsideOfTheTransportLookLikeAStolenToken(t *testing.T) {
	for _, test := range []struct {
		name   string
		inside bool
	}{{"outside", false}, {"inside", true}} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fc := newFinCode()
				var base http.RoundTripper = fc
				if test.inside {
					base = retriesOf(&http.Client{Transport: fc}).StandardClient().Transport
				}
				sessions := newSessions(t, fincodeauth.Config{Base: base})
				time.Sleep(lifetime)
				fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{Kind: fincodetest.HangUp, TakesEffect: true})
				_, err := retriesOf(sessions.Client(ada)).Get(api + "/whoami")
				wantAlarm(t, err, test.inside)
			})
		})
	}
}
