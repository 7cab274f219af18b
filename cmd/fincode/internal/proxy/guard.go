package proxy

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// A guard refuses what a web page could make a browser send to the proxy, whether it
// has the key or not. It does not change.
//
// A page whose name resolves to this machine (DNS rebinding) gives itself away by the
// Host, which is its name. A page that calls the proxy by its address gives itself away
// by the Origin or by Sec-Fetch-Site.
type guard struct {
	hosts []hostPort // Config.AllowedHosts
}

// A hostPort is a value of Host. It is in lower case.
type hostPort struct{ name, port string }

func newGuard(allowed []string) (guard, error) {
	var g guard
	for _, text := range allowed {
		host, ok := splitHost(text)
		if !ok {
			return guard{}, fmt.Errorf("--allowed-hosts %q: write it as proxy.example.com:8080, or as proxy.example.com for any port", text)
		}
		g.hosts = append(g.hosts, host)
	}
	return g, nil
}

var (
	notOrdinary = problem{status: http.StatusBadRequest, code: "BAD_REQUEST",
		message: "this is not a forward proxy: use its address as the base URL, and not as an HTTP proxy"}
	methodRefused = problem{status: http.StatusMethodNotAllowed, code: "METHOD_NOT_ALLOWED",
		message: "the proxy does not forward this method"}
	wrongHost = problem{status: http.StatusMisdirectedRequest, code: "HOST_NOT_ALLOWED",
		message: "the Host of the request is not the proxy's: use 127.0.0.1 or localhost with the proxy's port, or start the proxy with --allowed-hosts"}
	wrongOrigin = problem{status: http.StatusForbidden, code: "CROSS_SITE",
		message: "the request comes from a web page of another site, and the proxy does not serve other sites"}
)

// refuses returns the answer to a request that must not go on.
func (g guard) refuses(r *http.Request) (problem, bool) {
	switch {
	case r.Method == http.MethodConnect, !strings.HasPrefix(r.RequestURI, "/"):
		return notOrdinary, true
	case r.Method == http.MethodTrace, r.Method == "TRACK", // their answers show the token
		r.Method != strings.ToUpper(r.Method): // FinCode may take "trace" and "delete" for what the filter refuses
		return methodRefused, true
	case !g.knows(r):
		return wrongHost, true
	case !isSameOrigin(r):
		return wrongOrigin, true
	}
	return problem{}, false
}

// knows reports whether the Host is one of the proxy's.
func (g guard) knows(r *http.Request) bool {
	host, ok := splitHost(r.Host)
	if !ok {
		return false
	}
	if slices.ContainsFunc(g.hosts, func(allowed hostPort) bool {
		return allowed.name == host.name && (allowed.port == "" || allowed.port == host.withPort().port)
	}) {
		return true
	}
	switch local := r.Context().Value(http.LocalAddrContextKey).(type) {
	case *net.TCPAddr:
		return host.isOf(local)
	case *net.UnixAddr:
		// No browser connects to a Unix socket. A name without dots is what clients make
		// up, such as http://localhost or http://fincode. A web server before the socket
		// may pass on what a browser sent, so other names must be allowed.
		return host.isLoopback() || !strings.ContainsAny(host.name, ".:")
	}
	return false
}

// isOf reports whether h names the address that a connection came to. An IP address in
// Host is not a rebinding: the page would have that address as its origin.
func (h hostPort) isOf(local *net.TCPAddr) bool {
	if h.withPort().port != fmt.Sprint(local.Port) {
		return false
	}
	ip := net.ParseIP(h.name)
	return h.isLoopback() || ip != nil && ip.Equal(local.IP)
}

func (h hostPort) isLoopback() bool {
	return h.name == "localhost" || h.name == "127.0.0.1" || h.name == "::1"
}

// withPort returns h with the port of HTTP, if h has none.
func (h hostPort) withPort() hostPort {
	if h.port == "" {
		h.port = "80"
	}
	return h
}

// splitHost splits a value of Host. It returns false for a value that is not a host.
func splitHost(text string) (hostPort, bool) {
	text = strings.ToLower(text)
	if addr, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(text, "["), "]")); err == nil {
		bracketed := strings.HasPrefix(text, "[") && strings.HasSuffix(text, "]")
		return hostPort{name: addr.String()}, addr.Zone() == "" && bracketed == addr.Is6()
	}
	h := hostPort{name: text}
	if strings.Contains(text, ":") {
		var err error
		if h.name, h.port, err = net.SplitHostPort(text); err != nil || !isPort(h.port) {
			return hostPort{}, false
		}
	}
	return h, h.name != "" && !strings.ContainsAny(h.name, "/@%*[] ")
}

func isPort(text string) bool {
	return len(text) > 0 && len(text) <= 5 && !strings.ContainsFunc(text, func(r rune) bool { return r < '0' || r > '9' })
}

// isSameOrigin reports whether the request is not from a page of another origin.
// http.CrossOriginProtection lets each GET pass, and a GET can read data and open a
// websocket. So this is stricter. The Host was checked before.
func isSameOrigin(r *http.Request) bool {
	for _, site := range r.Header.Values("Sec-Fetch-Site") {
		if site != "same-origin" && site != "none" {
			return false
		}
	}
	for _, origin := range r.Header.Values("Origin") {
		// https is for a proxy behind a server that adds TLS.
		if !strings.EqualFold(origin, "http://"+r.Host) && !strings.EqualFold(origin, "https://"+r.Host) {
			return false
		}
	}
	return true
}
