package kubestore_test

import (
	"fmt"
	"iter"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/kubestore"
)

// firstError returns the first error of a list.
func firstError(keys iter.Seq2[string, error]) error {
	for _, err := range keys {
		if err != nil {
			return err
		}
	}
	return nil
}

// wantKeys expects that the Store lists these keys, and errors with texts.
func wantKeys(t *testing.T, store *kubestore.Store, keys []string, texts ...string) {
	t.Helper()
	found := make(map[string]bool)
	var errs []error
	for key, err := range store.Keys(t.Context()) {
		if err != nil {
			errs = append(errs, err)
			continue
		}
		found[key] = true
	}
	if got := slices.Sorted(maps.Keys(found)); !slices.Equal(got, keys) {
		t.Errorf("Keys yielded %q, want %q", got, keys)
	}
	if len(errs) != len(texts) {
		t.Fatalf("Keys yielded the errors %v, want %q", errs, texts)
	}
	for i, err := range errs {
		if !strings.Contains(err.Error(), texts[i]) {
			t.Errorf("Keys yielded %v, want %q", err, texts[i])
		}
	}
}

// full returns a fake with sessions of several pages.
func full(t *testing.T) (*fake, *kubestore.Store, []string) {
	f := &fake{page: 3}
	store := f.store(t)
	var keys []string
	for i := range 10 {
		key := fmt.Sprint("user ", i)
		if err := store.Save(t.Context(), key, &fincodeauth.Record{Version: "v1"}, ""); err != nil {
			t.Fatal(err)
		}
		keys = append(keys, key)
	}
	f.methods()
	return f, store, keys
}

func TestKeysReadsAllPages(t *testing.T) {
	f, store, keys := full(t)
	wantKeys(t, store, keys)
	if got := f.methods(); got != "GET GET GET GET" {
		t.Errorf("Keys sent %s, want a GET for each of four pages", got)
	}
}

// The API server can go on with a list that etcd has compacted, with another token.
func TestKeysGoesOnWhenTheListHasExpired(t *testing.T) {
	f, store, keys := full(t)
	expired := false
	f.before = func(w http.ResponseWriter, r *http.Request) bool {
		next := r.URL.Query().Get("continue")
		if next == "" || expired {
			return false
		}
		expired = true
		write(w, http.StatusGone, map[string]any{"kind": "Status", "reason": "Expired", "metadata": map[string]string{"continue": next}})
		return true
	}
	wantKeys(t, store, keys)
	if got := f.methods(); got != "GET GET GET GET GET" || !expired {
		t.Errorf("Keys sent %s, want four pages and one that had expired", got)
	}
}

func TestKeysBeginsAgainWhenTheListHasExpiredForGood(t *testing.T) {
	f, store, keys := full(t)
	expired := false
	f.before = func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Query().Get("continue") == "" || expired {
			return false
		}
		expired = true
		refuse(w, http.StatusGone, "Expired", "too old", "", "")
		return true
	}
	wantKeys(t, store, keys)
	if got := f.methods(); got != "GET GET GET GET GET GET" {
		t.Errorf("Keys sent %s, want one page, one that had expired, and then four pages", got)
	}
}

func TestKeysBeginsAgainOnlySomeTimes(t *testing.T) {
	f := new(fake)
	f.before = always(http.StatusGone, `{"kind":"Status","reason":"Expired","message":"too old"}`)
	wantKeys(t, f.store(t), nil, "410: Expired: too old")
	if n := len(f.calls); n != 6 {
		t.Errorf("Keys sent %d requests, want 6", n)
	}
}

func TestKeysListsOnlyTheSecretsOfItsPrefix(t *testing.T) {
	f := new(fake)
	for _, prefix := range []string{"", "fincode-", "fincode-a", "fincode-a-", "f"} {
		key := "of " + prefix
		if err := f.store(t, kubestore.Prefix(prefix)).Save(t.Context(), key, &fincodeauth.Record{Version: "v1"}, ""); err != nil {
			t.Fatal(err)
		}
	}
	for _, prefix := range []string{"", "fincode-", "fincode-a", "fincode-a-", "f"} {
		wantKeys(t, f.store(t, kubestore.Prefix(prefix)), []string{"of " + prefix})
	}
}

func TestSecretThatDoesNotNameItsSessionIsReportedAndTheOthersAreListed(t *testing.T) {
	for name, annotation := range map[string]string{"another": "bob", "no escape": "%zz", "empty": ""} {
		t.Run(name, func(t *testing.T) {
			f := new(fake)
			store := f.store(t)
			saveVersion(t, store, "v1")
			f.change(t, func(sec *object) {
				sec.Metadata.Annotations = map[string]string{"fincodeauth.github.io/session": annotation}
			})
			if err := store.Save(t.Context(), "carol", &fincodeauth.Record{Version: "v1"}, ""); err != nil {
				t.Fatal(err)
			}
			wantKeys(t, store, []string{"carol"}, "Secret "+alice+" does not name its session: put url.PathEscape of the key into its annotation")
		})
	}
}

func TestKeysEndsWhenItsCallerDoes(t *testing.T) {
	f, store, _ := full(t)
	for range store.Keys(t.Context()) {
		break
	}
	if got := f.methods(); got != "GET" {
		t.Errorf("Keys sent %s, want one GET", got)
	}
}
