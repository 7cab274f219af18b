package integration

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"os"
	"slices"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/kubestore"
)

// folders are where objects of a kind are made. The manifest has a namespace of its own.
var folders = map[string]string{
	"Namespace":      "/api/v1/namespaces",
	"ServiceAccount": "/api/v1/namespaces/fincode/serviceaccounts",
	"Role":           "/apis/rbac.authorization.k8s.io/v1/namespaces/fincode/roles",
	"RoleBinding":    "/apis/rbac.authorization.k8s.io/v1/namespaces/fincode/rolebindings",
}

// applyManifest makes the objects of deploy/rbac.yaml.
func applyManifest(t *testing.T, k *kube) {
	t.Helper()
	text, err := os.ReadFile("../../kubestore/deploy/rbac.yaml")
	if err != nil {
		t.Fatal(err)
	}
	made := 0
	for documents := yaml.NewDecoder(bytes.NewReader(text)); ; made++ {
		var o object
		if err := documents.Decode(&o); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		kind, _ := o["kind"].(string)
		if folders[kind] == "" {
			t.Fatalf("the manifest has a %q", kind)
		}
		k.post(t, folders[kind], o)
	}
	if made != 6 {
		t.Errorf("the manifest has %d objects, want 6", made)
	}
}

// tokenOf makes a token of the service account, as the kubelet does for a pod.
func tokenOf(t *testing.T, k *kube) string {
	t.Helper()
	var answer struct{ Status struct{ Token string } }
	if err := k.do(t, http.MethodPost, folders["ServiceAccount"]+"/fincode/token", jsonType, object{"spec": object{}}, &answer); err != nil {
		t.Fatal(err)
	}
	return answer.Status.Token
}

// uses lists what a program does, each under the right that it needs.
func uses(t *testing.T, s *kubestore.Store) map[string]func() error {
	return map[string]func() error{
		"get":    func() error { _, err := s.Load(t.Context(), "alice"); return err },
		"create": func() error { return s.Save(t.Context(), unique("user-"), &fincodeauth.Record{Version: "v1"}, "") },
		"patch":  func() error { return s.Save(t.Context(), "alice", &fincodeauth.Record{Version: "v1"}, "v1") },
		"delete": func() error { return s.Delete(t.Context(), "nobody") },
		"list": func() error {
			for _, err := range s.Keys(t.Context()) {
				if err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func TestManifestGivesTheRightsThatAStoreNeedsAndNoMore(t *testing.T) {
	k := startKube(t, 1)
	applyManifest(t, k)
	s := newKube(t, k.cluster(k.apis[0], "fincode", tokenOf(t, k)))
	eventually(t, "the API server knows the rights", func() bool {
		err := s.Save(t.Context(), "alice", &fincodeauth.Record{Version: "v1"}, "")
		return err == nil || errors.Is(err, fincodeauth.ErrConflict)
	})
	all := uses(t, s)
	for verb, use := range all {
		eventually(t, "the right to "+verb+" is there", func() bool { return use() == nil })
	}
	elsewhere := newKube(t, k.cluster(k.apis[0], "default", tokenOf(t, k)))
	for verb, use := range uses(t, elsewhere) {
		wantError(t, verb+" in another namespace", use(), "the credentials lack a right: ")
	}
	for verb, use := range all {
		without(t, k, verb)
		var err error
		eventually(t, "the right to "+verb+" is gone", func() bool { err = use(); return err != nil })
		wantError(t, "without the right to "+verb, err, "the credentials lack a right: apply deploy/rbac.yaml of kubestore, and use its service account: the API server answers 403: Forbidden: ")
		wantError(t, "without the right to "+verb, err, `"system:serviceaccount:fincode:fincode" cannot `+verb+` resource "secrets" in API group "" in the namespace "fincode"`)
		for other, use := range all {
			if other != verb {
				eventually(t, "the right to "+other+" is there", func() bool { return use() == nil })
			}
		}
	}
}

// without takes one right away, and gives the others back.
func without(t *testing.T, k *kube, verb string) {
	t.Helper()
	for role, verbs := range map[string][]string{"fincode-sessions": {"get", "create", "patch", "delete"}, "fincode-keys": {"list"}} {
		verbs = slices.DeleteFunc(verbs, func(v string) bool { return v == verb })
		rules := []object{{"apiGroups": []string{""}, "resources": []string{"secrets"}, "verbs": verbs}}
		if len(verbs) == 0 {
			rules = []object{}
		}
		change := object{"rules": rules}
		if err := k.do(t, http.MethodPatch, folders["Role"]+"/"+role, "application/merge-patch+json", change, nil); err != nil {
			t.Fatal(err)
		}
	}
}
