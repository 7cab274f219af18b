package sqlstore

import (
	"fmt"
	"regexp"
	"strings"
	"time"
)

// A Dialect is the kind of SQL that a database understands.
type Dialect int

const (
	PostgreSQL Dialect = iota + 1
	MySQL              // also for MariaDB
	SQLite
)

// String returns the constant's name.
func (d Dialect) String() string {
	switch d {
	case PostgreSQL:
		return "PostgreSQL"
	case MySQL:
		return "MySQL"
	case SQLite:
		return "SQLite"
	}
	return fmt.Sprintf("Dialect(%d)", int(d))
}

// An Option changes what New and Schema do.
type Option func(*options)

type options struct{ table string }

// Table sets the name of the table. The name may begin with a schema, as in
// "auth.fincode_sessions". The default is "fincode_sessions". A name consists of
// letters, digits and underscores. It is case-sensitive if the database is.
func Table(name string) Option {
	return func(o *options) { o.table = name }
}

// Schema returns the statement with which Migrate makes the table, so that you can
// apply it yourself. The statement does nothing if there is a table of that name.
// Schema returns "" if New refuses the dialect or an option. New says why.
func Schema(d Dialect, opts ...Option) string {
	s, err := newStatements(d, opts)
	if err != nil {
		return ""
	}
	return s.create
}

// statements are the SQL statements of a Store.
type statements struct {
	dialect Dialect
	table   string // as the caller of New wrote it

	create, probe, load, insert, update, delete, keys string
}

// tableName allows 63 bytes, because PostgreSQL cuts longer names without an error.
var tableName = regexp.MustCompile(`^([A-Za-z_][A-Za-z0-9_]{0,62}\.)?[A-Za-z_][A-Za-z0-9_]{0,62}$`)

// schema is the statement that makes the table. Its verbs are: %[1]s the table,
// %[2]s the type of text that is compared exactly and can be a primary key, %[3]s
// of text that is compared exactly, %[4]s of text of any length, %[5]s of a time,
// and %[6]s what follows the columns. Only SQLite keeps the comments with the table.
const schema = `CREATE TABLE IF NOT EXISTS %[1]s (
	id              %[2]s NOT NULL PRIMARY KEY, -- SHA-256 of the session's key, in hex
	version         %[3]s NOT NULL, -- what a Save must name to replace the row
	record          %[4]s NOT NULL, -- the session, in JSON; what follows are copies for people to read, times in UTC
	session         %[4]s NOT NULL, -- the session's key
	expiry          %[5]s NULL, -- of the access token
	refresh_started %[5]s NULL, -- while a process is refreshing
	ended           %[4]s NULL, -- why a login is needed
	updated_at      %[5]s NOT NULL
)%[6]s`

// newStatements returns the statements for a dialect. insert and update have the
// same arguments. update has one more, the previous version, as its last.
func newStatements(d Dialect, opts []Option) (statements, error) {
	o := options{table: "fincode_sessions"}
	for i, opt := range opts {
		if opt == nil {
			return statements{}, fmt.Errorf("sqlstore: option %d is nil: leave it out", i+1)
		}
		opt(&o)
	}
	if !tableName.MatchString(o.table) {
		return statements{}, fmt.Errorf("sqlstore: table %q: use letters, digits and underscores, at most 63, "+
			"as in fincode_sessions or auth.fincode_sessions; write no quotes, they are added", o.table)
	}
	quote, onConflict := `"`, " ON CONFLICT (id) DO NOTHING"
	var types []any
	switch d {
	case PostgreSQL:
		// CockroachDB and Aurora DSQL refuse COLLATE "C" here. It is not needed, because
		// a database's own collation takes no two different texts for equal.
		types = []any{"TEXT", "TEXT", "TEXT", "TIMESTAMPTZ", ""}
	case MySQL:
		// A duplicate key stays an error here. MySQL's ways to ignore it also
		// ignore other errors, or hide the duplicate if the driver's
		// clientFoundRows is set.
		quote, onConflict = "`", ""
		types = []any{"CHAR(64) CHARACTER SET ascii COLLATE ascii_bin", "VARBINARY(255)",
			"MEDIUMTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin", "DATETIME(6)", " ENGINE = InnoDB"}
	case SQLite:
		types = []any{"TEXT", "TEXT", "TEXT", "TEXT", ""}
	default:
		return statements{}, fmt.Errorf("sqlstore: unknown dialect %v: use PostgreSQL, MySQL (for MariaDB too) or SQLite", d)
	}
	table := quote + strings.ReplaceAll(o.table, ".", quote+"."+quote) + quote
	return statements{
		dialect: d,
		table:   o.table,
		create:  fmt.Sprintf(schema, append([]any{table}, types...)...),
		probe: d.numbered("SELECT version, record, session, expiry, refresh_started, ended, updated_at" +
			" FROM " + table + " WHERE id = ?"),
		load: d.numbered("SELECT version, record FROM " + table + " WHERE id = ?"),
		insert: d.numbered("INSERT INTO " + table +
			" (version, record, session, expiry, refresh_started, ended, updated_at, id)" +
			" VALUES (?, ?, ?, ?, ?, ?, ?, ?)" + onConflict),
		update: d.numbered("UPDATE " + table +
			" SET version = ?, record = ?, session = ?, expiry = ?, refresh_started = ?, ended = ?, updated_at = ?" +
			" WHERE id = ? AND version = ?"),
		delete: d.numbered("DELETE FROM " + table + " WHERE id = ?"),
		keys:   d.numbered("SELECT id, session FROM " + table + " WHERE id > ? ORDER BY id LIMIT 1000"),
	}, nil
}

// numbered replaces the question marks in statement by the dialect's placeholders.
func (d Dialect) numbered(statement string) string {
	if d != PostgreSQL {
		return statement
	}
	var b strings.Builder
	for i, part := range strings.Split(statement, "?") {
		if i > 0 {
			fmt.Fprintf(&b, "$%d", i)
		}
		b.WriteString(part)
	}
	return b.String()
}

// time returns t as text in UTC, in microseconds, or nil if t is zero. It returns
// text because drivers convert a time.Time and its zone in different ways.
func (s *statements) time(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	layout := "2006-01-02 15:04:05.000000Z07:00"
	if s.dialect == MySQL {
		layout = "2006-01-02 15:04:05.000000" // MySQL's DATETIME has no zone
	}
	return t.UTC().Format(layout)
}
