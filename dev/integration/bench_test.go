package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/redis/go-redis/v9"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/fincodetest"
)

// The benchmarks compare a store with its bare statements, which are the same
// statements sent by the driver alone, with values that are encoded beforehand.
// The store and the bare statements take turns in the same run. "ratio" is the
// time of the bare statements divided by the time of the store: a ratio of 1
// means that the store adds nothing.

const (
	due         = 1000 // sessions that need a refresh at once
	connections = 20
)

// A bareStore sends the same statements as a Store and checks the same results.
// It works on the record of user n. data is the record as JSON. Before a benchmark
// starts, each user has a record of version "v".
type bareStore struct {
	load func(ctx context.Context, n int) error
	save func(ctx context.Context, n int, data, version, prev string) error
}

// claimAndSave makes the two saves of a rotation: first the claim, then the new
// token.
func (s bareStore) claimAndSave(ctx context.Context, n int, data, claim, next, prev string) error {
	if err := s.save(ctx, n, data, claim, prev); err != nil {
		return err
	}
	return s.save(ctx, n, data, next, claim)
}

// measured lists the databases. open returns a Store and a bareStore on the same
// database.
var measured = []struct {
	name string
	open func(b *testing.B) (fincodeauth.Store, bareStore)
}{
	{"PostgreSQL", func(b *testing.B) (fincodeauth.Store, bareStore) {
		ours, bare := openTable(b, postgres, postgresURL), openTable(b, postgres, postgresURL)
		pool, err := pgxpool.New(b.Context(), with(postgresURL, fmt.Sprintf("pool_max_conns=%d", connections)))
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(pool.Close)
		fill(b, bare.Store)
		ids := identify(b, bare)
		update := "UPDATE " + bare.name + " SET version = $1, record = $2, session = $3, expiry = $4, refresh_started = $5, ended = $6, updated_at = $7" +
			" WHERE id = $8 AND version = $9"
		return ours.Store, bareStore{
			load: func(ctx context.Context, n int) error {
				var version, data string
				return pool.QueryRow(ctx, "SELECT version, record FROM "+bare.name+" WHERE id = $1", ids[user(n)]).Scan(&version, &data)
			},
			save: func(ctx context.Context, n int, data, version, prev string) error {
				now := time.Now()
				tag, err := pool.Exec(ctx, update, version, data, user(n), now, now, nil, now, ids[user(n)], prev)
				return one(tag.RowsAffected(), err)
			},
		}
	}},
	{"MariaDB", func(b *testing.B) (fincodeauth.Store, bareStore) { return openWithBare(b, mariaDB, mysqlDSN) }},
	{"SQLite", func(b *testing.B) (fincodeauth.Store, bareStore) {
		return openWithBare(b, sqlite, "file:"+b.TempDir()+"/sessions.db?_pragma=journal_mode(wal)&_pragma=busy_timeout(10000)")
	}},
	{"etcd", func(b *testing.B) (fincodeauth.Store, bareStore) {
		ours, bare := openSharedEtcd(b), openSharedEtcd(b)
		fill(b, bare.Store)
		return ours.Store, bareStore{
			load: func(ctx context.Context, n int) error {
				found, err := bare.client.Get(ctx, bare.name+user(n))
				if err != nil {
					return err
				}
				return one(found.Count, nil)
			},
			save: func(ctx context.Context, n int, data, version, prev string) error {
				key, from := bare.name+user(n), `{"version":"`+prev
				_, rest, _ := strings.Cut(data, ",")
				done, err := bare.client.Txn(ctx).
					If(clientv3.Compare(clientv3.Value(key), ">", from+`"`), clientv3.Compare(clientv3.Value(key), "<", from+"#")).
					Then(clientv3.OpPut(key, `{"version":"`+version+`",`+rest)).
					Else(clientv3.OpGet(key)).
					Commit()
				if err == nil && !done.Succeeded {
					err = fincodeauth.ErrConflict
				}
				return err
			},
		}
	}},
	{"Redis", func(b *testing.B) (fincodeauth.Store, bareStore) {
		ours, bare := openPrefix(b, openRedis(b)), openPrefix(b, openRedis(b))
		fill(b, bare.Store)
		script := redis.NewScript(saveScript)
		if err := script.Load(b.Context(), bare.client).Err(); err != nil {
			b.Fatal(err)
		}
		return ours.Store, bareStore{
			load: func(ctx context.Context, n int) error {
				return bare.client.HMGet(ctx, bare.name+user(n), "version", "record").Err()
			},
			save: func(ctx context.Context, n int, data, version, prev string) error {
				saved, err := bare.client.EvalSha(ctx, script.Hash(), []string{bare.name + user(n)}, prev, version, data, 0).Int64()
				return one(saved, err)
			},
		}
	}},
	{"Kubernetes", openKubeWithBare},
}

// saveScript is a copy of the script in redisstore.
const saveScript = `
local version = redis.call('HGET', KEYS[1], 'version') or ''
if version == ARGV[2] then
	return 1
end
if version ~= ARGV[1] then
	return 0
end
redis.call('HSET', KEYS[1], 'version', ARGV[2], 'record', ARGV[3])
if ARGV[4] == '0' then
	redis.call('PERSIST', KEYS[1])
else
	redis.call('PEXPIRE', KEYS[1], ARGV[4])
end
return 1
`

// openWithBare opens a database whose driver can only be used by database/sql.
func openWithBare(b *testing.B, d sqlDatabase, dsn string) (fincodeauth.Store, bareStore) {
	ours, bare := openTable(b, d, dsn), openTable(b, d, dsn)
	fill(b, bare.Store)
	ids := identify(b, bare)
	update := "UPDATE " + bare.name + " SET version = ?, record = ?, session = ?, expiry = ?, refresh_started = ?, ended = ?, updated_at = ?" +
		" WHERE id = ? AND version = ?"
	return ours.Store, bareStore{
		load: func(ctx context.Context, n int) error {
			var version, data string
			return bare.db.QueryRowContext(ctx, "SELECT version, record FROM "+bare.name+" WHERE id = ?", ids[user(n)]).Scan(&version, &data)
		},
		save: func(ctx context.Context, n int, data, version, prev string) error {
			now := time.Now().UTC().Format("2006-01-02 15:04:05.000000")
			result, err := bare.db.ExecContext(ctx, update, version, data, user(n), now, now, nil, now, ids[user(n)], prev)
			if err != nil {
				return err
			}
			return one(result.RowsAffected())
		},
	}
}

// BenchmarkRotations refreshes 1,000 sessions at once. A rotation is a load, a
// claim, a call to the FinCode in this process, and a save. The bare statements
// lack the call and all other work outside of the store. That work is measured
// with a MemoryStore and added to the time of the bare statements, so that the
// ratio is fair.
func BenchmarkRotations(b *testing.B) {
	for _, m := range measured {
		b.Run(m.name, func(b *testing.B) {
			store, bare := m.open(b)
			memory := fincodeauth.NewMemoryStore()
			fc := fincodetest.New(fincodetest.Config{OpaqueTokens: true})
			keys := expired(b, fc, store, due)
			expired(b, fc, memory, due)
			data := text(b, store, keys[0])
			var ours, statements, rest time.Duration
			prev, round := "v", 0
			for b.Loop() {
				round++
				rest += rotateAll(b, fc, memory, keys)
				claim, next := fmt.Sprintf("claim-%d", round), fmt.Sprintf("save-%d", round)
				began := time.Now()
				atOnce(b, due, func(n int) error {
					if err := bare.load(b.Context(), n); err != nil {
						return err
					}
					return bare.claimAndSave(b.Context(), n, data, claim, next, prev)
				})
				statements += time.Since(began)
				prev = next
				ours += rotateAll(b, fc, store, keys)
			}
			rotations := float64(round * due)
			b.ReportMetric(float64(ours.Nanoseconds())/float64(round), "ns/op")
			b.ReportMetric(rotations/ours.Seconds(), "rotations/s")
			b.ReportMetric(rotations/statements.Seconds(), "bare/s")
			b.ReportMetric((statements+rest).Seconds()/ours.Seconds(), "ratio")
		})
	}
}

// rotateAll rotates the tokens of all keys and returns how long that takes.
func rotateAll(b *testing.B, fc *fincodetest.FinCode, store fincodeauth.Store, keys []string) time.Duration {
	b.Helper()
	expire(b, store, keys)
	all := newSessions(b, fincodeauth.Config{Store: store, Base: fc})
	began := time.Now()
	refreshAll(b, all, keys)
	closeAll(b, all)
	return time.Since(began)
}

// BenchmarkClaimAndSave makes the two saves of a rotation for one session.
func BenchmarkClaimAndSave(b *testing.B) {
	for _, m := range measured {
		b.Run(m.name, func(b *testing.B) { benchmarkClaimAndSave(b, m.open, 1) })
	}
}

// BenchmarkClaimAndSaveAtOnce makes the two saves of a rotation for 1,000 sessions
// at once.
func BenchmarkClaimAndSaveAtOnce(b *testing.B) {
	for _, m := range measured {
		b.Run(m.name, func(b *testing.B) { benchmarkClaimAndSave(b, m.open, due) })
	}
}

func benchmarkClaimAndSave(b *testing.B, open func(*testing.B) (fincodeauth.Store, bareStore), sessions int) {
	store, bare := open(b)
	fill(b, store)
	data := text(b, store, user(0))
	token := new(fincodeauth.Record)
	if err := json.Unmarshal([]byte(data), token); err != nil {
		b.Fatal(err)
	}
	ours := bareStore{save: func(ctx context.Context, n int, _, version, prev string) error {
		rec := &fincodeauth.Record{Version: version, Token: token.Token, RefreshStarted: time.Now()}
		return store.Save(ctx, user(n), rec, prev)
	}}
	var took [2]time.Duration
	prev, round := "v", 0
	for b.Loop() {
		round++
		claim, next := fmt.Sprintf("claim-%d", round), fmt.Sprintf("save-%d", round)
		for i := range 2 {
			which := (i + round) % 2 // so that neither is always first
			began := time.Now()
			atOnce(b, sessions, func(n int) error {
				return []bareStore{ours, bare}[which].claimAndSave(b.Context(), n, data, claim, next, prev)
			})
			took[which] += time.Since(began)
		}
		prev = next
	}
	pairs := float64(round * sessions)
	b.ReportMetric(float64(took[0].Nanoseconds())/pairs, "ns/op")
	b.ReportMetric(float64(took[1].Nanoseconds())/pairs, "bare-ns/op")
	b.ReportMetric(took[1].Seconds()/took[0].Seconds(), "ratio")
}

// fill saves a record of version "v" under the key of each user.
func fill(b *testing.B, store fincodeauth.Store) {
	b.Helper()
	fc := fincodetest.New(fincodetest.Config{})
	source := fincodeauth.NewMemoryStore()
	rec, err := source.Load(b.Context(), expired(b, fc, source, 1)[0])
	if err != nil {
		b.Fatal(err)
	}
	rec.Version = "v"
	atOnce(b, due, func(n int) error { return store.Save(b.Context(), user(n), rec, "") })
}

// identify returns the primary key of each user's row.
func identify(b *testing.B, tab table) map[string]string {
	b.Helper()
	rows, err := tab.db.QueryContext(b.Context(), "SELECT session, id FROM "+tab.name)
	if err != nil {
		b.Fatal(err)
	}
	defer rows.Close()
	ids := make(map[string]string)
	for rows.Next() {
		var session, id string
		if err := rows.Scan(&session, &id); err != nil {
			b.Fatal(err)
		}
		ids[session] = id
	}
	return ids
}

func user(n int) string { return fmt.Sprintf("user-%d", n) }

// text returns the JSON of the record under key.
func text(b *testing.B, store fincodeauth.Store, key string) string {
	b.Helper()
	rec, err := store.Load(b.Context(), key)
	if err != nil {
		b.Fatal(err)
	}
	data, err := json.Marshal(rec)
	if err != nil {
		b.Fatal(err)
	}
	return string(data)
}

// one returns an error unless exactly one row was changed.
func one(n int64, err error) error {
	if err == nil && n != 1 {
		err = fmt.Errorf("%d rows changed, want 1", n)
	}
	return err
}

// atOnce calls do(0) to do(n-1), each in its own goroutine, and waits for all of
// them.
func atOnce(b *testing.B, n int, do func(n int) error) {
	b.Helper()
	if n == 1 {
		if err := do(0); err != nil {
			b.Fatal(err)
		}
		return
	}
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			if err := do(i); err != nil {
				b.Error(err)
			}
		})
	}
	wg.Wait()
	if b.Failed() {
		b.FailNow()
	}
}
