// Package failure turns an error into what a person needs: one line that says what
// happened and what to do, and the status with which the command exits.
package failure

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"strings"
	"syscall"
	"unicode"

	"github.com/fincodeauth/fincodeauth"
)

// A Status is the status with which the command exits. docs/command.md lists them.
type Status int

const (
	Other        Status = 1   // anything that has no status of its own
	Usage        Status = 2   // the command line, the environment or the configuration file is wrong
	LoginNeeded  Status = 3   // there is no session, or it has ended
	LoginRefused Status = 4   // FinCode refused the login
	Local        Status = 5   // the store, its key or a local file failed
	Unreachable  Status = 6   // FinCode cannot be reached, or answered with an error
	HTTP         Status = 22  // call: the answer has an HTTP status of 400 or more, as curl's --fail
	Interrupted  Status = 130 // somebody pressed Ctrl-C
	NoReader     Status = 141 // whoever read the output has left, as head does; nothing is printed
)

// An Error is an error with its status, and with what to do.
type Error struct {
	Status Status
	Do     string // what to do, without a period; "": Err says it, or nothing helps
	Err    error  // what happened
}

// Error says what happened and what to do.
func (e *Error) Error() string {
	if e.Do == "" {
		return e.Err.Error()
	}
	return e.Err.Error() + ": " + e.Do
}

// Unwrap returns Err.
func (e *Error) Unwrap() error { return e.Err }

// New returns an Error whose Err is made from format and args, as fmt.Errorf does.
func New(status Status, format string, args ...any) *Error {
	return &Error{Status: status, Err: fmt.Errorf(format, args...)}
}

// Wrap returns err as an Error with the status; nil if err is nil. It keeps the status of
// an Error that is in err already.
func Wrap(status Status, err error) error {
	if _, ok := errors.AsType[*Error](err); ok || err == nil {
		return err
	}
	return &Error{Status: status, Err: err}
}

// Of returns what err means, for the session of a profile. Of joined errors, the first one
// decides. err must not be nil.
func Of(err error, profile string) *Error {
	if first, rest := split(err); rest != nil {
		e := *Of(first, profile)
		e.Err = fmt.Errorf("%w; also: %w", e.Err, rest)
		return &e
	}
	if e, ok := errors.AsType[*Error](err); ok {
		known := &Error{Status: e.Status, Do: e.Do, Err: whole(err, e)}
		if disk := ofDisk(err, profile); disk != nil && e.Do == "" {
			known.Do = disk.Do
		}
		return known
	}
	for _, classify := range []func(error, string) *Error{ofInterrupt, ofOutput, ofSession, ofLogin, ofStore, ofDisk, ofFinCode, ofNetwork} {
		if e := classify(err, profile); e != nil {
			return e
		}
	}
	return &Error{Status: Other, Err: err}
}

// OfCall is Of for the error of a call to FinCode: what has no meaning of its own is an
// answer that is not FinCode's.
func OfCall(err error, profile string) *Error {
	e := Of(err, profile)
	if e.Status == Other {
		return &Error{Unreachable, "check the URL or the tenant: it may not be FinCode's", e.Err}
	}
	return e
}

// split returns the first of joined errors, and the others; nil: err is not from errors.Join.
func split(err error) (first, rest error) {
	list, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return err, nil
	}
	all := list.Unwrap()
	if errors.Join(all...).Error() != err.Error() { // fmt.Errorf with several %w
		return err, nil
	}
	return all[0], errors.Join(all[1:]...)
}

// whole returns err without what its Error says at its end already.
func whole(err error, e *Error) error {
	if e.Do == "" {
		return err
	}
	return errors.New(strings.TrimSuffix(err.Error(), ": "+e.Do))
}

// Line returns e as one line. It has no control characters: a terminal would obey those
// that an answer from the network brought along.
func (e *Error) Line() string {
	var fields []string
	for field := range strings.FieldsFuncSeq(e.Error(), func(r rune) bool { return r == '\n' || r == '\r' }) {
		fields = append(fields, strings.TrimSpace(Plain(field)))
	}
	return strings.ReplaceAll(strings.Join(fields, "; "), "fincodeauth: ", "")
}

// Plain returns a text of somebody else with a space for each character that controls a
// terminal, or the order in which it shows the others. What is not UTF-8 becomes U+FFFD.
func Plain(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) {
			return ' '
		}
		return r
	}, text)
}

func ofInterrupt(err error, _ string) *Error {
	if errors.Is(err, context.Canceled) {
		return &Error{Interrupted, "", errors.New("interrupted")}
	}
	return nil
}

// ofOutput recognizes a pipe that nobody reads. The operating system gives the same error
// for a connection, but not with a path.
func ofOutput(err error, _ string) *Error {
	if path, ok := errors.AsType[*os.PathError](err); ok && path.Op == "write" && errors.Is(path, syscall.EPIPE) {
		return &Error{NoReader, "", err}
	}
	return nil
}

func ofSession(err error, profile string) *Error {
	end, ok := errors.AsType[*fincodeauth.SessionError](err)
	if !ok {
		return nil
	}
	login := InProfile("fincode login", profile)
	switch {
	case errors.Is(end, fincodeauth.ErrNotFound):
		return &Error{LoginNeeded, "log in with: " + login, fmt.Errorf("profile %s has no session", profile)}
	case end.Reused && !end.Interrupted:
		return &Error{LoginNeeded, "look first with: " + InProfile("fincode why", profile) + "; then log in with: " + login,
			fmt.Errorf("POSSIBLE BREACH: the session of profile %s has ended, because somebody else used its refresh token", profile)}
	case end.Reused:
		return &Error{LoginNeeded, "log in with: " + login,
			fmt.Errorf("the session of profile %s was lost, because a process or a connection died during a refresh", profile)}
	}
	return &Error{LoginNeeded, "log in with: " + login, fmt.Errorf("the session of profile %s has ended: %w", profile, end.Err)}
}

func ofLogin(err error, _ string) *Error {
	switch {
	case errors.Is(err, fincodeauth.ErrBadCredentials):
		return &Error{LoginRefused, "try again, but not often: failed logins lock the account", fincodeauth.ErrBadCredentials}
	case errors.Is(err, fincodeauth.ErrAccountLocked):
		return &Error{LoginRefused, "ask FinCode or an administrator to unlock it", errors.New("the account is locked after failed logins")}
	case errors.Is(err, fincodeauth.ErrUserNotFound):
		return &Error{LoginRefused, "check the email address and the tenant", fincodeauth.ErrUserNotFound}
	}
	return nil
}

func ofStore(err error, profile string) *Error {
	if !errors.Is(err, fincodeauth.ErrStore) {
		return nil
	}
	if e := ofDisk(err, profile); e != nil {
		return e
	}
	text := strings.ReplaceAll(err.Error(), "call Sessions.Forget", "run "+InProfile("fincode forget", profile))
	text = strings.ReplaceAll(text, "add the key that it was saved with", "set FINCODE_KEY to the key that it was saved with (unset it, if that is the key that login made)")
	text = strings.ReplaceAll(text, "run Migrate or apply Schema", "run "+InProfile("fincode login", profile)+", which makes it")
	return &Error{Local, "", errors.New(text)}
}

func ofDisk(err error, _ string) *Error {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return &Error{Local, "make room, and try again", err}
	case errors.Is(err, os.ErrPermission), errors.Is(err, syscall.EROFS):
		return &Error{Local, "check who owns the folder, and its mode", err}
	}
	if _, ok := errors.AsType[*os.PathError](err); ok {
		return &Error{Local, "", err}
	}
	return nil
}

func ofFinCode(err error, _ string) *Error {
	e, ok := errors.AsType[*fincodeauth.EndpointError](err)
	if !ok {
		return nil
	}
	if e.Status == 404 {
		return &Error{Unreachable, "check the URL or the tenant: it may not be FinCode's", e}
	}
	if e.RetryAfter > 0 {
		return &Error{Unreachable, fmt.Sprintf("try again in %v", e.RetryAfter), e}
	}
	return &Error{Unreachable, "try again later", e}
}

func ofNetwork(err error, _ string) *Error {
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		do := "check the network, and try again"
		if dns.IsNotFound {
			do = "check the tenant, or the URL"
		}
		return &Error{Unreachable, do, fmt.Errorf("the host %s was not found", dns.Name)}
	}
	if cert, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return &Error{Unreachable, "check the URL; a company's own root certificate belongs into the system's, or in SSL_CERT_FILE", cert}
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return &Error{Unreachable, "check the URL: this server does not speak https there", errors.New("the connection is not encrypted")}
	}
	if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() || errors.Is(err, os.ErrDeadlineExceeded) {
		return &Error{Unreachable, "try again later", inner(err)}
	}
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return &Error{Unreachable, "check the URL and the network, and try again", op}
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return &Error{Unreachable, "try again later", fmt.Errorf("the connection ended without a whole answer: %w", inner(err))}
	}
	if u, ok := errors.AsType[*url.Error](err); ok {
		return &Error{Unreachable, "try again later", u.Err}
	}
	return nil
}

// inner returns err without the URL that net/http puts around it.
func inner(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		return u.Err
	}
	return err
}

// InProfile returns command with the flag that names the profile, unless that is the default
// or has no name.
func InProfile(command, profile string) string {
	if profile == "" || profile == "default" {
		return command
	}
	return command + " --profile " + profile
}
