// Package filestore keeps sessions in a folder, for all processes of one machine.
// It needs no lock and no server. Any number of processes may use the folder at
// the same time, and each of them may be killed at any instruction.
//
// Every session has its own folder, named after its key. In that folder is one
// JSON file. The file holds the tokens as plain text, unless fincodeauth.Encrypt
// wraps the Store. Keep nothing else in a session's folder: the Store removes other
// files, and Delete also removes other folders with all that is in them.
//
// # Damaged records
//
// If a session's file or folder is damaged, Load and Save return an error with its
// path. Restore it, or call Sessions.Forget, then log in again.
package filestore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/internal/durable"
)

// abandonedAfter is the age from which New removes a folder that a process was
// making for a new session. Only a crash leaves such a folder.
const abandonedAfter = time.Hour

// A Store is a fincodeauth.Store in a folder. Make one with New: the methods of
// the zero Store return errors. A Store is safe for concurrent use, also by several
// Stores and processes with the same folder.
type Store struct {
	dir string // an absolute path, because the working directory may change
}

// New returns a Store in the folder dir. It makes the folder if there is none. It
// removes what crashes left there, and lists each session's folder once to find
// it.
//
// The folder must be writable, and it must be on a local file system with hard
// links. On Unix, New makes the folder with mode 0700, and gives an existing empty
// folder that mode. It refuses a folder with content if another user than its
// owner may write to it. All folders in it have mode 0700, and all files 0600.
func New(dir string) (*Store, error) {
	if dir == "" {
		return nil, errors.New("filestore: no folder given: name one")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("filestore: %w", err)
	}
	s := &Store{dir: dir}
	err = durable.MakeDir(dir)
	if err == nil {
		err = s.probe()
	}
	if err == nil {
		err = s.sweep()
	}
	if err != nil {
		return nil, fmt.Errorf("filestore: %w", err)
	}
	return s, nil
}

// Load implements fincodeauth.Store. It writes nothing.
func (s *Store) Load(ctx context.Context, key string) (*fincodeauth.Record, error) {
	var cur state
	err := s.check()
	if err == nil {
		cur, err = s.folder(key).current(ctx)
	}
	if err == nil && cur.rec == nil {
		err = fincodeauth.ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("filestore: load %q: %w", key, err)
	}
	return cur.rec, nil
}

// Save implements fincodeauth.Store. The record must have a Version. Save does not
// replace a damaged record.
func (s *Store) Save(ctx context.Context, key string, rec *fincodeauth.Record, prev string) error {
	err := s.check()
	if err == nil {
		err = s.save(ctx, key, rec, prev)
	}
	if err != nil {
		return fmt.Errorf("filestore: save %q: %w", key, err)
	}
	return nil
}

func (s *Store) save(ctx context.Context, key string, rec *fincodeauth.Record, prev string) error {
	data, err := encode(key, rec)
	if err != nil {
		return err
	}
	return untilDecided(ctx, func() error { return s.folder(key).save(ctx, data, prev) })
}

// Delete implements fincodeauth.Store. It also removes a damaged record, and
// whatever is in the session's folder or in its place. If Delete cannot remove all
// of it, the session is deleted, but Delete returns an error that says what stays.
func (s *Store) Delete(ctx context.Context, key string) error {
	err := s.check()
	if err == nil {
		err = untilDecided(ctx, func() error { return s.folder(key).delete(ctx) })
	}
	if err != nil {
		return fmt.Errorf("filestore: delete %q: %w", key, err)
	}
	return nil
}

// Path returns the path of the file that holds key's record now. If there is no
// record, it returns the path of the folder that the record's file would be in.
// Each Save makes a new file, with another path.
func (s *Store) Path(key string) string {
	if s.check() != nil {
		return ""
	}
	f := s.folder(key)
	if files, _, err := f.list(); err == nil && len(files) > 0 {
		return f.path(files[len(files)-1])
	}
	return string(f)
}

// String returns the path of the Store's folder. It shows no token.
func (s *Store) String() string {
	if s.check() != nil {
		return "filestore(not made by New)"
	}
	return fmt.Sprintf("filestore(%s)", s.dir)
}

// Format prints what String returns, whatever the verb.
func (s *Store) Format(f fmt.State, _ rune) { fmt.Fprint(f, s.String()) }

// check refuses a nil Store and a zero one. Without a folder, a Store would write
// into the working directory.
func (s *Store) check() error {
	if s == nil || s.dir == "" {
		return errors.New("the Store was not made by filestore.New: call that")
	}
	return nil
}

func (s *Store) folder(key string) folder {
	return folder(filepath.Join(s.dir, folderName(key)))
}

// probe tries what every Save needs: to make a file in the folder, and to link it.
func (s *Store) probe() error {
	f, err := os.CreateTemp(s.dir, newPrefix)
	if err != nil {
		return fmt.Errorf("the folder must be writable: %w", err)
	}
	f.Close()
	defer os.Remove(f.Name())
	link := f.Name() + "-link"
	if err := os.Link(f.Name(), link); err != nil {
		return fmt.Errorf("the folder must be on a file system with hard links, as local disks have: %w", err)
	}
	return os.Remove(link)
}

// sweep removes what crashes left behind. The next New tries again to remove what
// sweep could not remove.
func (s *Store) sweep() error {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(s.dir, e.Name())
		switch {
		case isFolderName(e.Name()):
			folder(path).tidy()
		case strings.HasPrefix(e.Name(), oldPrefix):
			os.RemoveAll(path)
		case strings.HasPrefix(e.Name(), newPrefix):
			if info, err := e.Info(); err == nil && time.Since(info.ModTime()) > abandonedAfter {
				removeAbandoned(path)
			}
		}
	}
	return nil
}

// removeAbandoned removes a folder that a process made and never published. It
// renames the folder first. If that process still runs after all, it can then no
// longer publish a half-removed folder.
func removeAbandoned(path string) {
	old := filepath.Join(filepath.Dir(path), oldPrefix+filepath.Base(path))
	if os.Rename(path, old) == nil {
		os.RemoveAll(old)
	}
}
