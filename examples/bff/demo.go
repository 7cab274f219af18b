package main

import (
	"io"
	"time"

	"github.com/fincodeauth/fincodeauth/fincodetest"
)

// demoLifetime is short, so that a person can watch the token change.
const demoLifetime = time.Minute

// startDemo starts a FinCode in this process if opts names none, and says who can
// log in there. stop ends it.
func startDemo(opts options, out io.Writer) (_ options, stop func()) {
	if opts.baseURL != "" {
		return opts, func() {}
	}
	srv := fincodetest.NewServer(fincodetest.Config{AccessLifetime: demoLifetime})
	opts.baseURL = srv.URL
	opts.poll = 2 * time.Second
	say(out, "Nothing is real here: a FinCode for tests runs in this process, and its tokens last %v.", demoLifetime)
	say(out, "E-mail:   %s", fincodetest.Email)
	say(out, "Password: %s", fincodetest.Password)
	return opts, srv.Close
}
