package integration

import (
	"crypto/x509"
	"net/url"
	"testing"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/etcdstore"
)

// A tlsEtcd is a member that talks TLS, and only to those with its certificate. Then it
// asks for a user and a password, too. The user fincode has the right to one prefix.
type tlsEtcd struct {
	addr   string
	prefix string
	cert   string // the file with the certificate, of clients as well
	key    string // the file with its key
}

func startTLSEtcd(t *testing.T) *tlsEtcd {
	t.Helper()
	dir := t.TempDir()
	c := describeEtcd(t, dir, 1)
	member := c.members[0]
	files, err := transport.SelfCert(zap.NewNop(), dir, []string{member.addr}, 1, x509.ExtKeyUsageClientAuth)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.stop()
		showLogs(t, member)
	})
	member.start(t, "--listen-client-urls", "https://"+member.addr, "--advertise-client-urls", "https://"+member.addr,
		"--client-cert-auth", "--cert-file", files.CertFile, "--key-file", files.KeyFile, "--trusted-ca-file", files.CertFile)
	e := &tlsEtcd{member.addr, unique("fincodeauth_test_") + "/", files.CertFile, files.KeyFile}
	e.addUser(t)
	return e
}

// addUser adds the user, whose password is "secret", as docs/stores.md says.
func (e *tlsEtcd) addUser(t *testing.T) {
	t.Helper()
	root := e.client(t, "")
	err := addEtcdRoot(t.Context(), root)
	if err == nil {
		err = addEtcdUser(t.Context(), root, "fincode", e.prefix, clientv3.PermissionType(clientv3.PermReadWrite))
	}
	if err == nil {
		_, err = root.AuthEnable(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// client returns a client with the certificate, and with a user unless that is "".
func (e *tlsEtcd) client(t *testing.T, user string) *clientv3.Client {
	t.Helper()
	info := transport.TLSInfo{TrustedCAFile: e.cert, CertFile: e.cert, KeyFile: e.key}
	config, err := info.ClientConfig()
	if err != nil {
		t.Fatal(err)
	}
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{e.addr}, TLS: config, Username: user, Password: "secret", Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

// etcdWithTLSOfCommand returns an address for the command of an etcd that wants TLS, a
// certificate and a user, and the Store there.
func etcdWithTLSOfCommand(t *testing.T) (string, fincodeauth.Store) {
	e := startTLSEtcd(t)
	files := url.Values{"cacert": {e.cert}, "cert": {e.cert}, "key": {e.key}}
	address := url.URL{Scheme: "etcds", User: url.UserPassword("fincode", "secret"), Host: e.addr, Path: e.prefix, RawQuery: files.Encode()}
	store, err := etcdstore.New(e.client(t, "fincode"), etcdstore.Prefix(e.prefix))
	if err != nil {
		t.Fatal(err)
	}
	return address.String(), store
}
