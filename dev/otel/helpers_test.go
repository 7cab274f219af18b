package otel

import (
	"context"
	"net/http"
	"testing"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/metric"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/fincodetest"
	"github.com/fincodeauth/fincodeauth/otelfincodeauth"
)

const (
	host = "test.fincode.software"
	key  = "key-of-ada"
)

var api = fincodeauth.Sandbox("test")

// live lets a session live for some hours, in a bubble of synctest, with these providers:
// a login, a refresh for a request with the context parent, a refresh that FinCode turns
// away, a breach, and the login of another. Both kinds of metrics go to meters, and both kinds of spans to tracers.
func live(t *testing.T, parent context.Context, meters metric.MeterProvider, tracers trace.TracerProvider) {
	t.Helper()
	fc := fincodetest.New(fincodetest.Config{})
	telemetry, err := otelfincodeauth.New(
		otelfincodeauth.WithMeterProvider(meters),
		otelfincodeauth.WithTracerProvider(tracers),
		otelfincodeauth.WithAttributes(semconv.ServerAddress(host)),
	)
	if err != nil {
		t.Fatal(err)
	}
	store := fincodeauth.NewMemoryStore()
	sessions, err := fincodeauth.New(fincodeauth.Config{
		BaseURL: api,
		Base:    otelhttp.NewTransport(fc, otelhttp.WithMeterProvider(meters), otelhttp.WithTracerProvider(tracers)),
		Store:   store,
		Observe: telemetry.Observe,
	})
	if err != nil {
		t.Fatal(err)
	}
	// It is watched until the process ends, so that the test can collect the gauges.
	if _, err := telemetry.Watch(sessions); err != nil {
		t.Fatal(err)
	}
	credentials := fincodeauth.Credentials{Email: fincodetest.Email, Password: fincodetest.Password}
	if err := sessions.Login(t.Context(), key, credentials); err != nil {
		t.Fatal(err)
	}

	time.Sleep(2 * time.Hour)
	fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{After: 200 * time.Millisecond})
	get(t, parent, sessions)

	time.Sleep(2 * time.Hour)
	fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{Kind: fincodetest.ErrorStatus, Status: 429, Before: time.Second})
	getInVain(t, sessions)

	time.Sleep(time.Minute)
	stolen, err := store.Load(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	other, err := fincodeauth.New(fincodeauth.Config{BaseURL: api, Base: fc})
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Adopt(t.Context(), key, stolen.Token); err != nil {
		t.Fatal(err)
	}
	get(t, t.Context(), other)
	getInVain(t, sessions)

	if err := sessions.Login(t.Context(), "key-of-grace", credentials); err != nil {
		t.Fatal(err)
	}
}

func get(t *testing.T, ctx context.Context, sessions *fincodeauth.Sessions) {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, api+"/balance", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := sessions.Client(key).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
}

func getInVain(t *testing.T, sessions *fincodeauth.Sessions) {
	t.Helper()
	if resp, err := sessions.Client(key).Get(api + "/balance"); err == nil {
		resp.Body.Close()
		t.Fatalf("got %s, want an error", resp.Status)
	}
}
