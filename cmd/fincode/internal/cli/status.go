package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fincodeauth/fincodeauth/cmd/fincode/internal/failure"
)

type statusOptions struct{ json, watch, all bool }

func (a *app) statusCommand() *cobra.Command {
	var opts statusOptions
	c := &cobra.Command{
		Use:   "status",
		Short: "Show how the session is",
		Long: `status shows who is logged in, until when the access token is valid, when it is
refreshed, and why a session has ended. It looks at the store alone: it sends FinCode
nothing, and refreshes nothing.

The exit status is 0 if the session can be used, 3 if a login is needed, and 5 if the
store, its key or a file cannot be read. With --all it is that of the first profile
that cannot be used.

With --json it prints an object, or an array with --all:

  profile, url, tenant, session, user   as login was told
  state             usable, login_needed or unknown
  user_id, roles    claims of the access token, which are not verified
  expires_at        when the access token expires
  refresh_at        when it is refreshed, if it is used
  refreshed_at      when FinCode issued it
  refreshing_since  when a process began a refresh that has not ended
  unsaved           a new token is on this disk, and the store does not have it yet
  ended             why the session has ended
  reused            FinCode said that a refresh token was used twice
  interrupted       an interrupted refresh explains that
  store, key        where the session is, and the key that encrypts it
  problem           what is wrong, and what to do

Times are in UTC (RFC 3339). A field that is not known is left out, but profile, state,
roles, unsaved, reused and interrupted are always there.`,
		Example: `  fincode status
  fincode status --watch --all
  fincode status --json | jq -r .expires_at`,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.status(cmd.Context(), opts) },
	}
	c.Flags().BoolVar(&opts.json, "json", false, "print it as JSON")
	c.Flags().BoolVar(&opts.watch, "watch", false, "show it on the whole terminal, and keep it up to date")
	c.Flags().BoolVar(&opts.all, "all", false, "show all profiles")
	return c
}

func (a *app) status(ctx context.Context, opts statusOptions) error {
	if opts.watch {
		if opts.json {
			return failure.New(failure.Usage, "--watch and --json do not go together: leave one out")
		}
		return a.watch(ctx, opts.all)
	}
	views, err := a.views(ctx, opts.all)
	if err != nil {
		return err
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	switch {
	case opts.json && opts.all:
		err = printJSON(a.Out, views)
	case opts.json:
		err = printJSON(a.Out, views[0])
	default:
		err = printViews(a.Out, views, time.Now())
	}
	if err != nil {
		return err
	}
	for _, v := range views {
		if v.status != 0 {
			return quiet(v.status)
		}
	}
	if len(views) == 0 {
		return &failure.Error{Status: failure.LoginNeeded, Err: errors.New("there are no profiles"), Do: "log in with: fincode login"}
	}
	return nil
}

// views looks at the profile, or at all of them.
func (a *app) views(ctx context.Context, all bool) ([]statusView, error) {
	names := []string{a.settings.profile}
	if all {
		var err error
		if names, err = a.state().Names(); err != nil {
			return nil, failure.Wrap(failure.Local, err)
		}
	}
	views := make([]statusView, 0, len(names)) // [] in JSON, not null
	for _, name := range names {
		of := a
		if all {
			of = a.inProfile(name)
		}
		views = append(views, of.look(ctx))
	}
	return views, nil
}

// inProfile returns an app for another profile, as it was saved.
func (a *app) inProfile(name string) *app {
	other := *a
	other.settings = settings{profile: name, state: a.settings.state, config: a.settings.config, refreshTimeout: a.settings.refreshTimeout}
	return &other
}

// printViews prints the views as text, with an empty line between them.
func printViews(w io.Writer, views []statusView, now time.Time) error {
	var errs []error
	for i, v := range views {
		var text strings.Builder
		if i > 0 {
			text.WriteString("\n")
		}
		for _, row := range v.rows(now) {
			fmt.Fprintf(&text, "%-*s%s\n", labelWidth, row.label, row.text)
		}
		_, err := io.WriteString(w, text.String())
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
