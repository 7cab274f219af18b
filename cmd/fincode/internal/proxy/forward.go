package proxy

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/fincodeauth/fincodeauth/cmd/fincode/internal/fincodeurl"
)

// forward sends the request to FinCode, if nothing refuses it.
func (p *Proxy) forward(w http.ResponseWriter, r *http.Request, rec *record) {
	if !isClear(r.URL) {
		unclearPath.write(w)
		return
	}
	decoded, _ := below(p.root, r.URL)
	if fincodeurl.HoldsTokens(decoded) {
		tokenPath.write(w)
		return
	}
	if problem, bad := p.filter.refuses(r, decoded); bad {
		problem.write(w)
		return
	}
	rec.observe = p.cfg.Observe
	if r.ContentLength != 0 {
		_ = http.NewResponseController(w).SetReadDeadline(time.Time{}) // of limitBody: the body may be a stream
	}
	if r.ContentLength < 0 {
		// FinCode may answer before the body has ended, as in a dialogue. Without this,
		// net/http reads the body to its end before it sends an answer.
		_ = http.NewResponseController(w).EnableFullDuplex() // an error: HTTP/2, which can do it anyway
	}
	p.reverse.ServeHTTP(w, r)
}

func (p *Proxy) newReverse() *httputil.ReverseProxy {
	return &httputil.ReverseProxy{
		Rewrite:        p.rewrite,
		Transport:      newReplaying(p.cfg.Sessions.Transport(p.cfg.Session), p.cfg.MaxReplayBody),
		ModifyResponse: p.modify,
		ErrorHandler:   p.fail,
		ErrorLog:       slog.NewLogLogger(p.log.Handler(), slog.LevelWarn),
	}
}

// maxIdle is how many connections to FinCode stay open for the next requests. net/http's
// own limit is 2, so of many requests at once nearly all would need a new connection.
const maxIdle = 100

// NewBase returns a RoundTripper for Config.Base of the Sessions, or for Metrics.Base. It
// has the settings of http.DefaultTransport, and more idle connections.
func NewBase() *http.Transport {
	base, ok := http.DefaultTransport.(*http.Transport)
	if !ok {
		base = &http.Transport{Proxy: http.ProxyFromEnvironment}
	}
	base = base.Clone()
	base.MaxIdleConnsPerHost = maxIdle
	return base
}

// rewrite makes FinCode's request of the client's. The Transport adds the token and
// FinCode's own fields.
func (p *Proxy) rewrite(pr *httputil.ProxyRequest) {
	pr.Out.URL.Path, pr.Out.URL.RawPath = below(p.root, pr.In.URL)
	pr.SetURL(p.target)
	pr.Out.URL.RawQuery = pr.In.URL.RawQuery // as it was: the proxy decides nothing by it
	for name := range pr.Out.Header {
		if staysHere(name) {
			delete(pr.Out.Header, name)
		}
	}
	if up := pr.Out.Header.Get("Upgrade"); up != "" && !strings.EqualFold(up, "websocket") { // such as h2c
		pr.Out.Header.Del("Upgrade")
		pr.Out.Header.Del("Connection")
	}
}

// notForwarded are the request's fields that stay here. The first line has the client's
// secrets. The second says where the client is, which FinCode would not understand. The
// third could make FinCode do something else than what the filter has seen.
var notForwarded = []string{
	"Authorization", "X-Auth-Token", "Cookie",
	"Origin", "Referer", "Forwarded", "X-Real-Ip",
	"X-Http-Method-Override", "X-Http-Method", "X-Method-Override", "X-Original-Url", "X-Rewrite-Url",
}

// staysHere reports whether a request's field is not forwarded. Some servers read "_" as
// "-".
func staysHere(name string) bool {
	name = http.CanonicalHeaderKey(strings.ReplaceAll(name, "_", "-"))
	return slices.Contains(notForwarded, name) || strings.HasPrefix(name, "X-Forwarded-") || strings.HasPrefix(name, "Sec-Fetch-")
}

// modify changes FinCode's answer as little as it can.
func (p *Proxy) modify(resp *http.Response) error {
	h := resp.Header
	for name := range h {
		if isOfOrigin(name) {
			delete(h, name)
		}
	}
	p.redirect(resp)
	if resp.StatusCode != http.StatusSwitchingProtocols {
		// The status page has the same origin. What FinCode sends is data, never a page
		// that could act there.
		h.Add("Content-Security-Policy", "default-src 'none'; sandbox")
		h.Set("X-Content-Type-Options", "nosniff")
	}
	return nil
}

// isOfOrigin reports whether an answer's field speaks about FinCode's origin, so that it
// is wrong for the proxy's. Set-Cookie is one of them: browsers would send FinCode's
// cookies to every program on this machine, and the proxy does not send them to FinCode.
func isOfOrigin(name string) bool {
	return slices.Contains([]string{"Set-Cookie", "Clear-Site-Data", "Strict-Transport-Security", "Alt-Svc", "Service-Worker-Allowed", ProblemHeader}, name) ||
		strings.HasPrefix(name, "Access-Control-")
}

// redirect makes a Location below BaseURL one of the proxy. Any other Location becomes
// absolute, because a relative one would now mean another place.
func (p *Proxy) redirect(resp *http.Response) {
	location := resp.Header.Get("Location")
	if location == "" {
		return
	}
	from := p.target
	if resp.Request != nil && resp.Request.URL != nil {
		from = resp.Request.URL
	}
	to, err := from.Parse(location)
	if err != nil {
		return
	}
	if fincodeurl.SameOrigin(to, p.target) && (to.Path == p.root || strings.HasPrefix(to.Path, p.root+"/")) {
		to = &url.URL{Path: to.Path, RawPath: to.RawPath, RawQuery: to.RawQuery, Fragment: to.Fragment, RawFragment: to.RawFragment}
	}
	resp.Header.Set("Location", to.String())
}

// fail answers a request to which FinCode gave no answer.
func (p *Proxy) fail(w http.ResponseWriter, r *http.Request, err error) {
	problem := problemOf(r.Context(), err)
	level := slog.LevelWarn
	if problem.status == statusClientGone {
		level = slog.LevelDebug
	}
	p.log.Log(context.WithoutCancel(r.Context()), level, "request not forwarded", "code", problem.code, "error", err)
	problem.write(w)
}
