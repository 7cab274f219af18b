package fincodeauth

import "errors"

// Errors to test for with errors.Is.
var (
	// ErrLoginRequired: the session has ended or never began; only a Login, or
	// an Adopt, helps. Every SessionError is one.
	ErrLoginRequired = errors.New("login required")

	// ErrTokenReused: FinCode said that the refresh token was used before.
	// Unless SessionError.Interrupted explains it, treat it as a breach
	// (FINCODE's refresh-token, 403).
	ErrTokenReused = errors.New("refresh token was already used")

	// ErrNotFound: a Store has no record under the key.
	ErrNotFound = errors.New("no session under this key")

	// ErrConflict: a Store's record has another version than the one that Save
	// was to replace.
	ErrConflict = errors.New("record was changed by somebody else")

	// ErrClosed: Sessions.Close was called.
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
