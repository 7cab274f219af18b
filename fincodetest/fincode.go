package fincodetest

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing/iotest"
	"time"
)

// Root is the path under which every call lives.
const Root = "/api/v6/services"

// The user that every FinCode knows from the start.
const (
	Email    = "ada@example.com"
	Password = "correct horse battery staple"
)

// maxBody is how much of a request's body is looked at and echoed, in bytes.
const maxBody = 1 << 20

// Config says how a FinCode behaves. The zero value works: tokens are JWTs, a refresh token works once, and a token answer is
// {"access_token", "refresh_token", "token_type", "expires_in"}, as in RFC 6749.
type Config struct {
	AccessLifetime  time.Duration // of an access token, in whole milliseconds; 0: 1 hour
	RefreshLifetime time.Duration // of a refresh token that is not used, in whole milliseconds; 0: it does not expire
	ClockOffset     time.Duration // FinCode's clock is ahead of the real one by this much (behind, if negative); 0: it is right
	MaxFailedLogins int           // in a row, until the account is locked; 0: 5

	RevokeFamilyOnReuse bool // a reused refresh token ends its whole session; false: it is only refused
	RevokeOnRotation    bool // a refresh revokes the access token before it; false: that one lives until it expires
	KeepRefreshToken    bool // a refresh returns no refresh token and the old one stays valid; false: each works once

	RequireEncryption bool // a password must be encrypted with the PublicKey; false: it may also come in the clear
	MGF1SHA1          bool // encrypted passwords use MGF1 with SHA-1, Java's default; false: with SHA-256

	OpaqueTokens  bool      // tokens are random text; false: JWTs
	CamelCase     bool      // accessToken, refreshToken, …; false: access_token, refresh_token, …
	UnderData     bool      // a token answer's fields are under "data" of an envelope; false: at the top level
	ExpiresIn     ExpiresIn // how a token answer says the lifetime; 0: ExpiresInNumber
	FailuresAs200 bool      // login, refresh and logout fail with HTTP 200 and "success": false; false: with the error's status
	EmptyRefusals bool      // a 401 or 403 has no body (FailuresAs200 goes first); false: it has an envelope
}

// ExpiresIn is a way to say an access token's lifetime, in seconds.
type ExpiresIn int

const (
	ExpiresInNumber   ExpiresIn = iota // 3600, or 0.25 if the lifetime is not in whole seconds
	ExpiresInString                    // "3600"
	ExpiresInFraction                  // 3600.0
	ExpiresInAbsent                    // not said
)

// FinCode is a FinCode without a socket: an [http.Handler] and an [http.RoundTripper]. Make one with [New]. Its methods may be
// called by any number of goroutines.
type FinCode struct {
	cfg Config

	mu      sync.Mutex // guards all below, and the users, families and tokens that they lead to
	users   map[string]*user
	access  map[string]*token
	refresh map[string]*token
	faults  map[Operation][]*injected // first in, first out
	counts  Counts
}

// New returns a FinCode that knows one user: [Email] with [Password]. It remembers every token that it issues.
func New(cfg Config) *FinCode {
	cfg.MaxFailedLogins = cmp.Or(cfg.MaxFailedLogins, 5)
	cfg.AccessLifetime = cmp.Or(cfg.AccessLifetime, time.Hour).Truncate(time.Millisecond)
	cfg.RefreshLifetime = cfg.RefreshLifetime.Truncate(time.Millisecond)
	f := &FinCode{
		cfg:     cfg,
		users:   make(map[string]*user),
		access:  make(map[string]*token),
		refresh: make(map[string]*token),
		faults:  make(map[Operation][]*injected),
	}
	f.AddUser(Email, Password)
	return f
}

// ServeHTTP answers a call. A hang-up panics with [http.ErrAbortHandler], at which net/http closes the connection.
func (f *FinCode) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a, err := f.answer(r)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	for name, values := range a.header {
		w.Header()[name] = values
	}
	w.Header().Set("Content-Length", fmt.Sprint(len(a.body)))
	w.WriteHeader(a.status)
	if !a.cut {
		w.Write(a.body)
		return
	}
	w.Write(a.body[:len(a.body)/2])
	http.NewResponseController(w).Flush()
	panic(http.ErrAbortHandler)
}

// RoundTrip answers a call in memory. A hang-up is an [io.ErrUnexpectedEOF]; a call whose context ends returns the context's error.
func (f *FinCode) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		defer r.Body.Close()
	}
	a, err := f.answer(r)
	if err != nil {
		return nil, err
	}
	return &http.Response{
		Status:        fmt.Sprintf("%d %s", a.status, http.StatusText(a.status)),
		StatusCode:    a.status,
		Proto:         "HTTP/1.1",
		ProtoMajor:    1,
		ProtoMinor:    1,
		Header:        a.header,
		Body:          io.NopCloser(a.reader(r.Method)),
		ContentLength: int64(len(a.body)),
		Request:       r,
	}, nil
}

// Format keeps tokens and passwords out of every fmt verb.
func (f *FinCode) Format(s fmt.State, _ rune) { io.WriteString(s, "fincodetest.FinCode") }

// A call is one request on its way through FinCode.
type call struct {
	op        Operation
	path      string // below Root
	request   *http.Request
	body      []byte
	fields    fields // of the body, for login, refresh and logout
	malformed bool   // the body is not a JSON object with such fields
}

// answer takes the call in, lets the next fault have its way with it, and returns what to send. An error is a hang-up.
func (f *FinCode) answer(r *http.Request) (answer, error) {
	body, err := readBody(r)
	if err != nil {
		return answer{}, err
	}
	path, ok := strings.CutPrefix(strings.TrimRight(r.URL.Path, "/"), Root+"/")
	if !ok {
		return f.dated(failure(http.StatusNotFound, "no such path: every call is under "+Root)), nil
	}
	c := newCall("/"+path, r, body)
	defer f.arrive(c)()

	fault := f.nextFault(c.op)
	ctx := r.Context()
	if err := sleep(ctx, fault.Before); err != nil {
		return answer{}, err
	}
	var a answer
	if fault.takesEffect() {
		a = f.perform(c)
	}
	if err := sleep(ctx, fault.After); err != nil {
		return answer{}, err
	}
	if a, err = fault.spoil(a); err != nil {
		return answer{}, err
	}
	return f.dated(a), nil
}

// dated adds the Date header, by FinCode's own clock.
func (f *FinCode) dated(a answer) answer {
	a.header.Set("Date", f.now().UTC().Format(http.TimeFormat))
	return a
}

func (f *FinCode) now() time.Time { return time.Now().Add(f.cfg.ClockOffset) }

// readBody reads the body to its end, as its sender expects, and keeps the first maxBody bytes.
func readBody(r *http.Request) ([]byte, error) {
	if r.Body == nil {
		return nil, nil
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody))
	if err != nil {
		return nil, err
	}
	_, err = io.Copy(io.Discard, r.Body)
	return body, err
}

func sleep(ctx context.Context, d time.Duration) error {
	if d > 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	return context.Cause(ctx)
}

// reader returns the answer's body as a client reads it.
func (a answer) reader(method string) io.Reader {
	switch {
	case method == http.MethodHead:
		return http.NoBody
	case a.cut:
		return io.MultiReader(bytes.NewReader(a.body[:len(a.body)/2]), iotest.ErrReader(io.ErrUnexpectedEOF))
	}
	return bytes.NewReader(a.body)
}
