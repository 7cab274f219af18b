package fincodeauth

import (
	"context"
	"fmt"
	"time"
)

// A Status says how a session is. It holds no token. Its times are by the clocks of the
// processes that wrote them.
type Status struct {
	Key string

	// Exists: there is a session. It may have ended. After a Logout there is none.
	Exists bool

	// Expiry is when the access token expires. Zero: there is none, or nobody knows.
	Expiry time.Time

	// RefreshAt is when this process begins to refresh the token, if the session is used.
	// Zero: it does not.
	RefreshAt time.Time

	// RefreshStarted is when a process began to present the refresh token. Zero: no
	// process is doing that. If it is long ago, that process has died, and the next one
	// that uses the session takes over.
	RefreshStarted time.Time

	// Ended says why the session needs a login; "" if it does not.
	Ended string

	// Reused and Interrupted are those of the SessionError that callers get if Ended
	// is set.
	Reused, Interrupted bool

	// Unsaved: this process has a token, or the end of the session, that the store has
	// not accepted yet. If the process dies now, it is lost, unless a Journal has it.
	Unsaved bool

	Claims Claims // of the access token
}

// Status says how the session under key is: what the store has, or what this process
// knows to be newer. It never calls FinCode, and loads the record once. It does not count as a
// use of the session. (With a Journal, that saves what the journal has of the session, as
// each Load does.) It also works after Close.
//
// If there is no session, Status returns no error: look at Exists. If the store fails,
// or if the record is damaged, Status returns the error, and what this process knows.
func (a *Sessions) Status(ctx context.Context, key string) (Status, error) {
	if err := a.check(); err != nil {
		return Status{}, fmt.Errorf("fincodeauth: status: %w", err)
	}
	if key == "" {
		return Status{}, fmt.Errorf("fincodeauth: status: %w", errNoKey)
	}
	rec, err := a.peek(ctx, key)
	held := a.sessions.find(key).holding()
	if err != nil {
		rec = held.record()
	}
	st := held.status(key, rec, &a.env)
	if err != nil {
		return st, fmt.Errorf("fincodeauth: status of session %q: %w", key, err)
	}
	return st, nil
}

// peek loads the record under key; nil: there is none. It leaves the session of this
// process alone, and does not make one.
func (a *Sessions) peek(ctx context.Context, key string) (*Record, error) {
	return cell{session: &session{env: &a.env, key: key}, timeout: a.env.cfg.RefreshTimeout}.load(ctx)
}

// A holding is what this process has of a session. Zero: nothing.
type holding struct {
	lease   *lease  // nil: no token is in use
	unsaved *Record // nil: the store has accepted every change
}

// holding returns what this process has of the session; s may be nil.
func (s *session) holding() holding {
	if s == nil {
		return holding{}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	h := holding{lease: s.lease.Load()}
	if s.activity != nil && s.activity.unsaved != nil {
		h.unsaved = s.activity.unsaved.rec
	}
	return h
}

// record returns a record with the token in use; nil: there is none.
func (h holding) record() *Record {
	if h.lease == nil {
		return nil
	}
	return &Record{Token: h.lease.token}
}

// status returns the Status of a session of which the store has rec; nil: it has none.
func (h holding) status(key string, rec *Record, env *environment) Status {
	st := Status{Key: key, Unsaved: h.unsaved != nil}
	l := h.lease
	switch now := env.now(); {
	case h.unsaved != nil:
		rec = h.unsaved
	case knownOfLease(l).isAhead(rec, now):
		rec = h.record()
	case rec == nil:
		return st
	}
	st.Exists = rec.Ended != endedLogout
	st.RefreshStarted = rec.RefreshStarted
	if rec.Ended != "" {
		end := sessionEnded(key, rec.Ended)
		st.Ended, st.Reused, st.Interrupted = rec.Ended, end.Reused, end.Interrupted
		return st
	}
	if l == nil || !sameTokens(l.token, rec.Token) {
		l = newLease(rec.Token, env.now(), env.cfg.RefreshBefore, 0)
	}
	st.setToken(l, env.now())
	return st
}

// setToken sets what a token says.
func (st *Status) setToken(l *lease, now time.Time) {
	st.Expiry = expiryOf(l.token, now)
	switch {
	case l.token.RefreshToken == "", l.refreshAt == never:
	case l.token.AccessToken == "":
		st.RefreshAt = now
	default:
		st.RefreshAt = time.Unix(0, l.refreshAt)
	}
	st.Claims = newClaims(l.token.AccessToken)
}

// Stats are figures of the sessions in this process's memory, for metrics.
type Stats struct {
	InMemory int // sessions in memory, at most about Config.MaxSessions
	Unsaved  int // those of them whose last change the store has not accepted yet

	// SoonestExpiry is when the first of their tokens that are still good stops being
	// used: a few seconds before it expires. Zero: there is none, or nobody knows when
	// they expire.
	SoonestExpiry time.Time
}

// Stats returns figures of the sessions in this process's memory. It calls neither the
// store nor FinCode. It looks at each session, so with 100,000 of them it takes
// milliseconds.
func (a *Sessions) Stats() Stats {
	var st Stats
	if a.check() != nil {
		return st
	}
	now := a.env.now()
	soonest := int64(never)
	for s := range a.sessions.all {
		if s.dropped.Load() {
			continue
		}
		st.InMemory++
		if s.unsavedError() != nil {
			st.Unsaved++
		}
		if l := s.lease.Load(); l.valid(now) {
			soonest = min(soonest, l.expireAt)
		}
	}
	if soonest != never {
		st.SoonestExpiry = time.Unix(0, soonest)
	}
	return st
}
