package main

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/fincodeauth/fincodeauth"
)

// callPatience limits what a login or a logout may take. It is longer than the
// package's own limits for one call to FinCode and one to the store.
const callPatience = 40 * time.Second

// maxForm is the size of the largest login form, in bytes.
const maxForm = 8 << 10

// showLogin shows the form, or the first page to a user who is logged in.
func (s *server) showLogin(w http.ResponseWriter, r *http.Request) {
	if _, _, err := s.identify(r); err == nil {
		http.Redirect(w, r, "/", http.StatusSeeOther)
		return
	}
	page := loginPage{}
	if r.URL.Query().Has("out") {
		page.Notice = "You are logged out."
	}
	s.render(w, http.StatusOK, "login.html", page)
}

// login begins a session, and gives the browser a cookie that names it.
func (s *server) login(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		s.render(w, http.StatusBadRequest, "login.html", loginPage{Error: "We could not read what you sent. Try again."})
		return
	}
	email, password := strings.TrimSpace(r.PostForm.Get("email")), r.PostForm.Get("password")
	if email == "" || password == "" {
		s.render(w, http.StatusUnprocessableEntity, "login.html", loginPage{Email: email, Error: "Enter your e-mail address and your password."})
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), callPatience)
	defer cancel()
	id, err := s.begin(ctx, email, password)
	switch {
	case err == nil:
		now := time.Now()
		if err := s.cookies.write(w, visitor{Email: email, Login: id, Since: now, Seen: now}); err != nil {
			s.failPage(w, r, err)
			return
		}
		http.Redirect(w, r, "/", http.StatusSeeOther)
	case isRefusal(err):
		s.logger.Info("a login was refused", "session", userKey(email), "error", err)
		s.render(w, http.StatusUnauthorized, "login.html", loginPage{Email: email, Error: refusedLogin})
	default:
		s.failPage(w, r, err)
	}
}

// refusedLogin is the same for a wrong password, an unknown user and a locked
// account. Otherwise anybody could find out who is a customer.
const refusedLogin = "We could not log you in. Check your e-mail address and your password. " +
	"After several failed attempts an account is locked: then contact support."

func isRefusal(err error) bool {
	return errors.Is(err, fincodeauth.ErrBadCredentials) ||
		errors.Is(err, fincodeauth.ErrUserNotFound) ||
		errors.Is(err, fincodeauth.ErrAccountLocked)
}

// errNotSaved: FinCode accepted the login, but the store does not have it yet. A
// cookie could not name it.
var errNotSaved = errors.New("the store has not accepted the login")

// begin logs the user in, and returns what names the login in the store.
func (s *server) begin(ctx context.Context, email, password string) (string, error) {
	key := userKey(email)
	before, err := s.logins.of(ctx, key)
	if err != nil {
		return "", err
	}
	err = s.sessions.Login(ctx, key, fincodeauth.Credentials{Email: email, Password: password, PublicKey: s.opts.publicKey})
	if err != nil {
		return "", err
	}
	after, err := s.logins.of(ctx, key)
	if err == nil && (after.id == before.id || after.over) {
		err = errNotSaved
	}
	return after.id, err
}

// logout ends the session here and at FinCode. It accepts a cookie that is too old
// for anything else, because a user who wants to log out should be.
func (s *server) logout(w http.ResponseWriter, r *http.Request) {
	v, ctx, err := s.identify(r)
	if err != nil && problemOf(err).Login && !errors.Is(err, errIdle) { // there is nothing to log out
		s.cookies.clear(w)
		http.Redirect(w, r, "/login?out", http.StatusSeeOther)
		return
	}
	if err != nil && !errors.Is(err, errIdle) {
		s.failPage(w, r, err)
		return
	}
	// The user may close the window now. That must not end the logout half way.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callPatience)
	defer cancel()
	if err := s.sessions.Logout(ctx, userKey(v.Email)); err != nil {
		if now, lookErr := s.logins.of(ctx, userKey(v.Email)); lookErr != nil || now.id == v.Login && !now.over {
			s.failPage(w, r, err) // still logged in, or unknown: the cookie stays, to try again
			return
		}
		s.logger.Warn("FinCode did not confirm a logout", "session", userKey(v.Email), "error", err)
	}
	s.cookies.clear(w)
	http.Redirect(w, r, "/login?out", http.StatusSeeOther)
}
