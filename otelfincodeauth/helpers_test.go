package otelfincodeauth_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/fincodetest"
	"github.com/fincodeauth/fincodeauth/otelfincodeauth"
)

// Helpers that several test files use: a world of one FinCode, one store and one Sessions
// whose metrics and spans are read in memory.

var api = fincodeauth.Sandbox("test")

var credentials = fincodeauth.Credentials{Email: fincodetest.Email, Password: fincodetest.Password}

var errStoreDown = errors.New("store is down")

// A world is a FinCode, a store that fails on command, and what is seen of a process.
type world struct {
	fc       *fincodetest.FinCode
	store    *store
	sessions *fincodeauth.Sessions
	seen     *seen
}

// newWorld returns a world in which nobody is logged in. Each edit may change the Config.
func newWorld(t *testing.T, edits ...func(*fincodeauth.Config)) *world {
	t.Helper()
	return newWorldOf(t, fincodetest.New(fincodetest.Config{}), edits...)
}

func newWorldOf(t *testing.T, fc *fincodetest.FinCode, edits ...func(*fincodeauth.Config)) *world {
	t.Helper()
	w := &world{fc: fc, store: &store{MemoryStore: fincodeauth.NewMemoryStore()}, seen: newSeen(t)}
	cfg := fincodeauth.Config{BaseURL: api, Base: w.fc, Store: w.store, Observe: w.seen.telemetry.Observe}
	for _, edit := range edits {
		edit(&cfg)
	}
	var err error
	if w.sessions, err = fincodeauth.New(cfg); err != nil {
		t.Fatal(err)
	}
	watch(t, w.seen.telemetry, w.sessions)
	return w
}

func watch(t *testing.T, telemetry *otelfincodeauth.Telemetry, sessions *fincodeauth.Sessions) {
	t.Helper()
	stop, err := telemetry.Watch(sessions)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
}

func (w *world) logIn(t *testing.T, key string) {
	t.Helper()
	if err := w.sessions.Login(t.Context(), key, credentials); err != nil {
		t.Fatal(err)
	}
}

// token returns the session's access token; "": an error, which is returned, too.
func (w *world) token(key string) (string, error) {
	tok, err := w.sessions.TokenSource(key).Token()
	if err != nil {
		return "", err
	}
	return tok.AccessToken, nil
}

// use waits until the session has a good token.
func (w *world) use(t *testing.T, key string) {
	t.Helper()
	if _, err := w.token(key); err != nil {
		t.Fatal(err)
	}
}

// useInVain expects that there is no token.
func (w *world) useInVain(t *testing.T, key string) {
	t.Helper()
	if _, err := w.token(key); err == nil {
		t.Fatal("there is a token, want an error")
	}
}

// record returns what the store has under the key.
func (w *world) record(t *testing.T, key string) *fincodeauth.Record {
	t.Helper()
	rec, err := w.store.Load(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	return rec
}

// steal presents the session's refresh token, as somebody would who has stolen it.
func (w *world) steal(t *testing.T, key string) {
	t.Helper()
	body, err := json.Marshal(map[string]string{"refresh_token": w.record(t, key).Token.RefreshToken})
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, api+"/securitymanagement/refresh-token", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header = fincodeauth.DefaultHeader()
	req.Header.Set("Content-Type", "application/json")
	resp, err := w.fc.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("the thief got %s", resp.Status)
	}
}

// A store is a MemoryStore that fails on command.
type store struct {
	*fincodeauth.MemoryStore

	mu sync.Mutex

	// These run before a call, whose error theirs is. nil: the call succeeds.
	loading func(context.Context) error
	saving  func(*fincodeauth.Record) error
}

// fail makes calls fail from now on.
func (s *store) fail(loading func(context.Context) error, saving func(*fincodeauth.Record) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.loading, s.saving = loading, saving
}

func (s *store) Load(ctx context.Context, key string) (*fincodeauth.Record, error) {
	s.mu.Lock()
	loading := s.loading
	s.mu.Unlock()
	if loading != nil {
		if err := loading(ctx); err != nil {
			return nil, err
		}
	}
	return s.MemoryStore.Load(ctx, key)
}

func (s *store) Save(ctx context.Context, key string, rec *fincodeauth.Record, prev string) error {
	s.mu.Lock()
	saving := s.saving
	s.mu.Unlock()
	if saving != nil {
		if err := saving(rec); err != nil {
			return err
		}
	}
	return s.MemoryStore.Save(ctx, key, rec, prev)
}

func claimsFail(rec *fincodeauth.Record) error {
	if !rec.RefreshStarted.IsZero() {
		return errStoreDown
	}
	return nil
}

// changesFail makes the store refuse new tokens and ends, and accept claims.
func changesFail(rec *fincodeauth.Record) error {
	if rec.RefreshStarted.IsZero() {
		return errStoreDown
	}
	return nil
}

// seen is what a Telemetry has recorded.
type seen struct {
	telemetry *otelfincodeauth.Telemetry
	reader    *sdkmetric.ManualReader
	exporter  *tracetest.InMemoryExporter
}

func newSeen(t testing.TB, attributes ...attribute.KeyValue) *seen {
	t.Helper()
	s := &seen{reader: sdkmetric.NewManualReader(), exporter: tracetest.NewInMemoryExporter()}
	var err error
	s.telemetry, err = otelfincodeauth.New(
		otelfincodeauth.WithMeterProvider(sdkmetric.NewMeterProvider(sdkmetric.WithReader(s.reader))),
		otelfincodeauth.WithTracerProvider(sdktrace.NewTracerProvider(sdktrace.WithSyncer(s.exporter))),
		otelfincodeauth.WithAttributes(attributes...),
	)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func collect(t testing.TB, reader *sdkmetric.ManualReader) []metricdata.Metrics {
	t.Helper()
	var rm metricdata.ResourceMetrics
	if err := reader.Collect(context.Background(), &rm); err != nil {
		t.Fatal(err)
	}
	var all []metricdata.Metrics
	for _, scope := range rm.ScopeMetrics {
		if scope.Scope.Name != otelfincodeauth.Scope || scope.Scope.SchemaURL == "" {
			t.Errorf("the scope is %+v, want the name %s and a schema", scope.Scope, otelfincodeauth.Scope)
		}
		all = append(all, scope.Metrics...)
	}
	return all
}

// values returns the values that are not 0 by "name{attribute=value,…}". The value of a
// histogram is its count.
func (s *seen) values(t testing.TB) map[string]float64 {
	t.Helper()
	values := make(map[string]float64)
	note := func(name string, attributes attribute.Set, value float64) {
		if value != 0 {
			values[name+"{"+attributes.Encoded(attribute.DefaultEncoder())+"}"] = value
		}
	}
	for _, m := range collect(t, s.reader) {
		switch data := m.Data.(type) {
		case metricdata.Sum[int64]:
			for _, p := range data.DataPoints {
				note(m.Name, p.Attributes, float64(p.Value))
			}
		case metricdata.Gauge[float64]:
			for _, p := range data.DataPoints {
				note(m.Name, p.Attributes, p.Value)
			}
		case metricdata.Histogram[float64]:
			for _, p := range data.DataPoints {
				note(m.Name, p.Attributes, float64(p.Count))
			}
		default:
			t.Errorf("%s has data of type %T", m.Name, m.Data)
		}
	}
	return values
}

// want checks some values: the metric's name, without "fincode.", and its attributes.
func (s *seen) want(t testing.TB, want map[string]float64) {
	t.Helper()
	got := s.values(t)
	for name, value := range want {
		name = "fincode." + name
		if !strings.Contains(name, "{") {
			name += "{}"
		}
		if got[name] != value {
			t.Errorf("%s is %v, want %v, of %v", name, got[name], value, got)
		}
	}
}

// wantSpans checks all spans: their names, durations, and the descriptions of their
// errors.
func (s *seen) wantSpans(t testing.TB, want ...string) {
	t.Helper()
	var got []string
	for _, span := range s.exporter.GetSpans() {
		text := fmt.Sprint(span.Name, " ", span.EndTime.Sub(span.StartTime).Round(time.Millisecond))
		if span.Status.Description != "" {
			text += " " + span.Status.Description
		}
		got = append(got, text)
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("the spans are %q, want %q", got, want)
	}
}
