package main

import (
	"errors"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/fincodeauth/fincodeauth"
)

// metrics counts what happens to sessions. docs/operations.md says which events to
// be alarmed by. No label is a session's key: each user would be a time series.
type metrics struct {
	registry *prometheus.Registry
	events   *prometheus.CounterVec
	breaches prometheus.Counter
	refresh  prometheus.Histogram
	requests *prometheus.CounterVec
}

func newMetrics() *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		events: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "fincode_session_events_total", Help: "Events of FinCode sessions, by type."}, []string{"type"}),
		breaches: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "fincode_session_breaches_total", Help: "Sessions that ended because somebody else used the refresh token. Page somebody."}),
		refresh: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "fincode_refresh_seconds", Help: "How long FinCode took to rotate a token.", Buckets: prometheus.DefBuckets}),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "bff_http_requests_total", Help: "Requests of browsers, by status and method."}, []string{"code", "method"}),
	}
	m.registry.MustRegister(m.events, m.breaches, m.refresh, m.requests,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	// A counter that does not exist yet cannot raise an alarm with its first event.
	for t := fincodeauth.LoggedIn; t <= fincodeauth.JournalFailed; t++ {
		m.events.WithLabelValues(t.String())
	}
	return m
}

// observe is for Config.Observe. It only adds numbers, so it does not block.
func (m *metrics) observe(e fincodeauth.Event) {
	m.events.WithLabelValues(e.Type.String()).Inc()
	switch e.Type {
	case fincodeauth.Refreshed:
		m.refresh.Observe(e.Elapsed.Seconds())
	case fincodeauth.Ended:
		if session, ok := errors.AsType[*fincodeauth.SessionError](e.Err); ok && session.Reused && !session.Interrupted {
			m.breaches.Inc()
		}
	}
}

// count counts the answers of next.
func (m *metrics) count(next http.Handler) http.Handler {
	return promhttp.InstrumentHandlerCounter(m.requests, next)
}

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}
