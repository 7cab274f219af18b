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
type fields []field

// A field has a canonical name if it is one of fields, and the caller's spelling
// if it is of a request.
type field struct {
	name   string
	values []string
	make   func() string // makes the value, once for each request; nil: values
}

// newFields returns the fields of h. requestID makes the value of uuid; nil: the
// value is in h.
func newFields(h http.Header, requestID func() string) fields {
	var f fields
	for name, values := range h {
		name = http.CanonicalHeaderKey(name)
		if name != uuid || requestID == nil {
			f = append(f, field{name: name, values: slices.Clone(values)})
		}
	}
	if requestID != nil {
		f = append(f, field{name: uuid, make: requestID})
	}
	return f
}

// lackedBy appends to buf those fields whose names are not among theirs. The caller
// of a request may spell a name in another case, as FinCode's pages do.
func (f fields) lackedBy(theirs []field, buf []*field) []*field {
	for i := range f {
		if !hasField(theirs, f[i].name) {
			buf = append(buf, &f[i])
		}
	}
	return buf
}

func hasField(list []field, name string) bool {
	for i := range list {
		if len(list[i].name) == len(name) && strings.EqualFold(list[i].name, name) {
			return true
		}
	}
	return false
}

// withoutToken appends to buf the fields of a request, except those of the token.
func withoutToken(request http.Header, buf []field) []field {
	for name, values := range request {
		if !isTokenHeader(name) {
			buf = append(buf, field{name: name, values: values})
		}
	}
	return buf
}

// isTokenHeader reports whether name, in whatever case, is one of the token's.
func isTokenHeader(name string) bool {
	switch len(name) {
	case len(authorization):
		return strings.EqualFold(name, authorization)
	case len(xAuthToken):
		return strings.EqualFold(name, xAuthToken)
	}
	return false
}

// A header is an http.Header whose values stand one after the other in memory.
type header struct {
	http.Header
	values []string
}

// add sets a field to a copy of its values.
func (h *header) add(f *field) {
	if f.make != nil {
		h.set(f.name, f.make())
	} else {
		h.set(f.name, f.values...)
	}
}

// set sets a field to a copy of values.
func (h *header) set(name string, values ...string) {
	from := len(h.values)
	if len(values) == 1 { // nearly always, and one assignment is faster than a copy
		h.values = append(h.values, values[0])
	} else {
		h.values = append(h.values, values...)
	}
	h.Header[name] = slices.Clip(h.values[from:])
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
