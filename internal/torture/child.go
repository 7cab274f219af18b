package torture

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

// orderVariable is the environment variable that makes a process a child.
const orderVariable = "FINCODEAUTH_TORTURE_CHILD"

// An order is what the supervisor tells a child, in orderVariable.
type order struct {
	Name           string
	Spec           string
	BaseURL        string
	Keys           []string
	Goroutines     int
	RefreshTimeout time.Duration
}

// A report is a line that a child writes, in JSON: an entry, or what it counted
// so far.
type report struct {
	Entry  *Entry  `json:",omitempty"`
	Counts *counts `json:",omitempty"`
}

type counts struct {
	Requests int
	Longest  time.Duration // that a request took
}

// countEvery is how often a child reports its counts, which a kill takes with
// it.
const countEvery = 100 * time.Millisecond

// A child sends requests as sessions picked at random.
type child struct {
	order
	client *http.Client

	mu     sync.Mutex // guards what follows, and the standard output
	counts counts
}

// obey does what a child does, until it is killed or its standard input ends.
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

// newSessions returns Sessions that note what they do, in the store and at
// FinCode, under the order's name.
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

// whoami makes one request as the session under key.
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

// count reports the counts from time to time.
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

// note writes an entry at once: the next moment may not come.
func (c *child) note(e Entry) {
	e.At, e.By = time.Now(), c.Name
	c.write(report{Entry: &e})
}

func (c *child) write(r report) {
	line, err := json.Marshal(r)
	if err == nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		_, err = os.Stdout.Write(append(line, '\n'))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "writing to the supervisor:", err)
	}
}
