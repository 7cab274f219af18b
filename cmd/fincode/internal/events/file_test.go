package events

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gofrs/flock"
)

// childDir is the environment variable that makes the test binary a process that writes
// entries into that folder.
const childDir = "FINCODE_TEST_EVENTS_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		writeForever(dir)
		return
	}
	os.Exit(m.Run())
}

// writeForever writes numbered entries, and prints each number once its entry is written.
func writeForever(dir string) {
	j, err := Open(dir, os.Getenv("FINCODE_TEST_NAME"), []byte("key"), func(err error) { panic(err) })
	if err != nil {
		panic(err)
	}
	most, _ := strconv.Atoi(os.Getenv("FINCODE_TEST_ENTRIES"))
	for i := 1; i <= most; i++ {
		j.note(Entry{Kind: Event, Event: "Refreshed", Key: "ada", Generation: i})
		fmt.Println(i)
	}
}

func TestProcessesAppendAtOnceAndAKilledOneLosesNothing(t *testing.T) {
	dir := t.TempDir()
	written := make(map[string]int) // by command: how many entries it says that it has written
	const each = 60
	type child struct {
		name string
		cmd  *exec.Cmd
		out  *bufio.Scanner
	}
	var children []child
	for i := range 6 {
		c := child{name: fmt.Sprint("call", i), cmd: exec.Command(os.Args[0])}
		most := each
		if i == 0 {
			c.name, most = "killed", 1_000_000
		}
		c.cmd.Env = append(os.Environ(), childDir+"="+dir, "FINCODE_TEST_NAME="+c.name, fmt.Sprint("FINCODE_TEST_ENTRIES=", most))
		out, err := c.cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		c.out, c.cmd.Stderr = bufio.NewScanner(out), os.Stderr
		if err := c.cmd.Start(); err != nil {
			t.Fatal(err)
		}
		children = append(children, c)
	}
	for _, c := range children {
		for c.out.Scan() {
			written[c.name]++
			if c.name == "killed" && written[c.name] == 20 {
				if err := c.cmd.Process.Kill(); err != nil {
					t.Error(err)
				}
			}
		}
		if err := c.cmd.Wait(); (err != nil) != (c.name == "killed") {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	entries, err := Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	last := make(map[string]int)
	for _, e := range entries {
		if e.Generation != last[e.Process.Command]+1 {
			t.Fatalf("%s has the entry %d after %d, want them in their order and none lost", e.Process.Command, e.Generation, last[e.Process.Command])
		}
		last[e.Process.Command] = e.Generation
	}
	for name, n := range written {
		if last[name] < n || last[name] > n+1 {
			t.Errorf("the journal has %d entries of %s, and that process had written %d", last[name], name, n)
		}
	}
	if len(written) != 6 || written["killed"] < 20 || written["call1"] != each {
		t.Errorf("the processes have written %v, want %d each and some of the killed one", written, each)
	}
}

// testJournal returns a journal in a new folder, whose files become full at limit bytes.
func testJournal(t *testing.T, limit int64, report func(error)) (*Journal, *files) {
	t.Helper()
	f := &files{dir: t.TempDir(), limit: limit, report: report}
	j, err := To(f.write, Process{Host: "web-1", PID: 812, Command: "proxy"}, []byte("key"), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	return j, f
}

func failOnError(t *testing.T) func(error) { return func(err error) { t.Error(err) } }

func TestJournalIsBoundedAndKeepsTheNewestEntries(t *testing.T) {
	const limit = 4000
	j, f := testJournal(t, limit, failOnError(t))
	for i := range 200 {
		j.note(Entry{Kind: Event, Generation: i + 1})
	}
	var size int64
	for _, name := range []string{currentName, olderName} {
		info, err := os.Stat(filepath.Join(f.dir, name))
		if err != nil {
			t.Fatal(err)
		}
		size += info.Size()
	}
	if size > 2*(limit+maxLine) {
		t.Errorf("the files have %d bytes, want at most %d", size, 2*(limit+maxLine))
	}
	entries, err := Read(f.dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) < 10 || entries[len(entries)-1].Generation != 200 {
		t.Fatalf("the journal has %d entries, the last one is %d; want some, up to 200", len(entries), entries[len(entries)-1].Generation)
	}
	for i := range entries[1:] {
		if entries[i+1].Generation != entries[i].Generation+1 {
			t.Errorf("after entry %d comes %d", entries[i].Generation, entries[i+1].Generation)
		}
	}
}

func TestLongErrorIsCut(t *testing.T) {
	j, f := testJournal(t, maxFile, failOnError(t))
	j.note(Entry{Kind: Event, Error: strings.Repeat("long ", 100_000)})
	entries, err := Read(f.dir)
	if err != nil || len(entries) != 1 || len(entries[0].Error) > maxLine {
		t.Errorf("Read = %d entries, %v; want one that is not longer than %d bytes", len(entries), err, maxLine)
	}
}

func TestTornLineIsSkippedAndTheNextOneIsRead(t *testing.T) {
	for _, torn := range []string{`{"time":"2026-`, "\x00\x00\x00\x00", `{"kind":1}` + "\n", "\n\n", `[]` + "\n"} {
		j, f := testJournal(t, maxFile, failOnError(t))
		j.note(Entry{Kind: Event, Key: "before"})
		file, err := os.OpenFile(filepath.Join(f.dir, currentName), os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := file.WriteString(torn); err != nil {
			t.Fatal(err)
		}
		file.Close()
		j.note(Entry{Kind: Event, Key: "after"})
		entries, err := Read(f.dir)
		if err != nil || len(entries) != 2 || entries[0].Key != "before" || entries[1].Key != "after" {
			t.Errorf("after %q, Read = %v, %v; want the entries before and after", torn, entries, err)
		}
	}
}

func TestFailedWriteIsReportedOnceAndBlocksNothing(t *testing.T) {
	full := func(path string) error { return os.Symlink("/dev/full", path) }
	if runtime.GOOS != "linux" {
		full = func(path string) error { return os.Mkdir(path, 0o700) }
	}
	var reported []error
	j, f := testJournal(t, maxFile, func(err error) { reported = append(reported, err) })
	if err := full(filepath.Join(f.dir, currentName)); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		j.note(Entry{Kind: Event})
	}
	if len(reported) != 1 || !strings.Contains(reported[0].Error(), f.dir) {
		t.Errorf("reported %v, want one error that names the folder", reported)
	}
	if err := os.Remove(filepath.Join(f.dir, currentName)); err != nil {
		t.Fatal(err)
	}
	j.note(Entry{Kind: Event, Key: "ada"})
	if entries, err := Read(f.dir); err != nil || len(entries) != 2 || entries[0].Dropped != 5 || entries[1].Key != "ada" {
		t.Errorf("once there is room again, Read = %v, %v; want a gap of 5 entries and the new one", entries, err)
	}
}

func TestHeldLockDelaysOnlyOnce(t *testing.T) {
	var reported []error
	j, f := testJournal(t, maxFile, func(err error) { reported = append(reported, err) })
	other := flock.New(filepath.Join(f.dir, lockName))
	if err := other.Lock(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	for range 50 {
		j.note(Entry{Kind: Event})
	}
	if took := time.Since(began); took > 10*lockPatience {
		t.Errorf("50 entries waited %v for a lock that another process holds, want about %v", took, lockPatience)
	}
	if len(reported) != 1 {
		t.Errorf("reported %v, want one error", reported)
	}
	if err := other.Unlock(); err != nil {
		t.Fatal(err)
	}
	j.note(Entry{Kind: Event, Key: "ada"})
	if entries, err := Read(f.dir); err != nil || len(entries) != 2 || entries[0].Dropped != 50 || entries[1].Key != "ada" {
		t.Errorf("once the lock is free, Read = %v, %v; want a gap of 50 entries and the new one", entries, err)
	}
}

func TestFilesArePrivate(t *testing.T) {
	if runtime.GOOS == "windows" {
		return // has other rights
	}
	j, f := testJournal(t, maxFile, failOnError(t))
	j.note(Entry{Kind: Event})
	for _, name := range []string{currentName, lockName} {
		info, err := os.Stat(filepath.Join(f.dir, name))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v; want mode 0600", name, info.Mode(), err)
		}
	}
}

func TestFolderWithoutAJournalHasNoEntries(t *testing.T) {
	entries, err := Read(filepath.Join(t.TempDir(), "missing"))
	if err != nil || len(entries) != 0 {
		t.Errorf("Read = %v, %v; want none", entries, err)
	}
}
