// Package cli has the commands of fincode. Each has a file with its name. call and status
// have more: call_request.go, call_body.go, call_answer.go and call_progress.go;
// status_view.go, what status shows, and watch.go, status on the whole terminal. What
// commands share is in
//
//	cli.go       Main, and the list of the commands
//	settings.go  flags, environment variables and the configuration file
//	complete.go  what a shell completes
//	open.go      a profile's session, opened
//	fresh.go     its token, refreshed if that is due
//	events.go    its journal of events
//	prompt.go    questions to a person
//	terminal.go  what a terminal gets
//
// A command is a method of app that returns a cobra.Command: add a new one to
// (*app).commands. It returns an error with a status of package failure, and Main prints it.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fincodeauth/fincodeauth/cmd/fincode/internal/failure"
)

// A Process is what the command has of its process. Tests give it another one.
type Process struct {
	Args   []string // without the program's name
	In     io.Reader
	Out    io.Writer // results
	Err    io.Writer // everything else
	Getenv func(string) string
}

// An app is one run of the command. Only its own goroutine uses it.
type app struct {
	Process
	settings settings
	started  bool   // a command runs: its command line was accepted
	command  string // its name
}

// Main runs the command, and returns the status to exit with.
func Main(ctx context.Context, p Process) (status int) {
	a := &app{Process: p}
	defer a.recoverBug(&status)
	root := a.root()
	root.SetArgs(p.Args)
	root.SetIn(p.In)
	root.SetOut(p.Out)
	root.SetErr(p.Err)
	cmd, err := root.ExecuteContextC(ctx)
	return a.report(cmd, err)
}

// report prints one line about an error of cmd, and returns the status to exit with.
func (a *app) report(cmd *cobra.Command, err error) int {
	if err == nil {
		return 0
	}
	if status, ok := errors.AsType[quiet](err); ok {
		return int(status)
	}
	f := failure.Of(err, a.settings.profile)
	if f.Status == failure.Other && !a.started { // what cobra did not accept
		f = &failure.Error{Status: failure.Usage, Err: f.Err, Do: "see " + cmd.CommandPath() + " --help"}
	}
	if f.Status != failure.NoReader {
		fmt.Fprintln(a.Err, "fincode: "+f.Line())
	}
	return int(f.Status)
}

// recoverBug turns a panic into one line. Whoever wants the stack sets GOTRACEBACK.
func (a *app) recoverBug(status *int) {
	if a.Getenv("GOTRACEBACK") != "" {
		return
	}
	if bug := recover(); bug != nil {
		a.started = true
		*status = a.report(nil, failure.New(failure.Other, "this is a bug of fincode %s (%v): report it, with what GOTRACEBACK=all shows", version(), bug))
	}
}

// A quiet is an error that was reported already. It is the status to exit with.
type quiet failure.Status

func (q quiet) Error() string { return fmt.Sprintf("status %d", int(q)) }

// root returns the command with all its subcommands.
func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "fincode",
		Short: "Log in to FinCode once, and use the session from anything",
		Long: `fincode logs in to FinCode once, and lets a shell, a cron job or a program in any
language use the session. Each refresh token is presented once, whatever runs at the
same time and whatever crashes.

	fincode login --tenant acme
	fincode call GET /whoami
	fincode proxy

Every flag can also be set in the environment (--profile is FINCODE_PROFILE) and in the
configuration file (profile: production). The command line comes first, then the
environment, then the file.`,
		Version:           version(),
		SilenceErrors:     true, // Main prints them
		SilenceUsage:      true,
		DisableAutoGenTag: true, // a date in the manual pages would change them each day
		PersistentPreRunE: a.prepare,
		Args:              unknownCommand,
		RunE:              func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetVersionTemplate(versionLine())
	root.SuggestionsMinimumDistance = 2
	a.settings.register(root.PersistentFlags())
	a.completeFlags(root)
	root.AddGroup(
		&cobra.Group{ID: "session", Title: "The session:"},
		&cobra.Group{ID: "use", Title: "Using it:"},
		&cobra.Group{ID: "look", Title: "Looking into it:"},
	)
	root.SetHelpCommandGroupID("look")
	root.SetCompletionCommandGroupID("look")
	for group, commands := range a.commands() {
		for _, c := range commands {
			c.GroupID = group
			a.track(c)
			root.AddCommand(c)
		}
	}
	return root
}

// prepare completes the settings of a command that has some.
func (a *app) prepare(cmd *cobra.Command, _ []string) error {
	if !hasSettings(cmd) {
		return nil
	}
	return a.settings.complete(cmd, a.Getenv)
}

// hasSettings reports whether the environment and the configuration file count for cmd. If
// they are wrong, that must not keep a shell from its completions, or a person from help.
func hasSettings(cmd *cobra.Command) bool {
	for cmd.HasParent() && cmd.Parent().HasParent() {
		cmd = cmd.Parent()
	}
	switch cmd.Name() {
	case "help", "version", "docs", "completion", cobra.ShellCompRequestCmd, cobra.ShellCompNoDescRequestCmd:
		return false
	}
	return cmd.HasParent() // fincode alone prints its help
}

// commands returns the subcommands of each group.
func (a *app) commands() map[string][]*cobra.Command {
	return map[string][]*cobra.Command{
		"session": {a.loginCommand(), a.statusCommand(), a.logoutCommand(), a.forgetCommand()},
		"use":     {a.callCommand(), a.tokenCommand(), a.proxyCommand(), a.waitCommand()},
		"look":    {a.whyCommand(), a.sandboxCommand(), a.versionCommand(), a.docsCommand()},
	}
}

// track lets the app know when c runs. A command that does not say what arguments it wants
// accepts none.
func (a *app) track(c *cobra.Command) {
	if c.Args == nil {
		c.Args, c.ValidArgsFunction = cobra.NoArgs, cobra.NoFileCompletions
	}
	run := c.RunE
	c.RunE = func(cmd *cobra.Command, args []string) error {
		a.started, a.command = true, cmd.Name()
		return run(cmd, args)
	}
}

// unknownCommand refuses arguments of fincode itself: they are not commands.
func unknownCommand(root *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	e := failure.New(failure.Usage, "there is no command %q", args[0])
	e.Do = "see fincode --help"
	if like := root.SuggestionsFor(args[0]); len(like) > 0 {
		e.Do = "did you mean " + strings.Join(like, " or ") + "?"
	}
	return e
}

// warn prints one line for a person.
func (a *app) warn(format string, args ...any) {
	fmt.Fprintln(a.Err, failure.Plain("fincode: "+fmt.Sprintf(format, args...)))
}
