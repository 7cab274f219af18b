package events

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"path"
	"strings"
	"sync/atomic"
)

// maxBody is how much of a request or an answer is read, in bytes. fincodeauth reads as
// much of an answer.
const maxBody = 1 << 20

// RoundTripper returns a RoundTripper for fincodeauth.Config.Base. It sends all requests
// with base, once each, and notes the calls for tokens: before a refresh token goes out, and
// when the answer is there. It reads the answer to such a call before it returns the
// response, and the response has the same body. Other requests and answers are not touched.
func (j *Journal) RoundTripper(base http.RoundTripper) http.RoundTripper {
	return &calls{journal: j, base: base}
}

type calls struct {
	journal *Journal
	base    http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (c *calls) RoundTrip(r *http.Request) (*http.Response, error) {
	op := opOf(r)
	if op == "" {
		return c.base.RoundTrip(r)
	}
	token := c.journal.hash(presented(r))
	if op == Login {
		token = ""
	} else {
		c.journal.note(Entry{Kind: Presenting, Op: op, Token: token})
	}
	var conn connection
	resp, err := c.base.RoundTrip(r.WithContext(conn.watch(r.Context())))
	noted := Entry{Kind: Answered, Op: op, Token: token}
	switch {
	case err != nil:
		noted.Error, noted.Outcome = err.Error(), Unknown
		if conn.neverMade(err) {
			noted.Outcome = Untouched
		}
	case resp == nil || resp.Body == nil || resp.StatusCode == http.StatusSwitchingProtocols: // fincodeauth does not read it either
		noted.Outcome = Unknown
	default:
		c.read(resp, &noted)
	}
	c.journal.note(noted)
	return resp, err
}

// read reads the answer, and puts what was read back into the response.
func (c *calls) read(resp *http.Response, noted *Entry) {
	body := resp.Body
	data, err := io.ReadAll(io.LimitReader(body, maxBody+1))
	rest := io.Reader(body)
	if err != nil {
		rest = failing{err}
		noted.Error = "reading the answer: " + err.Error()
	}
	resp.Body = readCloser{io.MultiReader(bytes.NewReader(data), rest), body}
	v := (&answer{status: resp.StatusCode, body: data, whole: err == nil && len(data) <= maxBody}).verdict(noted.Op)
	noted.Outcome, noted.Status, noted.Next = v.outcome, v.status, c.journal.hash(v.next)
	if v.outcome == Got && v.next == "" {
		noted.Next = noted.Token // the old one stays (FINCODE.md, What no page says, 1)
	}
}

// opOf returns the operation that the request calls; "": none of those for tokens.
func opOf(r *http.Request) string {
	if r.Method != http.MethodPut || r.URL == nil || !strings.HasSuffix(path.Dir(r.URL.Path), "/securitymanagement") {
		return ""
	}
	switch op := path.Base(r.URL.Path); op {
	case Login, Refresh, Logout:
		return op
	}
	return ""
}

// presented returns the refresh token in the request's body; "" if there is none. It reads
// a copy of the body.
func presented(r *http.Request) string {
	if r.GetBody == nil {
		return ""
	}
	body, err := r.GetBody()
	if err != nil {
		return ""
	}
	defer body.Close()
	var sent struct {
		RefreshToken string `json:"refresh_token"`
	}
	if json.NewDecoder(io.LimitReader(body, maxBody)).Decode(&sent) != nil {
		return ""
	}
	return sent.RefreshToken
}

// A connection watches whether a request ever got a connection. A request without one was
// never sent.
type connection struct{ wanted, got atomic.Bool }

func (c *connection) watch(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn: func(string) { c.wanted.Store(true) },
		GotConn: func(httptrace.GotConnInfo) { c.got.Store(true) },
	})
}

// neverMade reports whether the request that failed with err certainly was not sent. It
// knows fewer errors than fincodeauth, which asks the same: where it does not know, the
// outcome is unknown.
func (c *connection) neverMade(err error) bool {
	if c.got.Load() {
		return false
	}
	if c.wanted.Load() {
		return true
	}
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "dial"
}

// A readCloser reads from one and closes the other.
type readCloser struct {
	io.Reader
	io.Closer
}

// A failing is a reader whose connection broke.
type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }
