package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/fincodeauth/fincodeauth"
)

// ProblemHeader is in each answer that is the proxy's own and not FinCode's. Its value
// is the code of the error, such as LOGIN_REQUIRED.
const ProblemHeader = "Fincode-Proxy"

// statusClientGone is what logs and metrics say if nobody waited for the answer. It is
// nginx's.
const statusClientGone = 499

// retryAfter is how long a client should wait before it tries again.
const retryAfter = 5 * time.Second

// A problem is an answer of the proxy itself. It holds nothing of the request and no
// secret.
type problem struct {
	status     int
	code       string
	message    string
	challenge  string        // of WWW-Authenticate; "": none
	retryAfter time.Duration // 0: none
}

var (
	keyRequired = problem{
		status:  http.StatusUnauthorized,
		code:    "PROXY_KEY_REQUIRED",
		message: "the proxy's key is missing or wrong: send it as Authorization: Bearer KEY",
		// There is no challenge for Basic: a browser would then send the key by itself.
		challenge: `Bearer realm="fincode proxy"`,
	}
	notFound      = problem{status: http.StatusNotFound, code: "NOT_FOUND", message: "the proxy has no such path"}
	loginRequired = problem{
		status:    http.StatusUnauthorized,
		code:      "LOGIN_REQUIRED",
		message:   "the proxy's session needs a login: run fincode login where the proxy runs",
		challenge: `FincodeLogin realm="fincode login"`,
	}
	possibleBreach = problem{
		status:    http.StatusUnauthorized,
		code:      "POSSIBLE_BREACH",
		message:   "the proxy's session has ended, because somebody else used its refresh token: run fincode why, and then fincode login, where the proxy runs",
		challenge: `FincodeLogin realm="fincode login"`,
	}
	storeFailed = problem{
		status:     http.StatusServiceUnavailable,
		code:       "STORE_FAILED",
		message:    "the store of the proxy's session does not answer: try again later; the proxy's log says more",
		retryAfter: retryAfter,
	}
	stopping = problem{
		status:     http.StatusServiceUnavailable,
		code:       "PROXY_STOPPING",
		message:    "the proxy is stopping: try again",
		retryAfter: retryAfter,
	}
	tooSlow = problem{
		status:  http.StatusGatewayTimeout,
		code:    "FINCODE_TIMEOUT",
		message: "FinCode did not answer in time: look whether it has done what the request asks for, and try again",
	}
	unreachable = problem{
		status:  http.StatusBadGateway,
		code:    "FINCODE_UNREACHABLE",
		message: "FinCode cannot be reached, or the connection broke: look whether it has done what the request asks for, and try again; the proxy's log says more",
	}
	refreshRefused = problem{
		status:  http.StatusBadGateway,
		code:    "FINCODE_REFRESH_FAILED",
		message: "the access token has expired, and FinCode did not refresh it: try again later; the proxy's log says more",
	}
	badBody    = problem{status: http.StatusBadRequest, code: "BAD_REQUEST", message: "the body of the request ended early, or is not valid HTTP"}
	clientGone = problem{status: statusClientGone, code: "CLIENT_GONE", message: "the client did not wait for the answer"}
)

// problemOf returns what the client of a request is told if the request was not
// answered because of err.
func problemOf(ctx context.Context, err error) problem {
	_, unreadable := errors.AsType[*bodyError](err)
	session, ended := errors.AsType[*fincodeauth.SessionError](err)
	refusal, refused := errors.AsType[*fincodeauth.EndpointError](err)
	switch {
	case ctx.Err() != nil:
		return clientGone
	case unreadable:
		return badBody
	case ended && session.Reused && !session.Interrupted:
		return possibleBreach
	case errors.Is(err, fincodeauth.ErrLoginRequired):
		return loginRequired
	case errors.Is(err, fincodeauth.ErrClosed):
		return stopping
	case errors.Is(err, fincodeauth.ErrStore):
		return storeFailed
	case refused:
		p := refreshRefused
		p.retryAfter = refusal.RetryAfter
		return p
	case isTimeout(err):
		return tooSlow
	}
	return unreachable
}

func isTimeout(err error) bool {
	timeout, ok := errors.AsType[net.Error](err)
	return ok && timeout.Timeout() || errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded)
}

// write answers in the form of FinCode's errors (FINCODE.md, Envelope).
func (p problem) write(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	h.Set(ProblemHeader, p.code)
	if p.challenge != "" {
		h.Set("WWW-Authenticate", p.challenge)
	}
	if p.retryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int((p.retryAfter + time.Second - 1).Seconds())))
	}
	w.WriteHeader(p.status)
	type detail struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	_ = json.NewEncoder(w).Encode(struct { // an error means that the client has left
		Success bool   `json:"success"`
		Error   detail `json:"error"`
	}{Error: detail{p.code, p.message}})
}
