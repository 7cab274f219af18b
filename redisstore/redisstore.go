// Package redisstore keeps sessions in Redis or Valkey, for all the processes
// that use it: a single server, one behind Sentinel, or a cluster.
//
// Each session is a hash under a key of its own, with the record in JSON, and
// each Save a script that compares the version. The record holds the tokens in
// the clear, unless the Store is wrapped by fincodeauth.Encrypt.
//
// # What it asks of Redis
//
// A rotated token that Redis forgets is a session lost: what comes back is the
// token before, which was used, and FinCode refuses it as a reuse. As it is
// installed, Redis forgets up to minutes of writes when it crashes. Set
//
//	# keep a log
//	appendonly yes
//	# on disk before Save returns; "everysec" forgets a second
//	appendfsync always
//	# any other may evict sessions that nobody logged out
//	maxmemory-policy noeviction
//
// That makes a Save durable on one server. Replicas copy asynchronously, so a
// failover, by Sentinel or in a cluster, can forget writes that were
// acknowledged, whatever appendfsync says. To keep that to the writes of a
// moment, let a primary that lost its replicas refuse to write:
//
//	min-replicas-to-write 1
//	# seconds
//	min-replicas-max-lag 1
//
// WAIT would not change it: a replica without the write may still be the one
// that is promoted. Where no session may be lost in a failover, use package
// sqlstore on a database that copies synchronously.
package redisstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fincodeauth/fincodeauth"
)

// margin is how much longer than its token a record is kept, and the least TTL:
// a refresh, and a save that waits for Redis to come back, must find it.
const margin = time.Hour

// A Store is a fincodeauth.Store in Redis. Make one with New. It is safe for
// concurrent use, also by several Stores and processes with the same prefix.
type Store struct {
	client redis.UniversalClient
	prefix string
	ttl    time.Duration
}

// An Option changes what New makes.
type Option func(*Store)

// Prefix is what each session's key begins with in Redis. Without it that is
// "fincode:".
func Prefix(prefix string) Option {
	return func(s *Store) { s.prefix = prefix }
}

// TTL makes Redis forget a session that was not saved for that long, at least an
// hour, but never before its token expired an hour ago. A session is saved
// whenever it is refreshed, so take the time for which FinCode accepts an
// unused refresh token. 0, as without it: sessions stay until they are deleted.
func TTL(ttl time.Duration) Option {
	return func(s *Store) { s.ttl = ttl }
}

// New returns a Store in the Redis that client leads to, which must stay open as
// long as the Store is used. It makes no call.
//
// client is a *redis.Client, one made by redis.NewFailoverClient among them, or
// a *redis.ClusterClient. It must not read from replicas, which show old
// records. Unless its ContextTimeoutEnabled is set, calls in progress outlast
// the deadline of their context, by its ReadTimeout.
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
		return nil, errors.New("redisstore: client is a Ring, whose users may disagree on where a session is: use a cluster")
	case *redis.ClusterClient:
		if c.Options().ReadOnly {
			return nil, errors.New("redisstore: client reads from replicas, which show old records: " +
				"set none of ReadOnly, RouteByLatency and RouteRandomly")
		}
	}
	if s.ttl != 0 && s.ttl < margin {
		return nil, fmt.Errorf("redisstore: TTL is %v, and a session not saved for that long is lost: "+
			"use at least %v, better weeks, or 0 to keep sessions until they are deleted", s.ttl, margin)
	}
	return s, nil
}

// save replaces version ARGV[1] by ARGV[2], with the record ARGV[3], to be
// forgotten after ARGV[4] milliseconds unless that is 0. It returns whether
// ARGV[2] is there: the client sends a script again whose answer was lost.
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

// lifeOf is how long Redis is to keep rec; 0: until it is deleted.
func (s *Store) lifeOf(rec *fincodeauth.Record) time.Duration {
	if s.ttl == 0 || rec.Token == nil || rec.Token.Expiry.IsZero() {
		return s.ttl
	}
	return max(s.ttl, time.Until(rec.Token.Expiry)+margin)
}

// Delete implements fincodeauth.Store. It also removes a damaged record.
func (s *Store) Delete(ctx context.Context, key string) error {
	err := s.check()
	if err == nil {
		err = s.client.Del(ctx, s.prefix+key).Err()
	}
	if err != nil {
		return fmt.Errorf("redisstore: delete %q: %w", key, explain(ctx, err))
	}
	return nil
}

// String names the prefix, without the address and the password of Redis.
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

// explain says in err that the context ended, or what to do about it.
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
