// Package sqlstore keeps sessions in one table of PostgreSQL, MySQL, MariaDB or
// SQLite, for all processes that use the database. It needs only database/sql and
// the driver of your choice.
//
// Each session is a row. Each Save is a single statement, whose WHERE names the
// version that it replaces. The Store uses a connection, and locks a row, only
// while a statement runs. During a refresh it does neither.
//
// # What the database must do
//
// If the database loses a rotated token, the session is lost. So a commit must be
// durable. It is, in each of these databases, unless you change their settings:
//
//   - PostgreSQL: synchronous_commit is on, and fsync is on.
//   - MySQL, MariaDB: innodb_flush_log_at_trx_commit is 1. If a replica may become
//     the primary, also set sync_binlog to 1.
//   - SQLite: PRAGMA synchronous is FULL. The fastest journal_mode is WAL.
//
// After a failover to an asynchronous replica, the last commits are lost: use
// synchronous replication. The *sql.DB must be connected to the primary, because a
// replica returns old records.
//
// # What the table holds
//
// The column id identifies a session: it is a hash of the session's key, so that a
// key may be any string. The column session is a copy of the key for people. It
// shows NUL and invalid UTF-8, which some databases refuse, as U+FFFD. If the key has
// those, it is in the column record, too, in Base64.
//
// The column record holds the tokens as plain text, unless fincodeauth.Encrypt
// wraps the Store.
package sqlstore

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/fincodeauth/fincodeauth"
)

// A Store is a fincodeauth.Store in a table. Make one with New: the methods of the
// zero Store return errors. A Store is safe for concurrent use, also by several
// Stores and processes with the same table.
type Store struct {
	db  *sql.DB
	sql statements
}

// New returns a Store in db. db must understand the dialect, and must stay open as
// long as the Store is in use. New does not call the database. Before the first
// use, run Migrate or apply Schema.
func New(db *sql.DB, d Dialect, opts ...Option) (*Store, error) {
	if db == nil {
		return nil, errors.New("sqlstore: db is nil: open it with sql.Open")
	}
	statements, err := newStatements(d, opts)
	if err != nil {
		return nil, err
	}
	return &Store{db: db, sql: statements}, nil
}

// Migrate makes the table if there is none. Any number of processes may call
// Migrate at the same time. If the table exists, Migrate only reads it, and so
// needs no right to make tables.
func (s *Store) Migrate(ctx context.Context) error {
	if err := s.check(); err != nil {
		return fmt.Errorf("sqlstore: migrate: %w", err)
	}
	err := s.retry(ctx, repeatable(), func() error {
		err := s.probe(ctx)
		if err != nil && marked(err, missingTable) {
			return s.exec(ctx, s.sql.create)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("sqlstore: migrate %s: %w", s.sql.table, s.explain(ctx, err))
	}
	return nil
}

// probe returns an error if the table or one of its columns is missing.
func (s *Store) probe(ctx context.Context) error {
	rows, err := s.db.QueryContext(ctx, s.sql.probe, id(""))
	if err != nil {
		return err
	}
	rows.Next() // some drivers call the database only now
	return errors.Join(rows.Err(), rows.Close())
}

// Load implements fincodeauth.Store.
func (s *Store) Load(ctx context.Context, key string) (*fincodeauth.Record, error) {
	if err := s.check(); err != nil {
		return nil, fmt.Errorf("sqlstore: load %q: %w", key, err)
	}
	var version, data string
	err := s.retry(ctx, repeatable(), func() error {
		return s.db.QueryRowContext(ctx, s.sql.load, id(key)).Scan(&version, &data)
	})
	rec := new(fincodeauth.Record)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		err = fincodeauth.ErrNotFound
	// A Save over a record whose column has another version would always conflict.
	case err == nil && (json.Unmarshal([]byte(data), rec) != nil || rec.Version == "" || rec.Version != version):
		err = fmt.Errorf("its record in table %s is damaged: restore it, or call Sessions.Forget, then log in again", s.sql.table)
	}
	if err != nil {
		return nil, fmt.Errorf("sqlstore: load %q: %w", key, s.explain(ctx, err))
	}
	return rec, nil
}

// Save implements fincodeauth.Store. It does not try again after the connection
// broke, because the statement may have had its effect.
func (s *Store) Save(ctx context.Context, key string, rec *fincodeauth.Record, prev string) error {
	if err := s.check(); err != nil {
		return fmt.Errorf("sqlstore: save %q: %w", key, err)
	}
	err := s.save(ctx, key, rec, prev)
	if err != nil {
		return fmt.Errorf("sqlstore: save %q: %w", key, s.explain(ctx, err))
	}
	return nil
}

func (s *Store) save(ctx context.Context, key string, rec *fincodeauth.Record, prev string) error {
	data, err := encode(key, rec)
	if err != nil {
		return err
	}
	var expiry time.Time
	if rec.Token != nil {
		expiry = rec.Token.Expiry
	}
	statement := s.sql.insert
	args := []any{rec.Version, string(data), legible(key), s.sql.time(expiry), s.sql.time(rec.RefreshStarted),
		sql.NullString{String: legible(rec.Ended), Valid: rec.Ended != ""}, s.sql.time(time.Now()), id(key)}
	if prev != "" {
		statement = s.sql.update
		args = append(args, prev)
	}
	return s.retry(ctx, temporary, func() error {
		result, err := s.db.ExecContext(ctx, statement, args...)
		if err != nil && prev == "" && marked(err, duplicateKey) {
			return fincodeauth.ErrConflict
		}
		if err != nil {
			return err
		}
		n, err := result.RowsAffected()
		if err == nil && n == 0 {
			return fincodeauth.ErrConflict
		}
		return err
	})
}

// Delete implements fincodeauth.Store. It also removes a damaged record.
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := s.check(); err != nil {
		return fmt.Errorf("sqlstore: delete %q: %w", key, err)
	}
	err := s.retry(ctx, temporary, func() error { return s.exec(ctx, s.sql.delete, id(key)) })
	if err != nil {
		return fmt.Errorf("sqlstore: delete %q: %w", key, s.explain(ctx, err))
	}
	return nil
}

// String returns the dialect and the table. It shows no address and no password.
func (s *Store) String() string {
	if s.check() != nil {
		return "sqlstore(not made by New)"
	}
	return fmt.Sprintf("sqlstore(%v, %s)", s.sql.dialect, s.sql.table)
}

// Format prints what String returns, whatever the verb.
func (s *Store) Format(f fmt.State, _ rune) { fmt.Fprint(f, s.String()) }

// check refuses a nil Store and a zero one.
func (s *Store) check() error {
	if s == nil || s.db == nil {
		return errors.New("the Store was not made by sqlstore.New: call that")
	}
	return nil
}

func (s *Store) exec(ctx context.Context, statement string, args ...any) error {
	_, err := s.db.ExecContext(ctx, statement, args...)
	return err
}

// id returns the primary key of the row for key. It is a hash, because databases
// differ in which texts they call equal, which characters they can hold, and how
// long a key may be. They all agree about a hash.
func id(key string) string {
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:])
}

// legible returns text without what some databases refuse: NUL and invalid UTF-8.
// It is only for columns that people read.
func legible(text string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(text, "\uFFFD"), "\x00", "\uFFFD")
}
