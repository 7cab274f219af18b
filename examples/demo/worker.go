package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/fincodeauth/fincodeauth"
)

// jobVariable is the environment variable that makes this program a worker. It
// carries the encryption key, which everybody could see on a command line.
const jobVariable = "FINCODEAUTH_DEMO_JOB"

// A job says what a worker must do.
type job struct {
	BaseURL    string
	Dir        string
	Key        []byte
	Goroutines int
}

// A count is what a worker did since it started. Each line of its output is one.
type count struct {
	Requests    int
	Failures    int
	Failure     string        `json:",omitempty"` // the first one
	Interrupted int           // requests after the session was lost by an interruption; not in Failures
	LongestWait time.Duration // of one request, from the call to the end of the answer
}

const (
	pauseBetweenRequests = 20 * time.Millisecond // of one goroutine
	pauseBetweenReports  = 100 * time.Millisecond
)

func isWorker() bool { return os.Getenv(jobVariable) != "" }

// work sends requests until standard input ends, which also happens when the
// parent process dies. It returns the exit status.
func work() int {
	var j job
	err := json.Unmarshal([]byte(os.Getenv(jobVariable)), &j)
	if err == nil {
		err = j.do(context.Background())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "worker:", err)
		return 1
	}
	return 0
}

func (j job) do(ctx context.Context) error {
	sessions, err := open(j.BaseURL, j.Dir, j.Key)
	if err != nil {
		return err
	}
	var done counter
	stop := make(chan struct{})
	var senders, reporter sync.WaitGroup
	client := sessions.Client(session)
	for range j.Goroutines {
		senders.Go(func() { done.sendUntil(ctx, stop, client, j.BaseURL+"/whoami") })
	}
	reporter.Go(func() { done.reportUntil(stop) })
	_, _ = io.Copy(io.Discard, os.Stdin)
	close(stop)
	senders.Wait()
	reporter.Wait()
	done.report()
	return closeSessions(sessions)
}

// A counter is a count that goroutines share. mu guards the count.
type counter struct {
	mu sync.Mutex
	count
}

func (c *counter) sendUntil(ctx context.Context, stop <-chan struct{}, client *http.Client, url string) {
	next := time.NewTicker(pauseBetweenRequests)
	defer next.Stop()
	for {
		select {
		case <-stop:
			return
		case <-next.C:
			started := time.Now()
			err := send(ctx, client, url)
			c.add(time.Since(started), err)
		}
	}
}

func (c *counter) add(wait time.Duration, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.Requests++
	c.LongestWait = max(c.LongestWait, wait)
	if ended, ok := errors.AsType[*fincodeauth.SessionError](err); ok && ended.Interrupted {
		c.Interrupted++
	} else if err != nil {
		c.Failures++
		if c.Failure == "" {
			c.Failure = err.Error()
		}
	}
}

func (c *counter) reportUntil(stop <-chan struct{}) {
	next := time.NewTicker(pauseBetweenReports)
	defer next.Stop()
	for {
		select {
		case <-stop:
			return
		case <-next.C:
			c.report()
		}
	}
}

// report prints the count. Only one goroutine may call it at a time.
func (c *counter) report() {
	c.mu.Lock()
	now := c.count
	c.mu.Unlock()
	_ = json.NewEncoder(os.Stdout).Encode(now) // fails if the parent is gone, and then nobody needs the count
}
