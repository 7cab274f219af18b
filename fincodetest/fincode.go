package fincodetest

// Rules for concurrency. Every call may run at the same time as every other call
// and every method. FinCode.mu guards everything that changes. It is held for
// moments: never during a fault's Before and After, and never while a token is
// signed, because an RSA signature takes long. FinCode starts no goroutine.

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

// Root is the path under which all calls are.
const Root = "/api/v6/services"

// The user that every FinCode knows from the beginning.
const (
	Email    = "ada@example.com"
	Password = "correct horse battery staple"
)

// maxBody is how many bytes of a request's body are read for the answer.
const maxBody = 1 << 20

// Config says how a FinCode behaves. With the zero value, tokens are JWTs, a
// refresh token works once, and a token answer is {"access_token",
// "refresh_token", "token_type", "expires_in"}, as in RFC 6749.
type Config struct {
	AccessLifetime  time.Duration // of an access token, in whole milliseconds; 0: 1 hour
	RefreshLifetime time.Duration // of an unused refresh token, in whole milliseconds; 0: no end
	ClockOffset     time.Duration // added to the real time to get FinCode's; 0: FinCode's clock is right
	MaxFailedLogins int           // failed logins in a row that lock the account; 0: 5

	RevokeFamilyOnReuse bool // a reused refresh token ends its whole session; false: it is only refused
	RevokeOnRotation    bool // a refresh revokes the session's last access token; false: that token stays valid until it expires
	KeepRefreshToken    bool // a refresh returns no refresh token, and the old one stays valid; false: each works once

	RequireEncryption bool // a password must be encrypted with the PublicKey; false: it may also come in the clear
	MGF1SHA1          bool // encrypted passwords use MGF1 with SHA-1, Java's default; false: with SHA-256

	OpaqueTokens  bool      // tokens are random text; false: JWTs
	CamelCase     bool      // accessToken, refreshToken, …; false: access_token, refresh_token, …
	UnderData     bool      // the fields of a token answer are under "data" of an envelope; false: at the top level
	ExpiresIn     ExpiresIn // how a token answer says the lifetime; 0: ExpiresInNumber
	FailuresAs200 bool      // login, refresh and logout fail with HTTP 200 and "success": false; false: with the error's status
	EmptyRefusals bool      // a 401 or 403 has no body, unless FailuresAs200 makes it a 200; false: it has an envelope
}

// ExpiresIn is how a token answer says the access token's lifetime, in seconds.
type ExpiresIn int

const (
	ExpiresInNumber   ExpiresIn = iota // 3600, or 0.25 if the lifetime is not in whole seconds
	ExpiresInString                    // "3600"
	ExpiresInFraction                  // 3600.0
	ExpiresInAbsent                    // the field is missing
)

// FinCode is a FinCode without a socket. It is an [http.Handler] and an
// [http.RoundTripper]. Make one with [New]. Any number of goroutines may call its
// methods at the same time.
type FinCode struct {
	cfg Config

	// mu guards what follows, and the users, families and tokens in it.
	mu      sync.Mutex
	users   map[string]*user
	access  map[string]*token
	refresh map[string]*token
	faults  map[Operation][]*injected // first in, first out
	counts  Counts
}

// New returns a FinCode that knows one user: [Email] with [Password]. It remembers
// every token that it issues.
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

// ServeHTTP answers a call. For a hang-up it panics with [http.ErrAbortHandler], so
// that net/http closes the connection.
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

// RoundTrip answers a call in memory. A hang-up is an [io.ErrUnexpectedEOF]. If the
// context of the call ends, RoundTrip returns the context's cause.
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

// A call is one request. Only the goroutine that answers it uses it.
type call struct {
	op        Operation
	path      string // under Root
	request   *http.Request
	body      []byte
	fields    fields // of the body, for login, refresh and logout
	malformed bool   // the body is not a JSON object with such fields
}

// answer counts the call, applies the next fault to it, and returns what to send.
// For a hang-up it returns an error.
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

// dated adds the Date header, by FinCode's clock.
func (f *FinCode) dated(a answer) answer {
	a.header.Set("Date", f.now().UTC().Format(http.TimeFormat))
	return a
}

// now returns the time by FinCode's clock.
func (f *FinCode) now() time.Time { return time.Now().Add(f.cfg.ClockOffset) }

// readBody reads the body to its end, as its sender expects. It returns the first
// maxBody bytes.
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

// sleep returns after d, or as soon as ctx ends. It returns the cause if ctx has
// ended.
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

// reader returns the answer's body as the client reads it.
func (a answer) reader(method string) io.Reader {
	switch {
	case method == http.MethodHead:
		return http.NoBody
	case a.cut:
		return io.MultiReader(bytes.NewReader(a.body[:len(a.body)/2]), iotest.ErrReader(io.ErrUnexpectedEOF))
	}
	return bytes.NewReader(a.body)
}
