package kubestore_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/fincodeauth/fincodeauth/kubestore"
)

// A fake answers like an API server, to the requests of a Store. Package integration
// tests that an API server does.
type fake struct {
	mu      sync.Mutex
	secrets map[string]object // by name
	calls   []call
	page    int // Secrets in a page; 0: all

	// before answers a request itself, if it returns true. It is called with mu.
	before func(w http.ResponseWriter, r *http.Request) bool
}

// A call is a request that a fake got.
type call struct{ method, path, query, accept, contentType, body string }

// object is what the tests look at in a Secret.
type object struct {
	APIVersion string            `json:"apiVersion"`
	Kind       string            `json:"kind"`
	Type       string            `json:"type,omitempty"`
	Metadata   objectMeta        `json:"metadata"`
	Data       map[string][]byte `json:"data,omitempty"`
}

type objectMeta struct {
	Name        string            `json:"name"`
	Labels      map[string]string `json:"labels,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Finalizers  []string          `json:"finalizers,omitempty"`

	DeletionTimestamp string `json:"deletionTimestamp,omitempty"`
}

const (
	server = "http://127.0.0.1:8001"
	path   = "/api/v1/namespaces/bank/secrets"
)

// store returns a Store in f.
func (f *fake) store(t testing.TB, opts ...kubestore.Option) *kubestore.Store {
	t.Helper()
	store, err := kubestore.New(kubestore.Cluster{Server: server, Namespace: "bank", Client: f.client()}, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return store
}

// client returns a client that calls f without a network.
func (f *fake) client() *http.Client { return &http.Client{Transport: f} }

// RoundTrip implements http.RoundTripper.
func (f *fake) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, call{r.Method, r.URL.Path, r.URL.RawQuery, r.Header.Get("Accept"), r.Header.Get("Content-Type"), string(body)})
	w := httptest.NewRecorder()
	if f.before == nil || !f.before(w, r) {
		f.answer(w, r, body)
	}
	resp := w.Result()
	resp.Request = r
	return resp, nil
}

// answer does what a request asks for.
func (f *fake) answer(w http.ResponseWriter, r *http.Request, body []byte) {
	if f.secrets == nil {
		f.secrets = make(map[string]object)
	}
	name := strings.TrimPrefix(strings.TrimPrefix(r.URL.Path, path), "/")
	sec, found := f.secrets[name]
	switch {
	case !strings.HasPrefix(r.URL.Path, path):
		http.NotFound(w, r)
	case r.Method == http.MethodPost:
		f.create(w, body)
	case name == "":
		f.list(w, r)
	case !found:
		refuse(w, http.StatusNotFound, "NotFound", fmt.Sprintf("secrets %q not found", name), "secrets", name)
	case r.Method == http.MethodGet:
		write(w, http.StatusOK, sec)
	case r.Method == http.MethodPatch:
		f.patch(w, sec, body)
	default:
		delete(f.secrets, name)
		write(w, http.StatusOK, map[string]string{"kind": "Status", "status": "Success"})
	}
}

func (f *fake) create(w http.ResponseWriter, body []byte) {
	var sec object
	if err := json.Unmarshal(body, &sec); err != nil {
		refuse(w, http.StatusBadRequest, "BadRequest", err.Error(), "", "")
		return
	}
	name := sec.Metadata.Name
	if _, found := f.secrets[name]; found {
		refuse(w, http.StatusConflict, "AlreadyExists", fmt.Sprintf("secrets %q already exists", name), "secrets", name)
		return
	}
	f.secrets[name] = sec
	write(w, http.StatusCreated, metadataOnly(sec))
}

// patch knows the operations test and replace of values in data.
func (f *fake) patch(w http.ResponseWriter, sec object, body []byte) {
	var ops []struct {
		Op, Path string
		Value    []byte
	}
	if err := json.Unmarshal(body, &ops); err != nil {
		refuse(w, http.StatusBadRequest, "BadRequest", err.Error(), "", "")
		return
	}
	sec.Data = maps.Clone(sec.Data)
	for _, op := range ops {
		field := strings.TrimPrefix(op.Path, "/data/")
		was, found := sec.Data[field]
		if !found || op.Op == "test" && string(was) != string(op.Value) {
			refuse(w, http.StatusUnprocessableEntity, "", "testing value "+op.Path+" failed: test failed", "", "")
			return
		}
		sec.Data[field] = op.Value
	}
	f.secrets[sec.Metadata.Name] = sec
	write(w, http.StatusOK, metadataOnly(sec))
}

// list answers with the Secrets after the one that the query names.
func (f *fake) list(w http.ResponseWriter, r *http.Request) {
	after, next := r.URL.Query().Get("continue"), ""
	items := []object{}
	for _, name := range slices.Sorted(maps.Keys(f.secrets)) {
		sec := f.secrets[name]
		if name <= after || sec.Metadata.Labels["app.kubernetes.io/managed-by"] != "fincodeauth" {
			continue
		}
		if f.page > 0 && len(items) == f.page {
			next = items[len(items)-1].Metadata.Name
			break
		}
		items = append(items, metadataOnly(sec))
	}
	write(w, http.StatusOK, map[string]any{
		"kind": "PartialObjectMetadataList", "metadata": map[string]string{"continue": next}, "items": items,
	})
}

func metadataOnly(sec object) object {
	return object{APIVersion: "meta.k8s.io/v1", Kind: "PartialObjectMetadata", Metadata: sec.Metadata}
}

func write(w http.ResponseWriter, code int, answer any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(answer) // a recorder takes all
}

// refuse answers with a Status about an object of a kind.
func refuse(w http.ResponseWriter, code int, reason, message, kind, name string) {
	write(w, code, map[string]any{
		"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": message,
		"details": map[string]string{"kind": kind, "name": name},
	})
}

// always answers each request with the same.
func always(code int, body string) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, _ *http.Request) bool {
		w.WriteHeader(code)
		_, _ = io.WriteString(w, body)
		return true
	}
}

// methods returns the methods of the calls so far, and forgets the calls.
func (f *fake) methods() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []string
	for _, c := range f.calls {
		all = append(all, c.method)
	}
	f.calls = nil
	return strings.Join(all, " ")
}

// change changes the only Secret.
func (f *fake) change(t testing.TB, how func(*object)) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.secrets) != 1 {
		t.Fatalf("there are %d Secrets, want one", len(f.secrets))
	}
	for name, sec := range f.secrets {
		how(&sec)
		delete(f.secrets, name)
		f.secrets[cmp.Or(sec.Metadata.Name, name)] = sec
	}
}
