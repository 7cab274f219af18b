package fincodetest_test

import (
	"errors"
	"io"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/fincodeauth/fincodeauth/fincodetest"
)

// toServer sends every request to the server, whatever the host in its URL.
type toServer struct{ *fincodetest.Server }

func (s toServer) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	scheme, rest, _ := strings.Cut(s.URL, "://")
	r.URL.Scheme = scheme
	r.URL.Host, _, _ = strings.Cut(rest, "/")
	r.Host = ""
	return s.Client().Transport.RoundTrip(r)
}

func TestServerAnswersOnASocket(t *testing.T) {
	for name, start := range map[string]func(fincodetest.Config) *fincodetest.Server{
		"http": fincodetest.NewServer, "https": fincodetest.NewTLSServer,
	} {
		t.Run(name, func(t *testing.T) {
			srv := start(fincodetest.Config{ClockOffset: time.Hour})
			defer srv.Close()
			if !strings.HasPrefix(srv.URL, name+"://127.0.0.1:") || !strings.HasSuffix(srv.URL, fincodetest.Root) {
				t.Errorf("URL %s, want %s://127.0.0.1:PORT%s", srv.URL, name, fincodetest.Root)
			}
			s := session(t, toServer{srv})
			next := refresh(t, toServer{srv}, s.refresh())
			got := whoami(t, toServer{srv}, next.access())
			wantStatus(t, "whoami", got, 200)
			if date, err := http.ParseTime(got.header.Get("Date")); err != nil || time.Until(date) < 50*time.Minute {
				t.Errorf("Date %v (%v), want one that is an hour ahead", date, err)
			}
		})
	}
}

func TestOnlyItsClientTrustsATLSServer(t *testing.T) {
	srv := fincodetest.NewTLSServer(fincodetest.Config{})
	defer srv.Close()
	stranger := &http.Client{Transport: &http.Transport{}}
	if resp, err := stranger.Get(srv.URL + "/whoami"); err == nil {
		resp.Body.Close()
		t.Error("another client trusts the certificate")
	}
}

func TestServerHangsUp(t *testing.T) {
	srv := fincodetest.NewServer(fincodetest.Config{})
	defer srv.Close()
	s := session(t, toServer{srv})
	srv.Inject(fincodetest.Refresh, 1, fincodetest.Fault{Kind: fincodetest.HangUp, TakesEffect: true})
	if _, err := send(toServer{srv}, refreshRequest(t.Context(), s.refresh())); !errors.Is(err, io.EOF) {
		t.Errorf("hang-up: error %v, want EOF", err)
	}
	wantStatus(t, "the lost token again", refresh(t, toServer{srv}, s.refresh()), 403)

	srv.Inject(fincodetest.Login, 1, fincodetest.Fault{Kind: fincodetest.Truncated})
	got, err := send(toServer{srv}, loginRequest(fincodetest.Email, fincodetest.Password))
	if !errors.Is(err, io.ErrUnexpectedEOF) || got.status != 200 || !strings.HasPrefix(got.body, `{"access_token":"ey`) {
		t.Errorf("truncated: error %v, status %d, body %.30q", err, got.status, got.body)
	}
}

func TestCloseEndsEveryGoroutine(t *testing.T) {
	before := runtime.NumGoroutine()
	srv := fincodetest.NewServer(fincodetest.Config{})
	session(t, toServer{srv})
	srv.Inject(fincodetest.API, -1, fincodetest.Fault{Before: time.Hour})
	done := make(chan error)
	go func() {
		_, err := send(toServer{srv}, apiRequest("POST", "/whoami", "", "x"))
		done <- err
	}()
	for srv.Counts().APICalls == 0 {
		runtime.Gosched()
	}
	srv.Close()
	srv.Close()
	if err := <-done; err == nil {
		t.Error("the call in progress got an answer, want an error")
	}
	// The client's own goroutines notice the closed connection a moment later.
	for deadline := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > before; runtime.Gosched() {
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<16)
			t.Fatalf("%d goroutines after Close, and %d before NewServer:\n%s", runtime.NumGoroutine(), before, stacks[:runtime.Stack(stacks, true)])
		}
	}
}
