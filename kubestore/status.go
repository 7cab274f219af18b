package kubestore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"
	"unicode"
)

// A StatusError is an answer of the API server, or of a proxy before it, that is not a
// success. Find it with errors.As.
type StatusError struct {
	Code    int    // of HTTP, such as 403
	Reason  string // such as "Forbidden"; "": the answer has none
	Message string // what the API server says, shortened, without anything that may be a record

	kind, name  string        // of what the answer is about, such as "secrets"
	terminating bool          // because the namespace is being removed
	next        string        // with 410: a token that goes on with the list
	wait        time.Duration // before the next try; -1: unknown
}

// Error describes the answer.
func (e *StatusError) Error() string {
	text := fmt.Sprintf("the API server answers %d", e.Code)
	for _, more := range []string{e.Reason, e.Message} {
		if more != "" {
			text += ": " + more
		}
	}
	return text
}

// errNotKubernetes is part of the error if somebody else than an API server has answered.
var errNotKubernetes = errors.New("this is not what an API server of Kubernetes answers: is Server its address, and is a proxy before it?")

// statusOf returns the error for an answer that is not a success. A Status is how the API
// server says what is wrong.
func statusOf(resp *http.Response, body []byte) error {
	var status struct {
		Kind     string
		Reason   string
		Message  string
		Metadata struct{ Continue string }
		Details  struct {
			Kind, Name string
			Causes     []struct{ Reason string }
		}
	}
	e := &StatusError{Code: resp.StatusCode, wait: retryAfter(resp)}
	if json.Unmarshal(body, &status) != nil || status.Kind != "Status" {
		return notStatus(e)
	}
	e.Reason = quotable(status.Reason)
	e.Message = quotable(status.Message)
	e.kind, e.name, e.next = status.Details.Kind, status.Details.Name, status.Metadata.Continue
	for _, cause := range status.Details.Causes {
		e.terminating = e.terminating || cause.Reason == "NamespaceTerminating"
	}
	return e
}

// notStatus returns the error for an answer that is no Status.
func notStatus(e *StatusError) error {
	switch {
	case e.Code >= 300 && e.Code <= 399:
		return fmt.Errorf("%w: it is a redirect, which is not followed, because the credentials would go there: set Server to the address of the API server itself", e)
	case e.Code == http.StatusTooManyRequests, e.Code >= 500:
		return e
	}
	return fmt.Errorf("%w: %w", e, errNotKubernetes)
}

const (
	maxMessage = 300 // bytes of a message that are quoted
	invalid    = "Invalid value: "
)

// long matches what may be a token or a record in base64. The name of a Secret is shorter,
// if its prefix is not very long.
var long = regexp.MustCompile(`[-A-Za-z0-9+/=_.]{100,}`)

// quotable returns a text of the server without control characters, shortened. A message
// about a value that is invalid may quote the whole Secret, so it ends there.
func quotable(text string) string {
	text, _, cut := strings.Cut(text, invalid)
	if cut {
		text += invalid + "..."
	}
	text = long.ReplaceAllString(text, "...")
	text = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
	if len(text) > maxMessage {
		text = strings.ToValidUTF8(text[:maxMessage], "") + "..."
	}
	return text
}

// lacks reports whether err is the API server's answer that there is no Secret of that
// name. A 404 may also be about the namespace, or come from a proxy.
func lacks(err error, name string) bool {
	e, ok := errors.AsType[*StatusError](err)
	return ok && e.Code == http.StatusNotFound && e.kind == "secrets" && e.name == name
}

// explain adds to err that the context has ended, or what the user can do.
func explain(ctx context.Context, err error) error {
	if cause := ctx.Err(); cause != nil {
		if errors.Is(err, cause) {
			return err
		}
		return fmt.Errorf("%w: %w", cause, err)
	}
	e, ok := errors.AsType[*StatusError](err)
	if !ok {
		return err
	}
	if advice := e.advice(); advice != "" {
		return fmt.Errorf("%s: %w", advice, err)
	}
	return err
}

// advice says what the user can do, "" if only the message does.
func (e *StatusError) advice() string {
	has := func(part string) bool { return strings.Contains(e.Message, part) }
	switch {
	case e.Code == http.StatusUnauthorized:
		return "the API server does not accept the credentials: have they expired, or are they of another cluster?"
	case has("exceeded quota"):
		return "a ResourceQuota of the namespace does not allow another Secret: raise it"
	case e.terminating:
		return "the namespace is being removed: wait until it is gone, and make it again"
	case e.Code == http.StatusForbidden && has(`" cannot `):
		return "the credentials lack a right: apply deploy/rbac.yaml of kubestore, and use its service account"
	case e.Code == http.StatusNotFound && e.kind == "namespaces":
		return "the namespace is missing: make it, with deploy/rbac.yaml of kubestore"
	case e.Code == http.StatusNotFound:
		return "the API server does not know the path: is the path of Server right?"
	case e.Code == http.StatusRequestEntityTooLarge, has("request is too large"):
		return "the record is too large for etcd or for the API server: use another store"
	case e.Code == http.StatusTooManyRequests:
		return "the API server is too busy: send fewer requests, or see API Priority and Fairness"
	case e.Code >= 500:
		return "the API server or its etcd is not ready, and may have done it or not: it is safe to try again"
	}
	return ""
}
