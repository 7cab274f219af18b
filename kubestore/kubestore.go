// Package kubestore keeps sessions in Secrets of Kubernetes, for all processes that
// use the same namespace. It needs no other database. It calls the API server with
// net/http alone, and does not link client-go.
//
// Each session is a Secret of its own. A Save is one request, which the API server
// refuses if the record has another version by then. The record holds the tokens as
// plain text, unless fincodeauth.Encrypt wraps the Store. Use Encrypt: whoever may
// read Secrets in the namespace reads the tokens, and by default so does whoever
// reads a disk or a backup of etcd.
//
// # What Kubernetes must do
//
// Give the sessions a namespace of their own, and a service account the rights in
// deploy/rbac.yaml: get, create, patch and delete, and for Keys also list. The rights
// to create and to list cannot be limited to names, so in a namespace with other
// Secrets they would reach those too.
//
// A Save is durable when it returns: the API server answers after a majority of etcd has
// the write on disk. A failover of etcd loses nothing. A Load reads from etcd, and not from
// the API server's cache, because it names no resourceVersion (CacheDelegator.Get in
// k8s.io/apiserver/pkg/storage/cacher/delegator.go). So there may be any number of API
// servers.
//
// If etcd is restored from a backup, all sessions go back to it. Processes that live
// through that save what they remember. For the others, FinCode refuses the token in
// the backup as a reuse, and their users must log in.
//
// # How many sessions
//
// The store is made for a handful of sessions, such as those of your own services, and
// not for thousands of end users. A
// rotation writes its Secret twice. etcd serves the whole cluster, holds some
// gigabytes, and keeps old versions of each Secret until they are compacted, every
// five minutes by default. Each write also goes to everything that watches all Secrets:
// some ingress controllers, certificate managers and backup tools. The API server shares its
// capacity among its clients (API Priority and Fairness). If it answers 429, nothing
// was done, and the Store waits and tries again.
//
// A Secret holds up to 1 MiB, which is far more than a record needs.
package kubestore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"

	"github.com/fincodeauth/fincodeauth"
)

// A Store is a fincodeauth.Store in Secrets of Kubernetes. Make one with New: the
// methods of the zero Store return errors. A Store is safe for concurrent use, also by
// several Stores and processes with the same namespace and prefix.
//
// If the API server refuses a request, the error wraps a *StatusError.
type Store struct {
	api       api
	namespace string
	prefix    string
}

// An Option changes the Store that New returns.
type Option func(*Store)

// Prefix sets the beginning of the Secrets' names. The default is "fincode-". The rest
// of a name is the SHA-256 of the session's key, in hex. Applications with different
// prefixes may use one namespace. A prefix may have the letters a to z, digits, "-" and
// ".", and at most 189 of them.
func Prefix(prefix string) Option {
	return func(s *Store) { s.prefix = prefix }
}

// New returns a Store in the Secrets of cluster. New does not call the API server.
func New(cluster Cluster, opts ...Option) (*Store, error) {
	s := &Store{namespace: cluster.Namespace, prefix: "fincode-"}
	for i, opt := range opts {
		if opt == nil {
			return nil, fmt.Errorf("kubestore: option %d is nil: leave it out", i+1)
		}
		opt(s)
	}
	var err error
	if s.api, err = cluster.api(); err != nil {
		return nil, fmt.Errorf("kubestore: %w", err)
	}
	if name := s.nameOf(""); len(name) > 253 || !subdomain.MatchString(name) {
		return nil, fmt.Errorf("kubestore: Prefix is %q, and the names of Secrets cannot begin with that: "+
			"begin with a letter from a to z, and go on with letters, digits and -, at most %d of them", s.prefix, 253-nameLength)
	}
	return s, nil
}

// subdomain matches what Kubernetes accepts as the name of a Secret (RFC 1123), if it
// has at most 253 letters.
var subdomain = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`)

// Load implements fincodeauth.Store. It reads the newest record, whichever API server
// has saved it.
func (s *Store) Load(ctx context.Context, key string) (*fincodeauth.Record, error) {
	err := s.check()
	var sec secret
	if err == nil {
		sec, err = s.get(ctx, key)
	}
	var rec *fincodeauth.Record
	if err == nil {
		rec, err = sec.decode()
	}
	if err != nil {
		return nil, fmt.Errorf("kubestore: load %q: %w", key, explain(ctx, err))
	}
	return rec, nil
}

// get returns the Secret of key. The request has no resourceVersion. With one, also with
// 0, the API server may answer from its cache.
func (s *Store) get(ctx context.Context, key string) (secret, error) {
	name := s.nameOf(key)
	var sec secret
	err := s.api.call(ctx, request{method: http.MethodGet, name: name}, &sec)
	switch {
	case lacks(err, name):
		return sec, fincodeauth.ErrNotFound
	case err != nil:
		return sec, err
	}
	return sec, sec.check(name)
}

// Save implements fincodeauth.Store.
func (s *Store) Save(ctx context.Context, key string, rec *fincodeauth.Record, prev string) error {
	err := s.check()
	if err == nil {
		err = s.save(ctx, key, rec, prev)
	}
	if err != nil {
		return fmt.Errorf("kubestore: save %q: %w", key, explain(ctx, err))
	}
	return nil
}

func (s *Store) save(ctx context.Context, key string, rec *fincodeauth.Record, prev string) error {
	data, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	if size := len(data) + len(rec.Version); size > maxData {
		return fmt.Errorf("the record has %d bytes, and a Secret holds at most %d: use another store", size, maxData)
	}
	if prev == "" {
		err = s.create(ctx, newSecret(s.nameOf(key), key, rec.Version, data))
	} else {
		err = s.replace(ctx, s.nameOf(key), patchOf(prev, rec.Version, data))
	}
	switch status, _ := errors.AsType[*StatusError](err); {
	case status == nil:
		return err
	case status.Code == http.StatusConflict, status.Code == http.StatusUnprocessableEntity:
		return s.look(ctx, key, rec.Version, prev, status)
	}
	return err
}

// create makes a Secret. If there is one of that name, the API server answers 409.
func (s *Store) create(ctx context.Context, sec secret) error {
	body, err := json.Marshal(sec)
	if err != nil {
		return err
	}
	var answer secret
	if err := s.api.call(ctx, request{http.MethodPost, "", asManager, jsonType, body}, &answer); err != nil {
		return err
	}
	return answer.named(sec.Metadata.Name)
}

// replace applies a JSON Patch. The API server applies all of it to the Secret that it
// knows, and then writes the result only if etcd still has the Secret at the same
// resourceVersion. Otherwise it begins again, with the test in the patch, on the Secret
// from etcd (GuaranteedUpdate in k8s.io/apiserver/pkg/storage/etcd3/store.go). So the
// patch is a compare-and-swap in one request.
func (s *Store) replace(ctx context.Context, name string, patch []operation) error {
	body, err := json.Marshal(patch)
	if err != nil {
		return err
	}
	var answer secret
	err = s.api.call(ctx, request{http.MethodPatch, name, asManager, patchType, body}, &answer)
	switch {
	case lacks(err, name):
		return fincodeauth.ErrConflict
	case err != nil:
		return err
	}
	if err := answer.named(name); err != nil {
		return err
	}
	return answer.stays()
}

// look finds out why the API server refused a Save. A failed test is 422, and so are
// other things that are wrong with a Secret. A proxy may also have sent the request twice,
// so that the first one is what the second one found.
func (s *Store) look(ctx context.Context, key, version, prev string, refused *StatusError) error {
	sec, err := s.get(ctx, key)
	switch there := string(sec.Data.Version); {
	case errors.Is(err, fincodeauth.ErrNotFound):
		if prev == "" && refused.Reason != "AlreadyExists" { // a ResourceQuota that many change at once is 409, too
			return refused
		}
		return fincodeauth.ErrConflict
	case err != nil:
		return err
	case there == version:
		return nil
	case prev == "" || there != prev:
		return fincodeauth.ErrConflict
	}
	return refused
}

// Delete implements fincodeauth.Store. It also removes a damaged record. If the Secret
// has finalizers, it stays until they are gone, and Delete returns an error. Until then,
// Load and Save return errors, too, because what is in the Secret goes with it.
func (s *Store) Delete(ctx context.Context, key string) error {
	err := s.check()
	if err == nil {
		err = s.remove(ctx, s.nameOf(key))
	}
	if err != nil {
		return fmt.Errorf("kubestore: delete %q: %w", key, explain(ctx, err))
	}
	return nil
}

func (s *Store) remove(ctx context.Context, name string) error {
	var answer secret // the Secret if it stays, and a Status otherwise
	err := s.api.call(ctx, request{method: http.MethodDelete, name: name}, &answer)
	switch {
	case lacks(err, name):
		return nil
	case err != nil:
		return err
	case answer.Kind == "Status":
		return nil
	}
	if err := answer.named(name); err != nil {
		return err
	}
	if len(answer.Metadata.Finalizers) > 0 {
		return fmt.Errorf("the Secret %s stays until its finalizers are gone: find out who has set them", name)
	}
	return nil
}

// String returns the namespace and the prefix. It shows no credentials.
func (s *Store) String() string {
	if s.check() != nil {
		return "kubestore(not made by New)"
	}
	return fmt.Sprintf("kubestore(%s/%s)", s.namespace, s.prefix)
}

// Format prints what String returns, whatever the verb.
func (s *Store) Format(f fmt.State, _ rune) { fmt.Fprint(f, s.String()) }

// check refuses a nil Store and a zero one.
func (s *Store) check() error {
	if s == nil || s.api.client == nil {
		return errors.New("the Store was not made by kubestore.New: call that")
	}
	return nil
}
