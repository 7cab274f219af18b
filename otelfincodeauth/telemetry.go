// Package otelfincodeauth makes OpenTelemetry metrics and spans of the events of a
// fincodeauth.Sessions.
//
//	telemetry, err := otelfincodeauth.New(otelfincodeauth.WithAttributes(semconv.ServerAddress("acme.fincode.tech")))
//	if err != nil {
//		return err
//	}
//	sessions, err := fincodeauth.New(fincodeauth.Config{
//		BaseURL: fincodeauth.Production("acme"),
//		Observe: telemetry.Observe,
//	})
//	if err != nil {
//		return err
//	}
//	stop, err := telemetry.Watch(sessions) // the gauges
//	if err != nil {
//		return err
//	}
//	defer stop()
//
// # Metrics
//
// The names follow OpenTelemetry's conventions. docs/operations.md has the names that
// Prometheus sees, and the alerts.
//
//	fincode.refresh.duration       s            histogram: of Refreshed the calls to FinCode, of RefreshFailed the whole refresh
//	fincode.refresh.takeovers      {takeover}   refreshes taken over from a process that had died
//	fincode.session.adoptions      {adoption}   tokens from another process, an earlier run, or Adopt
//	fincode.session.logins         {login}      logins that succeeded
//	fincode.session.logouts        {logout}     sessions that were logged out or forgotten
//	fincode.session.ends           {session}    sessions that need a login, by reason
//	fincode.session.in_memory      {session}    sessions in this process's memory now
//	fincode.session.unsaved        {session}    those of them that the store has not accepted yet
//	fincode.session.soonest_expiry s            until the first good token stops being used; absent if there is none
//	fincode.store.save.failures    {save}       changes whose first save failed
//	fincode.store.save.recoveries  {save}       changes that were saved after that, or from a journal
//	fincode.store.reversions       {reversion}  records for which the store had gone back
//	fincode.journal.failures       {file}       files that a Journal could not write, read or remove
//	fincode.request.replays        {request}    requests that were sent again after a 401
//	fincode.request.passed_origins {origin}     origins to which requests went without a token
//
// fincode.refresh.duration and fincode.session.logouts have error.type if the call
// failed: the HTTP status of FinCode's answer, such as "503", or one of ErrorTimeout,
// ErrorConnection, ErrorAnswer, ErrorStore and "_OTHER". A refresh that FinCode refused is
// not in fincode.refresh.duration. It is in fincode.session.ends, with EndReasonKey, or in
// fincode.store.save.failures until the store accepts the end. The others have the
// attributes of WithAttributes alone. The exemplars of fincode.refresh.duration name the
// spans below.
//
// There are no http.client metrics here: otelhttp.NewTransport in Config.Base has them.
//
// # Spans
//
// Refreshed and RefreshFailed become a span "fincode refresh", LoggedIn "fincode login",
// LoggedOut "fincode logout" and Saved "fincode save", if the event has a duration. A
// span is made after the event, with its true beginning and end. It is a root span,
// because one refresh serves many requests, and goes on when they end. Its kind is
// internal: the span of kind client is that of otelhttp in Config.Base. That one is a
// child of the span of the request that began the refresh.
//
// # What is never in them
//
// The key of a session is in no metric and in no span, and neither is the text of an
// error. Logs have them: see fincodeauth.LogEvents.
package otelfincodeauth

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/fincodeauth/fincodeauth"
)

// Scope is the name of the instrumentation scope of all metrics and spans.
const Scope = "github.com/fincodeauth/fincodeauth/otelfincodeauth"

// A Telemetry makes metrics and spans for one Sessions. To tell several Sessions of one
// process apart, give each a Telemetry with attributes of its own. Make one with New: the
// zero value, and nil, drop every event. It is safe for concurrent use.
type Telemetry struct {
	instruments *instruments // nil: the zero value
	tracer      trace.Tracer
	spans       spanOptions
	told        atomic.Bool // a panic was reported

	mu      sync.Mutex
	watched bool // guarded by mu
}

// An Option is an argument of New.
type Option func(*options)

type options struct {
	meters     metric.MeterProvider
	tracers    trace.TracerProvider
	attributes []attribute.KeyValue
}

// WithMeterProvider says where the metrics go. nil, or without this option: to the global
// provider, otel.GetMeterProvider.
func WithMeterProvider(p metric.MeterProvider) Option { return func(o *options) { o.meters = p } }

// WithTracerProvider says where the spans go. nil, or without this option: to the global
// provider, otel.GetTracerProvider. For no spans, use the one of package
// go.opentelemetry.io/otel/trace/noop.
func WithTracerProvider(p trace.TracerProvider) Option { return func(o *options) { o.tracers = p } }

// WithAttributes adds attributes to every metric and span. They tell one tenant from
// another: use semconv.ServerAddress with the host of BaseURL, because otelhttp's metrics
// have the same attribute. Do not use what differs from session to session.
func WithAttributes(attributes ...attribute.KeyValue) Option {
	return func(o *options) { o.attributes = append(o.attributes, attributes...) }
}

// New returns a Telemetry. Set the global providers, if you use them, before: otherwise
// alerts on a counter may miss its first event. New returns an error if an attribute is
// not valid or is one that this package sets itself, and if a provider fails or panics.
func New(opts ...Option) (t *Telemetry, err error) {
	defer func() {
		if p := recover(); p != nil {
			t, err = nil, fmt.Errorf("otelfincodeauth: a provider panicked: %v", p)
		}
	}()
	var o options
	for _, opt := range opts {
		if opt != nil {
			opt(&o)
		}
	}
	if err := checkAttributes(o.attributes); err != nil {
		return nil, err
	}
	if o.meters == nil {
		o.meters = otel.GetMeterProvider()
	}
	if o.tracers == nil {
		o.tracers = otel.GetTracerProvider()
	}
	ins, err := newInstruments(o.meters.Meter(Scope, metric.WithSchemaURL(semconv.SchemaURL)), o.attributes)
	if err != nil {
		return nil, fmt.Errorf("otelfincodeauth: %w", err)
	}
	return &Telemetry{
		instruments: ins,
		tracer:      o.tracers.Tracer(Scope, trace.WithSchemaURL(semconv.SchemaURL)),
		spans:       newSpanOptions(o.attributes),
	}, nil
}

func checkAttributes(attributes []attribute.KeyValue) error {
	for _, a := range attributes {
		switch {
		case !a.Valid():
			return fmt.Errorf("otelfincodeauth: the attribute %q has no key or no value", a.Key)
		case a.Key == semconv.ErrorTypeKey, a.Key == EndReasonKey, a.Key == TookOverKey:
			return fmt.Errorf("otelfincodeauth: the attribute %q is set by this package: use another key", a.Key)
		}
	}
	return nil
}

// Observe is for Config.Observe. It records the event, and returns at once if the
// providers do: OpenTelemetry's metrics only count in memory, and sdktrace.WithBatcher
// puts spans into a queue. With sdktrace.WithSyncer, the refresh of a session waits until
// its span is exported: do not use that. Observe holds no lock, so a provider that blocks
// for one session does not hold up another.
//
// If a provider panics, the refresh goes on. otel.Handle gets the first such panic.
func (t *Telemetry) Observe(e fincodeauth.Event) {
	if t == nil || t.instruments == nil {
		return
	}
	t.measure(t.trace(e), e)
}

// trace makes the event's span, if it has one. The context that it returns has the span, so
// that a metric's exemplar names it.
func (t *Telemetry) trace(e fincodeauth.Event) (ctx context.Context) {
	defer t.contain()
	ctx = context.Background() // stays, if a provider panics
	if name := spanName(e); name != "" {
		ctx = t.spans.make(t.tracer, name, e)
	}
	return ctx
}

func (t *Telemetry) measure(ctx context.Context, e fincodeauth.Event) {
	defer t.contain()
	t.instruments.record(ctx, e)
}

// Watch observes the gauges of sessions from now on: fincode.session.in_memory,
// fincode.session.unsaved and fincode.session.soonest_expiry. Each time metrics are
// collected, it calls sessions.Stats, which with 100,000 sessions takes milliseconds.
// stop ends that; it may be called more than once. A Telemetry watches one Sessions at a
// time: to watch several, make a Telemetry for each.
func (t *Telemetry) Watch(sessions *fincodeauth.Sessions) (stop func(), err error) {
	switch {
	case t == nil || t.instruments == nil:
		return nil, errors.New("otelfincodeauth: the Telemetry is empty: make it with New")
	case sessions == nil:
		return nil, errors.New("otelfincodeauth: Watch was called without Sessions: call it after fincodeauth.New")
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.watched {
		return nil, errors.New("otelfincodeauth: this Telemetry watches other Sessions: make one for each, with attributes of its own")
	}
	registration, err := t.register(sessions)
	if err != nil {
		return nil, fmt.Errorf("otelfincodeauth: %w", err)
	}
	t.watched = true
	return sync.OnceFunc(func() { t.unwatch(registration) }), nil
}

func (t *Telemetry) register(sessions *fincodeauth.Sessions) (r metric.Registration, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the meter provider panicked: %v", p)
		}
	}()
	return t.instruments.watch(func(o metric.Observer) {
		defer t.contain()
		t.instruments.observe(o, sessions.Stats(), time.Now())
	})
}

func (t *Telemetry) unwatch(r metric.Registration) {
	defer t.contain()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.watched = false
	if err := r.Unregister(); err != nil {
		report(err)
	}
}

// contain is deferred where a provider is called. It ends a panic, and reports the first.
func (t *Telemetry) contain() {
	if p := recover(); p != nil && t.told.CompareAndSwap(false, true) {
		report(fmt.Errorf("a provider panicked, and metrics or spans are missing (this is reported once): %v", p))
	}
}

// report hands err to the program's handler of OpenTelemetry's errors.
func report(err error) {
	defer func() { _ = recover() }() // the handler is the program's, and may panic, too
	otel.Handle(fmt.Errorf("otelfincodeauth: %w", err))
}
