package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/fincodeauth/fincodeauth/cmd/fincode/internal/failure"
)

type callOptions struct {
	data    string
	hasData bool
	headers []string
	include bool
	output  string // file
	timeout time.Duration
}

func (a *app) callCommand() *cobra.Command {
	var opts callOptions
	c := &cobra.Command{
		Use:   "call METHOD PATH",
		Short: "Call FinCode's API with the session",
		Long: `call sends one request to FinCode with the session's access token, and prints the
answer. PATH is relative to the base URL: /whoami and whoami are the same. The full
path, and a URL of the same origin, work too. No other origin gets a request.

On a terminal, JSON is printed with indents and colours (none if NO_COLOR is set),
and an answer that is not text is refused. In a pipe, the answer's bytes are printed
as they are. Redirects are not followed.

If FinCode answers 401 to a token that should be valid, call gets a new token and
sends the request once more. This works for bodies from the command line, from files,
and for up to 8 MiB from standard input.

The exit status is 22 if the HTTP status is 400 or more, and 3 if a login is needed.
The answer's body is printed in the first case, too, and a file of -o stays as it is.`,
		Example: `  fincode call GET /whoami
  fincode call GET '/transactions?page=2' | jq .data
  fincode call POST /beneficiaries -d @beneficiary.json
  jq -n '{amount: "12.50"}' | fincode call POST /transfers -d -
  fincode call GET /statements/7 -o statement.pdf`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 2 {
				return errors.New("call needs two arguments, METHOD and PATH, such as GET /whoami")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			opts.hasData = cmd.Flags().Changed("data")
			return a.call(cmd.Context(), args[0], args[1], opts)
		},
	}
	flags := c.Flags()
	flags.StringVarP(&opts.data, "data", "d", "", "body of the request: a text, @FILE, or - for standard input")
	flags.StringArrayVarP(&opts.headers, "header", "H", nil, "header field of the request, as 'Name: value'; may be repeated")
	flags.BoolVarP(&opts.include, "include", "i", false, "print the status and the header of the answer first")
	flags.StringVarP(&opts.output, "output", "o", "", "file for the answer's body; it is replaced when all of the body is there")
	flags.DurationVar(&opts.timeout, "timeout", 0, "how long the whole call may take, such as 30s; 0: as long as it takes")
	return c
}

func (a *app) call(ctx context.Context, method, path string, opts callOptions) (err error) {
	p, err := a.profile()
	if err != nil {
		return err
	}
	req, err := newCallRequest(p.URL, method, path, opts)
	if err != nil {
		return err
	}
	progress := a.newProgress()
	defer progress.clear()
	if err := a.setBody(ctx, req, opts, progress); err != nil {
		return err
	}
	out, err := createOutput(opts.output)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.discard()) }()
	s, err := a.openProfile(ctx, p, false)
	if err != nil {
		return err
	}
	// A refresh that is under way ends before the command does, whatever happens to the call.
	defer func() { err = joined(err, s.close(ctx)) }()

	defer s.refreshMeanwhile(ctx)()
	callCtx, cancel := withTimeout(ctx, opts.timeout)
	defer cancel()
	client := s.Client(s.key)
	// A redirect would take the body, and the fields of -H, to another host.
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	resp, err := client.Do(req.WithContext(callCtx))
	if err == nil {
		defer resp.Body.Close()
		progress.clear() // of the upload
		err = a.showAnswer(resp, out, opts.include, progress)
	}
	return whyCallFailed(ctx, callCtx, opts.timeout, err)
}

// withTimeout returns a context that ends after d; 0: it does not.
func withTimeout(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	if d == 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, d)
}

// whyCallFailed returns what to tell a person about err. If somebody interrupted the
// call, or its time was over, that is the reason.
func whyCallFailed(ctx, callCtx context.Context, timeout time.Duration, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case callCtx.Err() != nil:
		return failure.New(failure.Unreachable, "the call did not end within %v (--timeout)", timeout)
	}
	return err
}

// joined returns err and the error of closing the session. A quiet err has nothing to say.
func joined(err, closing error) error {
	if _, ok := err.(quiet); ok && closing != nil {
		return closing
	}
	return errors.Join(err, closing)
}

// statusError is the error of an answer with a status of 400 or more.
func statusError(resp *http.Response) error {
	return &failure.Error{Status: failure.HTTP,
		Err: fmt.Errorf("%s %s: FinCode answered %s", resp.Request.Method, resp.Request.URL.Path, failure.Plain(resp.Status))}
}
