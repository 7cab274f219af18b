package fincodeauth

import (
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"time"
)

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

// texts returns the strings of an array, or a single string; nil if value is something
// else.
func texts(value any) (all []string) {
	switch value := value.(type) {
	case string:
		return []string{value}
	case []any:
		for _, v := range value {
			if s, ok := v.(string); ok {
				all = append(all, s)
			}
		}
	}
	return all
}

// seconds returns n seconds as a Duration, a century at most.
func seconds(n float64) time.Duration {
	if d := n * float64(time.Second); d < float64(century) {
		return time.Duration(d)
	}
	return century
}

// century is the longest duration that is accepted, so that no sum overflows.
const century = 100 * 365 * 24 * time.Hour
