package main

import (
	"errors"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/fincodeauth/fincodeauth"
)

// A problem is an error as users see it. It says nothing of its cause that could
// help an attacker; that is in the log.
type problem struct {
	Status int    `json:"-"`
	Code   string `json:"error"` // for programs
	Title  string `json:"title"`
	Text   string `json:"text"`
	Advice string `json:"advice,omitempty"` // what else the user should do

	Login bool `json:"-"` // a login helps
	Retry int  `json:"-"` // seconds; 0: trying again does not help
}

// retryAfter is when to try again if nobody knows better.
const retryAfter = 5 * time.Second

// problemOf says what err means for the user. docs/errors.md has the rules.
func problemOf(err error) problem {
	session, _ := errors.AsType[*fincodeauth.SessionError](err)
	switch {
	case session != nil && session.Reused && !session.Interrupted:
		return problem{
			Code:   "breach",
			Title:  "We ended your session to protect you",
			Text:   "Somebody else may have used your session. We were told, and we are looking into it.",
			Advice: "Change your password after you log in, and contact support if you see anything that you did not do.",
			Login:  true, Status: http.StatusUnauthorized,
		}
	case errors.Is(err, errReplaced):
		p := again("replaced", "You logged in again in another browser or on another device, and only the latest login counts.")
		p.Advice = "If that was not you, change your password and contact support."
		return p
	case errors.Is(err, errIdle):
		return again("idle", "You were away for a while, so we locked the page.")
	case errors.Is(err, errNoCookie):
		return again("no_login", "You are not logged in in this browser.")
	case errors.Is(err, fincodeauth.ErrNotFound):
		return again("logged_out", "You logged out, here or in another window.")
	case errors.Is(err, fincodeauth.ErrLoginRequired):
		return again("ended", "Your session has ended. This happens from time to time, and nothing is lost.")
	case errors.Is(err, errRefused):
		return problem{
			Code:   "refused",
			Title:  "You may not do this",
			Text:   "Your account does not have the right to see this. Contact support if you think it should.",
			Status: http.StatusForbidden,
		}
	}
	return problem{
		Code:   "unavailable",
		Title:  "Try again in a moment",
		Text:   "We cannot reach one of our systems. You are still logged in, and nothing is lost.",
		Status: http.StatusServiceUnavailable,
		Retry:  retrySeconds(err),
	}
}

func again(code, text string) problem {
	return problem{Code: code, Title: "You must log in again", Text: text, Login: true, Status: http.StatusUnauthorized}
}

// retrySeconds returns for how long FinCode asked to wait, or else retryAfter.
func retrySeconds(err error) int {
	wait := retryAfter
	if endpoint, ok := errors.AsType[*fincodeauth.EndpointError](err); ok && endpoint.RetryAfter > 0 {
		wait = endpoint.RetryAfter
	}
	return int(math.Ceil(wait.Seconds()))
}

// failPage answers with a page. If a login is needed, the browser forgets the cookie.
func (s *server) failPage(w http.ResponseWriter, r *http.Request, err error) {
	p := s.report(w, r, err)
	if p.Login {
		s.cookies.clear(w)
	}
	s.render(w, p.Status, "problem.html", p)
}

// failJSON answers a script. The cookie stays: the script loads a page, and that
// page says why.
func (s *server) failJSON(w http.ResponseWriter, r *http.Request, err error) {
	p := s.report(w, r, err)
	writeJSON(w, p.Status, p)
}

// report logs what an operator can do something about. Events tell of ended sessions.
func (s *server) report(w http.ResponseWriter, r *http.Request, err error) problem {
	p := problemOf(err)
	if p.Retry > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(p.Retry))
	}
	if !p.Login && r.Context().Err() == nil { // after that, nobody waits for the answer
		s.logger.Error("a request failed", "method", r.Method, "path", r.URL.Path, "status", p.Status, "error", err)
	}
	return p
}
