package fincodeauth

import (
	"strconv"
	"strings"
	"time"
)

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
