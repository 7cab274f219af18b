package fincodeauth

import (
	"slices"
	"time"

	"golang.org/x/oauth2"
)

// Which of two records is newer. A store may go back to an earlier state: a failover
// lost writes, or somebody restored a backup. What a process knows of a session then
// decides, as long as a process lives that knows more than the store.
//
// The records of one session are in an order: by their generation, and within a
// generation the end comes last. A Logout comes after everything. Two sessions under one
// key are in an order if one names the other in Replaces.

const (
	// A process that finds no record saves its own again, unless it is longer ago
	// than this that it has seen a record. The record of a Logout stays for longer.
	// The day between them is for clocks that differ.
	rememberedFor = 7 * 24 * time.Hour
	logoutKept    = rememberedFor + 24*time.Hour

	replacesKept = 8 // sessions that a record names in Replaces
)

// next returns a record that may follow r in the store: a free one of the same session
// and generation, with the same token. If r has no generation, an earlier version of
// this package saved it, and processes of that version may save others. So the record
// that next returns begins a session that replaces that of r: nobody compares its
// generation with those from before.
func (r *Record) next() *Record {
	n := &Record{Version: newVersion(r.Version), Token: r.clone().Token, Generation: r.Generation, Replaces: r.Replaces}
	if r.Generation == 0 {
		n.Version, n.Generation, n.Replaces = newVersion(""), 1, replacing(r.Replaces, sessionOf(r.Version))
	}
	return n
}

// successor returns the record that follows r after a rotation, with the new pair.
func (r *Record) successor(tok *oauth2.Token) *Record {
	n := r.next()
	n.Token = tok
	n.Generation++
	return n
}

// end returns the record that follows r when its session ends. why is Record.Ended.
func (r *Record) end(why string) *Record {
	n := r.next()
	n.Token = &oauth2.Token{}
	n.Ended = why
	return n
}

// loggedOut returns the record that a Logout leaves.
func (r *Record) loggedOut(now time.Time) *Record {
	n := r.end(endedLogout)
	n.RemoveAfter = now.Add(logoutKept).UTC().Truncate(time.Second)
	return n
}

// replacing returns before with session in front, and without what is too old to keep.
func replacing(before []string, session string) []string {
	if session == "" || slices.Contains(before, session) {
		return before
	}
	all := append([]string{session}, before...)
	return all[:min(len(all), replacesKept)]
}

// A known is the newest state of a session that this process has seen. It does not
// change.
type known struct {
	session    string
	generation int
	replaces   []string
	token      *oauth2.Token // empty if the session has ended
	ended      string
	seen       int64 // when, by the wall clock, in nanoseconds since 1970
}

// knownOf returns what a process knows that has seen rec now.
func knownOf(rec *Record, now time.Time) *known {
	return &known{
		session:    sessionOf(rec.Version),
		generation: rec.Generation,
		replaces:   rec.Replaces,
		token:      rec.Token,
		ended:      rec.Ended,
		seen:       now.UnixNano(),
	}
}

// record returns a record that says what k knows, with a new version.
func (k *known) record(now time.Time) *Record {
	rec := (&Record{Version: k.session, Generation: k.generation, Replaces: k.replaces, Token: k.token}).next()
	switch k.ended {
	case "":
		return rec
	case endedLogout:
		return rec.loggedOut(now)
	}
	return rec.end(k.ended)
}

// knownOfLease is knownOf the record of the token in use; nil: there is none.
func knownOfLease(l *lease) *known {
	if l == nil || l.generation == 0 {
		return nil
	}
	return &known{session: l.session, generation: l.generation, token: l.token, seen: l.issued}
}

// isIn reports whether knownOfLease says the same as k.
func (k *known) isIn(l *lease) bool {
	return k != nil && l != nil && k.token == l.token && k.session == l.session && k.generation == l.generation &&
		k.ended == "" && len(k.replaces) == 0
}

// isAhead reports whether k is certainly newer than what the store has: the store has
// gone back. nil: the store has no record.
func (k *known) isAhead(there *Record, now time.Time) bool {
	switch {
	case k == nil || k.generation == 0:
		return false
	case there == nil: // a Logout would have left a record
		return k.ended == "" && now.UnixNano()-k.seen < int64(rememberedFor)
	case sessionOf(there.Version) == k.session:
		return k.isLater(there)
	case there.Generation == 0: // a process of an earlier version may have gone on from what this session replaced
		return false
	}
	return slices.Contains(k.replaces, sessionOf(there.Version))
}

// isLater is isAhead of a record of the same session.
func (k *known) isLater(there *Record) bool {
	switch {
	case there.Ended == endedLogout:
		return false
	case k.ended == endedLogout:
		return true
	case there.Generation == 0 || there.Generation > k.generation:
		return false
	case there.Generation < k.generation:
		return true
	}
	return k.ended != "" && there.Ended == ""
}

// orphan returns the token of k if there says that the session was logged out by a
// process that knew only an older token; else nil.
func (k *known) orphan(there *Record) *oauth2.Token {
	if k == nil || there == nil || there.Ended != endedLogout || sessionOf(there.Version) != k.session ||
		there.Generation >= k.generation || !hasTokens(k.token) {
		return nil
	}
	return k.token
}
