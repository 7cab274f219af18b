package fincodeauth

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// TokenHeaders says which header fields carry the access token. FinCode's pages
// disagree about that (FINCODE.md, Headers). The zero value means both.
type TokenHeaders uint8

const (
	BearerToken TokenHeaders = 1 << iota // Authorization: Bearer <token>
	XAuthToken                           // X-Auth-Token: <token>
)

func (h TokenHeaders) check() error {
	if h > BearerToken|XAuthToken {
		return fmt.Errorf("TokenHeaders is %d: use BearerToken, XAuthToken, or 0 for both", h)
	}
	return nil
}

// has reports whether the token goes into the header that one stands for.
func (h TokenHeaders) has(one TokenHeaders) bool { return h == 0 || h&one != 0 }

// DefaultHeader returns the fields that every call to FinCode carries
// (FINCODE.md, Headers): Content-Type: application/json, platform: fincode and
// uuid: 200.
func DefaultHeader() http.Header {
	return http.Header{
		"Content-Type": {"application/json"},
		"Platform":     {"fincode"},
		"Uuid":         {"200"},
	}
}

// The canonical names of the headers that the Transport treats in a special way.
const (
	authorization = "Authorization"
	xAuthToken    = "X-Auth-Token"
	uuid          = "Uuid"
)

// fields are the header fields that a request gets if it lacks them.
type fields []field

// A field is one header field. Its name is canonical in fields. In a request, it is
// spelled as the caller spells it.
type field struct {
	name   string
	values []string
	make   func() string // makes the value, once for each request; nil: values
}

// newFields returns the fields of h. requestID returns the value of uuid; nil: h has
// the value.
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

// lackedBy appends to buf the fields of f that theirs lacks. Case does not matter:
// FinCode's pages write "uuid" and "platform".
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
		if there := list[i].name; there == name || len(there) == len(name) && strings.EqualFold(there, name) {
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

// isTokenHeader reports whether the field of that name, in any case, carries the
// token.
func isTokenHeader(name string) bool {
	switch len(name) {
	case len(authorization):
		return strings.EqualFold(name, authorization)
	case len(xAuthToken):
		return strings.EqualFold(name, xAuthToken)
	}
	return false
}

// A header is an http.Header whose values are slices of one array.
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

// checkHeader returns an error if h has a field that cannot be sent. in is where the
// caller set h: Header or ExtraHeader.
func checkHeader(in string, h http.Header) error {
	for name, values := range h {
		switch {
		case !isFieldName(name):
			return fmt.Errorf("field %q in %s: a name may have only letters, digits and !#$%%&'*+-.^_`|~", name, in)
		case isTokenHeader(name):
			return fmt.Errorf("field %s in %s: the Transport sets the token's fields itself; remove it", name, in)
		case slices.Contains(setByNetHTTP, http.CanonicalHeaderKey(name)):
			return fmt.Errorf("field %s in %s: net/http sets it itself; remove it", name, in)
		case slices.ContainsFunc(values, hasControl):
			return fmt.Errorf("field %s in %s: a value has a control character; remove it", name, in) // the value may be a secret
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

// hasControl reports whether a field's value has a control character other than a tab
// (RFC 9110, 5.5).
func hasControl(value string) bool {
	return strings.ContainsFunc(value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f })
}
