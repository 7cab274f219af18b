package why

import "github.com/fincodeauth/fincodeauth/cmd/fincode/internal/events"

// ordered returns the entries of several machines in one order. The clocks of the machines
// may differ, and may have been set. So the order within a machine is that of its journal,
// and nothing that follows a Save comes before that Save: no load of what it saved, and no
// Save over that. Where this leaves a choice, the clocks decide.
func ordered(entries []events.Entry) []events.Entry {
	streams := streamsOf(entries)
	if len(streams) < 2 {
		return entries
	}
	pending := make(map[string]int) // by version: how many of its Saves are not in all yet
	for i := range entries {
		if entries[i].Kind == events.Saving {
			pending[entries[i].Version]++
		}
	}
	all := make([]events.Entry, 0, len(entries))
	for len(all) < len(entries) {
		next := earliest(streams, pending)
		e := next.entries[0]
		next.entries = next.entries[1:]
		if e.Kind == events.Saving {
			pending[e.Version] = 0
		}
		all = append(all, e)
	}
	return all
}

// A stream is what is left of the journal of one machine.
type stream struct{ entries []events.Entry }

func streamsOf(entries []events.Entry) []*stream {
	byJournal := make(map[string]*stream)
	var streams []*stream
	for _, e := range entries {
		s := byJournal[e.Journal]
		if s == nil {
			s = new(stream)
			byJournal[e.Journal] = s
			streams = append(streams, s)
		}
		s.entries = append(s.entries, e)
	}
	return streams
}

// earliest returns the stream whose first entry comes next.
func earliest(streams []*stream, pending map[string]int) *stream {
	var first, blocked *stream
	for _, s := range streams {
		switch {
		case len(s.entries) == 0:
		case pending[follows(&s.entries[0])] > 0:
			blocked = earlier(blocked, s)
		default:
			first = earlier(first, s)
		}
	}
	if first == nil {
		return blocked // two journals contradict each other
	}
	return first
}

func earlier(a, b *stream) *stream {
	if a == nil || b.entries[0].Time.Before(a.entries[0].Time) {
		return b
	}
	return a
}

// follows returns the version whose Save comes before the entry; "": none that is known.
func follows(e *events.Entry) string {
	switch e.Kind {
	case events.Loaded:
		return e.Version
	case events.Saving:
		return e.Prev
	}
	return ""
}
