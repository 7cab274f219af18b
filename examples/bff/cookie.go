package main

import (
	"net/http"

	"github.com/gorilla/securecookie"
)

// cookies seals visitors into cookies: encrypted and authenticated, so that a
// browser can neither read nor change them.
type cookies struct {
	name   string
	secure bool
	codecs []securecookie.Codec
}

// newCookies returns cookies for https, or for plain http on this machine.
//
// With the prefix __Host-, browsers insist on Secure, on the path / and on no
// Domain, so no other host of the domain can set the cookie. On plain http neither
// the prefix nor Secure is used: not every browser accepts them on localhost.
func newCookies(ring keyring, secure bool) cookies {
	c := cookies{name: "bff-session", secure: secure}
	if secure {
		c.name = "__Host-bff-session"
	}
	for _, codec := range securecookie.CodecsFromPairs(ring.forCookies()...) {
		if codec, ok := codec.(*securecookie.SecureCookie); ok {
			codec.SetSerializer(securecookie.JSONEncoder{}).MaxAge(0) // identify checks the age
		}
		c.codecs = append(c.codecs, codec)
	}
	return c
}

// read returns what the request's cookie says. A cookie that was changed counts as
// none. An authentic one may still be old, or from an earlier login.
func (c cookies) read(r *http.Request) (visitor, error) {
	cookie, err := r.Cookie(c.name)
	if err != nil {
		return visitor{}, errNoCookie
	}
	var v visitor
	if err := securecookie.DecodeMulti(c.name, cookie.Value, &v, c.codecs...); err != nil {
		return visitor{}, errNoCookie
	}
	return v, nil
}

// write gives the browser a cookie that ends with the browser's session. The
// server checks its age by itself.
func (c cookies) write(w http.ResponseWriter, v visitor) error {
	value, err := securecookie.EncodeMulti(c.name, v, c.codecs...)
	if err != nil {
		return err
	}
	http.SetCookie(w, c.cookie(value, 0))
	return nil
}

// clear removes the cookie from the browser, also one that this answer would set.
func (c cookies) clear(w http.ResponseWriter) {
	w.Header().Del("Set-Cookie")
	http.SetCookie(w, c.cookie("", -1))
}

func (c cookies) cookie(value string, maxAge int) *http.Cookie {
	return &http.Cookie{
		Name:     c.name,
		Value:    value,
		Path:     "/",
		MaxAge:   maxAge,
		Secure:   c.secure,
		HttpOnly: true,
		// Not Strict: a user who comes from a link in an e-mail is still logged in.
		SameSite: http.SameSiteLaxMode,
	}
}
