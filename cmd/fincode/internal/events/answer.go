package events

import (
	"bytes"
	"encoding/json"
	"net/http"

	"github.com/fincodeauth/fincodeauth/internal/envelope"
)

// What an answer means must be the same here as in answer.go of fincodeauth, so that the
// journal never says that a token was used where the package knows that it was not.

// An answer is FinCode's answer to a call for tokens.
type answer struct {
	status int
	body   []byte
	whole  bool // body is the complete body, of at most maxBody bytes
}

// A verdict is what an answer means for the refresh token.
type verdict struct {
	outcome Outcome
	status  int    // what the answer stands for, which may come as HTTP 200
	next    string // the refresh token in the answer; "" if there is none
}

// verdict reads the answer to a call.
func (a *answer) verdict(op string) verdict {
	if a.status >= 200 && a.status < 300 {
		return a.success(op)
	}
	v := verdict{status: a.status, outcome: outcomeOf(a.status)}
	if v.outcome == Refused && a.isForeign() {
		v.outcome = Untouched
	}
	return v
}

// success reads an answer with a status of 200 to 299.
func (a *answer) success(op string) verdict {
	lost := verdict{outcome: Unknown, status: a.status}
	if !a.whole {
		return lost
	}
	body := envelope.Object(a.body)
	if body["success"] == false {
		status := envelope.Status(envelope.Text(envelope.Failure(body), "code"))
		return verdict{outcome: outcomeOf(status), status: status}
	}
	if op == Logout {
		return verdict{outcome: Done, status: a.status}
	}
	body = envelope.Tokens(body)
	access := envelope.Text(body, "access_token", "accessToken")
	if !isHeaderWord(access) {
		return lost
	}
	return verdict{outcome: Got, status: a.status, next: envelope.Text(body, "refresh_token", "refreshToken")}
}

// outcomeOf returns what a status means that is not a success.
func outcomeOf(status int) Outcome {
	switch {
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return Refused
	case status == http.StatusRequestTimeout:
		return Unknown
	case status >= 300 && status < 500:
		return Untouched
	}
	return Unknown
}

// isForeign reports whether the answer is the page of a gateway or a firewall.
func (a *answer) isForeign() bool {
	if len(bytes.TrimSpace(a.body)) == 0 {
		return !a.whole
	}
	return !json.Valid(a.body) || !a.whole && envelope.Object(a.body) == nil
}

// isHeaderWord reports whether a header can carry s: otherwise fincodeauth does not use an
// access token.
func isHeaderWord(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f {
			return false
		}
	}
	return s != ""
}
