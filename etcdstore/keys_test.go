package etcdstore_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/etcdstore"
)

func TestKeysAreEscaped(t *testing.T) {
	names := make(map[string]string)
	for key, want := range map[string]string{
		"":                  "fincode/",
		"alice@example.com": "fincode/alice@example.com",
		"a/b":               "fincode/a%2Fb",
		"a%2Fb":             "fincode/a%252Fb",
		"a b":               "fincode/a%20b",
		"a+b":               "fincode/a+b",
		"..":                "fincode/..",
		"ä":                 "fincode/%C3%A4",
		"\xff":              "fincode/%FF",
		"\x00":              "fincode/%00",
		"Alice":             "fincode/Alice",
	} {
		f := new(fake)
		if err := f.store(t).Save(t.Context(), key, &fincodeauth.Record{Version: "v1"}, ""); err != nil {
			t.Fatal(err)
		}
		if f.values[want] == "" {
			t.Errorf("%q is not at %s in %v", key, want, f.values)
		}
		if other, taken := names[want]; taken {
			t.Errorf("%q and %q have the same name", key, other)
		}
		names[want] = key
		if keys, errs := list(t, f.store(t)); len(errs) != 0 || !slices.Equal(keys, []string{key}) {
			t.Errorf("Keys yielded %q and %v, want %q", keys, errs, key)
		}
	}
}

func TestPrefixesShareNoKey(t *testing.T) {
	f := new(fake)
	prefixes := []string{"a", "a/b", "a/b/", "a//", "a%2F", "/"}
	sessions := []string{"", "b", "b/", "/b", "/", "x", "b/x", "%2F"}
	stores := make(map[string]*etcdstore.Store) // by prefix; "a/b" and "a/b/" are the same
	for _, prefix := range prefixes {
		s := f.store(t, etcdstore.Prefix(prefix))
		stores[s.String()] = s
	}
	for name, s := range stores {
		for _, key := range sessions {
			if err := s.Save(t.Context(), key, &fincodeauth.Record{Version: fmt.Sprintf("%s of %q", name, key)}, ""); err != nil {
				t.Errorf("%s: Save of %q = %v", name, key, err)
			}
		}
	}
	for name, s := range stores {
		keys, errs := list(t, s)
		want := slices.Clone(sessions)
		slices.Sort(keys)
		slices.Sort(want)
		if len(errs) > 0 || !slices.Equal(keys, want) {
			t.Errorf("%s lists %q and %v, want %q", name, keys, errs, want)
		}
	}
}

func TestKeysAreListedInPages(t *testing.T) {
	f := new(fake)
	for i := range 20_001 {
		f.put(fmt.Sprintf("fincode/user-%05d", i), "")
	}
	f.put("fincodeX", "") // has not the prefix
	keys, errs := list(t, f.store(t))
	if len(keys) != 20_001 || len(errs) != 0 || keys[0] != "user-00000" || keys[20_000] != "user-20000" {
		t.Errorf("Keys yielded %d keys and %v, want 20001", len(keys), errs)
	}
	want := []string{
		`get "fincode/" to "fincode0", keys only true, at most 10000`,
		`get "fincode/user-09999\x00" to "fincode0", keys only true, at most 10000`,
		`get "fincode/user-19999\x00" to "fincode0", keys only true, at most 10000`,
	}
	if !slices.Equal(f.calls, want) {
		t.Errorf("calls %q, want %q", f.calls, want)
	}
}

func TestAnotherProgramsKeyIsNamedAndTheOthersAreListed(t *testing.T) {
	for _, name := range []string{"fincode/m%2f", "fincode/m%zz", "fincode/m n", "fincode/m%41"} {
		f := new(fake)
		f.put("fincode/a", "")
		f.put(name, "")
		f.put("fincode/z", "")
		keys, errs := list(t, f.store(t))
		if !slices.Equal(keys, []string{"a", "z"}) || len(errs) != 1 || !strings.Contains(errs[0].Error(), fmt.Sprintf("%q in etcd is not the key of a session: delete it", name)) {
			t.Errorf("Keys yielded %q and %v, want a, z and an error about %s", keys, errs, name)
		}
	}
}

func TestListingStopsWhenTheLoopDoes(t *testing.T) {
	f := new(fake)
	for i := range 30_000 {
		f.put(fmt.Sprintf("fincode/user-%04d", i), "")
	}
	for range f.store(t).Keys(t.Context()) {
		break
	}
	if len(f.calls) != 1 {
		t.Errorf("%d calls, want one page", len(f.calls))
	}
}

func TestKeysEndsWithItsContext(t *testing.T) {
	f := new(fake)
	f.put("fincode/a", "")
	f.put("fincode/b", "")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var last error
	for _, err := range f.store(t).Keys(ctx) {
		cancel()
		last = err
	}
	if !errors.Is(last, context.Canceled) {
		t.Errorf("Keys ended with %v, want Canceled", last)
	}
}

// list returns what Keys yields.
func list(t *testing.T, s *etcdstore.Store) (keys []string, errs []error) {
	t.Helper()
	for key, err := range s.Keys(t.Context()) {
		if err != nil {
			if key != "" {
				t.Errorf("Keys yielded %q with an error", key)
			}
			errs = append(errs, err)
			continue
		}
		keys = append(keys, key)
	}
	return keys, errs
}
