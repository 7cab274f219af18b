package kubestore_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/kubestore"
)

// wantErrors expects the text in the error of each method, and an error that is neither
// ErrConflict nor ErrNotFound.
func wantErrors(t *testing.T, store *kubestore.Store, text string) {
	t.Helper()
	_, loadErr := store.Load(t.Context(), "alice")
	for call, err := range map[string]error{
		"Load":       loadErr,
		"first Save": store.Save(t.Context(), "alice", &fincodeauth.Record{Version: "v1"}, ""),
		"Save":       store.Save(t.Context(), "alice", &fincodeauth.Record{Version: "v2"}, "v1"),
		"Delete":     store.Delete(t.Context(), "alice"),
		"Keys":       firstError(store.Keys(t.Context())),
	} {
		if err == nil || !strings.Contains(err.Error(), text) || !strings.HasPrefix(err.Error(), "kubestore: ") {
			t.Errorf("%s = %v, want %q", call, err, text)
		}
		if errors.Is(err, fincodeauth.ErrConflict) || errors.Is(err, fincodeauth.ErrNotFound) {
			t.Errorf("%s = %v, which must not wrap ErrConflict or ErrNotFound", call, err)
		}
	}
}

const (
	notKubernetes = "this is not what an API server of Kubernetes answers: is Server its address, and is a proxy before it?"
	notReady      = "the API server or its etcd is not ready, and may have done it or not: it is safe to try again: the API server answers "
)

func TestErrorsSayWhatToDo(t *testing.T) {
	for name, tc := range map[string]struct {
		code int
		body string
		want string
	}{
		"Unauthorized":     {401, status("Unauthorized", "Unauthorized", ``), "the API server does not accept the credentials: have they expired, or are they of another cluster?: the API server answers 401: Unauthorized: Unauthorized"},
		"NoRight":          {403, status("Forbidden", `secrets \"x\" is forbidden: User \"bob\" cannot patch resource \"secrets\" in API group \"\" in the namespace \"bank\"`, ``), `the credentials lack a right: apply deploy/rbac.yaml of kubestore, and use its service account: the API server answers 403: Forbidden: secrets "x" is forbidden: User "bob" cannot patch resource "secrets" in API group "" in the namespace "bank"`},
		"Quota":            {403, status("Forbidden", `secrets \"x\" is forbidden: exceeded quota: few, requested: secrets=1, used: secrets=9, limited: secrets=9`, ``), "a ResourceQuota of the namespace does not allow another Secret: raise it: "},
		"Terminating":      {403, status("Forbidden", "unable to create new content", `"causes":[{"reason":"NamespaceTerminating"}]`), "the namespace is being removed: wait until it is gone, and make it again: "},
		"Admission":        {403, status("Forbidden", `admission webhook \"w\" denied the request: no`, ``), `kubestore: `},
		"NoNamespace":      {404, status("NotFound", `namespaces \"bank\" not found`, `"kind":"namespaces","name":"bank"`), "the namespace is missing: make it, with deploy/rbac.yaml of kubestore: "},
		"OtherSecret":      {404, status("NotFound", "no", `"kind":"secrets","name":"other"`), "the API server does not know the path: is the path of Server right?: "},
		"UnknownPath":      {404, status("NotFound", "the server could not find the requested resource", ``), "the API server does not know the path: is the path of Server right?: "},
		"NotFoundByProxy":  {404, "<html>secret</html>", "the API server answers 404: " + notKubernetes},
		"JSONOfOthers":     {404, `{"error":"secret"}`, notKubernetes},
		"NoJSON":           {200, "<html>secret</html>", notKubernetes},
		"NoObject":         {200, `{}`, notKubernetes},
		"OtherObject":      {200, `{"kind":"Secret","metadata":{"name":"other"}}`, notKubernetes},
		"Null":             {200, `null`, notKubernetes},
		"Huge":             {200, strings.Repeat("secret", 3<<20), "the answer has more than 16777216 bytes: " + notKubernetes},
		"TooLarge":         {413, status("RequestEntityTooLarge", "limit is 3145728", ``), "the record is too large for etcd or for the API server: use another store: "},
		"TooLargeForEtcd":  {500, status("", "etcdserver: request is too large", ``), "the record is too large for etcd or for the API server: use another store: "},
		"NoLeader":         {500, status("InternalError", "etcdserver: no leader", ``), notReady + "500: InternalError: etcdserver: no leader"},
		"Unavailable":      {503, "<html>secret</html>", notReady + "503"},
		"Timeout":          {504, status("Timeout", "Timeout: request did not complete within requested timeout", ``), notReady + "504: Timeout: Timeout: "},
		"Busy":             {429, status("TooManyRequests", "slow down", ``), "the API server is too busy: send fewer requests, or see API Priority and Fairness: "},
		"Redirect":         {307, "", "the API server answers 307: it is a redirect, which is not followed, because the credentials would go there: set Server to the address of the API server itself"},
		"ControlCharacter": {400, status("BadRequest", `a\u001b[31m\nb`, ``), "400: BadRequest: a [31m b"},
	} {
		t.Run(name, func(t *testing.T) {
			f := new(fake)
			f.before = func(w http.ResponseWriter, r *http.Request) bool {
				w.Header().Set("Location", "https://elsewhere.example/secret")
				return always(tc.code, tc.body)(w, r)
			}
			store := f.store(t)
			wantErrors(t, store, tc.want)
			_, err := store.Load(t.Context(), "alice")
			if strings.Contains(err.Error(), "html") || strings.Contains(err.Error(), "elsewhere") {
				t.Errorf("Load = %v, which quotes the answer", err)
			}
			if got, ok := errors.AsType[*kubestore.StatusError](err); tc.code != 200 && (!ok || got.Code != tc.code) {
				t.Errorf("Load = %v, which wraps no StatusError of %d", err, tc.code)
			}
		})
	}
}

// status returns a Status in JSON.
func status(reason, message, details string) string {
	return fmt.Sprintf(`{"kind":"Status","reason":%q,"message":"%s","details":{%s}}`, reason, message, details)
}

func TestConnectionErrorsAreWrapped(t *testing.T) {
	store, err := kubestore.New(kubestore.Cluster{Server: server, Namespace: "bank", Client: &http.Client{Transport: broken{}}})
	if err != nil {
		t.Fatal(err)
	}
	wantErrors(t, store, errBroken.Error())
	if _, err := store.Load(t.Context(), "alice"); !errors.Is(err, errBroken) {
		t.Errorf("Load = %v, which does not wrap the error of the client", err)
	}
}

var errBroken = errors.New("the connection is broken")

type broken struct{}

func (broken) RoundTrip(*http.Request) (*http.Response, error) { return nil, errBroken }

// The connection may break under a request. Only a GET may be sent again.
func TestOnlyReadsAreRepeatedWhenTheConnectionBreaks(t *testing.T) {
	for name, tc := range map[string]struct {
		do    func(*kubestore.Store) error
		tries int
	}{
		"Load": {func(s *kubestore.Store) error { _, err := s.Load(t.Context(), "alice"); return err }, 4},
		"Keys": {func(s *kubestore.Store) error { return firstError(s.Keys(t.Context())) }, 4},
		"Save": {func(s *kubestore.Store) error {
			return s.Save(t.Context(), "alice", &fincodeauth.Record{Version: "v2"}, "v1")
		}, 1},
		"first Save": {func(s *kubestore.Store) error {
			return s.Save(t.Context(), "alice", &fincodeauth.Record{Version: "v2"}, "")
		}, 1},
		"Delete": {func(s *kubestore.Store) error { return s.Delete(t.Context(), "alice") }, 1},
	} {
		t.Run(name, func(t *testing.T) {
			breaks := &breaksFor{left: 100}
			store, err := kubestore.New(kubestore.Cluster{Server: server, Namespace: "bank", Client: &http.Client{Transport: breaks}})
			if err != nil {
				t.Fatal(err)
			}
			if err := tc.do(store); !errors.Is(err, errBroken) || breaks.tries != tc.tries {
				t.Errorf("%v after %d tries, want the broken connection after %d", err, breaks.tries, tc.tries)
			}
		})
	}
}

func TestLoadSucceedsOnANewConnection(t *testing.T) {
	breaks := new(breaksFor)
	store, err := kubestore.New(kubestore.Cluster{Server: server, Namespace: "bank", Client: &http.Client{Transport: breaks}})
	if err != nil {
		t.Fatal(err)
	}
	saveVersion(t, store, "v1")
	breaks.left = 3
	if rec, err := store.Load(t.Context(), "alice"); err != nil || rec.Version != "v1" {
		t.Errorf("Load = %v, %v; want v1", rec, err)
	}
}

// breaksFor is a fake whose connection breaks for some requests.
type breaksFor struct {
	fake
	left, tries int
}

func (b *breaksFor) RoundTrip(r *http.Request) (*http.Response, error) {
	b.tries++
	if b.left--; b.left >= 0 {
		return nil, errBroken
	}
	return b.fake.RoundTrip(r)
}

// With an answer that breaks off, nobody knows whether the Secret was written.
func TestAnswerThatBreaksOffIsAnError(t *testing.T) {
	store, err := kubestore.New(kubestore.Cluster{Server: server, Namespace: "bank", Client: &http.Client{Transport: half{}}})
	if err != nil {
		t.Fatal(err)
	}
	wantErrors(t, store, "the answer has no end: unexpected EOF")
}

type half struct{}

func (half) RoundTrip(r *http.Request) (*http.Response, error) {
	body := io.MultiReader(strings.NewReader(`{"kind":`), brokenReader{})
	return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(body), Request: r}, nil
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// When a patch makes an object that is invalid, the API server quotes the object
// (jsonPatcher in k8s.io/apiserver/pkg/endpoints/handlers/patch.go). Webhooks may quote it
// anywhere.
func TestMessagesNeverQuoteARecord(t *testing.T) {
	record := base64.StdEncoding.EncodeToString([]byte(`{"version":"v1","token":{"access_token":"` + strings.Repeat("abc.", 20) + `"}}`))
	for _, message := range []string{
		`Secret \"x\" is invalid: patch: Invalid value: \"{\\\"data\\\":{\\\"record\\\":\\\"` + record + `\\\"}}\": no`,
		`admission webhook \"w\" denied ` + record,
		`admission webhook \"w\" denied Invalid value: hunter2`,
	} {
		f := new(fake)
		store := f.store(t)
		saveVersion(t, store, "v1")
		f.before = func(w http.ResponseWriter, r *http.Request) bool {
			return r.Method == http.MethodPatch && always(422, status("Invalid", message, ""))(w, r)
		}
		err := store.Save(t.Context(), "alice", &fincodeauth.Record{Version: "v2"}, "v1")
		if err == nil || !strings.Contains(err.Error(), "the API server answers 422: Invalid: ") {
			t.Errorf("Save = %v, want the 422", err)
		}
		if strings.Contains(fmt.Sprintf("%v %+v %#v", err, err, errors.Unwrap(err)), record[:20]) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("Save = %v, which quotes the record", err)
		}
	}
}

func TestLongMessageIsCut(t *testing.T) {
	f := &fake{before: always(400, status("BadRequest", strings.Repeat("é ", 1000), ""))}
	_, err := f.store(t).Load(t.Context(), "alice")
	if err == nil || len(err.Error()) > 500 || !strings.HasSuffix(err.Error(), "é ...") {
		t.Errorf("Load = %v, want a short error", err)
	}
}

// busy answers 429 for some requests, with a Retry-After unless that is "".
func busy(f *fake, times int, retryAfter string) {
	f.before = func(w http.ResponseWriter, _ *http.Request) bool {
		if times--; times < 0 {
			return false
		}
		if retryAfter != "" {
			w.Header().Set("Retry-After", retryAfter)
		}
		refuse(w, http.StatusTooManyRequests, "TooManyRequests", "slow down", "", "")
		return true
	}
}

func TestBusyServerIsAskedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := new(fake)
		busy(f, 9, "2")
		began := time.Now()
		saveVersion(t, f.store(t), "v1")
		if took := time.Since(began); took != 18*time.Second || len(f.calls) != 10 || f.calls[9].body != f.calls[0].body {
			t.Errorf("Save took %v and %d requests, want ten that are the same in 18s", took, len(f.calls))
		}
	})
}

func TestBusyServerIsNotAskedForEver(t *testing.T) {
	for name, tc := range map[string]struct {
		retryAfter string
		requests   int
	}{
		"ten times":         {"1", 10},
		"without a time":    {"", 1},
		"time is a date":    {"Fri, 27 Nov 2026 08:00:00 GMT", 1},
		"time is long":      {"31", 1},
		"time is negative":  {"-1", 1},
		"time is too large": {"99999999999999999999", 1},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := new(fake)
			busy(f, 100, tc.retryAfter)
			_, err := f.store(t).Load(t.Context(), "alice")
			if got, ok := errors.AsType[*kubestore.StatusError](err); !ok || got.Code != 429 || len(f.calls) != tc.requests {
				t.Errorf("%s: Load = %v after %d requests, want the 429 after %d", name, err, len(f.calls), tc.requests)
			}
		})
	}
}

func TestWaitForABusyServerEndsWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := new(fake)
		busy(f, 100, "10")
		ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
		defer cancel()
		began := time.Now()
		_, err := f.store(t).Load(ctx, "alice")
		if took := time.Since(began); !errors.Is(err, context.DeadlineExceeded) || took != 15*time.Second {
			t.Errorf("Load = %v after %v, want DeadlineExceeded after 15s", err, took)
		}
	})
}

// Only 429 means that nothing was done.
func TestNothingElseIsRepeated(t *testing.T) {
	for _, code := range []int{500, 502, 503, 504} {
		f := new(fake)
		f.before = func(w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Retry-After", "1")
			refuse(w, code, "", "later", "", "")
			return true
		}
		if err := f.store(t).Save(t.Context(), "alice", &fincodeauth.Record{Version: "v2"}, "v1"); err == nil || len(f.calls) != 1 {
			t.Errorf("%d: Save = %v after %d requests, want an error after one", code, err, len(f.calls))
		}
	}
}
