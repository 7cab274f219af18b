package fincodeauth

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// Errors to test for with errors.Is.
var (
	// ErrLoginRequired: the session has ended or never began. Only a Login or an
	// Adopt helps. Every SessionError is ErrLoginRequired.
	ErrLoginRequired = errors.New("login required")

	// ErrTokenReused: FinCode said that the refresh token was used before.
	// Treat this as a breach, unless SessionError.Interrupted is set (FINCODE.md,
	// Calls).
	ErrTokenReused = errors.New("refresh token was already used")

	// ErrNotFound: a Store has no record under the key.
	ErrNotFound = errors.New("no session under this key")

	// ErrConflict: the Store's record does not have the version that Save was
	// told to replace.
	ErrConflict = errors.New("record was changed by somebody else")

	// ErrStore: the Store failed or was too slow, or it has a record that cannot be
	// read. Nobody knows whether a login is needed.
	ErrStore = errors.New("the store failed")

	// ErrClosed: Sessions.Close was called before, or during, the call.
	ErrClosed = errors.New("sessions are closed")
)

// Errors of Login, to test for with errors.Is.
var (
	// ErrBadCredentials: wrong email or password (401).
	ErrBadCredentials = errors.New("wrong email or password")

	// ErrAccountLocked: the account is locked after failed logins (403).
	ErrAccountLocked = errors.New("account is locked")

	// ErrUserNotFound: there is no such user (404).
	ErrUserNotFound = errors.New("no such user")
)

// A SessionError says that a session needs a login: it ended, was logged out or
// never began. It is ErrLoginRequired, and ErrTokenReused if Reused.
type SessionError struct {
	Key string // of the session

	// Reused: FinCode said that the refresh token had been used before (403).
	Reused bool

	// Interrupted: an earlier attempt to refresh had an unknown outcome, because
	// a process or a connection died. With Reused, that attempt was most likely
	// the first use of the token, and there is no breach.
	Interrupted bool

	// Err says why. Its chain has ErrNotFound if there is no session under Key. It
	// has FinCode's *EndpointError in the process to which FinCode gave the
	// answer; other processes have its text alone.
	Err error
}

// Error names the session and says why it needs a login.
func (e *SessionError) Error() string {
	text := fmt.Sprintf("fincodeauth: session %q: %v", e.Key, ErrLoginRequired)
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return text
}

// Unwrap returns Err.
func (e *SessionError) Unwrap() error { return e.Err }

// Is reports whether e is target: ErrLoginRequired, or ErrTokenReused if Reused.
func (e *SessionError) Is(target error) bool {
	return target == ErrLoginRequired || e.Reused && target == ErrTokenReused
}

// isBreach reports whether err says that a refresh token was reused, without an
// interruption that explains it.
func isBreach(err error) bool {
	e, ok := errors.AsType[*SessionError](err)
	return ok && e.Reused && !e.Interrupted
}

// Record.Ended begins with one of these texts. Other processes, and other versions of
// this package, read there why the session ended: do not change the texts.
const (
	endedReused      = "refresh token reused"
	endedRejected    = "refresh token rejected"
	endedInterrupted = " after an interruption"
	endedLogout      = "logged out"
)

// refusalOf returns the SessionError of a session that ends because FinCode refused
// its refresh token. The text of its Err becomes Record.Ended.
func refusalOf(key string, refusal error, reused, interrupted bool) *SessionError {
	text := endedRejected
	if reused {
		text = endedReused
	}
	if interrupted {
		text += endedInterrupted
	}
	return &SessionError{Key: key, Reused: reused, Interrupted: interrupted, Err: fmt.Errorf("%s: %w", text, refusal)}
}

// sessionEnded returns the SessionError of a record whose Ended is set.
func sessionEnded(key, ended string) *SessionError {
	if ended == endedLogout {
		return &SessionError{Key: key, Err: ErrNotFound}
	}
	return &SessionError{
		Key:         key,
		Reused:      strings.HasPrefix(ended, endedReused),
		Interrupted: strings.HasPrefix(ended, endedReused+endedInterrupted) || strings.HasPrefix(ended, endedRejected+endedInterrupted),
		Err:         errors.New(ended),
	}
}

// A storeError is an error of the Store. It is ErrStore.
type storeError struct{ error }

func (e storeError) Unwrap() error        { return e.error }
func (e storeError) Is(target error) bool { return target == ErrStore }

// A told is an error for which an event was already sent: RefreshFailed when the call
// failed, or SaveFailed.
type told struct{ error }

func (e told) Unwrap() error { return e.error }

// endOf returns why ctx has ended.
func endOf(ctx context.Context) error {
	err := ctx.Err()
	if cause := context.Cause(ctx); cause != err {
		err = fmt.Errorf("%w: %w", err, cause)
	}
	return err
}
