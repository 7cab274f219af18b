package otel

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/fincodeauth/fincodeauth/otelfincodeauth"
)

// A refresh is counted once as a refresh, and once as a request. Nothing is counted twice.
func TestMetricsAreOtherThanThoseOfOtelhttp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reader := sdkmetric.NewManualReader()
		live(t, t.Context(), sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)), sdktrace.NewTracerProvider())
		var rm metricdata.ResourceMetrics
		if err := reader.Collect(t.Context(), &rm); err != nil {
			t.Fatal(err)
		}
		scopes := make(map[string][]string) // the names of a scope's metrics
		counts := make(map[string]uint64)   // of the histograms
		for _, scope := range rm.ScopeMetrics {
			for _, m := range scope.Metrics {
				scopes[scope.Scope.Name] = append(scopes[scope.Scope.Name], m.Name)
				if h, ok := m.Data.(metricdata.Histogram[float64]); ok {
					for _, p := range h.DataPoints {
						counts[m.Name] += p.Count
					}
				}
			}
		}
		ours, theirs := scopes[otelfincodeauth.Scope], scopes[otelhttp.ScopeName]
		if len(scopes) != 2 || len(ours) < 10 || len(theirs) == 0 {
			t.Fatalf("the metrics are %v, want those of two scopes", scopes)
		}
		for _, name := range ours {
			if slices.Contains(theirs, name) || !strings.HasPrefix(name, "fincode.") {
				t.Errorf("both scopes have %s, or it is not of FinCode", name)
			}
		}
		// Two logins, a refresh and its request, a refresh that fails, and one that is refused.
		if counts["fincode.refresh.duration"] != 2 || counts["http.client.request.duration"] != 6 {
			t.Errorf("the counts are %v, want 2 refreshes and 6 requests", counts)
		}
	})
}

// The span of the call to FinCode is a child of the request that began the refresh. The
// span of the refresh is a trace of its own, at the same time.
func TestSpansOfOtelhttpBelongToTheRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		exporter := tracetest.NewInMemoryExporter()
		tracers := sdktrace.NewTracerProvider(sdktrace.WithSyncer(exporter))
		ctx, parent := tracers.Tracer("program").Start(t.Context(), "request")
		live(t, ctx, sdkmetric.NewMeterProvider(), tracers)
		var children, roots []tracetest.SpanStub
		for _, span := range exporter.GetSpans() {
			switch {
			case span.Parent.SpanID() == parent.SpanContext().SpanID():
				children = append(children, span)
			case span.Name == "fincode refresh":
				roots = append(roots, span)
			}
		}
		if len(children) != 2 || children[0].Name != "HTTP PUT" || children[1].Name != "HTTP GET" {
			t.Fatalf("the request's children are %v, want the refresh and the request itself", names(children))
		}
		if len(roots) != 2 || roots[0].Parent.IsValid() || roots[0].SpanContext.TraceID() == parent.SpanContext().TraceID() {
			t.Fatalf("the spans of refreshes are %v, want two in traces of their own", names(roots))
		}
		call, refresh := children[0], roots[0]
		if !call.StartTime.Equal(refresh.StartTime) || !call.EndTime.Equal(refresh.EndTime) || refresh.EndTime.Sub(refresh.StartTime) != 200*time.Millisecond {
			t.Errorf("the call is from %v to %v, and the refresh from %v to %v", call.StartTime, call.EndTime, refresh.StartTime, refresh.EndTime)
		}
		if call.SpanKind != trace.SpanKindClient || refresh.SpanKind != trace.SpanKindInternal {
			t.Errorf("the call is of kind %v and the refresh of kind %v", call.SpanKind, refresh.SpanKind)
		}
	})
}

func names(spans []tracetest.SpanStub) (names []string) {
	for _, span := range spans {
		names = append(names, span.Name)
	}
	return names
}
