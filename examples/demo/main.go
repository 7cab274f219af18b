// Demo shows on your machine what fincodeauth promises:
//
//	go run ./examples/demo
//
// It starts a FinCode for tests, whose access tokens live for two seconds, and
// logs in once. Then 50 goroutines in four processes send requests in that one
// session for five token lifetimes. Halfway it kills one of the processes.
//
// This file is the part to copy. The other files make a demonstration of it:
// show.go directs it, process.go starts and kills processes, worker.go is the work
// of each process, progress.go shows the progress, and report.go checks the
// result.
package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/filestore"
)

// session is the key of the session that all processes share.
const session = "treasury"

func main() {
	if isWorker() {
		os.Exit(work())
	}
	os.Exit(show())
}

// open returns the sessions that are stored in the folder dir, encrypted with
// key. The processes need nothing in common except the folder and the key.
func open(baseURL, dir string, key []byte) (*fincodeauth.Sessions, error) {
	folder, err := filestore.New(dir)
	if err != nil {
		return nil, err
	}
	store, err := fincodeauth.Encrypt(folder, key)
	if err != nil {
		return nil, err
	}
	return fincodeauth.New(fincodeauth.Config{
		BaseURL:        baseURL,
		Store:          store,
		RefreshTimeout: time.Second, // short, because these tokens live only two seconds; leave it out with the real FinCode
	})
}

// saveTimeout bounds how long the program waits for tokens to be saved. It is
// shorter than stopTimeout, after which a worker is killed.
const saveTimeout = 5 * time.Second

// closeSessions waits until every rotated token is saved. It has a context of
// its own, because the program's context has ended if the program was
// interrupted.
func closeSessions(sessions *fincodeauth.Sessions) error {
	ctx, cancel := context.WithTimeout(context.Background(), saveTimeout)
	defer cancel()
	return sessions.Close(ctx)
}

// login starts the session. After that, no process needs the password.
func login(ctx context.Context, sessions *fincodeauth.Sessions, email, password string) error {
	return sessions.Login(ctx, session, fincodeauth.Credentials{Email: email, Password: password})
}

// send makes one request. The client comes from sessions.Client(session) and adds
// the token. This code is the same as for any other http.Client.
func send(ctx context.Context, client *http.Client, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answered %s", req.URL.Path, resp.Status)
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}
