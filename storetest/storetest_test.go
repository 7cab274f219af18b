package storetest_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/url"
	"os"
	"os/exec"
	"path"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/oauth2"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/storetest"
)

func TestMemoryStoreKeepsTheContract(t *testing.T) {
	storetest.Run(t, func(*testing.T) fincodeauth.Store { return fincodeauth.NewMemoryStore() })
}

func TestLocalStoreKeepsTheContract(t *testing.T) {
	storetest.Run(t, func(*testing.T) fincodeauth.Store {
		var mu sync.Mutex
		tokens := make(map[string]oauth2.Token)
		return fincodeauth.LocalStore(
			func(_ context.Context, key string) (*oauth2.Token, error) {
				mu.Lock()
				defer mu.Unlock()
				tok, ok := tokens[key]
				if !ok {
					return nil, fincodeauth.ErrNotFound
				}
				return &tok, nil
			},
			func(_ context.Context, key string, tok *oauth2.Token) error {
				mu.Lock()
				defer mu.Unlock()
				if tok == nil {
					delete(tokens, key)
				} else {
					tokens[key] = *tok
				}
				return nil
			})
	})
}

// A lateStore finishes a Save that was cancelled after it has returned, as a database
// does that has the statement already.
type lateStore struct{ *fincodeauth.MemoryStore }

func (s lateStore) Save(ctx context.Context, key string, rec *fincodeauth.Record, prev string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	kept := *rec
	done := make(chan error, 1)
	go func() {
		pause()
		done <- s.MemoryStore.Save(context.WithoutCancel(ctx), key, &kept, prev)
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func TestCancelledSavesMayComeLater(t *testing.T) {
	storetest.Run(t, func(*testing.T) fincodeauth.Store { return lateStore{fincodeauth.NewMemoryStore()} })
}

// brokenEnv names the broken store that the test binary tests when it runs again.
const brokenEnv = "STORETEST_BROKEN"

// TestBrokenStoresFail runs the test binary again for each broken store. A test
// that must fail needs a process of its own, because it would fail this one too.
func TestBrokenStoresFail(t *testing.T) {
	if name, ok := os.LookupEnv(brokenEnv); ok {
		storetest.Run(t, func(*testing.T) fincodeauth.Store { return newBroken(name) })
		return
	}
	for name, subtests := range map[string][]string{
		"compares no version":                     {"SaveOverAnotherVersionConflicts", "SaveOverNothingConflicts", "OneSaveWinsEachVersion"},
		"takes any version over nothing":          {"SaveOverNothingConflicts", "StaleSaveDoesNotBringBackADeleted"},
		"saves later":                             {"LoadReturnsWhatWasSaved", "OthersSeeASaveAtOnce"},
		"forgets a Delete":                        {"DeleteBeatsEverySaveBefore"},
		"checks, then saves":                      {"OneSaveWinsEachVersion", "NoUpdateIsLost"},
		"keeps the caller's record":               {"NothingIsShared"},
		"hands out its own record":                {"NothingIsShared"},
		"ignores the context":                     {"CancelledCallChangesNothing"},
		"saves, then returns the context's error": {"CancelledCallChangesNothing"},
		"conflicts but saves":                     {"SaveOverAnotherVersionConflicts"},
		"ignores case":                            {"OddKeysDoNotCollide"},
		"keeps whole seconds":                     {"LoadReturnsWhatWasSaved"},
		"cuts long tokens":                        {"LargeTokens"},
		"tears when cancelled":                    {"CancelledCallsReturnAndCorruptNothing"},
		"compares nothing once cancelled":         {"CancelledCallsReturnAndCorruptNothing"},
		"saves but conflicts once cancelled":      {"CancelledCallsReturnAndCorruptNothing"},
		"stays locked once cancelled":             {"CancelledCallsReturnAndCorruptNothing"},
		"fails a second Delete":                   {"DeleteRemoves"},
		"loads nil, nil":                          {"LoadOfNothingIsNotFound", "NoUpdateIsLost", "CancelledCallsReturnAndCorruptNothing"},
		"loses the token":                         {"LoadReturnsWhatWasSaved", "NothingIsShared"},
		"takes an ended record for none":          {"EndedRecordsAreComparedToo"},
		"replaces any ended record":               {"EndedRecordsAreComparedToo"},
		"ends any version":                        {"EndedRecordsAreComparedToo"},
		"ends nothing":                            {"EndedRecordsAreComparedToo"},
		"replaces no ended record":                {"EndedRecordsAreComparedToo"},
		"deletes no ended record":                 {"EndedRecordsAreComparedToo"},
		"lists one page":                          {"KeysListsAllRecords", "OddKeysDoNotCollide"},
		"lists what was deleted":                  {"KeysListsAllRecords"},
		"lists no odd keys":                       {"OddKeysDoNotCollide"},
		"lists what it can while others save":     {"KeysListsWhatStaysWhileOthersComeAndGo"},
		"lists after its context has ended":       {"KeysEndsWithItsContext"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out := runAgain(t, "^TestBrokenStoresFail$", name)
			for _, sub := range subtests {
				wantFailed(t, out, sub)
			}
		})
	}
}

// TestConfusedKeysAreNamed wants storetest to say which keys a store confuses,
// and what kind of difference between keys the store does not see.
func TestConfusedKeysAreNamed(t *testing.T) {
	for name, want := range map[string][]string{
		"replaces slashes":            {`a slash and what replaces it: the store confuses "a/b" and "a_b"`},
		"replaces slashes by dashes":  {`a slash and what replaces it: the store confuses "a/b" and "a-b"`},
		"ignores case":                {`letter case: the store confuses "a" and "A"`, `letter case beyond ASCII: the store confuses "\u00e4" and "\u00c4"`},
		"folds case":                  {`letter case: `, `letters with a special rule for case: the store confuses "k" and "\u212a"`},
		"folds case fully":            {`letters with a special rule for case: the store confuses "\u00df" and "ss"`},
		"lowers case as Turkish does": {`letters with a special rule for case: the store confuses "\u0131" and "I"`},
		"trims space":                 {`space at the end: `, `space at the start: `},
		"pads with spaces":            {`space at the end: the store confuses "a" and "a "`},
		"collapses space":             {`space inside: the store confuses "a b" and "a  b"`},
		"trims dots":                  {`a dot at the end: the store confuses "a" and "a."`},
		"replaces dots":               {`a dot and what replaces it: the store confuses "a.b" and "a-b"`},
		"cleans paths":                {`paths: the store confuses "a/b" and "a//b"`},
		"takes backslash for slash":   {`a backslash: the store confuses "a/b" and "a\\b"`},
		"unescapes backslashes":       {`a backslash: the store confuses "ab" and "a\\b"`},
		"unescapes paths":             {`percent-encoding: the store confuses "a/b" and "a%2Fb"`},
		"unescapes queries":           {`percent-encoding: the store confuses "a b" and "a+b"`},
		"cuts at a colon":             {`a colon: the store confuses "a" and "a:b"`},
		"drops NUL":                   {`NUL: the store confuses "ab" and "a\x00b"`},
		"cuts at NUL":                 {`NUL: the store confuses "a\x00b" and "a\x00c"`},
		"drops control characters":    {`control characters: the store confuses "ab" and "a\x01b"`},
		"drops invisible characters":  {`invisible characters: the store confuses "ab" and "a\u200bb"`},
		"composes accents":            {`an accent in one character or two: the store confuses "\u00e9" and "e\u0301"`},
		"drops accents":               {`an accent or none: the store confuses "e" and "\u00e9"`},
		"normalizes to NFKC":          {`compatibility forms: the store confuses "a" and "\uff41"`},
		"replaces invalid UTF-8":      {`invalid UTF-8: the store confuses "\xff" and "\xfe"`, `invalid UTF-8: the store confuses "\xff" and "\ufffd"`},
		"drops invalid UTF-8":         {`invalid UTF-8: the store confuses "a" and "a\xff"`},
		"keeps ASCII only":            {`characters outside of a small character set: the store confuses "\u65e5" and "\u672c"`},
		"keeps 3 bytes a character":   {`characters outside of a small character set: the store confuses "\U0001f600" and "\U0001f601"`},
		"doubles quotes":              {`quotes: `},
		"reads numbers":               {`numbers: the store confuses "1" and "01"`},
		"cuts at 32":                  {`length: the store confuses `, `: two keys of 33 bytes that differ in the last`},
		"cuts at 64":                  {`length: the store confuses `, `: two keys of 65 bytes that differ in the last`},
		"cuts at 128":                 {`: two keys of 129 bytes that differ in the last`},
		"cuts at 255":                 {`: two keys of 256 bytes that differ in the last`},
		"cuts at 300":                 {`: two keys of 301 bytes that differ in the last`},
		"cuts at 500":                 {`: two keys of 501 bytes that differ in the last`},
		"cuts at 1024":                {`: two keys of 1025 bytes that differ in the last`},
		"keeps both ends":             {`length: the store confuses `},
		"replaces other punctuation":  {`punctuation and what replaces it: the store confuses "a!b" and "a_b"`, `"a^b" and "a_b"`, `"a$b" and "a_b"`},
		"cuts at 4000":                {`: two keys of 4001 bytes that differ in the last`},
		"deletes the trimmed key":     {`space at the end: Delete of "a " also removed "a"`},
		"reads a glob":                {`patterns: Delete of "a*c" also removed "abc"`},
		"reads a LIKE":                {`patterns: Delete of "a_c" also removed "axc"`},
		"deletes a folder":            {`paths: Delete of "dir" also removed "dir/file"`},
		"refuses slashes":             {`Save("a/b", `, `a slash is not allowed`},
		"loads what it refuses":       {`NUL: the store confuses "ab" and "a\x00b"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out := runAgain(t, "^TestBrokenStoresFail$/^OddKeysDoNotCollide$", name)
			wantFailed(t, out, "OddKeysDoNotCollide")
			for _, text := range want {
				if !strings.Contains(out, text) {
					t.Errorf("the output lacks %s:\n%s", text, out)
				}
			}
		})
	}
}

// TestNilStoreIsRefused runs the test binary again, as TestBrokenStoresFail does.
func TestNilStoreIsRefused(t *testing.T) {
	newStore := map[string]func(*testing.T) fincodeauth.Store{
		"nil":                  func(*testing.T) fincodeauth.Store { return nil },
		"nil *MemoryStore":     func(*testing.T) fincodeauth.Store { return (*fincodeauth.MemoryStore)(nil) },
		"nil map":              func(*testing.T) fincodeauth.Store { return mapStore(nil) },
		"newStore itself: nil": nil,
	}
	if name, ok := os.LookupEnv(brokenEnv); ok {
		storetest.Run(t, newStore[name])
		return
	}
	for name, want := range map[string]string{
		"nil":                  "newStore returned nil: return a new, empty store",
		"nil *MemoryStore":     "newStore returned a nil *fincodeauth.MemoryStore: return what its constructor returns, and fail the test if that is an error",
		"nil map":              "newStore returned a nil storetest_test.mapStore: ",
		"newStore itself: nil": "newStore is nil: give Run a function that returns a new, empty store",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out := runAgain(t, "^TestNilStoreIsRefused$", name)
			if !strings.Contains(out, want) {
				t.Errorf("the output lacks %q:\n%s", want, out)
			}
		})
	}
}

// A mapStore is a Store that is not a pointer.
type mapStore map[string]fincodeauth.Store

func (m mapStore) Load(ctx context.Context, key string) (*fincodeauth.Record, error) {
	return m[""].Load(ctx, key)
}

func (m mapStore) Save(ctx context.Context, key string, rec *fincodeauth.Record, prev string) error {
	return m[""].Save(ctx, key, rec, prev)
}

func (m mapStore) Delete(ctx context.Context, key string) error { return m[""].Delete(ctx, key) }

// TestStoreThatIsNotEmptyIsRefused runs the test binary again, as
// TestBrokenStoresFail does. A real database that every subtest shares is such a
// store.
func TestStoreThatIsNotEmptyIsRefused(t *testing.T) {
	if name, ok := os.LookupEnv(brokenEnv); ok {
		shared := fincodeauth.NewMemoryStore()
		if err := shared.Save(t.Context(), name, &fincodeauth.Record{Version: "old"}, ""); err != nil {
			t.Fatal(err)
		}
		storetest.Run(t, func(*testing.T) fincodeauth.Store { return shared })
		return
	}
	for _, key := range []string{"alice@example.com", "a", "b"} {
		out := runAgain(t, "^TestStoreThatIsNotEmptyIsRefused$", key)
		failed := strings.Count(out, "--- FAIL: TestStoreThatIsNotEmptyIsRefused/")
		said := strings.Count(out, "newStore returned a store that already has records: make a new table, prefix or folder for each call")
		if failed == 0 || said != failed || strings.Contains(out, "--- PASS") {
			t.Errorf("with a record under %s, %d subtests fail, and %d say why:\n%s", key, failed, said, out)
		}
	}
	out := runAgain(t, "^TestStoreThatIsNotEmptyIsRefused$/^OddKeysDoNotCollide$", "ä")
	if want := `(it has one under "\u00e4")`; !strings.Contains(out, want) {
		t.Errorf("the output lacks %s:\n%s", want, out)
	}
}

// runAgain runs the tests of this binary that match pattern, with the named
// store, in a process of its own. It returns what they print, and fails the test
// if they pass or panic.
func runAgain(t *testing.T, pattern, name string) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, "-test.run="+pattern, "-test.timeout=1m")
	cmd.Env = append(os.Environ(), brokenEnv+"="+name)
	out, err := cmd.CombinedOutput()
	if exit := new(exec.ExitError); !errors.As(err, &exit) {
		t.Fatalf("the broken store passed (%v):\n%s", err, out)
	}
	if strings.Contains(string(out), "panic:") {
		t.Fatalf("storetest panicked:\n%s", out)
	}
	return string(out)
}

func wantFailed(t *testing.T, out, subtest string) {
	t.Helper()
	if !strings.Contains(out, "--- FAIL: TestBrokenStoresFail/"+subtest+" ") {
		t.Errorf("%s did not fail:\n%s", subtest, out)
	}
}

// A store may refuse the keys that the comment of Run names.
func TestStoreMayRefuseSomeKeys(t *testing.T) {
	storetest.Run(t, func(*testing.T) fincodeauth.Store {
		m := fincodeauth.NewMemoryStore()
		check := func(key string) error {
			if strings.Contains(key, "\x00") || !utf8.ValidString(key) || len(key) > 512 {
				return errors.New("this database cannot hold the key")
			}
			return nil
		}
		return &broken{
			MemoryStore: m,
			keys:        m.Keys,
			load: func(ctx context.Context, key string) (*fincodeauth.Record, error) {
				if err := check(key); err != nil {
					return nil, err
				}
				return m.Load(ctx, key)
			},
			save: func(ctx context.Context, key string, rec *fincodeauth.Record, prev string) error {
				if err := check(key); err != nil {
					return err
				}
				return m.Save(ctx, key, rec, prev)
			},
			delete: func(ctx context.Context, key string) error {
				if err := check(key); err != nil {
					return err
				}
				return m.Delete(ctx, key)
			},
		}
	})
}

// A broken store is a MemoryStore that does one thing wrong.
type broken struct {
	*fincodeauth.MemoryStore
	load   func(ctx context.Context, key string) (*fincodeauth.Record, error)
	save   func(ctx context.Context, key string, rec *fincodeauth.Record, prev string) error
	delete func(ctx context.Context, key string) error
	keys   func(ctx context.Context) iter.Seq2[string, error]
}

func (b *broken) Load(ctx context.Context, key string) (*fincodeauth.Record, error) {
	return b.load(ctx, key)
}

func (b *broken) Save(ctx context.Context, key string, rec *fincodeauth.Record, prev string) error {
	return b.save(ctx, key, rec, prev)
}

func (b *broken) Delete(ctx context.Context, key string) error { return b.delete(ctx, key) }

func (b *broken) Keys(ctx context.Context) iter.Seq2[string, error] { return b.keys(ctx) }

// version returns the version of the record under key, or "" if there is none.
func (b *broken) version(ctx context.Context, key string) string {
	rec, err := b.MemoryStore.Load(ctx, key)
	if err != nil {
		return ""
	}
	return rec.Version
}

// ended reports whether there is a record under key that has ended.
func (b *broken) ended(ctx context.Context, key string) bool {
	rec, err := b.MemoryStore.Load(ctx, key)
	return err == nil && rec.Ended != ""
}

// force saves over any record, or over none.
func (b *broken) force(ctx context.Context, key string, rec *fincodeauth.Record) error {
	for {
		err := b.MemoryStore.Save(ctx, key, rec, b.version(ctx, key))
		if !errors.Is(err, fincodeauth.ErrConflict) {
			return err
		}
	}
}

// onCancel calls do for a Save whose context ends while it is at work, if the record has
// version prev.
func (b *broken) onCancel(do func(ctx context.Context, key string, rec *fincodeauth.Record, prev string) error) {
	b.save = func(ctx context.Context, key string, rec *fincodeauth.Record, prev string) error {
		if ctx.Err() == nil && b.version(ctx, key) == prev {
			pause()
			if ctx.Err() != nil {
				return do(ctx, key, rec, prev)
			}
		}
		return b.MemoryStore.Save(ctx, key, rec, prev)
	}
}

func newBroken(name string) fincodeauth.Store {
	m := fincodeauth.NewMemoryStore()
	b := &broken{MemoryStore: m, load: m.Load, save: m.Save, delete: m.Delete, keys: m.Keys}
	if mapped, ok := keyMappings[name]; ok {
		b.mapKeys(mapped)
		return b
	}
	breakBy, ok := breaks[name]
	if !ok {
		panic("no broken store is called " + name)
	}
	breakBy(b, m)
	return b
}

// mapKeys makes the store keep each record under another key.
func (b *broken) mapKeys(mapped func(string) string) {
	m := b.MemoryStore
	b.load = func(ctx context.Context, key string) (*fincodeauth.Record, error) {
		return m.Load(ctx, mapped(key))
	}
	b.save = func(ctx context.Context, key string, rec *fincodeauth.Record, prev string) error {
		return m.Save(ctx, mapped(key), rec, prev)
	}
	b.delete = func(ctx context.Context, key string) error { return m.Delete(ctx, mapped(key)) }
}

// listOnly makes the store leave keys out when it lists them: those for which listed
// returns false. listed gets the number of the key, too.
func (b *broken) listOnly(listed func(n int, key string) bool) {
	b.keys = func(ctx context.Context) iter.Seq2[string, error] {
		return func(yield func(string, error) bool) {
			n := 0
			for key, err := range b.MemoryStore.Keys(ctx) {
				if n++; (err != nil || listed(n, key)) && !yield(key, err) {
					return
				}
			}
		}
	}
}

var breaks = map[string]func(b *broken, m *fincodeauth.MemoryStore){
	"lists one page": func(b *broken, _ *fincodeauth.MemoryStore) {
		b.listOnly(func(n int, _ string) bool { return n <= 100 })
	},
	"lists no odd keys": func(b *broken, _ *fincodeauth.MemoryStore) {
		b.listOnly(func(_ int, key string) bool { return utf8.ValidString(key) && !strings.ContainsAny(key, "/*") })
	},
	"lists what it can while others save": func(b *broken, m *fincodeauth.MemoryStore) {
		var saves atomic.Int64
		b.save = func(ctx context.Context, key string, rec *fincodeauth.Record, prev string) error {
			saves.Add(1)
			return m.Save(ctx, key, rec, prev)
		}
		b.keys = func(ctx context.Context) iter.Seq2[string, error] {
			before := saves.Load()
			return func(yield func(string, error) bool) {
				for key, err := range m.Keys(ctx) {
					pause()
					if saves.Load() != before || !yield(key, err) {
						return
					}
				}
			}
		}
	},
	"lists what was deleted": func(b *broken, m *fincodeauth.MemoryStore) {
		var deleted sync.Map
		b.delete = func(ctx context.Context, key string) error {
			deleted.Store(key, true)
			return m.Delete(ctx, key)
		}
		b.keys = func(ctx context.Context) iter.Seq2[string, error] {
			return func(yield func(string, error) bool) {
				for key := range deleted.Range {
					if !yield(key.(string), nil) {
						return
					}
				}
				m.Keys(ctx)(yield)
			}
		}
	},
	"lists after its context has ended": func(b *broken, m *fincodeauth.MemoryStore) {
		b.keys = func(context.Context) iter.Seq2[string, error] { return m.Keys(context.Background()) }
	},
	"compares no version": func(b *broken, m *fincodeauth.MemoryStore) {
		b.save = func(ctx context.Context, key string, rec *fincodeauth.Record, _ string) error {
			return b.force(ctx, key, rec)
		}
	},
	"takes any version over nothing": func(b *broken, m *fincodeauth.MemoryStore) {
		b.save = func(ctx context.Context, key string, rec *fincodeauth.Record, prev string) error {
			if b.version(ctx, key) == "" {
				prev = ""
			}
			return m.Save(ctx, key, rec, prev)
		}
	},
	"saves later": func(b *broken, m *fincodeauth.MemoryStore) {
		b.save = func(ctx context.Context, key string, rec *fincodeauth.Record, prev string) error {
			if b.version(ctx, key) != prev {
				return fincodeauth.ErrConflict
			}
			late := *rec
			time.AfterFunc(20*time.Millisecond, func() { m.Save(context.Background(), key, &late, prev) })
			return nil
		}
	},
	"forgets a Delete": func(b *broken, m *fincodeauth.MemoryStore) {
		b.save = func(ctx context.Context, key string, rec *fincodeauth.Record, prev string) error {
			if b.version(ctx, key) != prev {
				return fincodeauth.ErrConflict
			}
			pause()
			if b.version(ctx, key) == "" {
				prev = ""
			}
			return m.Save(ctx, key, rec, prev)
		}
	},
	"checks, then saves": func(b *broken, m *fincodeauth.MemoryStore) {
		b.save = func(ctx context.Context, key string, rec *fincodeauth.Record, prev string) error {
			if b.version(ctx, key) != prev {
				return fincodeauth.ErrConflict
			}
			pause()
			return b.force(ctx, key, rec)
		}
	},
	"keeps the caller's record": func(b *broken, m *fincodeauth.MemoryStore) {
		var saved sync.Map
		b.save = func(ctx context.Context, key string, rec *fincodeauth.Record, prev string) error {
			saved.Store(key, rec)
			return m.Save(ctx, key, rec, prev)
		}
		b.load = func(ctx context.Context, key string) (*fincodeauth.Record, error) {
			if rec, ok := saved.Load(key); ok {
				rec := *rec.(*fincodeauth.Record)
				return &rec, nil
			}
			return m.Load(ctx, key)
		}
	},
	"hands out its own record": func(b *broken, m *fincodeauth.MemoryStore) {
		var loaded sync.Map // version -> record
		b.load = func(ctx context.Context, key string) (*fincodeauth.Record, error) {
			rec, err := m.Load(ctx, key)
			if err != nil {
				return nil, err
			}
			same, _ := loaded.LoadOrStore(rec.Version, rec)
			return same.(*fincodeauth.Record), nil
		}
	},
	"ignores the context": func(b *broken, m *fincodeauth.MemoryStore) {
		b.load = func(ctx context.Context, key string) (*fincodeauth.Record, error) {
			return m.Load(context.WithoutCancel(ctx), key)
		}
		b.save = func(ctx context.Context, key string, rec *fincodeauth.Record, prev string) error {
			return m.Save(context.WithoutCancel(ctx), key, rec, prev)
		}
		b.delete = func(ctx context.Context, key string) error {
			return m.Delete(context.WithoutCancel(ctx), key)
		}
	},
	"saves, then returns the context's error": func(b *broken, m *fincodeauth.MemoryStore) {
		b.save = func(ctx context.Context, key string, rec *fincodeauth.Record, prev string) error {
			if err := m.Save(context.WithoutCancel(ctx), key, rec, prev); err != nil {
				return err
			}
			return ctx.Err()
		}
	},
	"conflicts but saves": func(b *broken, m *fincodeauth.MemoryStore) {
		b.save = func(ctx context.Context, key string, rec *fincodeauth.Record, prev string) error {
			err := m.Save(ctx, key, rec, prev)
			if errors.Is(err, fincodeauth.ErrConflict) {
				b.force(ctx, key, rec)
			}
			return err
		}
	},
	"keeps whole seconds": func(b *broken, m *fincodeauth.MemoryStore) {
		b.load = func(ctx context.Context, key string) (*fincodeauth.Record, error) {
			rec, err := m.Load(ctx, key)
			if err == nil && rec.Token != nil {
				rec.Token.Expiry = rec.Token.Expiry.Truncate(time.Second)
			}
			return rec, err
		}
	},
	"cuts long tokens": func(b *broken, m *fincodeauth.MemoryStore) {
		b.load = func(ctx context.Context, key string) (*fincodeauth.Record, error) {
			rec, err := m.Load(ctx, key)
			if err == nil && rec.Token != nil && len(rec.Token.AccessToken) > 4000 {
				rec.Token.AccessToken = rec.Token.AccessToken[:4000]
			}
			return rec, err
		}
	},
	"tears when cancelled": func(b *broken, m *fincodeauth.MemoryStore) {
		b.save = func(ctx context.Context, key string, rec *fincodeauth.Record, prev string) error {
			if err := ctx.Err(); err != nil {
				return err
			}
			half := *rec
			half.Token = nil
			if err := m.Save(context.WithoutCancel(ctx), key, &half, prev); err != nil {
				return err
			}
			pause()
			return m.Save(ctx, key, rec, rec.Version)
		}
	},
	"compares nothing once cancelled": func(b *broken, _ *fincodeauth.MemoryStore) {
		var late atomic.Pointer[fincodeauth.Record] // it comes after the next Save
		b.onCancel(func(ctx context.Context, _ string, rec *fincodeauth.Record, _ string) error {
			kept := *rec
			late.Store(&kept)
			return ctx.Err()
		})
		save := b.save
		b.save = func(ctx context.Context, key string, rec *fincodeauth.Record, prev string) error {
			err := save(ctx, key, rec, prev)
			if err == nil {
				if rec := late.Swap(nil); rec != nil {
					b.force(context.WithoutCancel(ctx), key, rec)
				}
			}
			return err
		}
	},
	"saves but conflicts once cancelled": func(b *broken, m *fincodeauth.MemoryStore) {
		b.onCancel(func(ctx context.Context, key string, rec *fincodeauth.Record, prev string) error {
			m.Save(context.WithoutCancel(ctx), key, rec, prev)
			return fincodeauth.ErrConflict
		})
	},
	"stays locked once cancelled": func(b *broken, _ *fincodeauth.MemoryStore) {
		var locked atomic.Bool
		b.onCancel(func(ctx context.Context, _ string, _ *fincodeauth.Record, _ string) error {
			locked.Store(true)
			return ctx.Err()
		})
		save := b.save
		b.save = func(ctx context.Context, key string, rec *fincodeauth.Record, prev string) error {
			if ctx.Err() == nil && locked.Load() {
				return fincodeauth.ErrConflict
			}
			return save(ctx, key, rec, prev)
		}
	},
	"fails a second Delete": func(b *broken, m *fincodeauth.MemoryStore) {
		b.delete = func(ctx context.Context, key string) error {
			if b.version(ctx, key) == "" {
				return fincodeauth.ErrNotFound
			}
			return m.Delete(ctx, key)
		}
	},
	"loads nil, nil": func(b *broken, m *fincodeauth.MemoryStore) {
		b.load = func(ctx context.Context, key string) (*fincodeauth.Record, error) {
			rec, err := m.Load(ctx, key)
			if errors.Is(err, fincodeauth.ErrNotFound) || ctx.Err() == nil {
				return nil, nil
			}
			return rec, err
		}
	},
	"loses the token": func(b *broken, m *fincodeauth.MemoryStore) {
		b.load = func(ctx context.Context, key string) (*fincodeauth.Record, error) {
			rec, err := m.Load(ctx, key)
			if err == nil {
				rec.Token = nil
			}
			return rec, err
		}
	},
	"takes an ended record for none": func(b *broken, m *fincodeauth.MemoryStore) {
		b.save = func(ctx context.Context, key string, rec *fincodeauth.Record, prev string) error {
			if prev == "" && b.ended(ctx, key) {
				prev = b.version(ctx, key)
			}
			return m.Save(ctx, key, rec, prev)
		}
	},
	"replaces any ended record": func(b *broken, m *fincodeauth.MemoryStore) {
		b.save = func(ctx context.Context, key string, rec *fincodeauth.Record, prev string) error {
			if prev != "" && b.ended(ctx, key) {
				prev = b.version(ctx, key)
			}
			return m.Save(ctx, key, rec, prev)
		}
	},
	"ends any version": func(b *broken, m *fincodeauth.MemoryStore) {
		b.save = func(ctx context.Context, key string, rec *fincodeauth.Record, prev string) error {
			if rec.Ended != "" && b.version(ctx, key) != "" {
				prev = b.version(ctx, key)
			}
			return m.Save(ctx, key, rec, prev)
		}
	},
	"ends nothing": func(b *broken, m *fincodeauth.MemoryStore) {
		b.save = func(ctx context.Context, key string, rec *fincodeauth.Record, prev string) error {
			if rec.Ended != "" && b.version(ctx, key) == "" {
				prev = ""
			}
			return m.Save(ctx, key, rec, prev)
		}
	},
	"replaces no ended record": func(b *broken, m *fincodeauth.MemoryStore) {
		b.save = func(ctx context.Context, key string, rec *fincodeauth.Record, prev string) error {
			if rec.Ended == "" && b.ended(ctx, key) {
				return fincodeauth.ErrConflict
			}
			return m.Save(ctx, key, rec, prev)
		}
	},
	"deletes no ended record": func(b *broken, m *fincodeauth.MemoryStore) {
		b.delete = func(ctx context.Context, key string) error {
			if b.ended(ctx, key) {
				return nil
			}
			return m.Delete(ctx, key)
		}
	},
	"deletes the trimmed key": func(b *broken, m *fincodeauth.MemoryStore) {
		b.delete = func(ctx context.Context, key string) error {
			if err := m.Delete(ctx, key); err != nil {
				return err
			}
			return m.Delete(ctx, strings.TrimSpace(key))
		}
	},
	"reads a glob": func(b *broken, m *fincodeauth.MemoryStore) {
		b.deleteAll(func(pattern string) func(string) bool {
			return func(key string) bool {
				ok, _ := path.Match(pattern, key)
				return ok
			}
		})
	},
	"reads a LIKE": func(b *broken, m *fincodeauth.MemoryStore) {
		b.deleteAll(func(pattern string) func(string) bool {
			like := strings.NewReplacer("_", "(?s:.)", "%", "(?s:.*)").Replace(regexp.QuoteMeta(pattern))
			matcher, err := regexp.Compile("^" + like + "$")
			return func(key string) bool { return err == nil && matcher.MatchString(key) }
		})
	},
	"deletes a folder": func(b *broken, m *fincodeauth.MemoryStore) {
		b.deleteAll(func(folder string) func(string) bool {
			return func(key string) bool { return strings.HasPrefix(key, folder+"/") }
		})
	},
	"refuses slashes": func(b *broken, m *fincodeauth.MemoryStore) {
		b.save = func(ctx context.Context, key string, rec *fincodeauth.Record, prev string) error {
			if strings.Contains(key, "/") {
				return errors.New("a slash is not allowed")
			}
			return m.Save(ctx, key, rec, prev)
		}
	},
	"loads what it refuses": func(b *broken, m *fincodeauth.MemoryStore) {
		b.load = func(ctx context.Context, key string) (*fincodeauth.Record, error) {
			return m.Load(ctx, strings.ReplaceAll(key, "\x00", ""))
		}
		b.save = func(ctx context.Context, key string, rec *fincodeauth.Record, prev string) error {
			if strings.Contains(key, "\x00") {
				return errors.New("NUL is not allowed")
			}
			return m.Save(ctx, key, rec, prev)
		}
	},
}

// deleteAll makes Delete remove the key that it is given, and every key that
// matches it.
func (b *broken) deleteAll(matcher func(given string) func(key string) bool) {
	var keys sync.Map
	m := b.MemoryStore
	b.save = func(ctx context.Context, key string, rec *fincodeauth.Record, prev string) error {
		keys.Store(key, true)
		return m.Save(ctx, key, rec, prev)
	}
	b.delete = func(ctx context.Context, given string) error {
		matches := matcher(given)
		keys.Range(func(key, _ any) bool {
			if matches(key.(string)) {
				m.Delete(ctx, key.(string))
			}
			return true
		})
		return m.Delete(ctx, given)
	}
}

// keyMappings are ways in which stores change keys. Each of them maps two
// different keys to the same key.
var keyMappings = map[string]func(key string) string{
	"replaces slashes":            replace("/", "_"),
	"replaces slashes by dashes":  replace("/", "-"),
	"ignores case":                strings.ToLower,
	"folds case":                  foldSimply,
	"folds case fully":            func(key string) string { return strings.ReplaceAll(foldSimply(key), "ß", "SS") },
	"lowers case as Turkish does": func(key string) string { return strings.ToLowerSpecial(unicode.TurkishCase, key) },
	"trims space":                 strings.TrimSpace,
	"pads with spaces":            func(key string) string { return strings.TrimRight(key, " ") },
	"collapses space":             func(key string) string { return strings.Join(strings.Split(key, "  "), " ") },
	"trims dots":                  func(key string) string { return strings.TrimRight(key, ".") },
	"replaces dots":               replace(".", "-"),
	"cleans paths":                path.Clean,
	"takes backslash for slash":   replace(`\`, "/"),
	"unescapes backslashes":       replace(`\\`, `\`, `\`, ""),
	"unescapes paths":             unescape(url.PathUnescape),
	"unescapes queries":           unescape(url.QueryUnescape),
	"cuts at a colon":             func(key string) string { return strings.SplitN(key, ":", 2)[0] },
	"drops NUL":                   replace("\x00", ""),
	"cuts at NUL":                 func(key string) string { return strings.SplitN(key, "\x00", 2)[0] },
	"drops control characters":    drop(unicode.IsControl),
	"drops invisible characters":  drop(func(r rune) bool { return unicode.Is(unicode.Cf, r) }),
	"composes accents":            replace("e\u0301", "é", "a\u0308", "ä", "\u212b", "å", "a\u030a", "å"),
	"drops accents":               replace("é", "e", "ä", "a", "å", "a", "\u0301", "", "\u0308", ""),
	"normalizes to NFKC":          replace("ａ", "a", "ﬁ", "fi", "²", "2", "①", "1"),
	"replaces invalid UTF-8":      func(key string) string { return strings.ToValidUTF8(key, "\ufffd") },
	"drops invalid UTF-8":         func(key string) string { return strings.ToValidUTF8(key, "") },
	"keeps ASCII only":            keepBelow(0x80),
	"keeps 3 bytes a character":   keepBelow(0x10000),
	"doubles quotes":              replace("''", "'"),
	"reads numbers":               readNumber,
	"cuts at 32":                  cutAt(32),
	"cuts at 64":                  cutAt(64),
	"cuts at 128":                 cutAt(128),
	"cuts at 255":                 cutAt(255),
	"cuts at 300":                 cutAt(300),
	"cuts at 500":                 cutAt(500),
	"cuts at 1024":                cutAt(1024),
	"cuts at 4000":                cutAt(4000),
	"replaces other punctuation":  replace("!", "_", "^", "_", "$", "_"),
	"keeps both ends":             keepEnds,
}

func replace(oldnew ...string) func(string) string { return strings.NewReplacer(oldnew...).Replace }

// foldSimply maps each letter to the first of those that differ from it in case.
func foldSimply(key string) string {
	return strings.Map(func(r rune) rune {
		first := r
		for next := unicode.SimpleFold(r); next != r; next = unicode.SimpleFold(next) {
			first = min(first, next)
		}
		return first
	}, key)
}

func drop(is func(rune) bool) func(string) string {
	return func(key string) string {
		return strings.Map(func(r rune) rune {
			if is(r) {
				return -1
			}
			return r
		}, key)
	}
}

// keepBelow replaces each character from limit on by a question mark.
func keepBelow(limit rune) func(string) string {
	return func(key string) string {
		return strings.Map(func(r rune) rune {
			if r >= limit {
				return '?'
			}
			return r
		}, key)
	}
}

func unescape(decode func(string) (string, error)) func(string) string {
	return func(key string) string {
		if decoded, err := decode(key); err == nil {
			return decoded
		}
		return key
	}
}

func readNumber(key string) string {
	if n, err := strconv.ParseFloat(key, 64); err == nil {
		return fmt.Sprint(n)
	}
	return key
}

func cutAt(n int) func(string) string {
	return func(key string) string { return key[:min(n, len(key))] }
}

// keepEnds shortens a long key in its middle.
func keepEnds(key string) string {
	if len(key) <= 100 {
		return key
	}
	return key[:50] + key[len(key)-50:]
}

// pause lets other goroutines run.
func pause() {
	for range 100 {
		runtime.Gosched()
	}
}
