package fincodeauth

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"sync"

	"github.com/fincodeauth/fincodeauth/internal/durable"
)

// Journal returns a Store that keeps its records in s, and writes each new token to a
// file in the folder dir before it calls s. When s has the token, the file is removed. If
// the process dies while s is down, the file stays, and another process with the same
// folder saves the token in s: New looks for such files in the background, and Load
// looks for those of its key. So a store that is down and a crash together lose no
// session.
//
//	store, err := fincodeauth.Journal(database, "/var/lib/app/journal")
//	store, err = fincodeauth.Encrypt(store, key) // also encrypts the files
//
// # What it costs
//
// A rotation costs one file, which is synced together with its folder. A request costs
// nothing, and s gets the same calls as without a journal.
//
// # What is in the files
//
// A file holds what Journal is given. With Encrypt outside, the tokens in it are
// encrypted, and a process saves only what its keys decrypt. With Encrypt inside, as in
// Journal(Encrypt(s, key), dir), the files hold the tokens in the clear. Files have mode
// 0600, and folders 0700.
//
// # What it cannot do
//
// Between FinCode's answer and the end of the write, the token exists in the memory of one
// process only. If the disk is lost, so are its files. A token is not saved if s has a
// newer one by then, if the session was logged out meanwhile, or if s has no record and
// the file is older than seven days. But a Logout elsewhere that finds no session cannot
// stop a login that is only in a file.
//
// If you wrap the Journal in a Store of your own, pass the context of each call on. New then
// does not look for files, and Load does.
//
// # The folder
//
// The folder must be on a local disk that outlives the process. Journal makes it if there
// is none. It refuses a folder that it cannot write to, and one to which other users can
// write. Any number of goroutines and processes may use one folder at the same time, if all
// of them use it for the same store. Two stores must not share a folder, because a file does
// not name its store: the token of one would be saved in the other.
//
// # When the folder fails
//
// If a file cannot be written, as on a full disk, the store works as without a journal. If
// a file is damaged, it is renamed and not used. If it does not decrypt, it stays. Each
// time, the event JournalFailed says which file it is, and what to do. If neither the
// file nor s can be written, Save returns both errors.
//
// Journal refuses a LocalStore. That forgets its versions when the process ends, so nobody
// could tell whether a file is newer.
func Journal(s Store, dir string) (Store, error) {
	if s == nil {
		return nil, errors.New("fincodeauth: Journal: the store is nil: give it one, such as a sqlstore")
	}
	if err := checkStore(s); err != nil {
		return nil, fmt.Errorf("fincodeauth: Journal: %w", err)
	}
	if isLocal(s) {
		return nil, errors.New("fincodeauth: Journal: a LocalStore forgets its versions when the process ends: use filestore or another store")
	}
	if dir == "" {
		return nil, errors.New("fincodeauth: Journal: no folder given: name one")
	}
	dir, err := filepath.Abs(dir) // the working directory may change
	if err == nil {
		err = durable.MakeDir(dir)
	}
	if err == nil {
		err = probe(dir)
	}
	if err != nil {
		return nil, fmt.Errorf("fincodeauth: Journal: %w", err)
	}
	return &journal{store: s, dir: dir, reported: make(map[string]bool)}, nil
}

// probe tries what each Save needs: to make a file in the folder, and to hold it.
func probe(dir string) error {
	f, err := os.CreateTemp(dir, "*"+draftSuffix)
	if err != nil {
		return fmt.Errorf("the folder must be writable: %w", err)
	}
	defer os.Remove(f.Name())
	if err := f.Close(); err != nil {
		return err
	}
	held, err := durable.Hold(f.Name())
	if err != nil {
		return fmt.Errorf("the folder must be on a local disk, with locks: %w", err)
	}
	return held.Close()
}

// A journal is a Store with entries in a folder. What an entry is for, and which of an
// entry and a record is newer, is in entry.go.
//
// # The rules
//
//  1. Save writes an entry before it calls the inner Save, and holds it during that call:
//     others do not read it. Save removes the entry if the inner Save succeeded, and if it
//     conflicted. After any other error the entry stays, and a retry does not write it
//     again. If the process dies, nobody holds the entry any more.
//  2. Load lists the key's entries before it loads the record. If an entry is newer than
//     the record, Load saves it over that record, and begins anew. Otherwise it removes
//     the entries.
//
// # Why this is enough
//
// An entry that can be read belongs to a Save that failed, or whose process died. So that
// Save may or may not have taken effect, and to save the entry is to let it take effect
// later, which any Store may do. The version is the same. If the process is alive and tries
// again, it finds its own version, or a record that came after it. If two processes save
// the same entry, the compare-and-swap lets one of them do it.
//
// A Save that conflicts has changed nothing, as the contract wants: while its entry was
// held, nobody else has saved it.
//
// An entry that is not newer than the record is of no use any more: the record was loaded
// after the entry was written, so it has that entry or something that came after it.
type journal struct {
	store Store
	dir   string // an absolute path

	mu       sync.Mutex
	reported map[string]bool // the paths that a JournalFailed was sent for; guarded by mu
}

// maxReplays limits how often a Load begins anew, because an entry was saved or others
// changed the record.
const maxReplays = 10

// Load implements Store.
func (j *journal) Load(ctx context.Context, key string) (*Record, error) {
	for range maxReplays {
		entries := j.entries(ctx, key)
		there, err := j.store.Load(ctx, key)
		switch {
		case len(entries) == 0, err != nil && !errors.Is(err, ErrNotFound):
			return there, err
		case err == nil && versionOf(there) == "": // no Save can name it as prev
			return there, nil
		}
		e := j.newer(ctx, entries, there)
		if e == nil {
			return there, err
		}
		if err := j.replay(ctx, e, there); err != nil {
			return nil, fmt.Errorf("saving the newer record that is in the journal: %w", err)
		}
	}
	return nil, errors.New("saving the newer record that is in the journal: the record kept changing, or the store reads from a replica")
}

// Save implements Store.
func (j *journal) Save(ctx context.Context, key string, rec *Record, prev string) error {
	if !needsEntry(rec) {
		return j.store.Save(ctx, key, rec, prev)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	e := j.newEntry(key, rec, prev)
	held, lost := j.write(e)
	if lost != nil {
		j.report(ctx, key, e.path, lost)
	}
	if held != nil {
		defer held.Close()
	}
	err := j.store.Save(ctx, key, rec, prev)
	switch {
	case err == nil, errors.Is(err, ErrConflict):
		j.remove(ctx, e)
		return err
	case lost != nil:
		return errors.Join(err, lost)
	}
	return journaledError{err}
}

// Delete implements Store.
func (j *journal) Delete(ctx context.Context, key string) error {
	if err := j.store.Delete(ctx, key); err != nil {
		return err
	}
	for _, path := range j.paths(ctx, key) {
		if err := removeFile(path); err != nil {
			return fmt.Errorf("the journal still has a record of the session: %w: remove that file", err)
		}
	}
	return nil
}

// Keys implements KeyLister. A key may be in the journal alone.
func (j *journal) Keys(ctx context.Context) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for key, err := range keysOf(ctx, j.store) {
			if !yield(key, err) {
				return
			}
		}
		for key := range j.left(ctx) {
			if err := ctx.Err(); err != nil {
				yield("", err)
				return
			}
			if !yield(key, nil) {
				return
			}
		}
	}
}

// A journaledError is the error of a Save whose record is in the journal.
type journaledError struct{ err error }

func (e journaledError) Error() string { return e.err.Error() + " (the journal has the record)" }
func (e journaledError) Unwrap() error { return e.err }

// isLocal reports whether s is a LocalStore, also inside Encrypt.
func isLocal(s Store) bool {
	switch s := s.(type) {
	case *localStore:
		return true
	case *encryptedStore:
		return isLocal(s.store)
	}
	return false
}

func (j *journal) check() error { return checkStore(j.store) }

// Path is for errors of Encrypt: it returns where the inner store keeps the record, "" if that
// store does not say.
func (j *journal) Path(key string) string { return pathIn(j.store, key) }

// String names the folder and the store.
func (j *journal) String() string { return "Journal(" + nameOf(j.store) + ", " + j.dir + ")" }

// Format prints what String returns, whatever the verb.
func (j *journal) Format(f fmt.State, _ rune) { fmt.Fprint(f, j.String()) }
