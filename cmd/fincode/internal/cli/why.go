package cli

import (
	"errors"
	"io/fs"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/fincodeauth/fincodeauth/cmd/fincode/internal/events"
	"github.com/fincodeauth/fincodeauth/cmd/fincode/internal/failure"
	"github.com/fincodeauth/fincodeauth/cmd/fincode/internal/why"
)

type whyOptions struct {
	journals    []string // folders
	allMachines bool
	json        bool
}

func (a *app) whyCommand() *cobra.Command {
	var o whyOptions
	c := &cobra.Command{
		Use:   "why [KEY]",
		Short: "Say what happened to the session",
		Long: `why reads the journal of events of this machine, and says in sentences what happened to
the session: who refreshed it, who took over after a crash, what was lost, and whether
a reuse of its refresh token has an explanation. KEY is a session's key in the store;
without it, the profile's session is meant. The journal has no tokens, only keyed hashes.

If other machines share the store, copy their journals here, and name the folders with
--journal. They are in profiles/NAME/events of the other machines' state folders. A theft
is told from another client's crash only if all of them are there: then say --all-machines.`,
		Example: `  fincode why
  fincode why --json
  fincode why --journal web-1/events --journal web-2/events --all-machines operations`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return a.why(o, args) },
	}
	c.Flags().StringSliceVar(&o.journals, "journal", nil, "folders with the journals of other machines; may be repeated")
	c.Flags().BoolVar(&o.allMachines, "all-machines", false, "the journals are those of all machines that share the store")
	c.Flags().BoolVar(&o.json, "json", false, "print JSON")
	return c
}

func (a *app) why(o whyOptions, args []string) error {
	p, err := a.state().Load(a.settings.profile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // after a logout there is a journal, and no profile
		return err
	}
	p = a.settings.over(p)
	key := p.Session
	if len(args) > 0 {
		key = args[0]
	}
	for _, dir := range o.journals {
		if _, err := os.Stat(dir); err != nil { // without it, the verdict may be wrong
			return failure.New(failure.Usage, "--journal: %w: name the folder profiles/NAME/events, or a copy of it", err)
		}
	}
	var entries []events.Entry
	for _, dir := range append([]string{a.eventsOf(p)}, o.journals...) {
		found, err := events.Read(dir)
		if err != nil {
			return failure.Wrap(failure.Local, err)
		}
		entries = append(entries, found...)
	}
	if len(entries) == 0 {
		return a.noProfile()
	}
	story := why.Explain(entries, key, o.allMachines || p.Store == "")
	if !o.json {
		return story.Write(a.Out, time.Local)
	}
	return printJSON(a.Out, story)
}
