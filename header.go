package fincodeauth

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// The canonical names of the headers that are the Transport's alone.
const (
	authorization = "Authorization"
	xAuthToken    = "X-Auth-Token"
	uuid          = "Uuid"
)

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

// checkHeader returns an error if h, the field of that name of a Config or a
// Transport, has a field that cannot be sent.
func checkHeader(in string, h http.Header) error {
	for name, values := range h {
		switch canonical := http.CanonicalHeaderKey(name); {
		case !isFieldName(name):
			return fmt.Errorf("field %q in %s: a field's name has only letters, digits and !#$%%&'*+-.^_`|~", name, in)
		case isTokenHeader(name):
			return fmt.Errorf("field %s in %s: the Transport sets the token's fields itself; remove it", name, in)
		case slices.Contains(setByNetHTTP, canonical):
			return fmt.Errorf("field %s in %s: net/http sets it itself; remove it", name, in)
		case !slices.ContainsFunc(values, isNoFieldValue):
		default:
			return fmt.Errorf("field %s in %s: its value has a control character", name, in) // the value may be a secret
		}
	}
	return nil
}

// setByNetHTTP are fields that net/http ignores in a request's Header.
var setByNetHTTP = []string{"Content-Length", "Host", "Trailer", "Transfer-Encoding"}

// isFieldName reports whether name is a token (RFC 9110, 5.6.2).
func isFieldName(name string) bool {
	return name != "" && !strings.ContainsFunc(name, func(r rune) bool {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9':
			return false
		}
		return !strings.ContainsRune("!#$%&'*+-.^_`|~", r)
	})
}

// isNoFieldValue reports whether value has a control character other than a tab
// (RFC 9110, 5.5).
func isNoFieldValue(value string) bool {
	return strings.ContainsFunc(value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f })
}
