package compose

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/fincodeauth/fincodeauth"
)

// One call whose token was revoked. Each side sees something else, and neither
// does harm.
func TestOtelhttpInsideSeesEverythingThatIsSentAndOutsideOneSpanForEachCall(t *testing.T) {
	outer := "GET 200"
	inner := []string{"GET 401", "PUT 200", "GET 200"} // the PUT is the refresh
	for _, test := range []struct {
		name            string
		inside, outside bool
		want            []string
	}{
		{"outside", false, true, []string{outer}},
		{"inside", true, false, inner},
		{"both", true, true, append([]string{outer}, inner...)},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				recorder := new(tracetest.SpanRecorder)
				traced := func(next http.RoundTripper) http.RoundTripper {
					return otelhttp.NewTransport(next, otelhttp.WithTracerProvider(trace.NewTracerProvider(trace.WithSpanProcessor(recorder))))
				}
				fc := newFinCode()
				cfg := fincodeauth.Config{Base: fc}
				if test.inside {
					cfg.Base = traced(fc)
				}
				sessions := newSessions(t, cfg)
				var client http.RoundTripper = sessions.Transport(ada)
				if test.outside {
					client = traced(client)
				}
				revoke(fc)
				recorder.Reset() // without the logins
				resp, err := get(t, client, ada)
				if err != nil || resp.StatusCode != http.StatusOK {
					t.Fatalf("the caller gets %v, %v, want a 200", resp, err)
				}

				var got []string
				spans := recorder.Started() // in this order
				for _, span := range spans {
					got = append(got, summary(span))
				}
				if !slices.Equal(got, test.want) {
					t.Errorf("the spans are %q, want %q", got, test.want)
				}
				if test.inside && test.outside {
					call := spans[0].SpanContext().SpanID()
					for _, span := range spans[1:] {
						if span.Parent().SpanID() != call {
							t.Errorf("%s is not a child of the call's span", summary(span))
						}
					}
				}
			})
		})
	}
}

func TestOtelhttpSpansHaveNoToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		recorder := new(tracetest.SpanRecorder)
		fc := newFinCode()
		sessions := newSessions(t, fincodeauth.Config{
			Base: otelhttp.NewTransport(fc, otelhttp.WithTracerProvider(trace.NewTracerProvider(trace.WithSpanProcessor(recorder)))),
		})
		if _, err := get(t, sessions.Transport(ada), ada); err != nil {
			t.Fatal(err)
		}
		tok, err := sessions.TokenSource(ada).Token()
		if err != nil {
			t.Fatal(err)
		}
		if len(recorder.Ended()) == 0 {
			t.Error("there are no spans")
		}
		for _, span := range recorder.Ended() {
			text := fmt.Sprint(span.Name(), span.Attributes(), span.Events(), span.Status())
			if strings.Contains(text, tok.AccessToken) || strings.Contains(text, tok.RefreshToken) {
				t.Errorf("the span %s has a token", summary(span))
			}
		}
	})
}

// summary returns the method and the status of a span.
func summary(span trace.ReadOnlySpan) string {
	var method, status string
	for _, attribute := range span.Attributes() {
		switch attribute.Key {
		case "http.request.method":
			method = attribute.Value.AsString()
		case "http.response.status_code":
			status = attribute.Value.String()
		}
	}
	return method + " " + status
}
