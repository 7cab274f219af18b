package filestore

import (
	"cmp"
	"context"
	"crypto/rand"
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
)

// A folder is the path of one session's folder. Its files are numbered. The
// highest is the record, or a tombstone while the session is being deleted.
//
// Save and Delete are atomic because every writer keeps these rules:
//
//  1. It first announces itself by a draft, an empty file in the folder. Only then
//     does it look for the highest file, n. If n may be replaced, it completes the
//     draft and links it as n+1, which fails if n+1 exists or the draft is gone.
//  2. It removes only files below one that it has seen, in ascending order, and
//     before them every draft that it finds after it saw that one.
//  3. Nothing follows a tombstone. It is removed last, as in (2), and then the folder.
//  4. A folder appears by a rename with its first file in it. One without
//     numbered files is therefore dead, and anybody may remove it.
//  5. File names carry the folder's generation, so that a latecomer finds
//     nothing of its own in the folder that a later login made.
//
// So no number is given twice: a writer that wants n+1 saw n as the highest, hence
// its draft is older than the first n+1, and is removed before that is. A link that
// succeeds follows the highest file, and at that moment the Save takes effect.
// A writer whose draft was removed has changed nothing and starts over; this
// happens only when another writer got ahead.
//
// A reader that can open the highest file of its listing has the record: a
// higher one that the listing missed because it was removed took this one with
// it before, by the order in (2).
//
// What a crash leaves, drafts, lower files, a tombstone, an empty folder, is
// what writers meet anyway. The next writer or New removes it.
type folder string

// A file names a numbered file of a folder.
type file struct {
	number     uint64 // from 1; 0: no file
	generation string // chosen when the folder was made
}

// A state is what a folder says.
type state struct {
	file file                // the highest
	rec  *fincodeauth.Record // nil: there is none, or it was deleted
}

func (s state) version() string {
	if s.rec == nil {
		return ""
	}
	return s.rec.Version
}

const (
	// New removes what bears these: nobody else may call a folder so.
	newPrefix = "fincodeauth-new-" // of a folder that is being made
	oldPrefix = "fincodeauth-old-" // of one that is being removed

	draftSuffix = ".draft"
	tombstone   = "deleted\n"
)

// errStartOver: another writer was faster, and nothing was changed.
var errStartOver = errors.New("start over")

// errNoFolder: the session has no folder, so that it has no record.
var errNoFolder = errors.New("no folder")

// errDamaged: the highest file is no record.
var errDamaged = errors.New("the record is damaged: restore the file, or call Sessions.Forget, then log in again")

// A misplacedError says what is in the place of a session's folder.
type misplacedError string

func (e misplacedError) Error() string {
	return string(e) + ": restore the session's folder, or call Sessions.Forget, then log in again"
}

// untilDecided repeats try until it returns another error than errStartOver.
func untilDecided(ctx context.Context, try func() error) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := try(); !errors.Is(err, errStartOver) {
			return err
		}
	}
}

// save tries once to put data in the place of the record with version prev.
func (f folder) save(ctx context.Context, data []byte, prev string) error {
	d, err := f.announce()
	if errors.Is(err, errNoFolder) {
		if prev != "" {
			return fincodeauth.ErrConflict
		}
		return f.create(data)
	}
	if err != nil {
		return err
	}
	defer d.discard()

	cur, err := f.current(ctx)
	if err != nil {
		return err
	}
	if cur.version() != prev {
		return fincodeauth.ErrConflict
	}
	if cur.rec == nil {
		d.discard()
		if err := f.bury(cur.file); err != nil {
			return err
		}
		return errStartOver
	}
	next := cur.file.next()
	err = d.publish(data, f.path(next))
	if errors.Is(err, fs.ErrExist) {
		return fincodeauth.ErrConflict
	}
	if err != nil {
		return err
	}
	f.clean(next) // what it leaves, the next Save removes
	return nil
}

// delete tries once to put a tombstone over whatever there is.
func (f folder) delete(ctx context.Context) error {
	d, err := f.announce()
	if errors.Is(err, errNoFolder) {
		return nil
	}
	if _, ok := errors.AsType[misplacedError](err); ok {
		return f.removeMisplaced()
	}
	if err != nil {
		return err
	}
	defer d.discard()

	cur, err := f.current(ctx)
	if err != nil && cur.file.number == 0 {
		return err
	}
	last := cur.file
	if err != nil || cur.rec != nil {
		last = cur.file.next()
		err = d.publish([]byte(tombstone), f.path(last))
		if errors.Is(err, fs.ErrExist) {
			return errStartOver
		}
		if err != nil {
			return err
		}
	}
	d.discard()
	f.bury(last) // what it leaves, the next Save or New removes
	return nil
}

// create makes the folder with data as its first file.
func (f folder) create(data []byte) error {
	store := filepath.Dir(string(f))
	made, err := os.MkdirTemp(store, newPrefix)
	if err != nil {
		return err
	}
	first := file{number: 1, generation: rand.Text()}
	err = writeFirst(folder(made).path(first), data)
	if err == nil {
		err = os.Rename(made, string(f))
	}
	if err == nil {
		return syncDir(store)
	}
	os.RemoveAll(made)
	_, statErr := os.Lstat(string(f)) // what an existing folder makes Rename say depends on the system
	if statErr == nil || errors.Is(err, fs.ErrExist) || errors.Is(err, fs.ErrNotExist) {
		return errStartOver
	}
	return err
}

func writeFirst(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if err := writeSync(f, data); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// current returns what the folder says now. If it cannot read the highest file,
// it returns that file's name with the error.
func (f folder) current(ctx context.Context) (state, error) {
	for {
		if err := ctx.Err(); err != nil {
			return state{}, err
		}
		files, _, err := f.list()
		if err != nil {
			err = f.explain(err)
		}
		switch {
		case errors.Is(err, errStartOver):
			continue
		case errors.Is(err, errNoFolder):
			return state{}, nil
		case err != nil || len(files) == 0:
			return state{}, err
		}
		last := files[len(files)-1]
		data, err := f.read(last)
		if errors.Is(err, fs.ErrNotExist) {
			continue // a higher one replaced it
		}
		if err != nil {
			return state{file: last}, err
		}
		rec, err := decode(data)
		if err != nil {
			return state{file: last}, fmt.Errorf("%s: %w", f.path(last), err)
		}
		return state{file: last, rec: rec}, nil
	}
}

// read returns the content of a file. fs.ErrNotExist says that its name is gone.
func (f folder) read(file file) ([]byte, error) {
	path := f.path(file)
	data, err := os.ReadFile(path)
	if err == nil {
		return data, nil
	}
	// A dangling link does not exist either, but its name stays.
	if info, statErr := os.Lstat(path); statErr == nil && !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s (a %s): %w", path, kindOf(info), errDamaged)
	}
	return nil, err
}

func kindOf(info fs.FileInfo) string {
	switch {
	case info.IsDir():
		return "folder"
	case info.Mode()&fs.ModeSymlink != 0:
		return "symbolic link"
	}
	return "special file"
}

// explain says why the folder could not be used: errNoFolder if there is none,
// errStartOver if another process has just made it, and a misplacedError if
// something else is in its place. Any other error is returned as it is.
func (f folder) explain(err error) error {
	info, lstatErr := os.Lstat(string(f))
	switch {
	case errors.Is(lstatErr, fs.ErrNotExist):
		// If the store's folder is missing, its sessions may come back with it.
		store := filepath.Dir(string(f))
		if _, err := os.Stat(store); errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("the store's folder %s is missing: restore it, or call filestore.New again", store)
		}
		return errNoFolder
	case lstatErr != nil:
		return err
	}
	target, statErr := os.Stat(string(f))
	switch {
	case info.Mode()&fs.ModeSymlink != 0 && (statErr != nil || !target.IsDir()):
		return misplacedError(string(f) + " is a symbolic link that leads to no folder")
	case statErr == nil && !target.IsDir():
		return misplacedError(string(f) + " is no folder")
	case errors.Is(err, fs.ErrNotExist):
		return errStartOver
	}
	return err
}

// removeMisplaced removes what is in the place of the session's folder. If
// another process has put a folder there meanwhile, that folder stays, because
// it is not empty.
func (f folder) removeMisplaced() error {
	err := remove(string(f))
	if info, statErr := os.Lstat(string(f)); err == nil || statErr == nil && info.IsDir() {
		return errStartOver
	}
	return err
}

func encode(rec *fincodeauth.Record) ([]byte, error) {
	if rec.Version == "" {
		return nil, errors.New("the record has no version")
	}
	return json.Marshal(rec)
}

// decode returns the record in a file, nil if it is a tombstone. Its error says
// nothing of the content.
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

// clean removes the files that last replaced, and before them all drafts. It
// stops at the first that it cannot remove, to keep the order.
func (f folder) clean(last file) error {
	files, others, err := f.list()
	if err != nil {
		return err
	}
	for _, name := range others {
		if err := remove(filepath.Join(string(f), name)); err != nil {
			return err
		}
	}
	for _, old := range files {
		if old.generation != last.generation || old.number >= last.number {
			continue
		}
		// Never a folder, unless somebody damaged the record.
		if err := os.RemoveAll(f.path(old)); err != nil {
			return err
		}
	}
	return nil
}

// bury removes a folder whose highest file is the given tombstone, or that has
// no numbered file.
func (f folder) bury(last file) error {
	if err := f.clean(last); err != nil {
		return ignoreNotExist(err)
	}
	if last.number > 0 {
		// Or a power failure might keep a record and lose its tombstone.
		if err := syncDir(string(f)); err != nil {
			return ignoreNotExist(err)
		}
		if err := remove(f.path(last)); err != nil {
			return err
		}
	}
	os.Remove(string(f)) // fails if another writer's draft is there, or a new session
	return nil
}

// tidy removes what a crash left in the folder. A tombstone alone is left: it
// costs nothing, and to know it from a record would cost reading every record.
func (f folder) tidy() {
	files, others, err := f.list()
	if err != nil || len(files) == 1 && len(others) == 0 {
		return
	}
	if slices.ContainsFunc(others, isNoDraft) {
		return // no crash leaves that: it may be somebody else's folder
	}
	cur, err := f.current(context.Background())
	switch {
	case err != nil: // whoever asks for this session is told
	case cur.rec == nil:
		f.bury(cur.file)
	default:
		f.clean(cur.file)
	}
}

// list returns the folder's numbered files in order, and the names of all else
// that is in it. The folder is so small that one system call lists it.
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
	slices.SortFunc(files, func(a, b file) int { return cmp.Compare(a.number, b.number) })
	return files, others, nil
}

func (f folder) path(file file) string { return filepath.Join(string(f), file.name()) }

func (f file) next() file { return file{f.number + 1, f.generation} }

func (f file) name() string { return fmt.Sprintf("%010d-%s.json", f.number, f.generation) }

func parseFile(name string) (file, bool) {
	digits, rest, _ := strings.Cut(name, "-")
	number, err := strconv.ParseUint(digits, 10, 64)
	f := file{number, strings.TrimSuffix(rest, ".json")}
	return f, err == nil && number > 0 && f.name() == name
}

// A draft is a file that will be linked to its number.
type draft struct{ *os.File }

// announce makes an empty draft.
func (f folder) announce() (draft, error) {
	d, err := os.CreateTemp(string(f), "*"+draftSuffix)
	if err != nil {
		return draft{}, f.explain(err)
	}
	return draft{d}, nil
}

// isNoDraft tells whether name is none that announce gives.
func isNoDraft(name string) bool {
	digits, ok := strings.CutSuffix(name, draftSuffix)
	return !ok || strings.Trim(digits, "0123456789") != ""
}

// publish completes the draft and links it to path, durably. The error is
// fs.ErrExist if path exists, and errStartOver if somebody removed the draft.
func (d draft) publish(data []byte, path string) error {
	if _, ok := parseFile(filepath.Base(path)); !ok { // nobody would find it
		return fmt.Errorf("no number follows the highest file's; remove %s", filepath.Dir(path))
	}
	if err := writeSync(d.File, data); err != nil {
		return err
	}
	err := os.Link(d.Name(), path)
	if errors.Is(err, fs.ErrNotExist) {
		return errStartOver
	}
	if err != nil {
		return err
	}
	// If the folder is gone, so is the session: deleted after this link.
	return ignoreNotExist(syncDir(filepath.Dir(path)))
}

// discard may be called more than once.
func (d draft) discard() {
	d.Close()
	os.Remove(d.Name())
}

// writeSync writes data durably to f and closes it.
func writeSync(f *os.File, data []byte) error {
	_, err := f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func remove(path string) error { return ignoreNotExist(os.Remove(path)) }

func ignoreNotExist(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
