package integration

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/oauth2"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/fincodetest"
	"github.com/fincodeauth/fincodeauth/sqlstore"
)

func TestTenReplicasMigrateAtOnce(t *testing.T) {
	const replicas = 10
	for _, d := range sqlDatabases {
		t.Run(d.name, func(t *testing.T) {
			dsn := d.dsn(t)
			for range 5 {
				first := newTable(t, d.sqlDatabase, openSQL(t, d.sqlDatabase, dsn))
				start := make(chan struct{})
				var wg sync.WaitGroup
				for range replicas {
					db := openSQL(t, d.sqlDatabase, dsn)
					store, err := sqlstore.New(db, d.dialect, sqlstore.Table(first.name))
					if err != nil {
						t.Fatal(err)
					}
					wg.Go(func() {
						<-start
						if err := store.Migrate(t.Context()); err != nil {
							t.Error(err)
						}
					})
				}
				close(start)
				wg.Wait()
				expired(t, fincodetest.New(fincodetest.Config{OpaqueTokens: true}), first.Store, 1)
				if err := first.Migrate(t.Context()); err != nil {
					t.Errorf("Migrate of a table in use = %v", err)
				}
			}
		})
	}
}

func TestMigrateOfAnExistingTableNeedsNoRights(t *testing.T) {
	t.Run(postgres.name, func(t *testing.T) {
		tab := openTable(t, postgres, postgresURL)
		db := openSQL(t, postgres, with(postgresURL, "default_transaction_read_only=on"))
		reader, err := sqlstore.New(db, postgres.dialect, sqlstore.Table(tab.name))
		if err != nil {
			t.Fatal(err)
		}
		if err := reader.Migrate(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// In MariaDB, a first save and a delete of the same row can deadlock. MariaDB then
// lets one of the two fail, and the Store must not return that error.
func TestFirstSavesRaceDeletes(t *testing.T) {
	for _, d := range sqlDatabases {
		t.Run(d.name, func(t *testing.T) {
			store := openTable(t, d.sqlDatabase, d.dsn(t)).Store
			var wg sync.WaitGroup
			for range 8 {
				wg.Go(func() {
					for range 40 {
						rec := &fincodeauth.Record{Version: unique("v")}
						if err := store.Save(t.Context(), "alice", rec, ""); err != nil && !errors.Is(err, fincodeauth.ErrConflict) {
							t.Error(err)
						}
						if err := store.Delete(t.Context(), "alice"); err != nil {
							t.Error(err)
						}
					}
				})
			}
			wg.Wait()
		})
	}
}

func TestColumnsAreReadable(t *testing.T) {
	started := time.Date(2026, 3, 1, 12, 30, 0, 123456789, time.FixedZone("", 5*60*60))
	for _, at := range []struct {
		sqlDatabase
		dsn, expiry string
	}{
		{postgres, with(postgresURL, "timezone=Asia/Tokyo"), "to_char(expiry AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US')"},
		{mariaDB, with(mysqlDSN, "time_zone=%27%2B09:00%27&loc=Asia%2FTokyo"), "CAST(expiry AS CHAR)"},
		{sqlite, sqliteDSN(t), "strftime('%Y-%m-%d %H:%M:%S', expiry) || '.123456'"},
	} {
		t.Run(at.name, func(t *testing.T) {
			tab := openTable(t, at.sqlDatabase, at.dsn)
			rec := &fincodeauth.Record{Version: "v1", Token: &oauth2.Token{Expiry: started}, Ended: "because of \x00 and \xff 😀"}
			key := "Ålice 日本\x00\xff"
			if err := tab.Save(t.Context(), key, rec, ""); err != nil {
				t.Fatal(err)
			}
			var session, expiry, ended string
			var refreshing bool
			if err := tab.db.QueryRowContext(t.Context(), "SELECT session, "+at.expiry+", ended, refresh_started IS NOT NULL FROM "+tab.name).
				Scan(&session, &expiry, &ended, &refreshing); err != nil {
				t.Fatal(err)
			}
			if session != "Ålice 日本\uFFFD\uFFFD" || ended != "because of \uFFFD and \uFFFD 😀" || refreshing {
				t.Errorf("session %q, ended %q, refreshing %t", session, ended, refreshing)
			}
			if want := "2026-03-01 07:30:00.123456"; expiry != want {
				t.Errorf("expiry %s, want %s", expiry, want)
			}
		})
	}
}

func TestSQLErrorsSayWhatToDo(t *testing.T) {
	for _, d := range sqlDatabases {
		t.Run(d.name, func(t *testing.T) {
			dsn := d.dsn(t)
			t.Run("MissingTable", func(t *testing.T) {
				tab := newTable(t, d.sqlDatabase, openSQL(t, d.sqlDatabase, dsn))
				wantErrors(t, tab.Store, "table "+tab.name+" is missing: run Migrate or apply Schema: ")
				_, err := tab.Load(t.Context(), "alice")
				_, isPostgres := errors.AsType[*pgconn.PgError](err)
				_, isMariaDB := errors.AsType[*mysql.MySQLError](err)
				if isPostgres != (d.name == postgres.name) || isMariaDB != (d.name == mariaDB.name) {
					t.Errorf("the driver's error is not in %v", err)
				}
			})
			t.Run("AnotherTable", func(t *testing.T) {
				tab := newTable(t, d.sqlDatabase, openSQL(t, d.sqlDatabase, dsn))
				if _, err := tab.db.ExecContext(t.Context(), "CREATE TABLE "+tab.name+" (n INT)"); err != nil {
					t.Fatal(err)
				}
				want := "table " + tab.name + " lacks columns: rename it, or name another one with Table: "
				wantErrors(t, tab.Store, want)
				wantError(t, "Migrate", tab.Migrate(t.Context()), want)
			})
			t.Run("ClosedDB", func(t *testing.T) {
				tab := newTable(t, d.sqlDatabase, openSQL(t, d.sqlDatabase, dsn))
				tab.db.Close()
				wantErrors(t, tab.Store, "database is closed")
				wantError(t, "Migrate", tab.Migrate(t.Context()), "database is closed")
			})
			for _, wrong := range []sqlstore.Dialect{sqlstore.PostgreSQL, sqlstore.MySQL, sqlstore.SQLite} {
				if wrong == d.dialect || wrong == sqlstore.PostgreSQL && d.name == sqlite.name {
					continue // SQLite understands the statements for PostgreSQL
				}
				t.Run("Dialect"+wrong.String(), func(t *testing.T) {
					mistaken := d.sqlDatabase
					mistaken.dialect = wrong
					tab := newTable(t, mistaken, openSQL(t, d.sqlDatabase, dsn))
					wantError(t, "Migrate", tab.Migrate(t.Context()),
						"the database does not understand the dialect "+wrong.String()+": give New the right one: ")
				})
			}
		})
	}
}

// The table is missing when the new token is saved.
func TestRotatedTokenIsKeptUntilTheTableIsBack(t *testing.T) {
	for _, d := range sqlDatabases {
		t.Run(d.name, func(t *testing.T) {
			tab := openTable(t, d.sqlDatabase, d.dsn(t))
			rename := func(ctx context.Context, from, to string) error {
				_, err := tab.db.ExecContext(ctx, "ALTER TABLE "+from+" RENAME TO "+to)
				return err
			}
			testKept(t, tab.Store, "run Migrate or apply Schema",
				func(ctx context.Context) error { return rename(ctx, tab.name, tab.name+"_away") },
				func(ctx context.Context) error { return rename(ctx, tab.name+"_away", tab.name) })
		})
	}
}

// testKept breaks the store while a refresh is in flight, and fixes it after the
// new token is in use.
func testKept(t *testing.T, store fincodeauth.Store, want string, breakIt, fixIt func(context.Context) error) {
	t.Helper()
	fc := fincodetest.New(fincodetest.Config{OpaqueTokens: true})
	keys := expired(t, fc, store, 1)
	var mu sync.Mutex
	var events []fincodeauth.Event
	all := newSessions(t, fincodeauth.Config{
		Store: store,
		Base:  beforeRefresh(fc, breakIt),
		Observe: func(e fincodeauth.Event) {
			mu.Lock()
			defer mu.Unlock()
			events = append(events, e)
		},
	})
	tok, err := all.TokenSource(keys[0]).TokenContext(t.Context())
	if err != nil {
		t.Fatalf("no token, although FinCode returned one: %v", err)
	}
	if err := fixIt(t.Context()); err != nil {
		t.Fatal(err)
	}
	closeAll(t, all)

	rec, err := store.Load(t.Context(), keys[0])
	if err != nil || rec.Token.RefreshToken != tok.RefreshToken {
		t.Errorf("Load = %v, %v; want the new token", rec, err)
	}
	if len(events) != 3 || events[0].Type != fincodeauth.Refreshed || events[1].Type != fincodeauth.SaveFailed || events[2].Type != fincodeauth.Saved {
		t.Fatalf("events %v, want Refreshed, SaveFailed, Saved", events)
	}
	wantError(t, "SaveFailed", events[1].Err, want)
}

// wantErrors checks that every method of the store returns an error with text in
// it.
func wantErrors(t *testing.T, store fincodeauth.Store, text string) {
	t.Helper()
	_, err := store.Load(t.Context(), "alice")
	wantError(t, "Load", err, text)
	wantError(t, "first Save", store.Save(t.Context(), "alice", &fincodeauth.Record{Version: "v1"}, ""), text)
	wantError(t, "Save", store.Save(t.Context(), "alice", &fincodeauth.Record{Version: "v2"}, "v1"), text)
	wantError(t, "Delete", store.Delete(t.Context(), "alice"), text)
}

// wantError checks that err contains text, and that err is neither ErrConflict nor
// ErrNotFound, which have a meaning in the contract of a Store.
func wantError(t *testing.T, call string, err error, text string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), text) {
		t.Errorf("%s = %v, want %q in it", call, err, text)
	}
	if errors.Is(err, fincodeauth.ErrConflict) || errors.Is(err, fincodeauth.ErrNotFound) {
		t.Errorf("%s = %v, which must not wrap ErrConflict or ErrNotFound", call, err)
	}
}
