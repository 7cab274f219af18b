package sqlstore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// These marks tell the errors of databases apart. A mark is the SQLSTATE that the
// error's method SQLState returns. If the error has no such method, a mark is in its
// text. The types of the drivers' errors are unknown here, because this package imports
// no driver.
var (
	duplicateKey = []string{"Error 1062"}

	// The statement changed nothing, and may succeed when it is tried again. The
	// causes are a serialization failure, a deadlock, SQLite's lock, or several
	// processes that create the same table in PostgreSQL at the same time.
	temporary = []string{"SQLSTATE 40001", "SQLSTATE 40P01", "Error 1213", "database is locked", "table is locked",
		"SQLSTATE 23505", "SQLSTATE 42P07", "SQLSTATE 42710"}

	// The connection broke, or a distributed database does not know what became of
	// the statement (40003). The statement may have had its effect or not. So only a
	// statement that may run twice may be tried again.
	broken = []string{"SQLSTATE 40003", "SQLSTATE 08000", "SQLSTATE 08003", "SQLSTATE 08006", "SQLSTATE 08007",
		"SQLSTATE 57P01", "SQLSTATE 57P02", "SQLSTATE 57P03", "Error 1927", "Error 1317", "Error 1053",
		"bad connection", "invalid connection", "unexpected EOF", "connection reset", "broken pipe"}

	missingTable = []string{"SQLSTATE 42P01", "Error 1146", "no such table"}
	otherTable   = []string{"SQLSTATE 42703", "Error 1054", "no such column", "has no column named"}
	badSyntax    = []string{"SQLSTATE 42601", "Error 1064", "syntax error"}
)

// repeatable returns the marks after which a statement is tried again that may run
// twice.
func repeatable() []string { return slices.Concat(temporary, broken) }

// marked reports whether err has one of the marks. The text of an error with a SQLSTATE
// does not count, because it may quote another error: an unknown outcome may quote the
// serialization failure that led to it.
func marked(err error, marks []string) bool {
	text := err.Error()
	if e, ok := errors.AsType[interface {
		error
		SQLState() string
	}](err); ok {
		text = "SQLSTATE " + e.SQLState()
	}
	return slices.ContainsFunc(marks, func(mark string) bool { return strings.Contains(text, mark) })
}

const (
	retryMin = time.Millisecond
	retryMax = 50 * time.Millisecond
	retryFor = 10 * time.Second
)

// retry calls do until it succeeds, until its error has none of the marks, until ctx
// ends, or for about retryFor. It returns the last error of do.
func (s *Store) retry(ctx context.Context, marks []string, do func() error) error {
	began := time.Now()
	for delay := retryMin; ; delay = min(2*delay, retryMax) {
		err := do()
		if err == nil || !marked(err, marks) || time.Since(began) > retryFor {
			return err
		}
		select {
		case <-time.After(delay/2 + rand.N(delay)):
		case <-ctx.Done():
			return err
		}
	}
}

// explain adds to err that the context has ended, or what the user can do.
func (s *Store) explain(ctx context.Context, err error) error {
	cause := ctx.Err()
	switch {
	case cause != nil && !errors.Is(err, cause):
		return fmt.Errorf("%w: %w", cause, err)
	case marked(err, missingTable):
		return fmt.Errorf("table %s is missing: run Migrate or apply Schema: %w", s.sql.table, err)
	case marked(err, otherTable):
		return fmt.Errorf("table %s lacks columns: rename it, or name another one with Table: %w", s.sql.table, err)
	case marked(err, badSyntax):
		return fmt.Errorf("the database does not understand the dialect %v: give New the right one: %w", s.sql.dialect, err)
	}
	return err
}
