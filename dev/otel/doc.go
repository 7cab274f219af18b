// Package otel tests otelfincodeauth with what receives its metrics and spans: an OTLP
// receiver on a socket, Prometheus, Grafana, and otelhttp beside it.
//
// The alerts are tested with promtool, which is part of Prometheus. Without promtool, that
// test is skipped, or fails if FINCODEAUTH_REQUIRE_SERVICES is 1.
package otel
