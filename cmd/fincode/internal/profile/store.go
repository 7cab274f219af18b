package profile

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
	"github.com/redis/go-redis/v9"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/cmd/fincode/internal/failure"
	"github.com/fincodeauth/fincodeauth/filestore"
	"github.com/fincodeauth/fincodeauth/redisstore"
	"github.com/fincodeauth/fincodeauth/sqlstore"
)

// patience is how long a login waits for a store to answer.
const patience = 15 * time.Second

// An Opened is a store that was opened. Close closes its connections.
type Opened struct {
	Store fincodeauth.Store
	Close func() error

	because func(error) error // adds to "no answer" what the client knows; nil: nothing
}

// OpenStore opens the profile's store. The tokens in it are encrypted with the first of
// keys, unless the profile is plain. A store elsewhere gets a Journal, so that a token
// survives the end of the command while the store is down. For a login, it makes what the
// store needs, such as a table, and finds out whether the store can be written to: a
// session that cannot be saved is lost.
func (s State) OpenStore(ctx context.Context, p Profile, keys [][]byte, forLogin bool) (Opened, error) {
	opened, err := s.open(p)
	if err != nil {
		return Opened{}, failure.Wrap(failure.Local, err)
	}
	if forLogin {
		if err := prepare(ctx, opened); err != nil {
			return Opened{}, failure.Wrap(failure.Local, errors.Join(explain(err, p.Store), opened.Close()))
		}
	}
	if p.Store != "" {
		opened.Store, err = fincodeauth.Journal(opened.Store, s.JournalFolder(p))
	}
	if err == nil && !p.Plain {
		opened.Store, err = fincodeauth.Encrypt(opened.Store, keys...)
	}
	if err != nil {
		return Opened{}, failure.Wrap(failure.Local, errors.Join(err, opened.Close()))
	}
	return opened, nil
}

// JournalFolder returns the folder with what the profile's store elsewhere has not accepted
// yet. Each store has its own, because a flag may name another store for the same profile,
// and a token of one store must never be saved in another. A store that gets a new password
// is the same store.
func (s State) JournalFolder(p Profile) string {
	store := p.Store
	if u, err := url.Parse(store); err == nil {
		query := u.Query()
		query.Del("password")
		u.User, u.RawQuery = url.User(u.User.Username()), query.Encode()
		store = u.String()
	}
	sum := sha256.Sum256([]byte(store))
	return filepath.Join(s.Folder(p.Name, "journal"), hex.EncodeToString(sum[:8]))
}

// open opens the store itself.
func (s State) open(p Profile) (Opened, error) {
	scheme, rest, _ := strings.Cut(p.Store, ":")
	switch scheme {
	case "":
		return openFolder(s.Folder(p.Name, "sessions"))
	case "dir":
		return openFolder(strings.TrimPrefix(rest, "//"))
	case "postgres", "postgresql":
		return openPostgreSQL(p.Store)
	case "redis", "rediss":
		return openRedis(p.Store)
	case "etcd", "etcds":
		return openEtcd(p.Store)
	case "kubernetes":
		return openKubernetes(p.Store)
	}
	return Opened{}, CheckStore(p.Store)
}

func openFolder(dir string) (Opened, error) {
	store, err := filestore.New(dir)
	return Opened{Store: store, Close: func() error { return nil }}, err
}

func openPostgreSQL(address string) (Opened, error) {
	db, err := sql.Open("pgx", address)
	if err != nil {
		return Opened{}, explain(err, address)
	}
	db.SetMaxOpenConns(8)
	db.SetConnMaxIdleTime(5 * time.Minute)
	store, err := sqlstore.New(db, sqlstore.PostgreSQL)
	if err != nil {
		return Opened{}, explain(errors.Join(err, db.Close()), address)
	}
	return Opened{Store: store, Close: db.Close}, nil
}

func openRedis(address string) (Opened, error) {
	opts, err := redis.ParseURL(address)
	if err != nil {
		return Opened{}, explain(err, address)
	}
	opts.ContextTimeoutEnabled = true
	client := redis.NewClient(opts)
	store, err := redisstore.New(client)
	if err != nil {
		return Opened{}, explain(errors.Join(err, client.Close()), address)
	}
	return Opened{Store: store, Close: client.Close}, nil
}

// prepare makes what the store needs, and writes a record to it that is as large as a
// session. It removes the record again.
func prepare(ctx context.Context, opened Opened) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("no answer within %v: %w", patience, os.ErrDeadlineExceeded))
	defer cancel()
	store, key := opened.Store, "fincode login, a test "+rand.Text()
	// Load comes first, because many a user of a database may use a table and not make one.
	_, err := store.Load(ctx, key)
	if table, ok := store.(*sqlstore.Store); ok && !errors.Is(err, fincodeauth.ErrNotFound) {
		err = table.Migrate(ctx)
	}
	if err == nil || errors.Is(err, fincodeauth.ErrNotFound) {
		rec := &fincodeauth.Record{Version: rand.Text(), Ended: strings.Repeat("a test of fincode login ", 256)}
		err = errors.Join(store.Save(ctx, key, rec, ""), store.Delete(ctx, key))
	}
	if err == nil || ctx.Err() == nil {
		return err
	}
	if opened.because == nil {
		return context.Cause(ctx)
	}
	return opened.because(context.Cause(ctx))
}

// explain says which store failed. The drivers may quote the address, with a password in it.
func explain(err error, address string) error {
	if address == "" || errors.Is(err, context.Canceled) {
		return err
	}
	return &failure.Error{Status: failure.Local, Do: "check --store, and that it can be reached and written to",
		Err: fmt.Errorf("the store %s: %s", Redacted(address), withoutPassword(err.Error(), address))}
}

// withoutPassword returns text without the address and its password.
func withoutPassword(text, address string) string {
	text = strings.ReplaceAll(text, address, Redacted(address))
	u, err := url.Parse(address)
	if err != nil {
		return "it cannot be opened"
	}
	decoded, _ := u.User.Password()
	_, encoded, _ := strings.Cut(u.User.String(), ":")
	for _, password := range append(u.Query()["password"], decoded, encoded) {
		if password != "" {
			text = strings.ReplaceAll(text, password, "xxxxx")
		}
	}
	return text
}
