package simulation

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/oauth2"

	"github.com/fincodeauth/fincodeauth"
)

// A scene is a world without luck, in which a test plays the processes itself:
// no process runs the package.
type scene struct {
	*world
	a, b    *process
	version string // of the record in the store; "": there is none
}

func newScene() *scene {
	w := newWorld(1, nil, true)
	w.luck = luck{lifetime: time.Minute, timeout: time.Second}
	s := &scene{world: w}
	s.a = &process{machine: newMachine(w, 0), id: 1, name: "A1"}
	s.b = &process{machine: newMachine(w, 1), id: 2, name: "B1"}
	return s
}

// save saves a record as p. Its refresh token is that of pair; nil: none.
func (s *scene) save(t *testing.T, p *process, of *pair, version string, edit func(*fincodeauth.Record)) {
	t.Helper()
	rec := &fincodeauth.Record{Version: version, Token: &oauth2.Token{}}
	if of != nil {
		rec.Token.RefreshToken = of.refresh
	}
	if edit != nil {
		edit(rec)
	}
	if saved := s.store.save(p, rec, s.version, false); saved.err != nil {
		t.Fatalf("%v saves %s: %v", p, version, saved.err)
	}
	s.version = version
}

func claimed(rec *fincodeauth.Record)   { rec.RefreshStarted = time.Now() }
func loggedOut(rec *fincodeauth.Record) { rec.Ended = "logged out" }

// login logs in at FinCode as p, and returns the first pair.
func (s *scene) login(p *process) *pair {
	r := &request{op: "login", asked: time.Now()}
	r.sent = s.promise.sends(p, r, false)
	s.mu.Lock()
	answer := s.fincode.serve(r)
	s.mu.Unlock()
	s.promise.hears(p, r, r.sent, answer)
	return answer.issued
}

// present presents the pair's refresh token as p, and returns the next pair, or
// nil if FinCode refused the token.
func (s *scene) present(p *process, of *pair, asked time.Time) *pair {
	r := &request{op: "refresh-token", refresh: of.refresh, asked: asked}
	r.sent = s.promise.sends(p, r, false)
	s.mu.Lock()
	answer := s.fincode.serve(r)
	s.mu.Unlock()
	s.promise.hears(p, r, r.sent, answer)
	return answer.issued
}

// A process claims a token and is about to present it. Another process takes the
// claim over, saves the successor, and then the user logs out. The first process
// presents the token after all. That is excused only if it slept meanwhile, and
// the logout changes nothing about that.
func TestPresentingAfterALogoutIsExcusedBySleepOnly(t *testing.T) {
	for _, test := range []struct {
		name            string
		sleeps, logsOut bool
		broken          string // part of the complaint; "": there is none
	}{
		{name: "it slept", sleeps: true},
		{name: "it slept, and the user logged out", sleeps: true, logsOut: true},
		{name: "it was awake", broken: "its successor 1.2 is in the store"},
		{name: "it was awake, and the user logged out", logsOut: true, broken: "its successor 1.2 is in the store"},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScene()
				s.luck.reuseRevokes = test.sleeps // FinCode then asks for the excuse, too
				first := s.login(s.a)
				s.save(t, s.a, first, "1.a", nil)
				time.Sleep(s.luck.lifetime)

				s.save(t, s.a, first, "1.b", claimed)
				asked := time.Now()
				if test.sleeps {
					s.a.slept = append(s.a.slept, pause{asked, asked.Add(3 * s.luck.timeout)})
				}
				time.Sleep(2 * s.luck.timeout)
				s.save(t, s.b, first, "1.c", claimed)
				s.save(t, s.b, s.present(s.b, first, time.Now()), "1.d", nil)
				if test.logsOut {
					s.save(t, s.b, nil, "1.e", loggedOut)
				}
				time.Sleep(s.luck.timeout)
				if len(s.broken) > 0 {
					t.Fatalf("before %v presents the token: %s", s.a, s.broken)
				}

				if s.present(s.a, first, asked) != nil {
					t.Fatal("FinCode accepted the token twice")
				}
				broken := strings.Join(s.broken, "\n")
				if test.broken == "" && broken != "" || !strings.Contains(broken, test.broken) {
					t.Errorf("broken: %q, want %q\n%s", broken, test.broken, strings.Join(s.trace, "\n"))
				}
			})
		})
	}
}
