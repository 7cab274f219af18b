package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fincodeauth/fincodeauth/cmd/fincode/internal/failure"
	"github.com/fincodeauth/fincodeauth/cmd/fincode/internal/profile"
)

func (a *app) forgetCommand() *cobra.Command {
	var yes bool
	c := &cobra.Command{
		Use:   "forget",
		Short: "Remove the session's record, even a damaged one",
		Long: `forget removes the record of the session, whatever is in it: damaged, or encrypted
with a key that is lost. It does not tell FinCode, so the tokens stay valid until they
expire. If the session can be used, run fincode logout instead. The profile stays, for
the next fincode login.`,
		Example: `  fincode forget
  fincode forget --yes --profile nightly`,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.forget(cmd.Context(), yes) },
	}
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return c
}

func (a *app) forget(ctx context.Context, yes bool) (err error) {
	p, err := a.profile()
	if err != nil {
		return err
	}
	if !yes {
		if err := a.confirm(ctx, fmt.Sprintf("Remove the session of profile %s, without telling FinCode? (yes/no)", p.Name)); err != nil {
			return err
		}
	}
	s, err := a.openToForget(ctx, p)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close(ctx)) }()
	if err := s.Forget(ctx, s.key); err != nil {
		return err
	}
	_, err = fmt.Fprintf(a.Out, "The session of profile %s is forgotten. FinCode was not told.\n", p.Name)
	return err
}

// openToForget opens the session. If there is no key for it, the session is opened without
// one: nobody reads what is forgotten.
func (a *app) openToForget(ctx context.Context, p profile.Profile) (*session, error) {
	s, err := a.openProfile(ctx, p, false)
	if err == nil || p.Plain {
		return s, err
	}
	p.Plain = true
	if s, plainErr := a.openWith(ctx, p, nil, 0, false); plainErr == nil {
		return s, nil
	}
	return nil, err
}

// confirm asks a person. It returns nil if the answer is yes.
func (a *app) confirm(ctx context.Context, question string) error {
	answer, err := a.prompt(ctx, question, "answer", "use --yes", readLine)
	if err != nil {
		return err
	}
	switch strings.ToLower(answer) {
	case "y", "yes":
		return nil
	}
	return failure.New(failure.Other, "nothing was removed")
}
