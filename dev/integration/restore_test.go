package integration

import (
	"os"
	"testing"
	"time"
)

// TestPostgresRestore restores backups of a database under processes that live through
// that: first one that is old, then one in which the table is empty. Where FinCode
// only refuses a token that was used, no session may be lost.
//
// FINCODEAUTH_BACKUP_AGE says how old the first backup is. Without that variable it is
// five lifetimes of an access token. With tokens of an hour, that would be five hours.
func TestPostgresRestore(t *testing.T) {
	age := 5 * livingLifetime
	if text := os.Getenv("FINCODEAUTH_BACKUP_AGE"); text != "" {
		var err error
		if age, err = time.ParseDuration(text); err != nil {
			t.Fatalf("FINCODEAUTH_BACKUP_AGE: %v; give a duration, such as 3m", err)
		}
	}
	for _, fincode := range reuseAnswers {
		t.Run(fincode.name, func(t *testing.T) {
			t.Parallel() // most of the time it waits
			testRestore(t, fincode, age)
		})
	}
}

func testRestore(t *testing.T, fincode reuseAnswer, age time.Duration) {
	p := startPostgres(t)
	tab := openTable(t, postgres, p.dsn)
	p.backUp(t, "empty")
	l := newLiving(t, shared{Database: postgres.name, Address: p.dsn, Name: tab.name}, fincode.cfg)
	time.Sleep(2 * livingLifetime)
	p.backUp(t, "old")
	backedUp := l.generations(t)
	time.Sleep(age)

	now, rotations := l.generations(t), 0
	for _, key := range l.keys {
		rotations += now[key] - backedUp[key]
	}
	t.Logf("restoring a backup from %v ago takes back %d rotations of %d sessions", age, rotations, len(l.keys))
	if rotations < len(l.keys) {
		t.Errorf("only %d rotations are taken back, which shows nothing", rotations)
	}
	p.restore(t, "old")
	time.Sleep(2 * livingLifetime)
	t.Logf("after that:\n%s", l.summary())

	p.restore(t, "empty")
	time.Sleep(2 * livingLifetime)
	gone := l.end(t)
	t.Logf("after the table came back empty, too:\n%s", l.summary())
	l.report(t, gone, l.restart(t), fincode.most)
}
