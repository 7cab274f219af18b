package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/fincodeauth/fincodeauth"
)

const (
	idleLimit  = 15 * time.Minute // without a page or a call of the user's
	loginLimit = 12 * time.Hour   // then everybody must log in again
)

// A visitor is what the cookie says: who logged in, and with which login.
type visitor struct {
	Email string
	Login string    // names the login in the store
	Since time.Time // of the login
	Seen  time.Time // the last thing that the user did; a page that polls does not count
}

// Why a request is nobody's. The first means that nobody logged in with this browser.
var (
	errNoCookie = errors.New("no cookie")
	errIdle     = errors.New("the cookie is too old")
	errReplaced = errors.New("the cookie is from an earlier login")
)

// userKey returns the key of the user's session: each user has one. Keys appear in
// logs, so it is a hash of the e-mail address. If your users have IDs, use those.
//
// The address counts as it was typed. If it were in lower case here and FinCode
// told Ada@ and ada@ apart, two users would share one session.
func userKey(email string) string {
	sum := sha256.Sum256([]byte(email))
	return "user-" + hex.EncodeToString(sum[:16])
}

// identify returns the visitor who sent the request, and a context for calls to
// FinCode as that visitor. With errIdle it returns these, too.
func (s *server) identify(r *http.Request) (visitor, context.Context, error) {
	v, err := s.cookies.read(r)
	if err != nil {
		return visitor{}, nil, err
	}
	key := userKey(v.Email)
	login, err := s.logins.of(r.Context(), key)
	if err != nil {
		return visitor{}, nil, err
	}
	if login.id != v.Login {
		return visitor{}, nil, errReplaced
	}
	if login.over {
		return visitor{}, nil, s.whyOver(r.Context(), key)
	}
	ctx := fincodeauth.WithSession(r.Context(), key)
	if now := time.Now(); now.Sub(v.Seen) > idleLimit || now.Sub(v.Since) > loginLimit {
		return v, ctx, errIdle
	}
	return v, ctx, nil
}

// whyOver returns why the session under key has ended. Only the package knows which
// Record.Ended is a breach.
func (s *server) whyOver(ctx context.Context, key string) error {
	status, err := s.sessions.Status(ctx, key)
	switch {
	case err != nil:
		return err
	case !status.Exists:
		return fincodeauth.ErrNotFound
	}
	return &fincodeauth.SessionError{Key: key, Reused: status.Reused, Interrupted: status.Interrupted, Err: errors.New(status.Ended)}
}

// logins tells which login of a user is the current one. It asks the store each
// time, so a logout or a new login anywhere ends all earlier cookies at once and
// for good. It is given the store without the key: it needs no token.
type logins struct{ store fincodeauth.Store }

// A login is the one that began the session in the store.
type login struct {
	id   string // random, and different for each login; "": there is none
	over bool   // the session has ended
}

// of returns the user's current login. Record.Version says which it is.
func (l logins) of(ctx context.Context, key string) (login, error) {
	ctx, cancel := context.WithTimeout(ctx, storePatience)
	defer cancel()
	rec, err := l.store.Load(ctx, key)
	if errors.Is(err, fincodeauth.ErrNotFound) {
		return login{}, nil
	}
	if err != nil {
		return login{}, err
	}
	id, _, _ := strings.Cut(rec.Version, ".")
	return login{id: id, over: rec.Ended != ""}, nil
}
