package fincodeauth

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"golang.org/x/oauth2"

	"github.com/fincodeauth/fincodeauth/internal/envelope"
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
	switch e.meaning() {
	case http.StatusUnauthorized:
		return target == ErrBadCredentials
	case http.StatusForbidden:
		return target == ErrAccountLocked
	case http.StatusNotFound:
		return target == ErrUserNotFound
	}
	return false
}

// meaning returns the status that the answer stands for. If a failure came as HTTP 200
// with "success": false, that is the status of its code (FINCODE.md, Envelope).
func (e *EndpointError) meaning() int {
	if !succeeded(e.Status) {
		return e.Status
	}
	return envelope.Status(e.Code)
}

// refusal makes an EndpointError of an answer. whole reports whether data is the
// complete body.
func refusal(op string, resp *http.Response, data []byte, whole bool, secrets []string) *EndpointError {
	e := &EndpointError{Op: op, Status: resp.StatusCode, RetryAfter: retryAfter(resp.Header)}
	if len(bytes.TrimSpace(data)) == 0 {
		e.foreign = !whole
		return e
	}
	body := envelope.Object(data)
	// The first bytes of a page that begins with "403 Forbidden" are valid JSON, the
	// number 403. An object that parses is always complete.
	e.foreign = !json.Valid(data) || !whole && body == nil
	detail := envelope.Failure(body)
	e.Code = printable(envelope.Text(detail, "code"), secrets)
	e.Message = printable(envelope.Text(detail, "message", "error"), secrets)
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

// An answer is FinCode's answer to a call that succeeded.
type answer struct {
	date string         // the Date header
	body map[string]any // nil: not a JSON object
}

// token reads the pair from an answer, in any of the forms of FINCODE.md, What no
// page says, 1. before is the local wall clock just before the call.
func (a *answer) token(before time.Time) (*oauth2.Token, error) {
	if a.body == nil {
		return nil, errors.New("the answer is not a JSON object")
	}
	body := envelope.Tokens(a.body)
	tok := &oauth2.Token{
		AccessToken:  envelope.Text(body, "access_token", "accessToken"),
		TokenType:    envelope.Text(body, "token_type", "tokenType"),
		RefreshToken: envelope.Text(body, "refresh_token", "refreshToken"),
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

func succeeded(status int) bool { return status >= 200 && status < 300 }

// The calls by the last element of their path, as in EndpointError.Op.
const (
	opLogin   = "login"
	opRefresh = "refresh-token"
	opLogout  = "logout"
)
