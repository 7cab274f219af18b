package integration

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/redisstore"
	"github.com/fincodeauth/fincodeauth/sqlstore"
)

// heapRoom is how much more memory may be in use while keys are listed. A page is a
// thousand keys.
const heapRoom = 8 << 20

// A million keys of about a hundred bytes would need more than a hundred megabytes.
func TestMillionKeysAreListedInBoundedMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("a million rows take long")
	}
	tab := openTable(t, postgres, postgresURL)
	const n = 1_000_000
	_, err := tab.db.ExecContext(t.Context(), `INSERT INTO `+tab.name+` (id, version, record, session, updated_at)
		SELECT encode(sha256(convert_to('user-' || i, 'UTF8')), 'hex'), 'v1', '{"version":"v1"}', 'user-' || i, now()
		FROM generate_series(1, $1) i`, n)
	if err != nil {
		t.Fatal(err)
	}
	wantInBoundedMemory(t, tab.Store, n)
}

func TestKeysOfRedisAreListedInBoundedMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("many keys take long")
	}
	p := openPrefix(t, openRedis(t))
	const n = 200_000
	err := p.client.Eval(t.Context(), `for i = 1, tonumber(ARGV[2]) do
		redis.call('HSET', ARGV[1] .. 'user-' .. i, 'version', 'v1', 'record', '{"version":"v1"}') end return 1`, nil, p.name, n).Err()
	if err != nil {
		t.Fatal(err)
	}
	wantInBoundedMemory(t, p.Store, n)
}

func TestKeysOfEtcdAreListedInBoundedMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("many keys take long")
	}
	p := openSharedEtcd(t)
	const n = 200_000
	p.fill(t, n)
	wantInBoundedMemory(t, p.Store, n)
}

func wantInBoundedMemory(t *testing.T, s fincodeauth.KeyLister, n int) {
	t.Helper()
	base, most, found := heap(), uint64(0), 0
	seen := make([]bool, n+1)
	for key, err := range s.Keys(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		var i int
		if _, err := fmt.Sscanf(key, "user-%d", &i); err != nil || i < 1 || i > n {
			t.Fatalf("Keys yielded %q", key)
		}
		if !seen[i] {
			seen[i] = true
			found++
		}
		if found%(n/10) == 0 {
			most = max(most, heap())
		}
	}
	if found != n {
		t.Errorf("Keys yielded %d keys, want %d", found, n)
	}
	if most > base+heapRoom+uint64(n) { // seen is the test's own
		t.Errorf("the heap grew from %d to %d bytes, want at most %d more", base, most, heapRoom)
	}
}

// heap returns how many bytes are in use.
func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// Redis reads a prefix as a pattern when it lists keys.
func TestRedisListsOnlyTheKeysOfItsPrefix(t *testing.T) {
	p := openPrefix(t, openRedis(t))
	for _, name := range []string{"a*b:", "a?b:", "a[x]b:", `a\b:`, "a^-]b:"} {
		t.Run(name, func(t *testing.T) {
			s := storeWithPrefix(t, p, name)
			others := storeWithPrefix(t, p, strings.NewReplacer("*", "zz", "?", "z", "[x]", "x", `\`, "", "^-]", "b").Replace(name))
			for _, s := range []*redisstore.Store{s, others} {
				if err := s.Save(t.Context(), "of-"+fmt.Sprint(s), &fincodeauth.Record{Version: "v1"}, ""); err != nil {
					t.Fatal(err)
				}
			}
			wantKeys(t, s, "of-"+fmt.Sprint(s))
		})
	}
}

func storeWithPrefix(t *testing.T, p prefix, name string) *redisstore.Store {
	t.Helper()
	s, err := redisstore.New(p.client, redisstore.Prefix(p.name+name))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Another program may use the prefix, too. Load says so for its keys.
func TestRedisListsNoKeysOfAnotherType(t *testing.T) {
	p := openPrefix(t, openRedis(t))
	if err := p.client.Set(t.Context(), p.name+"other", "text", 0).Err(); err != nil {
		t.Fatal(err)
	}
	wantKeys(t, p.Store)
}

func TestRowThatDoesNotNameItsKeyIsReportedAndTheOthersAreListed(t *testing.T) {
	for _, d := range sqlDatabases {
		t.Run(d.name, func(t *testing.T) {
			tab := openTable(t, d.sqlDatabase, d.dsn(t))
			for _, key := range []string{"a", "b", "c\x00d", "\xff"} {
				if err := tab.Save(t.Context(), key, &fincodeauth.Record{Version: "v1"}, ""); err != nil {
					t.Fatal(err)
				}
			}
			wantKeys(t, tab.Store, "a", "b", "c\x00d", "\xff")
			if _, err := tab.db.ExecContext(t.Context(), "UPDATE "+tab.name+" SET session = 'z' WHERE session = 'a'"); err != nil {
				t.Fatal(err)
			}
			found, errs := listed(t, tab.Store)
			if len(errs) != 1 || !strings.Contains(errs[0].Error(), "put the key into its column session") || len(found) != 3 || found["a"] || found["z"] {
				t.Errorf("Keys yielded %v and %v, want b and the odd keys, and an error that says what to do", found, errs)
			}
		})
	}
}

func TestKeysSaysThatTheTableIsMissing(t *testing.T) {
	for _, d := range sqlDatabases {
		t.Run(d.name, func(t *testing.T) {
			tab := newTable(t, d.sqlDatabase, openSQL(t, d.sqlDatabase, d.dsn(t)))
			found, errs := listed(t, tab.Store)
			if len(found) != 0 || len(errs) != 1 || !strings.Contains(errs[0].Error(), "run Migrate or apply Schema") {
				t.Errorf("Keys yielded %v and %v, want one error that says what to do", found, errs)
			}
		})
	}
}

func TestKeysOfAStoreThatNewDidNotMakeIsAnError(t *testing.T) {
	if found, errs := listed(t, new(sqlstore.Store)); len(found) != 0 || len(errs) != 1 {
		t.Errorf("Keys yielded %v and %v, want one error", found, errs)
	}
}

// wantKeys expects that Keys yields these keys.
func wantKeys(t *testing.T, s fincodeauth.KeyLister, want ...string) {
	t.Helper()
	found, errs := listed(t, s)
	for _, key := range want {
		if !found[key] {
			t.Errorf("Keys did not yield %q", key)
		}
	}
	if len(errs) > 0 || len(found) != len(want) {
		t.Errorf("Keys yielded %v and %v, want %q", found, errs, want)
	}
}

func listed(t *testing.T, s fincodeauth.KeyLister) (found map[string]bool, errs []error) {
	t.Helper()
	found = make(map[string]bool)
	for key, err := range s.Keys(t.Context()) {
		if err != nil {
			errs = append(errs, err)
		} else {
			found[key] = true
		}
	}
	return found, errs
}
