package kubestore

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

const (
	jsonType  = "application/json"
	patchType = "application/json-patch+json"

	// An answer without data holds no tokens. A server that does not know these forms
	// answers with the whole object.
	metadataType     = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1," + jsonType
	metadataListType = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1," + jsonType

	maxAnswer = 16 << 20         // bytes; a page of sessions with long keys has 2 MB
	maxTries  = 10               // of a request that is answered 429
	maxWait   = 30 * time.Second // before one of them

	maxReads   = 4                    // of a GET whose connection breaks
	firstPause = 5 * time.Millisecond // doubled before each of them
)

// asManager names who owns the fields that a Save writes. Otherwise it would be the
// beginning of the User-Agent.
var asManager = url.Values{"fieldManager": {manager}}

// An api is the Secrets of a namespace.
type api struct {
	client  *http.Client
	secrets *url.URL
}

// A request is for one Secret, or for all of them if name is "".
type request struct {
	method, name string
	query        url.Values
	contentType  string
	body         []byte
}

// accept returns the form in which the answer should be. Only a Load needs the data.
func (r request) accept() string {
	switch {
	case r.method == http.MethodGet && r.name != "":
		return jsonType
	case r.method == http.MethodGet:
		return metadataListType
	}
	return metadataType
}

// call sends a request and decodes the answer. It sends it again only if that is safe.
func (a api) call(ctx context.Context, r request, answer any) error {
	for try := 1; ; try++ {
		err := a.once(ctx, r, answer)
		pause, again := r.pause(err, try)
		if !again {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause):
		}
	}
}

// pause returns how long to wait before r is sent again, and whether it may be, after it
// was sent try times.
func (r request) pause(err error, try int) (pause time.Duration, again bool) {
	if busy, ok := errors.AsType[*StatusError](err); ok { // with 429, nothing was done
		return busy.wait, busy.Code == http.StatusTooManyRequests && busy.wait >= 0 && busy.wait <= maxWait && try < maxTries
	}
	// All requests of a process may share one connection of HTTP/2. If it breaks,
	// net/http does not send them again. A GET changes nothing.
	_, broke := errors.AsType[*brokenError](err)
	return firstPause << try, broke && r.method == http.MethodGet && try < maxReads
}

// A brokenError means that there was no answer, or not all of it.
type brokenError struct{ error }

func (e *brokenError) Unwrap() error { return e.error }

// once sends a request once.
func (a api) once(ctx context.Context, r request, answer any) error {
	at := *a.secrets
	if r.name != "" {
		at = *at.JoinPath(r.name)
	}
	at.RawQuery = r.query.Encode()
	req, err := http.NewRequestWithContext(ctx, r.method, at.String(), bytes.NewReader(r.body))
	if err != nil {
		return err
	}
	req.Header.Set("Accept", r.accept())
	if r.contentType != "" {
		req.Header.Set("Content-Type", r.contentType)
	}
	resp, err := a.client.Do(req)
	if err != nil {
		return &brokenError{err}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return &brokenError{fmt.Errorf("the answer has no end: %w", err)}
	case len(body) > maxAnswer:
		return fmt.Errorf("the answer has more than %d bytes: %w", maxAnswer, errNotKubernetes)
	case resp.StatusCode < 200 || resp.StatusCode > 299:
		return statusOf(resp, body)
	case json.Unmarshal(body, answer) != nil: // its error may quote the body
		return errNotKubernetes
	}
	return nil
}

// retryAfter returns how long to wait, -1 if the answer does not say that in seconds.
func retryAfter(resp *http.Response) time.Duration {
	seconds, err := strconv.ParseUint(resp.Header.Get("Retry-After"), 10, 16)
	if err != nil {
		return -1
	}
	return time.Duration(seconds) * time.Second
}
