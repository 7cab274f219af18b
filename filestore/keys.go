package filestore

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
)

// pageSize is how many folders Keys lists at once.
const pageSize = 1000

// Keys implements fincodeauth.KeyLister. It lists a thousand folders at a time. Of a key
// that is too long for a folder's name, it reads the record. If that record is damaged,
// Keys yields an error for it, and goes on.
func (s *Store) Keys(ctx context.Context) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for name, err := range s.folderNames(ctx) {
			key := ""
			if err == nil {
				key, err = s.keyIn(ctx, name)
			}
			if err != nil {
				err = fmt.Errorf("filestore: list keys: %w", err)
			} else if key == "" {
				continue
			}
			if !yield(key, err) {
				return
			}
		}
	}
}

// folderNames yields the names of the sessions' folders. An error is the last that it
// yields.
func (s *Store) folderNames(ctx context.Context) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		err := s.check()
		if err == nil {
			err = s.eachFolder(ctx, func(name string) bool { return yield(name, nil) })
		}
		if err != nil {
			yield("", err)
		}
	}
}

// eachFolder calls yield with the name of each session's folder, until yield returns false.
func (s *Store) eachFolder(ctx context.Context, yield func(name string) bool) error {
	d, err := os.Open(s.dir)
	if err != nil {
		return err
	}
	defer d.Close()
	for {
		names, err := d.Readdirnames(pageSize)
		for _, name := range names {
			if err := ctx.Err(); err != nil {
				return err
			}
			if isFolderName(name) && !yield(name) {
				return nil
			}
		}
		if errors.Is(err, io.EOF) {
			return ctx.Err()
		}
		if err != nil {
			return err
		}
	}
}

// keyIn returns the key of the folder with a name, and "" if there is no record in it.
func (s *Store) keyIn(ctx context.Context, name string) (string, error) {
	f := folder(filepath.Join(s.dir, name))
	cur, err := f.current(ctx)
	if key, ok := keyOf(name); ok {
		if err == nil && cur.rec == nil {
			return "", nil
		}
		return key, ctx.Err() // also of a damaged record
	}
	if err != nil || cur.rec == nil {
		return "", err
	}
	data, err := f.read(cur.file)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil // replaced or deleted meanwhile
	}
	var named struct{ Key []byte }
	if err == nil && (json.Unmarshal(data, &named) != nil || folderName(string(named.Key)) != name) {
		err = fmt.Errorf("the record in %s does not name its key, and the folder's name is only a hash: call Sessions.Forget with the key, or remove the folder", f)
	}
	return string(named.Key), err
}
