package sqlstore_test

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"log"
	"net/http"
	"os"
	"time"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/sqlstore"
)

// Encrypted sessions in PostgreSQL. For MySQL or SQLite, only the driver and the
// dialect differ.
func Example() {
	if err := serve(context.Background()); err != nil {
		log.Fatal(err)
	}
}

// serve returns its errors, so that the deferred calls run.
func serve(ctx context.Context) (err error) {
	db, err := sql.Open("pgx", os.Getenv("DATABASE_URL")) // import _ "github.com/jackc/pgx/v5/stdlib"
	if err != nil {
		return err
	}
	defer db.Close()
	table, err := sqlstore.New(db, sqlstore.PostgreSQL)
	if err != nil {
		return err
	}
	if err := table.Migrate(ctx); err != nil { // or apply the result of Schema yourself
		return err
	}
	key, err := hex.DecodeString(os.Getenv("FINCODE_KEY")) // 32 bytes: openssl rand -hex 32
	if err != nil {
		return err
	}
	store, err := fincodeauth.Encrypt(table, key)
	if err != nil {
		return err
	}
	sessions, err := fincodeauth.New(fincodeauth.Config{
		BaseURL: fincodeauth.Production("acme"),
		Store:   store,
	})
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		err = errors.Join(err, sessions.Close(ctx)) // waits until the last token is saved
	}()
	http.Handle("/transactions", proxy(sessions.Client("treasury")))
	return http.ListenAndServe("localhost:8080", nil)
}

func proxy(*http.Client) http.Handler { return http.NotFoundHandler() }

// Replacing the key of Encrypt takes three releases. First release
// Encrypt(table, old, new), so that every process can read what the new key
// encrypts. Then release Encrypt(table, new, old). From now on, each refresh
// encrypts its session with the new key. This example does the same for sessions
// that are not in use. After it, release Encrypt(table, new).
//
// The example reads the keys from the column session. If your keys contain NUL or
// invalid UTF-8, take the keys from elsewhere, because the column shows these as
// U+FFFD.
func Example_replaceEncryptionKey() {
	ctx := context.Background()
	var db *sql.DB              // the database
	var store fincodeauth.Store // Encrypt(table, new, old)
	rows, err := db.QueryContext(ctx, "SELECT session FROM fincode_sessions")
	if err != nil {
		log.Fatal(err)
	}
	var keys []string
	for rows.Next() {
		var key string
		if err := rows.Scan(&key); err != nil {
			log.Fatal(err)
		}
		keys = append(keys, key)
	}
	if err := rows.Err(); err != nil { // the loop has closed rows, so their connection is free
		log.Fatal(err)
	}
	for _, key := range keys {
		if err := saveAgain(ctx, store, key); err != nil {
			log.Fatal(err)
		}
	}
	fmt.Println("the old key is no longer needed")
}

// saveAgain saves the session under key without a change. While another process
// refreshes the session, saveAgain waits, because that process saves it too.
func saveAgain(ctx context.Context, store fincodeauth.Store, key string) error {
	for {
		rec, err := store.Load(ctx, key)
		if errors.Is(err, fincodeauth.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		if time.Since(rec.RefreshStarted) < time.Minute {
			time.Sleep(time.Second)
			continue
		}
		prev := rec.Version
		rec.Version += "." + rand.Text()
		if err := store.Save(ctx, key, rec, prev); !errors.Is(err, fincodeauth.ErrConflict) {
			return err
		}
	}
}
