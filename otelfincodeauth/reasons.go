package otelfincodeauth

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"

	"github.com/fincodeauth/fincodeauth"
)

// Values of error.type, besides the HTTP status of FinCode's answer and "_OTHER". There
// are no others, so that the number of time series has a bound.
const (
	ErrorTimeout    = "timeout"        // FinCode, or Config.Credentials, did not answer in time
	ErrorConnection = "connection"     // there was no connection to FinCode, or it broke
	ErrorAnswer     = "invalid_answer" // FinCode answered 200, but without a token that can be used
	ErrorStore      = "store"          // the store failed, or was too slow
)

// EndReasonKey is the attribute of fincode.session.ends that says why a session needs a
// login. fincode.store.save.failures has it if what was not saved is the end of a session.
const EndReasonKey = attribute.Key("fincode.session.end.reason")

// Values of EndReasonKey, besides "_OTHER".
const (
	EndBreach       = "breach"           // somebody else used the refresh token: SessionError.Reused without Interrupted
	EndInterrupted  = "interrupted"      // FinCode refused the token after an attempt whose outcome is unknown
	EndLoginRefused = "login_refused"    // FinCode refused the token, and then the login with Config.Credentials
	EndRejected     = "rejected"         // FinCode refused the token
	EndNoToken      = "no_refresh_token" // there was none
)

func endReasons() []string {
	return []string{EndBreach, EndInterrupted, EndLoginRefused, EndRejected, EndNoToken}
}

// The beginnings of the errors of calls to FinCode that have no answer. fincodeauth has no
// type for them; the tests cause each of them.
var ofFinCode = [...]string{"refresh-token: ", "logging in again: ", "logout: "}

// errorType returns error.type of an event whose Err is set.
func errorType(e fincodeauth.Event) attribute.KeyValue {
	if answer, ok := errors.AsType[*fincodeauth.EndpointError](e.Err); ok {
		return statusType(answer)
	}
	if errors.Is(e.Err, fincodeauth.ErrStore) {
		return semconv.ErrorTypeKey.String(ErrorStore)
	}
	text := e.Err.Error()
	for _, beginning := range ofFinCode {
		if rest, ok := strings.CutPrefix(text, beginning); ok {
			return callType(e.Err, strings.TrimPrefix(rest, "login: "))
		}
	}
	return semconv.ErrorTypeOther
}

// statusType returns the status of an answer. A failure that came as HTTP 200 has the
// status of its code (FINCODE.md, Envelope).
func statusType(answer *fincodeauth.EndpointError) attribute.KeyValue {
	status := answer.Status
	if status >= 200 && status < 300 {
		switch answer.Code {
		case "AUTH_REQUIRED":
			status = http.StatusUnauthorized
		case "FORBIDDEN":
			status = http.StatusForbidden
		case "NOT_FOUND":
			status = http.StatusNotFound
		case "VALIDATION_ERROR":
			status = http.StatusUnprocessableEntity
		case "RATE_LIMIT_EXCEEDED":
			status = http.StatusTooManyRequests
		default:
			status = http.StatusInternalServerError
		}
	}
	if status < 100 || status > 599 { // a gateway may send any number
		return semconv.ErrorTypeOther
	}
	return semconv.ErrorTypeKey.String(strconv.Itoa(status))
}

// callType says what became of a call to FinCode that has no answer. text is that of err,
// without the name of the call.
func callType(err error, text string) attribute.KeyValue {
	network, isNetwork := errors.AsType[net.Error](err)
	switch {
	case isNetwork && network.Timeout(): // such as context.DeadlineExceeded
		return semconv.ErrorTypeKey.String(ErrorTimeout)
	case isNetwork, isBroken(err):
		return semconv.ErrorTypeKey.String(ErrorConnection)
	case strings.HasPrefix(text, "the answer "), strings.HasPrefix(text, "the access token "):
		return semconv.ErrorTypeKey.String(ErrorAnswer)
	}
	return semconv.ErrorTypeOther
}

// isBroken reports whether err is one of a connection, among those that are no net.Error.
func isBroken(err error) bool {
	_, isCertificate := errors.AsType[*tls.CertificateVerificationError](err)
	_, isNoTLS := errors.AsType[tls.RecordHeaderError](err)
	return isCertificate || isNoTLS || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// endReason returns why a session has ended. err is that of the event Ended.
func endReason(err error) string {
	end, ok := errors.AsType[*fincodeauth.SessionError](err)
	if !ok {
		return semconv.ErrorTypeOther.Value.AsString()
	}
	return reasonOf(end.Err, end.Reused, end.Interrupted)
}

func reasonOf(err error, reused, interrupted bool) string {
	answer, _ := errors.AsType[*fincodeauth.EndpointError](err)
	switch {
	case reused && !interrupted:
		return EndBreach
	case errors.Is(err, fincodeauth.ErrBadCredentials), errors.Is(err, fincodeauth.ErrAccountLocked), errors.Is(err, fincodeauth.ErrUserNotFound):
		return EndLoginRefused
	case interrupted:
		return EndInterrupted
	case answer == nil:
		return EndNoToken
	}
	return EndRejected
}

// The texts with which the reason of an end begins. They are those of Record.Ended, which
// do not change.
const (
	textReused           = "refresh token reused"
	textRejected         = "refresh token rejected"
	textAfterInterrupted = " after an interruption"
)

// unsavedEndReason returns why a session has ended whose end is not saved; "": what is not
// saved is not the end of a session. err is that of the event SaveFailed.
func unsavedEndReason(err error) string {
	if err == nil {
		return ""
	}
	text := err.Error()
	for _, beginning := range []string{textReused, textRejected} {
		if rest, ok := strings.CutPrefix(text, beginning); ok {
			return reasonOf(err, beginning == textReused, strings.HasPrefix(rest, textAfterInterrupted))
		}
	}
	switch wrapper := err.(type) {
	case interface{ Unwrap() error }:
		return unsavedEndReason(wrapper.Unwrap())
	case interface{ Unwrap() []error }:
		for _, err := range wrapper.Unwrap() {
			if reason := unsavedEndReason(err); reason != "" {
				return reason
			}
		}
	}
	return ""
}
