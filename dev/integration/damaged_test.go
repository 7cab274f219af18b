package integration

import (
	"strings"
	"testing"

	"github.com/fincodeauth/fincodeauth"
)

func TestDeleteRemovesADamagedRecord(t *testing.T) {
	check := func(t *testing.T, store fincodeauth.Store, damage func() error) {
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
	for _, d := range sqlDatabases {
		t.Run(d.name, func(t *testing.T) {
			tab := openTable(t, d.sqlDatabase, d.dsn(t))
			check(t, tab.Store, func() error {
				_, err := tab.db.ExecContext(t.Context(), "UPDATE "+tab.name+" SET record = '{\"vers'")
				return err
			})
		})
	}
	t.Run("Redis", func(t *testing.T) {
		p := openPrefix(t, openRedis(t))
		check(t, p.Store, func() error { return p.client.HDel(t.Context(), p.name+"alice", "record").Err() })
	})
}
