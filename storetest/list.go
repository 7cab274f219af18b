package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/fincodeauth/fincodeauth"
)

// many is how many keys keysOfAll lists: more than databases list at once by themselves.
const many = 120

// lister returns the Store as a KeyLister; nil: it does not list its keys. A wrapper has
// Keys, and says with ErrUnsupported that the store inside does not.
func (s store) lister(t *testing.T) fincodeauth.KeyLister {
	t.Helper()
	lister, ok := s.Store.(fincodeauth.KeyLister)
	if ok {
		for _, err := range lister.Keys(t.Context()) {
			ok = !errors.Is(err, errors.ErrUnsupported)
			break
		}
	}
	if !ok {
		t.Log("the store does not list its keys, which is allowed")
		return nil
	}
	return lister
}

// wantKeys expects that Keys yields these keys, in any order.
func wantKeys(t *testing.T, s fincodeauth.KeyLister, want []string) {
	t.Helper()
	missing := make(map[string]bool)
	for _, key := range want {
		missing[key] = true
	}
	var others []string
	for key, err := range s.Keys(t.Context()) {
		if err != nil {
			t.Fatalf("Keys yielded an error: %v", err)
		}
		if _, ok := missing[key]; !ok {
			others = append(others, quote(key))
		}
		missing[key] = false
	}
	for _, key := range want {
		if missing[key] {
			t.Errorf("Keys did not yield %s, which has a record", quote(key))
		}
	}
	if len(others) > 0 {
		t.Errorf("Keys yielded %d keys without a record: %s", len(others), others[:min(len(others), 10)])
	}
}

// keysOfAll lists the keys of a store with more records than a page, some of them ended,
// and of the same store after some were deleted.
func keysOfAll(t *testing.T, s store) {
	lister := s.lister(t)
	if lister == nil {
		return
	}
	wantKeys(t, lister, nil)
	keys := s.saveMany(t)
	for _, key := range keys[:3] {
		s.saveRecord(t, key, newEnded("e1"), "v1")
	}
	wantKeys(t, lister, keys)
	for _, key := range keys[:2] {
		s.delete(t, key)
	}
	wantKeys(t, lister, keys[2:])
}

// saveMany saves a record under many keys.
func (s store) saveMany(t *testing.T) []string {
	t.Helper()
	var keys []string
	for i := range many {
		keys = append(keys, fmt.Sprintf("user-%d@example.com", i))
	}
	const savers = 32
	atOnce(savers, func(saver int) {
		for i := saver; i < many; i += savers {
			if err := s.Save(t.Context(), keys[i], newRecord("v1"), ""); err != nil {
				t.Errorf("Save(%s) = %v", quote(keys[i]), err)
				return
			}
		}
	})
	if t.Failed() {
		t.FailNow()
	}
	return keys
}

// keysMeanwhile lists keys while other keys come and go. It must yield each key that
// stays.
func keysMeanwhile(t *testing.T, s store) {
	lister := s.lister(t)
	if lister == nil {
		return
	}
	const stay = 50
	for i := range stay {
		s.save(t, fmt.Sprintf("stays-%d", i), "v1", "")
	}
	var done atomic.Bool
	atOnce(writers, func(i int) {
		if i == 0 {
			defer done.Store(true)
			for range 5 {
				wantAtLeast(t, lister, stay)
			}
			return
		}
		for n := 0; !done.Load(); n++ {
			s.comeAndGo(t, fmt.Sprintf("%d-comes-%d", i, n%7), fmt.Sprintf("v%d.%d", i, n))
		}
	})
}

func (s store) comeAndGo(t *testing.T, key, version string) {
	if err := s.Save(t.Context(), key, newRecord(version), ""); err != nil {
		t.Errorf("Save(%s) = %v", quote(key), err)
	}
	if err := s.Delete(t.Context(), key); err != nil {
		t.Errorf("Delete(%s) = %v", quote(key), err)
	}
}

// wantAtLeast expects that Keys yields the keys that stay.
func wantAtLeast(t *testing.T, s fincodeauth.KeyLister, stay int) {
	found := make(map[string]bool)
	for key, err := range s.Keys(t.Context()) {
		if err != nil {
			t.Errorf("Keys yielded an error: %v", err)
			return
		}
		found[key] = true
	}
	for i := range stay {
		if key := fmt.Sprintf("stays-%d", i); !found[key] {
			t.Errorf("Keys did not yield %s, whose record was there all the time", quote(key))
		}
	}
}

// keysEndEarly breaks off a list, and calls the store while it lists.
func keysEndEarly(t *testing.T, s store) {
	lister := s.lister(t)
	if lister == nil {
		return
	}
	for _, key := range []string{"a", "b", "c"} {
		s.save(t, key, "v1", "")
	}
	for key, err := range lister.Keys(t.Context()) {
		if err != nil {
			t.Fatalf("Keys yielded an error: %v", err)
		}
		s.save(t, key, "v2", "v1")
		s.want(t, key, "v2")
		break
	}
	wantKeys(t, lister, []string{"a", "b", "c"})
}

// keysCancelled lists with a context that has ended, and with one that ends meanwhile.
func keysCancelled(t *testing.T, s store) {
	lister := s.lister(t)
	if lister == nil {
		return
	}
	for i := range 20 {
		s.save(t, fmt.Sprintf("key-%d", i), "v1", "")
	}
	for _, after := range []int{0, 1} {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var errs []error
		if after == 0 {
			cancel()
		}
		for _, err := range lister.Keys(ctx) {
			cancel()
			if err != nil {
				errs = append(errs, err)
			}
		}
		if len(errs) == 0 || !slices.ContainsFunc(errs, func(err error) bool { return errors.Is(err, context.Canceled) }) {
			t.Errorf("Keys with a context that ended after %d keys yielded the errors %v, want one that wraps context.Canceled", after, errs)
		}
	}
}
