// Package envelope reads the JSON of FinCode's answers (FINCODE.md, Envelope).
package envelope

import (
	"encoding/json"
	"errors"
	"net/http"
)

// Object reads a JSON object. It returns nil if data is something else. It leaves out
// a number that is too large.
func Object(data []byte) (m map[string]any) {
	err := json.Unmarshal(data, &m)
	if _, tooLarge := errors.AsType[*json.UnmarshalTypeError](err); err != nil && !tooLarge {
		return nil
	}
	return m
}

// Text returns the first of the named members that is a non-empty string.
func Text(m map[string]any, names ...string) string {
	for _, name := range names {
		if s, _ := m[name].(string); s != "" {
			return s
		}
	}
	return ""
}

// Failure returns what has the code and the message of a failure.
func Failure(body map[string]any) map[string]any {
	if detail, ok := body["error"].(map[string]any); ok {
		return detail
	}
	return body
}

// Tokens returns what has the tokens of a login or a refresh (FINCODE.md, What no page
// says, 1).
func Tokens(body map[string]any) map[string]any {
	if data, _ := body["data"].(map[string]any); Text(data, "access_token", "accessToken") != "" {
		return data
	}
	return body
}

// Status returns the HTTP status that the code of a failure stands for, if the failure
// came as HTTP 200.
func Status(code string) int {
	switch code {
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
