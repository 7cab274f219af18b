package otelfincodeauth_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
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
	"golang.org/x/oauth2"

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

func TestFailureOfFinCodeHasAnErrorTypeOfFewValues(t *testing.T) {
	for name, test := range map[string]struct {
		config fincodetest.Config
		fault  fincodetest.Fault
		want   string
	}{
		"503":               {fault: fincodetest.Fault{Kind: fincodetest.ErrorStatus, Status: 503}, want: "503"},
		"rate limit":        {fault: fincodetest.Fault{Kind: fincodetest.ErrorStatus, Status: 429, RetryAfter: "7"}, want: "429"},
		"firewall":          {fault: fincodetest.Fault{Kind: fincodetest.FirewallPage}, want: "403"},
		"redirect":          {fault: fincodetest.Fault{Kind: fincodetest.Redirect, Location: "https://example.com/"}, want: "307"},
		"unheard of status": {fault: fincodetest.Fault{Kind: fincodetest.ErrorStatus, Status: 999}, want: "_OTHER"},
		"no answer in time": {fault: fincodetest.Fault{Before: time.Hour}, want: "timeout"},
		"hang-up":           {fault: fincodetest.Fault{Kind: fincodetest.HangUp}, want: "connection"},
		"truncated":         {fault: fincodetest.Fault{Kind: fincodetest.Truncated}, want: "connection"},
		"garbage":           {fault: fincodetest.Fault{Kind: fincodetest.Garbage}, want: "invalid_answer"},
		"oversized":         {fault: fincodetest.Fault{Kind: fincodetest.Oversized}, want: "invalid_answer"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorldOf(t, fincodetest.New(test.config))
				w.logIn(t, "a")
				time.Sleep(2 * time.Hour)
				w.fc.Inject(fincodetest.Refresh, 1, test.fault)
				w.useInVain(t, "a")
				w.seen.want(t, map[string]float64{"refresh.duration{error.type=" + test.want + "}": 1, "refresh.duration": 0})
				if test.want == "timeout" {
					w.seen.wantSpans(t, "fincode refresh 15s timeout")
				}
			})
		})
	}
}

func TestTokenThatNoHeaderCanCarryIsAnInvalidAnswer(t *testing.T) {
	w := newWorld(t, func(cfg *fincodeauth.Config) {
		cfg.Base = roundTripper(func(req *http.Request) (*http.Response, error) {
			answer := httptest.NewRecorder()
			answer.WriteString(`{"access_token": "two words", "refresh_token": "r"}`)
			return answer.Result(), nil
		})
	})
	if err := w.sessions.Adopt(t.Context(), "a", &oauth2.Token{RefreshToken: "r"}); err != nil {
		t.Fatal(err)
	}
	w.useInVain(t, "a")
	w.seen.want(t, map[string]float64{"refresh.duration{error.type=invalid_answer}": 1})
}

// FinCode has refused the refresh token, and the login after that fails, too.
func TestFailureOfALoginIsOneOfTheRefresh(t *testing.T) {
	for want, fault := range map[string]fincodetest.Fault{
		"503":            {Kind: fincodetest.ErrorStatus, Status: 503},
		"connection":     {Kind: fincodetest.HangUp},
		"invalid_answer": {Kind: fincodetest.Garbage},
		"timeout":        {Before: time.Hour},
	} {
		t.Run(want, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorldOf(t, fincodetest.New(fincodetest.Config{RefreshLifetime: 90 * time.Minute}), func(cfg *fincodeauth.Config) {
					cfg.Credentials = func(context.Context, string, error) (fincodeauth.Credentials, error) { return credentials, nil }
				})
				w.logIn(t, "a")
				time.Sleep(2 * time.Hour)
				w.fc.Inject(fincodetest.Login, 1, fault)
				w.useInVain(t, "a")
				w.seen.want(t, map[string]float64{"refresh.duration{error.type=" + want + "}": 1, "session.logins": 1})
				time.Sleep(time.Hour)
				w.use(t, "a")
				w.seen.want(t, map[string]float64{"session.logins": 2})
			})
		})
	}
}

func TestFailureThatCameAs200HasTheStatusOfItsCode(t *testing.T) {
	for code, want := range map[string]string{
		"AUTH_REQUIRED": "401", "FORBIDDEN": "403", "NOT_FOUND": "404", "VALIDATION_ERROR": "422",
		"RATE_LIMIT_EXCEEDED": "429", "INTERNAL": "500", "": "500",
	} {
		seen := newSeen(t)
		err := &fincodeauth.EndpointError{Op: "refresh-token", Status: 200, Code: code}
		seen.telemetry.Observe(fincodeauth.Event{Type: fincodeauth.RefreshFailed, Err: err})
		seen.want(t, map[string]float64{"refresh.duration{error.type=" + want + "}": 1})
	}
}

func TestFailureOfTheNetworkIsOneOfTheConnection(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener.Close() // nobody listens there now
	for name, base := range map[string]http.RoundTripper{
		"refused": &http.Transport{DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, listener.Addr().String())
		}},
		"no such host": roundTripper(func(*http.Request) (*http.Response, error) {
			return nil, &net.DNSError{Err: "no such host", Name: "test.fincode.software", IsNotFound: true}
		}),
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, func(cfg *fincodeauth.Config) { cfg.Base = base })
			if err := w.sessions.Adopt(t.Context(), "a", &oauth2.Token{RefreshToken: "r"}); err != nil {
				t.Fatal(err)
			}
			w.useInVain(t, "a")
			w.seen.want(t, map[string]float64{"session.adoptions": 1, "refresh.duration{error.type=connection}": 1})
		})
	}
}

func TestFailureOfTheStoreIsNotOneOfFinCode(t *testing.T) {
	// As redis reports it. In a call to FinCode, this would be "connection".
	refused := &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", errors.New("connection refused"))}
	for name, test := range map[string]struct {
		loading func(context.Context) error
		saving  func(*fincodeauth.Record) error
	}{
		"the load fails":   {func(context.Context) error { return refused }, nil},
		"the load is slow": {func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }, nil},
		"the claim fails":  {nil, claimsFail},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.logIn(t, "a")
				time.Sleep(2 * time.Hour)
				w.store.fail(test.loading, test.saving)
				w.useInVain(t, "a")
				w.seen.want(t, map[string]float64{"refresh.duration{error.type=store}": 1})
			})
		})
	}
}

func TestStoreThatIsSlowAfterItWentBackIsAFailureOfTheStore(t *testing.T) {
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
		w.store.fail(nil, func(*fincodeauth.Record) error { time.Sleep(time.Minute); return context.DeadlineExceeded })
		w.useInVain(t, "a")
		w.seen.want(t, map[string]float64{"refresh.duration{error.type=store}": 1})
	})
}

func TestOtherFailuresHaveTheTypeOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(cfg *fincodeauth.Config) {
			cfg.Base = roundTripper(func(*http.Request) (*http.Response, error) { return nil, errors.New("ada@example.com") })
		})
		if err := w.sessions.Adopt(t.Context(), "a", &oauth2.Token{RefreshToken: "r"}); err != nil {
			t.Fatal(err)
		}
		w.useInVain(t, "a")
		w.seen.want(t, map[string]float64{"refresh.duration{error.type=_OTHER}": 1})
	})
}

func TestEndOfASessionHasItsReason(t *testing.T) {
	lost := fincodetest.Fault{Kind: fincodetest.HangUp, TakesEffect: true}
	wrong := func(cfg *fincodeauth.Config) {
		cfg.Credentials = func(context.Context, string, error) (fincodeauth.Credentials, error) {
			return fincodeauth.Credentials{Email: fincodetest.Email, Password: "wrong"}, nil
		}
	}
	for _, test := range []struct {
		reason string
		fc     fincodetest.Config
		edit   func(*fincodeauth.Config)
		harm   func(*testing.T, *world)
	}{
		{reason: "breach", harm: func(t *testing.T, w *world) { w.steal(t, "a") }},
		{reason: "interrupted", harm: func(t *testing.T, w *world) {
			w.fc.Inject(fincodetest.Refresh, 1, lost)
			w.useInVain(t, "a")
			time.Sleep(time.Minute)
		}},
		{reason: "rejected", fc: fincodetest.Config{RefreshLifetime: 90 * time.Minute}},
		{reason: "login_refused", fc: fincodetest.Config{RefreshLifetime: 90 * time.Minute}, edit: wrong},
		{reason: "no_refresh_token", harm: func(t *testing.T, w *world) {
			tok := w.record(t, "a").Token
			if err := w.sessions.Adopt(t.Context(), "a", &oauth2.Token{AccessToken: tok.AccessToken, Expiry: time.Now().Add(-time.Minute)}); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(test.reason, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorldOf(t, fincodetest.New(test.fc), func(cfg *fincodeauth.Config) {
					if test.edit != nil {
						test.edit(cfg)
					}
				})
				w.logIn(t, "a")
				time.Sleep(2 * time.Hour)
				if test.harm != nil {
					test.harm(t, w)
				}
				w.useInVain(t, "a")
				w.seen.want(t, map[string]float64{"session.ends{fincode.session.end.reason=" + test.reason + "}": 1})
			})
		})
	}
}

// The event Ended comes when the store is back, and a breach must not wait for that.
func TestBreachIsCountedWhileTheStoreIsDown(t *testing.T) {
	for reason, harm := range map[string]func(*testing.T, *world){
		"breach": func(t *testing.T, w *world) { w.steal(t, "a") },
		"interrupted": func(t *testing.T, w *world) {
			w.fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{Kind: fincodetest.HangUp, TakesEffect: true})
			w.useInVain(t, "a")
			time.Sleep(time.Minute)
		},
	} {
		t.Run(reason, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.logIn(t, "a")
				time.Sleep(2 * time.Hour)
				harm(t, w)
				w.store.fail(nil, changesFail)
				w.useInVain(t, "a")
				attribute := "{fincode.session.end.reason=" + reason + "}"
				w.seen.want(t, map[string]float64{"store.save.failures" + attribute: 1, "store.save.failures": 0, "session.ends" + attribute: 0, "session.unsaved": 1})
				w.store.fail(nil, nil)
				time.Sleep(time.Minute)
				w.seen.want(t, map[string]float64{"store.save.failures" + attribute: 1, "session.ends" + attribute: 1, "session.unsaved": 0})
			})
		})
	}
}

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

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
