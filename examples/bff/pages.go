package main

import (
	"bytes"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"math"
	"net/http"
)

//go:embed web
var web embed.FS

// templates are parsed once; nothing changes them.
var templates = template.Must(template.ParseFS(web, "web/*.html"))

// loginPage is what login.html shows.
type loginPage struct {
	Email  string // what the user typed before
	Error  string
	Notice string
}

// IdleMinutes is for the page's small print.
func (loginPage) IdleMinutes() int { return int(idleLimit.Minutes()) }

// homePage is what home.html shows.
type homePage struct {
	Email string
	Poll  int64 // milliseconds between two questions for news
	account
}

// Clock returns the time left as the script of the page writes it.
func (a account) Clock() string {
	switch {
	case a.Expires.IsZero():
		return "–"
	case a.Left < 90:
		return fmt.Sprintf("%.0f s", math.Ceil(a.Left))
	}
	return fmt.Sprintf("%.0f min", math.Round(a.Left/60))
}

// home shows what FinCode knows of the user.
func (s *server) home(w http.ResponseWriter, r *http.Request) {
	v, ctx, err := s.touch(w, r)
	if errors.Is(err, errNoCookie) {
		http.Redirect(w, r, "/login", http.StatusSeeOther)
		return
	}
	var a account
	if err == nil {
		a, err = s.account(ctx)
	}
	if err != nil {
		s.failPage(w, r, err)
		return
	}
	s.render(w, http.StatusOK, "home.html", homePage{Email: v.Email, Poll: s.opts.poll.Milliseconds(), account: a})
}

// news answers the script of the page. It is not something that the user did, so
// it does not keep the login from growing too old.
func (s *server) news(w http.ResponseWriter, r *http.Request) {
	_, ctx, err := s.identify(r)
	var a account
	if err == nil {
		a, err = s.account(ctx)
	}
	if err != nil {
		s.failJSON(w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, a)
}

// static serves the style and the script. Nothing in them is secret.
func (s *server) static(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-cache")
	http.ServeFileFS(w, r, web, "web/static/"+r.PathValue("name"))
}

// render executes the template before it sends anything, so that a mistake in a
// template is a 500 and not half a page.
func (s *server) render(w http.ResponseWriter, status int, name string, data any) {
	var page bytes.Buffer
	if err := templates.ExecuteTemplate(&page, name, data); err != nil {
		s.logger.Error("a page failed", "page", name, "error", err)
		http.Error(w, "This page has a mistake.", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = page.WriteTo(w) // an error means that the browser has left
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // an error means that the browser has left
}
