package fincodeauth_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/filestore"
	"github.com/fincodeauth/fincodeauth/fincodetest"
)

// The kill test starts this binary again, as a process with a journal. killedVariable holds
// what that process must know, a killed in JSON.
const killedVariable = "FINCODEAUTH_TEST_KILLED"

type killed struct {
	BaseURL string
	Store   string // the folder of a filestore
	Down    string // the store is down while there is a file of this name
	Journal string // "": there is none
	Keys    []string
}

// A downStore fails while there is a file of that name.
type downStore struct {
	fincodeauth.Store
	down string
}

func (s downStore) check() error {
	if _, err := os.Stat(s.down); !errors.Is(err, fs.ErrNotExist) {
		return errStoreDown
	}
	return nil
}

func (s downStore) Load(ctx context.Context, key string) (*fincodeauth.Record, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	return s.Store.Load(ctx, key)
}

func (s downStore) Save(ctx context.Context, key string, rec *fincodeauth.Record, prev string) error {
	if err := s.check(); err != nil {
		return err
	}
	return s.Store.Save(ctx, key, rec, prev)
}

// useUntilKilled asks for tokens again and again. It writes a line for each event, for the
// first token of each session, and for its end.
func useUntilKilled(order string) error {
	var k killed
	if err := json.Unmarshal([]byte(order), &k); err != nil {
		return err
	}
	files, err := filestore.New(k.Store)
	if err != nil {
		return err
	}
	store := fincodeauth.Store(downStore{files, k.Down})
	if k.Journal != "" {
		if store, err = fincodeauth.Journal(store, k.Journal); err != nil {
			return err
		}
	}
	if store, err = fincodeauth.Encrypt(store, key1); err != nil {
		return err
	}
	sessions, err := fincodeauth.New(fincodeauth.Config{
		BaseURL:        k.BaseURL,
		Store:          store,
		RefreshTimeout: time.Second,
		Observe:        func(e fincodeauth.Event) { fmt.Printf("%v %s %v\n", e.Type, e.Key, e.Err) },
	})
	if err != nil {
		return err
	}
	ended := make(chan string)
	for _, key := range k.Keys {
		go func() {
			for told := false; ; time.Sleep(10 * time.Millisecond) {
				_, err := sessions.TokenSource(key).Token()
				switch {
				case errors.Is(err, fincodeauth.ErrLoginRequired):
					ended <- key
					return
				case err == nil && !told:
					told = true
					fmt.Println("token", key)
				}
			}
		}()
	}
	for key := range ended {
		fmt.Println("lost", key)
	}
	return nil
}

// A killable is such a process as the test sees it.
type killable struct {
	cmd   *exec.Cmd
	lines chan string
}

func startKillable(t *testing.T, k killed) *killable {
	t.Helper()
	order, err := json.Marshal(k)
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &killable{cmd: exec.CommandContext(t.Context(), self), lines: make(chan string, 1000)}
	p.cmd.Env = append(os.Environ(), killedVariable+"="+string(order))
	p.cmd.Stderr = os.Stderr
	out, err := p.cmd.StdoutPipe()
	if err == nil {
		err = p.cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.lines)
		for in := bufio.NewScanner(out); in.Scan(); {
			p.lines <- in.Text()
		}
	}()
	return p
}

// kill ends the process at any instruction, and returns the rest of its lines.
func (p *killable) kill() (rest []string) {
	_ = p.cmd.Process.Kill()
	for line := range p.lines {
		rest = append(rest, line)
	}
	_ = p.cmd.Wait()
	return rest
}

// A process is killed at any instruction while the store is down, and started again on the
// same disk. The sessions whose token it had reported as unsaved go on.
func TestProcessKilledWhileTheStoreIsDownLosesNoSession(t *testing.T) {
	rounds := 6
	if testing.Short() {
		rounds = 2
	}
	for _, name := range []string{"with Journal", "without"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			unsaved, lost := 0, 0
			for range rounds {
				u, l := killWhileDown(t, name == "with Journal")
				unsaved, lost = unsaved+u, lost+l
			}
			t.Logf("%d sessions had an unsaved token when their process was killed, and %d of them are lost", unsaved, lost)
			switch {
			case unsaved < 10:
				t.Errorf("only %d sessions had an unsaved token: too few to show anything", unsaved)
			case name == "with Journal" && lost > 0:
				t.Errorf("%d sessions are lost, want none", lost)
			case name != "with Journal" && lost < unsaved/2:
				t.Errorf("without a journal, %d of %d sessions are lost: the test shows nothing", lost, unsaved)
			}
		})
	}
}

// killWhileDown returns how many sessions a process had reported as unsaved before it was
// killed, and how many of them were lost.
func killWhileDown(t *testing.T, withJournal bool) (unsaved, lost int) {
	t.Helper()
	fc := fincodetest.NewServer(fincodetest.Config{AccessLifetime: time.Second})
	defer fc.Close()
	dir := t.TempDir()
	k := killed{BaseURL: fc.URL, Store: filepath.Join(dir, "store"), Down: filepath.Join(dir, "down")}
	if withJournal {
		k.Journal = filepath.Join(dir, "journal")
	}
	for i := range 16 {
		k.Keys = append(k.Keys, fmt.Sprint("user-", i))
	}
	logInAll(t, k)

	fc.Inject(fincodetest.Refresh, len(k.Keys), fincodetest.Fault{After: 100 * time.Millisecond})
	p := startKillable(t, k)
	for fc.Counts().Refreshes < len(k.Keys)*3/4 {
		time.Sleep(time.Millisecond)
	}
	if err := os.WriteFile(k.Down, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	time.Sleep(100*time.Millisecond + rand.N(300*time.Millisecond))
	reported := make(map[string]bool)
	for _, line := range p.kill() {
		if key, ok := strings.CutPrefix(line, "SaveFailed "); ok {
			reported[strings.Fields(key)[0]] = true
		}
	}

	p = startKillable(t, k)
	time.Sleep(200 * time.Millisecond)
	if err := os.Remove(k.Down); err != nil {
		t.Fatal(err)
	}
	open := len(k.Keys)
	for line := range p.lines {
		what, key, _ := strings.Cut(line, " ")
		switch {
		case what == "token", what == "lost":
			open--
		case what == "JournalFailed":
			t.Errorf("the process that came after says %s", line)
		}
		if what == "lost" && reported[key] {
			lost++
		}
		if open == 0 {
			break
		}
	}
	p.kill()
	return len(reported), lost
}

// logInAll begins the sessions.
func logInAll(t *testing.T, k killed) {
	t.Helper()
	files, err := filestore.New(k.Store)
	if err != nil {
		t.Fatal(err)
	}
	sessions, err := fincodeauth.New(fincodeauth.Config{BaseURL: k.BaseURL, Store: encrypted(t, files, key1)})
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range k.Keys {
		logIn(t, sessions, key)
	}
	if err := sessions.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}
