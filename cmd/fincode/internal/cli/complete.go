package cli

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/fincodeauth/fincodeauth/cmd/fincode/internal/profile"
)

// completeFlags says what a shell offers as values of the flags that all commands have.
// For other flags, it offers files.
func (a *app) completeFlags(root *cobra.Command) {
	offers := map[string]cobra.CompletionFunc{
		"profile": a.completeProfile,
		"config":  cobra.FixedCompletions([]string{"yaml", "yml", "toml", "json"}, cobra.ShellCompDirectiveFilterFileExt),
		"state":   cobra.FixedCompletions(nil, cobra.ShellCompDirectiveFilterDirs),
		"store": cobra.FixedCompletions([]string{"postgres://", "redis://", "rediss://", "etcd://", "etcds://", "kubernetes://", "dir:/"},
			cobra.ShellCompDirectiveNoFileComp|cobra.ShellCompDirectiveNoSpace),
		"tenant":  cobra.NoFileCompletions,
		"url":     cobra.NoFileCompletions,
		"session": cobra.NoFileCompletions,
	}
	for flag, offer := range offers {
		if err := root.RegisterFlagCompletionFunc(flag, offer); err != nil {
			panic(err) // there is no such flag
		}
	}
}

// completeProfile offers the profiles that exist.
func (a *app) completeProfile(cmd *cobra.Command, _ []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if err := a.settings.complete(cmd, a.Getenv); err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp // nobody knows where the profiles are
	}
	names, _ := profile.At(a.settings.state).Names()
	var offered []cobra.Completion
	for _, name := range names {
		if strings.HasPrefix(name, typed) {
			offered = append(offered, name)
		}
	}
	return offered, cobra.ShellCompDirectiveNoFileComp
}
