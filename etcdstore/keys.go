package etcdstore

import (
	"context"
	"fmt"
	"iter"
	"net/url"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// page is how many keys Keys reads at once. etcd counts all keys for each page, so a
// small page would make a long list slow.
const page = 10_000

// Keys implements fincodeauth.KeyLister. It reads the keys, without the records, in pages
// of 10,000. Each page shows etcd as it is at that time, so a compaction between two pages
// does no harm.
//
// Keys of a Store with a longer prefix are left out. If another program has written a key
// that no Store writes, Keys yields an error that names it, and goes on.
func (s *Store) Keys(ctx context.Context) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		err := s.check()
		for from := ""; err == nil; {
			var resp *clientv3.GetResponse
			if resp, err = s.page(ctx, from); err != nil {
				break
			}
			for _, kv := range resp.Kvs {
				from = strings.TrimPrefix(string(kv.Key), s.prefix) + "\x00"
				if more := s.yieldKey(string(kv.Key), yield); !more {
					return
				}
			}
			if err = ctx.Err(); err == nil && !resp.More {
				return
			}
		}
		yield("", fmt.Errorf("etcdstore: list keys: %w", err))
	}
}

// page reads the names of keys that begin with the prefix, from prefix+from on.
func (s *Store) page(ctx context.Context, from string) (resp *clientv3.GetResponse, err error) {
	err = s.repeat(ctx, func(ctx context.Context) error {
		resp, err = s.client.KV.Get(ctx, s.prefix+from, clientv3.WithKeysOnly(), clientv3.WithLimit(page),
			clientv3.WithRange(clientv3.GetPrefixRangeEnd(s.prefix)))
		return err
	})
	return resp, err
}

// yieldKey yields the session's key that is called name in etcd. It returns what yield
// returns.
func (s *Store) yieldKey(name string, yield func(string, error) bool) bool {
	escaped := strings.TrimPrefix(name, s.prefix)
	if strings.Contains(escaped, "/") { // it belongs to a longer prefix
		return true
	}
	key, err := url.PathUnescape(escaped)
	if err != nil || s.name(key) != name {
		return yield("", fmt.Errorf("etcdstore: list keys: %q in etcd is not the key of a session: delete it, or set another Prefix", name))
	}
	return yield(key, nil)
}
