package proxy

import (
	"fmt"
	"net/http"
	"regexp"
	"slices"
)

// A filter refuses what the user of the command refuses. It does not change.
type filter struct {
	accept, reject, methods []*regexp.Regexp
	readOnly                bool
}

func newFilter(cfg Config) (f filter, err error) {
	f.readOnly = cfg.ReadOnly
	for _, list := range []struct {
		flag string
		from []string
		to   *[]*regexp.Regexp
	}{
		{"--accept-paths", cfg.AcceptPaths, &f.accept},
		{"--reject-paths", cfg.RejectPaths, &f.reject},
		{"--reject-methods", cfg.RejectMethods, &f.methods},
	} {
		for _, text := range list.from {
			expression, err := regexp.Compile(text)
			if err != nil {
				return filter{}, fmt.Errorf("%s: %w", list.flag, err)
			}
			*list.to = append(*list.to, expression)
		}
	}
	return f, nil
}

var (
	pathRefused = problem{status: http.StatusForbidden, code: "PATH_REFUSED",
		message: "the proxy was started with --accept-paths or --reject-paths, which refuse this path"}
	methodRejected = problem{status: http.StatusForbidden, code: "METHOD_REFUSED",
		message: "the proxy was started with --reject-methods, which refuses this method"}
	readOnly = problem{status: http.StatusForbidden, code: "READ_ONLY",
		message: "the proxy was started with --read-only, which allows GET, HEAD and OPTIONS, and no websocket"}
)

// refuses returns the answer to a request that must not go on. path is below the root.
func (f filter) refuses(r *http.Request, path string) (problem, bool) {
	switch {
	case len(f.accept) > 0 && !matches(f.accept, path), matches(f.reject, path):
		return pathRefused, true
	case matches(f.methods, r.Method):
		return methodRejected, true
	case f.readOnly && (!slices.Contains([]string{http.MethodGet, http.MethodHead, http.MethodOptions}, r.Method) || r.Header.Get("Upgrade") != ""):
		return readOnly, true
	}
	return problem{}, false
}

func matches(list []*regexp.Regexp, text string) bool {
	return slices.ContainsFunc(list, func(e *regexp.Regexp) bool { return e.MatchString(text) })
}
