package kubestore

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

const (
	pageSize   = 500 // Secrets
	maxRestart = 5   // of one call of Keys
)

// A page is some of the Secrets, without their data.
type page struct {
	Kind     string `json:"kind"`
	Metadata struct {
		Continue string `json:"continue"` // asks for the next page; "": there is none
	} `json:"metadata"`
	Items []struct {
		Metadata metadata `json:"metadata"`
	} `json:"items"`
}

// Keys implements fincodeauth.KeyLister. It reads no tokens. It needs the right to list
// Secrets, which the other methods do not need.
//
// If a Secret does not name its key, Keys yields "" and an error that names the Secret,
// and goes on.
func (s *Store) Keys(ctx context.Context) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		err := s.check()
		if err == nil {
			err = s.list(ctx, yield)
		}
		if err != nil {
			yield("", fmt.Errorf("kubestore: list keys: %w", explain(ctx, err)))
		}
	}
}

// list yields the keys of all pages, until yield returns false.
func (s *Store) list(ctx context.Context, yield func(string, error) bool) error {
	next, restarts := "", 0
	for {
		got, err := s.page(ctx, next)
		if gone, ok := errors.AsType[*StatusError](err); ok && gone.Code == http.StatusGone && restarts < maxRestart {
			// The list is older than what etcd still has. With another token, the rest of
			// the list is as it is now. Without one, the list begins again.
			next = gone.next
			restarts++
			continue
		}
		if err != nil {
			return err
		}
		for _, item := range got.Items {
			if !s.yield(item.Metadata, yield) {
				return nil
			}
		}
		if next = got.Metadata.Continue; next == "" {
			return ctx.Err()
		}
	}
}

// page returns the page that next names; "" names the first one.
func (s *Store) page(ctx context.Context, next string) (page, error) {
	query := url.Values{"labelSelector": {managedBy + "=" + manager}, "limit": {strconv.Itoa(pageSize)}}
	if next != "" {
		query.Set("continue", next)
	}
	var got page
	err := s.api.call(ctx, request{method: http.MethodGet, query: query}, &got)
	if err == nil && got.Kind != "PartialObjectMetadataList" && got.Kind != "SecretList" {
		err = fmt.Errorf("the answer is no list of Secrets: %w", errNotKubernetes)
	}
	return got, err
}

// yield yields the key of one Secret, if it is a Secret of this Store. It returns what
// yield returns.
func (s *Store) yield(m metadata, yield func(string, error) bool) bool {
	if !s.names(m.Name) {
		return true
	}
	key, err := url.PathUnescape(m.Annotations[sessionAnnotation])
	if err != nil || s.nameOf(key) != m.Name {
		return yield("", fmt.Errorf("kubestore: list keys: the Secret %s does not name its session: put url.PathEscape of the key into its annotation %s, or delete it",
			m.Name, sessionAnnotation))
	}
	return yield(key, nil)
}

// names reports whether a Secret of this Store may have the name. Another prefix may begin
// with the same letters.
func (s *Store) names(name string) bool {
	sum, ok := strings.CutPrefix(name, s.prefix)
	return ok && len(sum) == nameLength && strings.Trim(sum, "0123456789abcdef") == ""
}
