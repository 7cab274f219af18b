package storetest_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

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

// brokenEnv names the broken store that the test binary, run again, is to test.
const brokenEnv = "STORETEST_BROKEN"

// TestBrokenStoresFail runs itself in another process for each broken store, as
// a test that is to fail cannot run in one that is to pass.
func TestBrokenStoresFail(t *testing.T) {
	if name, ok := os.LookupEnv(brokenEnv); ok {
		storetest.Run(t, func(*testing.T) fincodeauth.Store { return newBroken(name) })
		return
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for name, subtests := range map[string][]string{
		"compares no version":         {"SaveOverAnotherVersionConflicts", "SaveOverNothingConflicts", "OneSaveWinsEachVersion"},
		"nothing matches any version": {"SaveOverNothingConflicts", "StaleSaveDoesNotBringBackADeleted"},
		"saves later":                 {"LoadReturnsWhatWasSaved", "OthersSeeASaveAtOnce"},
		"forgets a Delete":            {"DeleteBeatsEverySaveBefore"},
		"checks, then saves":          {"OneSaveWinsEachVersion", "NoUpdateIsLost"},
		"shares what it takes":        {"NothingIsShared"},
		"shares what it gives":        {"NothingIsShared"},
		"ignores the context":         {"CancelledCallChangesNothing"},
		"saves in spite of it":        {"CancelledCallChangesNothing"},
		"conflicts but saves":         {"SaveOverAnotherVersionConflicts"},
		"ignores case":                {"OddKeysDoNotCollide"},
		"keeps whole seconds":         {"LoadReturnsWhatWasSaved"},
		"cuts long tokens":            {"LargeTokens"},
		"tears when cancelled":        {"CancelledCallsReturnAndCorruptNothing"},
		"fails a second Delete":       {"DeleteRemoves"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd := exec.CommandContext(t.Context(), self, "-test.run=^TestBrokenStoresFail$", "-test.timeout=1m")
			cmd.Env = append(os.Environ(), brokenEnv+"="+name)
			out, err := cmd.CombinedOutput()
			if exit := new(exec.ExitError); !errors.As(err, &exit) {
				t.Fatalf("the broken store passed (%v):\n%s", err, out)
			}
			for _, sub := range subtests {
				if !strings.Contains(string(out), "--- FAIL: TestBrokenStoresFail/"+sub+" ") {
					t.Errorf("%s did not fail:\n%s", sub, out)
				}
			}
		})
	}
}

// A broken store is a MemoryStore with one call replaced.
type broken struct {
	*fincodeauth.MemoryStore
	load   func(ctx context.Context, key string) (*fincodeauth.Record, error)
	save   func(ctx context.Context, key string, rec *fincodeauth.Record, prev string) error
	delete func(ctx context.Context, key string) error
}

func (b *broken) Load(ctx context.Context, key string) (*fincodeauth.Record, error) {
	return b.load(ctx, key)
}

func (b *broken) Save(ctx context.Context, key string, rec *fincodeauth.Record, prev string) error {
	return b.save(ctx, key, rec, prev)
}

func (b *broken) Delete(ctx context.Context, key string) error { return b.delete(ctx, key) }

// version returns the version of what is under key, "" if there is nothing.
func (b *broken) version(ctx context.Context, key string) string {
	rec, err := b.MemoryStore.Load(ctx, key)
	if err != nil {
		return ""
	}
	return rec.Version
}

// force saves over whatever is there.
func (b *broken) force(ctx context.Context, key string, rec *fincodeauth.Record) error {
	for {
		err := b.MemoryStore.Save(ctx, key, rec, b.version(ctx, key))
		if !errors.Is(err, fincodeauth.ErrConflict) {
			return err
		}
	}
}

func newBroken(name string) fincodeauth.Store {
	m := fincodeauth.NewMemoryStore()
	b := &broken{MemoryStore: m, load: m.Load, save: m.Save, delete: m.Delete}
	breakBy, ok := breaks[name]
	if !ok {
		panic("no broken store is called " + name)
	}
	breakBy(b, m)
	return b
}

var breaks = map[string]func(b *broken, m *fincodeauth.MemoryStore){
	"compares no version": func(b *broken, m *fincodeauth.MemoryStore) {
		b.save = func(ctx context.Context, key string, rec *fincodeauth.Record, _ string) error {
			return b.force(ctx, key, rec)
		}
	},
	"nothing matches any version": func(b *broken, m *fincodeauth.MemoryStore) {
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
			dawdle()
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
			dawdle()
			return b.force(ctx, key, rec)
		}
	},
	"shares what it takes": func(b *broken, m *fincodeauth.MemoryStore) {
		var taken sync.Map
		b.save = func(ctx context.Context, key string, rec *fincodeauth.Record, prev string) error {
			taken.Store(key, rec)
			return m.Save(ctx, key, rec, prev)
		}
		b.load = func(ctx context.Context, key string) (*fincodeauth.Record, error) {
			if rec, ok := taken.Load(key); ok {
				rec := *rec.(*fincodeauth.Record)
				return &rec, nil
			}
			return m.Load(ctx, key)
		}
	},
	"shares what it gives": func(b *broken, m *fincodeauth.MemoryStore) {
		var given sync.Map // version -> record
		b.load = func(ctx context.Context, key string) (*fincodeauth.Record, error) {
			rec, err := m.Load(ctx, key)
			if err != nil {
				return nil, err
			}
			same, _ := given.LoadOrStore(rec.Version, rec)
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
	"saves in spite of it": func(b *broken, m *fincodeauth.MemoryStore) {
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
	"ignores case": func(b *broken, m *fincodeauth.MemoryStore) {
		b.load = func(ctx context.Context, key string) (*fincodeauth.Record, error) {
			return m.Load(ctx, strings.ToLower(key))
		}
		b.save = func(ctx context.Context, key string, rec *fincodeauth.Record, prev string) error {
			return m.Save(ctx, strings.ToLower(key), rec, prev)
		}
		b.delete = func(ctx context.Context, key string) error { return m.Delete(ctx, strings.ToLower(key)) }
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
			dawdle()
			return m.Save(ctx, key, rec, rec.Version)
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
}

// dawdle lets others run in between.
func dawdle() {
	for range 100 {
		runtime.Gosched()
	}
}
