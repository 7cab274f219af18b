package fincodeauth_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// A plantedBug is a change of one line of the package that makes the line wrong.
type plantedBug struct {
	name   string
	file   string
	right  string // part of the line; it must be in the file exactly once
	wrong  string // what stands there instead
	within int    // TestSimulation must find the bug within this many seeds; 0: the small worlds find it
	worlds string // the part of TestSmallWorlds that must find the bug; "": the seeds find it
}

// plantedBugs are the rows of the table in docs/protocol.md, in this order.
var plantedBugs = []plantedBug{
	{"no claim is saved", "flight.go",
		`err := f.cell().save(ctx, claimed, rec.Version)`,
		`var err error`,
		100, ""},
	{"the record is not loaded again after a 403", "presenting.go",
		`there, err := p.cell().load(ctx)`,
		`there, err := claimed, error(nil)`,
		0, "2_processes,_revoked"},
	{"the claim is not renewed", "flight.go",
		`return f.claim(ctx, rec)`,
		`if f.activity.memory.mine.isIn(rec) { return f.present(ctx, rec) }; return f.claim(ctx, rec)`,
		500, ""},
	{"a claim is taken over by its own timestamp", "protocol.go",
		`return x.memory.seen == x.rec.Version && x.now.Sub(x.memory.seenSince) >=`,
		`return x.now.Sub(x.rec.RefreshStarted) >=`,
		100, ""},
	{"the refresh runs on its caller's context", "flight.go",
		`return s.refresh(context.WithoutCancel(ctx))`,
		`return s.refresh(ctx)`,
		500, ""},
	{"a save is not tried again", "saving.go",
		`s.saveAgain(ctx, saved)`,
		``,
		500, ""},
	{"a save compares no version", "cell.go",
		`err := c.session.env.cfg.Store.Save(saving, c.session.key, rec, prev)`,
		`if there, err := c.load(ctx); err == nil { prev = versionOf(there) }; err := c.session.env.cfg.Store.Save(saving, c.session.key, rec, prev)`,
		100, ""},
	{"a logout is not noticed when the answer arrives", "protocol.go",
		`case knownOf(c.rec, time.Time{}).isAhead(there, time.Time{}):`,
		`case knownOf(c.rec, time.Time{}).isAhead(there, time.Time{}), there.Ended == endedLogout:`,
		0, "2_processes"},
	{"the expiry is compared with the monotonic clock", "tokensource.go",
		`switch wall := now.UnixNano(); {`,
		`switch wall := ts.all.env.started.Add(now.Sub(ts.all.env.started)).Round(0).UnixNano(); {`,
		100, ""},
	{"the expiry is exp, read on the local clock", "answer.go",
		`tok.Expiry = before.Add(lifetime)`,
		`tok.Expiry = before.Add(lifetime); if c := claimsOf(tok.AccessToken); c.Expiry > 0 { tok.Expiry = c.expiry() }`,
		500, ""},
	{"a claim's age is taken from the monotonic clock alone", "protocol.go",
		`age := max(now.Sub(c.since), now.Round(0).Sub(c.since.Round(0)))`,
		`age := now.Sub(c.since)`,
		0, "2_processes"},
	{"a process forgets its claim when the renewal fails", "protocol.go",
		`(rec.Version == c.version || c.renewal && rec.Version == c.over)`,
		`rec.Version == c.version`,
		2000, ""},
	{"a claim's version is used a second time", "protocol.go",
		`if last.mayLandOver(rec) {`,
		`if last != nil && !last.saved {`,
		2000, ""},
	{"a clock that is set back makes the process forget the refusal", "flight.go",
		`if !x.knowsItsClaim() {`,
		`if true {`,
		0, "1_process,_revoked"},
	{"a token is revoked although another process goes on from it", "saving.go",
		`case fate == fateLoggedOut && hasTokens(c.rec.Token):`,
		`case fate != fateSaved && hasTokens(c.rec.Token):`,
		5000, ""},
	{"a login overwrites a record that came after it", "protocol.go",
		`return !c.unheard || slices.Contains(c.rec.Replaces,`,
		`return true || slices.Contains(c.rec.Replaces,`,
		0, "2_processes"},
	{"a logout leaves the token in use", "logout.go",
		"\ts.replace(nil)\n\treturn gone, nil",
		"\treturn gone, nil",
		0, "1_process"},
	{"a theft is reported as something else", "presenting.go",
		`reused := answer != nil &&`,
		`reused := false && answer != nil &&`,
		500, ""},
	{"credentials are asked for after a breach", "presenting.go",
		`case p.env.cfg.Credentials == nil, isBreach(why):`,
		`case p.env.cfg.Credentials == nil, isBreach(why) && false:`,
		500, ""},
	{"a failed call is tried again at once", "protocol.go",
		`m.retryAt = now.Add(delay)`,
		`m.retryAt = now`,
		500, ""},
	{"an error of the store counts as no session", "flight.go",
		`f.activity.memory.seen = "" // while`,
		`return failed(&SessionError{Key: f.key, Err: err}) // while`,
		500, ""},
	{"Close does not wait", "close.go",
		`a.env.work.Wait()`,
		``,
		5000, ""},
	{"a save may take as long as a call", "saving.go",
		`if s.saveOnce(ctx, s.env.cfg.RefreshTimeout/4) == nil ||`,
		`if s.saveOnce(ctx, s.env.cfg.RefreshTimeout) == nil ||`,
		0, "2_processes"},
	{"an attempt of unknown outcome is forgotten", "presenting.go",
		`mine.interrupted = true`,
		`mine.interrupted = false`,
		500, ""},
	{"a session is dropped although a call or a save is under way", "session.go",
		`return a.pins > 0 || a.unsaved != nil || a.logout != nil ||`,
		`return`,
		500, ""},
	{"a session is dropped although its claim must be remembered", "session.go",
		`a.memory.isNeeded(now) ||`,
		``,
		500, ""},
	{"a session that was dropped stays in use", "sessions.go",
		`if s == nil || s.dropped.Load() || s.env != &a.env {`,
		`if s == nil || s.env != &a.env {`,
		500, ""},
	{"a store that has gone back is not healed", "generation.go",
		`case k == nil || k.generation == 0:`,
		`case true:`,
		2000, ""},
	{"an empty store counts as a logout", "generation.go",
		`return k.ended == "" && now.UnixNano()-k.seen < int64(rememberedFor)`,
		`return false`,
		2000, ""},
	{"an older state of the session counts as news", "generation.go",
		`case there.Generation < k.generation:`,
		`case false:`,
		2000, ""},
	{"a logout is forgotten when the store loses it", "logout.go",
		"s.known = knownOf(out, s.env.now())\n\t\t\treturn &gone, nil",
		`return &gone, nil`,
		2000, ""},
	{"a login does not name what it replaces", "login.go",
		`Replaces: s.sessionsBefore(there)}`,
		`}`,
		5000, ""},
	{"a refusal is forgotten when the store loses the claim", "protocol.go",
		`func (c *claim) isOn(rec *Record) bool { return c != nil &&`,
		`func (c *claim) isOn(rec *Record) bool { return c.isIn(rec) &&`,
		5000, ""},
	{"a successor is given up where the store has lost the claim", "protocol.go",
		`case there == nil: // the store has lost it: a Logout would have left a record`,
		`case there == nil && c.presented != nil: return fateGivenUp; case there == nil:`,
		5000, ""},
}

// TestPlantedBugsAreFound builds the package once with each planted bug, and checks
// that the seeds of TestSimulation find the bug, or else the small worlds.
func TestPlantedBugsAreFound(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the package for each planted bug")
	}
	for _, bug := range plantedBugs {
		t.Run(bug.name, func(t *testing.T) {
			t.Parallel()
			program := bug.plant(t)
			if bug.within > 0 {
				isFound(t, program, "^TestSimulation$", "-seeds", fmt.Sprint(bug.within))
			}
			if bug.worlds != "" {
				isFound(t, program, "^TestSmallWorlds$/^"+bug.worlds+"$", "-pairs", "1")
			}
		})
	}
}

// TestPlantedBugsAreTheRowsOfTheProtocol checks that docs/protocol.md names all planted
// bugs, and no others.
func TestPlantedBugsAreTheRowsOfTheProtocol(t *testing.T) {
	page, err := os.ReadFile("docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(page), "| planted | what appears | found by |\n| --- | --- | --- |\n")
	table, _, _ = strings.Cut(table, "\n\n")
	var rows, want []string
	for line := range strings.Lines(table) {
		row := strings.TrimSpace(strings.Split(line, "|")[1])
		row = regexp.MustCompile(` \(\d\)$`).ReplaceAllString(row, "")
		rows = append(rows, strings.NewReplacer("`", "", `"`, "").Replace(row))
	}
	for _, bug := range plantedBugs {
		want = append(want, bug.name)
	}
	if !slices.Equal(rows, want) {
		t.Errorf("docs/protocol.md has the rows\n\t%s\nwant\n\t%s", strings.Join(rows, "\n\t"), strings.Join(want, "\n\t"))
	}
}

// isFound checks that the test finds the bug of the program.
func isFound(t *testing.T, program, test string, args ...string) {
	t.Helper()
	simulation := exec.Command(program, append(args, "-test.run", test, "-broken", "1")...)
	simulation.Env = append(os.Environ(), "GOMAXPROCS=1") // the other cores look for other bugs
	out, err := simulation.CombinedOutput()
	if err == nil {
		t.Fatalf("%s %v broke no promise, want the planted bug found", test, args)
	}
	found := regexp.MustCompile(`((?:seed|world) .*):\n\s+(.*)`).FindStringSubmatch(string(out))
	if found == nil {
		t.Fatalf("%s failed, but not by a broken promise:\n%s", test, out)
	}
	t.Logf("%s: %s", found[1], found[2])
}

// plant builds the tests of the package with the bug, and returns the path of the
// program.
func (b plantedBug) plant(t *testing.T) string {
	t.Helper()
	right, err := os.ReadFile(b.file)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(right), b.right); n != 1 {
		t.Fatalf("%s contains %q %d times, want once: update the planted bug", b.file, b.right, n)
	}
	dir := t.TempDir()
	wrong := filepath.Join(dir, b.file)
	write(t, wrong, strings.Replace(string(right), b.right, b.wrong, 1))
	files := otherTests(t)
	files[absolute(t, b.file)] = wrong
	overlay, err := json.Marshal(map[string]any{"Replace": files})
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "overlay.json"), string(overlay))
	program := filepath.Join(dir, "planted.test")
	build := exec.Command("go", "test", "-c", "-ldflags=-s -w", "-overlay", filepath.Join(dir, "overlay.json"), "-o", program, ".")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return program
}

// otherTests returns an overlay without the tests that look for no planted bug: the rest is
// built twice as fast.
func otherTests(t *testing.T) map[string]string {
	t.Helper()
	tests, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	overlay := make(map[string]string)
	for _, name := range tests {
		if !slices.Contains([]string{"simulation_test.go", "small_world_test.go", "export_test.go"}, name) {
			overlay[absolute(t, name)] = ""
		}
	}
	return overlay
}

func absolute(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(name)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
