package integration

// CockroachDB, YugabyteDB and Aurora speak PostgreSQL's or MySQL's protocol. They do
// not run here. These tests let PostgreSQL and MariaDB do what those databases
// document: they let statements fail because of other transactions, also at the commit,
// or with an unknown outcome.

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/sqlstore"
)

const contenders = 20

func TestOneSaveWinsAtEveryIsolation(t *testing.T) {
	for name, at := range map[string]struct {
		sqlDatabase
		dsn string
	}{
		"PostgreSQL/RepeatableRead": {postgres, with(postgresURL, "default_transaction_isolation=repeatable%20read")},
		"PostgreSQL/Serializable":   {postgres, with(postgresURL, "default_transaction_isolation=serializable")},
		"MariaDB/Serializable":      {mariaDB, with(mysqlDSN, "tx_isolation=%27SERIALIZABLE%27")},
		"MariaDB/Snapshot":          {mariaDB, with(mysqlDSN, "innodb_snapshot_isolation=ON")},
	} {
		t.Run(name, func(t *testing.T) {
			store := openTable(t, at.sqlDatabase, at.dsn).Store
			prev := ""
			for range 20 {
				prev = contend(t, store, prev, func() {})
			}
		})
	}
}

// Another transaction changes the row while each Save waits for it. At these levels of
// isolation, PostgreSQL lets each of the Saves fail with 40001 then.
func TestSerializationFailureIsTriedAgain(t *testing.T) {
	for _, level := range []string{"repeatable read", "serializable"} {
		t.Run(level, func(t *testing.T) {
			tab, failures := openCounted(t, level)
			prev := contend(t, tab.Store, "", func() {})
			failures.Store(0)
			const rounds = 5
			for range rounds {
				prev = contend(t, tab.Store, prev, tab.touchWhileSavesWait(t))
			}
			if n := failures.Load(); n < rounds*contenders {
				t.Errorf("%d serialization failures, want %d or more", n, rounds*contenders)
			}
		})
	}
}

// contend lets many goroutines replace the version prev, and calls meanwhile after they
// were started. One of them must win, and the others must get ErrConflict. It returns
// the winner's version.
func contend(t *testing.T, store fincodeauth.Store, prev string, meanwhile func()) string {
	t.Helper()
	var saves sync.WaitGroup
	won := make(chan string, contenders)
	for range contenders {
		rec := &fincodeauth.Record{Version: unique("v")}
		saves.Go(func() {
			err := store.Save(t.Context(), "alice", rec, prev)
			if err == nil {
				won <- rec.Version
			} else if !errors.Is(err, fincodeauth.ErrConflict) {
				t.Error(err)
			}
		})
	}
	meanwhile()
	saves.Wait()
	if len(won) != 1 {
		t.Fatalf("%d Saves over %q succeeded, want 1", len(won), prev)
	}
	version := <-won
	if rec, err := store.Load(t.Context(), "alice"); err != nil || rec.Version != version {
		t.Fatalf("Load = %v, %v; want version %s", rec, err, version)
	}
	return version
}

// touchWhileSavesWait locks the row of tab, and changes it. The function that it returns
// commits that when all contenders wait for the row.
func (tab table) touchWhileSavesWait(t *testing.T) func() {
	t.Helper()
	tx, err := openSQL(t, postgres, postgresURL).BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.ExecContext(t.Context(), "UPDATE "+tab.name+" SET updated_at = now()"); err != nil {
		t.Fatal(err)
	}
	return func() {
		eventually(t, "all Saves wait for the row", func() bool {
			var waiting int
			// Not in tx, which would see the same statistics each time.
			err := tab.db.QueryRowContext(t.Context(), "SELECT count(*) FROM pg_stat_activity"+
				" WHERE wait_event_type = 'Lock' AND query LIKE $1", `UPDATE "`+tab.name+`"%`).Scan(&waiting)
			if err != nil {
				t.Fatal(err)
			}
			return waiting == contenders
		})
		if err := tx.Commit(); err != nil {
			t.Fatal(err)
		}
	}
}

// A failureCount counts the statements that PostgreSQL refused with 40001.
type failureCount struct{ atomic.Int64 }

func (*failureCount) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	return ctx
}

func (c *failureCount) TraceQueryEnd(_ context.Context, _ *pgx.Conn, end pgx.TraceQueryEndData) {
	if e, ok := errors.AsType[*pgconn.PgError](end.Err); ok && e.Code == "40001" {
		c.Add(1)
	}
}

// openCounted makes a Store in a new table of PostgreSQL, for connections at a level of
// isolation.
func openCounted(t *testing.T, level string) (table, *failureCount) {
	t.Helper()
	openSQL(t, postgres, postgresURL) // skips the test if there is none
	config, err := pgx.ParseConfig(postgresURL)
	if err != nil {
		t.Fatal(err)
	}
	failures := new(failureCount)
	config.Tracer = failures
	config.RuntimeParams["default_transaction_isolation"] = level
	db := stdlib.OpenDB(*config)
	t.Cleanup(func() { db.Close() })
	db.SetMaxIdleConns(contenders)
	tab := newTable(t, postgres, db)
	if err := tab.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	return tab, failures
}

// refusals are errors after which a statement had no effect, in the words of
// CockroachDB, YugabyteDB and Aurora DSQL.
var refusals = []refusal{
	{"40001", "restart transaction: TransactionRetryWithProtoRefreshError: TransactionRetryError: retry txn (RETRY_SERIALIZABLE)"},
	{"40001", "could not serialize access due to concurrent update"},
	{"40001", "change conflicts with another transaction, please retry: (OC000)"},
	{"40P01", "deadlock detected"},
}

// unknowns are errors after which a statement may have had its effect.
var unknowns = []refusal{
	{"40003", "result is ambiguous: error=context deadline exceeded"},
	{"40003", "result is ambiguous: restart transaction (SQLSTATE 40001)"},
	{"XX000", "Timed out: UpdateTransaction RPC (request call id 321) to 127.0.0.1:9100 timed out after 0.001s"},
}

// A refusal is an error that PostgreSQL returns because a trigger raises it.
type refusal struct{ state, text string }

// moment says when a trigger runs, and what it is.
type moment string

const (
	atStatement moment = "TRIGGER %[1]s BEFORE INSERT OR UPDATE OR DELETE ON %[1]s FOR EACH STATEMENT"
	atCommit    moment = "CONSTRAINT TRIGGER %[1]s AFTER INSERT OR UPDATE OR DELETE ON %[1]s" +
		" DEFERRABLE INITIALLY DEFERRED FOR EACH ROW"
)

var moments = map[string]moment{"Statement": atStatement, "Commit": atCommit}

// refuse lets the next n attempts to change a row of tab fail. attempts returns how many
// attempts there were since then.
func (tab table) refuse(t *testing.T, r refusal, at moment, n int) (attempts func() int) {
	t.Helper()
	seq := unique(tab.name + "_")
	run := func(format string, args ...any) {
		t.Helper()
		if _, err := tab.db.ExecContext(context.WithoutCancel(t.Context()), fmt.Sprintf(format, args...)); err != nil {
			t.Fatal(err)
		}
	}
	// A transaction that fails does not undo nextval.
	run("CREATE SEQUENCE %s", seq)
	run(`CREATE FUNCTION %s() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		IF nextval('%[1]s') <= %[2]d THEN
			RAISE EXCEPTION USING ERRCODE = '%[3]s', MESSAGE = '%[4]s';
		END IF;
		RETURN NULL;
	END $$`, seq, n, r.state, r.text)
	run("CREATE "+string(at)+" EXECUTE FUNCTION %[2]s()", tab.name, seq)
	t.Cleanup(func() {
		run("DROP FUNCTION %s CASCADE", seq)
		run("DROP SEQUENCE %s", seq)
	})
	return func() int {
		var attempts int
		if err := tab.db.QueryRowContext(t.Context(), "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM "+seq).Scan(&attempts); err != nil {
			t.Fatal(err)
		}
		return attempts
	}
}

// changes are the calls that change a record, in an order in which all succeed.
var changes = []struct {
	name string
	call func(context.Context, *sqlstore.Store) error
}{
	{"FirstSave", func(ctx context.Context, s *sqlstore.Store) error {
		return s.Save(ctx, "alice", &fincodeauth.Record{Version: "v1"}, "")
	}},
	{"Save", func(ctx context.Context, s *sqlstore.Store) error {
		return s.Save(ctx, "alice", &fincodeauth.Record{Version: "v2"}, "v1")
	}},
	{"Delete", func(ctx context.Context, s *sqlstore.Store) error { return s.Delete(ctx, "alice") }},
}

func TestRefusedTransactionIsTriedAgain(t *testing.T) {
	const failures = 3
	for name, at := range moments {
		for _, r := range refusals {
			tab := openTable(t, postgres, postgresURL)
			for _, change := range changes {
				t.Run(name+"/"+r.state+"/"+change.name, func(t *testing.T) {
					attempts := tab.refuse(t, r, at, failures)
					if err := change.call(t.Context(), tab.Store); err != nil {
						t.Errorf("%v after %q", err, r.text)
					}
					if n := attempts(); n != failures+1 {
						t.Errorf("%d attempts, want %d", n, failures+1)
					}
				})
			}
		}
	}
}

func TestUnknownOutcomeIsNotTriedAgain(t *testing.T) {
	for name, at := range moments {
		for _, r := range unknowns {
			tab := openTable(t, postgres, postgresURL)
			for _, change := range changes {
				t.Run(name+"/"+r.state+"/"+change.name, func(t *testing.T) {
					attempts := tab.refuse(t, r, at, 1)
					wantError(t, change.name, change.call(t.Context(), tab.Store), "(SQLSTATE "+r.state+")")
					if n := attempts(); n != 1 {
						t.Errorf("%d attempts, want 1", n)
					}
					// The next change needs this one.
					if err := change.call(t.Context(), tab.Store); err != nil {
						t.Error(err)
					}
				})
			}
		}
	}
}

// After a failover of Aurora, a connection may lead to what is now a reader.
func TestReadOnlyConnectionIsNoConflict(t *testing.T) {
	tab := openTable(t, postgres, postgresURL)
	if err := tab.Save(t.Context(), "alice", &fincodeauth.Record{Version: "v1"}, ""); err != nil {
		t.Fatal(err)
	}
	readOnly := with(postgresURL, "default_transaction_read_only=on")
	reader, err := sqlstore.New(openSQL(t, postgres, readOnly), sqlstore.PostgreSQL, sqlstore.Table(tab.name))
	if err != nil {
		t.Fatal(err)
	}
	for _, change := range changes {
		wantError(t, change.name, change.call(t.Context(), reader), "(SQLSTATE 25006)")
	}
}

// This is why docs/stores.md asks for target_session_attrs.
func TestReadOnlyConnectionCanBeRefused(t *testing.T) {
	openSQL(t, postgres, postgresURL) // skips the test if there is none
	config, err := pgx.ParseConfig(with(postgresURL, "default_transaction_read_only=on&target_session_attrs=read-write"))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.ConnectConfig(t.Context(), config)
	if err == nil {
		conn.Close(t.Context())
	}
	if err == nil || !strings.Contains(err.Error(), "read only connection") {
		t.Errorf("connect = %v, want a refusal of a read only connection", err)
	}
}
