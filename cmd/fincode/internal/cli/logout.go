package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/spf13/cobra"

	"github.com/fincodeauth/fincodeauth/cmd/fincode/internal/failure"
	"github.com/fincodeauth/fincodeauth/cmd/fincode/internal/profile"
)

func (a *app) logoutCommand() *cobra.Command {
	var all bool
	c := &cobra.Command{
		Use:   "logout",
		Short: "End the session, here and at FinCode",
		Long: `logout ends the session for all processes that share it, has FinCode revoke its
tokens, and removes the profile. If nobody is logged in, it does nothing.

If FinCode does not confirm it, the session is out on this side all the same, and the
exit status is not 0.`,
		Example: `  fincode logout
  fincode logout --all`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if all {
				return a.logoutAll(cmd.Context())
			}
			return a.logout(cmd.Context())
		},
	}
	c.Flags().BoolVar(&all, "all", false, "log out of all profiles")
	return c
}

// logoutAll goes on after a failure, and returns the first one.
func (a *app) logoutAll(ctx context.Context) error {
	names, err := a.state().Names()
	if err != nil {
		return failure.Wrap(failure.Local, err)
	}
	var first failure.Status
	for _, name := range names {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := a.inProfile(name).logout(ctx); err != nil {
			f := failure.Of(err, name)
			a.warn("%s: %s", name, f.Line())
			if first == 0 {
				first = f.Status
			}
		}
	}
	if first != 0 {
		return quiet(first)
	}
	return nil
}

func (a *app) logout(ctx context.Context) (err error) {
	_, err = a.state().Load(a.settings.profile)
	if errors.Is(err, fs.ErrNotExist) && a.settings.url == "" {
		_, err := fmt.Fprintf(a.Out, "Nobody is logged in (profile %s).\n", a.settings.profile)
		return err
	}
	p, err := a.profile()
	if err != nil {
		return err
	}
	s, err := a.openProfile(ctx, p, false)
	if err != nil {
		if a.isForgotten(ctx, p) {
			return a.state().Remove(a.settings.profile)
		}
		return err
	}
	defer func() { err = errors.Join(err, s.close(ctx)) }()
	err = s.Logout(ctx, s.key)
	if err != nil && !s.isOut(ctx) {
		return err
	}
	if err := a.state().Remove(a.settings.profile); err != nil {
		return err
	}
	if err != nil {
		return &failure.Error{Status: failure.Unreachable, Err: fmt.Errorf("profile %s is logged out here, but FinCode did not confirm it: %w", s.profile.Name, err),
			Do: "its tokens may be valid until they expire"}
	}
	_, err = fmt.Fprintf(a.Out, "Logged out of %s (profile %s).\n", s.profile.URL, s.profile.Name)
	return err
}

// isOut reports whether the store has no session.
func (s *session) isOut(ctx context.Context) bool {
	st, err := s.Status(context.WithoutCancel(ctx), s.key)
	return err == nil && !st.Exists
}

// isForgotten reports whether the profile has no session, although it cannot be opened:
// there is no key, and fincode forget was run.
func (a *app) isForgotten(ctx context.Context, p profile.Profile) bool {
	p.Plain = true
	s, err := a.openWith(ctx, p, nil, 0, false)
	if err != nil {
		return false
	}
	out := s.isOut(ctx)
	return s.close(ctx) == nil && out
}
