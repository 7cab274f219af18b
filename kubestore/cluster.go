package kubestore

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// A Cluster says where the Secrets are. All fields are required, except Client with
// kubectl proxy. In a pod, InCluster returns one. Elsewhere, client-go reads a
// kubeconfig:
//
//	cfg, err := clientcmd.BuildConfigFromFlags("", path) // a *rest.Config
//	...
//	client, err := rest.HTTPClientFor(cfg)
//	...
//	cluster := kubestore.Cluster{Server: cfg.Host, Namespace: "fincode", Client: client}
type Cluster struct {
	// Server is the URL of the API server, such as "https://10.96.0.1:443". It may have
	// a path, if a proxy needs one. It is http only for a proxy on the same machine, such
	// as kubectl proxy.
	Server string

	// Namespace is where the Secrets are. It must exist.
	Namespace string

	// Client adds the credentials to each request, and trusts the server's certificate.
	// Its redirects are never followed. nil means http.DefaultClient, and is an error
	// unless Server begins with http://.
	Client *http.Client
}

// label matches what Kubernetes accepts as the name of a namespace (RFC 1123).
var label = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

// api checks the fields.
func (c Cluster) api() (api, error) {
	at, err := url.Parse(c.Server)
	switch {
	case err != nil: // it quotes Server, which may hold a password
		return api{}, errors.New("the Server is not a URL: use one such as https://10.96.0.1:443")
	case strings.Contains(c.Server, "@") || at.RawQuery != "" || at.Fragment != "":
		return api{}, errors.New("the Server has a user, a query or a fragment: remove it, because Client adds the credentials")
	case at.Hostname() == "" || at.Scheme != "https" && at.Scheme != "http":
		return api{}, fmt.Errorf("the Server is %q: use a URL such as https://10.96.0.1:443", c.Server)
	case at.Scheme == "http" && !isLoopback(at.Hostname()):
		return api{}, fmt.Errorf("the Server is %q, and others could read the tokens on the way: use https", c.Server)
	case !label.MatchString(c.Namespace):
		return api{}, fmt.Errorf("the Namespace is %q: use the name of a namespace, with letters from a to z, digits and -", c.Namespace)
	case c.Client == nil && at.Scheme == "https":
		return api{}, errors.New("the Client is nil, so there are no credentials: use InCluster, or rest.HTTPClientFor of client-go")
	case c.Client == nil:
		c.Client = http.DefaultClient
	}
	client := *c.Client
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return api{&client, at.JoinPath("api/v1/namespaces", c.Namespace, "secrets")}, nil
}

func isLoopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}

// podFolder is where the kubelet puts the credentials of a pod's service account.
const podFolder = "/var/run/secrets/kubernetes.io/serviceaccount"

// InCluster returns the cluster and the namespace in which this process is a pod, with
// the credentials of the pod's service account. The kubelet replaces the token before it
// expires, so the token is read again for each request. To use another namespace, change
// the field.
func InCluster() (Cluster, error) {
	c, err := inCluster(os.Getenv, podFolder)
	if err != nil {
		return Cluster{}, fmt.Errorf("kubestore: %w", err)
	}
	return c, nil
}

func inCluster(getenv func(string) string, folder string) (Cluster, error) {
	host, port := getenv("KUBERNETES_SERVICE_HOST"), getenv("KUBERNETES_SERVICE_PORT")
	if host == "" || port == "" {
		return Cluster{}, errors.New("this process is not in a pod, because KUBERNETES_SERVICE_HOST or KUBERNETES_SERVICE_PORT is missing: " +
			"fill in a Cluster, for example with client-go")
	}
	namespace, err := readPod(folder, "namespace")
	if err != nil {
		return Cluster{}, err
	}
	pem, err := readPod(folder, "ca.crt")
	if err != nil {
		return Cluster{}, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(pem)) {
		return Cluster{}, fmt.Errorf("%s holds no certificate: the cluster must put its CA there", filepath.Join(folder, "ca.crt"))
	}
	if _, err := readPod(folder, "token"); err != nil {
		return Cluster{}, err
	}
	addr := net.JoinHostPort(host, port)
	return Cluster{
		Server:    "https://" + addr,
		Namespace: namespace,
		Client:    &http.Client{Transport: &podTransport{addr, folder, newTransport(roots)}},
	}, nil
}

// readPod reads a file of the service account.
func readPod(folder, name string) (string, error) {
	text, err := os.ReadFile(filepath.Join(folder, name))
	if err != nil {
		return "", fmt.Errorf("the pod has no service account: set its automountServiceAccountToken: %w", err)
	}
	if len(strings.TrimSpace(string(text))) == 0 {
		return "", fmt.Errorf("%s is empty: start the pod again", filepath.Join(folder, name))
	}
	return strings.TrimSpace(string(text)), nil
}

// newTransport returns a transport for the API server, which is in the cluster. So no
// proxy of the environment is used. A ping finds out that a connection is dead.
func newTransport(roots *x509.CertPool) *http.Transport {
	return &http.Transport{
		DialContext:         (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSClientConfig:     &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout: 10 * time.Second,
		ForceAttemptHTTP2:   true,
		IdleConnTimeout:     90 * time.Second,
		HTTP2:               &http.HTTP2Config{SendPingTimeout: 10 * time.Second, PingTimeout: 5 * time.Second},
	}
}

// A podTransport adds the token of the service account to requests for addr.
type podTransport struct {
	addr, folder string
	base         http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (p *podTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	token, err := readPod(p.folder, "token")
	if err == nil && (req.URL.Scheme != "https" || req.URL.Host != p.addr) {
		err = fmt.Errorf("this client is only for the API server at %s", p.addr)
	}
	if err != nil {
		if req.Body != nil {
			req.Body.Close()
		}
		return nil, err
	}
	req = req.Clone(req.Context())
	req.Header.Set("Authorization", "Bearer "+token)
	return p.base.RoundTrip(req)
}
