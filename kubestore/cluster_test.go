package kubestore_test

import (
	"encoding/pem"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/kubestore"
)

func TestNewSaysWhatIsWrong(t *testing.T) {
	none := func(*kubestore.Store) {}
	for name, tc := range map[string]struct {
		server, namespace string
		client            *http.Client
		opt               kubestore.Option
		want              string
	}{
		"NoServer":      {"", "bank", http.DefaultClient, none, `the Server is "": use a URL such as https://10.96.0.1:443`},
		"NoScheme":      {"10.96.0.1", "bank", http.DefaultClient, none, `the Server is "10.96.0.1": use a URL such as https://10.96.0.1:443`},
		"HostAndPort":   {"localhost:443", "bank", http.DefaultClient, none, `use a URL such as https://10.96.0.1:443`},
		"OtherScheme":   {"ftp://host", "bank", http.DefaultClient, none, `use a URL such as https://10.96.0.1:443`},
		"NoURL":         {"https://hunter2 @:", "bank", http.DefaultClient, none, `the Server is not a URL: use one such as https://10.96.0.1:443`},
		"Password":      {"https://u:hunter2@host", "bank", http.DefaultClient, none, "the Server has a user, a query or a fragment: remove it, because Client adds the credentials"},
		"NoSlashes":     {"u:hunter2@host:6443", "bank", http.DefaultClient, none, "the Server has a user, a query or a fragment: remove it"},
		"OneSlash":      {"https:/u:hunter2@host", "bank", http.DefaultClient, none, "the Server has a user, a query or a fragment: remove it"},
		"Query":         {"https://host/?a=b", "bank", http.DefaultClient, none, "the Server has a user, a query or a fragment: remove it"},
		"HTTP":          {"http://10.96.0.1", "bank", http.DefaultClient, none, `the Server is "http://10.96.0.1", and others could read the tokens on the way: use https`},
		"NoNamespace":   {"https://host", "", http.DefaultClient, none, `the Namespace is "": use the name of a namespace`},
		"Namespace":     {"https://host", "../kube-system", http.DefaultClient, none, `the Namespace is "../kube-system": use the name of a namespace, with letters from a to z, digits and -`},
		"LongNamespace": {"https://host", strings.Repeat("a", 64), http.DefaultClient, none, "use the name of a namespace"},
		"NoClient":      {"https://host", "bank", nil, none, "the Client is nil, so there are no credentials: use InCluster, or rest.HTTPClientFor of client-go"},
		"NilOption":     {"https://host", "bank", http.DefaultClient, nil, "option 1 is nil: leave it out"},
		"CapitalPrefix": {"https://host", "bank", http.DefaultClient, kubestore.Prefix("Fincode-"), `Prefix is "Fincode-", and the names of Secrets cannot begin with that: begin with a letter from a to z, and go on with letters, digits and -, at most 189 of them`},
		"SlashPrefix":   {"https://host", "bank", http.DefaultClient, kubestore.Prefix("../"), "the names of Secrets cannot begin with that"},
		"DashPrefix":    {"https://host", "bank", http.DefaultClient, kubestore.Prefix("-a"), "the names of Secrets cannot begin with that"},
		"DotsPrefix":    {"https://host", "bank", http.DefaultClient, kubestore.Prefix("a..b"), "the names of Secrets cannot begin with that"},
		"LinePrefix":    {"https://host", "bank", http.DefaultClient, kubestore.Prefix("a\n"), "the names of Secrets cannot begin with that"},
		"LongPrefix":    {"https://host", "bank", http.DefaultClient, kubestore.Prefix(strings.Repeat("a", 190)), "at most 189 of them"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := kubestore.New(kubestore.Cluster{Server: tc.server, Namespace: tc.namespace, Client: tc.client}, tc.opt)
			if err == nil || !strings.HasPrefix(err.Error(), "kubestore: ") || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("New = %v, want %q", err, tc.want)
			}
		})
	}
}

func TestNewAcceptsWhatKubernetesDoes(t *testing.T) {
	for _, at := range []string{"https://10.96.0.1:443", "https://[fd00::1]:6443/", "https://host/k8s/clusters/c-1", "http://localhost:8001", "http://127.0.0.1:8001", "http://[::1]:8001"} {
		for _, prefix := range []string{"", "a", "fincode-", "a.b.", "0-", strings.Repeat("a", 189)} {
			cluster := kubestore.Cluster{Server: at, Namespace: "bank-1", Client: http.DefaultClient}
			if strings.HasPrefix(at, "http:") {
				cluster.Client = nil // kubectl proxy adds the credentials
			}
			if _, err := kubestore.New(cluster, kubestore.Prefix(prefix)); err != nil {
				t.Errorf("New with %q and %q = %v", at, prefix, err)
			}
		}
	}
}

func TestServerMayHaveAPath(t *testing.T) {
	for _, at := range []string{"http://localhost/k8s/clusters/c-1", "http://localhost/k8s/clusters/c-1/"} {
		f := new(fake)
		store, err := kubestore.New(kubestore.Cluster{Server: at, Namespace: "bank", Client: f.client()})
		if err != nil {
			t.Fatal(err)
		}
		if err := store.Delete(t.Context(), "alice"); err == nil {
			t.Error("Delete reached a server without that path")
		}
		if got, want := f.calls[0].path, "/k8s/clusters/c-1"+path+"/"+alice; got != want {
			t.Errorf("Delete went to %s, want %s", got, want)
		}
	}
}

// Whoever gets a redirected request would get the credentials that the client adds.
func TestRedirectsAreNotFollowedWhateverTheClientSays(t *testing.T) {
	f := new(fake)
	f.before = func(w http.ResponseWriter, r *http.Request) bool {
		http.Redirect(w, r, "https://elsewhere.example", http.StatusTemporaryRedirect)
		return true
	}
	client := f.client()
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return nil }
	store, err := kubestore.New(kubestore.Cluster{Server: server, Namespace: "bank", Client: client})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.Load(t.Context(), "alice"); err == nil || len(f.calls) != 1 {
		t.Errorf("Load = %v after %d requests, want an error after one", err, len(f.calls))
	}
	if client.CheckRedirect(nil, nil) != nil {
		t.Error("New changed the client")
	}
}

// A pod is the environment and the folder that a process in a pod has.
type pod struct {
	env    map[string]string
	folder string
}

// newPod returns a pod of the API server at addr.
func newPod(t *testing.T, addr, ca string) pod {
	t.Helper()
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	p := pod{map[string]string{"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}, t.TempDir()}
	p.write(t, "namespace", "bank")
	p.write(t, "token", "token-1\n")
	p.write(t, "ca.crt", ca)
	return p
}

func (p pod) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(p.folder, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (p pod) cluster() (kubestore.Cluster, error) {
	return kubestore.InClusterFrom(func(name string) string { return p.env[name] }, p.folder)
}

// startTLS starts a server that keeps the Authorization of each request, and answers each
// with 404.
func startTLS(t *testing.T) (addr, ca string, seen func() []string) {
	t.Helper()
	var mu sync.Mutex
	var all []string
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		all = append(all, r.Header.Get("Authorization"))
		refuse(w, http.StatusNotFound, "NotFound", "", "secrets", alice)
	}))
	t.Cleanup(s.Close)
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	return s.Listener.Addr().String(), string(block), func() []string {
		mu.Lock()
		defer mu.Unlock()
		return all
	}
}

// The kubelet replaces the token of a pod before it expires.
func TestPodReadsItsTokenAgain(t *testing.T) {
	addr, ca, seen := startTLS(t)
	p := newPod(t, addr, ca)
	cluster, err := p.cluster()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Client.CloseIdleConnections)
	store, err := kubestore.New(cluster)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := store.Delete(t.Context(), "alice"); err != nil {
			t.Fatal(err)
		}
		p.write(t, "token", "token-2")
	}
	if got := strings.Join(seen(), ", "); got != "Bearer token-1, Bearer token-2" {
		t.Errorf("the server got %s, want the token in the file at that time", got)
	}
	p.write(t, "token", "")
	err = store.Save(t.Context(), "alice", &fincodeauth.Record{Version: "v1"}, "")
	if want := "token is empty: start the pod again"; err == nil || !strings.HasSuffix(err.Error(), want) {
		t.Errorf("Save = %v, want %q", err, want)
	}
}

func TestPodSendsItsTokenOnlyToTheAPIServer(t *testing.T) {
	addr, ca, seen := startTLS(t)
	cluster, err := newPod(t, addr, ca).cluster()
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []string{"https://elsewhere.example", "http://" + addr, strings.Replace("https://"+addr, "127.0.0.1", "localhost", 1)} {
		resp, err := cluster.Client.Post(at, "text/plain", io.NopCloser(strings.NewReader("body")))
		if err == nil {
			resp.Body.Close()
			t.Errorf("the client of the pod sent its token to %s", at)
		}
	}
	if len(seen()) > 0 {
		t.Error("the server got a request")
	}
}

func TestInClusterSaysWhatIsWrong(t *testing.T) {
	addr, ca, _ := startTLS(t)
	for name, tc := range map[string]struct {
		change func(p pod)
		want   string
	}{
		"NoHost":         {func(p pod) { delete(p.env, "KUBERNETES_SERVICE_HOST") }, "this process is not in a pod, because KUBERNETES_SERVICE_HOST or KUBERNETES_SERVICE_PORT is missing: fill in a Cluster"},
		"NoPort":         {func(p pod) { delete(p.env, "KUBERNETES_SERVICE_PORT") }, "this process is not in a pod"},
		"NoToken":        {func(p pod) { _ = os.Remove(filepath.Join(p.folder, "token")) }, "the pod has no service account: set its automountServiceAccountToken: "},
		"NoNamespace":    {func(p pod) { _ = os.Remove(filepath.Join(p.folder, "namespace")) }, "the pod has no service account: "},
		"NoCA":           {func(p pod) { _ = os.Remove(filepath.Join(p.folder, "ca.crt")) }, "the pod has no service account: "},
		"EmptyToken":     {func(p pod) { p.write(t, "token", "\n") }, "token is empty: start the pod again"},
		"EmptyNamespace": {func(p pod) { p.write(t, "namespace", " ") }, "namespace is empty: start the pod again"},
		"BadCA":          {func(p pod) { p.write(t, "ca.crt", "hunter2") }, "ca.crt holds no certificate: the cluster must put its CA there"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPod(t, addr, ca)
			tc.change(p)
			if _, err := p.cluster(); err == nil || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("InCluster = %v, want %q", err, tc.want)
			}
		})
	}
}

func TestInClusterOutsideOfAPodSaysSo(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	if _, err := kubestore.InCluster(); err == nil || !strings.HasPrefix(err.Error(), "kubestore: this process is not in a pod") {
		t.Errorf("InCluster = %v, want an error that says that this is no pod", err)
	}
}

func TestClusterMayHaveIPv6(t *testing.T) {
	_, ca, _ := startTLS(t)
	cluster, err := newPod(t, "[fd00:10:96::1]:443", ca).cluster()
	if err != nil || cluster.Server != "https://[fd00:10:96::1]:443" || cluster.Namespace != "bank" {
		t.Errorf("InCluster = %s, %s, %v; want https://[fd00:10:96::1]:443 and bank", cluster.Server, cluster.Namespace, err)
	}
}
