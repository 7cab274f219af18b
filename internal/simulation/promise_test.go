package simulation

import (
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/oauth2"

	"github.com/fincodeauth/fincodeauth"
)

// A scene is a world in which nothing goes wrong by chance. The test plays the
// processes A1 and B1 itself: no process runs the package.
type scene struct {
	*world
	a, b    *view
	version string // of the record in the store; "": there is none
}

func newScene() *scene {
	w := newWorld(1, nil, true)
	w.luck = luck{lifetime: time.Minute, timeout: time.Second}
	s := &scene{world: w}
	for i, v := range []**view{&s.a, &s.b} {
		p := newProcess(newMachine(w, i))
		p.id, p.name = i+1, string(rune('A'+i))+"1"
		*v = p.view(w.accounts[0])
	}
	return s
}

// save saves a record as v's process. It has the refresh token of the pair; nil: none.
func (s *scene) save(t *testing.T, v *view, of *pair, version string, edit func(*fincodeauth.Record)) {
	t.Helper()
	rec := &fincodeauth.Record{Version: version, Token: &oauth2.Token{}}
	if of != nil {
		rec.Token.RefreshToken = of.refresh
	}
	if edit != nil {
		edit(rec)
	}
	if saved := s.store.save(v, rec, s.version, false); saved.err != nil {
		t.Fatalf("%v saves %s: %v", v, version, saved.err)
	}
	s.version = version
}

func claimed(rec *fincodeauth.Record)   { rec.RefreshStarted = time.Now() }
func loggedOut(rec *fincodeauth.Record) { rec.Ended = "logged out" }

// wantBroken fails if the complaints do not contain part. If part is "", it fails
// if there is any complaint.
func (s *scene) wantBroken(t *testing.T, part string) {
	t.Helper()
	broken := strings.Join(s.broken, "\n")
	if part == "" && broken != "" || !strings.Contains(broken, part) {
		t.Errorf("broken: %q, want %q\n%s", broken, part, strings.Join(s.trace, "\n"))
	}
}

// call sends a request to FinCode as v's process. asked is when the package handed the
// request over.
func (s *scene) call(v *view, r *request, asked time.Time) *answer {
	r.account, r.asked = v.account, asked
	r.sent = s.promise.sends(v, r, false)
	s.mu.Lock()
	answer := s.fincode.serve(r)
	s.mu.Unlock()
	s.promise.hears(v, r, r.sent, answer)
	return answer
}

// login logs in as v's process, and returns the first pair.
func (s *scene) login(v *view) *pair {
	return s.call(v, &request{op: "login"}, time.Now()).issued
}

// present presents the pair's refresh token as v's process, and returns the next pair, or
// nil if FinCode refused the token.
func (s *scene) present(v *view, of *pair, asked time.Time) *pair {
	return s.call(v, &request{op: "refresh-token", refresh: of.refresh}, asked).issued
}

// logout tells FinCode as v's process that the pair's session has ended, and returns the
// HTTP status of the answer.
func (s *scene) logout(v *view, of *pair) int {
	return s.call(v, &request{op: "logout", access: of.access, refresh: of.refresh}, time.Now()).status
}

// A process claims a token and is about to present it. Another process takes over
// the claim and saves the successor. Then the user may log out. The first process
// presents the token after all. This is excused if that process slept, with or
// without the logout, and never if it was awake.
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
				s.luck.reuseRevokes = test.sleeps // FinCode's side then checks the excuse, too
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
				s.wantBroken(t, test.broken)
			})
		})
	}
}

// A Logout may present a young token, but only if FinCode's logout answered 401.
func TestALogoutPresentsAYoungTokenOnlyAfterA401(t *testing.T) {
	for _, test := range []struct {
		name      string
		revoke    func(*pair)
		asksFirst bool
		broken    string // part of the complaint; "": there is none
	}{
		{name: "access token revoked", revoke: func(p *pair) { p.revoked = true }, asksFirst: true},
		{name: "session revoked", revoke: func(p *pair) { p.family.revoked, p.family.revokedOutside = true, true }, asksFirst: true},
		{name: "no 401", revoke: func(*pair) {}, broken: "A1 refreshes 1.1, which is only 5s old"},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScene()
				first := s.login(s.a)
				s.save(t, s.a, first, "1.a", nil)
				time.Sleep(5 * time.Second)
				s.save(t, s.a, nil, "1.b", loggedOut)
				test.revoke(first)
				if test.asksFirst {
					if status := s.logout(s.a, first); status != http.StatusUnauthorized {
						t.Fatalf("the logout was answered %d, want 401", status)
					}
				}
				s.present(s.a, first, time.Now())
				s.wantBroken(t, test.broken)
			})
		})
	}
}
