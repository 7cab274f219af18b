package main

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fincodeauth/fincodeauth/fincodetest"
)

func TestProgramWithoutFlagsServesUsersAndStops(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out := &lockedBuffer{}
	done := make(chan error, 1)
	go func() {
		args := []string{"-listen", "127.0.0.1:0", "-admin", "127.0.0.1:0", "-dir", t.TempDir()}
		done <- run(ctx, args, noEnv, out, slog.New(slog.DiscardHandler))
	}()
	eventually(t, "the program says where it listens", func() bool { return strings.Contains(out.String(), "Health:") || len(done) > 0 })
	_, address, _ := strings.Cut(out.String(), "Open:     ")
	address, _, _ = strings.Cut(address, "/\n")
	for _, text := range []string{fincodetest.Email, fincodetest.Password} {
		if !strings.Contains(out.String(), text) {
			t.Errorf("the program does not say %q:\n%s", text, out)
		}
	}
	u, err := newUser(address, fincodetest.Email)
	if err == nil {
		err = u.logIn()
	}
	if err == nil {
		err = u.get("/")
	}
	if err != nil {
		t.Error(err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestSessionSurvivesARestart(t *testing.T) {
	fincode := fincodetest.NewServer(fincodetest.Config{})
	defer fincode.Close()
	dir := t.TempDir()
	var u *user
	for i := range 2 {
		r := startReplica(t, fincode, "", "-dir", dir)
		var err error
		if i == 0 {
			if u, err = newUser(r.public, fincodetest.Email); err == nil {
				err = u.logIn()
			}
		}
		u.site = r.public // cookies do not care about ports
		if err == nil {
			err = u.get("/")
		}
		if err != nil {
			t.Fatalf("run %d: %v\n%s", i+1, err, r.log)
		}
		r.stop(t)
		if code := r.wait(t); code != 0 {
			t.Fatalf("run %d: exit code %d\n%s", i+1, code, r.log)
		}
	}
	if got := fincode.Counts().Logins; got != 1 {
		t.Errorf("FinCode saw %d logins, want 1", got)
	}
}

func TestShutdownWaitsForRequestsUnderWay(t *testing.T) {
	entered, release, answered := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(entered)
		<-release
		_, _ = io.WriteString(w, "done")
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	health := newHealth(nil, slog.New(slog.DiscardHandler))
	addresses, served := make(chan string, 1), make(chan error, 1)
	go func() {
		served <- serve(ctx, options{listen: "127.0.0.1:0"}, handler, health, func(a net.Addr) { addresses <- a.String() })
	}()
	go func() {
		resp, err := http.Get("http://" + <-addresses)
		answered <- expect("GET /", resp, err, http.StatusOK)
	}()
	<-entered
	cancel()
	eventually(t, "the process is unready", func() bool { return !health.serving.Load() })
	select {
	case err := <-served:
		t.Fatalf("serve has returned while a request was under way: %v", err)
	default:
	}
	close(release)
	if err := <-answered; err != nil {
		t.Error(err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}

func TestShutdownWaitsForSaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		br := b.loggedIn()
		gate := make(chan struct{})
		time.Sleep(lifetime)
		b.store.close(gate)
		go br.get("/")
		synctest.Wait() // the claim of the refresh waits before the gate
		closed := make(chan error, 1)
		go func() { closed <- closeSessions(b.sessions, b.opts.saveTimeout) }()
		synctest.Wait()
		if len(closed) != 0 {
			t.Fatal("closeSessions has returned before the save")
		}
		b.store.close(nil)
		close(gate)
		if err := <-closed; err != nil {
			t.Error(err)
		}
	})
}

func TestTokenThatIsLostIsAnErrorOfTheShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		br := b.loggedIn()
		b.fincode.Inject(fincodetest.Refresh, 1, fincodetest.Fault{After: time.Second})
		time.Sleep(lifetime)
		go br.get("/")
		synctest.Wait()
		b.store.set(errStoreDown) // after FinCode has rotated the token
		time.Sleep(5 * time.Second)
		err := closeSessions(b.sessions, b.opts.saveTimeout)
		if err == nil || !strings.Contains(err.Error(), userKey(email)) {
			t.Errorf("the error is %v, want one that names the session", err)
		}
	})
}

// A rotation happens, the database is cut off, and the process is told to stop.
func TestStoppedProcessSavesWhenTheDatabaseIsBack(t *testing.T) {
	t.Parallel()
	s := newStranded(t)
	s.replica.stop(t)
	eventually(t, "the process stops", func() bool { return strings.Contains(s.replica.log.String(), "stopping") })
	s.cable.repair()
	if code := s.replica.wait(t); code != 0 {
		t.Errorf("exit code %d, want 0\n%s", code, s.replica.log)
	}
	next := startReplica(t, s.fincode, s.database)
	s.user.site = next.public
	if err := s.user.get("/session.json"); err != nil {
		t.Errorf("%v\n%s", err, next.log)
	}
	if again := s.fincode.PresentedMoreThanOnce(); len(again) != 0 {
		t.Errorf("refresh tokens were presented twice: %v", again)
	}
}

func TestStoppedProcessFailsIfATokenIsLost(t *testing.T) {
	t.Parallel()
	s := newStranded(t, "-save-timeout", "2s")
	s.replica.stop(t)
	if code := s.replica.wait(t); code != 1 {
		t.Errorf("exit code %d, want 1\n%s", code, s.replica.log)
	}
	if !strings.Contains(s.replica.log.String(), userKey(fincodetest.Email)) {
		t.Errorf("the log does not name the session:\n%s", s.replica.log)
	}
}

// A stranded is a process whose newest token is in its memory alone.
type stranded struct {
	fincode  *fincodetest.Server
	cable    *cable
	database string
	replica  *replica
	user     *user
}

func newStranded(t *testing.T, args ...string) *stranded {
	t.Helper()
	database := newSchema(t)
	s := &stranded{
		fincode: fincodetest.NewServer(fincodetest.Config{AccessLifetime: 2 * time.Second}),
		cable:   newCable(t, database.Host),
	}
	t.Cleanup(s.fincode.Close)
	database.Host = s.cable.listener.Addr().String()
	s.database = database.String()
	s.replica = startReplica(t, s.fincode, s.database, args...)
	var err error
	if s.user, err = newUser(s.replica.public, fincodetest.Email); err == nil {
		err = s.user.logIn()
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, s.replica.log)
	}
	s.fincode.Inject(fincodetest.Refresh, 1, fincodetest.Fault{After: 2 * time.Second}) // time to cut the cable
	eventually(t, "FinCode rotates the token", func() bool {
		if s.fincode.Counts().Refreshes == 0 {
			_ = s.user.get("/session.json") // a request starts the refresh
		}
		return s.fincode.Counts().Refreshes > 0
	})
	s.cable.cut()
	eventually(t, "a save fails", func() bool { return strings.Contains(s.replica.log.String(), "SaveFailed") })
	return s
}
