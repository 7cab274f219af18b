package fincodeauth

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"time"
)

// Config is what New needs to know. Only BaseURL has no useful zero value.
type Config struct {
	// BaseURL is the root of the API, such as Sandbox("remitjunction") or
	// Production("acme"), with or without a trailing slash. It must be https,
	// or http to a loopback address. Required.
	BaseURL string

	// Store keeps the sessions of this tenant only, because a record does not say
	// which BaseURL it belongs to. nil: a new MemoryStore, so that the sessions
	// end with the process.
	Store Store

	// Base sends all requests: those to the API and those for tokens. It must
	// send each request at most once, honour its context, and return the answer or
	// the error. So
	// middleware that retries or refuses requests (a retrier, a circuit breaker,
	// a rate limiter) goes around the Transport, not into Base. nil:
	// http.DefaultTransport.
	Base http.RoundTripper

	// Header has the fields that are added to each request that lacks them. It
	// replaces DefaultHeader, without whose fields FinCode answers 400: to add
	// fields to those, use ExtraHeader. New copies it. nil: DefaultHeader();
	// empty: none.
	Header http.Header

	// ExtraHeader has fields that are added in addition to those of Header. If a
	// field is in both, the values of ExtraHeader are sent. New copies it. nil:
	// none.
	ExtraHeader http.Header

	// RequestID returns the uuid header of a request that has none. It replaces
	// the uuid of Header and ExtraHeader. It is called once each time a request
	// is sent, so a replay gets another uuid. It must be safe for concurrent use.
	// nil: the uuid of Header or ExtraHeader.
	RequestID func() string

	// TokenHeaders chooses the headers that carry the access token to the API.
	// FinCode's logout always gets both. 0: both.
	TokenHeaders TokenHeaders

	// Hosts are other hosts to which the token may be sent, over https, or over
	// http if they are loopback addresses. "api.example.com" means port 443, and
	// "api.example.com:8443" that port. A loopback address without a port means
	// any port over http. New copies Hosts. nil: none.
	Hosts []string

	// RefreshBefore is how long before its expiry a token is refreshed in the
	// background, if it is in use. At most a fifth of the token's lifetime
	// counts. A random part, at most a tenth, is subtracted, so that processes do
	// not all refresh at once. 0: 5 minutes (FINCODE.md, Tokens).
	RefreshBefore time.Duration

	// RefreshTimeout limits each call to the store, and each call for tokens to
	// FinCode. A claim that has not changed for twice this long is taken over.
	// Processes on one store may have different values: a claim carries that of
	// its process, and others wait for twice the larger one. New refuses less than
	// a millisecond and more than a day. 0: 15 seconds.
	RefreshTimeout time.Duration

	// MaxSessions is how many sessions are kept in memory. If there are more, the
	// least recently used ones are dropped, a sixteenth of MaxSessions at once.
	// They are loaded again when they are used. Some are not dropped: a session
	// with an unsaved change or a call under way; one whose refresh failed, for
	// up to an hour; one whose refresh token FinCode refused, until that or a login
	// is saved; one whose Logout failed; and one whose replays the API rejects,
	// until its token expires. 0: 100,000.
	MaxSessions int

	// Credentials returns what to log in with when FinCode refused the refresh
	// token, or when there is none. cause is the *SessionError that callers get
	// otherwise. Credentials is not called after a breach, and not for a session
	// that never began, was logged out, or had already ended.
	//
	// If Credentials returns an error, or if the login fails, callers get that
	// error, and a later refresh tries again. But the session ends if the error
	// is ErrLoginRequired (as cause is), ErrBadCredentials, ErrAccountLocked or
	// ErrUserNotFound.
	//
	// Credentials may be called concurrently for different keys. ctx has the
	// values of a caller's context, and ends after RefreshTimeout. Logins and
	// refreshes of the same session wait until then, or until Credentials returns.
	// So it must not call Login, request a token or do anything else for its own
	// key: such a call returns an error if it has ctx. If Credentials returns later
	// than ctx ends, what it returns is not used, and it may be called again before
	// that. nil: a session that ends stays ended.
	Credentials func(ctx context.Context, key string, cause error) (Credentials, error)

	// Observe is called after each event. It may be called concurrently. Logins
	// and refreshes wait for it, so it must not block, and it must not call
	// methods of the Sessions. LogEvents returns one that logs. nil: events are
	// dropped.
	Observe func(Event)
}

const (
	defaultRefreshBefore  = 5 * time.Minute // FINCODE.md, Tokens
	defaultRefreshTimeout = 15 * time.Second
	maxRefreshTimeout     = 24 * time.Hour
	defaultMaxSessions    = 100_000
)

// Sandbox returns the BaseURL of a tenant's sandbox. The tenant is a name without a
// domain: Sandbox("acme") is "https://acme.fincode.software/api/v6/services".
func Sandbox(tenant string) string {
	return "https://" + url.PathEscape(tenant) + sandboxDomain + "/api/v6/services"
}

// Production returns the BaseURL of a tenant's production. The domain is a name
// without FinCode's: Production("acme") is
// "https://acme.fincode.tech/api/v6/services".
func Production(domain string) string {
	return "https://" + url.PathEscape(domain) + productionDomain + "/api/v6/services"
}

// complete checks c, copies its maps and slices, and replaces zero values by their
// defaults.
func (c *Config) complete() error {
	if _, err := newTrust(c.BaseURL, c.Hosts); err != nil {
		return err
	}
	switch {
	case c.RefreshBefore < 0:
		return fmt.Errorf("RefreshBefore is %v: use a positive duration, or 0 for %v", c.RefreshBefore, defaultRefreshBefore)
	case c.RefreshTimeout < 0, 0 < c.RefreshTimeout && c.RefreshTimeout < time.Millisecond: // 15 for 15*time.Second
		return fmt.Errorf("RefreshTimeout is %v: use a duration such as 15*time.Second, or 0 for that", c.RefreshTimeout)
	case c.RefreshTimeout > maxRefreshTimeout:
		return fmt.Errorf("RefreshTimeout is %v, and a process that dies holds its sessions up for twice that: use at most %v", c.RefreshTimeout, maxRefreshTimeout)
	case c.MaxSessions < 0:
		return fmt.Errorf("MaxSessions is %d: use a positive number, or 0 for %d", c.MaxSessions, defaultMaxSessions)
	}
	if err := cmp.Or(c.TokenHeaders.check(), checkHeader("Header", c.Header), checkHeader("ExtraHeader", c.ExtraHeader)); err != nil {
		return err
	}
	if c.Store == nil {
		c.Store = NewMemoryStore()
	}
	if err := checkStore(c.Store); err != nil {
		return err
	}
	c.Header = merged(c.Header, c.ExtraHeader)
	c.Hosts = slices.Clone(c.Hosts)
	if c.RefreshBefore == 0 {
		c.RefreshBefore = defaultRefreshBefore
	}
	if c.RefreshTimeout == 0 {
		c.RefreshTimeout = defaultRefreshTimeout
	}
	if c.MaxSessions == 0 {
		c.MaxSessions = defaultMaxSessions
	}
	return nil
}

// merged returns a copy of header with the fields of extra. A nil header stands for
// DefaultHeader.
func merged(header, extra http.Header) http.Header {
	if header == nil {
		header = DefaultHeader()
	}
	all := make(http.Header, len(header)+len(extra))
	for _, h := range []http.Header{header, extra} {
		for name, values := range h {
			all[http.CanonicalHeaderKey(name)] = slices.Clone(values)
		}
	}
	return all
}
