package otelfincodeauth

import (
	"context"
	"errors"
	"slices"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/fincodeauth/fincodeauth"
)

// instruments are what the metrics are recorded with. Nothing in it changes.
type instruments struct {
	meter metric.Meter

	refreshes metric.Float64Histogram
	takeovers, adoptions, logins, logouts, ends,
	saveFailures, saveRecoveries, reversions, journalFailures,
	replays, passedOrigins metric.Int64Counter

	inMemory, unsaved metric.Int64ObservableUpDownCounter
	soonestExpiry     metric.Float64ObservableGauge

	attributes []attribute.KeyValue // of WithAttributes

	// These have attributes alone. They are made once, so that recording an event
	// allocates nothing.
	add    []metric.AddOption
	rec    []metric.RecordOption
	gauges []metric.ObserveOption
}

// boundaries are those of HTTP's conventions, without the shortest ones, and with longer
// ones: a refresh may wait for three times Config.RefreshTimeout, which is 15 s.
func boundaries() []float64 {
	return []float64{0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 30, 60}
}

func newInstruments(meter metric.Meter, attributes []attribute.KeyValue) (*instruments, error) {
	all := metric.WithAttributeSet(attribute.NewSet(attributes...))
	ins := &instruments{
		meter:      meter,
		attributes: slices.Clone(attributes),
		add:        []metric.AddOption{all},
		rec:        []metric.RecordOption{all},
		gauges:     []metric.ObserveOption{all},
	}
	if err := errors.Join(ins.makeHistogram(), ins.makeCounters(), ins.makeGauges()); err != nil {
		return nil, err
	}
	ins.begin()
	return ins, nil
}

func (ins *instruments) makeHistogram() (err error) {
	ins.refreshes, err = ins.meter.Float64Histogram("fincode.refresh.duration",
		metric.WithUnit("s"),
		metric.WithDescription("Duration of refreshes: the call to FinCode if it rotated the tokens, the whole refresh if it failed."),
		metric.WithExplicitBucketBoundaries(boundaries()...))
	return err
}

func (ins *instruments) makeCounters() error {
	var errs []error
	for _, c := range []struct {
		counter                 *metric.Int64Counter
		name, unit, description string
	}{
		{&ins.takeovers, "fincode.refresh.takeovers", "{takeover}", "Refreshes that were taken over from a process that had died."},
		{&ins.adoptions, "fincode.session.adoptions", "{adoption}", "Tokens that were obtained elsewhere and are used by this process now."},
		{&ins.logins, "fincode.session.logins", "{login}", "Logins that succeeded."},
		{&ins.logouts, "fincode.session.logouts", "{logout}", "Sessions that were logged out or forgotten."},
		{&ins.ends, "fincode.session.ends", "{session}", "Sessions that need a login, by the reason."},
		{&ins.saveFailures, "fincode.store.save.failures", "{save}", "Changes whose first save failed. It is repeated."},
		{&ins.saveRecoveries, "fincode.store.save.recoveries", "{save}", "Changes that were saved after a failure, or from a journal."},
		{&ins.reversions, "fincode.store.reversions", "{reversion}", "Records for which the store had gone back to an earlier state."},
		{&ins.journalFailures, "fincode.journal.failures", "{file}", "Files that a journal could not write, read or remove."},
		{&ins.replays, "fincode.request.replays", "{request}", "Requests that were sent again with a new token after a 401."},
		{&ins.passedOrigins, "fincode.request.passed_origins", "{origin}", "Origins to which requests went without a token."},
	} {
		var err error
		*c.counter, err = ins.meter.Int64Counter(c.name, metric.WithUnit(c.unit), metric.WithDescription(c.description))
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (ins *instruments) makeGauges() error {
	var inMemory, unsaved, soonestExpiry error
	ins.inMemory, inMemory = ins.meter.Int64ObservableUpDownCounter("fincode.session.in_memory",
		metric.WithUnit("{session}"), metric.WithDescription("Sessions in this process's memory."))
	ins.unsaved, unsaved = ins.meter.Int64ObservableUpDownCounter("fincode.session.unsaved",
		metric.WithUnit("{session}"), metric.WithDescription("Sessions in memory whose last change the store has not accepted yet."))
	ins.soonestExpiry, soonestExpiry = ins.meter.Float64ObservableGauge("fincode.session.soonest_expiry",
		metric.WithUnit("s"), metric.WithDescription("Time until the first token in memory that is still good stops being used."))
	return errors.Join(inMemory, unsaved, soonestExpiry)
}

// begin sets the counters to 0: a system that sees a counter for the first time when it
// is 1 does not see that it has grown, so the first breach would raise no alert.
func (ins *instruments) begin() {
	ctx := context.Background()
	for _, c := range []metric.Int64Counter{
		ins.takeovers, ins.adoptions, ins.logins, ins.logouts, ins.saveFailures, ins.saveRecoveries,
		ins.reversions, ins.journalFailures, ins.replays, ins.passedOrigins,
	} {
		c.Add(ctx, 0, ins.add...)
	}
	for _, reason := range endReasons() {
		ins.ends.Add(ctx, 0, ins.with(EndReasonKey.String(reason)))
	}
}

// with returns the attributes of WithAttributes and a. It allocates, so it is for events
// that are rare.
func (ins *instruments) with(a attribute.KeyValue) metric.MeasurementOption {
	return metric.WithAttributeSet(attribute.NewSet(append(slices.Clone(ins.attributes), a)...))
}

// record counts the event. An event of a type that is not known is not counted.
func (ins *instruments) record(ctx context.Context, e fincodeauth.Event) {
	if e.TookOver {
		ins.takeovers.Add(ctx, 1, ins.add...)
	}
	switch e.Type {
	case fincodeauth.Refreshed:
		ins.refreshes.Record(ctx, e.Elapsed.Seconds(), ins.rec...)
	case fincodeauth.RefreshFailed:
		ins.refreshes.Record(ctx, e.Elapsed.Seconds(), ins.with(errorType(e)))
	case fincodeauth.LoggedOut:
		ins.recordLogout(ctx, e)
	case fincodeauth.Ended:
		ins.ends.Add(ctx, 1, ins.with(EndReasonKey.String(endReason(e.Err))))
	case fincodeauth.SaveFailed:
		ins.recordSaveFailure(ctx, e)
	default:
		if c := ins.counter(e.Type); c != nil {
			c.Add(ctx, 1, ins.add...)
		}
	}
}

// counter returns what counts the events of a type without any attribute of their own;
// nil: nothing does.
func (ins *instruments) counter(t fincodeauth.EventType) metric.Int64Counter {
	switch t {
	case fincodeauth.LoggedIn:
		return ins.logins
	case fincodeauth.Adopted:
		return ins.adoptions
	case fincodeauth.Saved:
		return ins.saveRecoveries
	case fincodeauth.Replayed:
		return ins.replays
	case fincodeauth.Passed:
		return ins.passedOrigins
	case fincodeauth.StoreReverted:
		return ins.reversions
	case fincodeauth.JournalFailed:
		return ins.journalFailures
	}
	return nil
}

func (ins *instruments) recordLogout(ctx context.Context, e fincodeauth.Event) {
	if e.Err != nil {
		ins.logouts.Add(ctx, 1, ins.with(errorType(e)))
		return
	}
	ins.logouts.Add(ctx, 1, ins.add...)
}

// recordSaveFailure counts a change that was not saved. If the change is the end of a
// session, Ended comes only when the store is back, so the reason is told here, too.
func (ins *instruments) recordSaveFailure(ctx context.Context, e fincodeauth.Event) {
	if reason := unsavedEndReason(e.Err); reason != "" {
		ins.saveFailures.Add(ctx, 1, ins.with(EndReasonKey.String(reason)))
		return
	}
	ins.saveFailures.Add(ctx, 1, ins.add...)
}

// watch calls observe each time metrics are collected.
func (ins *instruments) watch(observe func(metric.Observer)) (metric.Registration, error) {
	return ins.meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		observe(o)
		return nil
	}, ins.inMemory, ins.unsaved, ins.soonestExpiry)
}

// observe sets the gauges.
func (ins *instruments) observe(o metric.Observer, st fincodeauth.Stats, now time.Time) {
	o.ObserveInt64(ins.inMemory, int64(st.InMemory), ins.gauges...)
	o.ObserveInt64(ins.unsaved, int64(st.Unsaved), ins.gauges...)
	if !st.SoonestExpiry.IsZero() {
		o.ObserveFloat64(ins.soonestExpiry, max(0, st.SoonestExpiry.Sub(now).Seconds()), ins.gauges...)
	}
}
