package otelfincodeauth_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/trace"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/fincodetest"
	"github.com/fincodeauth/fincodeauth/otelfincodeauth"
)

func TestRefreshHasItsDurationInMetricAndSpan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.fc.Inject(fincodetest.Login, 1, fincodetest.Fault{After: 200 * time.Millisecond})
		w.logIn(t, "a")
		time.Sleep(2 * time.Hour)
		w.fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{After: 300 * time.Millisecond})
		began := time.Now()
		w.use(t, "a")

		w.seen.want(t, map[string]float64{"session.logins": 1, "refresh.duration": 1, "refresh.takeovers": 0})
		w.seen.wantSpans(t, "fincode login 200ms", "fincode refresh 300ms")
		for _, m := range collect(t, w.seen.reader) {
			if h, ok := m.Data.(metricdata.Histogram[float64]); ok {
				p := h.DataPoints[0]
				if p.Sum != 0.3 || m.Unit != "s" || p.Bounds[0] != 0.01 || p.Bounds[len(p.Bounds)-1] != 60 {
					t.Errorf("%s is %v %s in buckets %v, want 0.3 s in buckets from 0.01 to 60", m.Name, p.Sum, m.Unit, p.Bounds)
				}
				id := w.seen.exporter.GetSpans()[1].SpanContext.TraceID()
				if len(p.Exemplars) != 1 || trace.TraceID(p.Exemplars[0].TraceID) != id {
					t.Errorf("the exemplars are %v, want one with the trace %v of the refresh", p.Exemplars, id)
				}
			}
		}
		span := w.seen.exporter.GetSpans()[1]
		if !span.StartTime.Equal(began) || !span.EndTime.Equal(began.Add(300*time.Millisecond)) {
			t.Errorf("the span is from %v to %v, want 300 ms from %v", span.StartTime, span.EndTime, began)
		}
		if span.SpanKind != trace.SpanKindInternal || span.Parent.IsValid() {
			t.Errorf("the span is of kind %v with the parent %v, want an internal root span", span.SpanKind, span.Parent)
		}
	})
}

// FinCode has refused the refresh token, and the login after that fails, too.

// A mistake in a Store of one's own, and a record that somebody has damaged.

// An unusable store loads one record, and no error.

// The event Ended comes when the store is back, and a breach must not wait for that.

func TestTakeoverIsCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.logIn(t, "a")
		time.Sleep(2 * time.Hour)
		rec := w.record(t, "a")
		prev := rec.Version
		rec.Version, rec.RefreshStarted = "of-a-dead-process", time.Now()
		if err := w.store.Save(t.Context(), "a", rec, prev); err != nil {
			t.Fatal(err)
		}
		w.use(t, "a")
		w.seen.want(t, map[string]float64{"refresh.takeovers": 1, "refresh.duration": 1})
	})
}

func TestSpanIsThatOfItsEvent(t *testing.T) {
	seen := newSeen(t)
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	seen.telemetry.Observe(fincodeauth.Event{Type: fincodeauth.Refreshed, Time: at, Elapsed: time.Second, TookOver: true})
	span := seen.exporter.GetSpans()[0]
	if !span.StartTime.Equal(at.Add(-time.Second)) || !span.EndTime.Equal(at) {
		t.Errorf("the span is from %v to %v, want the second before %v", span.StartTime, span.EndTime, at)
	}
	if want := []attribute.KeyValue{otelfincodeauth.TookOverKey.Bool(true)}; !slices.Equal(span.Attributes, want) {
		t.Errorf("the span has the attributes %v, want %v", span.Attributes, want)
	}
}

func TestUnsavedChangeIsSeenUntilTheStoreHasIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.logIn(t, "a")
		time.Sleep(2 * time.Hour)
		w.store.fail(nil, changesFail)
		w.use(t, "a")
		w.seen.want(t, map[string]float64{"store.save.failures": 1, "session.unsaved": 1, "store.save.recoveries": 0})
		time.Sleep(time.Minute)
		w.seen.want(t, map[string]float64{"store.save.failures": 1, "session.unsaved": 1})
		w.store.fail(nil, nil)
		time.Sleep(time.Minute)
		w.seen.want(t, map[string]float64{"store.save.failures": 1, "session.unsaved": 0, "store.save.recoveries": 1})
		spans := w.seen.exporter.GetSpans()
		if last := spans[len(spans)-1]; last.Name != "fincode save" || last.EndTime.Sub(last.StartTime) < time.Minute {
			t.Errorf("the last span is %s of %v, want fincode save of more than a minute", last.Name, last.EndTime.Sub(last.StartTime))
		}
	})
}

func TestRevertedStoreIsCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.logIn(t, "a")
		before := w.record(t, "a")
		time.Sleep(2 * time.Hour)
		w.use(t, "a")
		if err := errors.Join(w.store.Delete(t.Context(), "a"), w.store.Save(t.Context(), "a", before, "")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Hour)
		w.use(t, "a")
		w.seen.want(t, map[string]float64{"store.reversions": 1, "session.ends{fincode.session.end.reason=breach}": 0})
	})
}

func TestFailureOfTheJournalIsCounted(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "journal")
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(cfg *fincodeauth.Config) {
			var err error
			if cfg.Store, err = fincodeauth.Journal(cfg.Store, dir); err != nil {
				t.Fatal(err)
			}
		})
		synctest.Wait() // New has looked into the folder
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		w.logIn(t, "a")
		w.seen.want(t, map[string]float64{"journal.failures": 1, "store.save.failures": 0})
	})
}

func TestReplaysPassesAndLogoutsAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.logIn(t, "a")
		client := w.sessions.Client("a")
		get := func(url string) {
			t.Helper()
			resp, err := client.Get(url)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
		}
		time.Sleep(time.Minute)
		w.fc.RevokeAccessTokens()
		get(api + "/balance")
		for range 2 {
			get("https://elsewhere.example.com/")
		}
		w.fc.Inject(fincodetest.Logout, 1, fincodetest.Fault{After: time.Second})
		if err := w.sessions.Logout(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		w.logIn(t, "a")
		w.fc.Inject(fincodetest.Logout, 1, fincodetest.Fault{Kind: fincodetest.ErrorStatus, Status: 502})
		if err := w.sessions.Logout(t.Context(), "a"); err == nil {
			t.Fatal("the logout succeeded")
		}
		w.logIn(t, "a")
		w.fc.Inject(fincodetest.Logout, 1, fincodetest.Fault{Kind: fincodetest.HangUp})
		if err := w.sessions.Logout(t.Context(), "a"); err == nil {
			t.Fatal("the logout succeeded")
		}
		w.seen.want(t, map[string]float64{"request.replays": 1, "request.passed_origins": 1, "session.logins": 3,
			"session.logouts": 1, "session.logouts{error.type=502}": 1, "session.logouts{error.type=connection}": 1})
		w.seen.wantSpans(t, "fincode logout 1s")
	})
}

// If an event is added to fincodeauth, this fails until there is a metric for it.

func TestEveryTypeOfEventIsCounted(t *testing.T) {
	for typ := fincodeauth.LoggedIn; !strings.Contains(typ.String(), "EventType("); typ++ {
		seen := newSeen(t)
		seen.telemetry.Observe(fincodeauth.Event{Type: typ, Key: "a", Time: time.Now(), Err: errors.New("why")})
		if n := len(seen.values(t)); n != 1 {
			t.Errorf("%v changed %d metrics, want 1", typ, n)
		}
	}
}

func TestUnknownEventsAreIgnored(t *testing.T) {
	seen := newSeen(t)
	for _, typ := range []fincodeauth.EventType{0, 255} {
		seen.telemetry.Observe(fincodeauth.Event{Type: typ, Time: time.Now(), Elapsed: time.Second, Err: errors.New("why")})
	}
	if values := seen.values(t); len(values) != 0 {
		t.Errorf("unknown events changed %v", values)
	}
	seen.wantSpans(t)
}
