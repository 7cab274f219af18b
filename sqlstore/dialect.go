package sqlstore

import (
	"fmt"
	"regexp"
	"strings"
	"time"
)

// A Dialect is a database's kind of SQL.
type Dialect int

const (
	PostgreSQL Dialect = iota + 1
	MySQL              // MariaDB too
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

// Table names the table, as "fincode_sessions", which is the default, or with
// its schema, as "auth.fincode_sessions". It consists of letters, digits and
// underscores, and is case-sensitive where the database is.
func Table(name string) Option {
	return func(o *options) { o.table = name }
}

// Schema returns the statement with which Migrate makes the table, for those
// who apply it by hand. It does nothing if there is one of that name. It is empty
// for a dialect or a table that New refuses: New says why.
func Schema(d Dialect, opts ...Option) string {
	s, err := newStatements(d, opts)
	if err != nil {
		return ""
	}
	return s.create
}

// statements are what a Store says to the database.
type statements struct {
	dialect Dialect
	table   string // as the user named it

	create, probe, load, insert, update, delete string
}

// tableName keeps to the 63 bytes that PostgreSQL leaves of a name without a word.
var tableName = regexp.MustCompile(`^([A-Za-z_][A-Za-z0-9_]{0,62}\.)?[A-Za-z_][A-Za-z0-9_]{0,62}$`)

// schema has %[1]s for the table, %[2]s for exact text that can be a key, %[3]s
// for exact text, %[4]s for text of any length, %[5]s for a time, and %[6]s for
// what follows. Its comments stay with the table in SQLite alone.
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

// newStatements writes the SQL down. insert and update take the same arguments,
// and update the previous version after them.
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
		types = []any{`TEXT COLLATE "C"`, `TEXT COLLATE "C"`, "TEXT", "TIMESTAMPTZ", ""}
	case MySQL:
		// Its ways to ignore a duplicate hide other errors or, under the
		// driver's clientFoundRows, that there was one: it is left an error.
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
		load: d.numbered("SELECT record FROM " + table + " WHERE id = ?"),
		insert: d.numbered("INSERT INTO " + table +
			" (version, record, session, expiry, refresh_started, ended, updated_at, id)" +
			" VALUES (?, ?, ?, ?, ?, ?, ?, ?)" + onConflict),
		update: d.numbered("UPDATE " + table +
			" SET version = ?, record = ?, session = ?, expiry = ?, refresh_started = ?, ended = ?, updated_at = ?" +
			" WHERE id = ? AND version = ?"),
		delete: d.numbered("DELETE FROM " + table + " WHERE id = ?"),
	}, nil
}

// numbered returns statement with the dialect's placeholders in the place of
// question marks.
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

// time returns t as text in UTC, to the microsecond, and nil for a zero t.
// Drivers differ in what they make of a time.Time and of its zone.
func (s *statements) time(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	layout := "2006-01-02 15:04:05.000000Z07:00"
	if s.dialect == MySQL {
		layout = "2006-01-02 15:04:05.000000" // its DATETIME has no zone
	}
	return t.UTC().Format(layout)
}
