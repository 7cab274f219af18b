package integration

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/oauth2"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/kubestore"
)

// saveFirst saves version v1 of alice.
func saveFirst(t testing.TB, s fincodeauth.Store) {
	t.Helper()
	if err := s.Save(t.Context(), "alice", &fincodeauth.Record{Version: "v1"}, ""); err != nil {
		t.Fatal(err)
	}
}

func TestKubernetesErrorsSayWhatToDo(t *testing.T) {
	k := sharedKube(t)
	at := func(s *server, namespace, token string) fincodeauth.Store {
		return newKube(t, k.cluster(s, namespace, token))
	}
	t.Run("WrongToken", func(t *testing.T) {
		wantErrors(t, at(k.apis[0], "default", "hunter2"), "the API server does not accept the credentials: have they expired, or are they of another cluster?: ")
	})
	t.Run("Refused", func(t *testing.T) {
		store := at(&server{addr: freeAddr(t)}, "default", k.admin)
		wantErrors(t, store, "connection refused")
		if _, err := store.Load(t.Context(), "alice"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("Load = %v, which does not wrap ECONNREFUSED", err)
		}
	})
	t.Run("WrongPath", func(t *testing.T) {
		cluster := k.cluster(k.apis[0], "default", k.admin)
		cluster.Server += "/k8s/clusters/c-1"
		wantErrors(t, newKube(t, cluster), "the API server answers 404: ")
	})
	t.Run("OtherServer", func(t *testing.T) {
		cluster := k.cluster(k.etcd, "default", k.admin)
		cluster.Server = "http://" + k.etcd.addr // etcd answers 404 as text
		wantErrors(t, newKube(t, cluster), "is Server its address, and is a proxy before it?")
	})
	t.Run("NoNamespace", func(t *testing.T) {
		store := at(k.apis[0], unique("missing-"), k.admin)
		wantError(t, "first Save", saveBob(t, store), "the namespace is missing: make it, with deploy/rbac.yaml of kubestore: ")
		// Without the namespace, there is no Secret in it either.
		if _, err := store.Load(t.Context(), "bob"); !errors.Is(err, fincodeauth.ErrNotFound) {
			t.Errorf("Load = %v, want ErrNotFound", err)
		}
	})
}

// saveBob saves version v1 of bob.
func saveBob(t *testing.T, s fincodeauth.Store) error {
	return s.Save(t.Context(), "bob", &fincodeauth.Record{Version: "v1"}, "")
}

func TestNamespaceThatIsBeingRemovedIsNamed(t *testing.T) {
	s := openKube(t)
	if err := s.kube.do(t, http.MethodDelete, "/api/v1/namespaces/"+s.namespace, jsonType, nil, nil); err != nil {
		t.Fatal(err)
	}
	var err error
	eventually(t, "the API server knows that the namespace is being removed", func() bool {
		err = saveBob(t, s)
		_ = s.Delete(t.Context(), "bob")
		return err != nil
	})
	wantError(t, "first Save", err, "the namespace is being removed: wait until it is gone, and make it again: ")
}

func TestQuotaOfANamespaceIsNamed(t *testing.T) {
	s := openKube(t)
	saveFirst(t, s)
	quotas := "/api/v1/namespaces/" + s.namespace + "/resourcequotas"
	s.kube.post(t, quotas, object{"metadata": object{"name": "few"}, "spec": object{"hard": object{"secrets": "1"}}})
	used := object{"status": object{"hard": object{"secrets": "1"}, "used": object{"secrets": "1"}}}
	if err := s.kube.do(t, http.MethodPatch, quotas+"/few/status", "application/merge-patch+json", used, nil); err != nil {
		t.Fatal(err)
	}
	var err error
	eventually(t, "the API server knows the quota", func() bool {
		err = saveBob(t, s)
		_ = s.Delete(t.Context(), "bob")
		return err != nil && strings.Contains(err.Error(), "exceeded quota")
	})
	wantError(t, "first Save", err, "a ResourceQuota of the namespace does not allow another Secret: raise it: ")
	if err := s.Save(t.Context(), "alice", &fincodeauth.Record{Version: "v2"}, "v1"); err != nil {
		t.Errorf("Save of a session that is there = %v, although it needs no new Secret", err)
	}
}

func TestKubernetesHoldsTheLargestRecordThatTheStoreSends(t *testing.T) {
	s := openKube(t)
	rec := &fincodeauth.Record{Version: "v1", Token: &oauth2.Token{AccessToken: strings.Repeat("a", 1<<20-100)}}
	if err := s.Save(t.Context(), "alice", rec, ""); err != nil {
		t.Fatal(err)
	}
	rec.Version = "v2"
	if err := s.Save(t.Context(), "alice", rec, "v1"); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Load(t.Context(), "alice"); err != nil || len(got.Token.AccessToken) != 1<<20-100 {
		t.Errorf("Load = %v, want the record", err)
	}
}

func TestSaveThatKubernetesRefusesIsNoConflict(t *testing.T) {
	s := openKube(t)
	saveFirst(t, s)
	if err := s.patch(t, "alice", object{"immutable": true}); err != nil {
		t.Fatal(err)
	}
	err := s.Save(t.Context(), "alice", &fincodeauth.Record{Version: "v2", Token: &oauth2.Token{AccessToken: "secret"}}, "v1")
	wantError(t, "Save", err, "the API server answers 422: Invalid: ")
	if strings.Contains(err.Error(), "secret\"") || !strings.Contains(err.Error(), "immutable") {
		t.Errorf("Save = %v, want the reason and no token", err)
	}
}

func TestDeleteSaysThatAFinalizerKeepsTheSecret(t *testing.T) {
	s := openKube(t)
	saveFirst(t, s)
	if err := s.patch(t, "alice", object{"metadata": object{"finalizers": []string{"example.com/backup"}}}); err != nil {
		t.Fatal(err)
	}
	wantError(t, "Delete", s.Delete(t.Context(), "alice"), "stays until its finalizers are gone: find out who has set them")
	err := s.Save(t.Context(), "alice", &fincodeauth.Record{Version: "v2"}, "v1") // it would go with the Secret
	wantError(t, "Save after Delete", err, `is being removed, and goes when its finalizers are gone: find out who has set ["example.com/backup"]`)
	if err := s.patch(t, "alice", object{"metadata": object{"finalizers": nil}}); err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(t.Context(), "alice"); err != nil {
		t.Errorf("Delete without finalizers = %v", err)
	}
}

func TestSecretOfAnotherProgramIsNamed(t *testing.T) {
	s := openKube(t)
	saveFirst(t, s)
	path := s.path(t, "alice")
	if err := s.Delete(t.Context(), "alice"); err != nil {
		t.Fatal(err)
	}
	name := path[strings.LastIndexByte(path, '/')+1:]
	s.kube.post(t, s.path(t, ""), object{"metadata": object{"name": name}, "data": object{"password": "aHVudGVyMg=="}})
	_, loadErr := s.Load(t.Context(), "alice")
	want := "another program uses this name, set another Prefix"
	wantError(t, "Load", loadErr, want)
	wantError(t, "first Save", s.Save(t.Context(), "alice", &fincodeauth.Record{Version: "v1"}, ""), want)
	wantError(t, "Save", s.Save(t.Context(), "alice", &fincodeauth.Record{Version: "v2"}, "v1"), want)
}

// both returns a Store by each of the two API servers, which have one etcd.
func both(t *testing.T) [2]*kubestore.Store {
	t.Helper()
	k := sharedKube(t)
	namespace := k.newNamespace(t)
	return [2]*kubestore.Store{
		newKube(t, k.cluster(k.apis[0], namespace, k.admin)),
		newKube(t, k.cluster(k.apis[1], namespace, k.admin)),
	}
}

// An API server has a cache of its own, which is behind after a write to another one.
func TestWriteIsReadAtOnceThroughAnotherAPIServer(t *testing.T) {
	s, prev := both(t), ""
	for i := range 200 {
		rec := &fincodeauth.Record{Version: fmt.Sprint("v", i)}
		if err := s[i%2].Save(t.Context(), "alice", rec, prev); err != nil {
			t.Fatalf("Save %d = %v", i, err)
		}
		got, err := s[(i+1)%2].Load(t.Context(), "alice")
		if err != nil || got.Version != rec.Version {
			t.Fatalf("Load through the other API server after Save %d = %v, %v", i, got, err)
		}
		prev = rec.Version
	}
	if err := s[0].Delete(t.Context(), "alice"); err != nil {
		t.Fatal(err)
	}
	if err := s[1].Save(t.Context(), "alice", &fincodeauth.Record{Version: "late"}, prev); !errors.Is(err, fincodeauth.ErrConflict) {
		t.Errorf("Save through the other API server after a Delete = %v, want ErrConflict", err)
	}
}

func TestOneSaveWinsThroughTwoAPIServers(t *testing.T) {
	s, prev := both(t), ""
	for round := range 30 {
		var won atomic.Value
		var wins atomic.Int64
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				rec := &fincodeauth.Record{Version: fmt.Sprintf("v%d-%d", round, i)}
				switch err := s[i%2].Save(t.Context(), "alice", rec, prev); {
				case err == nil:
					won.Store(rec.Version)
					wins.Add(1)
				case !errors.Is(err, fincodeauth.ErrConflict):
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if wins.Load() != 1 {
			t.Fatalf("round %d: %d of 20 Saves won, want one", round, wins.Load())
		}
		prev = won.Load().(string)
	}
	if got, err := s[0].Load(t.Context(), "alice"); err != nil || got.Version != prev {
		t.Errorf("Load = %v, %v; want the winner of the last round", got, err)
	}
}

func TestRotatedTokenIsKeptUntilTheAPIServerIsBack(t *testing.T) {
	k := startKube(t, 1)
	testKept(t, openKubeIn(t, k), "kubestore: save ",
		func(context.Context) error { k.apis[0].kill(); return nil },
		func(context.Context) error {
			k.apis[0].start(t)
			k.ready(t, k.apis[0])
			return nil
		})
}

// While etcd hangs, nobody knows what becomes of a Save. It is no conflict, and the same
// Save succeeds afterwards, whether the first one did or not.
func TestSaveWhileEtcdHangsHasAnUnknownOutcome(t *testing.T) {
	k := startKube(t, 1)
	s := openKubeIn(t, k)
	saveFirst(t, s)
	if err := k.etcd.pause(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	rec := &fincodeauth.Record{Version: "v2"}
	err := s.Save(ctx, "alice", rec, "v1")
	if err == nil || errors.Is(err, fincodeauth.ErrConflict) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Save = %v, want DeadlineExceeded", err)
	}
	if err := k.etcd.resume(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a Save succeeds", func() bool {
		err := s.Save(t.Context(), "alice", rec, "v1")
		if errors.Is(err, fincodeauth.ErrConflict) {
			t.Fatalf("Save of the same version = %v", err)
		}
		return err == nil
	})
	if got, err := s.Load(t.Context(), "alice"); err != nil || got.Version != "v2" {
		t.Errorf("Load = %v, %v; want v2", got, err)
	}
}
