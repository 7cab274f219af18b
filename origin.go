package fincodeauth

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"unicode"
)

// An origin is a scheme, a host and a port (RFC 6454). It is in lower case.
type origin struct{ scheme, host, port string }

func originOf(u *url.URL) origin {
	return origin{strings.ToLower(u.Scheme), strings.ToLower(u.Hostname()), u.Port()}.withPort()
}

// withPort returns o with the default port of its scheme, if o has no port.
func (o origin) withPort() origin {
	switch {
	case o.port != "":
	case o.scheme == "https":
		o.port = "443"
	case o.scheme == "http":
		o.port = "80"
	}
	return o
}

// secure reports whether nobody on the network can read what is sent to o: over
// https, or to a loopback address.
func (o origin) secure() bool {
	if o.scheme != "http" {
		return o.scheme == "https"
	}
	ip := net.ParseIP(o.host)
	return o.host == "localhost" || ip != nil && ip.IsLoopback()
}

// A trust says to which origins the token may be sent. It does not change.
type trust struct {
	base         origin
	scheme, host string   // of base, as BaseURL spells them
	hosts        []origin // without a scheme; port "" means 443, and any port over http, which covers allows to loopback alone
}

// newTrust returns the trust of a Config or a Transport, or an error that says how to
// write baseURL or hosts.
func newTrust(baseURL string, hosts []string) (*trust, error) {
	if baseURL == "" {
		return nil, errors.New(`BaseURL is empty: use Sandbox("your-tenant"), Production("your-domain"), or the https URL of the API's root`)
	}
	shown := withoutSecrets(baseURL)
	if strings.ContainsFunc(baseURL, unicode.IsSpace) {
		return nil, fmt.Errorf("BaseURL %q has white space: remove it", shown)
	}
	u, err := url.Parse(baseURL)
	if err != nil {
		why := "it has a user or a query"
		if shown == baseURL {
			why = errors.Unwrap(err).Error() // it may quote what withoutSecrets hides
		}
		return nil, fmt.Errorf("BaseURL %q does not parse (%s): use Sandbox(\"your-tenant\") with a name alone, Production(\"your-domain\"), or the https URL of the API's root", shown, why)
	}
	t := &trust{base: originOf(u), scheme: u.Scheme, host: u.Host}
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, fmt.Errorf("BaseURL %q does not begin with https://: write it as https://tenant.fincode.software/api/v6/services", shown)
	case strings.HasPrefix(u.Host, "."):
		return nil, fmt.Errorf("BaseURL %q has no host: the name given to Sandbox or Production is empty", shown)
	case u.Hostname() == "":
		return nil, fmt.Errorf("BaseURL %q has no host: write it as https://tenant.fincode.software/api/v6/services", shown)
	case u.User != nil || strings.ContainsAny(baseURL, "?#"): // even after a bare "?", the path of a call would be lost
		return nil, fmt.Errorf("BaseURL %q has a user, a query or a fragment: leave only scheme, host and path", shown)
	case repeatsDomain(t.base.host):
		return nil, fmt.Errorf("BaseURL %q has FinCode's domain twice: give Sandbox or Production the name alone, %q", shown, tenantOf(t.base.host))
	case !t.base.secure():
		return nil, fmt.Errorf("BaseURL %q is not https: use https, or http to a loopback address such as 127.0.0.1", shown)
	}
	for _, host := range hosts {
		u, err := url.Parse("//" + host)
		if err != nil || u.Host != host || u.Hostname() == "" || strings.Contains(host, "*") {
			return nil, fmt.Errorf("host %q in Hosts: write it as api.example.com or api.example.com:8443", host)
		}
		t.hosts = append(t.hosts, originOf(u))
	}
	return t, nil
}

// withoutSecrets returns a URL, which need not parse, without its user, query and
// fragment.
func withoutSecrets(rawURL string) string {
	if i := strings.LastIndex(rawURL, "@"); i >= 0 {
		rawURL = "…" + rawURL[i:]
	}
	if i := strings.IndexAny(rawURL, "?#"); i >= 0 {
		rawURL = rawURL[:i+1] + "…"
	}
	return rawURL
}

// FinCode's domains (FINCODE.md, Where it lives).
const (
	sandboxDomain    = ".fincode.software"
	productionDomain = ".fincode.tech"
)

// repeatsDomain reports whether a host ends in FinCode's domain twice, as
// Sandbox("acme.fincode.software") makes it.
func repeatsDomain(host string) bool {
	return cutDomain(cutDomain(host)) != cutDomain(host)
}

// tenantOf returns the tenant of such a host.
func tenantOf(host string) string {
	if tenant := strings.Trim(cutDomain(cutDomain(host)), "."); tenant != "" {
		return tenant
	}
	return "your-tenant"
}

// cutDomain returns host without FinCode's domain (FINCODE.md, Where it lives). A dot
// at its end does not matter.
func cutDomain(host string) string {
	host = strings.TrimSuffix(host, ".")
	for _, domain := range []string{sandboxDomain, productionDomain} {
		if tenant, ok := strings.CutSuffix("."+host, domain); ok {
			return strings.TrimPrefix(tenant, ".")
		}
	}
	return host
}

// covers reports whether a request to u may carry the token.
func (t *trust) covers(u *url.URL) bool {
	if u == nil {
		return false
	}
	if u.Scheme == t.scheme && u.Host == t.host { // the fast path
		return true
	}
	o := originOf(u)
	if o == t.base {
		return true
	}
	if len(t.hosts) == 0 || !o.secure() {
		return false
	}
	return slices.ContainsFunc(t.hosts, func(h origin) bool {
		if h.port == "" && o.scheme == "http" { // a loopback address, where the port varies
			h.port = o.port
		}
		h.scheme = o.scheme
		return o == h.withPort()
	})
}

// A passedOnce remembers the origins to which requests went without a token, so that
// Passed is sent once for each. It is safe for concurrent use.
type passedOnce struct {
	mu      sync.Mutex
	origins map[origin]bool
}

// maxPassed is how many origins are remembered. For any further one, Passed is not sent.
const maxPassed = 100

// first reports whether o is new, so that Passed must be sent, and remembers o.
func (p *passedOnce) first(o origin) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.origins[o] || len(p.origins) >= maxPassed {
		return false
	}
	if p.origins == nil {
		p.origins = make(map[origin]bool)
	}
	p.origins[o] = true
	return true
}
