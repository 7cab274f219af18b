package integration

import (
	"cmp"
	"context"
	"crypto/rand"
	"database/sql"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	_ "github.com/go-sql-driver/mysql"
	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/redis/go-redis/v9"
	_ "modernc.org/sqlite"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/redisstore"
	"github.com/fincodeauth/fincodeauth/sqlstore"
)

// The addresses of the databases.
var (
	postgresURL = cmp.Or(os.Getenv("FINCODEAUTH_TEST_POSTGRES"), "postgres://postgres@127.0.0.1:5432/test")
	mysqlDSN    = cmp.Or(os.Getenv("FINCODEAUTH_TEST_MYSQL"), "root@tcp(127.0.0.1:3306)/test")
	redisURL    = cmp.Or(os.Getenv("FINCODEAUTH_TEST_REDIS"), "redis://127.0.0.1:6379")
)

// stores lists the databases. open makes an empty Store on one of them.
var stores = []struct {
	name string
	open func(t testing.TB) fincodeauth.Store
}{
	{"PostgreSQL", func(t testing.TB) fincodeauth.Store { return openTable(t, postgres, postgresURL).Store }},
	{"MariaDB", func(t testing.TB) fincodeauth.Store { return openTable(t, mariaDB, mysqlDSN).Store }},
	{"SQLite", func(t testing.TB) fincodeauth.Store { return openTable(t, sqlite, sqliteDSN(t)).Store }},
	{"Redis", func(t testing.TB) fincodeauth.Store { return openPrefix(t, openRedis(t)).Store }},
	{"etcd", func(t testing.TB) fincodeauth.Store { return openSharedEtcd(t).Store }},
	{"Kubernetes", func(t testing.TB) fincodeauth.Store { return openKube(t).Store }},
}

// A sqlDatabase is a database that is opened by database/sql. variable is the
// environment variable with its address, if there is one.
type sqlDatabase struct {
	name, driver, variable string
	dialect                sqlstore.Dialect
}

var (
	postgres = sqlDatabase{"PostgreSQL", "pgx", "FINCODEAUTH_TEST_POSTGRES", sqlstore.PostgreSQL}
	mariaDB  = sqlDatabase{"MariaDB", "mysql", "FINCODEAUTH_TEST_MYSQL", sqlstore.MySQL}
	sqlite   = sqlDatabase{"SQLite", "sqlite", "", sqlstore.SQLite}
)

// sqlDatabases lists all of them with their addresses.
var sqlDatabases = []struct {
	sqlDatabase
	dsn func(t testing.TB) string
}{
	{postgres, func(testing.TB) string { return postgresURL }},
	{mariaDB, func(testing.TB) string { return mysqlDSN }},
	{sqlite, sqliteDSN},
}

// sqliteDSN returns the address of a database in a new file. Its busy_timeout is
// short, so that the Store itself must try again.
func sqliteDSN(t testing.TB) string {
	return "file:" + filepath.ToSlash(filepath.Join(t.TempDir(), "sessions.db")) + "?_pragma=journal_mode(wal)&_pragma=busy_timeout(5)"
}

// openSQL opens the database at dsn and closes it when the test ends.
func openSQL(t testing.TB, d sqlDatabase, dsn string) *sql.DB {
	t.Helper()
	db, err := sql.Open(d.driver, dsn)
	if err != nil {
		t.Fatalf("%s: %v", d.variable, err)
	}
	t.Cleanup(func() { db.Close() })
	db.SetMaxOpenConns(20)
	db.SetMaxIdleConns(20)
	need(t, d.name, dsn, d.variable, db.PingContext)
	return db
}

// openRedis connects to Redis and closes the connections when the test ends.
func openRedis(t testing.TB) *redis.Client {
	t.Helper()
	opts, err := redis.ParseURL(redisURL)
	if err != nil {
		t.Fatalf("FINCODEAUTH_TEST_REDIS: %v", err)
	}
	client := redis.NewClient(opts)
	t.Cleanup(func() { client.Close() })
	need(t, "Redis", redisURL, "FINCODEAUTH_TEST_REDIS", func(ctx context.Context) error { return client.Ping(ctx).Err() })
	return client
}

// need calls missing if the database does not answer.
func need(t testing.TB, name, address, variable string, ping func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := ping(ctx); err != nil {
		missing(t, "no %s at %s: %v; start one there, or set %s to its address", name, address, err, variable)
	}
}

// missing skips the test because a service is missing. It fails the test instead
// if FINCODEAUTH_REQUIRE_SERVICES is 1.
func missing(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv("FINCODEAUTH_REQUIRE_SERVICES") == "1" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

// A table is a sqlstore with its database and the name of its table.
type table struct {
	*sqlstore.Store
	db   *sql.DB
	name string
}

// openTable makes a Store in a new table and drops the table when the test ends.
func openTable(t testing.TB, d sqlDatabase, dsn string) table {
	t.Helper()
	tab := newTable(t, d, openSQL(t, d, dsn))
	if err := tab.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	return tab
}

// newTable makes a Store in an open database. It does not make the table, but if
// the test makes it, newTable drops it when the test ends.
func newTable(t testing.TB, d sqlDatabase, db *sql.DB) table {
	t.Helper()
	name := unique("fincodeauth_test_")
	store, err := sqlstore.New(db, d.dialect, sqlstore.Table(name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.ExecContext(context.Background(), "DROP TABLE IF EXISTS "+name) })
	return table{store, db, name}
}

// A prefix is a redisstore with its client and the name of its prefix.
type prefix struct {
	*redisstore.Store
	client redis.UniversalClient
	name   string
}

// openPrefix makes a Store with a new prefix and deletes the keys with that prefix
// when the test ends.
func openPrefix(t testing.TB, client redis.UniversalClient, opts ...redisstore.Option) prefix {
	t.Helper()
	name := unique("fincodeauth_test_") + ":"
	store, err := redisstore.New(client, append(opts, redisstore.Prefix(name))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx := context.Background()
		for keys := range slices.Chunk(client.Keys(ctx, name+"*").Val(), 1000) {
			client.Del(ctx, keys...)
		}
	})
	return prefix{store, client, name}
}

// unique returns a name that no other run uses. It is in lower case, because every
// database accepts that without quotes.
func unique(name string) string { return name + strings.ToLower(rand.Text()[:12]) }
