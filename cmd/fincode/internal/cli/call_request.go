package cli

import (
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"unicode"

	"github.com/fincodeauth/fincodeauth/cmd/fincode/internal/failure"
	"github.com/fincodeauth/fincodeauth/cmd/fincode/internal/fincodeurl"
)

// newCallRequest returns the request without its body.
func newCallRequest(baseURL, method, path string, opts callOptions) (*http.Request, error) {
	method, err := checkMethod(method)
	if err != nil {
		return nil, err
	}
	u, err := target(baseURL, path)
	if err != nil {
		return nil, err
	}
	if opts.timeout < 0 {
		return nil, failure.New(failure.Usage, "--timeout %v: use a positive duration, such as 30s", opts.timeout)
	}
	req, err := http.NewRequest(method, u.String(), nil)
	if err != nil {
		return nil, failure.Wrap(failure.Usage, err)
	}
	for _, text := range opts.headers {
		if err := addHeader(req.Header, text); err != nil {
			return nil, err
		}
	}
	return req, nil
}

var methods = regexp.MustCompile(`^[A-Z]+(-[A-Z]+)*$`)

// checkMethod returns the method in upper case.
func checkMethod(method string) (string, error) {
	upper := strings.ToUpper(method)
	switch {
	case !methods.MatchString(upper):
		return "", failure.New(failure.Usage, "METHOD %q: use a name such as GET, POST, PUT or DELETE, before PATH", method)
	case upper == http.MethodConnect, upper == http.MethodTrace: // the answer to TRACE shows the token
		return "", failure.New(failure.Usage, "METHOD %s: call does not send it", upper)
	}
	return upper, nil
}

// target returns the URL that PATH means. It has the origin of the base URL.
func target(baseURL, text string) (*url.URL, error) {
	wrong := func(why string) (*url.URL, error) {
		return nil, failure.New(failure.Usage, "PATH: %s", why)
	}
	base, err := url.Parse(strings.TrimRight(baseURL, "/"))
	if err != nil {
		return nil, failure.New(failure.Usage, "the base URL of FinCode does not parse: check --url")
	}
	u, err := url.Parse(text)
	switch {
	case err != nil, u.Opaque != "", u.Scheme != "" && u.Host == "":
		return wrong("it does not parse: use a path such as /whoami, with special characters escaped")
	case u.User != nil:
		return wrong("it has a user: use a path such as /whoami")
	case u.Fragment != "" || strings.HasSuffix(text, "#"):
		return wrong("it has a #, and what comes after that is never sent: write %23")
	case u.Host != "" && !fincodeurl.SameOrigin(u, base):
		return wrong(fmt.Sprintf("%s is another origin than the profile's, %s://%s, and does not get its token: use a path such as /whoami", failure.Plain(u.Host), base.Scheme, base.Host))
	}
	full, root := u.EscapedPath(), base.EscapedPath()
	if u.Host == "" && full != root && !strings.HasPrefix(full, root+"/") {
		full = root + "/" + strings.TrimLeft(full, "/")
	}
	whole, err := url.Parse(base.Scheme + "://" + base.Host + full)
	if err != nil {
		return wrong("it does not parse: use a path such as /whoami, with special characters escaped")
	}
	if fincodeurl.HoldsTokens(whole.Path) {
		return wrong("the calls of /securitymanagement take or return tokens: use fincode login and fincode logout; a refresh happens by itself")
	}
	whole.RawQuery = strings.ReplaceAll(u.RawQuery, " ", "%20")
	return whole, nil
}

var fieldNames = regexp.MustCompile("^[0-9A-Za-z!#$%&'*+.^_`|~-]+$") // RFC 9110, 5.6.2

// notFields are the header fields that -H cannot set.
var notFields = map[string]string{
	"Authorization":     "fincode sets it itself",
	"X-Auth-Token":      "fincode sets it itself",
	"Host":              "it is that of the base URL",
	"Content-Length":    "it is that of the body",
	"Transfer-Encoding": "it is that of the body",
	"Trailer":           "call sends none",
}

// addHeader adds a field that is written as 'Name: value'. Its errors do not show the
// value, which may be a secret.
func addHeader(h http.Header, text string) error {
	name, value, ok := strings.Cut(text, ":")
	name, value = http.CanonicalHeaderKey(strings.TrimSpace(name)), strings.TrimSpace(value)
	switch why := notFields[name]; {
	case !ok:
		return failure.New(failure.Usage, "-H: there is no colon: write it as 'Name: value'")
	case !fieldNames.MatchString(name):
		return failure.New(failure.Usage, "-H: a name has characters that no header field has: write it as 'Name: value'")
	case why != "":
		return failure.New(failure.Usage, "-H: leave out the field %s: %s", name, why)
	case strings.ContainsFunc(value, unicode.IsControl):
		return failure.New(failure.Usage, "-H: the value of %s has a control character: remove it", name)
	}
	h.Add(name, value)
	return nil
}
