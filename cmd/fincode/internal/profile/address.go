package profile

import (
	"cmp"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"strings"

	"github.com/fincodeauth/fincodeauth/cmd/fincode/internal/failure"
)

// CheckStore refuses an address that no store has. It calls no store. Its error does not
// show the address, which may hold a password.
func CheckStore(store string) error {
	scheme, rest, ok := strings.Cut(store, ":")
	if store == "" {
		return nil
	}
	if ok && scheme == "dir" {
		if filepath.IsAbs(strings.TrimPrefix(rest, "//")) {
			return nil
		}
		return failure.New(failure.Usage, "--store: dir: needs an absolute path, such as dir:/var/lib/fincode/sessions")
	}
	check, ok := checks[scheme]
	if !ok {
		return failure.New(failure.Usage, "--store: use postgres://user@host/database, redis://host/0, rediss://host/0, "+
			"etcd://host:2379, etcds://host:2379, kubernetes://namespace or dir:/folder")
	}
	u, err := url.Parse(store)
	if err == nil {
		_, err = url.ParseQuery(u.RawQuery) // u.Query leaves out what it cannot read
	}
	// A # in a password would make the rest of it a fragment, and another host of its beginning.
	if err != nil || u.Opaque != "" || u.Fragment != "" {
		return failure.New(failure.Usage, "--store: this is not a URL: use %s://user@host/name, and escape special characters of a password", scheme)
	}
	if err := check(u); err != nil {
		return failure.New(failure.Usage, "--store: %w", err)
	}
	return nil
}

// checks has a check for each scheme of a URL that names a store.
var checks = map[string]func(*url.URL) error{
	"postgres":   checkedByDriver,
	"postgresql": checkedByDriver,
	"redis":      checkedByDriver,
	"rediss":     checkedByDriver,
	"etcd":       checkEtcd,
	"etcds":      checkEtcd,
	"kubernetes": checkKubernetes,
}

// checkedByDriver accepts what the driver checks when it opens the store.
func checkedByDriver(*url.URL) error { return nil }

// checkEtcd accepts user:password@host:port,host:port/prefix, for etcds also the files that
// TLS needs.
func checkEtcd(u *url.URL) error {
	query := u.Query()
	_, password := u.User.Password()
	switch {
	case u.User != nil && !password:
		return fmt.Errorf("a user of etcd needs a password: use %s://user:password@host:2379, or no user", u.Scheme)
	case slices.Contains(strings.Split(u.Host, ","), ""):
		return fmt.Errorf("name the members of etcd, such as %s://host:2379,host2:2379", u.Scheme)
	case u.Scheme == "etcd" && len(query) > 0:
		return fmt.Errorf("etcd:// has no parameters, because it does without TLS: use etcds:// for TLS")
	case (query.Get("cert") == "") != (query.Get("key") == ""):
		return fmt.Errorf("?cert= and ?key= belong together: give the files of the certificate and of its key")
	}
	return checkParameters(query, "cacert", "cert", "key")
}

// checkKubernetes accepts a namespace, and how to reach it.
func checkKubernetes(u *url.URL) error {
	query := u.Query()
	_, _, err := net.SplitHostPort(query.Get("proxy"))
	if u.Host == "" || strings.ContainsAny(u.Host, ":,") || u.User != nil || strings.Trim(u.Path, "/") != "" || query.Has("proxy") && err != nil {
		return fmt.Errorf("use kubernetes://namespace in a pod, or kubernetes://namespace?proxy=127.0.0.1:8001 beside kubectl proxy")
	}
	return checkParameters(query, "prefix", "proxy")
}

// checkParameters refuses a parameter that is not known or has no value, so that a
// misspelled one is not ignored.
func checkParameters(query url.Values, known ...string) error {
	for name, values := range query {
		if !slices.Contains(known, name) || len(values) != 1 || values[0] == "" {
			return fmt.Errorf("the parameters are %s, each with a value", strings.Join(known, ", "))
		}
	}
	return nil
}

// endpoints returns the members of etcd in u. A member without a port has etcd's port.
func endpoints(u *url.URL) []string {
	members := strings.Split(u.Host, ",")
	for i, m := range members {
		host := url.URL{Host: m}
		if host.Port() == "" {
			members[i] = strings.TrimSuffix(m, ":") + ":2379"
		}
	}
	return members
}

// prefixOf returns the prefix of the keys in etcd that u names, or etcdstore's own.
func prefixOf(u *url.URL) string { return cmp.Or(strings.TrimPrefix(u.Path, "/"), "fincode/") }
