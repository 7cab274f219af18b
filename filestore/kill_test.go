package filestore

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fincodeauth/fincodeauth"
)

// The kill test runs the test binary again, as processes that save, and kills
// these. writerEnv holds the store's folder and the folder of the logs, separated
// by a newline.
const writerEnv = "FILESTORE_TEST_WRITER"

const (
	killFor   = 3 * time.Second
	processes = 3
	// The writers delete the session of churnKey and begin it again all the time.
	churnKey = "churn"
)

// The sessions of countKeys are never deleted. Record.Ended counts their saves.
var countKeys = []string{"count-a", "count-b"}

func TestMain(m *testing.M) {
	if dirs := os.Getenv(writerEnv); dirs != "" {
		store, log, _ := strings.Cut(dirs, "\n")
		fmt.Fprintln(os.Stderr, writeUntilKilled(store, log))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func TestProcessesKilledAtAnyMomentLoseNothing(t *testing.T) {
	s, log := newStore(t), t.TempDir()
	stop := time.After(killFor)
	kill := time.NewTicker(40 * time.Millisecond)
	defer kill.Stop()

	var writers [processes]*writer
	for i := range writers {
		writers[i] = startWriter(t, s.dir, log)
	}
	seen := make(map[string]int)
	kills := 0
	for running := true; running; {
		select {
		case <-stop:
			running = false
		case <-kill.C:
			i := mathrand.N(processes)
			writers[i].kill(t)
			writers[i] = startWriter(t, s.dir, log)
			kills++
		default:
			readAll(t, s, seen)
		}
	}
	for _, w := range writers {
		w.kill(t)
	}
	readAll(t, s, seen)
	saves := checkLog(t, s, log)
	t.Logf("%d kills, %d saves", kills, saves)
	if saves < 50 || kills < 5 {
		t.Errorf("%d kills and %d saves are too few to prove anything", kills, saves)
	}
}

// readAll fails the test if a record cannot be read, or if a count went down.
func readAll(t *testing.T, s *Store, seen map[string]int) {
	t.Helper()
	if _, err := s.Load(t.Context(), churnKey); err != nil && !errors.Is(err, fincodeauth.ErrNotFound) {
		t.Fatal(err)
	}
	for _, key := range countKeys {
		rec, err := s.Load(t.Context(), key)
		if errors.Is(err, fincodeauth.ErrNotFound) && seen[key] == 0 {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if n := count(rec); n < seen[key] {
			t.Fatalf("%s went from %d back to %d", key, seen[key], n)
		} else {
			seen[key] = n
		}
	}
}

// checkLog fails the test unless the successful saves of each key form one chain
// that ends in the key's record. It returns the number of successful saves.
func checkLog(t *testing.T, s *Store, dir string) int {
	t.Helper()
	prevOf := make(map[string]string)   // by version, of every Save that was tried
	saved := make(map[string]bool)      // versions whose Save returned nil
	replaced := make(map[string]string) // by version: the version that replaced it
	for _, path := range filesIn(t, dir) {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for lines := bufio.NewScanner(f); lines.Scan(); {
			var what, key, version, prev string
			fmt.Sscan(lines.Text(), &what, &key, &version, &prev)
			if what == "try" {
				prevOf[version] = prev
				continue
			}
			saved[version] = true
			if other, ok := replaced[prev]; ok {
				t.Errorf("%s and %s both replaced %s", version, other, prev)
			}
			replaced[prev] = version
		}
	}
	inChain := make(map[string]bool)
	for _, key := range countKeys {
		rec, err := s.Load(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for version := rec.Version; version != key; version = prevOf[version] {
			if version == "" {
				t.Fatalf("the chain of %s does not lead back to its first record", key)
			}
			inChain[version] = true
			n++
		}
		if n != count(rec) {
			t.Errorf("%s was saved %d times but counts %d", key, n, count(rec))
		}
	}
	for version := range saved {
		if !inChain[version] {
			t.Errorf("the Save of %s succeeded and was lost", version)
		}
	}
	return len(saved)
}

// count returns the number of saves that led to rec.
func count(rec *fincodeauth.Record) int {
	n, _ := strconv.Atoi(rec.Ended)
	return n
}

// A writer is a process that saves until it is killed.
type writer struct {
	cmd *exec.Cmd
	err strings.Builder
}

func startWriter(t *testing.T, store, log string) *writer {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	w := &writer{cmd: exec.CommandContext(t.Context(), self)}
	w.cmd.Env = append(os.Environ(), writerEnv+"="+store+"\n"+log)
	w.cmd.Stderr = &w.err
	if err := w.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return w
}

// kill ends the process at a random instruction. It fails the test if the process
// had ended by itself.
func (w *writer) kill(t *testing.T) {
	t.Helper()
	w.cmd.Process.Kill()
	w.cmd.Wait()
	if w.cmd.ProcessState.Exited() && w.err.Len() > 0 {
		t.Errorf("a writer failed: %s", &w.err)
	}
}

// writeUntilKilled saves without end. Before each Save it writes to its log what
// it is going to save, and after the Save that it has saved it. It returns only
// after an error.
func writeUntilKilled(dir, logs string) error {
	s, err := New(dir)
	if err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(logs, rand.Text()))
	if err != nil {
		return err
	}
	for ctx := context.Background(); ; {
		for _, key := range countKeys {
			if err := countUp(ctx, s, log, key); err != nil {
				return err
			}
		}
		if err := churn(ctx, s); err != nil {
			return err
		}
	}
}

// countUp replaces key's record by a record whose count is one higher. In the log,
// the key itself stands for the version of no record.
func countUp(ctx context.Context, s *Store, log *os.File, key string) error {
	rec, err := s.Load(ctx, key)
	if errors.Is(err, fincodeauth.ErrNotFound) {
		rec, err = new(fincodeauth.Record), nil
	}
	if err != nil {
		return err
	}
	prev := rec.Version
	next := record(rand.Text())
	next.Ended = strconv.Itoa(count(rec) + 1)
	line := fmt.Sprintf("%s %s %s\n", key, next.Version, prev)
	if prev == "" {
		line = fmt.Sprintf("%s %s %s\n", key, next.Version, key)
	}
	if _, err := log.WriteString("try " + line); err != nil {
		return err
	}
	err = s.Save(ctx, key, next, prev)
	if errors.Is(err, fincodeauth.ErrConflict) {
		return nil
	}
	if err == nil {
		_, err = log.WriteString("saved " + line)
	}
	return err
}

// churn begins a session, saves over it, and deletes it.
func churn(ctx context.Context, s *Store) error {
	first, second := record(rand.Text()), record(rand.Text())
	for _, err := range []error{
		s.Save(ctx, churnKey, first, ""),
		s.Save(ctx, churnKey, second, first.Version),
		s.Delete(ctx, churnKey),
	} {
		if err != nil && !errors.Is(err, fincodeauth.ErrConflict) {
			return err
		}
	}
	return nil
}
