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
	"time"

	"github.com/fincodeauth/fincodeauth"
)

// A folder is the path of one session's folder. The files in it are numbered. The
// file with the highest number is the session's record. While the session is
// being deleted, that file is a tombstone. If a person has put a second file with
// the same number there, the names decide which of the two is higher.
//
// # The rules
//
// Any number of processes use the folder at the same time, without a lock, and
// each may be killed at any instruction. Save and Delete are atomic all the same,
// because every writer keeps these rules:
//
//  1. A writer first announces itself: it makes a draft, which is an empty file
//     in the folder. After that, it looks for the highest file, n. If the writer
//     may replace n, it writes its data into the draft and links the draft as
//     n+1. The link fails if n+1 exists. The link also fails if the draft is gone.
//  2. A writer removes only files that are lower than a file that it has seen,
//     the lowest first. Before these files, it removes every draft that it finds.
//     It looks for drafts after it has seen the higher file. A draft is never a
//     folder, so a folder of another program may stay.
//  3. No record follows a tombstone. A writer removes the tombstone after all
//     files that rule 2 names, and then the folder.
//  4. A folder appears by a rename, with its first file already in it. So a folder
//     without numbered files is dead, and any process may remove it.
//  5. Every folder has a generation, which is a random text. It is part of the
//     name of each numbered file. After a Delete, the next login makes a folder of
//     another generation. A writer that is late finds none of its names there.
//  6. A file of another generation than the folder's is one that a person put
//     there, such as a backup. A writer removes such a file only if the same
//     listing shows the higher file that the writer has seen.
//
// # Why Save is atomic
//
// No number is used twice. A writer that links n+1 made its draft first, and then
// saw n as the highest file. So its draft is older than the first file n+1. A
// process that removes n+1 removes the older draft before, by rule 2. Without its
// draft, the writer's link fails.
//
// So a link that succeeds has the number after the highest one. At that moment the
// Save takes effect. A writer whose draft is gone has changed nothing, and starts
// over. This happens only if another writer got ahead, so one of them always
// makes progress.
//
// # Why a late writer leaves the next session alone
//
// A writer that is about to remove files may stall, until the session was deleted
// and another login has made the next folder. Then the writer lists the next
// folder. The file that it has seen is not in that list, and no file there has that
// file's generation. So by the rules 2 and 6, the writer removes no numbered file.
// If the writer stalls after the listing, it removes files by their names. The next
// folder has other names, by rule 5.
//
// # Why Load needs no lock
//
// A reader lists the folder, and opens the highest file of its list. If that works,
// the file is the record. The list may lack a higher file, if that file was
// removed while the reader was listing. But then the file that the reader wants to
// open was removed before, because rule 2 removes the lowest file first. The
// reader finds it missing, and lists again.
//
// # What a crash leaves
//
// A crash leaves drafts, lower files, a tombstone or an empty folder. Writers meet
// all of these without a crash too. The next writer, or New, removes them.
type folder string

// A file is the name of a numbered file.
type file struct {
	number     uint64 // from 1; 0 means that there is no file
	generation string // of the folder
}

// A state is what a folder holds.
type state struct {
	file file                // the highest file
	rec  *fincodeauth.Record // nil if there is no record, or a tombstone
}

// version returns the record's version, or "" if there is no record.
func (s state) version() string {
	if s.rec == nil {
		return ""
	}
	return s.rec.Version
}

const (
	// Only this package may use these prefixes: New removes such folders.
	newPrefix = "fincodeauth-new-" // a folder that is being made
	oldPrefix = "fincodeauth-old-" // a folder that is being removed

	draftSuffix = ".draft"
	tombstone   = "deleted\n"
)

// errStartOver says that another writer was faster, and that nothing was changed.
var errStartOver = errors.New("start over")

// errNoFolder says that the session has no folder, and so no record.
var errNoFolder = errors.New("no folder")

// errDamaged says that the highest file is neither a record nor a tombstone.
var errDamaged = errors.New("the record is damaged: restore the file, or call Sessions.Forget, then log in again")

// A misplacedError says that something else is in the place of a session's
// folder.
type misplacedError string

func (e misplacedError) Error() string {
	return string(e) + ": restore the session's folder, or call Sessions.Forget, then log in again"
}

// untilDecided repeats try as long as it returns errStartOver and ctx lasts.
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

// save tries once to replace the record with version prev by data.
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
		// Without a record, this may be another program's folder.
		if err := f.bury(cur.file, removeEmpty); err != nil {
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
	f.clean(next, removeEmpty) // the next Save removes what is left after an error
	return nil
}

// delete tries once to put a tombstone above the highest file, and then removes
// everything in the folder. If it cannot read the highest file, that file may be a tombstone
// already. A second tombstone says the same as the first.
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
	return f.buryAll(ctx, last)
}

// create makes the folder, with data as its first file.
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
	// If the folder exists, the error of Rename depends on the operating system.
	_, statErr := os.Lstat(string(f))
	if statErr == nil || errors.Is(err, fs.ErrExist) || errors.Is(err, fs.ErrNotExist) {
		return errStartOver
	}
	return err
}

// writeFirst writes the first file of a folder, durably.
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

// current returns what the folder holds now. If it cannot read the highest file,
// it returns the name of that file and the error.
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
			continue // a higher file replaced it
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
			return fmt.Errorf("the store's folder %s is missing: restore it with its content, because in an empty folder nobody is logged in", store)
		}
		return errNoFolder
	case lstatErr != nil:
		return err
	}
	target, statErr := os.Stat(string(f))
	switch {
	case info.Mode()&fs.ModeSymlink != 0 && (statErr != nil || !target.IsDir()):
		return misplacedError(string(f) + " is a symbolic link that does not lead to a folder")
	case statErr == nil && !target.IsDir():
		return misplacedError(string(f) + " is not a folder")
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

// clean removes all drafts and all else that has no number, and then the files that
// are lower than last. It stops at the first file that it cannot remove, to keep
// the order of rule 2. It does not stop at a folder that other cannot remove.
//
// other removes what has no number: it is removeEmpty or removeAll.
func (f folder) clean(last file, other func(path string) error) error {
	files, others, err := f.list()
	if err != nil {
		return err
	}
	var inTheWay error
	for _, name := range others {
		path := filepath.Join(string(f), name)
		err := other(path)
		if err == nil {
			continue
		}
		if info, statErr := os.Lstat(path); statErr != nil || !info.IsDir() {
			return err
		}
		inTheWay = err
	}
	sameFolder := slices.Contains(files, last) // and not the next session's
	for _, old := range files {
		if old.compare(last) >= 0 || old.generation != last.generation && !sameFolder {
			continue
		}
		// It is a file, unless somebody put a folder in the place of a record.
		if err := removeAll(f.path(old)); err != nil {
			return err
		}
	}
	return inTheWay
}

// buryAll removes a dead folder with all that is in it, as bury does with
// removeAll. After an error it tries again for about a tenth of a second: Windows
// does not remove a file while another process has it open.
func (f folder) buryAll(ctx context.Context, last file) error {
	for pause := time.Millisecond; ; pause *= 2 {
		err := f.bury(last, removeAll)
		if err == nil || pause > 50*time.Millisecond {
			return err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		}
	}
}

// bury removes a dead folder: one whose highest file is the tombstone last, or,
// if last is no file, one without numbered files. other is clean's.
func (f folder) bury(last file, other func(path string) error) error {
	if err := f.clean(last, other); err != nil {
		return ignoreNotExist(err)
	}
	if last.number > 0 {
		// Without this sync, a power failure could undo the removal of the
		// record and not that of the tombstone. The record would be back.
		if err := syncDir(string(f)); err != nil {
			return ignoreNotExist(err)
		}
		if err := remove(f.path(last)); err != nil {
			return err
		}
	}
	// This fails, as it should, if another writer's draft or a new session is there.
	os.Remove(string(f))
	return nil
}

// tidy removes what a crash left in the folder. It leaves a folder with a single
// file alone, even if that file is a tombstone. A tombstone does no harm, and to
// find it, New would have to read every record.
func (f folder) tidy() {
	files, others, err := f.list()
	if err != nil || len(files) == 1 && len(others) == 0 {
		return
	}
	if slices.ContainsFunc(others, isNoDraft) {
		return // no crash leaves such a file, so this may be another program's folder
	}
	cur, err := f.current(context.Background())
	switch {
	case err != nil: // Load and Save of this session return the error
	case cur.rec == nil:
		f.bury(cur.file, removeEmpty)
	default:
		f.clean(cur.file, removeEmpty)
	}
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
	// If the folder is gone, another process deleted the session after this link.
	return ignoreNotExist(syncDir(filepath.Dir(path)))
}

// discard removes the draft. It may be called more than once.
func (d draft) discard() {
	d.Close()
	os.Remove(d.Name())
}

// writeSync writes data to f, durably, and closes f.
func writeSync(f *os.File, data []byte) error {
	_, err := f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
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
