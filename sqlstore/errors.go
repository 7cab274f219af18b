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

// How databases say what a Store must know, since no driver may be imported
// here: in the error's text, or with a SQLSTATE that the error has a method for.
var (
	duplicateKey = []string{"Error 1062"}

	// Nothing was changed, and the same statement may succeed: a serialization
	// failure, a deadlock, SQLite's lock, and what PostgreSQL makes of tables of
	// one name that are created at once.
	passing = []string{"SQLSTATE 40001", "SQLSTATE 40P01", "Error 1213", "database is locked", "table is locked",
		"SQLSTATE 23505", "SQLSTATE 42P07", "SQLSTATE 42710"}

	// The connection broke. Nobody knows what became of the statement, so that
	// only one that may be made twice may be made again.
	broken = []string{"SQLSTATE 57P01", "SQLSTATE 57P02", "SQLSTATE 57P03", "Error 1927", "Error 1317", "Error 1053",
		"bad connection", "invalid connection", "unexpected EOF", "connection reset", "broken pipe"}

	missingTable = []string{"SQLSTATE 42P01", "Error 1146", "no such table"}
	otherTable   = []string{"SQLSTATE 42703", "Error 1054", "no such column", "has no column named"}
	badSyntax    = []string{"SQLSTATE 42601", "Error 1064", "syntax error"}
)

// harmless are the marks after which a statement that may be made twice is.
func harmless() []string { return slices.Concat(passing, broken) }

// marked tells whether err bears one of the marks.
func marked(err error, marks []string) bool {
	text := err.Error()
	if e, ok := errors.AsType[interface {
		error
		SQLState() string
	}](err); ok {
		text += " SQLSTATE " + e.SQLState()
	}
	return slices.ContainsFunc(marks, func(mark string) bool { return strings.Contains(text, mark) })
}

const (
	retryMin = time.Millisecond
	retryMax = 50 * time.Millisecond
	retryFor = 10 * time.Second
)

// again calls do until it returns an error without any of the marks, or none, or
// for about retryFor.
func (s *Store) again(ctx context.Context, marks []string, do func() error) error {
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

// explain says in err that the context ended, or what to do about it.
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
