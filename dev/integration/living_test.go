package integration

// Rules for concurrency. The goroutine of the test starts and stops the children.
// exec.Cmd calls read in one goroutine for each child. living.mu guards the figures.

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/fincodetest"
)

const (
	livingChildren = 3
	livingSessions = 20
	livingLifetime = 2 * time.Second       // of an access token
	stderrShown    = 20_000                // bytes of a child's standard error
	livingLatency  = 10 * time.Millisecond // of a refresh before the rotation, and again after it
)

// A reuseAnswer is what FinCode does about a refresh token that was used before.
type reuseAnswer struct {
	name string
	cfg  fincodetest.Config
	most int // sessions that may be lost
}

var reuseAnswers = []reuseAnswer{
	{"Refuses", fincodetest.Config{}, 0},
	// A process that knows less than another one may present a used token before the
	// other one looks at the store. That ends the session for both. It is seldom: 2 to 4 of
	// 20 sessions in 10 failovers. When nobody looked, it was 12 to 17.
	{"Revokes", fincodetest.Config{RevokeFamilyOnReuse: true}, 10},
}

// A living is processes that live through whatever happens to the store that they
// share. They send requests for the same sessions all the time.
type living struct {
	store    fincodeauth.Store // for the test
	fincode  *fincodetest.Server
	keys     []string
	children []*livingChild

	mu      sync.Mutex // guards what follows
	figures figures
}

// figures are what happened so far.
type figures struct {
	saves    []note // what the store acknowledged
	events   map[string]int
	requests int
	answered map[string]time.Time // when the last request got its answer, by key
	failed   map[string]int       // by classOf
	alive    map[string]bool      // keys for which a child had a working token at the end
	lost     map[string]string    // why a child had none, by key
	broken   []string             // what must never happen
}

// A livingChild is a child as the test sees it.
type livingChild struct {
	cmd    *exec.Cmd
	stdin  io.Closer     // the child ends soon after this is closed
	stderr bytes.Buffer  // used by others only after ended
	ended  chan struct{} // closed when err is set
	err    error
}

// newLiving starts FinCode, logs in, and starts the children on the store that sh
// describes.
func newLiving(t *testing.T, sh shared, cfg fincodetest.Config) *living {
	t.Helper()
	l := newIdle(t, sh, livingSessions, cfg)
	for range livingChildren {
		l.startChild(t, childOrder{Store: sh, BaseURL: l.fincode.URL, Keys: l.keys})
	}
	return l
}

// newIdle is newLiving without children.
func newIdle(t *testing.T, sh shared, sessions int, cfg fincodetest.Config) *living {
	t.Helper()
	store, closer, err := sh.open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closer.Close() })
	cfg.AccessLifetime, cfg.OpaqueTokens = livingLifetime, true
	l := &living{store: store, fincode: fincodetest.NewServer(cfg), figures: figures{
		events:   make(map[string]int),
		answered: make(map[string]time.Time),
		failed:   make(map[string]int),
		alive:    make(map[string]bool),
		lost:     make(map[string]string),
	}}
	t.Cleanup(l.fincode.Close)
	l.fincode.Inject(fincodetest.Refresh, -1, fincodetest.Fault{Before: livingLatency, After: livingLatency})
	for i := range sessions {
		l.keys = append(l.keys, fmt.Sprintf("user-%02d", i))
	}
	all := l.newSessions(t)
	for _, key := range l.keys {
		if err := all.Login(t.Context(), key, fincodeauth.Credentials{Email: fincodetest.Email, Password: fincodetest.Password}); err != nil {
			t.Fatal(err)
		}
	}
	closeAll(t, all)
	return l
}

// newSessions returns Sessions that remember nothing yet.
func (l *living) newSessions(t *testing.T) *fincodeauth.Sessions {
	t.Helper()
	all, err := fincodeauth.New(fincodeauth.Config{
		BaseURL: l.fincode.URL, Store: l.store, Base: l.fincode.Client().Transport, RefreshTimeout: childTimeout,
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// startChild starts this binary again, as a child.
func (l *living) startChild(t *testing.T, order childOrder) {
	t.Helper()
	told, err := json.Marshal(order)
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := &livingChild{cmd: exec.Command(self), ended: make(chan struct{})}
	c.cmd.Env = append(os.Environ(), childVariable+"="+string(told))
	c.cmd.Stdout, c.cmd.Stderr = &lineWriter{each: l.read}, &c.stderr
	c.cmd.WaitDelay = childPatience
	if c.stdin, err = c.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(c.ended)
		c.err = c.cmd.Wait()
	}()
	l.children = append(l.children, c)
	name := fmt.Sprint("child ", len(l.children))
	t.Cleanup(func() {
		_ = c.cmd.Process.Kill() // fails if it has ended, as it should have
		<-c.ended
		if text := c.stderr.String(); t.Failed() && text != "" {
			t.Logf("%s wrote to its standard error at last:\n%s", name, text[max(0, len(text)-stderrShown):])
		}
	})
}

// read handles one line that a child wrote.
func (l *living) read(line []byte) {
	var n note
	if err := json.Unmarshal(line, &n); err != nil {
		n = note{Text: fmt.Sprintf("a child wrote a line that is no note: %q", line)}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	f := &l.figures
	switch n.What {
	case claimed, saved:
		f.saves = append(f.saves, n)
	case observed:
		f.events[n.Text]++
	case succeeded:
		f.requests++
		f.answered[n.Key] = time.Now()
	case failed:
		f.requests++
		f.failed[n.Text]++
	case alive:
		f.alive[n.Key] = true
	case lost:
		f.lost[n.Key] = n.Text
	default:
		f.broken = append(f.broken, n.Text)
	}
}

// acknowledged returns how many Saves began and were acknowledged between two times,
// and how many of these were not of a claim.
func (l *living) acknowledged(from, to time.Time) (all, unclaimed int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, n := range l.figures.saves {
		if n.Began.Before(from) || n.Ended.After(to) {
			continue
		}
		all++
		if n.What == saved {
			unclaimed++
		}
	}
	return all, unclaimed
}

// working returns how many sessions got an answer to a request within the last
// lifetime.
func (l *living) working() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, at := range l.figures.answered {
		if time.Since(at) < livingLifetime {
			n++
		}
	}
	return n
}

// generations returns the generation of each session in the store.
func (l *living) generations(t *testing.T) map[string]int {
	t.Helper()
	found := make(map[string]int)
	for _, key := range l.keys {
		rec, err := l.store.Load(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		found[key] = rec.Generation
	}
	return found
}

// end lets the children look for working tokens, and waits until they have ended. It
// returns the sessions for which no child had a working token.
func (l *living) end(t *testing.T) (lost []string) {
	t.Helper()
	for _, c := range l.children {
		c.stdin.Close()
	}
	limit := time.After(livingLifetime + childPatience + checkPatience + childPatience + childPatience)
	for i, c := range l.children {
		select {
		case <-c.ended:
		case <-limit:
			_ = c.cmd.Process.Signal(syscall.SIGQUIT) // it writes down what its goroutines do
			select {
			case <-c.ended:
			case <-time.After(childPatience):
			}
			t.Fatalf("child %d has not ended in time", i+1)
		}
		if c.err != nil {
			t.Errorf("child %d ended with %v: %s", i+1, c.err, &c.stderr)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, text := range l.figures.broken {
		t.Error(text)
	}
	for _, key := range l.keys {
		if !l.figures.alive[key] {
			lost = append(lost, fmt.Sprintf("%s: %s", key, l.figures.lost[key]))
		}
	}
	return lost
}

// restart refreshes every session in a process that knows only what the store has. It
// returns the sessions for which that fails.
func (l *living) restart(t *testing.T) (lost []string) {
	t.Helper()
	time.Sleep(livingLifetime) // a token that is still good would not be refreshed
	all := l.newSessions(t)
	ctx, cancel := context.WithTimeout(t.Context(), checkPatience)
	defer cancel()
	for _, key := range l.keys {
		if _, err := all.TokenSource(key).TokenContext(ctx); err != nil {
			lost = append(lost, err.Error())
		}
	}
	closeAll(t, all)
	return lost
}

// summary returns what happened.
func (l *living) summary() string {
	twice, reuses := l.fincode.PresentedMoreThanOnce(), 0
	for _, p := range twice {
		reuses += p.Reuses
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	f, counts := &l.figures, l.fincode.Counts()
	var b strings.Builder
	fmt.Fprintf(&b, "rotations          %d, of %d sessions in %d processes\n", counts.Refreshes, len(l.keys), len(l.children))
	fmt.Fprintf(&b, "StoreReverted      %d events\n", f.events[fincodeauth.StoreReverted.String()])
	fmt.Fprintf(&b, "SaveFailed         %d events\n", f.events[fincodeauth.SaveFailed.String()])
	fmt.Fprintf(&b, "Ended              %d events\n", f.events[fincodeauth.Ended.String()])
	fmt.Fprintf(&b, "presented again    %d refresh tokens; FinCode called %d of these calls a reuse\n", len(twice), reuses)
	failures := 0
	for _, n := range f.failed {
		failures += n
	}
	fmt.Fprintf(&b, "requests           %d, of which %d failed\n", f.requests, failures)
	for _, class := range slices.Sorted(maps.Keys(f.failed)) {
		fmt.Fprintf(&b, "                   %d: %s\n", f.failed[class], class)
	}
	return b.String()
}

// report says which sessions are lost. gone are those for which no child had a working
// token at the end, and unknown those that a new process cannot refresh.
func (l *living) report(t *testing.T, gone, unknown []string, most int) {
	t.Helper()
	t.Logf("lost at the end: %d of %d sessions; a new process cannot go on with %d", len(gone), len(l.keys), len(unknown))
	if max(len(gone), len(unknown)) > most {
		t.Errorf("too many sessions are lost, %d may be:\n%q\n%q", most, gone, unknown)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.figures.events[fincodeauth.StoreReverted.String()] == 0 {
		t.Error("no process noticed that the store had gone back")
	}
}

// A lineWriter calls each for every complete line.
type lineWriter struct {
	each func(line []byte)
	rest []byte // of an incomplete line
}

func (w *lineWriter) Write(data []byte) (int, error) {
	w.rest = append(w.rest, data...)
	for {
		line, rest, found := bytes.Cut(w.rest, []byte("\n"))
		if !found {
			return len(data), nil
		}
		w.each(line)
		w.rest = rest
	}
}
