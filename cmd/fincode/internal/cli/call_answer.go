package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"mime"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/tidwall/pretty"

	"github.com/fincodeauth/fincodeauth/cmd/fincode/internal/failure"
)

// maxPretty is how many bytes of JSON are kept to be printed with indents.
const maxPretty = 16 << 20

// maxIndents is how many bytes of white space that may take.
const maxIndents = 64 << 20

// showAnswer prints the answer, or saves its body to out.
func (a *app) showAnswer(resp *http.Response, out *output, include bool, progress *progress) error {
	if include {
		if err := a.printHead(resp); err != nil {
			return err
		}
	}
	failed := resp.StatusCode >= 400
	var err error
	if out != nil && !failed {
		err = receive(out, progress.watch(resp.Body, "receiving", resp.ContentLength))
		if err == nil {
			err = out.commit()
		}
	} else {
		err = a.printBody(resp, progress)
	}
	progress.clear()
	switch {
	case failed && !errors.Is(err, errBroken):
		return statusError(resp)
	case err == nil && resp.StatusCode >= 300 && resp.Header.Get("Location") != "":
		a.warn("FinCode answered %s, and call does not follow that to %s", resp.Status, resp.Header.Get("Location"))
	}
	return err
}

// printHead prints the status and the header.
func (a *app) printHead(resp *http.Response) error {
	var text strings.Builder
	fmt.Fprintf(&text, "%s %s\n", resp.Proto, failure.Plain(resp.Status))
	for _, name := range slices.Sorted(maps.Keys(resp.Header)) {
		for _, value := range resp.Header[name] {
			fmt.Fprintf(&text, "%s: %s\n", name, failure.Plain(value))
		}
	}
	return receive(a.Out, strings.NewReader(text.String()+"\n"))
}

// printBody prints the body as it is, or in the form for a terminal.
func (a *app) printBody(resp *http.Response, progress *progress) error {
	if terminal(a.Out) == nil {
		body := resp.Body
		if f, ok := a.Out.(*os.File); ok && isRegular(f) { // in a pipe, the next program may write to the terminal, too
			body = progress.watch(body, "receiving", resp.ContentLength)
		}
		return receive(a.Out, body)
	}
	if !isJSON(resp.Header.Get("Content-Type")) {
		return a.printText(resp.Body)
	}
	var start bytes.Buffer
	if err := receive(&start, io.LimitReader(resp.Body, maxPretty+1)); err != nil {
		return err
	}
	data := start.Bytes()
	if len(data) <= maxPretty && json.Valid(data) && indents(data) <= maxIndents {
		data = pretty.Pretty(data)
		if a.hasColors() && isText(data) {
			_, err := a.Out.Write(pretty.Color(data, nil))
			return err
		}
	}
	return a.printText(io.MultiReader(bytes.NewReader(data), resp.Body))
}

// indents returns about how many bytes of white space valid JSON needs to be printed with
// indents. It may be thousands of times the size of the JSON.
func indents(data []byte) (total int) {
	depth, inString := 0, false
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case inString && c == '\\':
			i++
		case c == '"':
			inString = !inString
		case inString:
		case c == '[', c == '{':
			depth++
			total += 2 * depth
		case c == ',':
			total += 2 * depth
		case c == ']', c == '}':
			depth--
		}
	}
	return total
}

func isJSON(contentType string) bool {
	mediaType, _, _ := mime.ParseMediaType(contentType)
	return mediaType == "application/json" || strings.HasSuffix(mediaType, "+json")
}

func isRegular(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode().IsRegular()
}

// errBroken says that the connection broke within a body.
var errBroken = errors.New("the connection broke before the end of the answer")

// receive copies a body. It keeps the errors of the connection and those of w apart.
func receive(w io.Writer, body io.Reader) error {
	from := &source{Reader: body}
	_, err := io.Copy(w, from)
	if from.err != nil {
		return failure.New(failure.Unreachable, "%w: %w", errBroken, from.err)
	}
	if errors.Is(err, syscall.EPIPE) { // as in: fincode call … | head -1
		return quiet(failure.NoReader)
	}
	return failure.Wrap(failure.Local, err)
}

// A source remembers why reading failed.
type source struct {
	io.Reader
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

// An output is the file of -o. The body goes to a temporary file beside it, which
// replaces it at the end. Only its own goroutine uses it.
type output struct {
	path string   // "": file is a device or a pipe, which is written itself
	file *os.File // nil: it was closed
}

// createOutput returns the output to path; nil: there is none. It is called before the
// request is sent, so that no answer is lost because a folder is missing.
func createOutput(path string) (*output, error) {
	if path == "" || path == "-" {
		return nil, nil
	}
	if resolved, err := filepath.EvalSymlinks(path); err == nil {
		path = resolved // otherwise the rename would replace the link
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, failure.Wrap(failure.Local, err)
	case info.IsDir():
		return nil, failure.New(failure.Usage, "-o: %s is a folder: name a file", path)
	case !info.Mode().IsRegular():
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		return &output{file: f}, failure.Wrap(failure.Local, err)
	}
	return createBeside(path, info)
}

// createBeside makes the temporary file beside path, with the mode of the file that is there
// already; info nil: there is none.
func createBeside(path string, info fs.FileInfo) (*output, error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*") // with mode 0600
	if err != nil {
		return nil, failure.Wrap(failure.Local, err)
	}
	o := &output{path, f}
	if info == nil {
		return o, nil
	}
	if err := f.Chmod(info.Mode().Perm()); err != nil {
		return nil, failure.Wrap(failure.Local, errors.Join(err, o.discard()))
	}
	return o, nil
}

func (o *output) Write(p []byte) (int, error) { return o.file.Write(p) }

// commit ends the file, and moves it to its place.
func (o *output) commit() error {
	f := o.file
	o.file = nil
	if o.path == "" {
		return failure.Wrap(failure.Local, f.Close())
	}
	err := errors.Join(f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), o.path)
	}
	if err != nil {
		err = errors.Join(err, os.Remove(f.Name()))
	}
	return failure.Wrap(failure.Local, err)
}

// discard removes the temporary file, unless commit was called. o may be nil.
func (o *output) discard() error {
	if o == nil || o.file == nil {
		return nil
	}
	err := o.file.Close()
	if o.path != "" {
		err = errors.Join(err, os.Remove(o.file.Name()))
	}
	return failure.Wrap(failure.Local, err)
}
