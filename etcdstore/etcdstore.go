// Package etcdstore keeps sessions in etcd, for all processes that use the same
// cluster.
//
// Each session is one key, whose value is the record in JSON. Each Save is one
// transaction that compares the version in that JSON. The record holds the tokens as
// plain text, unless fincodeauth.Encrypt wraps the Store.
//
// # What etcd must do
//
// A Save returns after a majority of the members has written the record to its disk.
// So no session is lost while a majority keeps its disks, whoever is the leader. All
// reads are linearizable: a Load returns what the last Save has saved, whichever
// member answers. etcd needs this:
//
//   - Three or five members. One member alone is as durable as its disk.
//   - No --unsafe-no-fsync. With it, a crash of the machines loses sessions.
//   - Room: --quota-backend-bytes, and --auto-compaction-retention, because etcd keeps
//     the old records until a compaction. These hold tokens that were already used.
//     When the quota is reached, etcd refuses every Save.
//   - TLS, and a user for whom a role has the permission readwrite on the prefix:
//     etcdctl role grant-permission --prefix=true ROLE readwrite fincode/
//
// A snapshot that is restored has old records. Processes that remember newer ones save
// them again, and the other sessions may be lost: see docs/stores.md.
//
// # What the client needs
//
// Give the client the Endpoints of all members. It sends each request to the next
// member that it has a connection to. If it has none, a request waits until its
// context ends, so a wrong address and a wrong certificate look like a slow etcd. The
// client writes each try that failed, with the reason, to the standard error.
// Config.Logger changes that. With GRPC_GO_LOG_SEVERITY_LEVEL=info in the environment,
// the reason is written whatever the Logger.
//
// With a Username and a Password, clientv3.New itself calls etcd. If no member answers, it
// fails after DialTimeout, or waits for ever if that is 0.
//
// Set DialKeepAliveTime and DialKeepAliveTimeout to 10 seconds. A member that hangs, or
// whose network is cut, keeps its connections, and the client sends requests there until
// it notices. With these settings that is within 20 seconds. gRPC raises a shorter
// DialKeepAliveTime. Until then, the Store asks the next member if one does not answer
// within a second. Only a Delete, and the first Save of a session, wait until their
// context ends, because it would not be safe to send them again.
//
// A member that has lost the majority answers at once that it has no leader. Then the
// Store tries again, and the client asks the next member. The Store does so for up to
// five seconds, which is enough for etcd to elect a new leader.
//
// A Save that is under way when the leader dies may get no answer. The member that got it
// says so after seven seconds (five, and two election timeouts), and then the Save
// returns an error: it may or may not have happened. fincodeauth finds out with a Load.
// So do not set fincodeauth.Config.RefreshTimeout to much less than its default.
//
// After an error, the client itself repeats a Load. It seldom repeats a Save, and the
// Store recognizes a Save that etcd has executed before. If somebody has changed the
// record since, a Save that the Store has repeated looks for its own record in etcd's
// history. It returns a conflict only if that record is not there.
package etcdstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/fincodeauth/fincodeauth"
)

// A Store is a fincodeauth.Store in etcd. Make one with New: the methods of the zero
// Store return errors. A Store is safe for concurrent use, also by several Stores and
// processes with the same prefix.
type Store struct {
	client *clientv3.Client
	prefix string // ends with a slash
}

// An Option changes the Store that New returns.
type Option func(*Store)

// Prefix sets the text before each session's key in etcd. The default is "fincode/". If
// prefix does not end with a slash, a slash is added. Two Stores with different prefixes
// never share a key, even if one prefix is the beginning of the other: no session's key
// has a slash in etcd, because the Store escapes it with url.PathEscape.
func Prefix(prefix string) Option {
	return func(s *Store) { s.prefix = prefix }
}

// New returns a Store in the etcd of client. The client must stay open as long as the
// Store is in use. The comment of the package says which settings the client needs. New
// does not call etcd.
func New(client *clientv3.Client, opts ...Option) (*Store, error) {
	if client == nil || client.KV == nil || client.Lease == nil || client.Ctx() == nil {
		return nil, errors.New("etcdstore: client is nil or was not made by clientv3.New: call that")
	}
	s := &Store{client: client, prefix: "fincode/"}
	for i, opt := range opts {
		if opt == nil {
			return nil, fmt.Errorf("etcdstore: option %d is nil: leave it out", i+1)
		}
		opt(s)
	}
	if s.prefix == "" {
		return nil, errors.New("etcdstore: Prefix is empty, and Keys would list the keys of all programs: " +
			`use a name such as "fincode/", or leave Prefix out`)
	}
	if !strings.HasSuffix(s.prefix, "/") {
		s.prefix += "/"
	}
	return s, nil
}

// name returns the name of a session's key in etcd.
func (s *Store) name(key string) string { return s.prefix + url.PathEscape(key) }

// Load implements fincodeauth.Store. It makes one linearizable read.
func (s *Store) Load(ctx context.Context, key string) (*fincodeauth.Record, error) {
	rec, err := s.load(ctx, key)
	if err != nil {
		return nil, fmt.Errorf("etcdstore: load %q: %w", key, err)
	}
	return rec, nil
}

func (s *Store) load(ctx context.Context, key string) (*fincodeauth.Record, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	var resp *clientv3.GetResponse
	err := s.repeat(ctx, func(ctx context.Context) (err error) {
		resp, err = s.client.KV.Get(ctx, s.name(key)) // linearizable by default
		return err
	})
	if err != nil {
		return nil, err
	}
	if len(resp.Kvs) == 0 {
		return nil, fincodeauth.ErrNotFound
	}
	return decode(resp.Kvs[0].Value)
}

// decode returns the record in a value. A value that begins with anything else than
// Save writes is damaged, even if it is a record in JSON: every Save over it would
// conflict.
func decode(value []byte) (*fincodeauth.Record, error) {
	rec := new(fincodeauth.Record)
	if json.Unmarshal(value, rec) != nil || rec.Version == "" || !isVersion(value, rec.Version) {
		return nil, errors.New("its record is damaged: restore it, or call Sessions.Forget, then log in again")
	}
	return rec, nil
}

// Delete implements fincodeauth.Store. It also removes a damaged record.
func (s *Store) Delete(ctx context.Context, key string) error {
	err := s.check()
	if err == nil {
		err = s.once(ctx, func(ctx context.Context) error {
			_, err := s.client.KV.Delete(ctx, s.name(key))
			return err
		})
	}
	if err != nil {
		return fmt.Errorf("etcdstore: delete %q: %w", key, err)
	}
	return nil
}

// String returns the prefix. It shows no address and no password.
func (s *Store) String() string {
	if s.check() != nil {
		return "etcdstore(not made by New)"
	}
	return fmt.Sprintf("etcdstore(%s)", s.prefix)
}

// Format prints what String returns, whatever the verb.
func (s *Store) Format(f fmt.State, _ rune) { fmt.Fprint(f, s.String()) }

// check refuses a nil Store and a zero one.
func (s *Store) check() error {
	if s == nil || s.client == nil {
		return errors.New("the Store was not made by etcdstore.New: call that")
	}
	return nil
}
