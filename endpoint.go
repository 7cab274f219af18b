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

// Credentials are what Login sends. Whatever prints them, JSON included, leaves
// the password out.
type Credentials struct {
	Email    string
	Password string

	// PublicKey is the tenant's, from ParsePublicKey. If set, the password is
	// sent encrypted: RSA-OAEP with SHA-256 for both its hash and MGF1, then
	// Base64 (FINCODE.md, Calls). nil: it is sent as it is, inside TLS.
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
		return errors.New("the credentials lack the email or the password")
	}
	return nil
}

// sent returns the password as the request carries it.
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

// ParsePublicKey reads a tenant's RSA public key as FinCode shows it: the
// Base64 of an X.509 SubjectPublicKeyInfo, white space in it ignored.
func ParsePublicKey(base64DER string) (*rsa.PublicKey, error) {
	der, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(base64DER), ""))
	if err != nil {
		return nil, fmt.Errorf("fincodeauth: public key is not Base64: %w", err)
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

// The calls, as EndpointError.Op names them: the last element of their path.
const (
	opLogin   = "login"
	opRefresh = "refresh-token"
	opLogout  = "logout"
)

// An EndpointError is an answer of FinCode's login, refresh-token or logout
// other than success.
type EndpointError struct {
	Op      string // "login", "refresh-token" or "logout"
	Status  int    // HTTP status
	Code    string // FinCode's code, such as RATE_LIMIT_EXCEEDED; "" if the answer had none
	Message string // FinCode's message, shortened and without secrets; "" if the answer had none

	// RetryAfter is how long FinCode asked to wait; 0: it did not. A refresh waits
	// for it, an hour at most; a Login or a Logout is the caller's to repeat.
	RetryAfter time.Duration

	foreign bool // a gateway's or a firewall's page, not FinCode's own word
}

// Error says what was called and what was answered, never the body itself.
func (e *EndpointError) Error() string {
	text := fmt.Sprintf("%s answered %d", e.Op, e.Status)
	for _, s := range []string{e.Code, e.Message} {
		if s != "" {
			text += ": " + s
		}
	}
	return text
}

// Is tells the errors of Login apart (FINCODE.md, Calls).
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

// verdict is the status that the answer means: a failure that came as HTTP 200
// with "success": false means the one of its code (FINCODE.md, Envelope).
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

// An outcome is what a failed call did to the token that it presented.
type outcome uint8

const (
	unknown outcome = iota // it may have arrived, and the answer is lost
	notSent                // it was surely not processed
	refused                // FinCode's verdict: it is dead
)

// outcomeOf tells what the call that failed with err did.
func outcomeOf(err error) outcome {
	if e, ok := errors.AsType[*EndpointError](err); ok {
		switch status := e.verdict(); {
		case status == http.StatusUnauthorized, status == http.StatusForbidden:
			if e.foreign {
				return notSent
			}
			return refused
		case status == http.StatusRequestTimeout:
			return unknown
		case status >= 300 && status < 500:
			return notSent
		}
		return unknown
	}
	if e, ok := errors.AsType[*callError](err); ok && !e.sent {
		return notSent
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
	sent bool // the request may have left
	err  error
}

func (e *callError) Error() string { return e.op + ": " + e.err.Error() }
func (e *callError) Unwrap() error { return e.err }

// An endpoint makes FinCode's three calls about tokens. It follows no redirect
// and is safe for concurrent use.
type endpoint struct {
	root    string // without a trailing slash
	base    http.RoundTripper
	fields  fields
	timeout time.Duration // of one call, its answer's body included
	late    error         // the cause of its end then, which keeps it apart from the caller's own
	now     func() time.Time
}

func newEndpoint(root string, base http.RoundTripper, f fields, timeout time.Duration, now func() time.Time) *endpoint {
	if base == nil {
		base = http.DefaultTransport
	}
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

// refresh exchanges old's refresh token for the next pair. An answer without a
// refresh token leaves the old one in place (FINCODE.md, What no page says, 1).
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

// issue makes a call that answers a token pair.
func (e *endpoint) issue(ctx context.Context, op string, body any, secrets ...string) (*oauth2.Token, error) {
	before := e.now().Round(0)
	a, err := e.call(ctx, op, nil, body, secrets...)
	if err != nil {
		return nil, err
	}
	tok, err := a.token(before)
	if err != nil { // what the server did is unknown: it says that it succeeded
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	return tok, nil
}

// An answer is a successful one.
type answer struct {
	date string         // its Date header
	body map[string]any // nil: not a JSON object
}

// maxAnswer is the most that is read of an answer's body, in bytes.
const maxAnswer = 1 << 20

// call makes one call and reads its answer. No error holds a secret.
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

// send sends the request as it is, and nowhere else: a redirect is an answer like
// any other, which is why no http.Client does it.
func (e *endpoint) send(req *http.Request) (*http.Response, error) {
	resp, err := answered(e.base.RoundTrip(req))
	if err == nil && resp.StatusCode == http.StatusSwitchingProtocols { // its body is the connection, and no context ends it
		resp.Body.Close()
		resp.Body = http.NoBody
	}
	return resp, err
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
	(&header{Header: req.Header}).add(e.fields)
	for name, values := range auth {
		req.Header[name] = values
	}
	req.Header.Set("Content-Type", "application/json")
	// net/http would send a request with such a key again after a lost answer.
	req.Header.Del("Idempotency-Key")
	req.Header.Del("X-Idempotency-Key")
	return req, nil
}

// reason is why a call under ctx failed with err.
func reason(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// A connTrace watches whether a request ever got a connection. What never had
// one was never sent.
type connTrace struct{ wanted, got atomic.Bool }

func (t *connTrace) watch(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn: func(string) { t.wanted.Store(true) },
		GotConn: func(httptrace.GotConnInfo) { t.got.Store(true) },
	})
}

// neverConnected tells whether the call that failed with err surely left no
// trace at the server. A base that does not report to httptrace (a mock, say)
// is judged by its error alone.
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

// refusal makes an EndpointError of an answer; whole tells whether data is all
// of its body.
func refusal(op string, resp *http.Response, data []byte, whole bool, secrets []string) *EndpointError {
	e := &EndpointError{Op: op, Status: resp.StatusCode, RetryAfter: retryAfter(resp.Header)}
	if len(bytes.TrimSpace(data)) == 0 {
		e.foreign = !whole
		return e
	}
	body := object(data)
	// An object is whole, but the 403 of a page's "403 Forbidden" is JSON too.
	e.foreign = !json.Valid(data) || !whole && body == nil
	detail, ok := body["error"].(map[string]any)
	if !ok {
		detail = body
	}
	e.Code = printable(text(detail, "code"), secrets)
	e.Message = printable(text(detail, "message", "error"), secrets)
	return e
}

// retryAfter reads the header of that name, in seconds or a date (RFC 9110,
// 10.2.3); a date is compared with the answer's own, not with our clock.
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

// printable makes s fit for a log: on one line, short, without the secrets of
// the call and without anything as long as a token.
func printable(s string, secrets []string) string {
	for _, secret := range secrets {
		switch {
		case secret == "" || !strings.Contains(s, secret):
		case len(secret) < 8: // what is left of a word would tell it
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

// respells tells whether s has a secret with other white space, or with JSON's
// escapes: a server may repeat the request, or quote what repeats it.
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

// escapes are what JSON may write for characters.
var escapes = regexp.MustCompile(`(\\(u[0-9A-Fa-f]{4}|["\\/bfnrt]))+`)

func unescaped(escapes string) (s string) {
	if json.Unmarshal([]byte(`"`+escapes+`"`), &s) != nil {
		return escapes
	}
	return s
}

// token reads the pair out of an answer, in any of the shapes of FINCODE.md,
// What no page says, 1. before is the local wall clock just before the call.
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

// lifetime is that of the answer's access token: expires_in, else the JWT's
// exp - iat, else its exp less the answer's Date, else 0: unknown.
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

// claimsOf reads the claims of a JWT without verifying it: it is the server's
// to verify, and we only ask when to refresh. No JWT has no claims.
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

// lifetime is exp - iat; 0 if either is absent or they make no sense.
func (c jwtClaims) lifetime() time.Duration {
	if c.Expiry <= 0 || c.IssuedAt <= 0 || c.Expiry <= c.IssuedAt {
		return 0
	}
	return seconds(c.Expiry - c.IssuedAt).Round(time.Millisecond)
}

// expiry is exp, in the year 5138 at the latest: JSON has no form for a time
// beyond 9999.
func (c jwtClaims) expiry() time.Time {
	return time.UnixMilli(int64(min(c.Expiry, 1e11) * 1000))
}

// century bounds what a server may say of the future, so that no sum overflows.
const century = 100 * 365 * 24 * time.Hour

// seconds makes a Duration of n seconds, at most a century.
func seconds(n float64) time.Duration {
	if d := n * float64(time.Second); d < float64(century) {
		return time.Duration(d)
	}
	return century
}

func succeeded(status int) bool { return status >= 200 && status < 300 }

// object reads a JSON object; nil if data is none. A number that is too large is
// left out.
func object(data []byte) (m map[string]any) {
	err := json.Unmarshal(data, &m)
	if _, tooLarge := errors.AsType[*json.UnmarshalTypeError](err); err != nil && !tooLarge {
		return nil
	}
	return m
}

// number returns a number, or one that stands in quotes; 0 if value is neither.
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

// text returns the first of the named members that is a string with content.
func text(m map[string]any, names ...string) string {
	for _, name := range names {
		if s, _ := m[name].(string); s != "" {
			return s
		}
	}
	return ""
}

// fitsHeader tells whether s is visible ASCII, as a field value is that one
// word (RFC 9110, 5.5).
func fitsHeader(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f {
			return false
		}
	}
	return true
}
