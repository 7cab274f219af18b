package redisstore_test

import (
	"context"
	"encoding/hex"
	"errors"
	"log"
	"net/http"
	"os"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/redisstore"
)

// Encrypted sessions in Redis. With a MasterName, the client asks Sentinel for the
// address of the primary. With several addresses and no MasterName, the client
// uses a cluster.
func Example() {
	if err := serve(); err != nil {
		log.Fatal(err)
	}
}

// serve returns its errors, so that the deferred calls run.
func serve() (err error) {
	client := redis.NewUniversalClient(&redis.UniversalOptions{
		Addrs:                 []string{"redis.internal:6379"},
		ContextTimeoutEnabled: true,
	})
	defer client.Close()
	plain, err := redisstore.New(client, redisstore.TTL(30*24*time.Hour))
	if err != nil {
		return err
	}
	key, err := hex.DecodeString(os.Getenv("FINCODE_KEY")) // 32 bytes: openssl rand -hex 32
	if err != nil {
		return err
	}
	store, err := fincodeauth.Encrypt(plain, key)
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
