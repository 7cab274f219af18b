package fincodetest

import (
	"cmp"
	"crypto/rand"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// An answer is what FinCode sends to the client.
type answer struct {
	status int
	header http.Header
	body   []byte
	cut    bool // the connection breaks after half of the body
}

func newAnswer(status int, contentType string, body []byte) answer {
	return answer{status: status, header: http.Header{"Content-Type": {contentType}}, body: body}
}

func jsonAnswer(status int, v any) answer { return newAnswer(status, "application/json", mustJSON(v)) }

// success returns a 200 with data in FinCode's envelope.
func success(data any) answer {
	return jsonAnswer(http.StatusOK, map[string]any{"success": true, "data": data, "metadata": metadata()})
}

// codes are FinCode's error codes by HTTP status. Its documentation has none for
// 400 and 405.
var codes = map[int]string{
	http.StatusBadRequest:          "BAD_REQUEST",
	http.StatusUnauthorized:        "AUTH_REQUIRED",
	http.StatusForbidden:           "FORBIDDEN",
	http.StatusNotFound:            "NOT_FOUND",
	http.StatusMethodNotAllowed:    "METHOD_NOT_ALLOWED",
	http.StatusUnprocessableEntity: "VALIDATION_ERROR",
	http.StatusTooManyRequests:     "RATE_LIMIT_EXCEEDED",
	http.StatusInternalServerError: "SERVER_ERROR",
	http.StatusServiceUnavailable:  "SERVICE_UNAVAILABLE",
}

// failure returns an answer with FinCode's envelope for errors.
func failure(status int, message string) answer {
	detail := map[string]any{"code": cmp.Or(codes[status], "SERVER_ERROR"), "message": message}
	return jsonAnswer(status, map[string]any{"success": false, "error": detail, "metadata": metadata()})
}

func metadata() map[string]any {
	now := time.Now().UTC().Format(time.RFC3339)
	return map[string]any{"request_id": rand.Text(), "timestamp": now, "processing_time_ms": 1}
}

// tokenAnswer returns the answer to a login or a refresh, in the shape that the
// Config asks for. If refresh is "", the answer has no refresh token.
func (f *FinCode) tokenAnswer(access, refresh string) answer {
	names := [...]string{"access_token", "refresh_token", "token_type", "expires_in"}
	if f.cfg.CamelCase {
		names = [...]string{"accessToken", "refreshToken", "tokenType", "expiresIn"}
	}
	token := map[string]any{names[0]: access, names[2]: "Bearer"}
	if refresh != "" {
		token[names[1]] = refresh
	}
	if expiresIn := f.expiresIn(); expiresIn != nil {
		token[names[3]] = expiresIn
	}
	if f.cfg.UnderData {
		return success(token)
	}
	return jsonAnswer(http.StatusOK, token)
}

// expiresIn returns the access token's lifetime in the form that the Config asks
// for. nil: the answer does not have the field.
func (f *FinCode) expiresIn() any {
	seconds := strconv.FormatFloat(f.cfg.AccessLifetime.Seconds(), 'f', -1, 64)
	switch f.cfg.ExpiresIn {
	case ExpiresInAbsent:
		return nil
	case ExpiresInString:
		return seconds
	case ExpiresInFraction:
		if !strings.Contains(seconds, ".") {
			seconds += ".0"
		}
	}
	return json.Number(seconds)
}

func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic("fincodetest: " + err.Error()) // not possible: this package made v
	}
	return b
}
