package integration

import (
	"crypto/rand"
	"testing"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/storetest"
)

func TestStoresKeepTheContract(t *testing.T) {
	for _, s := range stores {
		t.Run(s.name, func(t *testing.T) {
			storetest.Run(t, func(t *testing.T) fincodeauth.Store { return s.open(t) })
		})
	}
}

func TestEncryptedStoresKeepTheContract(t *testing.T) {
	for _, s := range stores {
		t.Run(s.name, func(t *testing.T) {
			storetest.Run(t, func(t *testing.T) fincodeauth.Store { return encrypted(t, s.open(t), newKey()) })
		})
	}
}

// The stores must keep the contract with other settings of drivers and servers
// too.
func TestSettingsDoNotMatter(t *testing.T) {
	for name, at := range map[string]struct {
		sqlDatabase
		dsn string
	}{
		"PostgreSQL/SimpleProtocol": {postgres, with(postgresURL, "default_query_exec_mode=simple_protocol&timezone=Asia/Tokyo")},
		"PostgreSQL/Serializable":   {postgres, with(postgresURL, "default_transaction_isolation=serializable")},
		"MariaDB/FoundRows":         {mariaDB, with(mysqlDSN, "clientFoundRows=true&interpolateParams=true")},
		"MariaDB/ParseTime":         {mariaDB, with(mysqlDSN, "parseTime=true&loc=Asia%2FTokyo&time_zone=%27%2B09:00%27")},
		"MariaDB/Lenient":           {mariaDB, with(mysqlDSN, "sql_mode=%27ANSI%27&charset=latin1&tx_isolation=%27SERIALIZABLE%27")},
		"SQLite/RollbackJournal":    {sqlite, ""},
	} {
		t.Run(name, func(t *testing.T) {
			storetest.Run(t, func(t *testing.T) fincodeauth.Store {
				if at.dsn == "" {
					return openTable(t, at.sqlDatabase, "file:"+t.TempDir()+"/sessions.db").Store
				}
				return openTable(t, at.sqlDatabase, at.dsn).Store
			})
		})
	}
}

// encrypted wraps a store with Encrypt.
func encrypted(t testing.TB, s fincodeauth.Store, keys ...[]byte) fincodeauth.Store {
	t.Helper()
	e, err := fincodeauth.Encrypt(s, keys...)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// newKey returns a key for Encrypt.
func newKey() []byte {
	key := make([]byte, 32)
	rand.Read(key)
	return key
}

// with adds parameters to a DSN or URL.
func with(dsn, params string) string {
	for i := range dsn {
		if dsn[i] == '?' {
			return dsn + "&" + params
		}
	}
	return dsn + "?" + params
}
