package fincodeauth

import (
	"golang.org/x/oauth2"
)

// reject notes that tok must not be used any more, and reports whether a refresh may help.
// It does not help if nothing can refresh the token. If the API answered 401, it does not
// help either if the token is too young (lease.isYoung): evenYoung is false then.
func (s *session) reject(tok *oauth2.Token, evenYoung bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.lease.Load()
	if l == nil || l.token.AccessToken != tok.AccessToken {
		return true
	}
	if tok.RefreshToken == "" && s.env.cfg.Credentials == nil {
		return false
	}
	k := &s.active().strikes
	if !evenYoung && l.isYoung(s.env.now(), k.count) {
		return false
	}
	k.rejected = tok.AccessToken
	return true
}

// isRejected reports whether the API rejected tok.
func (s *session) isRejected(tok *oauth2.Token) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.activity != nil && s.activity.strikes.rejected != "" && s.activity.strikes.rejected == tok.AccessToken
}

// replayed notes whether the API accepted a request that was sent again with tok.
func (s *session) replayed(tok *oauth2.Token, accepted bool) {
	s.mu.Lock()
	s.active().strikes.replayed(tok.AccessToken, accepted)
	s.mu.Unlock()
	s.env.observe(Replayed, s.key, 0, nil)
}

// good returns the lease if its token is valid and the API did not reject it, else
// nil.
func (s *session) good() *lease {
	if l := s.lease.Load(); l.valid(s.env.now()) && !s.isRejected(l.token) {
		return l
	}
	return nil
}
