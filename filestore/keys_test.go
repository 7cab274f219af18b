package filestore

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// keysOf returns what Keys yields.
func keysOf(t *testing.T, s *Store) (keys []string, errs []error) {
	t.Helper()
	for key, err := range s.Keys(t.Context()) {
		if err != nil {
			errs = append(errs, err)
		} else {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys, errs
}

func TestKeysListsADamagedRecord(t *testing.T) {
	s := newStore(t)
	saveUnder(t, s, "a")
	saveUnder(t, s, "b")
	damage(t, s, "a")
	if keys, errs := keysOf(t, s); !slices.Equal(keys, []string{"a", "b"}) || errs != nil {
		t.Errorf("Keys yielded %q and %v, want a and b", keys, errs)
	}
}

func TestKeysGoesOnAfterALongKeyWhoseRecordIsDamaged(t *testing.T) {
	s := newStore(t)
	long := strings.Repeat("k", 300)
	saveUnder(t, s, long)
	saveUnder(t, s, "a")
	if keys, errs := keysOf(t, s); !slices.Equal(keys, []string{"a", long}) || errs != nil {
		t.Errorf("Keys yielded %d keys and %v, want both", len(keys), errs)
	}
	damage(t, s, long)
	keys, errs := keysOf(t, s)
	if !slices.Equal(keys, []string{"a"}) || len(errs) != 1 || !strings.Contains(errs[0].Error(), "restore the file, or call Sessions.Forget") {
		t.Errorf("Keys yielded %q and %v, want a, and an error that says what to do", keys, errs)
	}
}

// Earlier builds saved no key in the records of long keys.
func TestKeysGoesOnAfterALongKeyThatTheRecordDoesNotName(t *testing.T) {
	s := newStore(t)
	long := strings.Repeat("k", 300)
	saveUnder(t, s, long)
	saveUnder(t, s, "a")
	if err := os.WriteFile(s.Path(long), []byte(`{"version":"v1"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	keys, errs := keysOf(t, s)
	if !slices.Equal(keys, []string{"a"}) || len(errs) != 1 || !strings.Contains(errs[0].Error(), "does not name its key") {
		t.Errorf("Keys yielded %q and %v, want a, and an error that says what to do", keys, errs)
	}
}

func TestKeysListsMoreThanAPage(t *testing.T) {
	s := newStore(t)
	var want []string
	for range 2*pageSize + 1 { // by hand, because a Save is synced
		key := "user-" + strings.Repeat("x", len(want)%100) + string(rune('a'+len(want)/100))
		want = append(want, key)
		dir := filepath.Join(s.dir, folderName(key))
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, file{1, "g"}.name()), []byte(`{"version":"v1"}`), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(want)
	if keys, errs := keysOf(t, s); !slices.Equal(keys, want) || errs != nil {
		t.Errorf("Keys yielded %d keys and %v, want %d keys", len(keys), errs, len(want))
	}
}

func TestKeysIgnoresWhatIsNoSession(t *testing.T) {
	s := newStore(t)
	saveUnder(t, s, "a")
	for _, name := range []string{"lost+found", "k-UPPER", "k-=zz", newPrefix + "1", oldPrefix + "1"} {
		if err := os.Mkdir(filepath.Join(s.dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if keys, errs := keysOf(t, s); !slices.Equal(keys, []string{"a"}) || errs != nil {
		t.Errorf("Keys yielded %q and %v, want a", keys, errs)
	}
}

func damage(t *testing.T, s *Store, key string) {
	t.Helper()
	if err := os.WriteFile(s.Path(key), []byte(`{"vers`), 0o600); err != nil {
		t.Fatal(err)
	}
}
