package redisstore_test

import (
	"context"
	"encoding/hex"
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
	client := redis.NewUniversalClient(&redis.UniversalOptions{
		Addrs:                 []string{"redis.internal:6379"},
		ContextTimeoutEnabled: true,
	})
	defer client.Close()
	plain, err := redisstore.New(client, redisstore.TTL(30*24*time.Hour))
	if err != nil {
		log.Fatal(err)
	}
	key, err := hex.DecodeString(os.Getenv("FINCODE_KEY")) // 32 bytes: openssl rand -hex 32
	if err != nil {
		log.Fatal(err)
	}
	store, err := fincodeauth.Encrypt(plain, key)
	if err != nil {
		log.Fatal(err)
	}
	sessions, err := fincodeauth.New(fincodeauth.Config{
		BaseURL: fincodeauth.Production("acme"),
		Store:   store,
	})
	if err != nil {
		log.Fatal(err)
	}
	defer sessions.Close(context.Background())
	http.Handle("/transactions", proxy(sessions.Client("treasury")))
}

func proxy(*http.Client) http.Handler { return http.NotFoundHandler() }
