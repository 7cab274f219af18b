package integration

// Rules for concurrency. Several goroutines of a child send requests, and the
// package under test calls note from goroutines of its own. child.mu guards the
// standard output, so that lines do not mix. Nothing else changes after the start.

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/fincodeauth/fincodeauth"
)

// childVariable is the environment variable that makes a process a child of a
// living. Its value is a childOrder in JSON.
const childVariable = "FINCODEAUTH_LIVING_CHILD"

// A childOrder is what a child must do.
type childOrder struct {
	Store   shared
	BaseURL string
	Keys    []string

	KeepAlive time.Duration // instead of requests, the child calls KeepAlive with this; 0: it sends requests
}

// A note is a line that a child writes, in JSON.
type note struct {
	What  noted
	Key   string    `json:",omitempty"`
	Text  string    `json:",omitempty"` // the error, or the event's type
	Began time.Time `json:",omitzero"`  // when a Save began
	Ended time.Time `json:",omitzero"`  // when the store had acknowledged it
}

// noted says what a note is about.
type noted string

const (
	claimed   noted = "the store acknowledged a claim"
	saved     noted = "the store acknowledged another record"
	observed  noted = "an event"
	succeeded noted = "a request got its answer"
	failed    noted = "a request failed"
	alive     noted = "at the end, there was a working token"
	lost      noted = "at the end, there was no working token"
)

const (
	childGoroutines = 5
	childPause      = 50 * time.Millisecond // between two requests of a goroutine, on average
	childTimeout    = 1500 * time.Millisecond
	childPatience   = 10 * time.Second // the time limit of a request
	checkPatience   = 30 * time.Second // until a session must have a working token at the end
)

// A child sends requests for sessions that it picks at random.
type child struct {
	childOrder
	sessions *fincodeauth.Sessions
	client   *http.Client
	mu       sync.Mutex
}

// obeyChildOrder does what a child must do. When its standard input ends, the child
// looks for a working token of each session, and then ends.
func obeyChildOrder(told string) error {
	c := new(child)
	if err := json.Unmarshal([]byte(told), &c.childOrder); err != nil {
		return err
	}
	store, closer, err := c.Store.open()
	if err != nil {
		return err
	}
	defer closer.Close()
	c.sessions, err = fincodeauth.New(fincodeauth.Config{
		BaseURL:        c.BaseURL,
		Store:          &notedStore{store, c.note},
		Base:           &http.Transport{MaxIdleConnsPerHost: childGoroutines + len(c.Keys)},
		RefreshTimeout: childTimeout,
		Observe: func(e fincodeauth.Event) {
			c.note(note{What: observed, Key: e.Key, Text: e.Type.String()})
		},
	})
	if err != nil {
		return err
	}
	c.client = c.sessions.Client("")
	stop := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(stop)
	}()
	if c.KeepAlive != 0 {
		c.keepAlive(stop)
	} else {
		c.sendRequests(stop)
	}
	ctx, cancel := context.WithTimeout(context.Background(), childPatience)
	defer cancel()
	return c.sessions.Close(ctx)
}

// sendRequests sends requests until stop is closed, and then looks for working tokens.
func (c *child) sendRequests(stop <-chan struct{}) {
	var working sync.WaitGroup
	for range childGoroutines {
		working.Go(func() { c.work(stop) })
	}
	working.Wait()
	c.check()
}

// keepAlive calls KeepAlive until stop is closed.
func (c *child) keepAlive(stop <-chan struct{}) {
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		<-stop
		cancel()
	}()
	if err := c.sessions.KeepAlive(ctx, c.KeepAlive, nil); !errors.Is(err, context.Canceled) {
		c.note(note{What: failed, Text: err.Error()})
	}
}

// work sends requests until stop is closed.
func (c *child) work(stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case <-time.After(rand.N(2 * childPause)):
		}
		key := c.Keys[rand.N(len(c.Keys))]
		n := note{What: succeeded, Key: key}
		if err := c.request(key); err != nil {
			n.What, n.Text = failed, classOf(err)
		}
		c.note(n)
	}
}

// request sends one request for the session under key.
func (c *child) request(key string) error {
	ctx, cancel := context.WithTimeout(fincodeauth.WithSession(context.Background(), key), childPatience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.BaseURL+"/whoami", nil)
	if err != nil {
		return err
	}
	resp, err := c.client.Do(req)
	if err != nil {
		if ctx.Err() != nil { // a call to the store has a time limit, too
			err = errors.Join(errNoAnswer, err)
		}
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	if resp.StatusCode != http.StatusOK {
		err = errors.Join(err, fmt.Errorf("%w: %s", errRefusedByAPI, resp.Status))
	}
	return err
}

var (
	errRefusedByAPI = errors.New("the API refused the access token")
	errNoAnswer     = fmt.Errorf("no answer within %v", childPatience)
)

// classOf says for whom a request failed, without what differs between two requests.
func classOf(err error) string {
	ended, isEnd := errors.AsType[*fincodeauth.SessionError](err)
	_, isFinCode := errors.AsType[*fincodeauth.EndpointError](err)
	switch {
	case isEnd && ended.Reused && ended.Interrupted:
		return toldReused + " after an interruption"
	case isEnd && ended.Reused:
		return toldReused
	case isEnd && errors.Is(err, fincodeauth.ErrNotFound):
		return "SessionError: no session"
	case isEnd:
		return "SessionError: rejected"
	case isFinCode:
		return "FinCode's error, and not told to log in"
	case errors.Is(err, errRefusedByAPI):
		return errRefusedByAPI.Error()
	case errors.Is(err, errNoAnswer):
		return errNoAnswer.Error()
	}
	return "the store's error"
}

const toldReused = "SessionError: reused"

// check looks for a working token of each session. First it waits until all tokens
// that were in use have expired, so that a token that works is a new one.
func (c *child) check() {
	time.Sleep(livingLifetime)
	var checking sync.WaitGroup
	for _, key := range c.Keys {
		checking.Go(func() { c.note(c.checked(key)) })
	}
	checking.Wait()
}

// checked sends requests until one succeeds. A process that knows more than the store
// saves that when it refreshes, so a session that has ended for longer than a few
// lifetimes is lost.
func (c *child) checked(key string) note {
	began := time.Now()
	for {
		err := c.request(key)
		if err == nil {
			return note{What: alive, Key: key}
		}
		limit := checkPatience
		if errors.Is(err, fincodeauth.ErrLoginRequired) {
			limit = 3 * livingLifetime
		}
		if time.Since(began) > limit {
			return note{What: lost, Key: key, Text: err.Error()}
		}
		time.Sleep(childPause)
	}
}

// note writes one line to the standard output.
func (c *child) note(n note) {
	line, err := json.Marshal(n)
	if err == nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		_, err = os.Stdout.Write(append(line, '\n'))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "cannot write to the test:", err)
	}
}

// A notedStore notes each Save that the store acknowledges.
type notedStore struct {
	fincodeauth.Store
	note func(note)
}

func (s *notedStore) Keys(ctx context.Context) iter.Seq2[string, error] {
	return s.Store.(fincodeauth.KeyLister).Keys(ctx)
}

func (s *notedStore) Save(ctx context.Context, key string, rec *fincodeauth.Record, prev string) error {
	n := note{What: saved, Key: key, Began: time.Now()}
	if !rec.RefreshStarted.IsZero() {
		n.What = claimed
	}
	err := s.Store.Save(ctx, key, rec, prev)
	if err == nil {
		n.Ended = time.Now()
		s.note(n)
	}
	return err
}
