package proxy

import (
	"net/http"
	"net/url"
	"path"
	"strings"
	"unicode/utf8"
)

var (
	unclearPath = problem{status: http.StatusBadRequest, code: "UNCLEAR_PATH",
		message: `the path could mean two things: write it without "..", "//", "\", ";", and without an encoded "/", "%", "?" or "#"`}
	tokenPath = problem{status: http.StatusForbidden, code: "PATH_REFUSED",
		message: "answers of /securitymanagement hold refresh tokens, which must not leave the proxy: use fincode login and fincode logout"}
)

// isClear reports whether a path means the same to everybody who reads it. Of "..",
// "%2f" and ";", FinCode could make another path than the proxy.
func isClear(u *url.URL) bool {
	p := u.Path
	switch {
	case !strings.HasPrefix(p, "/"):
		return false
	case p != "/" && path.Clean(p) != strings.TrimSuffix(p, "/"): // "..", "." and "//"
		return false
	case strings.Count(p, "/") != strings.Count(u.EscapedPath(), "/"): // "%2f"
		return false
	case strings.ContainsAny(p, `\;%?#`): // "%" was encoded twice
		return false
	}
	return utf8.ValidString(p) && !strings.ContainsFunc(p, func(r rune) bool { return r < ' ' || r == 0x7f })
}

// below returns the path of u without root, decoded and encoded.
func below(root string, u *url.URL) (decoded, encoded string) {
	decoded, encoded = u.Path, u.EscapedPath()
	escapedRoot := (&url.URL{Path: root}).EscapedPath()
	if decoded != root && !strings.HasPrefix(decoded, root+"/") || !strings.HasPrefix(encoded, escapedRoot) {
		return decoded, encoded
	}
	return "/" + strings.TrimPrefix(decoded[len(root):], "/"), "/" + strings.TrimPrefix(encoded[len(escapedRoot):], "/")
}
