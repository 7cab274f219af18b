package filestore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/internal/durable"
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

// errStartOver says that another writer was faster, and that nothing was changed.
var errStartOver = errors.New("start over")

// errNoFolder says that the session has no folder, and so no record.
var errNoFolder = errors.New("no folder")

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
		return durable.SyncDir(store)
	}
	os.RemoveAll(made)
	// If the folder exists, the error of Rename depends on the operating system.
	_, statErr := os.Lstat(string(f))
	if statErr == nil || errors.Is(err, fs.ErrExist) || errors.Is(err, fs.ErrNotExist) {
		return errStartOver
	}
	return err
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
		if err := durable.SyncDir(string(f)); err != nil {
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
