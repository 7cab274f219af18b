package integration

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/fincodeauth/fincodeauth/kubestore"
)

// A kube is a Kubernetes of an etcd and some API servers. It has no controllers: nobody
// removes what is in a namespace that is deleted, makes tokens, or counts what a quota
// limits.
type kube struct {
	etcd  *server
	apis  []*server
	roots *x509.CertPool // all API servers have the same certificate
	ca    []byte         // in PEM
	admin string         // a token that may do all
}

// kubes is the Kubernetes of all tests that do not break it.
var kubes sharedServers[*kube]

// sharedKube returns the Kubernetes that tests share. It has two API servers.
func sharedKube(t testing.TB) *kube {
	t.Helper()
	findProgram(t, "etcd") // or else only the first test is skipped
	findProgram(t, "kube-apiserver")
	return kubes.get(t, func(dir string) *kube { return describeKube(t, dir, 2) })
}

// startKube starts a Kubernetes for this test alone, with n API servers.
func startKube(t *testing.T, n int, more ...string) *kube {
	t.Helper()
	k := describeKube(t, t.TempDir(), n, more...)
	t.Cleanup(func() {
		k.stop()
		showLogs(t, append(k.apis, k.etcd)...)
	})
	k.start(t)
	return k
}

// describeKube describes servers that are not started yet, with more arguments for the
// API servers.
func describeKube(t testing.TB, folder string, n int, more ...string) *kube {
	t.Helper()
	program := findProgram(t, "kube-apiserver")
	k := &kube{admin: rand.Text(), etcd: describeEtcd(t, folder, 1).members[0]}
	signing := filepath.Join(folder, "sa.key")
	writeKey(t, signing)
	tokens := filepath.Join(folder, "tokens.csv")
	if err := os.WriteFile(tokens, []byte(k.admin+`,admin,1,"system:masters"`+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		addr := freeAddr(t)
		_, port, _ := net.SplitHostPort(addr)
		k.apis = append(k.apis, &server{
			name: "kube-apiserver", addr: addr, path: program, log: filepath.Join(folder, fmt.Sprintf("api%d.log", i)),
			args: append([]string{
				"--etcd-servers", "http://" + k.etcd.addr, "--cert-dir", filepath.Join(folder, "certs"), "--secure-port", port, "--bind-address", "127.0.0.1",
				"--service-account-key-file", signing, "--service-account-signing-key-file", signing,
				"--service-account-issuer", "https://kubernetes.default.svc", "--authorization-mode", "RBAC", "--token-auth-file", tokens,
				"--service-cluster-ip-range", "10.0.0.0/24", "--endpoint-reconciler-type", "none",
			}, more...),
		})
	}
	return k
}

// writeKey writes a new RSA key. The API server signs the tokens of service accounts with
// it.
func writeKey(t testing.TB, path string) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	block := &pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}
	if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
}

// start starts all servers. The first API server makes the certificate of all.
func (k *kube) start(t testing.TB) {
	t.Helper()
	k.etcd.start(t)
	for i, s := range k.apis {
		s.start(t)
		if i == 0 {
			k.trust(t)
		}
		k.ready(t, s)
	}
}

// trust reads the certificate that the API server has made for itself.
func (k *kube) trust(t testing.TB) {
	t.Helper()
	var err error
	if k.ca, err = os.ReadFile(filepath.Join(filepath.Dir(k.etcd.log), "certs", "apiserver.crt")); err != nil {
		t.Fatal(err)
	}
	k.roots = x509.NewCertPool()
	k.roots.AppendCertsFromPEM(k.ca)
}

// ready waits until s serves requests.
func (k *kube) ready(t testing.TB, s *server) {
	t.Helper()
	client := kubeClient(k.roots, k.admin, s.addr)
	eventually(t, s.addr+" is ready", func() bool {
		resp, err := client.Get("https://" + s.addr + "/readyz")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
}

func (k *kube) stop() {
	for _, s := range append(k.apis, k.etcd) {
		s.kill()
	}
}

// cluster returns the cluster for a Store, by the API server s.
func (k *kube) cluster(s *server, namespace, token string) kubestore.Cluster {
	return kubestore.Cluster{Server: "https://" + s.addr, Namespace: namespace, Client: kubeClient(k.roots, token, s.addr)}
}

// kubeClient returns a client with a token. It connects to addr, whatever the URL says.
func kubeClient(roots *x509.CertPool, token, addr string) *http.Client {
	dialer := &net.Dialer{Timeout: time.Second}
	return &http.Client{Transport: withToken{token, &http.Transport{
		TLSClientConfig:   &tls.Config{RootCAs: roots},
		ForceAttemptHTTP2: true,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, network, addr)
		},
	}}}
}

// withToken adds a token to each request.
type withToken struct {
	token string
	base  *http.Transport
}

func (w withToken) RoundTrip(req *http.Request) (*http.Response, error) {
	req = req.Clone(req.Context())
	req.Header.Set("Authorization", "Bearer "+w.token)
	return w.base.RoundTrip(req)
}

// CloseIdleConnections is what http.Client calls.
func (w withToken) CloseIdleConnections() { w.base.CloseIdleConnections() }

// do sends a request as the administrator to the first API server, and decodes the answer
// into into unless that is nil.
func (k *kube) do(t testing.TB, method, path, contentType string, body, into any) error {
	t.Helper()
	return k.doAt(t, "https://"+k.apis[0].addr, method, path, contentType, body, into)
}

// doAt is do for any of the servers.
func (k *kube) doAt(t testing.TB, server, method, path, contentType string, body, into any) error {
	t.Helper()
	data, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequest(method, server+path, bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", contentType)
	client := kubeClient(k.roots, k.admin, req.URL.Host)
	defer client.CloseIdleConnections()
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode > 299 {
		return fmt.Errorf("%s %s: %d %s %w", method, path, resp.StatusCode, answer, err)
	}
	if into != nil {
		return json.Unmarshal(answer, into)
	}
	return nil
}

// post makes an object, and fails the test if it cannot.
func (k *kube) post(t testing.TB, path string, object any) {
	t.Helper()
	if err := k.do(t, http.MethodPost, path, jsonType, object, nil); err != nil {
		t.Fatal(err)
	}
}

const jsonType = "application/json"

// object is any object of Kubernetes, in JSON.
type object = map[string]any

// newNamespace makes a namespace, and removes it with its Secrets when the test ends.
func (k *kube) newNamespace(t testing.TB) string {
	t.Helper()
	name := unique("fincodeauth-test-")
	k.post(t, "/api/v1/namespaces", object{"metadata": object{"name": name}})
	t.Cleanup(func() {
		if err := k.removeNamespace(t, name); err != nil {
			t.Log(err)
		}
	})
	return name
}

// removeNamespace does what the controllers of Kubernetes do.
func (k *kube) removeNamespace(t testing.TB, name string) error {
	path := "/api/v1/namespaces/" + name
	_ = k.do(t, http.MethodDelete, path+"/secrets", jsonType, nil, nil)
	if err := k.do(t, http.MethodDelete, path, jsonType, nil, nil); err != nil {
		return err
	}
	finalized := object{"apiVersion": "v1", "kind": "Namespace", "metadata": object{"name": name}, "spec": object{"finalizers": []string{}}}
	return k.do(t, http.MethodPut, path+"/finalize", jsonType, finalized, nil)
}

// A kubeStore is a kubestore with where its Secrets are.
type kubeStore struct {
	*kubestore.Store
	kube      *kube
	namespace string
}

// openKube makes a Store in a new namespace of the shared Kubernetes.
func openKube(t testing.TB) kubeStore {
	t.Helper()
	return openKubeIn(t, sharedKube(t))
}

// openKubeIn makes a Store in a new namespace of k.
func openKubeIn(t testing.TB, k *kube) kubeStore {
	t.Helper()
	namespace := k.newNamespace(t)
	return kubeStore{newKube(t, k.cluster(k.apis[0], namespace, k.admin)), k, namespace}
}

// path returns the path of the Secret of the session under key, of the Secrets if key is
// "".
func (s kubeStore) path(t testing.TB, key string) string {
	t.Helper()
	path := "/api/v1/namespaces/" + s.namespace + "/secrets"
	if key == "" {
		return path
	}
	name := s.names(t)[key]
	if name == "" {
		t.Fatalf("no Secret of %q", key)
	}
	return path + "/" + name
}

// names returns the name of each session's Secret.
func (s kubeStore) names(t testing.TB) map[string]string {
	t.Helper()
	var all struct {
		Items []struct {
			Metadata struct {
				Name        string
				Annotations map[string]string
			}
		}
	}
	if err := s.kube.do(t, http.MethodGet, s.path(t, ""), jsonType, nil, &all); err != nil {
		t.Fatal(err)
	}
	found := make(map[string]string)
	for _, sec := range all.Items {
		found[sec.Metadata.Annotations["fincodeauth.github.io/session"]] = sec.Metadata.Name
	}
	return found
}

// patch changes the Secret of the session under key, as an administrator does.
func (s kubeStore) patch(t testing.TB, key string, change object) error {
	return s.kube.do(t, http.MethodPatch, s.path(t, key), "application/merge-patch+json", change, nil)
}

// newKube makes a Store. Its connections are closed when the test ends.
func newKube(t testing.TB, cluster kubestore.Cluster, opts ...kubestore.Option) *kubestore.Store {
	t.Helper()
	store, err := kubestore.New(cluster, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Client.CloseIdleConnections)
	return store
}
