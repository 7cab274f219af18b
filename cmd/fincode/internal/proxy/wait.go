package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// waitPoll is how long Wait waits between two tries.
const waitPoll = 100 * time.Millisecond

// Wait waits until the proxy at where serves, or until ctx ends. where is a URL such as
// http://127.0.0.1:8080, an address such as 127.0.0.1:8080, or the path of a Unix socket,
// which has a slash. It needs no key. Its errors do not show one that is in the URL.
func Wait(ctx context.Context, where string) error {
	r, err := remoteAt(where)
	if err != nil {
		return err
	}
	defer r.client.CloseIdleConnections()
	var last error
	for {
		err := r.started(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() == nil || last == nil { // otherwise err only says that ctx has ended
			last = err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("no proxy serves at %s: %w: is it started, and with this address?", r.name, last)
		case <-time.After(waitPoll):
		}
	}
}

// A remote is a proxy of another process.
type remote struct {
	client *http.Client
	probe  string // its URL
	name   string // for people
}

func remoteAt(where string) (remote, error) {
	transport := &http.Transport{}
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	if strings.Contains(where, "/") && !strings.Contains(where, "://") {
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", where)
		}
		return remote{client, "http://localhost/-/startup", where}, nil
	}
	if !strings.Contains(where, "://") {
		where = "http://" + where
	}
	u, err := url.Parse(where)
	if err != nil || u.Host == "" {
		return remote{}, errors.New("the proxy's address does not parse: write it as http://127.0.0.1:8080, or as the path of a Unix socket with a slash")
	}
	return remote{client, u.Scheme + "://" + u.Host + "/-/startup", u.Host}, nil
}

// started returns nil if the proxy serves, or else what the last try has shown.
func (r remote) started(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.probe, nil)
	if err != nil {
		return err
	}
	resp, err := r.client.Do(req)
	if urlErr, ok := errors.AsType[*url.Error](err); ok {
		return urlErr.Err // without the URL
	}
	defer resp.Body.Close()
	word, err := io.ReadAll(io.LimitReader(resp.Body, 100))
	switch {
	case resp.StatusCode != http.StatusOK:
		return fmt.Errorf("it answers %s", resp.Status)
	case err != nil || strings.TrimSpace(string(word)) != "started":
		return errors.New("it is another program, not a fincode proxy")
	}
	return nil
}
