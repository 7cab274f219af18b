package integration

import (
	"errors"
	"strings"
	"testing"

	"github.com/fincodeauth/fincodeauth"
)

func TestDeleteRemovesADamagedRecord(t *testing.T) {
	for _, d := range sqlDatabases {
		t.Run(d.name, func(t *testing.T) {
			tab := openTable(t, d.sqlDatabase, d.dsn(t))
			testDamaged(t, tab.Store, func() error {
				_, err := tab.db.ExecContext(t.Context(), "UPDATE "+tab.name+" SET record = '{\"vers'")
				return err
			})
		})
	}
	for _, d := range sqlDatabases {
		t.Run(d.name+"/AnotherVersion", func(t *testing.T) {
			tab := openTable(t, d.sqlDatabase, d.dsn(t))
			testDamaged(t, tab.Store, func() error {
				_, err := tab.db.ExecContext(t.Context(), "UPDATE "+tab.name+" SET version = 'v0'")
				return err
			})
		})
	}
	t.Run("etcd", func(t *testing.T) {
		p := openSharedEtcd(t)
		testDamaged(t, p.Store, func() error {
			_, err := p.client.Put(t.Context(), p.name+"alice", `{"version":"v1","tok`)
			return err
		})
	})
	t.Run("etcd/AnotherOrder", func(t *testing.T) {
		p := openSharedEtcd(t)
		testDamaged(t, p.Store, func() error {
			_, err := p.client.Put(t.Context(), p.name+"alice", `{"ended":"why","version":"v1"}`)
			return err
		})
	})
	t.Run("Redis", func(t *testing.T) {
		p := openPrefix(t, openRedis(t))
		testDamaged(t, p.Store, func() error { return p.client.HDel(t.Context(), p.name+"alice", "record").Err() })
	})
	for field, text := range map[string]any{"record": nil, "version": "dg=="} {
		t.Run("Kubernetes/"+field, func(t *testing.T) {
			s := openKube(t)
			testDamaged(t, s.Store, func() error { return s.patch(t, "alice", object{"data": object{field: text}}) })
		})
	}
}

// testDamaged saves a record, damages it, and expects that Delete removes it.
func testDamaged(t *testing.T, store fincodeauth.Store, damage func() error) {
	t.Helper()
	if err := store.Save(t.Context(), "alice", &fincodeauth.Record{Version: "v1"}, ""); err != nil {
		t.Fatal(err)
	}
	if err := damage(); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Load(t.Context(), "alice"); err == nil || !strings.Contains(err.Error(), "call Sessions.Forget") {
		t.Errorf("Load = %v, want an error that says that the record is damaged", err)
	}
	if err := store.Delete(t.Context(), "alice"); err != nil {
		t.Errorf("Delete = %v", err)
	}
	if err := store.Save(t.Context(), "alice", &fincodeauth.Record{Version: "v2"}, ""); err != nil {
		t.Errorf("Save after Delete = %v", err)
	}
}

// With a Prefix that another program uses too, a session's key may be the name of
// that program's data.
func TestRedisDeleteLeavesAnotherProgramsData(t *testing.T) {
	p := openPrefix(t, openRedis(t))
	theirs := map[string]func(name string) error{
		"list":   func(name string) error { return p.client.RPush(t.Context(), name, "job").Err() },
		"text":   func(name string) error { return p.client.Set(t.Context(), name, "text", 0).Err() },
		"set":    func(name string) error { return p.client.SAdd(t.Context(), name, "member").Err() },
		"stream": func(name string) error { return p.client.Do(t.Context(), "XADD", name, "*", "a", "b").Err() },
	}
	for kind, write := range theirs {
		if err := write(p.name + kind); err != nil {
			t.Fatal(err)
		}
		_, loadErr := p.Load(t.Context(), kind)
		for call, err := range map[string]error{
			"Load":   loadErr,
			"Save":   p.Save(t.Context(), kind, &fincodeauth.Record{Version: "v1"}, ""),
			"Delete": p.Delete(t.Context(), kind),
		} {
			want := "another program uses this key, set another Prefix: WRONGTYPE "
			if err == nil || !strings.Contains(err.Error(), want) || errors.Is(err, fincodeauth.ErrNotFound) || errors.Is(err, fincodeauth.ErrConflict) {
				t.Errorf("%s of a %s = %v, want %q", call, kind, err, want)
			}
		}
		if n := p.client.Exists(t.Context(), p.name+kind).Val(); n != 1 {
			t.Errorf("Delete removed another program's %s", kind)
		}
	}
}
