package otelfincodeauth

import (
	"context"
	"slices"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/fincodeauth/fincodeauth"
)

// TookOverKey is an attribute of a span. It is true if this process has taken the refresh
// over from one that had died. Otherwise it is absent.
const TookOverKey = attribute.Key("fincode.refresh.took_over")

// spanName returns the name of the event's span; "": the event has none, because it has
// no duration.
func spanName(e fincodeauth.Event) string {
	if e.Elapsed <= 0 {
		return ""
	}
	switch e.Type {
	case fincodeauth.Refreshed, fincodeauth.RefreshFailed:
		return "fincode refresh"
	case fincodeauth.LoggedIn:
		return "fincode login"
	case fincodeauth.LoggedOut:
		return "fincode logout"
	case fincodeauth.Saved:
		return "fincode save"
	}
	return ""
}

// spanOptions are what all spans have. Nothing in it changes.
type spanOptions []trace.SpanStartOption

func newSpanOptions(attributes []attribute.KeyValue) spanOptions {
	return spanOptions{trace.WithSpanKind(trace.SpanKindInternal), trace.WithAttributes(slices.Clone(attributes)...)}
}

// make makes the span of an event that has just happened. The context that it returns has
// the span. The context of the refresh is not known here, and it would be that of one
// request of many.
func (s spanOptions) make(tracer trace.Tracer, name string, e fincodeauth.Event) context.Context {
	ctx, span := tracer.Start(context.Background(), name, append(slices.Clip(s), trace.WithTimestamp(e.Time.Add(-e.Elapsed)))...)
	if e.TookOver {
		span.SetAttributes(TookOverKey.Bool(true))
	}
	if e.Err != nil {
		kind := errorType(e)
		span.SetAttributes(kind)
		span.SetStatus(codes.Error, kind.Value.AsString())
	}
	span.End(trace.WithTimestamp(e.Time))
	return ctx
}
