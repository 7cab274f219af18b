package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"

	"golang.org/x/term"
	"golang.org/x/text/runes"
	"golang.org/x/text/transform"

	"github.com/fincodeauth/fincodeauth/cmd/fincode/internal/failure"
)

// terminal returns the terminal that v is; nil: it is none.
func terminal(v any) *os.File {
	if f, ok := v.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return f
	}
	return nil
}

// hasColors reports whether a terminal gets colours (no-color.org).
func (a *app) hasColors() bool { return a.Getenv("NO_COLOR") == "" && a.Getenv("TERM") != "dumb" }

// printJSON prints v with indents. It escapes all characters that control a terminal;
// encoding/json escapes those of ASCII alone.
func printJSON(w io.Writer, v any) error {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil {
		return err
	}
	var escaped strings.Builder
	for _, r := range text.String() {
		if unicode.IsControl(r) && r != '\n' {
			fmt.Fprintf(&escaped, `\u%04x`, r)
		} else {
			escaped.WriteRune(r)
		}
	}
	_, err := io.WriteString(w, escaped.String())
	return err
}

// printText prints a text on a terminal. What is not UTF-8 becomes U+FFFD, because a byte
// alone, or a character in two parts, could be a control character, too.
func (a *app) printText(body io.Reader) error {
	w := transform.NewWriter(textWriter{a.Out}, runes.ReplaceIllFormed())
	if err := receive(w, body); err != nil {
		return err
	}
	return failure.Wrap(failure.Local, w.Close())
}

// A textWriter writes text to a terminal, and refuses anything else: control characters
// may do what they like to a terminal.
type textWriter struct{ terminal io.Writer }

func (t textWriter) Write(p []byte) (int, error) {
	if !isText(p) {
		return 0, failure.New(failure.Other, "the answer is not text, and may confuse the terminal: use -o FILE")
	}
	return t.terminal.Write(p)
}

func isText(data []byte) bool {
	return !bytes.ContainsFunc(data, func(r rune) bool { return unicode.IsControl(r) && r != '\n' && r != '\r' && r != '\t' })
}
