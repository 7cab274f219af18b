package otel

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	colmetrics "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	coltrace "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	metrics "go.opentelemetry.io/proto/otlp/metrics/v1"
	"google.golang.org/protobuf/proto"

	"github.com/fincodeauth/fincodeauth/fincodetest"
	"github.com/fincodeauth/fincodeauth/otelfincodeauth"
)

func TestReceiverOfOTLPGetsMetricsAndSpans(t *testing.T) {
	var rm metricdata.ResourceMetrics
	var spans []sdktrace.ReadOnlySpan
	synctest.Test(t, func(t *testing.T) { // no socket in the bubble
		reader, exporter := sdkmetric.NewManualReader(), tracetest.NewInMemoryExporter()
		live(t, t.Context(), sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)), sdktrace.NewTracerProvider(sdktrace.WithSyncer(exporter)))
		if err := reader.Collect(t.Context(), &rm); err != nil {
			t.Fatal(err)
		}
		spans = exporter.GetSpans().Snapshots()
	})

	receiver := newReceiver(t)
	metricExporter, err := otlpmetrichttp.New(t.Context(), otlpmetrichttp.WithEndpointURL(receiver.URL+"/v1/metrics"))
	if err != nil {
		t.Fatal(err)
	}
	spanExporter, err := otlptracehttp.New(t.Context(), otlptracehttp.WithEndpointURL(receiver.URL+"/v1/traces"))
	if err != nil {
		t.Fatal(err)
	}
	if err := metricExporter.Export(t.Context(), &rm); err != nil {
		t.Fatal(err)
	}
	if err := spanExporter.ExportSpans(t.Context(), spans); err != nil {
		t.Fatal(err)
	}
	for _, shutdown := range []func(context.Context) error{metricExporter.Shutdown, spanExporter.Shutdown} {
		if err := shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	}

	want := map[string]string{
		"fincode.session.logins server.address=" + host:                                      "2 {login}",
		"fincode.session.in_memory server.address=" + host:                                   "2 {session}",
		"fincode.session.unsaved server.address=" + host:                                     "0 {session}",
		"fincode.session.ends fincode.session.end.reason=breach server.address=" + host:      "1 {session}",
		"fincode.session.ends fincode.session.end.reason=interrupted server.address=" + host: "0 {session}",
		"fincode.refresh.duration server.address=" + host:                                    "1 of 0.2 s",
		"fincode.refresh.duration error.type=429 server.address=" + host:                     "1 of 1 s",
		"fincode.store.save.failures server.address=" + host:                                 "0 {save}",
		"fincode refresh server.address=" + host:                                             "200ms",
		"fincode refresh error.type=429 server.address=" + host + " (429)":                   "1s",
	}
	got := receiver.everything()
	for name, value := range want {
		if got[name] != value {
			t.Errorf("%s is %q, want %q, of %q", name, got[name], value, slices.Sorted(maps.Keys(got)))
		}
	}
	for _, secret := range []string{key, fincodetest.Email, fincodetest.Password, "Bearer"} {
		if strings.Contains(receiver.raw(), secret) {
			t.Errorf("the receiver got %q", secret)
		}
	}
}

// A receiver takes OTLP over HTTP.
type receiver struct {
	*httptest.Server

	mu     sync.Mutex
	bodies strings.Builder
	values map[string]string // "name attributes (status)": the value of a metric, or how long a span took
}

func newReceiver(t *testing.T) *receiver {
	r := &receiver{values: make(map[string]string)}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/metrics", func(w http.ResponseWriter, req *http.Request) {
		var msg colmetrics.ExportMetricsServiceRequest
		r.receive(t, w, req, &msg, &colmetrics.ExportMetricsServiceResponse{}, func() { r.noteMetrics(&msg) })
	})
	mux.HandleFunc("POST /v1/traces", func(w http.ResponseWriter, req *http.Request) {
		var msg coltrace.ExportTraceServiceRequest
		r.receive(t, w, req, &msg, &coltrace.ExportTraceServiceResponse{}, func() { r.noteSpans(&msg) })
	})
	r.Server = httptest.NewServer(mux)
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) receive(t *testing.T, w http.ResponseWriter, req *http.Request, msg, answer proto.Message, note func()) {
	body, err := io.ReadAll(req.Body)
	if err == nil {
		err = proto.Unmarshal(body, msg)
	}
	if err != nil || req.Header.Get("Content-Type") != "application/x-protobuf" {
		t.Errorf("received %s of type %q: %v", req.URL.Path, req.Header.Get("Content-Type"), err)
		http.Error(w, "not OTLP", http.StatusBadRequest)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.bodies.Write(body)
	note()
	data, err := proto.Marshal(answer)
	if err != nil {
		t.Error(err)
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
	w.Write(data)
}

func (r *receiver) everything() map[string]string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.values)
}

func (r *receiver) raw() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.bodies.String()
}

// noteMetrics and noteSpans keep what is of our scope. mu is held.
func (r *receiver) noteMetrics(msg *colmetrics.ExportMetricsServiceRequest) {
	for _, resource := range msg.ResourceMetrics {
		for _, scope := range resource.ScopeMetrics {
			if scope.Scope.Name != otelfincodeauth.Scope {
				continue
			}
			for _, m := range scope.Metrics {
				for _, p := range m.GetSum().GetDataPoints() {
					r.values[m.Name+attributes(p.Attributes)] = fmt.Sprint(p.GetAsInt(), " ", m.Unit)
				}
				for _, p := range m.GetHistogram().GetDataPoints() {
					r.values[m.Name+attributes(p.Attributes)] = histogram(p, m.Unit)
				}
			}
		}
	}
}

func histogram(p *metrics.HistogramDataPoint, unit string) string {
	return fmt.Sprint(p.Count, " of ", p.GetSum(), " ", unit)
}

func (r *receiver) noteSpans(msg *coltrace.ExportTraceServiceRequest) {
	for _, resource := range msg.ResourceSpans {
		for _, scope := range resource.ScopeSpans {
			if scope.Scope.Name != otelfincodeauth.Scope {
				continue
			}
			for _, s := range scope.Spans {
				name := s.Name + attributes(s.Attributes)
				if s.GetStatus().GetMessage() != "" {
					name += " (" + s.Status.Message + ")"
				}
				r.values[name] = time.Duration(s.EndTimeUnixNano - s.StartTimeUnixNano).String()
			}
		}
	}
}

func attributes(kvs []*common.KeyValue) (text string) {
	var all []string
	for _, kv := range kvs {
		all = append(all, " "+kv.Key+"="+kv.Value.GetStringValue())
	}
	slices.Sort(all)
	return strings.Join(all, "")
}
