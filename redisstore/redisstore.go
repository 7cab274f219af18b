// Package redisstore keeps sessions in Redis or Valkey, for all processes that use
// the same server. The server may be a single one, one behind Sentinel, or a
// cluster.
//
// Each session is a hash under its own key, with the record in JSON. Each Save is
// a script that compares the version. The record holds the tokens as plain text,
// unless fincodeauth.Encrypt wraps the Store.
//
// # What Redis must do
//
// If Redis loses a rotated token, the session is lost: Redis then has the token
// before it, which was already used, and FinCode refuses that token as a reuse.
// With its default settings, Redis loses up to minutes of writes when it crashes.
// Set
//
//	# keep a log
//	appendonly yes
//	# write to the disk before Save returns; "everysec" may lose a second
//	appendfsync always
//	# other policies may remove sessions that nobody logged out
//	maxmemory-policy noeviction
//
// These settings make a Save durable on one server. Replicas are asynchronous. So
// a failover, by Sentinel or in a cluster, may lose writes that Redis has
// confirmed, whatever appendfsync is. To limit the loss to about a second, let a
// primary that has lost its replicas refuse writes:
//
//	min-replicas-to-write 1
//	# seconds
//	min-replicas-max-lag 1
//
// WAIT does not help, because a replica without the write may still become the
// primary. If a failover must not lose any session, use package sqlstore and a
// database with synchronous replication.
package redisstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"reflect"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fincodeauth/fincodeauth"
)

// margin is the time for which Redis keeps a record after its token has expired,
// and the shortest TTL. A refresh needs the record for some time after the token
// has expired, and so does a Save that waits until Redis is back.
const margin = time.Hour

// A Store is a fincodeauth.Store in Redis. Make one with New: the methods of the
// zero Store return errors. A Store is safe for concurrent use, also by several
// Stores and processes with the same prefix.
type Store struct {
	client redis.UniversalClient
	prefix string
	ttl    time.Duration
}

// An Option changes the Store that New returns.
type Option func(*Store)

// Prefix sets the text before each session's key in Redis. The default is
// "fincode:". If several applications use the same Redis, no prefix of theirs may
// be the beginning of another.
func Prefix(prefix string) Option {
	return func(s *Store) { s.prefix = prefix }
}

// TTL makes Redis remove a session that was not saved for this time. Redis keeps
// the session at least until one hour after its token has expired. Each refresh
// saves the session, so use the time for which FinCode accepts an unused refresh
// token. The shortest TTL is one hour. 0 is the default, and keeps sessions until
// they are deleted.
//
// The record of a Logout is removed after its RemoveAfter, whatever the TTL. A process
// that remembers a session which Redis has removed saves it again when it is used within
// seven days. So TTL frees memory, and does not log idle users out.
func TTL(ttl time.Duration) Option {
	return func(s *Store) { s.ttl = ttl }
}

// New returns a Store in the Redis of client. The client must stay open as long as
// the Store is in use. New does not call Redis.
//
// client is a *redis.Client, for example from redis.NewFailoverClient, or a
// *redis.ClusterClient. It must not read from replicas, because a replica returns
// old records. Set the client's ContextTimeoutEnabled. Without it, a call may take
// longer than its context allows, by up to the client's ReadTimeout.
func New(client redis.UniversalClient, opts ...Option) (*Store, error) {
	if client == nil {
		return nil, errors.New("redisstore: client is nil: make one with redis.NewUniversalClient")
	}
	if v := reflect.ValueOf(client); v.Kind() == reflect.Pointer && v.IsNil() {
		return nil, fmt.Errorf("redisstore: client is a nil %T: make one with redis.NewUniversalClient", client)
	}
	s := &Store{client: client, prefix: "fincode:"}
	for i, opt := range opts {
		if opt == nil {
			return nil, fmt.Errorf("redisstore: option %d is nil: leave it out", i+1)
		}
		opt(s)
	}
	switch c := client.(type) {
	case *redis.Ring:
		return nil, errors.New("redisstore: client is a Ring, and two Rings may look for a session on different servers: use a cluster")
	case *redis.ClusterClient:
		if c.Options().ReadOnly {
			return nil, errors.New("redisstore: client reads from replicas, which return old records: " +
				"set none of ReadOnly, RouteByLatency and RouteRandomly")
		}
	}
	if s.ttl != 0 && s.ttl < margin {
		return nil, fmt.Errorf("redisstore: TTL is %v, and Redis removes a session that was not saved for that long: "+
			"use at least %v, or better weeks, or 0 to keep sessions until they are deleted", s.ttl, margin)
	}
	return s, nil
}

// save replaces version ARGV[1] by version ARGV[2] with the record ARGV[3]. Redis
// removes the record after ARGV[4] milliseconds, or never if that is 0. save
// returns 1 if version ARGV[2] is there in the end. That is also so if it was there
// before, because the client sends a script again if it did not get the answer.
var save = redis.NewScript(`
local version = redis.call('HGET', KEYS[1], 'version') or ''
if version == ARGV[2] then
	return 1
end
if version ~= ARGV[1] then
	return 0
end
redis.call('HSET', KEYS[1], 'version', ARGV[2], 'record', ARGV[3])
if ARGV[4] == '0' then
	redis.call('PERSIST', KEYS[1])
else
	redis.call('PEXPIRE', KEYS[1], ARGV[4])
end
return 1
`)

// remove deletes a hash. If the key has another type, another program uses it, and
// remove returns the error of HLEN, which begins with WRONGTYPE. With redis.call,
// the error of an old Redis would begin with other words.
var remove = redis.NewScript(`
local length = redis.pcall('HLEN', KEYS[1])
if type(length) == 'table' then
	return length
end
return redis.call('DEL', KEYS[1])
`)

// Load implements fincodeauth.Store.
func (s *Store) Load(ctx context.Context, key string) (*fincodeauth.Record, error) {
	if err := s.check(); err != nil {
		return nil, fmt.Errorf("redisstore: load %q: %w", key, err)
	}
	fields, err := s.client.HMGet(ctx, s.prefix+key, "version", "record").Result()
	if err != nil {
		return nil, fmt.Errorf("redisstore: load %q: %w", key, explain(ctx, err))
	}
	rec, err := decode(fields)
	if err != nil {
		return nil, fmt.Errorf("redisstore: load %q: %w", key, err)
	}
	return rec, nil
}

// decode returns the record in the fields version and record. A field that is
// missing is nil.
func decode(fields []any) (*fincodeauth.Record, error) {
	version, _ := fields[0].(string)
	data, _ := fields[1].(string)
	if version == "" && data == "" {
		return nil, fincodeauth.ErrNotFound
	}
	rec := new(fincodeauth.Record)
	// A Save over a record whose field has another version would always conflict.
	if json.Unmarshal([]byte(data), rec) != nil || rec.Version == "" || rec.Version != version {
		return nil, errors.New("its record is damaged: restore it, or call Sessions.Forget, then log in again")
	}
	return rec, nil
}

// Save implements fincodeauth.Store.
func (s *Store) Save(ctx context.Context, key string, rec *fincodeauth.Record, prev string) error {
	err := s.check()
	if err == nil {
		err = s.save(ctx, key, rec, prev)
	}
	if err != nil {
		return fmt.Errorf("redisstore: save %q: %w", key, explain(ctx, err))
	}
	return nil
}

func (s *Store) save(ctx context.Context, key string, rec *fincodeauth.Record, prev string) error {
	data, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	saved, err := save.Run(ctx, s.client, []string{s.prefix + key},
		prev, rec.Version, data, s.lifeOf(rec).Milliseconds()).Bool()
	if err == nil && !saved {
		return fincodeauth.ErrConflict
	}
	return err
}

// lifeOf returns the time for which Redis must keep rec. 0 means until rec is
// deleted.
func (s *Store) lifeOf(rec *fincodeauth.Record) time.Duration {
	if !rec.RemoveAfter.IsZero() {
		return max(time.Until(rec.RemoveAfter), time.Second)
	}
	if s.ttl == 0 || rec.Token == nil || rec.Token.Expiry.IsZero() {
		return s.ttl
	}
	return max(s.ttl, time.Until(rec.Token.Expiry)+margin)
}

// Delete implements fincodeauth.Store. It also removes a damaged record. It does not
// remove a key of another type than a hash, because another program uses that key.
func (s *Store) Delete(ctx context.Context, key string) error {
	err := s.check()
	if err == nil {
		err = remove.Run(ctx, s.client, []string{s.prefix + key}).Err()
	}
	if err != nil {
		return fmt.Errorf("redisstore: delete %q: %w", key, explain(ctx, err))
	}
	return nil
}

// Keys implements fincodeauth.KeyLister, with SCAN. It visits the masters of a cluster one
// after the other. It needs Redis 6 or Valkey.
func (s *Store) Keys(ctx context.Context) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		if err := s.scanAll(ctx, func(key string) bool { return yield(key, nil) }); err != nil {
			yield("", fmt.Errorf("redisstore: list keys: %w", explain(ctx, err)))
		}
	}
}

// scanAll scans each master until yield returns false.
func (s *Store) scanAll(ctx context.Context, yield func(key string) bool) error {
	if err := s.check(); err != nil {
		return err
	}
	masters := []redis.Cmdable{s.client}
	if cluster, ok := s.client.(*redis.ClusterClient); ok {
		var mu sync.Mutex // ForEachMaster calls its function concurrently
		masters = nil
		err := cluster.ForEachMaster(ctx, func(_ context.Context, c *redis.Client) error {
			mu.Lock()
			defer mu.Unlock()
			masters = append(masters, c)
			return nil
		})
		if err != nil {
			return err
		}
	}
	for _, master := range masters {
		if more, err := s.scan(ctx, master, yield); err != nil || !more {
			return err
		}
	}
	return nil
}

// scan scans one master. more is false if yield has returned false.
func (s *Store) scan(ctx context.Context, master redis.Cmdable, yield func(key string) bool) (more bool, err error) {
	pattern := literal.Replace(s.prefix) + "*"
	for cursor := uint64(0); ; {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		keys, next, err := master.ScanType(ctx, cursor, pattern, 1000, "hash").Result()
		if err != nil {
			return false, err
		}
		for _, key := range keys {
			if !yield(strings.TrimPrefix(key, s.prefix)) {
				return false, nil
			}
		}
		if next == 0 {
			return true, ctx.Err()
		}
		cursor = next
	}
}

// literal makes a text stand for itself in a pattern of Redis.
var literal = strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`)

// String returns the prefix. It shows no address and no password.
func (s *Store) String() string {
	if s.check() != nil {
		return "redisstore(not made by New)"
	}
	return fmt.Sprintf("redisstore(%s)", s.prefix)
}

// Format prints what String returns, whatever the verb.
func (s *Store) Format(f fmt.State, _ rune) { fmt.Fprint(f, s.String()) }

// check refuses a nil Store and a zero one.
func (s *Store) check() error {
	if s == nil || s.client == nil {
		return errors.New("the Store was not made by redisstore.New: call that")
	}
	return nil
}

// explain adds to err that the context has ended, or what the user can do.
func explain(ctx context.Context, err error) error {
	cause := ctx.Err()
	switch {
	case cause != nil && !errors.Is(err, cause):
		return fmt.Errorf("%w: %w", cause, err)
	case redis.IsReadOnlyError(err):
		return fmt.Errorf("this Redis is a replica: give the client the primary's address, or Sentinel's: %w", err)
	case redis.IsLoadingError(err):
		return fmt.Errorf("the server has started and is still loading its data, try again soon: %w", err)
	case redis.HasErrorPrefix(err, "WRONGTYPE"):
		return fmt.Errorf("another program uses this key, set another Prefix: %w", err)
	}
	return err
}
