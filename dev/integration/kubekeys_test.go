package integration

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/kubestore"
)

// fillKube saves n sessions, user-1 to user-n.
func fillKube(t *testing.T, s fincodeauth.Store, n int) {
	t.Helper()
	var wg sync.WaitGroup
	const workers = 20
	for w := range workers {
		wg.Go(func() {
			for i := w + 1; i <= n; i += workers {
				if err := s.Save(t.Context(), fmt.Sprintf("user-%d", i), &fincodeauth.Record{Version: "v1"}, ""); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

func TestKeysOfKubernetesAreListedInBoundedMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("many Secrets take long")
	}
	s := openKube(t)
	const n = 4000 // eight pages
	fillKube(t, s, n)
	wantInBoundedMemory(t, s, n)
}

// etcd forgets old revisions. By default, the API server still lists from a copy of its
// own, and without that copy it says that the list has expired.
func TestKeysGoesOnWhenEtcdHasForgottenTheList(t *testing.T) {
	const n = 1100 // three pages
	for name, more := range map[string][]string{
		"FromEtcd":  {"--feature-gates=ListFromCacheSnapshot=false"},
		"FromCache": nil,
	} {
		t.Run(name, func(t *testing.T) {
			k := startKube(t, 1, more...)
			s := openKubeIn(t, k)
			fillKube(t, s, n)
			var expired int
			cluster := k.cluster(k.apis[0], s.namespace, k.admin)
			cluster.Client.Transport = countGone{cluster.Client.Transport, &expired}
			store := newKube(t, cluster)
			found := make(map[string]bool)
			for key, err := range store.Keys(t.Context()) {
				if err != nil {
					t.Fatal(err)
				}
				if found[key] = true; len(found) == 1 {
					if err := s.Save(t.Context(), "user-1", &fincodeauth.Record{Version: "v2"}, "v1"); err != nil {
						t.Fatal(err)
					}
					k.compact(t)
				}
			}
			if len(found) != n {
				t.Errorf("Keys yielded %d keys, want %d", len(found), n)
			}
			if name == "FromEtcd" && expired != 1 {
				t.Errorf("%d lists had expired, want one", expired)
			}
		})
	}
}

// countGone counts the answers 410.
type countGone struct {
	base  http.RoundTripper
	count *int
}

func (c countGone) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := c.base.RoundTrip(req)
	if err == nil && resp.StatusCode == http.StatusGone {
		*c.count++
	}
	return resp, err
}

// compact makes etcd forget all revisions but the last one.
func (k *kube) compact(t *testing.T) {
	t.Helper()
	var status struct{ Header struct{ Revision string } }
	ask := func(path string, body object) error {
		return k.doAt(t, "http://"+k.etcd.addr, http.MethodPost, path, jsonType, body, &status)
	}
	if err := ask("/v3/maintenance/status", object{}); err != nil {
		t.Fatal(err)
	}
	if err := ask("/v3/kv/compaction", object{"revision": status.Header.Revision, "physical": true}); err != nil {
		t.Fatal(err)
	}
}

func TestSecretThatDoesNotNameItsSessionIsReportedAndTheOthersAreListed(t *testing.T) {
	s := openKube(t)
	for _, key := range []string{"a", "b", "c/\x00d", "\xff"} {
		if err := s.Save(t.Context(), key, &fincodeauth.Record{Version: "v1"}, ""); err != nil {
			t.Fatal(err)
		}
	}
	wantKeys(t, s, "a", "b", "c/\x00d", "\xff")
	if err := s.patch(t, "a", object{"metadata": object{"annotations": nil}}); err != nil {
		t.Fatal(err)
	}
	found, errs := listed(t, s)
	if len(errs) != 1 || !strings.Contains(errs[0].Error(), "does not name its session") || len(found) != 3 || found["a"] {
		t.Errorf("Keys yielded %v and %v, want b and the odd keys, and an error that says what to do", found, errs)
	}
}

func TestStoresOfOneNamespaceListTheirOwnKeys(t *testing.T) {
	s := openKube(t)
	for _, prefix := range []string{"", "a", "a-", "ab"} {
		store := newKube(t, s.kube.cluster(s.kube.apis[0], s.namespace, s.kube.admin), kubestore.Prefix(prefix))
		if err := store.Save(t.Context(), "of "+prefix, &fincodeauth.Record{Version: "v1"}, ""); err != nil {
			t.Fatal(err)
		}
		wantKeys(t, store, "of "+prefix)
	}
}
