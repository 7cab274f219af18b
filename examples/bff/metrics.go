package main

import (
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

// metrics are what /metrics shows. The names are those of docs/operations.md, so the
// alerts and the dashboard of otelfincodeauth work as they are.
type metrics struct {
	*otelfincodeauth.Telemetry // counts what happens to sessions
	registry                   *prometheus.Registry
	meters                     *sdkmetric.MeterProvider
}

func newMetrics(baseURL string) (*metrics, error) {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	reader, err := exporter.New(exporter.WithRegisterer(registry),
		exporter.WithTranslationStrategy(otlptranslator.UnderscoreEscapingWithSuffixes))
	if err != nil {
		return nil, err
	}
	// Who sends a request chooses its Host, and must not choose how many time series there are.
	withoutHost := sdkmetric.NewView(sdkmetric.Instrument{Name: "http.server.*"},
		sdkmetric.Stream{AttributeFilter: attribute.NewDenyKeysFilter(semconv.ServerAddressKey, semconv.ServerPortKey)})
	meters := sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader), sdkmetric.WithView(withoutHost))
	fincode, err := url.Parse(baseURL)
	if err != nil {
		fincode = &url.URL{} // fincodeauth.New says what is wrong
	}
	telemetry, err := otelfincodeauth.New(otelfincodeauth.WithMeterProvider(meters),
		otelfincodeauth.WithAttributes(semconv.ServerAddress(fincode.Hostname())))
	return &metrics{telemetry, registry, meters}, err
}

// base is for Config.Base. It measures what is sent to FinCode. next may be nil.
func (m *metrics) base(next http.RoundTripper) http.RoundTripper {
	return otelhttp.NewTransport(next, otelhttp.WithMeterProvider(m.meters))
}

// measure measures the requests of browsers that next answers.
func (m *metrics) measure(next http.Handler) http.Handler {
	return otelhttp.NewHandler(next, "bff", otelhttp.WithMeterProvider(m.meters))
}

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}
