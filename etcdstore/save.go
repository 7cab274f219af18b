package etcdstore

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/fincodeauth/fincodeauth"
)

// maxBack is how many records of a session cameAfter looks at. A rotation saves two.
const maxBack = 10

// Save implements fincodeauth.Store. It makes one transaction. For a record with a
// RemoveAfter, it first asks etcd for a lease, which ends after RemoveAfter and then
// removes the record.
func (s *Store) Save(ctx context.Context, key string, rec *fincodeauth.Record, prev string) error {
	err := s.check()
	if err == nil {
		err = s.save(ctx, s.name(key), rec, prev)
	}
	if err != nil {
		return fmt.Errorf("etcdstore: save %q: %w", key, err)
	}
	return nil
}

func (s *Store) save(ctx context.Context, name string, rec *fincodeauth.Record, prev string) error {
	data, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	lease, err := s.grant(ctx, rec.RemoveAfter)
	if err != nil {
		return err
	}
	call := s.repeat
	if prev == "" {
		call = s.once
	}
	var resp *clientv3.TxnResponse
	var unheard bool // a try got no answer
	err = call(ctx, func(ctx context.Context) (err error) {
		resp, err = s.client.KV.Txn(ctx).
			If(hasVersion(name, prev)...).
			Then(clientv3.OpPut(name, string(data), clientv3.WithLease(lease))).
			Else(clientv3.OpGet(name)).
			Commit()
		unheard = unheard || timedOut(err)
		return err
	})
	if err != nil || resp.Succeeded {
		return err
	}
	// The transaction may have been sent twice, because the first answer did not come. The
	// second one finds what the first one has saved.
	for _, kv := range resp.Responses[0].GetResponseRange().Kvs {
		if isVersion(kv.Value, rec.Version) {
			return nil
		}
	}
	if unheard && !s.cameAfter(ctx, resp.Responses[0].GetResponseRange().Kvs, prev, rec.Version) {
		return errors.New("the record was changed, perhaps after a try to save it that got no answer, " + unknown)
	}
	return fincodeauth.ErrConflict
}

// hasVersion holds if the record under name has version prev, or, if prev is "", if
// there is no record.
//
// etcd cannot look into JSON. But the version is the first thing in it, so the values of
// this version are those that begin with start(prev). In etcd's order of bytes, these are
// the values between start(prev) and the same text whose last byte, a quote, is one
// higher. The comparison does not hold if there is no value.
//
// No two Saves have the same version, so this is as strict as to compare etcd's
// revision of the key. For that, a Save would first have to ask for the revision.
func hasVersion(name, prev string) []clientv3.Cmp {
	if prev == "" {
		return []clientv3.Cmp{clientv3.Compare(clientv3.CreateRevision(name), "=", 0)}
	}
	from := start(prev)
	last := len(from) - 1
	to := from[:last] + string(from[last]+1)
	return []clientv3.Cmp{
		clientv3.Compare(clientv3.Value(name), ">", from),
		clientv3.Compare(clientv3.Value(name), "<", to),
	}
}

// start returns the text with which the value of every record of this version begins.
// It ends with a quote, so the start of version "v1" is not the start of "v10".
func start(version string) string {
	quoted, _ := json.Marshal(version) // cannot fail: it is a string
	return `{"version":` + string(quoted)
}

// isVersion reports whether value is a record of this version.
func isVersion(value []byte, version string) bool {
	return bytes.HasPrefix(value, []byte(start(version)))
}

// grant returns a lease that ends after removeAfter, or none if that is zero. A Save
// without a lease takes the record out of its lease. If a Save fails, its lease stays
// without a record until it ends.
func (s *Store) grant(ctx context.Context, removeAfter time.Time) (clientv3.LeaseID, error) {
	if removeAfter.IsZero() {
		return clientv3.NoLease, nil
	}
	seconds := int64(math.Ceil(time.Until(removeAfter).Seconds()))
	lease := clientv3.NoLease
	err := s.repeat(ctx, func(ctx context.Context) error {
		resp, err := s.client.Lease.Grant(ctx, min(max(seconds, 1), clientv3.MaxLeaseTTL))
		if err == nil {
			lease = resp.ID
		}
		return err
	})
	return lease, err
}

// cameAfter reports whether the record that was found came after version prev, without
// version between them. It is for a Save of version whose first try got no answer: that
// try may have saved the record, and somebody may have gone on from that. etcd's history
// knows, unless it was compacted, or the record was deleted meanwhile.
func (s *Store) cameAfter(ctx context.Context, found []*mvccpb.KeyValue, prev, version string) bool {
	for range maxBack {
		if len(found) == 0 || isVersion(found[0].Value, version) {
			return false
		}
		if isVersion(found[0].Value, prev) {
			return true
		}
		at := clientv3.WithRev(found[0].ModRevision - 1)
		err := s.repeat(ctx, func(ctx context.Context) error {
			resp, err := s.client.KV.Get(ctx, string(found[0].Key), at)
			if err == nil {
				found = resp.Kvs
			}
			return err
		})
		if err != nil {
			return false
		}
	}
	return false
}
