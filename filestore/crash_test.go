package filestore

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/internal/durable"
)

// A Save makes a draft, writes it, links it, and removes the draft and the older
// file. These are the folders that a crash between any two of these steps leaves.
func TestSaveThatCrashedHappenedOrDidNot(t *testing.T) {
	for _, c := range []struct {
		name  string
		crash func(t *testing.T, f folder)
		now   string // the version of the record after the crash
	}{
		{"draft announced", func(t *testing.T, f folder) { announce(t, f, nil) }, "v1"},
		{"draft half written", func(t *testing.T, f folder) { announce(t, f, []byte(`{"vers`)) }, "v1"},
		{"draft written", func(t *testing.T, f folder) { announce(t, f, data(t, "v2")) }, "v1"},
		{"linked", func(t *testing.T, f folder) {
			link(t, announce(t, f, data(t, "v2")), f.path(highest(t, f).next()))
		}, "v2"},
		{"linked, drafts removed", func(t *testing.T, f folder) {
			d := announce(t, f, data(t, "v2"))
			link(t, d, f.path(highest(t, f).next()))
			d.discard()
		}, "v2"},
		{"linked, older removed", func(t *testing.T, f folder) {
			v1 := highest(t, f)
			d := announce(t, f, data(t, "v2"))
			link(t, d, f.path(v1.next()))
			d.discard()
			removeFile(t, f.path(v1))
		}, "v2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStore(t)
			save(t, s, "v1", "")
			c.crash(t, s.folder(key))

			want(t, s, c.now)
			wantConflict(t, s, "v3", "")
			wantConflict(t, s, "v3", "v0")
			save(t, s, "v3", c.now)
			want(t, s, "v3")
			if files := filesIn(t, s.dir); len(files) != 1 {
				t.Errorf("after the next Save there are %q", files)
			}
		})
		t.Run(c.name+", then New", func(t *testing.T) {
			s := newStore(t)
			save(t, s, "v1", "")
			c.crash(t, s.folder(key))
			s = open(t, s.dir)
			want(t, s, c.now)
			if files := filesIn(t, s.dir); len(files) != 1 {
				t.Errorf("after New there are %q", files)
			}
		})
	}
}

// A Delete links a tombstone, and then removes the record, the tombstone and the
// folder.
func TestDeleteThatCrashedDeleted(t *testing.T) {
	for _, c := range []struct {
		name  string
		crash func(t *testing.T, f folder)
		stays bool // New leaves the folder, and the next use of the key removes it
	}{
		{"linked", func(t *testing.T, f folder) {
			link(t, announce(t, f, []byte(tombstone)), f.path(highest(t, f).next()))
		}, false},
		{"record removed", func(t *testing.T, f folder) {
			v1 := highest(t, f)
			d := announce(t, f, []byte(tombstone))
			link(t, d, f.path(v1.next()))
			d.discard()
			removeFile(t, f.path(v1))
		}, true},
		{"tombstone removed", func(t *testing.T, f folder) { removeFile(t, f.path(highest(t, f))) }, false},
		{"tombstone removed, late draft", func(t *testing.T, f folder) {
			removeFile(t, f.path(highest(t, f)))
			announce(t, f, data(t, "v2"))
		}, false},
	} {
		crashed := func(t *testing.T) *Store {
			s := newStore(t)
			save(t, s, "v1", "")
			c.crash(t, s.folder(key))
			return s
		}
		t.Run(c.name+", then Save", func(t *testing.T) {
			s := crashed(t)
			wantNone(t, s)
			wantConflict(t, s, "v2", "v1")
			wantNone(t, s)
			save(t, s, "v2", "")
			want(t, s, "v2")
			if files := filesIn(t, s.dir); len(files) != 1 {
				t.Errorf("after the next Save there are %q", files)
			}
		})
		t.Run(c.name+", then Delete", func(t *testing.T) {
			s := crashed(t)
			if err := s.Delete(t.Context(), key); err != nil {
				t.Fatal(err)
			}
			wantEmpty(t, s.dir)
		})
		t.Run(c.name+", then New", func(t *testing.T) {
			s := open(t, crashed(t).dir)
			wantNone(t, s)
			if !c.stays {
				wantEmpty(t, s.dir)
			}
		})
	}
}

// The first Save makes a folder under another name, and renames it.
func TestNewRemovesWhatAFirstSaveLeftLongAgo(t *testing.T) {
	s := newStore(t)
	made := filepath.Join(s.dir, newPrefix+"1")
	if err := os.Mkdir(made, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := writeFirst(filepath.Join(made, file{1, "G"}.name()), data(t, "v1")); err != nil {
		t.Fatal(err)
	}
	wantNone(t, s)

	open(t, s.dir)
	if len(filesIn(t, s.dir)) != 1 {
		t.Error("New removed a folder that may still be published")
	}
	long := time.Now().Add(-2 * abandonedAfter)
	if err := os.Chtimes(made, long, long); err != nil {
		t.Fatal(err)
	}
	open(t, s.dir)
	wantEmpty(t, s.dir)
}

func TestNewFinishesARemovalThatCrashed(t *testing.T) {
	s := newStore(t)
	if err := os.Mkdir(filepath.Join(s.dir, oldPrefix+newPrefix+"1"), 0o700); err != nil {
		t.Fatal(err)
	}
	open(t, s.dir)
	wantEmpty(t, s.dir)
}

// A writer that stalls before its link must not get a number that another writer
// used meanwhile, even if that file was removed again.
func TestStalledWriterStartsOver(t *testing.T) {
	for name, meanwhile := range map[string]func(t *testing.T, s *Store){
		"by one Save": func(t *testing.T, s *Store) {
			save(t, s, "v2", "v1")
		},
		"by two": func(t *testing.T, s *Store) {
			save(t, s, "v2", "v1")
			save(t, s, "v3", "v2")
		},
		"by a Delete": func(t *testing.T, s *Store) {
			if err := s.Delete(t.Context(), key); err != nil {
				t.Fatal(err)
			}
		},
		"by a new login": func(t *testing.T, s *Store) {
			if err := s.Delete(t.Context(), key); err != nil {
				t.Fatal(err)
			}
			save(t, s, "w1", "")
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t)
			save(t, s, "v1", "")
			f := s.folder(key)
			d, err := f.announce()
			if err != nil {
				t.Fatal(err)
			}
			defer d.discard()
			cur, err := f.current(t.Context())
			if err != nil || cur.version() != "v1" {
				t.Fatal(cur, err)
			}
			meanwhile(t, s)
			before, _ := s.Load(t.Context(), key)
			if err := d.publish(data(t, "stale"), f.path(cur.file.next())); !errors.Is(err, errStartOver) {
				t.Errorf("publish = %v, want errStartOver", err)
			}
			after, _ := s.Load(t.Context(), key)
			if (before == nil) != (after == nil) || before != nil && before.Version != after.Version {
				t.Errorf("the stalled writer changed %v to %v", before, after)
			}
		})
	}
}

// A process that stalls before it removes files must not remove the files of a
// session that began meanwhile, even if the numbers are the same.
func TestStalledRemovalLeavesANewSessionAlone(t *testing.T) {
	s := newStore(t)
	save(t, s, "v1", "")
	save(t, s, "v2", "v1")
	f := s.folder(key)
	tombstone := highest(t, f).next()
	if err := s.Delete(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	save(t, s, "w1", "")
	if err := f.bury(tombstone, removeAll); err != nil {
		t.Error(err)
	}
	want(t, s, "w1")
	save(t, s, "w2", "w1")
	save(t, s, "w3", "w2") // its file has the tombstone's number
	if err := f.bury(tombstone, removeAll); err != nil {
		t.Error(err)
	}
	want(t, s, "w3")
}

func TestNewLeavesForeignFiles(t *testing.T) {
	s := newStore(t)
	path := filepath.Join(s.dir, "notes.txt")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	open(t, s.dir)
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
}

func TestNewLeavesForeignFolders(t *testing.T) {
	s := newStore(t)
	long := time.Now().Add(-2 * abandonedAfter)
	for _, name := range []string{"old-photos", "new-photos", "k-photos", "h-photos"} {
		theirs := filepath.Join(s.dir, name)
		path := filepath.Join(theirs, "photo")
		if err := errors.Join(os.Mkdir(theirs, 0o700), os.WriteFile(path, nil, 0o600), os.Chtimes(theirs, long, long)); err != nil {
			t.Fatal(err)
		}
		open(t, s.dir)
		if _, err := os.Stat(path); err != nil {
			t.Error(err)
		}
	}
}

// Somebody else must have made such a file: the package never counts that far.
func TestNumbersThatRunOutAreAnError(t *testing.T) {
	s := newStore(t)
	save(t, s, "v1", "")
	last := file{math.MaxUint64, "G"}
	if err := os.WriteFile(s.folder(key).path(last), data(t, "v2"), 0o600); err != nil {
		t.Fatal(err)
	}
	for call, err := range map[string]error{
		"Save":   s.Save(t.Context(), key, record("v3"), "v2"),
		"Delete": s.Delete(t.Context(), key),
	} {
		if err == nil || errors.Is(err, fincodeauth.ErrConflict) || !strings.Contains(err.Error(), "remove "+string(s.folder(key))) {
			t.Errorf("%s = %v, want an error that says what to remove", call, err)
		}
	}
	want(t, s, "v2")
}

func TestBlockedFolderIsAnErrorNotALoop(t *testing.T) {
	s := newStore(t)
	blocked := filepath.Join(string(s.folder(key)), "sub", "sub")
	if err := os.MkdirAll(blocked, 0o700); err != nil {
		t.Fatal(err)
	}
	err := s.Save(t.Context(), key, record("v1"), "")
	if err == nil || errors.Is(err, fincodeauth.ErrConflict) || !strings.Contains(err.Error(), "sub") {
		t.Errorf("Save = %v, want an error that names the file that is in the way", err)
	}
	if err != nil && !strings.Contains(err.Error(), "remove it, or call Sessions.Forget, then log in again") {
		t.Errorf("Save = %v, want an error that says what to do", err)
	}
	if err := s.Delete(t.Context(), key); err != nil {
		t.Errorf("Delete = %v", err)
	}
	save(t, s, "v1", "")
	want(t, s, "v1")
}

// announce leaves a draft with content, as a killed process does.
func announce(t *testing.T, f folder, content []byte) draft {
	t.Helper()
	d, err := f.announce()
	if err == nil {
		err = durable.WriteFile(d.File, content)
	}
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func link(t *testing.T, d draft, path string) {
	t.Helper()
	if err := os.Link(d.Name(), path); err != nil {
		t.Fatal(err)
	}
}

func removeFile(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

func highest(t *testing.T, f folder) file {
	t.Helper()
	cur, err := f.current(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return cur.file
}

func data(t *testing.T, version string) []byte {
	t.Helper()
	b, err := encode("a", record(version))
	if err != nil {
		t.Fatal(err)
	}
	return b
}
