package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"

	"github.com/fincodeauth/fincodeauth/cmd/fincode/internal/failure"
)

// ask asks a person for what the flag says otherwise.
func (a *app) ask(ctx context.Context, what, flag string) (string, error) {
	return a.prompt(ctx, what, strings.ToLower(what), "use "+flag, readLine)
}

// askSecret is ask without an echo. otherwise says what to do without a terminal.
func (a *app) askSecret(ctx context.Context, what, otherwise string) (string, error) {
	return a.prompt(ctx, what, "password", otherwise, func(in *os.File) (string, error) {
		text, err := term.ReadPassword(int(in.Fd()))
		fmt.Fprintln(a.Err) // the line's end has no echo either
		return string(text), err
	})
}

// prompt prints what, and returns what read returns. If ctx ends, because somebody pressed
// Ctrl-C, the terminal gets its echo back.
func (a *app) prompt(ctx context.Context, what, name, otherwise string, read func(*os.File) (string, error)) (string, error) {
	in := terminal(a.In)
	if in == nil {
		return "", failure.New(failure.Usage, "there is no terminal to ask for the %s: %s", name, otherwise)
	}
	before, err := term.GetState(int(in.Fd()))
	if err != nil {
		return "", err
	}
	fmt.Fprintf(a.Err, "%s: ", what)
	type answer struct {
		text string
		err  error
	}
	answers := make(chan answer, 1)
	go func() { // it outlives an interrupted prompt, and ends with the process
		text, err := read(in)
		answers <- answer{text, err}
	}()
	select {
	case <-ctx.Done():
		fmt.Fprintln(a.Err)
		return "", errors.Join(ctx.Err(), term.Restore(int(in.Fd()), before))
	case got := <-answers:
		if got.err == nil && got.text == "" || errors.Is(got.err, io.EOF) {
			return "", failure.New(failure.Usage, "no %s was typed", name)
		}
		return got.text, got.err
	}
}

// readLine reads one line, and nothing after it: the next prompt reads that.
func readLine(in *os.File) (string, error) {
	var line []byte
	for next := make([]byte, 1); ; {
		n, err := in.Read(next)
		switch {
		case n == 1 && next[0] == '\n', errors.Is(err, io.EOF) && len(line) > 0:
			return strings.TrimSpace(string(line)), nil
		case err != nil:
			return "", err
		}
		line = append(line, next[:n]...)
	}
}
