package kubestore

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"

	"github.com/fincodeauth/fincodeauth"
)

const (
	sessionType       = "fincodeauth.github.io/session" // of our Secrets; it can never be changed
	sessionAnnotation = "fincodeauth.github.io/session" // the session's key, as url.PathEscape writes it
	managedBy         = "app.kubernetes.io/managed-by"  // a label
	manager           = "fincodeauth"                   // its value, and who owns the fields that a Save writes

	nameLength = 2 * sha256.Size // of a Secret's name without the prefix
	maxData    = 1 << 20         // MaxSecretSize in k8s.io/api/core/v1: of all values together
)

// A secret is what this package writes into a Secret, and reads. In an answer that has
// only metadata, the rest is zero.
type secret struct {
	APIVersion string   `json:"apiVersion"`
	Kind       string   `json:"kind"`
	Metadata   metadata `json:"metadata"`
	Type       string   `json:"type,omitempty"`
	Data       data     `json:"data,omitzero"`
}

type metadata struct {
	Name        string            `json:"name"`
	Labels      map[string]string `json:"labels,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Finalizers  []string          `json:"finalizers,omitempty"`

	DeletionTimestamp string `json:"deletionTimestamp,omitempty"` // the Secret goes when its finalizers are gone; "": it stays
}

// data is in base64 in JSON.
type data struct {
	Version []byte `json:"version,omitempty"` // what a Save must name to replace the record
	Record  []byte `json:"record,omitempty"`  // the session, in JSON
}

// An operation is a part of a JSON Patch (RFC 6902).
type operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value []byte `json:"value"` // in base64 in JSON, as in the Secret
}

// nameOf returns the name of the Secret of key.
func (s *Store) nameOf(key string) string {
	sum := sha256.Sum256([]byte(key))
	return s.prefix + hex.EncodeToString(sum[:])
}

func newSecret(name, key, version string, record []byte) secret {
	return secret{
		APIVersion: "v1",
		Kind:       "Secret",
		Metadata: metadata{
			Name:        name,
			Labels:      map[string]string{managedBy: manager},
			Annotations: map[string]string{sessionAnnotation: url.PathEscape(key)},
		},
		Type: sessionType,
		Data: data{Version: []byte(version), Record: record},
	}
}

// patchOf replaces the record if its version is prev.
func patchOf(prev, version string, record []byte) []operation {
	return []operation{
		{"test", "/data/version", []byte(prev)},
		{"replace", "/data/version", []byte(version)},
		{"replace", "/data/record", record},
	}
}

// named refuses an answer that is about something else than the Secret name. A proxy that
// does not reach the API server may answer 200, too.
func (s secret) named(name string) error {
	if s.Metadata.Name != name || s.Kind != "Secret" && s.Kind != "PartialObjectMetadata" {
		return fmt.Errorf("the answer is not about the Secret %s: %w", name, errNotKubernetes)
	}
	return nil
}

// stays refuses a Secret that is being removed. What is saved in it is not durable.
func (s secret) stays() error {
	if s.Metadata.DeletionTimestamp == "" {
		return nil
	}
	return fmt.Errorf("the Secret %s is being removed, and goes when its finalizers are gone: find out who has set %q",
		s.Metadata.Name, s.Metadata.Finalizers)
}

// check refuses a Secret that another program has made, or that is being removed.
func (s secret) check(name string) error {
	if err := s.named(name); err != nil {
		return err
	}
	if s.Type != sessionType {
		return fmt.Errorf("the Secret %s is of type %q and not %q: another program uses this name, set another Prefix", name, s.Type, sessionType)
	}
	return s.stays()
}

// decode returns the record.
func (s secret) decode() (*fincodeauth.Record, error) {
	rec := new(fincodeauth.Record)
	// A Save over a record whose version is another one in the Secret would always conflict.
	if json.Unmarshal(s.Data.Record, rec) != nil || rec.Version == "" || rec.Version != string(s.Data.Version) {
		return nil, errors.New("its record is damaged: restore it, or call Sessions.Forget, then log in again")
	}
	return rec, nil
}
