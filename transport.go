package fincodeauth

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"

	"golang.org/x/oauth2"
)

// TokenHeaders says which headers carry the access token. FinCode's pages
// disagree about which it is (FINCODE.md, Headers). The zero value means both.
type TokenHeaders uint8

const (
	BearerToken TokenHeaders = 1 << iota // Authorization: Bearer <token>
	XAuthToken                           // X-Auth-Token: <token>
)

// The canonical names of the headers that are the Transport's alone.
const (
	authorization = "Authorization"
	xAuthToken    = "X-Auth-Token"
	uuid          = "Uuid"
)

// A Transport is an http.RoundTripper that sends requests to the API as a
// session: with its access token, FinCode's headers, and once more with a new
// token after a 401. Sessions.Transport makes one; a fixed token works in a
// literal:
//
//	&fincodeauth.Transport{
//		Source:  oauth2.StaticTokenSource(&oauth2.Token{AccessToken: apiToken}),
//		BaseURL: fincodeauth.Sandbox("remitjunction"),
//	}
//
// The token goes only over https, or to a loopback address, and only to the
// origin of BaseURL and to Hosts; any other request passes through as it is.
// Header fields that the request has already stay, but Authorization and
// X-Auth-Token are always the Transport's. The caller's request is not changed.
//
// On a 401 it asks Source.Refresh for another token, and with that sends the
// request again, once, if its body is absent or has GetBody. In any other case
// the caller gets the first answer, its body unread.
//
// It is safe for concurrent use. Its fields must not be changed after the first
// request.
type Transport struct {
	// Source of the tokens; required. If it has methods TokenContext or Refresh
	// like those of TokenSource, they are used too. Only a TokenSource itself
	// learns how replays fare: without that it refreshes more often for an
	// endpoint that rejects every token.
	Source oauth2.TokenSource

	// BaseURL is the root of the API, as in Config; required.
	BaseURL string

	Base         http.RoundTripper // nil: http.DefaultTransport
	Header       http.Header       // as in Config; nil: DefaultHeader()
	RequestID    func() string     // as in Config
	TokenHeaders TokenHeaders      // as in Config; 0: both
	Hosts        []string          // as in Config

	ready atomic.Pointer[prepared] // what the fields mean
	last  atomic.Pointer[bearer]   // of the last request
}

// A prepared Transport is what its fields mean, worked out once.
type prepared struct {
	trust  *trust
	fields fields
	err    error
}

// RoundTrip implements http.RoundTripper. Its errors are those of Source, as
// they are, and of Base, or say which field of the Transport is wrong.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	p := t.prepare()
	if p.err != nil {
		return refuse(req, p.err)
	}
	if !p.trust.covers(req.URL) {
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

// CloseIdleConnections closes those of Base, if it can: http.Client's method of
// that name asks for it.
func (t *Transport) CloseIdleConnections() {
	if c, ok := t.base().(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// refuse answers a request that is not sent, and closes its body as every
// RoundTripper must.
func refuse(req *http.Request, err error) (*http.Response, error) {
	if req.Body != nil {
		req.Body.Close()
	}
	return nil, err
}

// answered judges what a RoundTripper returned as http.Client would: a mock may
// leave out an empty body, but neither the answer nor a body that it announces.
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
	p := &prepared{fields: newFields(header, t.RequestID)}
	p.trust, p.err = newTrust(t.BaseURL, t.Hosts)
	if p.err == nil && t.Source == nil {
		p.err = errors.New("no Source: give it an oauth2.TokenSource")
	}
	if p.err != nil {
		p.err = fmt.Errorf("fincodeauth: Transport: %w", p.err)
	}
	t.ready.Store(p)
	return p
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

// required refuses a token that is nil.
func required(tok *oauth2.Token, err error) (*oauth2.Token, error) {
	if tok == nil && err == nil {
		err = errors.New("fincodeauth: Transport: Source returned neither a token nor an error")
	}
	return tok, err
}

// replay sends the request again, if a new token is to be had after resp, a 401
// to tok.
func (t *Transport) replay(req *http.Request, p *prepared, resp *http.Response, tok *oauth2.Token) (*http.Response, error) {
	src, ok := t.Source.(interface {
		Refresh(context.Context, *oauth2.Token) (*oauth2.Token, error)
	})
	if !ok {
		return resp, nil
	}
	next, err := required(src.Refresh(req.Context(), tok))
	if err != nil || next.AccessToken == tok.AccessToken {
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
	if w, ok := t.Source.(replayWatcher); ok && err == nil {
		w.replayed(req.Context(), next, resp.StatusCode != http.StatusUnauthorized)
	}
	return resp, err
}

// A replayWatcher is a Source that learns how replays fare.
type replayWatcher interface {
	replayed(ctx context.Context, tok *oauth2.Token, accepted bool)
}

// discard closes an answer's body, and reads it before if it is known to be
// short, so that its connection can be used again.
func discard(resp *http.Response) {
	if resp.ContentLength >= 0 && resp.ContentLength <= 4<<10 {
		_, _ = io.Copy(io.Discard, resp.Body)
	}
	resp.Body.Close()
}

// An outgoing is a request and room for most header values, in one allocation:
// for five of ours and seven of the caller's.
type outgoing struct {
	http.Request
	values [12]string
}

// authorized returns a copy of req with the header fields that it lacks, and
// with the token. Its header shares nothing with req's, nor with any other's.
func (t *Transport) authorized(req *http.Request, p *prepared, tok *oauth2.Token) *http.Request {
	out := &outgoing{Request: *req}
	h := header{
		Header: make(http.Header, len(req.Header)+len(p.fields.list)+3),
		values: out.values[:0],
	}
	out.Header = h.Header
	p.fields.addTo(&h, req.Header)
	for name, values := range req.Header { // over ours: to look first for each would take longer
		if isTokenHeader(name) {
			continue
		}
		if isLower(name) {
			h.giveWay(name, req.Header)
		}
		h.set(name, values...)
	}
	if t.TokenHeaders == 0 || t.TokenHeaders&BearerToken != 0 {
		h.set(authorization, t.bearer(tok))
	}
	if t.TokenHeaders == 0 || t.TokenHeaders&XAuthToken != 0 {
		h.set(xAuthToken, tok.AccessToken)
	}
	return &out.Request
}

// A header is an http.Header whose values stand behind each other.
type header struct {
	http.Header
	values []string
}

// set sets a field to a copy of values.
func (h *header) set(name string, values ...string) {
	from := len(h.values)
	h.values = append(h.values, values...)
	h.Header[name] = slices.Clip(h.values[from:])
}

// A bearer is a token as a header value, made once a token instead of once a
// request.
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

// isTokenHeader tells whether name, in whatever case, is one of the token's.
func isTokenHeader(name string) bool {
	switch len(name) {
	case len(authorization):
		return strings.EqualFold(name, authorization)
	case len(xAuthToken):
		return strings.EqualFold(name, xAuthToken)
	}
	return false
}

// String names the API without the token.
func (t *Transport) String() string { return "Transport(" + t.BaseURL + ")" }

// Format prints what String returns, whatever the verb.
func (t *Transport) Format(f fmt.State, _ rune) { fmt.Fprint(f, t.String()) }

// fields are the header fields that a request gets if it lacks them.
type fields struct {
	list      []field
	requestID func() string // makes uuid's value; nil: it is in the list
}

// A field is one of them, by its canonical name.
type field struct {
	name   string
	values []string
}

func newFields(h http.Header, requestID func() string) fields {
	f := fields{requestID: requestID}
	for name, values := range h {
		name = http.CanonicalHeaderKey(name)
		if name != uuid || requestID == nil {
			f.list = append(f.list, field{name, slices.Clone(values)})
		}
	}
	return f
}

// addTo adds the fields to h, all but those that cost something to make and that
// the request has: what else it has comes after them, and replaces them.
func (f fields) addTo(h *header, request http.Header) {
	for _, own := range f.list {
		h.set(own.name, own.values...)
	}
	if f.requestID != nil && lacks(request, uuid) && lacks(request, "uuid") {
		h.set(uuid, f.requestID())
	}
}

func lacks(h http.Header, name string) bool {
	_, ok := h[name]
	return !ok
}

// giveWay removes the field that the request has under name, which FinCode's pages
// write in lower case, unless the request has its canonical name too.
func (h *header) giveWay(name string, request http.Header) {
	if canonical := http.CanonicalHeaderKey(name); lacks(request, canonical) {
		delete(h.Header, canonical)
	}
}

// isLower tells whether name is written like that, and not canonical.
func isLower(name string) bool { return name != "" && 'a' <= name[0] && name[0] <= 'z' }

// An origin is what RFC 6454 calls so; host and port are as in a URL.
type origin struct{ scheme, host, port string }

func originOf(u *url.URL) origin {
	return origin{strings.ToLower(u.Scheme), strings.ToLower(u.Hostname()), u.Port()}.withPort()
}

// withPort gives an origin without a port that of its scheme.
func (o origin) withPort() origin {
	switch {
	case o.port != "":
	case o.scheme == "https":
		o.port = "443"
	case o.scheme == "http":
		o.port = "80"
	}
	return o
}

// secure tells whether nobody on the way can read what is sent to o.
func (o origin) secure() bool {
	if o.scheme != "http" {
		return o.scheme == "https"
	}
	ip := net.ParseIP(o.host)
	return o.host == "localhost" || ip != nil && ip.IsLoopback()
}

// A trust is who may be sent the token.
type trust struct {
	base         origin
	scheme, host string   // of base, as it was written
	hosts        []origin // of any scheme; with port "": the scheme's own
}

func newTrust(baseURL string, hosts []string) (*trust, error) {
	if baseURL == "" {
		return nil, errors.New(`BaseURL is empty: use Sandbox("your-tenant"), Production("your-domain"), or the https URL of the API's root`)
	}
	u, err := url.Parse(baseURL)
	if err != nil {
		return nil, fmt.Errorf("BaseURL does not parse: %w", errors.Unwrap(err)) // without the URL: there may be a password in it
	}
	t := &trust{base: originOf(u), scheme: u.Scheme, host: u.Host}
	switch {
	case u.Hostname() == "" || strings.HasPrefix(u.Host, "."):
		return nil, fmt.Errorf("BaseURL %q has no host: write it as https://tenant.fincode.software/api/v6/services", u.Redacted())
	case u.User != nil || strings.ContainsAny(baseURL, "?#"): // an empty one, too, would swallow the path of a call
		return nil, fmt.Errorf("BaseURL %q has a user, a query or a fragment: leave only scheme, host and path", u.Redacted())
	case !t.base.secure():
		return nil, fmt.Errorf("BaseURL %q is not https: only a loopback address may do without", u.Redacted())
	}
	for _, host := range hosts {
		u, err := url.Parse("//" + host)
		if err != nil || u.Host != host || u.Hostname() == "" || strings.Contains(host, "*") {
			return nil, fmt.Errorf("host %q in Hosts: write it as api.example.com or api.example.com:8443", host)
		}
		t.hosts = append(t.hosts, originOf(u))
	}
	return t, nil
}

// covers tells whether a request to u may carry the token.
func (t *trust) covers(u *url.URL) bool {
	if u == nil {
		return false
	}
	if u.Scheme == t.scheme && u.Host == t.host { // so it is nearly always
		return true
	}
	o := originOf(u)
	if o == t.base {
		return true
	}
	if len(t.hosts) == 0 || !o.secure() {
		return false
	}
	return slices.ContainsFunc(t.hosts, func(h origin) bool {
		if h.port == "" && o.scheme == "http" { // loopback, where ports are anybody's guess
			h.port = o.port
		}
		h.scheme = o.scheme
		return o == h.withPort()
	})
}
