package main

import (
	"context"
	"database/sql"
	"fmt"
	"path/filepath"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/filestore"
	"github.com/fincodeauth/fincodeauth/sqlstore"
)

// storePatience limits a call to the store that a user or a probe waits for.
const storePatience = 3 * time.Second

// openStore opens the database, or else the folder. It makes the table if there is
// none. The tokens in the store are what Encrypt makes of them.
func openStore(ctx context.Context, opts options) (_ fincodeauth.Store, closeStore func() error, err error) {
	if opts.database == "" {
		store, err := filestore.New(filepath.Join(opts.dir, "sessions"))
		return store, func() error { return nil }, err
	}
	db, err := sql.Open("pgx", opts.database)
	if err != nil {
		return nil, nil, fmt.Errorf("-database: %w", err)
	}
	db.SetMaxOpenConns(20)
	db.SetMaxIdleConns(20)
	db.SetConnMaxIdleTime(5 * time.Minute)
	store, err := sqlstore.New(db, sqlstore.PostgreSQL)
	if err == nil {
		err = store.Migrate(ctx)
	}
	if err != nil {
		db.Close()
		return nil, nil, fmt.Errorf("-database: %w", err)
	}
	return store, db.Close, nil
}
