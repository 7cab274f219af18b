package kubestore_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"golang.org/x/oauth2"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/kubestore"
	"github.com/fincodeauth/fincodeauth/storetest"
)

// The tests with a real API server are in package integration.

func TestStoreKeepsTheContract(t *testing.T) {
	storetest.Run(t, func(t *testing.T) fincodeauth.Store { return (&fake{page: 3}).store(t) })
}

const alice = "fincode-2bd806c97f0e00af1a1fc3328fa763a9269723c8db8fac4f93af71db186d6e90" // SHA-256 of alice

func TestEachCallIsOneRequest(t *testing.T) {
	f := new(fake)
	store := f.store(t)
	const metadata = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json"
	for _, step := range []struct {
		name string
		do   func() error
		want call
	}{
		{"first Save", func() error { return store.Save(t.Context(), "alice", &fincodeauth.Record{Version: "v1"}, "") }, call{
			"POST", path, "fieldManager=fincodeauth", metadata, "application/json",
			`{"apiVersion":"v1","kind":"Secret","metadata":{"name":"` + alice + `","labels":{"app.kubernetes.io/managed-by":"fincodeauth"},` +
				`"annotations":{"fincodeauth.github.io/session":"alice"}},"type":"fincodeauth.github.io/session","data":{"version":"djE=","record":"eyJ2ZXJzaW9uIjoidjEifQ=="}}`,
		}},
		{"Save", func() error { return store.Save(t.Context(), "alice", &fincodeauth.Record{Version: "v2"}, "v1") }, call{
			"PATCH", path + "/" + alice, "fieldManager=fincodeauth", metadata, "application/json-patch+json",
			`[{"op":"test","path":"/data/version","value":"djE="},{"op":"replace","path":"/data/version","value":"djI="},` +
				`{"op":"replace","path":"/data/record","value":"eyJ2ZXJzaW9uIjoidjIifQ=="}]`,
		}},
		{"Load", func() error { _, err := store.Load(t.Context(), "alice"); return err }, call{
			"GET", path + "/" + alice, "", "application/json", "", "",
		}},
		{"Keys", func() error { return firstError(store.Keys(t.Context())) }, call{
			"GET", path, "labelSelector=app.kubernetes.io%2Fmanaged-by%3Dfincodeauth&limit=500",
			"application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json", "", "",
		}},
		{"Delete", func() error { return store.Delete(t.Context(), "alice") }, call{
			"DELETE", path + "/" + alice, "", metadata, "", "",
		}},
	} {
		f.calls = nil
		if err := step.do(); err != nil {
			t.Fatalf("%s = %v", step.name, err)
		}
		if len(f.calls) != 1 || f.calls[0] != step.want {
			t.Errorf("%s sent %+v, want %+v", step.name, f.calls, step.want)
		}
	}
}

// Somebody between the Store and the API server may send a request twice. The answer that
// arrives is the second one.
func TestSaveThatIsSentTwiceSucceeds(t *testing.T) {
	f := new(fake)
	store := f.store(t)
	f.before = func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPost || r.Method == http.MethodPatch {
			f.answer(discard{}, r, []byte(f.calls[len(f.calls)-1].body))
		}
		return false
	}
	for prev, version := range map[string]string{"": "v1", "v1": "v2"} {
		f.secrets = nil
		if prev != "" {
			saveVersion(t, store, prev)
		}
		f.methods()
		if err := store.Save(t.Context(), "alice", &fincodeauth.Record{Version: version}, prev); err != nil {
			t.Errorf("Save of %s over %q = %v", version, prev, err)
		}
		if got := f.methods(); !strings.HasSuffix(got, " GET") {
			t.Errorf("Save of %s sent %s, want one GET after it was refused", version, got)
		}
	}
}

// discard is an http.ResponseWriter whose answer nobody gets.
type discard struct{}

func (discard) Header() http.Header            { return http.Header{} }
func (discard) Write(text []byte) (int, error) { return len(text), nil }
func (discard) WriteHeader(int)                {}

// saveVersion saves the first record of alice.
func saveVersion(t testing.TB, store *kubestore.Store, version string) {
	t.Helper()
	if err := store.Save(t.Context(), "alice", &fincodeauth.Record{Version: version}, ""); err != nil {
		t.Fatal(err)
	}
}

// The API server refuses a Save with 409 or 422 for other reasons, too.
func TestRefusalThatIsNoConflictIsReturned(t *testing.T) {
	for name, tc := range map[string]struct {
		code         int
		reason       string
		kind         string
		there, prev  string // "": none
		wantConflict bool
	}{
		"immutable Secret":            {422, "Invalid", "Secret", "v1", "v1", false},
		"quota that changes":          {409, "Conflict", "resourcequotas", "", "", false},
		"admission of the first Save": {422, "Invalid", "Secret", "", "", false},
		"Conflict, and no change":     {409, "Conflict", "secrets", "v1", "v1", false},
		"Conflict, and a change":      {409, "Conflict", "secrets", "v3", "v1", true},
		"Conflict, and a Delete":      {409, "Conflict", "secrets", "", "v1", true},
		"made and deleted meanwhile":  {409, "AlreadyExists", "secrets", "", "", true},
		"made meanwhile":              {409, "AlreadyExists", "secrets", "v3", "", true},
	} {
		t.Run(name, func(t *testing.T) {
			f := new(fake)
			store := f.store(t)
			if tc.there != "" {
				saveVersion(t, store, tc.there)
			}
			f.before = func(w http.ResponseWriter, r *http.Request) bool {
				if r.Method == http.MethodGet {
					return false
				}
				refuse(w, tc.code, tc.reason, "no", tc.kind, alice)
				return true
			}
			err := store.Save(t.Context(), "alice", &fincodeauth.Record{Version: "v2"}, tc.prev)
			status, _ := errors.AsType[*kubestore.StatusError](err)
			if errors.Is(err, fincodeauth.ErrConflict) != tc.wantConflict || (status != nil) == tc.wantConflict {
				t.Errorf("Save = %v, want ErrConflict: %t", err, tc.wantConflict)
			}
		})
	}
}

func TestADamagedRecordIsNamed(t *testing.T) {
	want := `kubestore: load "alice": its record is damaged: restore it, or call Sessions.Forget, then log in again`
	for name, data := range map[string]map[string][]byte{
		"half":            {"version": []byte("v1"), "record": []byte(`{"version":"v1","token": secret`)},
		"no record":       {"version": []byte("v1")},
		"no version":      {"record": []byte(`{"version":"v1"}`)},
		"another version": {"version": []byte("v2"), "record": []byte(`{"version":"v1"}`)},
		"nothing":         nil,
	} {
		t.Run(name, func(t *testing.T) {
			f := new(fake)
			store := f.store(t)
			saveVersion(t, store, "v1")
			f.change(t, func(sec *object) { sec.Data = data })
			if _, err := store.Load(t.Context(), "alice"); err == nil || err.Error() != want {
				t.Errorf("Load = %v, want %s", err, want)
			}
			if err := store.Delete(t.Context(), "alice"); err != nil {
				t.Errorf("Delete = %v", err)
			}
			if _, err := store.Load(t.Context(), "alice"); !errors.Is(err, fincodeauth.ErrNotFound) {
				t.Errorf("Load after Delete = %v, want ErrNotFound", err)
			}
		})
	}
}

func TestSecretOfAnotherProgramIsNamed(t *testing.T) {
	f := new(fake)
	store := f.store(t)
	saveVersion(t, store, "v1")
	f.change(t, func(sec *object) { sec.Type, sec.Data = "Opaque", map[string][]byte{"password": []byte("hunter2")} })
	_, loadErr := store.Load(t.Context(), "alice")
	for call, err := range map[string]error{
		"Load":       loadErr,
		"first Save": store.Save(t.Context(), "alice", &fincodeauth.Record{Version: "v2"}, ""),
		"Save":       store.Save(t.Context(), "alice", &fincodeauth.Record{Version: "v2"}, "v1"),
	} {
		want := `Secret ` + alice + ` is of type "Opaque" and not "fincodeauth.github.io/session": another program uses this name, set another Prefix`
		if err == nil || !strings.HasSuffix(err.Error(), want) || errors.Is(err, fincodeauth.ErrConflict) {
			t.Errorf("%s = %v, want %q", call, err, want)
		}
	}
}

// A Secret with finalizers can be changed while it is being removed, and then it goes.
func TestNothingIsKeptInASecretThatIsBeingRemoved(t *testing.T) {
	f := new(fake)
	store := f.store(t)
	saveVersion(t, store, "v1")
	f.change(t, func(sec *object) {
		sec.Metadata.DeletionTimestamp, sec.Metadata.Finalizers = "2026-01-02T03:04:05Z", []string{"foregroundDeletion"}
	})
	_, loadErr := store.Load(t.Context(), "alice")
	for call, err := range map[string]error{
		"Load":       loadErr,
		"first Save": store.Save(t.Context(), "alice", &fincodeauth.Record{Version: "v2"}, ""),
		"Save":       store.Save(t.Context(), "alice", &fincodeauth.Record{Version: "v2"}, "v1"),
	} {
		want := `Secret ` + alice + ` is being removed, and goes when its finalizers are gone: find out who has set ["foregroundDeletion"]`
		if err == nil || !strings.HasSuffix(err.Error(), want) || errors.Is(err, fincodeauth.ErrConflict) || errors.Is(err, fincodeauth.ErrNotFound) {
			t.Errorf("%s = %v, want %q", call, err, want)
		}
	}
}

func TestRecordThatIsTooLargeIsNotSent(t *testing.T) {
	f := new(fake)
	rec := &fincodeauth.Record{Version: "v1", Token: &oauth2.Token{AccessToken: strings.Repeat("a", 1<<20)}}
	err := f.store(t).Save(t.Context(), "alice", rec, "")
	if want := "a Secret holds at most 1048576: use another store"; err == nil || !strings.HasSuffix(err.Error(), want) || len(f.calls) != 0 {
		t.Errorf("Save = %v after %d requests, want %q after none", err, len(f.calls), want)
	}
}

func TestDeleteOfASecretThatStaysIsAnError(t *testing.T) {
	f := new(fake)
	store := f.store(t)
	saveVersion(t, store, "v1")
	f.before = func(w http.ResponseWriter, _ *http.Request) bool {
		sec := metadataOnly(f.secrets[alice])
		sec.Metadata.Finalizers = []string{"example.com/backup"}
		write(w, http.StatusOK, sec)
		return true
	}
	want := "Secret " + alice + " stays until its finalizers are gone"
	if err := store.Delete(t.Context(), "alice"); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("Delete = %v, want %q", err, want)
	}
}

func TestPrintingAStoreShowsNoSecret(t *testing.T) {
	store, err := kubestore.New(kubestore.Cluster{Server: "https://hunter2.example.com", Namespace: "bank", Client: &http.Client{
		Transport: &oauth2.Transport{Source: oauth2.StaticTokenSource(&oauth2.Token{AccessToken: "hunter2"})},
	}})
	if err != nil {
		t.Fatal(err)
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x"} {
		if got := fmt.Sprintf(verb, store); got != "kubestore(bank/fincode-)" {
			t.Errorf("%s prints %s", verb, got)
		}
	}
}

func TestStoreThatNewDidNotMakeReturnsErrors(t *testing.T) {
	for name, s := range map[string]*kubestore.Store{"nil": nil, "zero": {}} {
		_, loadErr := s.Load(t.Context(), "alice")
		for call, err := range map[string]error{
			"Load":   loadErr,
			"Save":   s.Save(t.Context(), "alice", &fincodeauth.Record{Version: "v1"}, ""),
			"Delete": s.Delete(t.Context(), "alice"),
			"Keys":   firstError(s.Keys(t.Context())),
		} {
			if want := "the Store was not made by kubestore.New: call that"; err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s of a %s Store = %v, want %q", call, name, err, want)
			}
		}
		if got := fmt.Sprint(s, s.String()); strings.Contains(got, "PANIC") {
			t.Errorf("a %s Store prints %s", name, got)
		}
	}
}

func TestEndedContextIsTheError(t *testing.T) {
	store := new(fake).store(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("a cause"))
	_, loadErr := store.Load(ctx, "alice")
	for call, err := range map[string]error{
		"Load":   loadErr,
		"Save":   store.Save(ctx, "alice", &fincodeauth.Record{Version: "v1"}, "v0"),
		"Delete": store.Delete(ctx, "alice"),
		"Keys":   firstError(store.Keys(ctx)),
	} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s = %v, want context.Canceled", call, err)
		}
	}
}
