package otelfincodeauth_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/oauth2"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/fincodetest"
)

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
	secure, plain := fincodetest.NewTLSServer(fincodetest.Config{}), fincodetest.NewServer(fincodetest.Config{})
	defer secure.Close()
	defer plain.Close()
	at := func(address string) http.RoundTripper {
		return &http.Transport{DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, address)
		}}
	}
	failing := func(err error) http.RoundTripper {
		return roundTripper(func(*http.Request) (*http.Response, error) { return nil, err })
	}
	for name, test := range map[string]struct {
		base http.RoundTripper
		want string
	}{
		"refused":           {at(listener.Addr().String()), "connection"},
		"wrong certificate": {at(hostOf(t, secure.URL)), "connection"},
		"no TLS":            {at(hostOf(t, plain.URL)), "connection"},
		"no such host":      {failing(&net.DNSError{Err: "no such host", Name: "test.fincode.software", IsNotFound: true}), "connection"},
		"reset":             {failing(fmt.Errorf("reading: %w", syscall.ECONNRESET)), "connection"},
		"closed":            {failing(io.EOF), "connection"},
		"slow DNS":          {failing(&net.DNSError{Err: "i/o timeout", Name: "test.fincode.software", IsTimeout: true}), "timeout"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, func(cfg *fincodeauth.Config) { cfg.Base = test.base })
			if err := w.sessions.Adopt(t.Context(), "a", &oauth2.Token{RefreshToken: "r"}); err != nil {
				t.Fatal(err)
			}
			w.useInVain(t, "a")
			w.seen.want(t, map[string]float64{"session.adoptions": 1, "refresh.duration{error.type=" + test.want + "}": 1})
		})
	}
}

func hostOf(t *testing.T, address string) string {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	return u.Host
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

func TestUnusableRecordIsAFailureOfTheStore(t *testing.T) {
	for name, rec := range map[string]*fincodeauth.Record{"none": nil, "no version": {Token: &oauth2.Token{RefreshToken: "r"}}} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, func(cfg *fincodeauth.Config) { cfg.Store = unusable{cfg.Store, rec} })
			w.useInVain(t, "a")
			w.seen.want(t, map[string]float64{"refresh.duration{error.type=store}": 1})
		})
	}
}

type unusable struct {
	fincodeauth.Store
	rec *fincodeauth.Record
}

func (s unusable) Load(context.Context, string) (*fincodeauth.Record, error) { return s.rec, nil }

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

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
