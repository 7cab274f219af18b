package cli

import (
	"context"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/cmd/fincode/internal/events"
	"github.com/fincodeauth/fincodeauth/cmd/fincode/internal/profile"
	"github.com/fincodeauth/fincodeauth/cmd/fincode/internal/secret"
)

// eventsOf returns the folder with the profile's journal of events.
func (a *app) eventsOf(p profile.Profile) string { return a.state().Folder(p.Name, "events") }

// events returns the tap that writes the journal for fincode why. If there can be no journal,
// it returns a tap that does nothing, because the session works without one.
func (a *app) events(ctx context.Context, p profile.Profile, keys [][]byte) tap {
	var err error
	if len(keys) == 0 && p.Store == "" { // the key is lost, and so is the session
		return tap{}
	}
	if len(keys) == 0 { // the store is plain, and the hashes of tokens need a key all the same
		keys, _, err = secret.FindOrMake(ctx, a.settings.state, a.Getenv)
	}
	if err != nil {
		a.warnOfEvents(err)
		return tap{}
	}
	journal, err := events.Open(a.eventsOf(p), a.command, keys[0], a.warnOfEvents)
	if err != nil {
		a.warnOfEvents(err)
		return tap{}
	}
	return tap{observe: journal.Observe, base: journal.RoundTripper, store: journal.Store}
}

func (a *app) warnOfEvents(err error) {
	a.warn("warning: fincode why will not know what this command does: %v", err)
}

// earlierEvents returns what processes of this machine have noted of the profile's session,
// the oldest first.
func (a *app) earlierEvents(p profile.Profile) (earlier []fincodeauth.Event, err error) {
	entries, err := events.Read(a.eventsOf(p))
	for _, entry := range entries {
		if e, ok := entry.Observed(); ok && e.Key == p.Session {
			earlier = append(earlier, e)
		}
	}
	return earlier, err
}
