package page

import (
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"net/http"
	"strings"
)

var (
	//go:embed web/home.html
	homeHTML string
	//go:embed web/login.html
	loginHTML string
	//go:embed web/style.css
	styleCSS string
	//go:embed web/home.js
	homeJS string
	//go:embed web/plots.js
	plotsJS string
	//go:embed web/login.js
	loginJS string
)

// A document is an HTML page with its style and its script, and without anything that
// differs between two requests. So there is nothing in it to escape.
type document struct {
	body   []byte
	policy string // Content-Security-Policy
}

// documents are the pages that there are. The last four are the login form with
// different messages.
type documents struct {
	home, loginForm, loginAgain, wrongKey, tooMany document
}

func newDocuments() documents {
	login := func(message string) document {
		if message != "" {
			message = `<p id="message" class="message" role="alert">` + message + `</p>`
		}
		return newDocument(strings.Replace(loginHTML, "{{message}}", message, 1), loginJS)
	}
	return documents{
		home:       newDocument(homeHTML, plotsJS+homeJS),
		loginForm:  login(""),
		loginAgain: login("Your login to this page has ended: it ends after 12 hours, and when the proxy stops."),
		wrongKey:   login("This is not the proxy's key."),
		tooMany:    login("There are too many wrong keys at once. Wait some seconds, and try again."),
	}
}

// newDocument puts style and script into the HTML, and allows these two alone.
func newDocument(html, script string) document {
	html = strings.Replace(html, "{{style}}", styleCSS, 1)
	html = strings.Replace(html, "{{script}}", script, 1)
	return document{
		body: []byte(html),
		policy: "default-src 'none'; script-src " + hashOf(script) + "; style-src " + hashOf(styleCSS) +
			"; img-src data:; connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
	}
}

// hashOf returns the source that allows an inline script or style in a policy.
func hashOf(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

func (d document) serve(w http.ResponseWriter, status int) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", d.policy)
	w.WriteHeader(status)
	_, _ = w.Write(d.body) // the browser has left
}
