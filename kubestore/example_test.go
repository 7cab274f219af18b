package kubestore_test

import (
	"context"
	"encoding/hex"
	"errors"
	"log"
	"net/http"
	"os"
	"time"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/kubestore"
)

// Encrypted sessions in Secrets of the namespace fincode, for a pod whose service account
// has the rights of deploy/rbac.yaml. The key must not be in that namespace: it comes from
// a Secret of the pod's own namespace, or from a secret manager.
func Example() {
	if err := serve(); err != nil {
		log.Fatal(err)
	}
}

// serve returns its errors, so that the deferred calls run.
func serve() (err error) {
	cluster, err := kubestore.InCluster()
	if err != nil {
		return err
	}
	cluster.Namespace = "fincode" // InCluster has filled in the pod's own
	plain, err := kubestore.New(cluster)
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
