package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/fincodeauth/fincodeauth/cmd/fincode/internal/failure"
)

// maxReplayed is how many bytes of standard input are kept, so that the call can be sent
// again after a 401.
const maxReplayed = 8 << 20

// A body is what a call sends.
type body struct {
	open  func() (io.ReadCloser, error)
	size  int64 // in bytes; -1: nobody knows
	again bool  // open may be called again, for a replay
}

// setBody gives the request the body that -d says.
func (a *app) setBody(ctx context.Context, req *http.Request, opts callOptions, progress *progress) error {
	if !opts.hasData {
		return nil
	}
	b, err := a.body(ctx, opts.data)
	if err != nil {
		return err
	}
	if b.size == 0 {
		req.Body, req.GetBody = http.NoBody, func() (io.ReadCloser, error) { return http.NoBody, nil }
		return nil
	}
	open := func() (io.ReadCloser, error) {
		r, err := b.open()
		if err != nil {
			return nil, failure.Wrap(failure.Local, err)
		}
		return progress.watch(r, "sending", b.size), nil
	}
	if req.Body, err = open(); err != nil {
		return err
	}
	req.ContentLength = b.size
	if b.again {
		req.GetBody = open
	}
	return nil
}

func (a *app) body(ctx context.Context, data string) (body, error) {
	file, isFile := strings.CutPrefix(data, "@")
	switch {
	case data == "-":
		return a.stream(ctx, a.In, "standard input")
	case !isFile:
		return bytesBody([]byte(data)), nil
	}
	info, err := os.Stat(file)
	switch {
	case err != nil:
		return body{}, failure.New(failure.Usage, "-d: %w", err)
	case info.IsDir():
		return body{}, failure.New(failure.Usage, "-d: %s is a folder: name a file", file)
	case info.Mode().IsRegular():
		return body{func() (io.ReadCloser, error) { return os.Open(file) }, info.Size(), true}, nil
	}
	f, err := os.Open(file) // a pipe, such as that of bash's <(command)
	if err != nil {
		return body{}, failure.New(failure.Usage, "-d: %w", err)
	}
	return a.stream(ctx, f, file)
}

func bytesBody(data []byte) body {
	return body{func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }, int64(len(data)), true}
}

// stream returns a body that can be read once. If it is short, it is kept in memory.
func (a *app) stream(ctx context.Context, in io.Reader, name string) (body, error) {
	rest := interruptible(ctx, in)
	head, err := io.ReadAll(io.LimitReader(rest, maxReplayed+1))
	switch {
	case ctx.Err() != nil:
		return body{}, ctx.Err()
	case err != nil:
		return body{}, failure.Wrap(failure.Local, fmt.Errorf("reading %s: %w", name, err))
	case len(head) <= maxReplayed:
		return bytesBody(head), nil
	}
	a.warn("%s has more than %d MiB, so the call is not sent again if FinCode answers 401", name, maxReplayed>>20)
	open := func() (io.ReadCloser, error) {
		return struct {
			io.Reader
			io.Closer
		}{io.MultiReader(bytes.NewReader(head), rest), rest}, nil
	}
	return body{open, -1, false}, nil
}

// interruptible returns a reader of in that ends when ctx ends.
func interruptible(ctx context.Context, in io.Reader) io.ReadCloser {
	r, w := io.Pipe()
	context.AfterFunc(ctx, func() { w.CloseWithError(ctx.Err()) })
	go func() { // it outlives an interrupted call that waits for input, and ends with the process
		_, err := io.Copy(w, in)
		w.CloseWithError(err)
	}()
	return r
}
