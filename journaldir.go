package fincodeauth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fincodeauth/fincodeauth/internal/durable"
)

// The files of a journal. Other processes make, rename and remove them between any two
// system calls, so a file that is missing is no error.

const (
	shardDigits = 2 // in the name of a shard

	entrySuffix   = ".json"
	draftSuffix   = ".draft"   // of a file that is being written
	damagedSuffix = ".damaged" // added to the name of a damaged entry

	// A draft that is older than this was left by a process that died.
	draftKept = time.Hour
)

// shard returns the folder with the entries of key.
func (j *journal) shard(key string) string {
	return filepath.Join(j.dir, entryPrefix(key)[:shardDigits])
}

// newEntry returns the entry of a Save that begins now.
func (j *journal) newEntry(key string, rec *Record, prev string) *entry {
	e := &entry{Key: []byte(key), Prev: prev, Saved: time.Now().UTC(), Record: rec}
	e.path = filepath.Join(j.shard(key), e.name())
	return e
}

// write writes the entry, durably, and holds it. If an earlier attempt of the same Save has
// written it, write does nothing and returns nil.
func (j *journal) write(e *entry) (held io.Closer, err error) {
	if _, err := read(e.path); err == nil {
		return nil, nil
	}
	data, err := json.Marshal(e)
	if err != nil {
		return nil, err
	}
	held, err = j.replace(e.path, data)
	if err != nil {
		return nil, fmt.Errorf("the journal does not have the record: %w: give the disk room, or let the process write to %s", err, j.dir)
	}
	return held, nil
}

// replace puts a file with data at path, durably, and holds it.
func (j *journal) replace(path string, data []byte) (io.Closer, error) {
	f, err := j.draft(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	err = durable.WriteFile(f, data)
	if err != nil {
		return nil, errors.Join(err, os.Remove(f.Name()))
	}
	held, err := durable.Hold(f.Name()) // before others can find it
	if err != nil {
		return nil, errors.Join(err, os.Remove(f.Name()))
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return nil, errors.Join(err, held.Close(), os.Remove(f.Name()))
	}
	if err := durable.SyncDir(filepath.Dir(path)); err != nil {
		return nil, errors.Join(err, os.Remove(path), held.Close()) // the next attempt must not take it for durable
	}
	return held, nil
}

// draft makes an empty file in a shard, and the shard if there is none.
func (j *journal) draft(shard string) (*os.File, error) {
	f, err := os.CreateTemp(shard, "*"+draftSuffix)
	if !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	if err := os.Mkdir(shard, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	if err := durable.SyncDir(j.dir); err != nil {
		return nil, err
	}
	return os.CreateTemp(shard, "*"+draftSuffix)
}

// entries returns the entries of key. It reports those that it cannot read.
func (j *journal) entries(ctx context.Context, key string) []*entry {
	var all []*entry
	for _, path := range j.paths(ctx, key) {
		if e := j.open(ctx, key, path); e != nil {
			all = append(all, e)
		}
	}
	return all
}

// paths returns the paths of the entries of key.
func (j *journal) paths(ctx context.Context, key string) []string {
	var all []string
	for _, name := range j.names(ctx, key, j.shard(key)) {
		if strings.HasPrefix(name, entryPrefix(key)) && strings.HasSuffix(name, entrySuffix) {
			all = append(all, filepath.Join(j.shard(key), name))
		}
	}
	return all
}

// names returns the names of the files in a folder; none if it cannot be read, which is
// reported.
func (j *journal) names(ctx context.Context, key, dir string) []string {
	f, err := os.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var names []string
	if err == nil {
		defer f.Close()
		names, err = f.Readdirnames(-1)
	}
	if err != nil {
		j.report(ctx, key, dir, fmt.Errorf("the journal cannot be searched for what an earlier process left: %w: let the process read %s", err, j.dir))
	}
	return names
}

// open returns the entry at path, or nil. It renames a damaged file.
func (j *journal) open(ctx context.Context, key, path string) *entry {
	e, err := read(path)
	switch {
	case err == nil:
		return e
	case errors.Is(err, fs.ErrNotExist): // another process has removed it
		return nil
	case errors.Is(err, durable.ErrHeld): // a living process is saving it
		return nil
	case err == errDamagedEntry:
		err = fmt.Errorf("the journal's file %s %w, and its token is not used: it is now %s, to look at or to remove", path, err, filepath.Base(path)+damagedSuffix)
		if renamed := os.Rename(path, path+damagedSuffix); renamed != nil {
			err = fmt.Errorf("the journal's file %s %w: remove it", path, errDamagedEntry)
		}
	default:
		err = fmt.Errorf("the journal's file cannot be read: %w: let the process read it, because it may have the only copy of a token", err)
	}
	j.report(ctx, key, path, err)
	return nil
}

// left yields the key of each entry of the journal, and removes old drafts. A key with
// several entries comes several times.
func (j *journal) left(ctx context.Context) iter.Seq[string] {
	return func(yield func(key string) bool) {
		for _, name := range j.names(ctx, "", j.dir) {
			if len(name) == shardDigits && !j.leftIn(ctx, filepath.Join(j.dir, name), yield) {
				return
			}
		}
	}
}

// leftIn is left for one shard. It returns false once yield has.
func (j *journal) leftIn(ctx context.Context, shard string, yield func(key string) bool) bool {
	for _, name := range j.names(ctx, "", shard) {
		path := filepath.Join(shard, name)
		switch filepath.Ext(name) {
		case draftSuffix:
			removeIfOld(path)
		case entrySuffix:
			if e := j.open(ctx, "", path); e != nil && !yield(string(e.Key)) {
				return false
			}
		}
	}
	return true
}

func removeIfOld(draft string) {
	if info, err := os.Lstat(draft); err == nil && time.Since(info.ModTime()) > draftKept {
		os.Remove(draft)
	}
}

// removeFile removes a file. It returns nil if there is none.
func removeFile(path string) error {
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// remove removes an entry that is of no use any more, and reports it if that fails. It does
// no harm if the entry comes back: it is never newer than the record.
func (j *journal) remove(ctx context.Context, e *entry) {
	if err := removeFile(e.path); err != nil {
		j.report(ctx, string(e.Key), e.path, fmt.Errorf("the journal's file cannot be removed, although the store has its record: %w: remove it", err))
	}
}
