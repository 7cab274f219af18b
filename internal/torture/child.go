package torture

// Rules for concurrency. A child may be killed at any instruction, so it writes
// each entry to its standard output before it goes on. Several goroutines send
// requests, and one reports the counts. child.mu guards the counts and the
// standard output, so that lines do not mix. The order and the client do not
// change after obey has set them.

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/fincodeauth/fincodeauth"
)

// orderVariable is the environment variable that makes a process a child. Its
// value is an order in JSON.
const orderVariable = "FINCODEAUTH_TORTURE_CHILD"

// An order is what the supervisor tells a child to do.
type order struct {
	Name           string
	Spec           string // of the store
	BaseURL        string
	Keys           []string
	Goroutines     int
	RefreshTimeout time.Duration
}

// A report is a line that a child writes, in JSON. It has either an entry or the
// counts so far.
type report struct {
	Entry  *Entry  `json:",omitempty"`
	Counts *counts `json:",omitempty"`
}

// counts are about the requests of one child.
type counts struct {
	Requests int
	Longest  time.Duration // the longest time that a request took
}

// countEvery is how often a child reports its counts. A kill loses what it counted
// since the last report.
const countEvery = 100 * time.Millisecond

// A child sends requests for sessions that it picks at random.
type child struct {
	order
	client *http.Client

	mu     sync.Mutex // guards what follows, and writes to the standard output
	counts counts
}

// obey does what a child must do, until its standard input ends.
func obey(told string, open func(string) (fincodeauth.Store, error)) error {
	c := new(child)
	if err := json.Unmarshal([]byte(told), &c.order); err != nil {
		return err
	}
	store, err := open(c.Spec)
	if err != nil {
		return err
	}
	sessions, err := newSessions(c.order, store, c.note)
	if err != nil {
		return err
	}
	c.client = sessions.Client("")

	stop := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(stop)
	}()
	var working sync.WaitGroup
	for range c.Goroutines {
		working.Go(func() { c.work(stop) })
	}
	working.Go(func() { c.count(stop) })
	working.Wait()
	c.write(report{Counts: &c.counts})
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return sessions.Close(ctx)
}

// newSessions returns Sessions that call note for everything they do in the store.
// They send the order's name to FinCode, as the uuid of each call.
func newSessions(o order, store fincodeauth.Store, note func(Entry)) (*fincodeauth.Sessions, error) {
	return fincodeauth.New(fincodeauth.Config{
		BaseURL:        o.BaseURL,
		Store:          &notary{store, note},
		Base:           &http.Transport{MaxIdleConnsPerHost: o.Goroutines + 1},
		RequestID:      func() string { return o.Name },
		RefreshTimeout: o.RefreshTimeout,
		Observe: func(e fincodeauth.Event) {
			result := e.Type.String()
			if e.Err != nil {
				result += ": " + e.Err.Error()
			}
			note(Entry{Did: Observed, Key: e.Key, Result: result})
		},
	})
}

// work sends requests until stop is closed.
func (c *child) work(stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case <-time.After(rand.N(2 * pause)):
		}
		key := c.Keys[rand.N(len(c.Keys))]
		began := time.Now()
		err := whoami(context.Background(), c.client, c.BaseURL, key)
		if err != nil {
			c.note(Entry{Did: Failed, Key: key, Began: began, Result: err.Error()})
		}
		c.mu.Lock()
		c.counts.Requests++
		c.counts.Longest = max(c.counts.Longest, time.Since(began))
		c.mu.Unlock()
	}
}

// whoami sends one request for the session under key.
func whoami(ctx context.Context, client *http.Client, baseURL, key string) error {
	ctx, cancel := context.WithTimeout(fincodeauth.WithSession(ctx, key), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, baseURL+"/whoami", nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	if resp.StatusCode != http.StatusOK {
		err = errors.Join(err, fmt.Errorf("whoami answered %s", resp.Status))
	}
	return err
}

// count reports the counts every countEvery, until stop is closed.
func (c *child) count(stop <-chan struct{}) {
	ticker := time.NewTicker(countEvery)
	defer ticker.Stop()
	for {
		select {
		case <-stop:
			return
		case <-ticker.C:
			c.mu.Lock()
			now := c.counts
			c.mu.Unlock()
			c.write(report{Counts: &now})
		}
	}
}

// note writes an entry at once, because the child may be killed in the next moment.
func (c *child) note(e Entry) {
	e.At, e.By = time.Now(), c.Name
	c.write(report{Entry: &e})
}

// write writes one line to the standard output.
func (c *child) write(r report) {
	line, err := json.Marshal(r)
	if err == nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		_, err = os.Stdout.Write(append(line, '\n'))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "cannot write to the supervisor:", err)
	}
}
