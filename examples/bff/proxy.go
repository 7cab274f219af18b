package main

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
)

// What may cross the proxy. Everything else stays behind: the cookie is for this
// server, and the headers platform, uuid and those of the token are FinCode's.
var (
	requestHeader  = []string{"Accept", "Accept-Language", "Content-Type", "If-Match", "If-None-Match"}
	responseHeader = []string{"Content-Type", "Content-Length", "Content-Language", "Etag", "Retry-After"}
)

// newProxy returns a proxy that forwards what comes in below /api to FinCode.
// docs/compose.md says why it is made this way.
func (s *server) newProxy() *httputil.ReverseProxy {
	target, err := url.Parse(s.opts.baseURL)
	if err != nil {
		target = &url.URL{} // not possible: fincodeauth.New has checked it
	}
	return &httputil.ReverseProxy{
		Rewrite: func(pr *httputil.ProxyRequest) {
			pr.Out.URL.Path = strings.TrimPrefix(pr.Out.URL.Path, "/api")
			pr.SetURL(target)
			pr.Out.Header = only(pr.Out.Header, requestHeader)
		},
		ModifyResponse: func(resp *http.Response) error {
			resp.Header = only(resp.Header, responseHeader)
			if resp.StatusCode == http.StatusUnauthorized {
				// This is not the end of the session, which the Transport returns as an error, so
				// the browser must not see a 401. Either the user logged in again a moment ago on
				// another replica, and this one still has the old token: that lasts a few seconds.
				// Or the call wants other rights: then the log says so, again and again.
				s.logger.Error("FinCode refused the token of a session that is alive", "path", resp.Request.URL.Path)
				resp.StatusCode, resp.Status = http.StatusServiceUnavailable, ""
				resp.Header.Set("Retry-After", strconv.Itoa(int(retryAfter.Seconds())))
			}
			return nil
		},
		Transport:    buffered{next: s.sessions.Transport(""), limit: 1 << 20},
		ErrorHandler: s.failJSON,
	}
}

// proxied lets through what logged-in users ask for.
func (s *server) proxied(proxy http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !isPlain(r.URL) || holdsTokens(r.URL.Path) {
			http.NotFound(w, r)
			return
		}
		_, ctx, err := s.touch(w, r)
		if err != nil {
			s.failJSON(w, r, err)
			return
		}
		w.Header().Set("Content-Security-Policy", "default-src 'none'; sandbox") // data, never a page
		r.Header.Del("Upgrade")                                                  // nothing but HTTP
		proxy.ServeHTTP(w, r.WithContext(ctx))
	})
}

// below puts a prefix before the path of a pattern such as "GET /whoami".
func below(prefix, pattern string) string {
	method, path, _ := strings.Cut(pattern, " ")
	return method + " " + prefix + path
}

// isPlain reports whether the path means the same to everybody who reads it. "%2f"
// and ".." do not: they could lead somewhere else at FinCode than here.
func isPlain(u *url.URL) bool {
	return u.RawPath == "" && path.Clean(u.Path) == u.Path && !strings.ContainsAny(u.Path, `\;%`)
}

// holdsTokens reports whether FinCode's answers at a path may hold tokens.
func holdsTokens(path string) bool {
	return strings.Contains(strings.ToLower(path), "securitymanagement")
}

// only returns the fields of h that are named.
func only(h http.Header, names []string) http.Header {
	out := make(http.Header, len(names))
	for _, name := range names {
		if values := h.Values(name); len(values) > 0 {
			out[name] = slices.Clone(values)
		}
	}
	return out
}

// A buffered is a RoundTripper that gives a request GetBody, so that the Transport
// can send its body again. It keeps a body in memory while the request is sent. A
// body of more than limit bytes goes through in full, without GetBody.
type buffered struct {
	next  http.RoundTripper
	limit int64 // bytes of one body
}

func (b buffered) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Body == nil || req.Body == http.NoBody || req.GetBody != nil || req.ContentLength > b.limit {
		return b.next.RoundTrip(req)
	}
	start, err := io.ReadAll(io.LimitReader(req.Body, b.limit+1))
	if err != nil {
		req.Body.Close()
		return nil, err
	}
	out := req.WithContext(req.Context()) // a copy: a RoundTripper must not change its request
	if int64(len(start)) > b.limit {
		out.Body = struct {
			io.Reader
			io.Closer
		}{io.MultiReader(bytes.NewReader(start), req.Body), req.Body}
		return b.next.RoundTrip(out)
	}
	req.Body.Close()
	out.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(start)), nil }
	out.Body, _ = out.GetBody()
	return b.next.RoundTrip(out)
}
