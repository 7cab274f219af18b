package simulation

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/oauth2"

	"github.com/fincodeauth/fincodeauth"
)

// A scene is a world in which nothing goes wrong by chance. The test plays the
// processes A1 and B1 itself: no process runs the package. There are two accounts,
// and memory for one session.
type scene struct {
	*world
	a, b    *view  // of the first account
	version string // of that account's record in the store; "": there is none
}

func newScene() *scene {
	w := newWorld(1, newLuck(1), nil, true)
	w.luck = luck{lifetime: time.Minute, timeout: time.Second, inMemory: 1}
	w.accounts = []*account{newAccount(w, 0), newAccount(w, 1)}
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
	if saved := s.store.save(v, rec, s.version, time.Now(), false); saved.err != nil {
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
		{name: "no 401", revoke: func(*pair) {}, broken: "A1 ada refreshes 1.1, which is only 5s old"},
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

// ask asks for a token as v's process, waits, and gets the pair's.
func (s *scene) ask(v *view, of *pair, waits time.Duration) {
	ctx := context.Background()
	q := s.promise.callerAsks(v)
	time.Sleep(waits)
	s.promise.callerGets(ctx, v, q, waits, &oauth2.Token{AccessToken: of.access}, nil)
}

// A caller may have to wait for a session that was dropped from memory. A session is
// dropped only if another one needs the room.
func TestACallerWaitsForAGoodTokenOnlyIfTheSessionWasDropped(t *testing.T) {
	for _, test := range []struct {
		name     string
		inMemory int
		useOther bool
		broken   string // part of the complaint; "": there is none
	}{
		{name: "another account was used", inMemory: 1, useOther: true},
		{name: "another account was used, and there is room for both", inMemory: 2, useOther: true, broken: "waited 1ms, although the process had 1.1"},
		{name: "no other account was used", inMemory: 1, broken: "waited 1ms, although the process had 1.1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScene()
				s.luck.inMemory = test.inMemory
				first := s.login(s.a)
				s.save(t, s.a, first, "1.a", nil)
				s.promise.observed(s.a, fincodeauth.Event{Type: fincodeauth.LoggedIn})
				other := s.a.process.view(s.accounts[1])
				others := s.login(other)
				s.ask(other, others, 0)
				time.Sleep(time.Millisecond)
				s.ask(s.a, first, 0)
				if test.useOther {
					time.Sleep(time.Millisecond)
					s.ask(other, others, 0)
				}
				s.wantBroken(t, "")
				s.ask(s.a, first, time.Millisecond)
				s.wantBroken(t, test.broken)
			})
		})
	}
}

// A process that confuses two accounts is noticed wherever it uses the token.
func TestTokenOfAnotherAccountIsNoticed(t *testing.T) {
	for _, test := range []struct {
		name   string
		do     func(t *testing.T, s *scene, of *pair)
		broken string // part of the complaint
	}{
		{"a caller gets it", func(_ *testing.T, s *scene, of *pair) { s.ask(s.a, of, 0) }, "a caller of A1 ada got 1.1 of bob"},
		{"it is saved", func(t *testing.T, s *scene, of *pair) { s.save(t, s.a, of, "1.a", nil) }, "A1 ada saves 1.1 of bob for ada"},
		{"it is sent to FinCode", func(_ *testing.T, s *scene, of *pair) { s.logout(s.a, of) }, "A1 ada sends 1.1 of bob for ada"},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScene()
				of := s.login(s.a.process.view(s.accounts[1]))
				s.wantBroken(t, "")
				test.do(t, s, of)
				s.wantBroken(t, test.broken)
			})
		})
	}
}
