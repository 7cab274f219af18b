// Quickstart is the smallest program: it logs in, sends one request and prints
// the status of the answer.
//
//	go run ./examples/quickstart
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/fincodetest"
)

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() (err error) {
	srv := fincodetest.NewServer(fincodetest.Config{}) // a FinCode to try this with
	defer srv.Close()
	baseURL := srv.URL // or fincodeauth.Sandbox("your-tenant"), fincodeauth.Production("your-domain")

	sessions, err := fincodeauth.New(fincodeauth.Config{BaseURL: baseURL})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeSessions(sessions)) }()

	err = sessions.Login(context.Background(), "operations", fincodeauth.Credentials{
		Email:    fincodetest.Email,
		Password: fincodetest.Password,
	})
	if err != nil {
		return err
	}

	client := sessions.Client("operations") // an *http.Client
	resp, err := client.Get(baseURL + "/whoami")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	fmt.Println(resp.Status)
	return nil
}

// closeSessions gives the store 30 seconds to accept the tokens that are not saved
// yet. Without a deadline, Close waits as long as the store is down.
func closeSessions(sessions *fincodeauth.Sessions) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	return sessions.Close(ctx)
}
