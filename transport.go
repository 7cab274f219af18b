package fincodeauth

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync/atomic"

	"golang.org/x/oauth2"
)

// TokenHeaders says which header fields carry the access token. FinCode's pages
// disagree about that (FINCODE.md, Headers). The zero value means both.
type TokenHeaders uint8

const (
	BearerToken TokenHeaders = 1 << iota // Authorization: Bearer <token>
	XAuthToken                           // X-Auth-Token: <token>
)

// A Transport is an http.RoundTripper that sends requests to the API for a session.
// It adds the access token and FinCode's header fields, and sends a request once
// more, with a new token, after a 401. Sessions.Transport makes one. For a fixed
// token, write a literal:
//
//	&fincodeauth.Transport{
//		Source:  oauth2.StaticTokenSource(&oauth2.Token{AccessToken: apiToken}),
//		BaseURL: fincodeauth.Sandbox("remitjunction"),
//	}
//
// The token is sent only over https or to a loopback address, and only to the
// origin of BaseURL and to Hosts. Any other request passes through unchanged, and
// an event of type Passed tells of it once for each origin. Header fields that the
// request already has stay, except Authorization and X-Auth-Token, which the
// Transport always sets. The caller's request is not changed.
//
// On a 401 it asks Source.Refresh for another token. With that it sends the
// request again, once, if the request has no body or has GetBody. If the refresh
// fails, RoundTrip returns its error: ErrLoginRequired if the session has ended.
// In any other case the caller gets the first answer, its body unread.
//
// It is safe for concurrent use. Its fields must not be changed after the first
// request.
type Transport struct {
	// Source of the tokens; required. If it has methods TokenContext and Refresh
	// like those of TokenSource, they are used, too. Only a TokenSource learns
	// whether replays succeed. Any other source is asked for a refresh more often
	// by an endpoint that rejects every token.
	Source oauth2.TokenSource

	// BaseURL is the root of the API, as in Config; required.
	BaseURL string

	Base         http.RoundTripper // nil: http.DefaultTransport
	Header       http.Header       // as in Config; nil: DefaultHeader()
	RequestID    func() string     // as in Config
	TokenHeaders TokenHeaders      // as in Config; 0: both
	Hosts        []string          // as in Config

	ready atomic.Pointer[prepared] // nil until the first request; two first requests may both make one
	last  atomic.Pointer[bearer]   // of the last request
}

// A prepared is what the fields of a Transport mean. It does not change.
type prepared struct {
	trust  *trust
	fields fields
	err    error
}

// RoundTrip implements http.RoundTripper. It returns the errors of Source and of
// Base unchanged. Any other error says which field of the Transport is wrong.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	p := t.prepare()
	if p.err != nil {
		return refuse(req, p.err)
	}
	if !p.trust.covers(req.URL) {
		if w, ok := t.Source.(watcher); ok && req.URL != nil {
			w.passed(req.Context(), req.URL)
		}
		return t.base().RoundTrip(req)
	}
	tok, err := t.token(req.Context())
	if err != nil {
		return refuse(req, err)
	}
	resp, err := answered(t.base().RoundTrip(t.authorized(req, p, tok)))
	if err != nil || resp.StatusCode != http.StatusUnauthorized {
		return resp, err
	}
	return t.replay(req, p, resp, tok)
}

// CloseIdleConnections closes the idle connections of Base, if Base can do that.
// http.Client's method of the same name calls it.
func (t *Transport) CloseIdleConnections() {
	if c, ok := t.base().(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// refuse returns the error of a request that is not sent. It closes the body, as
// every RoundTripper must.
func refuse(req *http.Request, err error) (*http.Response, error) {
	if req.Body != nil {
		req.Body.Close()
	}
	return nil, err
}

// answered checks what a RoundTripper returned, as http.Client does. A mock may
// leave out an empty body. It may not leave out the answer, or a body that it
// announced.
func answered(resp *http.Response, err error) (*http.Response, error) {
	switch {
	case err != nil:
		return nil, err
	case resp == nil:
		return nil, errors.New("the base RoundTripper returned neither an answer nor an error")
	case resp.Body == nil && resp.ContentLength > 0:
		return nil, errors.New("the base RoundTripper returned an answer without its body")
	case resp.Body == nil:
		resp.Body = http.NoBody
	}
	return resp, nil
}

func (t *Transport) prepare() *prepared {
	if p := t.ready.Load(); p != nil {
		return p
	}
	header := t.Header
	if header == nil {
		header = DefaultHeader()
	}
	p := &prepared{fields: newFields(header, t.RequestID), err: t.check()}
	if p.err == nil {
		p.trust, p.err = newTrust(t.BaseURL, t.Hosts)
	}
	if p.err != nil {
		p.err = fmt.Errorf("fincodeauth: Transport: %w", p.err)
	}
	t.ready.Store(p)
	return p
}

// check returns an error that says which field to set, or how to.
func (t *Transport) check() error {
	if src, ok := t.Source.(*TokenSource); ok && src != nil {
		if err := src.check(); err != nil {
			return err
		}
	}
	if t.Source == nil || isNil(t.Source) {
		return errors.New("no Source: use Sessions.Transport, or set it to an oauth2.TokenSource")
	}
	return checkHeader("Header", t.Header)
}

func (t *Transport) base() http.RoundTripper {
	if t.Base == nil {
		return http.DefaultTransport
	}
	return t.Base
}

func (t *Transport) token(ctx context.Context) (*oauth2.Token, error) {
	if src, ok := t.Source.(interface {
		TokenContext(context.Context) (*oauth2.Token, error)
	}); ok {
		return required(src.TokenContext(ctx))
	}
	return required(t.Source.Token())
}

// required turns a nil token without an error into an error.
func required(tok *oauth2.Token, err error) (*oauth2.Token, error) {
	if tok == nil && err == nil {
		err = errors.New("fincodeauth: Transport: Source returned neither a token nor an error")
	}
	return tok, err
}

// replay sends the request again after resp, a 401 to tok, if there is a new
// token. A refresh that was due and failed is an error: a caller who got the bare
// 401 would send a user who is logged in to the login page.
func (t *Transport) replay(req *http.Request, p *prepared, resp *http.Response, tok *oauth2.Token) (*http.Response, error) {
	src, ok := t.Source.(interface {
		Refresh(context.Context, *oauth2.Token) (*oauth2.Token, error)
	})
	if !ok {
		return resp, nil
	}
	next, err := required(src.Refresh(req.Context(), tok))
	if err != nil {
		discard(resp)
		return nil, err
	}
	if next.AccessToken == tok.AccessToken {
		return resp, nil
	}
	again := t.authorized(req, p, next)
	if req.Body != nil && req.Body != http.NoBody {
		if req.GetBody == nil {
			return resp, nil
		}
		if again.Body, err = req.GetBody(); err != nil {
			return resp, nil
		}
	}
	discard(resp)
	resp, err = answered(t.base().RoundTrip(again))
	if w, ok := t.Source.(watcher); ok && err == nil {
		w.replayed(req.Context(), next, resp.StatusCode != http.StatusUnauthorized)
	}
	return resp, err
}

// A watcher is a Source that learns what happens to requests.
type watcher interface {
	replayed(ctx context.Context, tok *oauth2.Token, accepted bool)
	passed(ctx context.Context, u *url.URL) // without a token
}

// discard closes an answer's body. If the body is known to be short, discard reads
// it first, so that its connection can be used again.
func discard(resp *http.Response) {
	if resp.ContentLength >= 0 && resp.ContentLength <= 4<<10 {
		_, _ = io.Copy(io.Discard, resp.Body)
	}
	resp.Body.Close()
}

// An outgoing is a request with room for its header values, in one allocation: for
// five values of the Transport and seven of the caller.
type outgoing struct {
	http.Request
	values [12]string
}

// authorized returns a copy of req with the header fields that it lacks and with
// the token. The copy's header shares no memory with req's, because Base may change
// it.
func (t *Transport) authorized(req *http.Request, p *prepared, tok *oauth2.Token) *http.Request {
	var room [8]field
	var more [4]*field
	theirs := withoutToken(req.Header, room[:0])
	ours := p.fields.lackedBy(theirs, more[:0])
	bearer := t.TokenHeaders == 0 || t.TokenHeaders&BearerToken != 0
	bare := t.TokenHeaders == 0 || t.TokenHeaders&XAuthToken != 0
	size := len(theirs) + len(ours) // exact, because a map for more than 8 fields takes two more allocations
	if bearer {
		size++
	}
	if bare {
		size++
	}
	out := &outgoing{Request: *req}
	out.Header = make(http.Header, size)
	h := header{Header: out.Header, values: out.values[:0]}
	for i := range theirs {
		h.add(&theirs[i])
	}
	for _, f := range ours {
		h.add(f)
	}
	if bearer {
		h.set(authorization, t.bearer(tok))
	}
	if bare {
		h.set(xAuthToken, tok.AccessToken)
	}
	return &out.Request
}

// A bearer is a token with its header value, which is made once for a token, and
// not for each request.
type bearer struct {
	token *oauth2.Token
	value string
}

func (t *Transport) bearer(tok *oauth2.Token) string {
	b := t.last.Load()
	if b == nil || b.token != tok {
		b = &bearer{tok, "Bearer " + tok.AccessToken}
		t.last.Store(b)
	}
	return b.value
}

// String names the API. It leaves the token out.
func (t *Transport) String() string { return "Transport(" + t.BaseURL + ")" }

// Format prints what String returns, whatever the verb.
func (t *Transport) Format(f fmt.State, _ rune) { fmt.Fprint(f, t.String()) }
