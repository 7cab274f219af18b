// Package sqlstore keeps sessions in one table of PostgreSQL, MySQL, MariaDB or
// SQLite, for all the processes that use the database. It needs nothing but
// database/sql and the driver of your choice.
//
// Each session is a row, and each Save is one statement that names in its WHERE
// the version that it replaces. A row is locked, and a connection in use, for
// the length of that statement, and neither during a refresh.
//
// # What it asks of the database
//
// A rotated token that the database forgets is a session lost. So a commit must
// be durable, which is the default of each of them; do not relax it:
//
//   - PostgreSQL: synchronous_commit on, and fsync on
//   - MySQL, MariaDB: innodb_flush_log_at_trx_commit = 1, and sync_binlog = 1 if
//     a replica may take over
//   - SQLite: PRAGMA synchronous = FULL; WAL is the fastest journal_mode
//
// After a failover to a replica that copies asynchronously, the last commits are
// gone: use synchronous replication. Let the *sql.DB lead to the primary: a
// replica shows old records.
//
// The table holds the tokens in the clear, unless the Store is wrapped by
// fincodeauth.Encrypt.
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

// A Store is a fincodeauth.Store in a table. Make one with New. It is safe for
// concurrent use, also by several Stores and processes with the same table.
type Store struct {
	db  *sql.DB
	sql statements
}

// New returns a Store in db, which must be open, stay open as long as the Store
// is used, and speak the dialect. It makes no call: run Migrate, or apply
// Schema, before the first use.
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

// Migrate makes the table if there is none. Any number of processes may do so
// at once. If there is one it only looks at it, so that it needs no right to
// make tables then.
func (s *Store) Migrate(ctx context.Context) error {
	if err := s.check(); err != nil {
		return fmt.Errorf("sqlstore: migrate: %w", err)
	}
	err := s.again(ctx, harmless(), func() error {
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

// probe tries whether the table is there, with all its columns.
func (s *Store) probe(ctx context.Context) error {
	rows, err := s.db.QueryContext(ctx, s.sql.probe, id(""))
	if err != nil {
		return err
	}
	rows.Next() // some drivers do not ask the database before
	return errors.Join(rows.Err(), rows.Close())
}

// Load implements fincodeauth.Store.
func (s *Store) Load(ctx context.Context, key string) (*fincodeauth.Record, error) {
	if err := s.check(); err != nil {
		return nil, fmt.Errorf("sqlstore: load %q: %w", key, err)
	}
	var data string
	err := s.again(ctx, harmless(), func() error {
		return s.db.QueryRowContext(ctx, s.sql.load, id(key)).Scan(&data)
	})
	rec := new(fincodeauth.Record)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		err = fincodeauth.ErrNotFound
	case err == nil && (json.Unmarshal([]byte(data), rec) != nil || rec.Version == ""):
		err = fmt.Errorf("its record in table %s is damaged: restore it, or call Sessions.Forget, then log in again", s.sql.table)
	}
	if err != nil {
		return nil, fmt.Errorf("sqlstore: load %q: %w", key, s.explain(ctx, err))
	}
	return rec, nil
}

// Save implements fincodeauth.Store.
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
	data, err := json.Marshal(rec)
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
	return s.again(ctx, passing, func() error {
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
	err := s.again(ctx, passing, func() error { return s.exec(ctx, s.sql.delete, id(key)) })
	if err != nil {
		return fmt.Errorf("sqlstore: delete %q: %w", key, s.explain(ctx, err))
	}
	return nil
}

// String names the table, without the database's address and password.
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

// id is a row's primary key: databases differ in what text they take for equal
// and how much of it they index, but not about a hash.
func id(key string) string {
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:])
}

// legible returns text as every database takes it in a column for people.
func legible(text string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(text, "\uFFFD"), "\x00", "\uFFFD")
}
