package etcdstore_test

import (
	"context"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"log"
	"net/http"
	"os"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/etcdstore"
)

// Encrypted sessions in an etcd of three members. The client notices within 20 seconds
// that a member hangs.
func Example() {
	if err := serve(); err != nil {
		log.Fatal(err)
	}
}

// serve returns its errors, so that the deferred calls run.
func serve() (err error) {
	certificate, err := tls.LoadX509KeyPair("etcd-client.crt", "etcd-client.key")
	if err != nil {
		return err
	}
	client, err := clientv3.New(clientv3.Config{
		Endpoints: []string{
			"https://etcd-1.internal:2379",
			"https://etcd-2.internal:2379",
			"https://etcd-3.internal:2379",
		},
		DialKeepAliveTime:    10 * time.Second,
		DialKeepAliveTimeout: 10 * time.Second,
		TLS:                  &tls.Config{Certificates: []tls.Certificate{certificate}},
	})
	if err != nil {
		return err
	}
	defer client.Close()
	plain, err := etcdstore.New(client)
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
