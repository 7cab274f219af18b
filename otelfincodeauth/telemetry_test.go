package otelfincodeauth_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"
	"golang.org/x/oauth2"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/fincodetest"
	"github.com/fincodeauth/fincodeauth/otelfincodeauth"
)

func TestGaugesAreThoseOfStats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		if got := w.seen.values(t); len(got) != 0 {
			t.Errorf("without a session, the metrics are %v, want 0", got)
		}
		w.logIn(t, "a")
		time.Sleep(10 * time.Minute)
		w.logIn(t, "b")
		left := time.Until(w.sessions.Stats().SoonestExpiry).Seconds()
		if left < 49*60 || left > 50*60 {
			t.Fatalf("the soonest expiry is in %v s, want nearly 50 minutes", left)
		}
		w.seen.want(t, map[string]float64{"session.in_memory": 2, "session.soonest_expiry": left})
		time.Sleep(2 * time.Hour)
		w.seen.want(t, map[string]float64{"session.in_memory": 2})
		for _, m := range collect(t, w.seen.reader) {
			if m.Name == "fincode.session.soonest_expiry" {
				t.Errorf("when all tokens have expired, there is %+v, want none", m)
			}
		}
	})
}

func TestWatchEndsWithStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seen := newSeen(t)
		w := newWorld(t)
		w.logIn(t, "a")
		for range 2 { // after stop, there may be another Watch
			stop, err := seen.telemetry.Watch(w.sessions)
			if err != nil {
				t.Fatal(err)
			}
			seen.want(t, map[string]float64{"session.in_memory": 1})
			stop()
			stop()
			seen.want(t, map[string]float64{"session.in_memory": 0})
		}
	})
}

func TestWatchRefusesWhatItCannotWatch(t *testing.T) {
	telemetry, sessions := newSeen(t).telemetry, new(fincodeauth.Sessions)
	watch(t, telemetry, sessions)
	var none *otelfincodeauth.Telemetry
	for name, test := range map[string]struct {
		telemetry *otelfincodeauth.Telemetry
		sessions  *fincodeauth.Sessions
		want      string
	}{
		"nil Sessions":    {newSeen(t).telemetry, nil, "call it after fincodeauth.New"},
		"a second time":   {telemetry, sessions, "make one for each"},
		"zero Telemetry":  {new(otelfincodeauth.Telemetry), sessions, "make it with New"},
		"no Telemetry":    {none, sessions, "make it with New"},
		"broken provider": {newTelemetry(t, meters{panicIn: "RegisterCallback"}), sessions, "panicked"},
		"failing one":     {newTelemetry(t, meters{failIn: "RegisterCallback"}), sessions, "RegisterCallback failed"},
	} {
		t.Run(name, func(t *testing.T) {
			stop, err := test.telemetry.Watch(test.sessions)
			if err == nil || stop != nil || !strings.HasPrefix(err.Error(), "otelfincodeauth: ") || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got the error %v, want one with %q", err, test.want)
			}
		})
	}
}

func TestZeroTelemetryDropsEvents(t *testing.T) {
	var none *otelfincodeauth.Telemetry
	none.Observe(fincodeauth.Event{Type: fincodeauth.Refreshed})
	new(otelfincodeauth.Telemetry).Observe(fincodeauth.Event{Type: fincodeauth.Refreshed})
}

func TestNewRefusesAttributesThatCannotBe(t *testing.T) {
	for _, a := range []attribute.KeyValue{{}, attribute.String("", "x"), attribute.String("error.type", "x"),
		attribute.String("fincode.session.end.reason", "x"), attribute.Bool("fincode.refresh.took_over", true)} {
		if telemetry, err := otelfincodeauth.New(otelfincodeauth.WithAttributes(a)); err == nil || telemetry != nil {
			t.Errorf("the attribute %v is accepted", a)
		}
	}
}

func TestTenantsOfOneProcessAreToldApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reader := sdkmetric.NewManualReader()
		provider := sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))
		all := &seen{reader: reader}
		for tenant, keys := range map[string][]string{"one.example.com": {"a"}, "two.example.com": {"a", "b"}} {
			telemetry := newTelemetry(t, provider, semconv.ServerAddress(tenant))
			w := newWorld(t, func(cfg *fincodeauth.Config) { cfg.Observe = telemetry.Observe })
			watch(t, telemetry, w.sessions)
			for _, key := range keys {
				w.logIn(t, key)
			}
		}
		all.want(t, map[string]float64{
			"session.logins{server.address=one.example.com}":    1,
			"session.logins{server.address=two.example.com}":    2,
			"session.in_memory{server.address=one.example.com}": 1,
			"session.in_memory{server.address=two.example.com}": 2,
		})
	})
}

// A system that learns of a counter when it is 1 does not see it grow.
func TestCountersBeginAtZero(t *testing.T) {
	seen := newSeen(t, semconv.ServerAddress("acme"))
	reasons, counters := 0, 0
	for _, m := range collect(t, seen.reader) {
		sum, ok := m.Data.(metricdata.Sum[int64])
		if !ok || !sum.IsMonotonic {
			t.Errorf("%s has data of type %T before any event", m.Name, m.Data)
			continue
		}
		counters++
		for _, p := range sum.DataPoints {
			if _, ok := p.Attributes.Value("fincode.session.end.reason"); ok {
				reasons++
			}
			if tenant, ok := p.Attributes.Value("server.address"); p.Value != 0 || !ok || tenant.AsString() != "acme" {
				t.Errorf("%s is %d with %v, want 0", m.Name, p.Value, p.Attributes.ToSlice())
			}
		}
	}
	if counters != 11 || reasons != 5 {
		t.Errorf("%d counters and %d reasons begin at 0, want 11 and 5", counters, reasons)
	}
}

func TestGlobalProvidersAreUsedIfNoneIsGiven(t *testing.T) {
	meterProvider, tracerProvider := otel.GetMeterProvider(), otel.GetTracerProvider()
	defer func() { otel.SetMeterProvider(meterProvider); otel.SetTracerProvider(tracerProvider) }()
	want := newSeen(t)
	want.reader = sdkmetric.NewManualReader() // newSeen has used the other one
	otel.SetTracerProvider(sdktrace.NewTracerProvider(sdktrace.WithSyncer(want.exporter)))
	otel.SetMeterProvider(sdkmetric.NewMeterProvider(sdkmetric.WithReader(want.reader)))
	telemetry, err := otelfincodeauth.New(nil, otelfincodeauth.WithMeterProvider(nil), otelfincodeauth.WithTracerProvider(nil))
	if err != nil {
		t.Fatal(err)
	}
	telemetry.Observe(fincodeauth.Event{Type: fincodeauth.Refreshed, Time: time.Now(), Elapsed: time.Second})
	want.want(t, map[string]float64{"refresh.duration": 1})
	want.wantSpans(t, "fincode refresh 1s")
}

func TestNoKeyTokenOrAddressIsInMetricsAndSpans(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const key = "key-of-ada"
		w := newWorldOf(t, fincodetest.New(fincodetest.Config{OpaqueTokens: true}))
		secrets := []string{key, fincodetest.Email, fincodetest.Password, "Bearer"}
		note := func() {
			tok := w.record(t, key).Token
			secrets = append(secrets, tok.AccessToken, tok.RefreshToken)
		}
		slow := fincodetest.Fault{After: time.Second}
		w.fc.Inject(fincodetest.Login, 1, slow)
		w.logIn(t, key)
		note()
		for _, fault := range []fincodetest.Fault{{Kind: fincodetest.ErrorStatus}, {Kind: fincodetest.Garbage, Before: time.Second}, slow} {
			time.Sleep(2 * time.Hour)
			w.fc.Inject(fincodetest.Refresh, 1, fault)
			_, _ = w.token(key)
			time.Sleep(time.Minute)
			note()
		}
		w.steal(t, key)
		time.Sleep(2 * time.Hour)
		w.useInVain(t, key)
		for typ := fincodeauth.LoggedIn; typ <= fincodeauth.JournalFailed; typ++ { // whatever an error says
			err := &fincodeauth.SessionError{Key: key, Err: errors.New(strings.Join(secrets, " "))}
			w.seen.telemetry.Observe(fincodeauth.Event{Type: typ, Key: key, Time: time.Now(), Elapsed: time.Second, Err: err})
		}

		text := fmt.Sprintf("%+v %+v", collect(t, w.seen.reader), w.seen.exporter.GetSpans())
		for name := range w.seen.values(t) {
			text += name
		}
		for _, span := range w.seen.exporter.GetSpans() {
			for _, a := range span.Attributes {
				text += string(a.Key) + "=" + a.Value.String()
			}
		}
		if !strings.Contains(text, "error.type=_OTHER") || !strings.Contains(text, "reason=breach") {
			t.Fatalf("the text lacks what is looked for: %s", text)
		}
		for i, secret := range secrets {
			if strings.Contains(text, secret) {
				t.Errorf("secret %d is in the metrics or spans", i)
			}
		}
	})
}

// Whatever a provider does, a refresh succeeds, and the program is told once.
func TestPanicOfAProviderHarmsNoRefresh(t *testing.T) {
	for name, opts := range map[string][]otelfincodeauth.Option{
		"Add and Record": {otelfincodeauth.WithMeterProvider(meters{panicIn: "Record"})},
		"Observe":        {otelfincodeauth.WithMeterProvider(meters{panicIn: "Observe"})},
		"Start":          {otelfincodeauth.WithTracerProvider(tracers{panicIn: "Start"})},
		"End":            {otelfincodeauth.WithTracerProvider(tracers{panicIn: "End"})},
		"all of them": {otelfincodeauth.WithMeterProvider(meters{panicIn: "Record"}),
			otelfincodeauth.WithTracerProvider(tracers{panicIn: "Start"})},
	} {
		t.Run(name, func(t *testing.T) {
			told := handle(t)
			synctest.Test(t, func(t *testing.T) {
				telemetry, err := otelfincodeauth.New(opts...)
				if err != nil {
					t.Fatal(err)
				}
				w := newWorld(t, func(cfg *fincodeauth.Config) { cfg.Observe = telemetry.Observe })
				stop, err := telemetry.Watch(w.sessions)
				if err != nil {
					t.Fatal(err)
				}
				for _, key := range []string{"a", "b"} {
					w.logIn(t, key)
				}
				for range 3 {
					time.Sleep(2 * time.Hour)
					w.fc.Inject(fincodetest.Refresh, 2, fincodetest.Fault{After: time.Second})
					for _, key := range []string{"a", "b"} {
						w.use(t, key)
					}
				}
				stop()
				if c := w.fc.Counts(); c.Refreshes != 6 {
					t.Errorf("there were %d refreshes, want 6", c.Refreshes)
				}
			})
			if len(*told) != 1 || !strings.Contains((*told)[0], "otelfincodeauth: a provider panicked") {
				t.Errorf("otel.Handle got %q, want one error", *told)
			}
		})
	}
}

func TestPanicOfATracerLosesNoMetric(t *testing.T) {
	handle(t)
	reader := sdkmetric.NewManualReader()
	telemetry, err := otelfincodeauth.New(
		otelfincodeauth.WithMeterProvider(sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))),
		otelfincodeauth.WithTracerProvider(tracers{panicIn: "Start"}))
	if err != nil {
		t.Fatal(err)
	}
	telemetry.Observe(fincodeauth.Event{Type: fincodeauth.Refreshed, Time: time.Now(), Elapsed: time.Second})
	(&seen{reader: reader}).want(t, map[string]float64{"refresh.duration": 1})
}

func TestPanicOfAProviderInNewIsItsError(t *testing.T) {
	for name, opt := range map[string]otelfincodeauth.Option{
		"Meter":            otelfincodeauth.WithMeterProvider(meters{panicIn: "Meter"}),
		"Int64Counter":     otelfincodeauth.WithMeterProvider(meters{panicIn: "Int64Counter"}),
		"Float64Histogram": otelfincodeauth.WithMeterProvider(meters{panicIn: "Float64Histogram"}),
		"failing counter":  otelfincodeauth.WithMeterProvider(meters{failIn: "Int64Counter"}),
		"Tracer":           otelfincodeauth.WithTracerProvider(tracers{panicIn: "Tracer"}),
	} {
		t.Run(name, func(t *testing.T) {
			telemetry, err := otelfincodeauth.New(opt)
			if err == nil || telemetry != nil || !strings.HasPrefix(err.Error(), "otelfincodeauth: ") {
				t.Errorf("got the error %v, want one of otelfincodeauth", err)
			}
		})
	}
}

func TestPanicOfTheErrorHandlerIsContained(t *testing.T) {
	told := handle(t)
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(error) { panic("handler") }))
	telemetry, err := otelfincodeauth.New(otelfincodeauth.WithTracerProvider(tracers{panicIn: "Start"}))
	if err != nil {
		t.Fatal(err)
	}
	telemetry.Observe(fincodeauth.Event{Type: fincodeauth.Refreshed, Time: time.Now(), Elapsed: time.Second})
	if len(*told) != 0 {
		t.Errorf("another handler got %q", *told)
	}
}

// Config.Observe must not block. If it does, or if a provider does, the refresh of that
// session waits, and no other.
func TestSlowObserverDelaysItsOwnSessionAlone(t *testing.T) {
	var blocked chan struct{}
	wait := func(e fincodeauth.Event) {
		if e.Type == fincodeauth.Refreshed && e.Key == "slow" {
			<-blocked
		}
	}
	for name, compose := range map[string]func(*otelfincodeauth.Telemetry) func(fincodeauth.Event){
		"before": func(t *otelfincodeauth.Telemetry) func(fincodeauth.Event) {
			return func(e fincodeauth.Event) { wait(e); t.Observe(e) }
		},
		"after": func(t *otelfincodeauth.Telemetry) func(fincodeauth.Event) {
			return func(e fincodeauth.Event) { t.Observe(e); wait(e) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				blocked = make(chan struct{})
				seen := newSeen(t)
				w := newWorld(t, func(cfg *fincodeauth.Config) { cfg.Observe = compose(seen.telemetry) })
				w.logIn(t, "slow")
				w.logIn(t, "quick")
				time.Sleep(2 * time.Hour)
				done := make(chan struct{})
				go func() {
					w.use(t, "slow")
					close(done)
				}()
				synctest.Wait()
				began := time.Now()
				w.use(t, "quick")
				if waited := time.Since(began); waited != 0 {
					t.Errorf("the other session waited %v", waited)
				}
				time.Sleep(time.Second)
				select {
				case <-done:
					t.Error("the session did not wait for its observer")
				default:
				}
				close(blocked)
				<-done
				seen.want(t, map[string]float64{"refresh.duration": 2})
			})
		})
	}
}

// With sdktrace.WithSyncer, a refresh waits for its export.
func TestSlowExporterDelaysItsOwnSessionAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		telemetry, err := otelfincodeauth.New(
			otelfincodeauth.WithMeterProvider(metricnoop.NewMeterProvider()),
			otelfincodeauth.WithTracerProvider(sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(slowProcessor{}))))
		if err != nil {
			t.Fatal(err)
		}
		w := newWorld(t, func(cfg *fincodeauth.Config) { cfg.Observe = telemetry.Observe })
		w.logIn(t, "a")
		w.logIn(t, "b")
		time.Sleep(2 * time.Hour)
		w.fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{After: time.Millisecond}) // only this one has a span
		done := make(chan time.Duration)
		began := time.Now()
		go func() {
			w.use(t, "a")
			done <- time.Since(began)
		}()
		time.Sleep(2 * time.Millisecond)
		at := time.Now()
		w.use(t, "b")
		if waited := time.Since(at); waited != 0 {
			t.Errorf("the other session waited %v", waited)
		}
		if waited := <-done; waited != time.Minute+time.Millisecond {
			t.Errorf("the session waited %v, want the minute of its export", waited)
		}
	})
}

func TestManySessionsAreObservedAtOnce(t *testing.T) {
	w := newWorldOf(t, fincodetest.New(fincodetest.Config{OpaqueTokens: true}))
	const sessions, events = 20, 50
	var work sync.WaitGroup
	for i := range sessions {
		work.Go(func() {
			key := fmt.Sprint(i)
			if err := w.sessions.Adopt(t.Context(), key, &oauth2.Token{AccessToken: "a" + key}); err != nil {
				t.Error(err)
			}
			for range events {
				w.seen.telemetry.Observe(fincodeauth.Event{Type: fincodeauth.Refreshed, Key: key, Time: time.Now(), Elapsed: time.Second})
				w.seen.telemetry.Observe(fincodeauth.Event{Type: fincodeauth.RefreshFailed, Key: key, Time: time.Now(), Err: errors.New("no")})
			}
		})
		work.Go(func() { w.seen.values(t) })
	}
	work.Wait()
	w.seen.want(t, map[string]float64{"session.adoptions": sessions, "session.in_memory": sessions,
		"refresh.duration": sessions * events, "refresh.duration{error.type=_OTHER}": sessions * events})
}

func TestEventsOfWhichThereAreManyAllocateNothing(t *testing.T) {
	telemetry := newTelemetry(t, sdkmetric.NewMeterProvider(sdkmetric.WithReader(sdkmetric.NewManualReader())), semconv.ServerAddress("acme"))
	for _, typ := range []fincodeauth.EventType{fincodeauth.Refreshed, fincodeauth.Adopted, fincodeauth.Replayed} {
		e := fincodeauth.Event{Type: typ, Key: "a", Time: time.Now()} // without a span
		if n := testing.AllocsPerRun(100, func() { telemetry.Observe(e) }); n != 0 {
			t.Errorf("observing %v allocates %v times, want 0", typ, n)
		}
	}
	e := fincodeauth.Event{Type: fincodeauth.Refreshed, Key: "a", Time: time.Now(), Elapsed: time.Second}
	if n := testing.AllocsPerRun(100, func() { telemetry.Observe(e) }); n > 8 {
		t.Errorf("observing an event with a span that is not sampled allocates %v times, want at most 8", n)
	}
}

func BenchmarkObserve(b *testing.B) {
	e := fincodeauth.Event{Type: fincodeauth.Refreshed, Key: "a", Time: time.Now(), Elapsed: time.Second}
	meters := otelfincodeauth.WithMeterProvider(sdkmetric.NewMeterProvider(sdkmetric.WithReader(sdkmetric.NewManualReader())))
	for name, tracers := range map[string]trace.TracerProvider{
		"metrics":           tracenoop.NewTracerProvider(),
		"metrics_and_spans": sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(discard{})),
	} {
		b.Run(name, func(b *testing.B) {
			telemetry, err := otelfincodeauth.New(meters, otelfincodeauth.WithTracerProvider(tracers))
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				telemetry.Observe(e)
			}
		})
	}
}

func newTelemetry(t testing.TB, provider metric.MeterProvider, attributes ...attribute.KeyValue) *otelfincodeauth.Telemetry {
	t.Helper()
	telemetry, err := otelfincodeauth.New(otelfincodeauth.WithMeterProvider(provider),
		otelfincodeauth.WithTracerProvider(tracenoop.NewTracerProvider()), otelfincodeauth.WithAttributes(attributes...))
	if err != nil {
		t.Fatal(err)
	}
	return telemetry
}

// handle collects what otel.Handle gets during the test.
func handle(t *testing.T) *[]string {
	t.Helper()
	var mu sync.Mutex
	told := new([]string)
	before := otel.GetErrorHandler()
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
		mu.Lock()
		defer mu.Unlock()
		*told = append(*told, err.Error())
	}))
	t.Cleanup(func() { otel.SetErrorHandler(before) })
	return told
}

// meters is a provider, and a meter, that panics or fails in one place.
type meters struct {
	metricnoop.MeterProvider
	panicIn, failIn string
}

func (m meters) Meter(string, ...metric.MeterOption) metric.Meter {
	m.harm("Meter")
	return brokenMeter{meters: m}
}

func (m meters) harm(where string) error {
	if m.panicIn == where {
		panic(where)
	}
	if m.failIn == where {
		return errors.New(where + " failed")
	}
	return nil
}

type brokenMeter struct {
	metricnoop.Meter
	meters meters
}

func (m brokenMeter) Int64Counter(string, ...metric.Int64CounterOption) (metric.Int64Counter, error) {
	return brokenCounter{meters: m.meters}, m.meters.harm("Int64Counter")
}

func (m brokenMeter) Float64Histogram(string, ...metric.Float64HistogramOption) (metric.Float64Histogram, error) {
	return brokenHistogram{meters: m.meters}, m.meters.harm("Float64Histogram")
}

func (m brokenMeter) RegisterCallback(f metric.Callback, _ ...metric.Observable) (metric.Registration, error) {
	if err := m.meters.harm("RegisterCallback"); err != nil {
		return nil, err
	}
	return brokenRegistration{}, f(context.Background(), brokenObserver{meters: m.meters}) // as if metrics were collected
}

type brokenCounter struct {
	metricnoop.Int64Counter
	meters meters
}

func (c brokenCounter) Add(_ context.Context, n int64, _ ...metric.AddOption) {
	if n > 0 { // New adds 0
		_ = c.meters.harm("Record")
	}
}

type brokenHistogram struct {
	metricnoop.Float64Histogram
	meters meters
}

func (h brokenHistogram) Record(context.Context, float64, ...metric.RecordOption) {
	_ = h.meters.harm("Record")
}

type brokenObserver struct {
	metricnoop.Observer
	meters meters
}

func (o brokenObserver) ObserveInt64(metric.Int64Observable, int64, ...metric.ObserveOption) {
	_ = o.meters.harm("Observe")
}

type brokenRegistration struct{ metricnoop.Registration }

// tracers is a provider, and a tracer, that panics in one place.
type tracers struct {
	tracenoop.TracerProvider
	panicIn string
}

func (p tracers) Tracer(string, ...trace.TracerOption) trace.Tracer {
	if p.panicIn == "Tracer" {
		panic("Tracer")
	}
	return brokenTracer{panicIn: p.panicIn}
}

type brokenTracer struct {
	tracenoop.Tracer
	panicIn string
}

func (t brokenTracer) Start(ctx context.Context, _ string, _ ...trace.SpanStartOption) (context.Context, trace.Span) {
	if t.panicIn == "Start" {
		panic("Start")
	}
	return ctx, brokenSpan{}
}

type brokenSpan struct{ tracenoop.Span }

func (brokenSpan) End(...trace.SpanEndOption) { panic("End") }

// A discard is a processor that keeps no span.
type discard struct{}

func (discard) OnStart(context.Context, sdktrace.ReadWriteSpan) {}
func (discard) OnEnd(sdktrace.ReadOnlySpan)                     {}
func (discard) Shutdown(context.Context) error                  { return nil }
func (discard) ForceFlush(context.Context) error                { return nil }

// A slowProcessor takes a minute for each span.
type slowProcessor struct{ discard }

func (slowProcessor) OnEnd(sdktrace.ReadOnlySpan) { time.Sleep(time.Minute) }
