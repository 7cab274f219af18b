package fincodeauth

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptrace"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/oauth2"
)

// Credentials are what Login sends. Their printed form and their JSON form leave the
// password out.
type Credentials struct {
	Email    string // required
	Password string // required, as the user typed it

	// PublicKey is the tenant's, from ParsePublicKey. If it is set, the password
	// is sent encrypted: RSA-OAEP with SHA-256 for both its hash and MGF1, then
	// Base64 (FINCODE.md, Calls). nil: the password is sent as it is, inside TLS.
	PublicKey *rsa.PublicKey
}

// String names the user without the password.
func (c Credentials) String() string { return fmt.Sprintf("Credentials(%s)", c.Email) }

// Format prints what String returns, whatever the verb.
func (c Credentials) Format(f fmt.State, _ rune) { fmt.Fprint(f, c.String()) }

// LogValue is what slog records: what String returns.
func (c Credentials) LogValue() slog.Value { return slog.StringValue(c.String()) }

// MarshalJSON returns what String returns, as a JSON string.
func (c Credentials) MarshalJSON() ([]byte, error) { return json.Marshal(c.String()) }

func (c Credentials) check() error {
	if c.Email == "" || c.Password == "" {
		return errors.New("the credentials lack the email or the password: set both")
	}
	return nil
}

// sent returns what is sent as the password: encrypted, if there is a PublicKey.
func (c Credentials) sent() (string, error) {
	if c.PublicKey == nil {
		return c.Password, nil
	}
	sealed, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, c.PublicKey, []byte(c.Password), nil)
	if err != nil {
		return "", fmt.Errorf("encrypting the password: %w", err)
	}
	return base64.StdEncoding.EncodeToString(sealed), nil
}

// ParsePublicKey reads a tenant's RSA public key as FinCode shows it: the Base64 of
// an X.509 SubjectPublicKeyInfo. White space in it is ignored.
func ParsePublicKey(base64DER string) (*rsa.PublicKey, error) {
	der, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(base64DER), ""))
	if err != nil {
		return nil, fmt.Errorf("fincodeauth: public key is not Base64 (leave out PEM's BEGIN and END lines): %w", err)
	}
	key, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, fmt.Errorf("fincodeauth: public key is not an X.509 SubjectPublicKeyInfo: %w", err)
	}
	rsaKey, ok := key.(*rsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("fincodeauth: public key is a %T, not an RSA key", key)
	}
	return rsaKey, nil
}

// The calls by the last element of their path, as in EndpointError.Op.
const (
	opLogin   = "login"
	opRefresh = "refresh-token"
	opLogout  = "logout"
)

// An EndpointError is FinCode's answer to a login, refresh-token or logout that did
// not succeed. If it is an answer to a login, test it with errors.Is for
// ErrBadCredentials, ErrAccountLocked and ErrUserNotFound.
type EndpointError struct {
	Op      string // "login", "refresh-token" or "logout"
	Status  int    // HTTP status
	Code    string // FinCode's code, such as RATE_LIMIT_EXCEEDED; "" if the answer had none
	Message string // FinCode's message, shortened and without the secrets of the call; "" if the answer had none

	// RetryAfter is how long FinCode asked to wait; 0: it did not ask. The next
	// refresh waits that long, but an hour at most. To repeat a Login or a Logout
	// is up to its caller.
	RetryAfter time.Duration

	foreign bool // the answer is the page of a gateway or a firewall, not FinCode's
}

// Error returns the call, the status, and FinCode's code and message. It never
// returns the body.
func (e *EndpointError) Error() string {
	text := fmt.Sprintf("%s answered %d", e.Op, e.Status)
	for _, s := range []string{e.Code, e.Message} {
		if s != "" {
			text += ": " + s
		}
	}
	return text
}

// Is reports whether target is the error of Login that e means: ErrBadCredentials,
// ErrAccountLocked or ErrUserNotFound (FINCODE.md, Calls).
func (e *EndpointError) Is(target error) bool {
	if e.Op != opLogin || e.foreign {
		return false
	}
	switch e.verdict() {
	case http.StatusUnauthorized:
		return target == ErrBadCredentials
	case http.StatusForbidden:
		return target == ErrAccountLocked
	case http.StatusNotFound:
		return target == ErrUserNotFound
	}
	return false
}

// verdict returns the status that the answer stands for. If a failure came as HTTP 200
// with "success": false, that is the status of its code (FINCODE.md, Envelope).
func (e *EndpointError) verdict() int {
	if !succeeded(e.Status) {
		return e.Status
	}
	switch e.Code {
	case "AUTH_REQUIRED":
		return http.StatusUnauthorized
	case "FORBIDDEN":
		return http.StatusForbidden
	case "NOT_FOUND":
		return http.StatusNotFound
	case "VALIDATION_ERROR":
		return http.StatusUnprocessableEntity
	case "RATE_LIMIT_EXCEEDED":
		return http.StatusTooManyRequests
	}
	return http.StatusInternalServerError
}

// An outcome says what a failed call did to the refresh token that it presented.
type outcome uint8

const (
	unknown   outcome = iota // FinCode may have rotated the token, and the answer is lost
	untouched                // FinCode certainly did not use the token: the call was not sent, or was turned away
	refused                  // FinCode refused the token: it is dead
)

// outcomeOf returns the outcome of the call that failed with err.
func outcomeOf(err error) outcome {
	if e, ok := errors.AsType[*EndpointError](err); ok {
		switch status := e.verdict(); {
		case status == http.StatusUnauthorized, status == http.StatusForbidden:
			if e.foreign {
				return untouched
			}
			return refused
		case status == http.StatusRequestTimeout:
			return unknown
		case status >= 300 && status < 500:
			return untouched
		}
		return unknown
	}
	if e, ok := errors.AsType[*callError](err); ok && !e.sent {
		return untouched
	}
	return unknown
}

// isUnauthorized reports whether err is FinCode's own 401.
func isUnauthorized(err error) bool {
	e, ok := errors.AsType[*EndpointError](err)
	return ok && !e.foreign && e.verdict() == http.StatusUnauthorized
}

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

// An answer is FinCode's answer to a call that succeeded.
type answer struct {
	date string         // the Date header
	body map[string]any // nil: not a JSON object
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
	a := &answer{date: resp.Header.Get("Date"), body: object(data)}
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

// refusal makes an EndpointError of an answer. whole reports whether data is the
// complete body.
func refusal(op string, resp *http.Response, data []byte, whole bool, secrets []string) *EndpointError {
	e := &EndpointError{Op: op, Status: resp.StatusCode, RetryAfter: retryAfter(resp.Header)}
	if len(bytes.TrimSpace(data)) == 0 {
		e.foreign = !whole
		return e
	}
	body := object(data)
	// The first bytes of a page that begins with "403 Forbidden" are valid JSON, the
	// number 403. An object that parses is always complete.
	e.foreign = !json.Valid(data) || !whole && body == nil
	detail, ok := body["error"].(map[string]any)
	if !ok {
		detail = body
	}
	e.Code = printable(text(detail, "code"), secrets)
	e.Message = printable(text(detail, "message", "error"), secrets)
	return e
}

// retryAfter reads the Retry-After header, which is in seconds or a date (RFC 9110,
// 10.2.3). A date is compared with the Date of the answer, because the local clock
// may be wrong.
func retryAfter(h http.Header) time.Duration {
	value := h.Get("Retry-After")
	if n, err := strconv.ParseFloat(value, 64); err == nil && n > 0 {
		return seconds(n)
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	now, err := http.ParseTime(h.Get("Date"))
	if err != nil {
		now = time.Now()
	}
	return min(max(0, at.Sub(now)), century)
}

// printable makes s safe for a log: one short line, without the secrets of the call
// and without any word that is as long as a token.
func printable(s string, secrets []string) string {
	for _, secret := range secrets {
		switch {
		case secret == "" || !strings.Contains(s, secret):
		case len(secret) < 8: // the rest of the word would give a short secret away
			return "[redacted]"
		default:
			s = strings.ReplaceAll(s, secret, "[redacted]")
		}
	}
	if respells(s, secrets) {
		return "[redacted]"
	}
	words := wordsOf(s)
	for i, w := range words {
		if len(w) > 40 {
			words[i] = "[redacted]"
		}
	}
	s = strings.ToValidUTF8(strings.Join(words, " "), "?")
	if runes := []rune(s); len(runes) > 200 {
		s = string(runes[:200]) + "…"
	}
	return s
}

// respells reports whether s has a secret with other white space or with JSON's
// escapes, because a server's message may quote the request, even more than once.
func respells(s string, secrets []string) bool {
	for range 3 {
		line := strings.Join(wordsOf(s), " ")
		for _, secret := range secrets {
			if words := wordsOf(secret); len(words) > 0 && strings.Contains(line, strings.Join(words, " ")) {
				return true
			}
		}
		s = escapes.ReplaceAllStringFunc(s, unescaped)
	}
	return false
}

func wordsOf(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f })
}

// escapes match what JSON may write for a character.
var escapes = regexp.MustCompile(`(\\(u[0-9A-Fa-f]{4}|["\\/bfnrt]))+`)

func unescaped(escapes string) (s string) {
	if json.Unmarshal([]byte(`"`+escapes+`"`), &s) != nil {
		return escapes
	}
	return s
}

// token reads the pair from an answer, in any of the forms of FINCODE.md, What no
// page says, 1. before is the local wall clock just before the call.
func (a *answer) token(before time.Time) (*oauth2.Token, error) {
	if a.body == nil {
		return nil, errors.New("the answer is not a JSON object")
	}
	body := a.body
	if data, _ := body["data"].(map[string]any); text(data, "access_token", "accessToken") != "" {
		body = data
	}
	tok := &oauth2.Token{
		AccessToken:  text(body, "access_token", "accessToken"),
		TokenType:    text(body, "token_type", "tokenType"),
		RefreshToken: text(body, "refresh_token", "refreshToken"),
	}
	switch {
	case tok.AccessToken == "":
		return nil, errors.New("the answer has no access token")
	case !fitsHeader(tok.AccessToken):
		return nil, errors.New("the access token has characters that no header can carry")
	}
	if tok.TokenType == "" {
		tok.TokenType = "Bearer"
	}
	if lifetime := a.lifetime(body, tok); lifetime > 0 {
		tok.Expiry = before.Add(lifetime)
		if lifetime%time.Second == 0 {
			tok.ExpiresIn = int64(lifetime / time.Second)
		}
	}
	return tok, nil
}

// lifetime returns how long the answer's access token lives: expires_in, else the
// JWT's exp - iat, else its exp minus the Date of the answer, else 0 for unknown.
func (a *answer) lifetime(body map[string]any, tok *oauth2.Token) time.Duration {
	for _, name := range []string{"expires_in", "expiresIn"} {
		if n := number(body[name]); n > 0 {
			return seconds(n)
		}
	}
	claims := claimsOf(tok.AccessToken)
	if lifetime := claims.lifetime(); lifetime > 0 {
		return lifetime
	}
	if date, err := http.ParseTime(a.date); err == nil && claims.Expiry > 0 {
		return min(max(0, claims.expiry().Sub(date)), century)
	}
	return 0
}

// jwtClaims are the registered claims that say how long a token lives (RFC
// 7519, 4.1), in seconds since 1970; 0: absent.
type jwtClaims struct{ Expiry, IssuedAt float64 }

// claimsOf reads the claims of a JWT without verifying it. FinCode verifies its
// tokens; this package only needs to know when to refresh. A token that is not a
// JWT has no claims.
func claimsOf(token string) jwtClaims {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return jwtClaims{}
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(parts[1], "="))
	if err != nil {
		return jwtClaims{}
	}
	claims := object(payload)
	expiry, _ := claims["exp"].(float64)
	issuedAt, _ := claims["iat"].(float64)
	return jwtClaims{Expiry: expiry, IssuedAt: issuedAt}
}

// lifetime returns exp - iat, or 0 if one of them is absent or they make no sense.
func (c jwtClaims) lifetime() time.Duration {
	if c.Expiry <= 0 || c.IssuedAt <= 0 || c.Expiry <= c.IssuedAt {
		return 0
	}
	return seconds(c.Expiry - c.IssuedAt).Round(time.Millisecond)
}

// expiry returns exp, but no time after the year 5138, because JSON has no form for
// times after the year 9999.
func (c jwtClaims) expiry() time.Time {
	return time.UnixMilli(int64(min(c.Expiry, 1e11) * 1000))
}

// century is the longest duration that is accepted, so that no sum overflows.
const century = 100 * 365 * 24 * time.Hour

// seconds returns n seconds as a Duration, a century at most.
func seconds(n float64) time.Duration {
	if d := n * float64(time.Second); d < float64(century) {
		return time.Duration(d)
	}
	return century
}

func succeeded(status int) bool { return status >= 200 && status < 300 }

// object reads a JSON object. It returns nil if data is something else. It leaves out
// a number that is too large.
func object(data []byte) (m map[string]any) {
	err := json.Unmarshal(data, &m)
	if _, tooLarge := errors.AsType[*json.UnmarshalTypeError](err); err != nil && !tooLarge {
		return nil
	}
	return m
}

// number returns a number, with or without quotes, or 0 if value is something else.
func number(value any) float64 {
	switch value := value.(type) {
	case float64:
		return value
	case string:
		if n, err := strconv.ParseFloat(strings.TrimSpace(value), 64); err == nil {
			return n
		}
	}
	return 0
}

// text returns the first of the named members that is a non-empty string.
func text(m map[string]any, names ...string) string {
	for _, name := range names {
		if s, _ := m[name].(string); s != "" {
			return s
		}
	}
	return ""
}

// fitsHeader reports whether s has only visible ASCII characters, so that it can be
// one word of a field's value (RFC 9110, 5.5).
func fitsHeader(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f {
			return false
		}
	}
	return true
}
