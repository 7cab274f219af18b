package integration

import (
	"context"
	"crypto/x509"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/redis/go-redis/v9"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/etcdstore"
	"github.com/fincodeauth/fincodeauth/internal/torture"
	"github.com/fincodeauth/fincodeauth/kubestore"
	"github.com/fincodeauth/fincodeauth/redisstore"
	"github.com/fincodeauth/fincodeauth/sqlstore"
)

// Some tests start this binary again, as processes that share a database.
func TestMain(m *testing.M) {
	if order := os.Getenv(childVariable); order != "" {
		if err := obeyChildOrder(order); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	torture.Main(m, openShared)
	for _, stop := range stops {
		stop()
	}
}

// A shared describes a store that several processes open.
type shared struct {
	Database string // SQLite, PostgreSQL, MariaDB, Redis, etcd, Kubernetes, or Sentinel: the Redis that a Sentinel calls the primary
	Address  string // DSN, or URL; of Sentinel and Kubernetes, host:port; of etcd, those of all members, with commas
	Name     string // of the table, or of the namespace, or the prefix

	Token, CA string `json:",omitempty"` // of Kubernetes
}

// openShared opens the store that spec describes, until the process ends. spec is a
// shared in JSON.
func openShared(spec string) (fincodeauth.Store, error) {
	var sh shared
	if err := json.Unmarshal([]byte(spec), &sh); err != nil {
		return nil, err
	}
	_ = mysql.SetLogger(&mysql.NopLogger{}) // otherwise it logs each connection that was cut
	store, _, err := sh.open()
	return store, err
}

// open opens the store. The caller should close what it returns beside the store.
func (sh shared) open() (fincodeauth.Store, io.Closer, error) {
	switch sh.Database {
	case "etcd":
		client, err := dialEtcd(strings.Split(sh.Address, ",")...)
		if err != nil {
			return nil, nil, err
		}
		store, err := etcdstore.New(client, etcdstore.Prefix(sh.Name))
		return store, client, err
	case "Kubernetes":
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM([]byte(sh.CA))
		client := kubeClient(roots, sh.Token, sh.Address)
		store, err := kubestore.New(kubestore.Cluster{Server: "https://" + sh.Address, Namespace: sh.Name, Client: client})
		return store, closeIdle{client}, err
	case "Sentinel":
		client := redis.NewFailoverClient(&redis.FailoverOptions{
			MasterName:            sentinelName,
			SentinelAddrs:         []string{sh.Address},
			Username:              clientUser,
			Password:              pairPassword,
			ContextTimeoutEnabled: true,
		})
		store, err := redisstore.New(client, redisstore.Prefix(sh.Name))
		return store, client, err
	case "Redis":
		opts, err := redis.ParseURL(sh.Address)
		if err != nil {
			return nil, nil, err
		}
		opts.ContextTimeoutEnabled = true
		client := redis.NewClient(opts)
		store, err := redisstore.New(client, redisstore.Prefix(sh.Name))
		return store, client, err
	}
	for _, d := range sqlDatabases {
		if d.name == sh.Database {
			db, err := sql.Open(d.driver, sh.Address)
			if err != nil {
				return nil, nil, err
			}
			db.SetMaxOpenConns(4)
			db.SetMaxIdleConns(4)
			store, err := sqlstore.New(db, d.dialect, sqlstore.Table(sh.Name))
			return store, db, err
		}
	}
	return nil, nil, fmt.Errorf("no database %q", sh.Database)
}

// closeIdle is an io.Closer of an HTTP client.
type closeIdle struct{ *http.Client }

func (c closeIdle) Close() error {
	c.CloseIdleConnections()
	return nil
}

// TestTorture kills processes that share a database at any instruction, and cuts
// their connections. For each database it takes as long as FINCODEAUTH_TORTURE
// says. Without that variable it takes 30 s, or 10 s with -short.
func TestTorture(t *testing.T) {
	duration := 30 * time.Second
	if testing.Short() {
		duration = 10 * time.Second
	}
	if text := os.Getenv("FINCODEAUTH_TORTURE"); text != "" {
		var err error
		if duration, err = time.ParseDuration(text); err != nil {
			t.Fatalf("FINCODEAUTH_TORTURE: %v; give a duration, such as 10s", err)
		}
	}
	for _, victim := range []struct {
		name           string
		open           func(t *testing.T) (fincodeauth.Store, shared, cutter)
		cutEvery       time.Duration
		refreshTimeout time.Duration
	}{
		// A second is how long TCP waits before it repeats a lost SYN.
		{"PostgreSQL", victimPostgres, time.Second, 1500 * time.Millisecond},
		{"MariaDB", victimMariaDB, time.Second, 1500 * time.Millisecond},
		{"SQLite", victimSQLite, time.Second, 1500 * time.Millisecond},
		{"Redis", victimRedis, time.Second, 1500 * time.Millisecond},
		// A member needs time to come back, and a call to find another one.
		{"etcd", victimEtcd, 3 * time.Second, 4 * time.Second},
		{"Kubernetes", victimKubernetes, time.Second, 4 * time.Second},
	} {
		t.Run(victim.name, func(t *testing.T) {
			store, sh, cut := victim.open(t)
			sh.Database = victim.name
			spec, err := json.Marshal(sh)
			if err != nil {
				t.Fatal(err)
			}
			torture.Run(t, torture.Config{
				Store:          store,
				Spec:           string(spec),
				Children:       6,
				Goroutines:     20,
				Sessions:       30,
				Duration:       duration,
				KillEvery:      600 * time.Millisecond,
				RefreshTimeout: victim.refreshTimeout,
				Cut:            cut,
				CutEvery:       victim.cutEvery,
			})
		})
	}
}

// A cutter cuts about half of the children's connections. It does not cut the
// connections of the supervisor, so every Load of the supervisor must succeed. The
// cutters of etcd and Kubernetes break servers, too. There the supervisor has a Store
// that tries again.
type cutter func(context.Context) error

// victimPostgres finds the children's connections by their application_name.
func victimPostgres(t *testing.T) (fincodeauth.Store, shared, cutter) {
	tab := openTable(t, postgres, postgresURL)
	children := with(postgresURL, "application_name="+url.QueryEscape(tab.name))
	return tab.Store, shared{Address: children, Name: tab.name}, func(ctx context.Context) error {
		_, err := tab.db.ExecContext(ctx, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
			WHERE application_name = $1 AND random() < 0.5`, tab.name)
		return err
	}
}

// victimMariaDB finds the children's connections by their database, which nobody
// else uses.
func victimMariaDB(t *testing.T) (fincodeauth.Store, shared, cutter) {
	db := openSQL(t, mariaDB, mysqlDSN)
	cfg, err := mysql.ParseDSN(mysqlDSN)
	if err != nil {
		t.Fatal(err)
	}
	cfg.DBName = unique("fincodeauth_test_")
	if _, err := db.ExecContext(t.Context(), "CREATE DATABASE "+cfg.DBName); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.ExecContext(context.Background(), "DROP DATABASE "+cfg.DBName) })
	store, err := sqlstore.New(db, sqlstore.MySQL, sqlstore.Table(cfg.DBName+".sessions"))
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	return store, shared{Address: cfg.FormatDSN(), Name: "sessions"}, func(ctx context.Context) error {
		rows, err := db.QueryContext(ctx, "SELECT id FROM information_schema.processlist WHERE db = ? AND RAND() < 0.5", cfg.DBName)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var id int64
			if err := rows.Scan(&id); err != nil {
				return err
			}
			_, err := db.ExecContext(ctx, fmt.Sprint("KILL ", id))
			if gone, ok := errors.AsType[*mysql.MySQLError](err); err != nil && !(ok && gone.Number == 1094) { // "Unknown thread id"
				return err
			}
		}
		return rows.Err()
	}
}

// victimSQLite returns no cutter, because SQLite has no connections to cut.
func victimSQLite(t *testing.T) (fincodeauth.Store, shared, cutter) {
	dsn := sqliteDSN(t)
	tab := openTable(t, sqlite, dsn)
	return tab.Store, shared{Address: dsn, Name: tab.name}, nil
}

// victimRedis finds the children's connections by their client name.
func victimRedis(t *testing.T) (fincodeauth.Store, shared, cutter) {
	client := openRedis(t)
	pre := openPrefix(t, client)
	name := unique("fincodeauth_test_")
	children := with(redisURL, "client_name="+name)
	return pre.Store, shared{Address: children, Name: pre.name}, func(ctx context.Context) error {
		list, err := client.ClientList(ctx).Result()
		if err != nil {
			return err
		}
		for _, id := range idsOf(list, name) {
			if rand.N(2) == 0 {
				client.ClientKillByFilter(ctx, "ID", id) // fails if the connection is already closed
			}
		}
		return nil
	}
}

// idsOf returns the ids of all connections with the given name in list. list is the
// answer to CLIENT LIST, with lines like "id=7 addr=127.0.0.1:4711 name=alice ...".
func idsOf(list, name string) (ids []string) {
	for line := range strings.Lines(list) {
		fields := strings.Fields(line)
		if slices.Contains(fields, "name="+name) {
			ids = append(ids, strings.TrimPrefix(fields[0], "id="))
		}
	}
	return ids
}
