package fincodeauth

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync/atomic"

	"golang.org/x/oauth2"
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
// origin of BaseURL and to Hosts. Any other request goes out unchanged. If Source
// is a TokenSource, the event Passed is then sent, once for each origin.
//
// Header fields that the request already has stay. There are two exceptions: the
// Transport removes Authorization and X-Auth-Token, and sets those that
// TokenHeaders names. The caller's request is not changed.
//
// After a 401 the Transport calls Source.Refresh. With the new token it sends the
// request again, once, if the request has no body or has GetBody. The caller gets
// the answer to that. If the refresh fails, RoundTrip returns its error, which is
// ErrLoginRequired if the session has ended. If there is no new token, or if the
// body cannot be sent again, the caller gets the 401, its body unread.
//
// A Transport is safe for concurrent use. Its fields must not be changed after the
// first request.
type Transport struct {
	// Source of the tokens; required. If it has the methods TokenContext and
	// Refresh of TokenSource, they are used, too. Only a TokenSource learns
	// whether replays succeed. With any other source, an endpoint that rejects
	// every token causes more refreshes.
	Source oauth2.TokenSource

	// BaseURL is the root of the API, as in Config; required.
	BaseURL string

	Base         http.RoundTripper // nil: http.DefaultTransport
	Header       http.Header       // as in Config; nil: DefaultHeader(), to which you may add fields
	RequestID    func() string     // as in Config; nil: the uuid of Header
	TokenHeaders TokenHeaders      // as in Config; 0: both
	Hosts        []string          // as in Config; nil: none

	ready atomic.Pointer[prepared] // nil before the first request; requests that come first at once may each make one
	last  atomic.Pointer[bearer]   // of the last request
}

// A prepared is what the fields of a Transport mean. It does not change.
type prepared struct {
	trust  *trust
	fields fields
	err    error
}

// RoundTrip implements http.RoundTripper. It returns the errors of Source and of
// Base unchanged. Any other error names the field of the Transport that is wrong.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	p := t.prepare()
	if p.err != nil {
		return refuse(req, p.err)
	}
	if !p.trust.covers(req.URL) {
		if w, ok := t.Source.(watcher); ok && req.URL != nil {
			w.passed(req.Context(), req.URL, t.BaseURL)
		}
		return t.base().RoundTrip(req)
	}
	tok, err := t.token(req.Context())
	if err != nil {
		return refuse(req, err)
	}
	resp, err := t.send(t.authorized(req, p, tok))
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

// send sends a request through Base.
func (t *Transport) send(req *http.Request) (*http.Response, error) {
	resp, err := t.base().RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if err := checkAnswer(resp); err != nil {
		return nil, fmt.Errorf("fincodeauth: Transport: %w", err)
	}
	return resp, nil
}

// checkAnswer checks the answer of a RoundTripper, as http.Client does. A mock may
// leave out an empty body, which checkAnswer adds. It may not leave out the answer,
// or a body that it announced.
func checkAnswer(resp *http.Response) error {
	switch {
	case resp == nil:
		return errors.New("the Base returned neither an answer nor an error")
	case resp.Body == nil && resp.ContentLength > 0:
		return errors.New("the Base returned an answer without its body")
	case resp.Body == nil:
		resp.Body = http.NoBody
	}
	return nil
}

func (t *Transport) prepare() *prepared {
	if p := t.ready.Load(); p != nil {
		return p
	}
	return t.prepareFirst()
}

func (t *Transport) prepareFirst() *prepared {
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
	if isNil(t.Source) {
		return errors.New("no Source: use Sessions.Transport, or set it to an oauth2.TokenSource")
	}
	if src, ok := t.Source.(*TokenSource); ok {
		if err := src.check(); err != nil {
			return err
		}
	}
	return cmp.Or(t.TokenHeaders.check(), checkHeader("Header", t.Header))
}

func (t *Transport) base() http.RoundTripper { return baseOr(t.Base) }

// baseOr returns base; nil: http.DefaultTransport, which a test may replace at any
// time.
func baseOr(base http.RoundTripper) http.RoundTripper {
	if base == nil {
		return http.DefaultTransport
	}
	return base
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

// replay sends the request again after resp, a 401 to tok, if there is a new token.
// If the refresh fails, replay returns its error and not the 401. Otherwise a backend
// would send a user who is logged in to the login page.
func (t *Transport) replay(req *http.Request, p *prepared, resp *http.Response, tok *oauth2.Token) (*http.Response, error) {
	src, ok := t.Source.(interface {
		Refresh(context.Context, *oauth2.Token) (*oauth2.Token, error)
	})
	if !ok {
		return resp, nil
	}
	next, err := required(src.Refresh(req.Context(), tok))
	if err != nil {
		resp.Body.Close() // unread: it may stall
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
	drain(resp)
	resp, err = t.send(again)
	if w, ok := t.Source.(watcher); ok && err == nil {
		w.replayed(req.Context(), next, resp.StatusCode != http.StatusUnauthorized)
	}
	return resp, err
}

// A watcher is a Source that learns what happens to requests: a TokenSource, or a
// struct that embeds one.
type watcher interface {
	replayed(ctx context.Context, tok *oauth2.Token, accepted bool)
	passed(ctx context.Context, u *url.URL, baseURL string) // without a token
}

// drain closes an answer's body. If the body is known to be short, drain reads it
// first, so that the connection can be used again.
func drain(resp *http.Response) {
	if resp.ContentLength >= 0 && resp.ContentLength <= 4<<10 {
		_, _ = io.Copy(io.Discard, resp.Body)
	}
	resp.Body.Close()
}

// An outgoing is a request and the memory for its header values, in one allocation.
// There is room for five values of the Transport and seven of the caller.
type outgoing struct {
	http.Request
	values [12]string
}

// authorized returns a copy of req with the token and with the header fields that req
// lacks. The copy has a header of its own, because Base may change it.
func (t *Transport) authorized(req *http.Request, p *prepared, tok *oauth2.Token) *http.Request {
	var room [8]field
	var more [4]*field
	theirs := withoutToken(req.Header, room[:0])
	ours := p.fields.lackedBy(theirs, more[:0])
	bearer, bare := t.TokenHeaders.has(BearerToken), t.TokenHeaders.has(XAuthToken)
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

// A bearer is a token and its value of the Authorization header, so that the value is
// made once for each token and not for each request.
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

// String returns the BaseURL, and nothing of the token.
func (t *Transport) String() string { return "Transport(" + t.BaseURL + ")" }

// Format prints what String returns, whatever the verb.
func (t *Transport) Format(f fmt.State, _ rune) { fmt.Fprint(f, t.String()) }
