package fincodeauth_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/oauth2"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/fincodetest"
	"github.com/fincodeauth/fincodeauth/storetest"
)

// journaled returns a Journal in the folder dir around s.
func journaled(tb testing.TB, s fincodeauth.Store, dir string) fincodeauth.Store {
	tb.Helper()
	j, err := fincodeauth.Journal(s, dir)
	if err != nil {
		tb.Fatal(err)
	}
	return j
}

// journalDir returns a folder that does not exist yet.
func journalDir(tb testing.TB) string { return filepath.Join(tb.TempDir(), "journal") }

// start returns the Sessions of a process that does nothing any more after the test.
func start(t *testing.T, fc *fincodetest.FinCode, store fincodeauth.Store, edits ...func(*fincodeauth.Config)) *fincodeauth.Sessions {
	t.Helper()
	sessions := newSessions(t, fc, append(edits, withStore(store))...)
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = sessions.Close(ctx)
	})
	return sessions
}

// filesOf returns the paths of the files in a journal.
func filesOf(t *testing.T, dir string) (paths []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			paths = append(paths, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

func wantFiles(t *testing.T, dir string, n int) {
	t.Helper()
	if files := filesOf(t, dir); len(files) != n {
		t.Errorf("the journal has the files %q, want %d", files, n)
	}
}

// kill makes a process do nothing any more, as kill -9 does: neither its store nor FinCode
// hears of it again.
func kill(sessions *fincodeauth.Sessions, store *faultyStore) {
	store.down(true)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = sessions.Close(ctx)
}

// rotateUnsaved has a process rotate the token under each key, while the store accepts claims
// and nothing else.
func rotateUnsaved(t *testing.T, sessions *fincodeauth.Sessions, store *faultyStore, keys ...string) {
	t.Helper()
	store.set(successorsFail)
	for _, key := range keys {
		token(t, sessions.TokenSource(key))
	}
	store.down(true)
}

// The storetest's records are claims, of which a Journal writes nothing. A freeStore makes
// them free.
type freeStore struct {
	fincodeauth.Store
	started *atomic.Pointer[time.Time]
}

func (s freeStore) Save(ctx context.Context, key string, rec *fincodeauth.Record, prev string) error {
	free := *rec
	if !free.RefreshStarted.IsZero() {
		started := rec.RefreshStarted
		s.started.Store(&started)
	}
	free.RefreshStarted = time.Time{}
	return s.Store.Save(ctx, key, &free, prev)
}

func (s freeStore) Load(ctx context.Context, key string) (*fincodeauth.Record, error) {
	rec, err := s.Store.Load(ctx, key)
	if err == nil && rec.Ended == "" {
		rec.RefreshStarted = *s.started.Load()
	}
	return rec, err
}

// Each call goes to the next of several Stores, as if they were in several processes.
type turns struct {
	stores []fincodeauth.Store
	calls  atomic.Uint64
}

func (r *turns) next() fincodeauth.Store { return r.stores[r.calls.Add(1)%uint64(len(r.stores))] }

func (r *turns) Load(ctx context.Context, key string) (*fincodeauth.Record, error) {
	return r.next().Load(ctx, key)
}

func (r *turns) Save(ctx context.Context, key string, rec *fincodeauth.Record, prev string) error {
	return r.next().Save(ctx, key, rec, prev)
}

func (r *turns) Delete(ctx context.Context, key string) error { return r.next().Delete(ctx, key) }

func TestJournalKeepsTheContract(t *testing.T) {
	for name, around := range map[string]func(t *testing.T, s fincodeauth.Store) fincodeauth.Store{
		"Journal": func(t *testing.T, s fincodeauth.Store) fincodeauth.Store { return journaled(t, s, journalDir(t)) },
		"Encrypt(Journal)": func(t *testing.T, s fincodeauth.Store) fincodeauth.Store {
			return encrypted(t, journaled(t, s, journalDir(t)), key1)
		},
		"Journal(Encrypt)": func(t *testing.T, s fincodeauth.Store) fincodeauth.Store {
			return journaled(t, encrypted(t, s, key1), journalDir(t))
		},
		"three Journals": func(t *testing.T, s fincodeauth.Store) fincodeauth.Store {
			dir := journalDir(t)
			return &turns{stores: []fincodeauth.Store{journaled(t, s, dir), journaled(t, s, dir), journaled(t, s, dir)}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			storetest.Run(t, func(t *testing.T) fincodeauth.Store {
				return freeStore{around(t, newJSONStore()), new(atomic.Pointer[time.Time])}
			})
		})
	}
}

// The store is down for 10 minutes. In the middle, the process is killed, and another one is
// started on the same disk. This is the figure of docs/stores.md.
func TestStoreThatIsDownAndACrashTogetherLoseNoSession(t *testing.T) {
	const sessions = 100
	for name, want := range map[string]int{"with Journal": 0, "without": sessions} {
		t.Run(name, func(t *testing.T) {
			dir := journalDir(t)
			synctest.Test(t, func(t *testing.T) {
				process := func(fc *fincodetest.FinCode, s *faultyStore) *fincodeauth.Sessions {
					if name == "without" {
						return start(t, fc, encrypted(t, s, key1))
					}
					return start(t, fc, encrypted(t, journaled(t, s, dir), key1))
				}
				fc := fincodetest.New(fincodetest.Config{})
				disk1, disk2 := newFaultyStores()
				one := process(fc, disk1)
				var keys []string
				for i := range sessions {
					keys = append(keys, fmt.Sprint("user-", i))
					logIn(t, one, keys[i])
				}
				time.Sleep(time.Hour)
				rotateUnsaved(t, one, disk1, keys...)
				disk2.down(true)
				time.Sleep(5 * time.Minute)
				kill(one, disk1)
				two := process(fc, disk2)
				time.Sleep(5 * time.Minute)
				disk2.down(false)
				lost := 0
				for _, key := range keys {
					tok, err := two.TokenSource(key).Token()
					if err != nil || whoami(t, fc, tok) != http.StatusOK {
						lost++
					}
				}
				t.Logf("%d of %d sessions are lost", lost, sessions)
				if lost != want {
					t.Errorf("%d sessions are lost, want %d", lost, want)
				}
				if want == 0 {
					wantFiles(t, dir, 0)
				}
			})
		})
	}
}

// A process that is started saves what it finds, although nobody uses the sessions. It goes on
// until the store is back.
func TestNewSavesWhatADeadProcessLeft(t *testing.T) {
	dir := journalDir(t)
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		disk1, disk2 := newFaultyStores()
		one := start(t, fc, encrypted(t, journaled(t, disk1, dir), key1))
		for _, key := range []string{"a", "b", "c"} {
			logIn(t, one, key)
		}
		time.Sleep(time.Hour)
		rotateUnsaved(t, one, disk1, "a", "b", "c")
		kill(one, disk1)
		wantFiles(t, dir, 3)

		disk2.down(true)
		var seen events
		two := start(t, fc, encrypted(t, journaled(t, disk2, dir), key1), seen.observe)
		time.Sleep(10 * time.Minute)
		wantFiles(t, dir, 3)
		disk2.down(false)
		time.Sleep(time.Minute)
		wantFiles(t, dir, 0)
		seen.want(t, fincodeauth.Saved, fincodeauth.Saved, fincodeauth.Saved)
		for _, key := range []string{"a", "b", "c"} {
			token(t, two.TokenSource(key))
		}
		wantCalls(t, fc, 3, 3)
	})
}

// Close ends the search of a process for what others left, also while the store is down or does
// not answer. synctest fails if a goroutine stays.
func TestCloseEndsTheSearchOfTheJournal(t *testing.T) {
	for name, fail := range map[string]func(s *faultyStore){
		"store is down": func(s *faultyStore) { s.down(true) },
		"store hangs": func(s *faultyStore) {
			s.set(func(s *faultyStore) { s.load = func() error { time.Sleep(refreshTimeout); return errStoreDown } })
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := journalDir(t)
			synctest.Test(t, func(t *testing.T) {
				fc := fincodetest.New(fincodetest.Config{})
				disk1, disk2 := newFaultyStores()
				one := start(t, fc, journaled(t, disk1, dir))
				logIn(t, one, "a")
				time.Sleep(time.Hour)
				rotateUnsaved(t, one, disk1, "a")
				kill(one, disk1)
				fail(disk2)
				two := start(t, fc, journaled(t, disk2, dir))
				time.Sleep(time.Hour + time.Millisecond)
				if took := elapsed(func() {
					if err := two.Close(t.Context()); err != nil {
						t.Error(err)
					}
				}); took > refreshTimeout {
					t.Errorf("Close took %v", took)
				}
				time.Sleep(time.Hour)
				wantFiles(t, dir, 1)
			})
		})
	}
}

// Close says which sessions are lost, and which are only in the journal.
func TestCloseSaysWhatTheJournalHas(t *testing.T) {
	dir := journalDir(t)
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := newFaultyStore()
		sessions := start(t, fc, journaled(t, store, dir))
		store.set(successorsFail)
		logIn(t, sessions, "a")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := sessions.Close(ctx); err == nil || !strings.Contains(err.Error(), `1 session(s), which the next process with the same journal saves: ["a"]`) {
			t.Errorf("Close = %v, want that the journal has it", err)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		sessions = start(t, fc, store)
		logIn(t, sessions, "b")
		if err := sessions.Close(ctx); err == nil || !strings.Contains(err.Error(), `1 session(s), whose users must log in again: ["b"]`) {
			t.Errorf("Close = %v, want that it is lost", err)
		}
	})
}

// A second crash changes nothing.
func TestProcessThatDiesTwiceLosesNoSession(t *testing.T) {
	dir := journalDir(t)
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		disk1, disk2 := newFaultyStores()
		one := start(t, fc, journaled(t, disk1, dir))
		logIn(t, one, "a")
		time.Sleep(time.Hour)
		rotateUnsaved(t, one, disk1, "a")
		kill(one, disk1)
		for range 2 {
			disk2.down(true)
			again := start(t, fc, journaled(t, disk2, dir))
			if _, err := again.TokenSource("a").Token(); !errors.Is(err, errStoreDown) {
				t.Errorf("got error %v while the store is down, want the store's", err)
			}
			kill(again, disk2)
		}
		disk2.down(false)
		token(t, start(t, fc, journaled(t, disk2, dir)).TokenSource("a"))
		wantCalls(t, fc, 1, 1)
	})
}

// A process on another machine has taken over the claim of the dead one, and is presenting the
// used token, when the journal is found.
func TestJournalIsSavedOverATakeover(t *testing.T) {
	for name, after := range map[string]time.Duration{
		"while the used token is presented": 32 * time.Second,
		"after the end is saved":            2 * time.Minute,
	} {
		t.Run(name, func(t *testing.T) {
			dir := journalDir(t)
			synctest.Test(t, func(t *testing.T) {
				fc := fincodetest.New(fincodetest.Config{})
				disk1, disk2 := newFaultyStores()
				one := start(t, fc, journaled(t, disk1, dir))
				logIn(t, one, "a")
				time.Sleep(time.Hour)
				rotateUnsaved(t, one, disk1, "a")
				kill(one, disk1)
				fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{Before: 5 * time.Second})
				got := make(chan error)
				other := start(t, fc, disk2)
				go func() {
					_, err := other.TokenSource("a").Token()
					got <- err
				}()
				time.Sleep(after)
				again := start(t, fc, journaled(t, disk2.MemoryStore, dir))
				token(t, again.TokenSource("a"))
				err := <-got
				if name == "after the end is saved" {
					wantSessionError(t, err, true, true)
				} else if err != nil {
					t.Errorf("the process that took over gets error %v, want the token of the journal", err)
				}
				token(t, other.TokenSource("a"))
				wantCalls(t, fc, 2, 1)
			})
		})
	}
}

// The entry of a living process may be saved by any process, and the living one goes on.
func TestEntryOfALivingProcessIsSavedByAnother(t *testing.T) {
	dir := journalDir(t)
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		disk1, disk2 := newFaultyStores()
		var seen events
		one := start(t, fc, journaled(t, disk1, dir), seen.observe)
		logIn(t, one, "a")
		time.Sleep(time.Hour)
		rotateUnsaved(t, one, disk1, "a")
		two := start(t, fc, journaled(t, disk2, dir))
		if one, two := token(t, one.TokenSource("a")), token(t, two.TokenSource("a")); one.RefreshToken != two.RefreshToken {
			t.Error("the processes have different tokens")
		}
		disk1.down(false)
		time.Sleep(time.Minute)
		seen.want(t, fincodeauth.LoggedIn, fincodeauth.Refreshed, fincodeauth.SaveFailed, fincodeauth.Saved)
		for range 3 {
			time.Sleep(time.Hour)
			token(t, two.TokenSource("a"))
			token(t, one.TokenSource("a"))
		}
		if twice := fc.PresentedMoreThanOnce(); len(twice) > 0 {
			t.Errorf("%d refresh tokens were presented more than once, want none", len(twice))
		}
		wantFiles(t, dir, 0)
		if err := one.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// While a process makes its first attempt to save, nobody else saves its entry. So if that
// attempt conflicts, it has changed nothing.
func TestEntryIsNotSavedByOthersDuringItsFirstSave(t *testing.T) {
	dir := journalDir(t)
	synctest.Test(t, func(t *testing.T) {
		disk1, disk2 := newFaultyStores()
		one, two := journaled(t, disk1, dir), journaled(t, disk2, dir)
		disk1.set(func(s *faultyStore) {
			s.save = func(_ *fincodeauth.Record, save func() error) error {
				time.Sleep(time.Second)
				return save()
			}
		})
		rec := func(version string) *fincodeauth.Record {
			return &fincodeauth.Record{Version: version, Generation: 1, Token: &oauth2.Token{RefreshToken: version}}
		}
		got := make(chan error)
		go func() { got <- one.Save(t.Context(), "a", rec("s.1"), "") }()
		synctest.Wait()
		wantFiles(t, dir, 1)
		if there, err := two.Load(t.Context(), "a"); !errors.Is(err, fincodeauth.ErrNotFound) {
			t.Errorf("Load = %v, %v; want ErrNotFound", there, err)
		}
		if err := two.Save(t.Context(), "a", rec("x.1"), ""); err != nil {
			t.Error(err)
		}
		if err := <-got; !errors.Is(err, fincodeauth.ErrConflict) {
			t.Errorf("Save = %v, want ErrConflict", err)
		}
		wantFiles(t, dir, 0)
	})
}

// Many processes are started at once on what a dead one left.
func TestManyProcessesSaveOneJournal(t *testing.T) {
	dir := journalDir(t)
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		disk1, disk2 := newFaultyStores()
		one := start(t, fc, journaled(t, disk1, dir))
		keys := []string{"a", "b", "c", "d", "e"}
		for _, key := range keys {
			logIn(t, one, key)
		}
		time.Sleep(time.Hour)
		rotateUnsaved(t, one, disk1, keys...)
		kill(one, disk1)
		var all sync.WaitGroup
		for range 8 {
			again := start(t, fc, journaled(t, disk2, dir))
			for _, key := range keys {
				all.Go(func() { token(t, again.TokenSource(key)) })
			}
		}
		all.Wait()
		wantCalls(t, fc, len(keys), len(keys))
		wantFiles(t, dir, 0)
	})
}

// A login that the store did not accept comes back after a crash, unless somebody else has
// logged in, or logged out, meanwhile.
func TestUnsavedLoginIsSavedUnlessSomebodyCameAfterIt(t *testing.T) {
	login := func(t *testing.T, s *fincodeauth.Sessions) { logIn(t, s, "a") }
	for name, c := range map[string]struct {
		before, meanwhile func(t *testing.T, s *fincodeauth.Sessions)
		want              bool // the session of the journal is there
		out               bool // nobody is logged in
	}{
		"nothing before":                {want: true},
		"a session before":              {before: login, want: true},
		"a session that is refreshed":   {before: login, meanwhile: func(t *testing.T, s *fincodeauth.Sessions) { token(t, s.TokenSource("a")) }, want: true},
		"another login":                 {meanwhile: login},
		"another login, over a session": {before: login, meanwhile: login},
		"a Logout of the session before": {before: login, meanwhile: func(t *testing.T, s *fincodeauth.Sessions) {
			if err := s.Logout(t.Context(), "a"); err != nil {
				t.Fatal(err)
			}
		}, out: true},
		"a Logout before": {before: func(t *testing.T, s *fincodeauth.Sessions) {
			logIn(t, s, "a")
			if err := s.Logout(t.Context(), "a"); err != nil {
				t.Fatal(err)
			}
		}, want: true},
	} {
		t.Run(name, func(t *testing.T) {
			dir := journalDir(t)
			synctest.Test(t, func(t *testing.T) {
				fc := fincodetest.New(fincodetest.Config{})
				disk1, disk2 := newFaultyStores()
				other := start(t, fc, disk2)
				if c.before != nil {
					c.before(t, other)
				}
				time.Sleep(time.Hour)
				one := start(t, fc, journaled(t, disk1, dir))
				disk1.set(successorsFail)
				logIn(t, one, "a")
				mine := token(t, one.TokenSource("a"))
				kill(one, disk1)
				if c.meanwhile != nil {
					c.meanwhile(t, other)
				}
				tok, err := start(t, fc, journaled(t, disk2, dir)).TokenSource("a").Token()
				switch {
				case c.out:
					if !errors.Is(err, fincodeauth.ErrNotFound) {
						t.Errorf("got error %v, want ErrNotFound", err)
					}
				case err != nil:
					t.Error(err)
				case (tok.RefreshToken == mine.RefreshToken) != c.want:
					t.Errorf("the session of the journal is there: %t, want %t", !c.want, c.want)
				}
				wantFiles(t, dir, 0)
			})
		})
	}
}

// A session that was logged out on another machine stays out.
func TestJournalDoesNotBringBackALogout(t *testing.T) {
	dir := journalDir(t)
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		disk1, disk2 := newFaultyStores()
		one := start(t, fc, journaled(t, disk1, dir))
		logIn(t, one, "a")
		time.Sleep(59 * time.Minute) // the token is due, and still good
		rotateUnsaved(t, one, disk1, "a")
		time.Sleep(time.Second)
		kill(one, disk1)
		_ = start(t, fc, disk2).Logout(t.Context(), "a") // FinCode refuses the used token
		if _, err := start(t, fc, journaled(t, disk2, dir)).TokenSource("a").Token(); !errors.Is(err, fincodeauth.ErrNotFound) {
			t.Errorf("got error %v, want ErrNotFound", err)
		}
		wantFiles(t, dir, 0)
	})
}

// The store has lost what the journal has, and more.
func TestJournalHealsAStoreThatWentBack(t *testing.T) {
	dir := journalDir(t)
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := new(pastStore)
		disk := newFaultyStore()
		disk.MemoryStore = &store.MemoryStore
		one := start(t, fc, journaled(t, disk, dir))
		logIn(t, one, "a")
		time.Sleep(time.Hour)
		rotateUnsaved(t, one, disk, "a")
		kill(one, disk)
		store.goBack(t, all)
		var seen events
		token(t, start(t, fc, journaled(t, store, dir), seen.observe).TokenSource("a"))
		if types := seen.types(); !slices.Contains(types, fincodeauth.StoreReverted) {
			t.Errorf("got events %v, want StoreReverted", types)
		}
		wantCalls(t, fc, 1, 1)
	})
}

// With a journal, the store gets the same calls: 1 Load and 2 Saves for a rotation, and the
// Load of a look after it. A request does not touch the journal.
func TestJournalAddsNoCallToTheStore(t *testing.T) {
	for name, around := range map[string]func(s fincodeauth.Store, dir string) fincodeauth.Store{
		"with Journal": func(s fincodeauth.Store, dir string) fincodeauth.Store { return journaled(t, s, dir) },
		"without":      func(s fincodeauth.Store, _ string) fincodeauth.Store { return s },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				fc := fincodetest.New(fincodetest.Config{})
				var loads, saves atomic.Int32
				store := newFaultyStore()
				store.set(func(s *faultyStore) {
					s.load = func() error { loads.Add(1); return nil }
					s.save = func(rec *fincodeauth.Record, save func() error) error {
						saves.Add(1)
						if files := len(filesOf(t, dir)); name == "with Journal" && (files == 1) == isClaim(rec) {
							t.Errorf("the journal has %d files during the Save of %v", files, rec)
						}
						return save()
					}
				})
				sessions := start(t, fc, around(store, dir))
				logIn(t, sessions, "a")
				time.Sleep(time.Hour)
				synctest.Wait()
				loads.Store(0)
				saves.Store(0)
				token(t, sessions.TokenSource("a"))
				if err := os.RemoveAll(dir); err != nil {
					t.Fatal(err)
				}
				for range 100 {
					token(t, sessions.TokenSource("a"))
				}
				synctest.Wait()
				if loads, saves := loads.Load(), saves.Load(); loads != 2 || saves != 2 {
					t.Errorf("a rotation and 100 requests made %d Loads and %d Saves, want 2 each", loads, saves)
				}
				if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
					t.Error("a request has used the journal")
				}
			})
		})
	}
}

// Only what is new is written, once, and with its tokens encrypted.
func TestEntryIsPrivateAndWrittenOnce(t *testing.T) {
	dir := journalDir(t)
	store := newFaultyStore()
	store.down(true)
	s := encrypted(t, journaled(t, store, dir), key1)
	save := func(rec fincodeauth.Record, prev string) {
		t.Helper()
		rec.Generation = 1
		rec.Token = &oauth2.Token{AccessToken: secretAccess, RefreshToken: secret}
		if err := s.Save(t.Context(), "a", &rec, prev); !errors.Is(err, errStoreDown) {
			t.Fatalf("Save = %v, want the store's error", err)
		}
	}
	save(fincodeauth.Record{Version: "s.1", RefreshStarted: time.Now()}, "s.0")
	wantFiles(t, dir, 0)
	save(fincodeauth.Record{Version: "s.2"}, "s.1")
	wantFiles(t, dir, 1)
	path := filesOf(t, dir)[0]
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil || strings.Contains(string(data), secretAccess) || strings.Contains(string(data), "s3cr3t") || !json.Valid(data) {
		t.Errorf("the file holds %s (%v), want JSON without the tokens", data, err)
	}
	save(fincodeauth.Record{Version: "s.2"}, "s.1")
	if after, err := os.Stat(path); err != nil || !os.SameFile(before, after) {
		t.Errorf("the file was written again for a second attempt (%v)", err)
	}
	save(fincodeauth.Record{Version: "s.2"}, "s.9") // another prev has a file of its own
	wantFiles(t, dir, 2)
	for _, p := range []string{dir, filepath.Dir(path), path} {
		if info, err := os.Stat(p); err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v (%v), want none for others", p, info.Mode(), err)
		}
	}
	if err := os.WriteFile(filepath.Join(filepath.Dir(path), "notes.txt"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	store.down(false)
	if err := s.Delete(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	wantFiles(t, dir, 1) // the notes
	if rec, err := s.Load(t.Context(), "a"); !errors.Is(err, fincodeauth.ErrNotFound) {
		t.Errorf("after a Delete, Load = %v, %v; want ErrNotFound", rec, err)
	}
}

// A file of another key of Encrypt is not used, and not removed: a process with that key may
// come.
func TestEntryOfAnotherKeyWaitsForAProcessWithThatKey(t *testing.T) {
	for name, other := range map[string]func(t *testing.T, s fincodeauth.Store) fincodeauth.Store{
		"another key": func(t *testing.T, s fincodeauth.Store) fincodeauth.Store { return encrypted(t, s, key2) },
		"no Encrypt":  func(_ *testing.T, s fincodeauth.Store) fincodeauth.Store { return s },
	} {
		t.Run(name, func(t *testing.T) {
			dir := journalDir(t)
			synctest.Test(t, func(t *testing.T) {
				fc := fincodetest.New(fincodetest.Config{})
				disk1, disk2 := newFaultyStores()
				one := start(t, fc, encrypted(t, journaled(t, disk1, dir), key1))
				disk1.set(successorsFail)
				logIn(t, one, "a")
				kill(one, disk1)
				var seen events
				wrong := start(t, fc, other(t, journaled(t, disk2, dir)), seen.observe)
				for range 3 {
					if _, err := wrong.TokenSource("a").Token(); !errors.Is(err, fincodeauth.ErrNotFound) {
						t.Errorf("got error %v, want ErrNotFound", err)
					}
				}
				synctest.Wait()
				wantJournalFailed(t, &seen, dir, "Encrypt", "the key that it was saved with")
				wantFiles(t, dir, 1)
				logIn(t, wrong, "b")
				token(t, wrong.TokenSource("b"))
				token(t, start(t, fc, encrypted(t, journaled(t, disk2, dir), key2, key1)).TokenSource("a"))
				wantFiles(t, dir, 0)
			})
		})
	}
}

// wantJournalFailed expects one JournalFailed, whose error has a path in dir and one of parts,
// and no token.
func wantJournalFailed(t *testing.T, seen *events, dir string, parts ...string) {
	t.Helper()
	seen.mu.Lock()
	defer seen.mu.Unlock()
	n := 0
	for _, e := range seen.all {
		if e.Type != fincodeauth.JournalFailed {
			continue
		}
		n++
		text := e.Err.Error()
		if !strings.Contains(text, dir) || !slices.ContainsFunc(parts, func(part string) bool { return strings.Contains(text, part) }) {
			t.Errorf("JournalFailed says %s, want a path in %s and one of %q", text, dir, parts)
		}
		if strings.Contains(text, "refresh-") || strings.Contains(text, "eyJ") {
			t.Errorf("JournalFailed shows a token: %s", text)
		}
	}
	if n != 1 {
		t.Errorf("got %d events JournalFailed, want one", n)
	}
}

func TestDamagedEntryIsReportedAndTheStoreWorks(t *testing.T) {
	for name, damage := range map[string]func(path string) error{
		"cut off":             func(path string) error { return os.Truncate(path, 10) },
		"empty":               func(path string) error { return os.Truncate(path, 0) },
		"the file of another": func(path string) error { return os.Rename(path, path[:len(path)-10]+"12345.json") },
		"a folder":            func(path string) error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o700)) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := journalDir(t)
			synctest.Test(t, func(t *testing.T) {
				fc := fincodetest.New(fincodetest.Config{})
				disk1, disk2 := newFaultyStores()
				logIn(t, start(t, fc, disk2), "a")
				one := start(t, fc, journaled(t, disk1, dir))
				disk1.set(successorsFail)
				logIn(t, one, "a")
				kill(one, disk1)
				if err := damage(filesOf(t, dir)[0]); err != nil {
					t.Fatal(err)
				}
				var seen events
				again := start(t, fc, journaled(t, disk2, dir), seen.observe)
				for range 3 {
					token(t, again.TokenSource("a"))
					time.Sleep(time.Hour)
				}
				wantJournalFailed(t, &seen, dir, "is damaged", "cannot be read")
				if files := filesOf(t, dir); name != "a folder" && (len(files) != 1 || !strings.HasSuffix(files[0], ".json.damaged")) {
					t.Errorf("the journal has the files %q, want the damaged one under its new name", files)
				}
			})
		})
	}
}

// A journal that cannot be written is no reason to stop.
func TestStoreWorksWithoutItsJournal(t *testing.T) {
	for name, damage := range map[string]func(dir string) error{
		"the folder is gone": os.RemoveAll,
		"a file in its place": func(dir string) error {
			return errors.Join(os.RemoveAll(dir), os.WriteFile(dir, nil, 0o600))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := journalDir(t)
			synctest.Test(t, func(t *testing.T) {
				fc := fincodetest.New(fincodetest.Config{})
				store := newFaultyStore()
				var seen events
				sessions := start(t, fc, journaled(t, store, dir), seen.observe)
				if err := damage(dir); err != nil {
					t.Fatal(err)
				}
				logIn(t, sessions, "a")
				time.Sleep(time.Hour)
				token(t, sessions.TokenSource("a"))
				types := seen.types()
				if !slices.Contains(types, fincodeauth.JournalFailed) || slices.Contains(types, fincodeauth.SaveFailed) {
					t.Errorf("got events %v, want JournalFailed and no SaveFailed", types)
				}
			})
		})
	}
}

// If neither the journal nor the store has a token, Save returns both errors.
func TestSaveReturnsTheErrorsOfStoreAndJournal(t *testing.T) {
	dir := journalDir(t)
	store := newFaultyStore()
	s := journaled(t, store, dir)
	rec := &fincodeauth.Record{Version: "s.1", Generation: 1, Token: &oauth2.Token{RefreshToken: "r"}}
	store.down(true)
	if err := s.Save(t.Context(), "a", rec, ""); !errors.Is(err, errStoreDown) || !strings.Contains(err.Error(), "the journal has the record") {
		t.Errorf("Save = %v, want the store's error, and that the journal has the record", err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := s.Save(t.Context(), "a", rec, ""); !errors.Is(err, errStoreDown) || !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), dir) {
		t.Errorf("Save = %v, want the errors of the store and of the journal", err)
	}
}

func TestJournalRefusesWhatCannotWork(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	open := t.TempDir()
	if err := errors.Join(os.WriteFile(file, nil, 0o600), os.WriteFile(filepath.Join(open, "app.log"), nil, 0o600), os.Chmod(open, 0o777)); err != nil {
		t.Fatal(err)
	}
	local := fincodeauth.LocalStore(
		func(context.Context, string) (*oauth2.Token, error) { return nil, nil },
		func(context.Context, string, *oauth2.Token) error { return nil })
	for name, c := range map[string]struct {
		store fincodeauth.Store
		dir   string
		want  string
	}{
		"no store":                      {nil, t.TempDir(), "the store is nil"},
		"a nil store":                   {(*fincodeauth.MemoryStore)(nil), t.TempDir(), "nil *fincodeauth.MemoryStore"},
		"a LocalStore without function": {fincodeauth.LocalStore(nil, nil), t.TempDir(), "nil function"},
		"a LocalStore":                  {local, t.TempDir(), "LocalStore forgets its versions"},
		"an encrypted LocalStore":       {encrypted(t, local, key1), t.TempDir(), "LocalStore forgets its versions"},
		"no folder":                     {fincodeauth.NewMemoryStore(), "", "no folder given"},
		"a file":                        {fincodeauth.NewMemoryStore(), file, "is a file: name a folder"},
		"a folder in a file":            {fincodeauth.NewMemoryStore(), filepath.Join(file, "sub"), "not a directory"},
		"others may write":              {fincodeauth.NewMemoryStore(), open, "chmod 700"},
	} {
		s, err := fincodeauth.Journal(c.store, c.dir)
		if s != nil || err == nil || !strings.HasPrefix(err.Error(), "fincodeauth: Journal: ") || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: Journal = %v, %v; want an error with %q", name, s, err, c.want)
		}
	}
}

func TestJournalPrintsNoSecret(t *testing.T) {
	dir := journalDir(t)
	s := encrypted(t, journaled(t, &storeOfAUser{fincodeauth.NewMemoryStore(), "postgres://u:hunter2@db"}, dir), key1)
	want := "Encrypt(Journal(*fincodeauth_test.storeOfAUser, " + dir + "))"
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		if got := fmt.Sprintf(verb, s); got != want {
			t.Errorf("%s prints %s, want %s", verb, got, want)
		}
	}
}

// What a killed writer left is removed when a process starts, but not what a living one is
// writing.
func TestNewRemovesOldDrafts(t *testing.T) {
	dir := journalDir(t)
	s := journaled(t, fincodeauth.NewMemoryStore(), dir)
	shard := filepath.Join(dir, "ab")
	old, young := filepath.Join(shard, "1.draft"), filepath.Join(shard, "2.draft")
	long := time.Now().Add(-2 * time.Hour)
	if err := errors.Join(os.Mkdir(shard, 0o700), os.WriteFile(old, nil, 0o600), os.Chtimes(old, long, long), os.WriteFile(young, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	sessions := newSessions(t, fincodetest.New(fincodetest.Config{}), withStore(s))
	if err := sessions.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); len(filesOf(t, dir)) > 1 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	if files := filesOf(t, dir); !slices.Equal(files, []string{young}) {
		t.Errorf("the journal has the files %q, want the young draft", files)
	}
}
