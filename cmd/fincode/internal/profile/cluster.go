package profile

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/fincodeauth/fincodeauth/etcdstore"
	"github.com/fincodeauth/fincodeauth/kubestore"
)

// openEtcd opens the sessions in etcd at an address that CheckStore accepts.
func openEtcd(address string) (Opened, error) {
	u, err := url.Parse(address)
	if err != nil {
		return Opened{}, explain(err, address)
	}
	why := new(lastFailure)
	cfg := clientv3.Config{
		Endpoints:            endpoints(u),
		DialTimeout:          5 * time.Second,
		DialKeepAliveTime:    10 * time.Second, // finds a member that hangs
		DialKeepAliveTimeout: 3 * time.Second,
		Logger:               zap.New(why), // standard error is for the command's own line
	}
	cfg.Username = u.User.Username()
	cfg.Password, _ = u.User.Password()
	if u.Scheme == "etcds" {
		files := u.Query()
		info := transport.TLSInfo{TrustedCAFile: files.Get("cacert"), CertFile: files.Get("cert"), KeyFile: files.Get("key")}
		if cfg.TLS, err = info.ClientConfig(); err != nil {
			return Opened{}, explain(err, address)
		}
	}
	client, err := clientv3.New(cfg)
	if err != nil {
		return Opened{}, explain(why.of(err), address)
	}
	store, err := etcdstore.New(client, etcdstore.Prefix(prefixOf(u)))
	if err != nil {
		return Opened{}, explain(errors.Join(err, client.Close()), address)
	}
	return Opened{store, client.Close, why.of}, nil
}

// openKubernetes opens the sessions in the Secrets of a namespace: as the service account
// of the pod in which the command runs, or as whoever runs kubectl proxy.
func openKubernetes(address string) (Opened, error) {
	u, err := url.Parse(address)
	if err != nil {
		return Opened{}, explain(err, address)
	}
	query := u.Query()
	cluster := kubestore.Cluster{Server: "http://" + query.Get("proxy"), Client: &http.Client{}}
	if !query.Has("proxy") {
		if cluster, err = kubestore.InCluster(); err != nil {
			err = fmt.Errorf("outside of a pod, run kubectl proxy, and add ?proxy=127.0.0.1:8001: %w", err)
			return Opened{}, explain(err, address)
		}
	}
	cluster.Namespace = u.Host
	var opts []kubestore.Option
	if query.Has("prefix") {
		opts = append(opts, kubestore.Prefix(query.Get("prefix")))
	}
	store, err := kubestore.New(cluster, opts...)
	if err != nil {
		return Opened{}, explain(err, address)
	}
	return Opened{Store: store, Close: func() error { return nil }}, nil
}
