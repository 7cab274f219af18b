package proxy_test

import (
	"errors"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"

	"github.com/fincodeauth/fincodeauth/cmd/fincode/internal/proxy"
	"github.com/fincodeauth/fincodeauth/fincodetest"
)

// delays sets the delays after SIGTERM.
func delays(least, most time.Duration) func(*proxy.Config) {
	return func(c *proxy.Config) { c.MinSigtermDelay, c.MaxSigtermDelay = least, most }
}

// probe returns the status of a probe.
func (s *stage) probe(name string) int {
	s.Helper()
	req := s.request(http.MethodGet, "/-/"+name, nil)
	req.Header.Del("Authorization")
	return s.do(req).StatusCode
}

// opened makes a request that FinCode answers when release is closed. answered gets the
// status of the answer; 0: there was none.
func (s *stage) opened() (release chan struct{}, answered chan int) {
	s.Helper()
	release, answered = make(chan struct{}), make(chan int, 1)
	arrived := make(chan struct{})
	s.up.handle("/open", func(w http.ResponseWriter, r *http.Request) {
		close(arrived)
		select {
		case <-release:
		case <-r.Context().Done():
		}
	})
	go func() {
		resp, err := s.client.Do(s.request(http.MethodGet, "/open", nil))
		if err != nil {
			answered <- 0
			return
		}
		resp.Body.Close()
		answered <- resp.StatusCode
	}()
	<-arrived
	return release, answered
}

func TestProbesFollowTheLifeOfTheProxyAndNothingElse(t *testing.T) {
	s := newStage(t, fincodetest.Config{}, delays(time.Hour, time.Hour))
	s.up.Inject(fincodetest.API, -1, fincodetest.Fault{Kind: fincodetest.HangUp})
	s.sessions.Logout(t.Context(), session)
	want := func(when string, startup, liveness, readiness int) {
		t.Helper()
		if a, b, c := s.probe("startup"), s.probe("liveness"), s.probe("readiness"); a != startup || b != liveness || c != readiness {
			t.Errorf("%s: %d, %d, %d, want %d, %d, %d", when, a, b, c, startup, liveness, readiness)
		}
	}
	want("without FinCode and without a session", 200, 200, 200)
	s.signals <- syscall.SIGTERM
	eventually(t, "readiness says no", func() bool { return s.probe("readiness") == 503 })
	want("after SIGTERM", 200, 200, 503)
	s.signals <- syscall.SIGTERM
	if err := s.ended(); err != nil {
		t.Errorf("error %v, want none: no request was open", err)
	}
}

func TestProxyGoesOnForTheMinimumAfterSIGTERMAndOpenRequestsEnd(t *testing.T) {
	s := newStage(t, fincodetest.Config{}, delays(300*time.Millisecond, time.Minute))
	release, answered := s.opened()
	began := time.Now()
	s.signals <- syscall.SIGTERM
	eventually(t, "readiness says no", func() bool { return s.probe("readiness") == 503 })
	if got := s.get("/whoami"); got.StatusCode != http.StatusOK {
		t.Errorf("during the delay, a request gets %s", got.Status)
	}
	address := strings.TrimPrefix(s.url, "http://")
	eventually(t, "the proxy accepts no connection", func() bool {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
		}
		return err != nil
	})
	if took := time.Since(began); took < 300*time.Millisecond {
		t.Errorf("the proxy accepted connections for %v, want at least 300 ms", took)
	}
	close(release)
	if status := <-answered; status != http.StatusOK {
		t.Errorf("the open request gets %d, want 200", status)
	}
	if err := s.ended(); err != nil {
		t.Errorf("error %v, want none", err)
	}
}

func TestRequestsAndWebsocketsAreCutOffAfterTheMaximum(t *testing.T) {
	s := newStage(t, fincodetest.Config{}, delays(0, 300*time.Millisecond))
	s.up.handle("/live", echoMessages)
	conn := s.dial("/live")
	defer conn.CloseNow()
	wantMessage(t, conn)
	_, answered := s.opened()
	s.signals <- syscall.SIGTERM
	cut, ok := errors.AsType[*proxy.CutError](s.ended())
	if !ok || cut.Requests != 2 || !strings.Contains(cut.Error(), "--max-sigterm-delay") {
		t.Errorf("error %v, want one about two requests", cut)
	}
	if status := <-answered; status == http.StatusOK {
		t.Error("the request got its answer, want that it is cut off")
	}
	if _, _, err := conn.Read(t.Context()); err == nil {
		t.Error("the websocket still works")
	}
}

func TestWebsocketThatEndsInTimeIsNotCutOff(t *testing.T) {
	s := newStage(t, fincodetest.Config{}, delays(0, time.Minute))
	s.up.handle("/live", echoMessages)
	conn := s.dial("/live")
	s.signals <- syscall.SIGTERM
	eventually(t, "the proxy stops", func() bool { return strings.Contains(s.log.String(), "the proxy stops") })
	wantMessage(t, conn)
	conn.Close(websocket.StatusNormalClosure, "")
	if err := s.ended(); err != nil {
		t.Errorf("error %v, want none", err)
	}
}

func TestSecondSignalEndsAtOnce(t *testing.T) {
	s := newStage(t, fincodetest.Config{}, delays(time.Hour, time.Hour))
	_, answered := s.opened()
	s.signals <- syscall.SIGTERM
	s.signals <- syscall.SIGTERM
	if cut, ok := errors.AsType[*proxy.CutError](s.ended()); !ok || cut.Requests != 1 {
		t.Errorf("error %v, want one about one request", cut)
	}
	<-answered
}

func TestInterruptSkipsTheMinimum(t *testing.T) {
	s := newStage(t, fincodetest.Config{}, delays(time.Hour, time.Hour))
	s.signals <- syscall.SIGINT
	if err := s.ended(); err != nil {
		t.Errorf("error %v, want none", err)
	}
}

func TestStreamOfThePageDoesNotHoldTheEndUp(t *testing.T) {
	streaming := make(chan struct{})
	s := newStage(t, fincodetest.Config{}, func(c *proxy.Config) {
		c.MaxSigtermDelay = time.Hour
		c.Page = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			http.NewResponseController(w).Flush()
			close(streaming)
			<-r.Context().Done()
		})
	})
	resp, err := s.client.Do(s.request(http.MethodGet, "/-/events", nil))
	if err != nil {
		t.Fatal(err)
	}
	<-streaming
	s.signals <- syscall.SIGTERM
	io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	if err := s.ended(); err != nil {
		t.Errorf("error %v, want none", err)
	}
}

func TestNoGoroutineOutlivesServe(t *testing.T) {
	s := newUnserved(t, fincodetest.Config{}, delays(0, 0))
	s.up.handle("/live", echoMessages)
	before := goleak.IgnoreCurrent()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.serve(tcp)
	conn := s.dial("/live")
	_, answered := s.opened()
	s.get("/whoami")
	s.signals <- syscall.SIGTERM
	if _, ok := errors.AsType[*proxy.CutError](s.ended()); !ok {
		t.Error("nothing was cut off")
	}
	<-answered
	conn.CloseNow()
	s.client.CloseIdleConnections()
	s.base.CloseIdleConnections() // connections to FinCode are the caller's
	goleak.VerifyNone(t, before)
}

func TestSeveralListenersAtOnce(t *testing.T) {
	s := newUnserved(t, fincodetest.Config{}, nil)
	path := filepath.Join(t.TempDir(), "s")
	listeners, err := proxy.Listen(t.Context(), proxy.Addresses{TCP: []string{"127.0.0.1:0", "127.0.0.1:0"}, Unix: []string{path}}, s.logger())
	if err != nil {
		t.Fatal(err)
	}
	s.serve(listeners...)
	for _, where := range []string{listeners[0].Addr().String(), "http://fincode:" + s.key + "@" + listeners[1].Addr().String(), path} {
		if err := proxy.Wait(t.Context(), where); err != nil {
			t.Error(err)
		}
	}
}

func TestListenerThatFailsEndsTheProxy(t *testing.T) {
	s := newUnserved(t, fincodetest.Config{}, nil)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.serve(listener)
	listener.Close()
	if err := s.ended(); err == nil || !strings.Contains(err.Error(), listener.Addr().String()) {
		t.Errorf("error %v, want one that names the address", err)
	}
}
