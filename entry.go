package fincodeauth

import (
	"context"
	"crypto/sha256"
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

// An entry is a record on its way into the store, as a file of a journal:
//
//	<dir>/<two digits>/<hash of the key>.<hash of the version>.json
//
// The two digits are the first of the hash of the key. So the entries of one key are found
// in one small folder, even if there are 100,000 entries. All digits are hexadecimal.
type entry struct {
	Key    []byte    `json:"key"`   // the session's; Base64 in JSON, because a key may be any bytes
	Prev   string    `json:"prev"`  // the version that Record replaces; "": there was no record
	Saved  time.Time `json:"saved"` // when the Save began, by the wall clock
	Record *Record   `json:"record"`

	path string // of the file that it was read from
}

const (
	entrySuffix   = ".json"
	draftSuffix   = ".draft"   // of a file that is being written
	damagedSuffix = ".damaged" // added to the name of a damaged entry

	// A draft that is older than this was left by a process that died.
	draftKept = time.Hour
)

// needsEntry reports whether rec has tokens that may exist nowhere else: those of a login or
// a refresh, or of a claim that was given back. A claim has the tokens of the record that it
// replaces. The end of a session has none.
func needsEntry(rec *Record) bool {
	return rec.Version != "" && hasTokens(rec.Token) && rec.RefreshStarted.IsZero() && rec.Ended == ""
}

func newEntry(key string, rec *Record, prev string) *entry {
	return &entry{Key: []byte(key), Prev: prev, Saved: time.Now().UTC(), Record: rec}
}

// isAhead reports whether the entry is certainly newer than what the store has; nil: the
// store has no record.
func (e *entry) isAhead(there *Record, now time.Time) bool {
	switch {
	case versionOf(there) == e.Prev: // its Save was not carried out
		return there != nil || now.Sub(e.Saved) < rememberedFor
	case there != nil && there.Ended == endedLogout && e.beginsSession(): // the Logout came after the login
		return false
	}
	return knownOf(e.Record, e.Saved).isAhead(there, now)
}

// showsLoss reports whether the store must have gone back, because it has there.
func (e *entry) showsLoss(there *Record) bool {
	return !e.beginsSession() && (&change{rec: e.Record, presented: e.Record.Token}).showsLoss(there)
}

// beginsSession reports whether no record of the same session was in the store before.
func (e *entry) beginsSession() bool { return sessionOf(e.Prev) != sessionOf(e.Record.Version) }

// path returns the path of the entry of a record.
func (j *journal) path(key, version string) string {
	return filepath.Join(j.shard(key), fmt.Sprintf("%s%x%s", entryPrefix(key), sha256.Sum256([]byte(version)), entrySuffix))
}

// shard returns the folder with the entries of key.
func (j *journal) shard(key string) string { return filepath.Join(j.dir, entryPrefix(key)[:2]) }

// entryPrefix begins the names of the entries of key.
func entryPrefix(key string) string { return fmt.Sprintf("%x.", sha256.Sum256([]byte(key))) }

// write writes the entry, durably, unless an earlier attempt of the same Save has done it.
// Nobody else reads a new entry before it is closed.
func (j *journal) write(path string, e *entry) (io.Closer, error) {
	if before, err := read(path); err == nil && before.Prev == e.Prev {
		return io.NopCloser(nil), nil
	}
	data, err := json.Marshal(e)
	if err != nil {
		return nil, err
	}
	held, err := j.replace(path, data)
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

// errDamagedEntry shows nothing of the file, which may hold tokens.
var errDamagedEntry = errors.New("is damaged")

// read returns the entry in a file. Its error is errDamagedEntry, durable.ErrHeld, or why the
// file could not be read.
func read(path string) (*entry, error) {
	data, err := durable.Read(path)
	if err != nil {
		return nil, err
	}
	e := &entry{path: path}
	if json.Unmarshal(data, e) != nil || e.Record == nil || !needsEntry(e.Record) || e.Saved.IsZero() {
		return nil, errDamagedEntry
	}
	if name := filepath.Base((&journal{}).path(string(e.Key), e.Record.Version)); name != filepath.Base(path) {
		return nil, errDamagedEntry
	}
	return e, nil
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
		err = fmt.Errorf("the journal's file cannot be read: %w: let the process read it, or remove it", err)
	}
	j.report(ctx, key, path, err)
	return nil
}

// left yields the key of each entry of the journal, and removes old drafts. A key with
// several entries comes several times.
func (j *journal) left(ctx context.Context) iter.Seq[string] {
	return func(yield func(key string) bool) {
		for _, shard := range j.names(ctx, "", j.dir) {
			if len(shard) != 2 {
				continue
			}
			for _, name := range j.names(ctx, "", filepath.Join(j.dir, shard)) {
				path := filepath.Join(j.dir, shard, name)
				switch {
				case strings.HasSuffix(name, draftSuffix):
					removeIfOld(path)
				case strings.HasSuffix(name, entrySuffix):
					if e := j.open(ctx, "", path); e != nil && !yield(string(e.Key)) {
						return
					}
				}
			}
		}
	}
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
func (j *journal) remove(ctx context.Context, key, path string) {
	if err := removeFile(path); err != nil {
		j.report(ctx, key, path, fmt.Errorf("the journal's file cannot be removed, although the store has its record: %w: remove it", err))
	}
}
