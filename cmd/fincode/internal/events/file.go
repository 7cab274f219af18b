package events

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/gofrs/flock"
)

const (
	currentName = "events.jsonl"
	olderName   = "events.1.jsonl"
	lockName    = "lock"

	// maxFile is the size in bytes at which the current file becomes the older one. Both
	// together have about 25,000 entries, which is about 3,500 refreshes.
	maxFile = 4 << 20

	maxLine = 16 << 10 // of an entry, in bytes: a longer error text is cut

	lockPatience = 500 * time.Millisecond // how long an entry waits for other processes
	lockPause    = 5 * time.Millisecond
)

// Open returns the Journal of this process in the folder dir, which it makes. command says
// what the process is, such as "proxy". report is called with the first error of a write;
// later errors are dropped, and so are their entries. It may be nil. Two Journals have the
// same hashes if they have the same key.
func Open(dir, command string, key []byte, report func(error)) (*Journal, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("the journal of events: %w", err)
	}
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	f := &files{dir: dir, limit: maxFile, report: report}
	return To(f.write, Process{Host: host, PID: os.Getpid(), Started: time.Now().UTC(), Command: command}, key, time.Now)
}

// A files is the two files of a journal. Many processes append to them.
type files struct {
	dir    string
	limit  int64 // maxFile, except in a test
	report func(error)

	mu     sync.Mutex // so that the goroutines of one process do not wait for each other's file lock
	failed bool       // an error was reported
	stuck  bool       // the last entry waited for the lock in vain: the next one does not wait

	dropped int // entries since the last one that was written
}

// write appends the entry, or gives up.
func (f *files) write(e Entry) {
	e.Time = e.Time.UTC().Round(0)
	f.mu.Lock()
	defer f.mu.Unlock()
	err := f.append(e)
	if err != nil {
		f.dropped++
	}
	if err != nil && !f.failed && f.report != nil {
		f.report(fmt.Errorf("the journal of events in %s: %w", f.dir, err))
	}
	f.failed = f.failed || err != nil
}

// append writes the entry as one line, under the lock of the journal.
func (f *files) append(e Entry) error {
	line, err := lineOf(e)
	if err != nil {
		return err
	}
	lock := flock.New(filepath.Join(f.dir, lockName), flock.SetPermissions(0o600))
	if err := f.take(lock); err != nil {
		return err
	}
	defer lock.Close()
	if err := f.rotate(); err != nil {
		return err
	}
	file, err := os.OpenFile(filepath.Join(f.dir, currentName), os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	if f.dropped > 0 {
		gap, err := lineOf(Entry{Time: e.Time, Process: e.Process, Kind: Gap, Dropped: f.dropped})
		if err != nil {
			return errors.Join(err, file.Close())
		}
		line = append(gap, line...)
	}
	err = errors.Join(appendLine(file, line), file.Close())
	if err == nil {
		f.dropped = 0
	}
	return err
}

// take locks the journal. It waits for lockPatience, but only once while another process
// keeps the lock: a process that was stopped must not hold up everybody's refreshes.
func (f *files) take(lock *flock.Flock) error {
	ctx, cancel := context.WithTimeout(context.Background(), lockPatience)
	defer cancel()
	locked, err := lock.TryLock()
	if err == nil && !locked && !f.stuck {
		locked, err = lock.TryLockContext(ctx, lockPause)
	}
	f.stuck = !locked && (err == nil || ctx.Err() != nil)
	switch {
	case f.stuck:
		return errors.New("another process holds its lock: entries are dropped until that process goes on")
	case err != nil:
		return errors.Join(err, lock.Close())
	}
	return nil
}

// rotate makes the current file the older one if it is full. The lock is held. If that
// fails because somebody is reading, which Windows does not like, the file may grow to twice
// its size.
func (f *files) rotate() error {
	current := filepath.Join(f.dir, currentName)
	info, err := os.Stat(current)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Size() < f.limit:
		return nil
	}
	err = os.Rename(current, filepath.Join(f.dir, olderName))
	if info.Size() < 2*f.limit {
		return nil
	}
	return err
}

// appendLine appends the line. If a process died in the middle of a line, or its disk was
// full, the new line does not continue that one.
func appendLine(file *os.File, line []byte) error {
	size, err := file.Seek(0, 2)
	if err != nil {
		return err
	}
	if last := make([]byte, 1); size > 0 {
		if _, err := file.ReadAt(last, size-1); err == nil && last[0] != '\n' {
			line = append([]byte{'\n'}, line...)
		}
	}
	_, err = file.Write(line)
	return err
}

// lineOf returns the entry as a line of JSON.
func lineOf(e Entry) ([]byte, error) {
	line, err := json.Marshal(e)
	if err == nil && len(line) > maxLine {
		e.Error, e.Ended = cut(e.Error), cut(e.Ended)
		line, err = json.Marshal(e)
	}
	return append(line, '\n'), err
}

func cut(s string) string { return s[:min(len(s), 1000)] }
