package compose

import (
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"testing"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/fincodeauth/fincodeauth/kubestore"
)

// kubeconfigStore returns a Store in the cluster of a kubeconfig. client-go knows all ways
// of logging in to a cluster.
func kubeconfigStore(path, namespace string) (*kubestore.Store, error) {
	cfg, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		return nil, err
	}
	client, err := rest.HTTPClientFor(cfg)
	if err != nil {
		return nil, err
	}
	return kubestore.New(kubestore.Cluster{Server: cfg.Host, Namespace: namespace, Client: client})
}

func TestKubestoreAcceptsTheClientOfClientGo(t *testing.T) {
	var got string
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r.Header.Get("Authorization") + " " + r.URL.Path
		_, _ = w.Write([]byte(`{"kind":"SecretList"}`))
	}))
	defer server.Close()
	path := t.TempDir() + "/config"
	err := clientcmd.WriteToFile(clientcmdapi.Config{
		Clusters: map[string]*clientcmdapi.Cluster{"c": {
			Server:                   server.URL,
			CertificateAuthorityData: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}),
		}},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{"u": {Token: "token"}},
		Contexts:       map[string]*clientcmdapi.Context{"x": {Cluster: "c", AuthInfo: "u"}},
		CurrentContext: "x",
	}, path)
	if err != nil {
		t.Fatal(err)
	}
	store, err := kubeconfigStore(path, "fincode")
	if err != nil {
		t.Fatal(err)
	}
	for key, err := range store.Keys(t.Context()) {
		t.Errorf("Keys yielded %q, %v", key, err)
	}
	if want := "Bearer token /api/v1/namespaces/fincode/secrets"; got != want {
		t.Errorf("the API server got %q, want %q", got, want)
	}
}
