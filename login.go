package fincodeauth

import (
	"context"
	"slices"
	"time"

	"golang.org/x/oauth2"
)

// login begins a session with the token that obtain returns, and tells FinCode nothing
// of the session that it replaces. The session is pinned. event is LoggedIn or Adopted.
func (s *session) login(ctx context.Context, event EventType, obtain func(context.Context) (*oauth2.Token, error)) error {
	if err := s.takeTurn(ctx); err != nil {
		return err
	}
	defer s.endTurnAndSave(ctx)
	_ = s.saveOnce(ctx, s.env.cfg.RefreshTimeout/4) // the change has the error
	// The store comes before FinCode, because a token that cannot be saved is useless.
	there, err := s.cell().loadStable(ctx)
	if err != nil {
		return err
	}
	var tok *oauth2.Token
	var took time.Duration // 0 for Adopt, because there is no call
	s.saveWhile(ctx, func() {
		started := s.env.now()
		tok, err = obtain(ctx)
		if event == LoggedIn {
			took = s.env.since(started)
		}
	})
	if err != nil {
		return err
	}
	if event == LoggedIn {
		s.env.tenants.received(tok)
	}
	s.env.observe(event, s.key, took, nil)
	rec := &Record{Version: newVersion(""), Generation: 1, Token: tok, Replaces: s.sessionsBefore(there)}
	s.replace(s.env.newLease(tok).of(rec))
	s.bring(&change{
		rec:       rec,
		prev:      versionOf(there),
		meanwhile: errUnsaved,
	})
	return nil
}

// sessionsBefore returns the sessions that a login replaces: the one that it finds in the
// store, and the one that this process knows, which may be newer.
func (s *session) sessionsBefore(there *Record) []string {
	var all []string
	if there != nil {
		all = replacing(there.Replaces, sessionOf(there.Version))
	}
	if k := s.known; k != nil {
		for _, session := range slices.Backward(k.replaces) {
			all = replacing(all, session)
		}
		all = replacing(all, k.session)
	}
	return all
}
