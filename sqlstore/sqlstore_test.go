package sqlstore_test

import (
	"cmp"
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"golang.org/x/oauth2"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/sqlstore"
)

// The tests with real databases are in package integration.

var dialects = []sqlstore.Dialect{sqlstore.PostgreSQL, sqlstore.MySQL, sqlstore.SQLite}

func TestNewSaysWhatIsWrong(t *testing.T) {
	db := open(t, &database{})
	for name, tc := range map[string]struct {
		db      *sql.DB
		dialect sqlstore.Dialect
		opts    []sqlstore.Option
		want    string
	}{
		"NoDB":          {nil, sqlstore.SQLite, nil, "db is nil: open it with sql.Open"},
		"NoDialect":     {db, 0, nil, "unknown dialect Dialect(0): use PostgreSQL, MySQL (for MariaDB too) or SQLite"},
		"WrongDialect":  {db, 4, nil, "unknown dialect Dialect(4): use PostgreSQL, MySQL (for MariaDB too) or SQLite"},
		"QuotedTable":   {db, sqlstore.SQLite, table(`"sessions"`), `table "\"sessions\"": use letters, digits and underscores, at most 63, as in fincode_sessions or auth.fincode_sessions; write no quotes, they are added`},
		"Backticks":     {db, sqlstore.MySQL, table("`sessions`"), "write no quotes"},
		"Injection":     {db, sqlstore.SQLite, table(`a"; DROP TABLE b; --`), "use letters, digits and underscores"},
		"NoTable":       {db, sqlstore.SQLite, table(""), "use letters, digits and underscores"},
		"LineFeed":      {db, sqlstore.SQLite, table("a\n"), "use letters, digits and underscores"},
		"ManySchemas":   {db, sqlstore.SQLite, table("a.b.c"), "use letters, digits and underscores"},
		"LongName":      {db, sqlstore.PostgreSQL, table(strings.Repeat("a", 64)), "at most 63"},
		"DigitFirst":    {db, sqlstore.PostgreSQL, table("1a"), "use letters, digits and underscores"},
		"OtherLetters":  {db, sqlstore.PostgreSQL, table("sessões"), "use letters, digits and underscores"},
		"OnlyTheSchema": {db, sqlstore.PostgreSQL, table("auth."), "use letters, digits and underscores"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := sqlstore.New(tc.db, tc.dialect, tc.opts...); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("New = %v, want %q", err, tc.want)
			}
			if schema := sqlstore.Schema(tc.dialect, tc.opts...); tc.db != nil && schema != "" {
				t.Errorf("Schema = %q, want nothing", schema)
			}
		})
	}
}

func TestNilOptionIsRefused(t *testing.T) {
	opts := []sqlstore.Option{sqlstore.Table("a"), nil}
	want := "sqlstore: option 2 is nil: leave it out"
	if _, err := sqlstore.New(open(t, &database{}), sqlstore.SQLite, opts...); err == nil || err.Error() != want {
		t.Errorf("New = %v, want %s", err, want)
	}
	if schema := sqlstore.Schema(sqlstore.SQLite, opts...); schema != "" {
		t.Errorf("Schema = %q, want nothing", schema)
	}
}

func TestStoreThatNewDidNotMakeReturnsErrors(t *testing.T) {
	for name, s := range map[string]*sqlstore.Store{"nil": nil, "zero": {}} {
		_, loadErr := s.Load(t.Context(), "alice")
		for call, err := range map[string]error{
			"Migrate": s.Migrate(t.Context()),
			"Load":    loadErr,
			"Save":    s.Save(t.Context(), "alice", &fincodeauth.Record{Version: "v1"}, ""),
			"Delete":  s.Delete(t.Context(), "alice"),
		} {
			if want := "the Store was not made by sqlstore.New: call that"; err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s of a %s Store = %v, want %q", call, name, err, want)
			}
		}
		if got := fmt.Sprint(s, s.String()); strings.Contains(got, "PANIC") {
			t.Errorf("a %s Store prints %s", name, got)
		}
	}
}

func table(name string) []sqlstore.Option { return []sqlstore.Option{sqlstore.Table(name)} }

func TestSchemaQuotesTheTable(t *testing.T) {
	for dialect, want := range map[sqlstore.Dialect]string{
		sqlstore.PostgreSQL: `"auth"."Order"`,
		sqlstore.MySQL:      "`auth`.`Order`",
		sqlstore.SQLite:     `"auth"."Order"`,
	} {
		schema := sqlstore.Schema(dialect, sqlstore.Table("auth.Order"))
		if !strings.HasPrefix(schema, "CREATE TABLE IF NOT EXISTS "+want+" (") {
			t.Errorf("%v:\n%s", dialect, schema)
		}
	}
}

func TestSaveIsOneStatementWithTheVersionInIt(t *testing.T) {
	for _, dialect := range dialects {
		d := &database{}
		store := newStore(t, d, dialect)
		save(t, store, "v1", "")
		save(t, store, "v2", "v1")
		if len(d.statements) != 2 || !strings.HasPrefix(d.statements[0], "INSERT ") || !strings.HasPrefix(d.statements[1], "UPDATE ") {
			t.Errorf("%v: two saves made the statements %q", dialect, d.statements)
		}
		where, ok := strings.CutPrefix(d.statements[1][strings.LastIndex(d.statements[1], " WHERE "):], " WHERE id = ")
		if !ok || !strings.Contains(where, " AND version = ") || d.args[len(d.args)-1] != "v1" {
			t.Errorf("%v: the update does not depend on the version: %s", dialect, d.statements[1])
		}
	}
}

// A stateError has a SQLSTATE, as the errors of pgx and lib/pq have.
type stateError string

func (e stateError) Error() string    { return "that did not work" }
func (e stateError) SQLState() string { return string(e) }

func TestTemporaryErrorsAreTriedAgain(t *testing.T) {
	for _, temporary := range []error{
		stateError("40001"),
		fmt.Errorf("wrapped: %w", stateError("40P01")),
		serverError{"40001", "restart transaction: TransactionRetryWithProtoRefreshError: TransactionRetryError: retry txn (RETRY_SERIALIZABLE)"},
		serverError{"40001", "could not serialize access due to concurrent update"},
		serverError{"40001", "change conflicts with another transaction, please retry: (OC000)"},
		errors.New("Error 1213 (40001): Deadlock found when trying to get lock; try restarting transaction"),
		errors.New("database is locked (5) (SQLITE_BUSY)"),
		errors.New("database table is locked"),
	} {
		d := &database{errs: []error{temporary, temporary}}
		save(t, newStore(t, d, sqlstore.SQLite), "v1", "")
		if len(d.statements) != 3 {
			t.Errorf("%v: %d attempts, want 3", temporary, len(d.statements))
		}
	}
}

// A serverError is an error with a SQLSTATE, and with a text as servers write it.
type serverError struct{ state, text string }

func (e serverError) Error() string    { return fmt.Sprintf("ERROR: %s (SQLSTATE %s)", e.text, e.state) }
func (e serverError) SQLState() string { return e.state }

// unknown are errors after which a statement may have had its effect.
var unknown = []error{
	// CockroachDB's ambiguous result may quote the failure that led to it.
	serverError{"40003", "result is ambiguous: error=context deadline exceeded"},
	serverError{"40003", "result is ambiguous: replica unavailable: restart transaction (SQLSTATE 40001)"},
	serverError{"08006", "connection failure"},
	serverError{"08007", "transaction resolution unknown"},
	serverError{"57P01", "server is shutting down"},
	serverError{"XX000", "Timed out: UpdateTransaction RPC (request call id 321) to 127.0.0.1:9100 timed out after 0.001s"},
}

func TestUnknownOutcomeIsReturnedAsItIs(t *testing.T) {
	for _, want := range unknown {
		for name, call := range map[string]func(*sqlstore.Store) error{
			"first Save": func(s *sqlstore.Store) error {
				return s.Save(t.Context(), "alice", &fincodeauth.Record{Version: "v1"}, "")
			},
			"Save": func(s *sqlstore.Store) error {
				return s.Save(t.Context(), "alice", &fincodeauth.Record{Version: "v2"}, "v1")
			},
			"Delete": func(s *sqlstore.Store) error { return s.Delete(t.Context(), "alice") },
		} {
			d := &database{errs: []error{want}}
			err := call(newStore(t, d, sqlstore.PostgreSQL))
			if !errors.Is(err, want) || errors.Is(err, fincodeauth.ErrConflict) || errors.Is(err, fincodeauth.ErrNotFound) {
				t.Errorf("%s = %v, want only %v", name, err, want)
			}
			if len(d.statements) != 1 {
				t.Errorf("%s after %v: %d attempts, want 1", name, want, len(d.statements))
			}
		}
	}
}

func TestWhatMayRunTwiceIsTriedAgainAfterAnUnknownOutcome(t *testing.T) {
	for _, state := range []string{"40003", "08000", "08003", "08006", "08007"} {
		d := &database{record: `{"version":"1"}`, errs: []error{stateError(state)}}
		store := newStore(t, d, sqlstore.PostgreSQL)
		if _, err := store.Load(t.Context(), "alice"); err != nil || len(d.statements) != 2 {
			t.Errorf("%s: Load = %v after %d attempts, want nil after 2", state, err, len(d.statements))
		}
		d.errs = []error{stateError("42P01"), stateError(state), stateError("42P01"), nil}
		if err := store.Migrate(t.Context()); err != nil || len(d.errs) != 0 {
			t.Errorf("%s: Migrate = %v, want nil after it made the table twice", state, err)
		}
	}
}

// CockroachDB refuses a column with COLLATE "C". Aurora DSQL refuses COLLATE altogether.
func TestSchemaForPostgreSQLNamesNoCollation(t *testing.T) {
	if schema := sqlstore.Schema(sqlstore.PostgreSQL); schema == "" || strings.Contains(schema, "COLLATE") {
		t.Errorf("Schema = %q, want a table without COLLATE", schema)
	}
}

func TestOtherErrorsAreNotTriedAgain(t *testing.T) {
	for _, lasting := range []error{
		stateError("53300"),
		errors.New("dial tcp 127.0.0.1:40001: connect: connection refused"),
		errors.New("invalid connection"),
	} {
		d := &database{errs: []error{lasting}}
		err := newStore(t, d, sqlstore.MySQL).Save(t.Context(), "alice", &fincodeauth.Record{Version: "v1"}, "")
		if !errors.Is(err, lasting) || errors.Is(err, fincodeauth.ErrConflict) || len(d.statements) != 1 {
			t.Errorf("Save = %v after %d attempts, want %v after one", err, len(d.statements), lasting)
		}
	}
}

func TestTryingAgainEndsWithTheContext(t *testing.T) {
	busy := errors.New("database is locked")
	d := &database{}
	for range 10_000 {
		d.errs = append(d.errs, busy)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	err := newStore(t, d, sqlstore.SQLite).Save(ctx, "alice", &fincodeauth.Record{Version: "v1"}, "")
	if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, busy) {
		t.Errorf("Save = %v, want both the context's error and the database's", err)
	}
}

func TestADuplicateOfTheFirstSaveIsAConflict(t *testing.T) {
	duplicate := errors.New("Error 1062 (23000): Duplicate entry 'x' for key 'PRIMARY'")
	d := &database{errs: []error{duplicate}}
	err := newStore(t, d, sqlstore.MySQL).Save(t.Context(), "alice", &fincodeauth.Record{Version: "v1"}, "")
	if !errors.Is(err, fincodeauth.ErrConflict) {
		t.Errorf("Save = %v, want ErrConflict", err)
	}
}

func TestADamagedRecordIsNamed(t *testing.T) {
	want := `sqlstore: load "alice": its record in table fincode_sessions is damaged: restore it, or call Sessions.Forget, then log in again`
	for _, record := range []string{`{"version": "v1", "token": secret`, `{}`, `null`, ``} {
		_, err := newStore(t, &database{record: record}, sqlstore.SQLite).Load(t.Context(), "alice")
		if err == nil || err.Error() != want {
			t.Errorf("Load of %s = %v, want %s", record, err, want)
		}
	}
}

// A Save compares the column version, so the column must agree with the record.
// If it did not, every Save would conflict with what Load returns.
func TestRecordWithAnotherVersionThanItsColumnIsDamaged(t *testing.T) {
	for _, dialect := range dialects {
		d := &database{record: `{"version":"v1"}`, version: "v2"}
		_, err := newStore(t, d, dialect).Load(t.Context(), "alice")
		wantDamaged(t, "alice", err)
		if len(d.statements) != 1 {
			t.Errorf("%v: Load made the statements %q, want one", dialect, d.statements)
		}
	}
}

func TestDeleteRemovesADamagedRecord(t *testing.T) {
	for _, dialect := range dialects {
		d := &database{record: `{"version": "v1", "tok`}
		store := newStore(t, d, dialect)
		if err := store.Delete(t.Context(), "alice"); err != nil {
			t.Errorf("%v: Delete = %v", dialect, err)
		}
		if len(d.statements) != 1 || !strings.HasPrefix(d.statements[0], "DELETE ") || strings.Contains(d.statements[0], "version") {
			t.Errorf("%v: Delete made the statements %q, want one that does not depend on the record", dialect, d.statements)
		}
		if _, err := store.Load(t.Context(), "alice"); !errors.Is(err, fincodeauth.ErrNotFound) {
			t.Errorf("%v: Load after Delete = %v, want ErrNotFound", dialect, err)
		}
	}
}

func TestPrintingAStoreShowsNoSecret(t *testing.T) {
	store := newStore(t, &database{password: "hunter2"}, sqlstore.SQLite)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x"} {
		if got := fmt.Sprintf(verb, store); got != "sqlstore(SQLite, fincode_sessions)" {
			t.Errorf("%s prints %s", verb, got)
		}
	}
}

func save(t *testing.T, store *sqlstore.Store, version, prev string) {
	t.Helper()
	rec := &fincodeauth.Record{Version: version, Token: &oauth2.Token{AccessToken: "a", Expiry: time.Now()}}
	if err := store.Save(t.Context(), "alice", rec, prev); err != nil {
		t.Errorf("Save of %s over %q = %v", version, prev, err)
	}
}

func newStore(t *testing.T, d *database, dialect sqlstore.Dialect) *sqlstore.Store {
	t.Helper()
	store, err := sqlstore.New(open(t, d), dialect)
	if err != nil {
		t.Fatal(err)
	}
	return store
}

func open(t *testing.T, d *database) *sql.DB {
	db := sql.OpenDB(d)
	t.Cleanup(func() { db.Close() })
	return db
}

// A database is a driver that notes the statements, and returns the errors that
// the test gives it.
type database struct {
	password   string
	record     string
	version    string // the column; "" means the version in record
	deleted    bool
	errs       []error // of the next statements; later statements succeed
	statements []string
	args       []any // of the last statement
}

func (d *database) Connect(context.Context) (driver.Conn, error) { return d, nil }
func (d *database) Driver() driver.Driver                        { return nil }
func (d *database) Begin() (driver.Tx, error)                    { return nil, errors.New("a transaction") }
func (d *database) Prepare(string) (driver.Stmt, error)          { return nil, errors.New("a second statement") }
func (d *database) Close() error                                 { return nil }

func (d *database) note(statement string, args []driver.NamedValue) error {
	d.statements = append(d.statements, statement)
	d.args = nil
	for _, arg := range args {
		d.args = append(d.args, arg.Value)
	}
	if len(d.errs) == 0 {
		return nil
	}
	err := d.errs[0]
	d.errs = d.errs[1:]
	return err
}

func (d *database) ExecContext(_ context.Context, statement string, args []driver.NamedValue) (driver.Result, error) {
	d.deleted = strings.HasPrefix(statement, "DELETE ")
	return driver.RowsAffected(1), d.note(statement, args)
}

func (d *database) QueryContext(_ context.Context, statement string, args []driver.NamedValue) (driver.Rows, error) {
	var rec fincodeauth.Record
	_ = json.Unmarshal([]byte(d.record), &rec) // a damaged record may have no version
	return &rows{version: cmp.Or(d.version, rec.Version), record: d.record, done: d.deleted}, d.note(statement, args)
}

type rows struct {
	version, record string
	done            bool
}

func (r *rows) Columns() []string { return []string{"version", "record"} }
func (r *rows) Close() error      { return nil }

func (r *rows) Next(dest []driver.Value) error {
	if r.done {
		return io.EOF
	}
	r.done = true
	dest[0], dest[1] = r.version, r.record
	return nil
}

func TestOnlyLoadIsTriedAgainAfterABrokenConnection(t *testing.T) {
	broken := errors.New("FATAL: terminating connection due to administrator command (SQLSTATE 57P01)")
	d := &database{record: `{"version":"1"}`, errs: []error{broken, broken}}
	store := newStore(t, d, sqlstore.PostgreSQL)
	if rec, err := store.Load(t.Context(), "a"); err != nil || rec.Version != "1" {
		t.Errorf("Load = %v, %v; want the record of the third attempt", rec, err)
	}
	d.errs, d.statements = []error{broken}, nil
	if err := store.Save(t.Context(), "a", &fincodeauth.Record{Version: "2"}, "1"); !errors.Is(err, broken) || len(d.statements) != 1 {
		t.Errorf("Save = %v after %d statements; want its error after one: that statement may have had its effect", err, len(d.statements))
	}
}
