package fincodeauth

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/oauth2"

	"github.com/fincodeauth/fincodeauth/internal/envelope"
)

// A callError is a call that got no answer.
type callError struct {
	op   string
	sent bool // the request may have been sent
	err  error
}

func (e *callError) Error() string { return e.op + ": " + e.err.Error() }

func (e *callError) Unwrap() error { return e.err }

// An endpoint makes FinCode's three calls for tokens. It does not follow redirects. It
// is safe for concurrent use, because nothing in it changes.
type endpoint struct {
	root    string            // without a trailing slash
	base    http.RoundTripper // nil: http.DefaultTransport at the time of the call
	fields  fields
	timeout time.Duration // of one call, including reading the answer's body
	late    error         // the cause of a call's context after the timeout
	now     func() time.Time
}

func newEndpoint(root string, base http.RoundTripper, f fields, timeout time.Duration, now func() time.Time) *endpoint {
	return &endpoint{
		root:    strings.TrimRight(root, "/"),
		base:    base,
		fields:  f,
		timeout: timeout,
		late:    fmt.Errorf("no answer within %v: %w", timeout, os.ErrDeadlineExceeded),
		now:     now,
	}
}

// The bodies of the calls (FINCODE.md, Calls).
type (
	loginBody struct {
		Email    string `json:"email"`
		Password string `json:"currentPassword"`
	}
	refreshBody struct { // and logout's
		RefreshToken string `json:"refresh_token"`
	}
)

// login exchanges credentials for a token pair.
func (e *endpoint) login(ctx context.Context, c Credentials) (*oauth2.Token, error) {
	password, err := c.sent()
	if err != nil {
		return nil, err
	}
	return e.issue(ctx, opLogin, loginBody{c.Email, password}, c.Password, password)
}

// refresh exchanges old's refresh token for the next pair. If the answer has no
// refresh token, the new pair keeps the old one (FINCODE.md, What no page says, 1).
func (e *endpoint) refresh(ctx context.Context, old *oauth2.Token) (*oauth2.Token, error) {
	tok, err := e.issue(ctx, opRefresh, refreshBody{old.RefreshToken}, old.RefreshToken, old.AccessToken)
	if err == nil && tok.RefreshToken == "" {
		tok.RefreshToken = old.RefreshToken
	}
	return tok, err
}

// logout revokes both tokens.
func (e *endpoint) logout(ctx context.Context, tok *oauth2.Token) error {
	auth := make(http.Header)
	if tok.AccessToken != "" {
		auth.Set("Authorization", "Bearer "+tok.AccessToken)
		auth.Set("X-Auth-Token", tok.AccessToken)
	}
	_, err := e.call(ctx, opLogout, auth, refreshBody{tok.RefreshToken}, tok.RefreshToken, tok.AccessToken)
	return err
}

// issue makes a call whose answer has a token pair.
func (e *endpoint) issue(ctx context.Context, op string, body any, secrets ...string) (*oauth2.Token, error) {
	before := e.now().Round(0)
	a, err := e.call(ctx, op, nil, body, secrets...)
	if err != nil {
		return nil, err
	}
	tok, err := a.token(before)
	if err != nil { // FinCode says that it succeeded, so the outcome is unknown
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	return tok, nil
}

// maxAnswer is how much of an answer's body is read at most, in bytes.
const maxAnswer = 1 << 20

// call makes one call and reads its answer. Its errors do not contain the secrets.
func (e *endpoint) call(ctx context.Context, op string, auth http.Header, body any, secrets ...string) (*answer, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, e.timeout, e.late)
	defer cancel()
	var conn connTrace
	req, err := e.request(conn.watch(ctx), op, auth, body)
	if err != nil {
		return nil, &callError{op: op, err: err}
	}
	resp, err := e.send(req)
	if err != nil {
		return nil, &callError{op: op, sent: !conn.neverConnected(err), err: reason(ctx, err)}
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if !succeeded(resp.StatusCode) {
		return nil, refusal(op, resp, data, err == nil && len(data) <= maxAnswer, secrets)
	}
	switch {
	case err != nil:
		return nil, &callError{op: op, sent: true, err: fmt.Errorf("reading the answer: %w", reason(ctx, err))}
	case len(data) > maxAnswer:
		return nil, &callError{op: op, sent: true, err: fmt.Errorf("the answer is longer than %d bytes", maxAnswer)}
	}
	a := &answer{date: resp.Header.Get("Date"), body: envelope.Object(data)}
	if a.body["success"] == false {
		return nil, refusal(op, resp, data, true, secrets)
	}
	return a, nil
}

// send sends the request once, to its own URL. It does not use an http.Client,
// because that would follow redirects: here, a redirect is an answer like any other.
func (e *endpoint) send(req *http.Request) (*http.Response, error) {
	resp, err := baseOr(e.base).RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if err := checkAnswer(resp); err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusSwitchingProtocols { // the body is the connection, and no context would end reading it
		resp.Body.Close()
		resp.Body = http.NoBody
	}
	return resp, nil
}

// request builds the call's request.
func (e *endpoint) request(ctx context.Context, op string, auth http.Header, body any) (*http.Request, error) {
	data, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, e.root+"/securitymanagement/"+op, bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	h := header{Header: req.Header}
	for i := range e.fields {
		h.add(&e.fields[i])
	}
	for name, values := range auth {
		req.Header[name] = values
	}
	req.Header.Set("Content-Type", "application/json")
	// With one of these keys, net/http repeats a request whose answer was lost.
	req.Header.Del("Idempotency-Key")
	req.Header.Del("X-Idempotency-Key")
	return req, nil
}

// reason returns why a call failed with err: if ctx has ended, that is the cause.
func reason(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// A connTrace watches whether a request ever got a connection. A request without
// one was never sent.
type connTrace struct{ wanted, got atomic.Bool }

func (t *connTrace) watch(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn: func(string) { t.wanted.Store(true) },
		GotConn: func(httptrace.GotConnInfo) { t.got.Store(true) },
	})
}

// neverConnected reports whether the request certainly did not reach FinCode. err is
// the error of the call. It decides if the base does not report to httptrace, as a
// mock does not.
func (t *connTrace) neverConnected(err error) bool {
	if t.got.Load() {
		return false
	}
	if t.wanted.Load() {
		return true
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
		return true
	}
	if _, ok := errors.AsType[*net.DNSError](err); ok {
		return true
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return true
	}
	_, ok := errors.AsType[tls.RecordHeaderError](err)
	return ok
}
