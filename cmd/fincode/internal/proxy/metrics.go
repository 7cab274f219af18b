package proxy

import (
	"errors"
	"net/http"
	"net/url"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/otlptranslator"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/attribute"
	exporter "go.opentelemetry.io/otel/exporters/prometheus"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"

	"github.com/fincodeauth/fincodeauth/otelfincodeauth"
)

// Metrics are what /-/metrics shows. The names are those of docs/operations.md, so the
// alerts and the dashboard of otelfincodeauth work as they are.
//
// Set Config.Observe of the Sessions to Metrics.Observe, and Config.Base to Metrics.Base,
// and call Metrics.Watch with the Sessions.
type Metrics struct {
	*otelfincodeauth.Telemetry // counts what happens to sessions
	registry                   *prometheus.Registry
	meters                     *sdkmetric.MeterProvider
}

// NewMetrics returns the Metrics for the sessions of a BaseURL.
func NewMetrics(baseURL string) (*Metrics, error) {
	fincode, err := url.Parse(baseURL)
	if err != nil {
		return nil, errors.New("the base URL does not parse") // err has the URL, which may have a password
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	reader, err := exporter.New(exporter.WithRegisterer(registry),
		exporter.WithTranslationStrategy(otlptranslator.UnderscoreEscapingWithSuffixes))
	if err != nil {
		return nil, err
	}
	// Whoever sends a request chooses its Host, and must not choose how many time series there are.
	withoutHost := sdkmetric.NewView(sdkmetric.Instrument{Name: "http.server.*"},
		sdkmetric.Stream{AttributeFilter: attribute.NewDenyKeysFilter(semconv.ServerAddressKey, semconv.ServerPortKey)})
	meters := sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader), sdkmetric.WithView(withoutHost))
	telemetry, err := otelfincodeauth.New(otelfincodeauth.WithMeterProvider(meters),
		otelfincodeauth.WithAttributes(semconv.ServerAddress(fincode.Hostname())))
	if err != nil {
		return nil, err
	}
	return &Metrics{telemetry, registry, meters}, nil
}

// Base returns a RoundTripper that measures what next sends to FinCode. nil:
// http.DefaultTransport.
func (m *Metrics) Base(next http.RoundTripper) http.RoundTripper {
	return otelhttp.NewTransport(next, otelhttp.WithMeterProvider(m.meters))
}

// measure measures the requests that next answers.
func (m *Metrics) measure(next http.Handler) http.Handler {
	return otelhttp.NewHandler(next, "proxy", otelhttp.WithMeterProvider(m.meters))
}

func (m *Metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}
