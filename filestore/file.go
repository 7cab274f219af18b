package filestore

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/internal/durable"
)

// Rules for concurrency. Nothing here has a state: it is all on the disk, where
// other processes change it between any two system calls. What is removed, what is
// linked, and in which order, is decided in folder.go, by the rules there. A draft
// belongs to the goroutine that announced it.

const (
	// Only this package may use these prefixes: New removes such folders.
	newPrefix = "fincodeauth-new-" // a folder that is being made
	oldPrefix = "fincodeauth-old-" // a folder that is being removed

	draftSuffix = ".draft"
	tombstone   = "deleted\n"
)

// A file is the name of a numbered file.
type file struct {
	number     uint64 // from 1; 0 means that there is no file
	generation string // of the folder
}

func (f folder) path(file file) string { return filepath.Join(string(f), file.name()) }

// compare returns a positive number if f is higher than g, and 0 if f is g.
func (f file) compare(g file) int {
	return cmp.Or(cmp.Compare(f.number, g.number), cmp.Compare(f.generation, g.generation))
}

func (f file) next() file { return file{f.number + 1, f.generation} }

func (f file) name() string { return fmt.Sprintf("%010d-%s.json", f.number, f.generation) }

func parseFile(name string) (file, bool) {
	digits, rest, _ := strings.Cut(name, "-")
	number, err := strconv.ParseUint(digits, 10, 64)
	f := file{number, strings.TrimSuffix(rest, ".json")}
	return f, err == nil && number > 0 && f.name() == name
}

// list returns the folder's numbered files in ascending order, and the names of
// all other files. The folder is so small that a single system call lists it.
func (f folder) list() (files []file, others []string, err error) {
	d, err := os.Open(string(f))
	if err != nil {
		return nil, nil, err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, nil, err
	}
	for _, name := range names {
		if file, ok := parseFile(name); ok {
			files = append(files, file)
		} else {
			others = append(others, name)
		}
	}
	slices.SortFunc(files, file.compare)
	return files, others, nil
}

// read returns the content of a file. Its error is fs.ErrNotExist only if the
// file was removed.
func (f folder) read(file file) ([]byte, error) {
	path := f.path(file)
	data, err := os.ReadFile(path)
	if err == nil {
		return data, nil
	}
	// The error for a link that leads to nothing is fs.ErrNotExist too.
	if info, statErr := os.Lstat(path); statErr == nil && !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s (a %s): %w", path, kindOf(info), errDamaged)
	}
	return nil, err
}

// kindOf says what is not a regular file.
func kindOf(info fs.FileInfo) string {
	switch {
	case info.IsDir():
		return "folder"
	case info.Mode()&fs.ModeSymlink != 0:
		return "symbolic link"
	}
	return "special file"
}

// errDamaged says that the highest file is neither a record nor a tombstone.
var errDamaged = errors.New("the record is damaged: restore the file, or call Sessions.Forget, then log in again")

// encode returns the JSON form of rec. It has the key, too, if the folder's name does not
// say it.
func encode(key string, rec *fincodeauth.Record) ([]byte, error) {
	if rec.Version == "" {
		return nil, errors.New("the record has no version")
	}
	if _, ok := keyOf(folderName(key)); ok {
		return json.Marshal(rec)
	}
	return json.Marshal(struct {
		*fincodeauth.Record
		Key []byte `json:"key"`
	}{rec, []byte(key)})
}

// decode returns the record in data, or nil if data is a tombstone. Its error
// shows nothing of data, which may hold tokens.
func decode(data []byte) (*fincodeauth.Record, error) {
	if string(data) == tombstone {
		return nil, nil
	}
	rec := new(fincodeauth.Record)
	if err := json.Unmarshal(data, rec); err != nil || rec.Version == "" {
		return nil, errDamaged
	}
	return rec, nil
}

// A draft is a file that a writer links to a number when it is complete.
type draft struct{ *os.File }

// announce makes an empty draft.
func (f folder) announce() (draft, error) {
	d, err := os.CreateTemp(string(f), "*"+draftSuffix)
	if err != nil {
		return draft{}, f.explain(err)
	}
	return draft{d}, nil
}

// isNoDraft reports whether announce never gives this name.
func isNoDraft(name string) bool {
	digits, ok := strings.CutSuffix(name, draftSuffix)
	return !ok || strings.Trim(digits, "0123456789") != ""
}

// publish writes data into the draft and links the draft to path, durably. The
// error is fs.ErrExist if path exists, and errStartOver if another process removed
// the draft.
func (d draft) publish(data []byte, path string) error {
	if _, ok := parseFile(filepath.Base(path)); !ok { // list would not find it
		return fmt.Errorf("no number follows that of the highest file: remove %s", filepath.Dir(path))
	}
	if err := durable.WriteFile(d.File, data); err != nil {
		return err
	}
	err := os.Link(d.Name(), path)
	if errors.Is(err, fs.ErrNotExist) {
		return errStartOver
	}
	if err != nil {
		return err
	}
	// If the folder is gone, another process deleted the session after this link.
	return ignoreNotExist(durable.SyncDir(filepath.Dir(path)))
}

// discard removes the draft. It may be called more than once.
func (d draft) discard() {
	d.Close()
	os.Remove(d.Name())
}

// writeFirst writes the first file of a folder, durably.
func writeFirst(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if err := durable.WriteFile(f, data); err != nil {
		return err
	}
	return durable.SyncDir(filepath.Dir(path))
}

func remove(path string) error { return ignoreNotExist(os.Remove(path)) }

// removeEmpty removes a file or an empty folder.
func removeEmpty(path string) error {
	if err := remove(path); err != nil {
		return fmt.Errorf("%w: remove it, or call Sessions.Forget, then log in again", err)
	}
	return nil
}

// removeAll removes a file, or a folder with all that is in it.
func removeAll(path string) error {
	if err := os.RemoveAll(path); err != nil {
		return fmt.Errorf("%w: remove it, then try again", err)
	}
	return nil
}

func ignoreNotExist(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
