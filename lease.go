package fincodeauth

import (
	"math"
	"strings"
	"time"

	"golang.org/x/oauth2"
)

// A lease is a token with the times at which something must happen to it. It does
// not change. The times are by the wall clock, in nanoseconds since 1970, because
// the monotonic clock stands still while a machine is suspended.
type lease struct {
	token     *oauth2.Token
	refreshAt int64         // from then on, the token is refreshed in the background
	expireAt  int64         // from then on, callers wait for the next token
	issued    int64         // when the token was issued; if nobody says: when this process got it
	lifetime  time.Duration // 0: unknown

	// Of the token's record. Zero: nobody needs to know.
	session    string
	generation int
}

// of notes whose token it is, before the lease is put into use.
func (l *lease) of(rec *Record) *lease {
	l.session, l.generation = strings.Clone(sessionOf(rec.Version)), rec.Generation
	return l
}

// never is a time of a lease that does not come.
const never = math.MaxInt64

// newLease returns the lease of a token that this process got now. before is
// Config.RefreshBefore. chance, from 0 to 1, moves the refresh, so that processes do not
// all refresh at once.
func newLease(tok *oauth2.Token, now time.Time, before time.Duration, chance float64) *lease {
	l := &lease{token: tok, issued: now.UnixNano(), refreshAt: never, expireAt: never}
	if tok.AccessToken == "" {
		l.refreshAt, l.expireAt = 0, 0
		return l
	}
	end := expiryOf(tok, now)
	if end.IsZero() {
		return l
	}
	l.lifetime = lifetimeOf(tok, end.Sub(now))
	// end may be from a clock that is ahead of ours. But from now on, no token lives
	// longer than its whole lifetime.
	expiry := min(end.UnixNano(), now.Add(l.lifetime).UnixNano())
	l.issued = expiry - int64(l.lifetime)
	// A request takes time to arrive.
	l.expireAt = expiry - int64(min(10*time.Second, l.lifetime/20))
	l.refreshAt = l.expireAt
	if tok.RefreshToken != "" {
		before = min(before, l.lifetime/5)
		before -= time.Duration(chance * float64(before) / 10)
		l.refreshAt = min(expiry-int64(before), l.expireAt)
	}
	return l
}

// expiryOf returns when tok expires; zero: unknown. A token that lost its Expiry on
// its way through a store may still have the exp of its JWT.
func expiryOf(tok *oauth2.Token, now time.Time) time.Time {
	expiry := tok.Expiry
	if expiry.IsZero() {
		if claims := claimsOf(tok.AccessToken); claims.lifetime() > 0 {
			expiry = claims.expiry()
		}
	}
	if expiry.After(now.Add(century)) {
		return time.Time{}
	}
	if epoch := time.Unix(0, 0); !expiry.IsZero() && expiry.Before(epoch) {
		return epoch // nanoseconds before 1970 may overflow, and the token has expired anyway
	}
	return expiry
}

// lifetimeOf returns how long tok lives from its issue to its expiry: what FinCode's
// answer said, or what the JWT says, or else the time that is left.
func lifetimeOf(tok *oauth2.Token, left time.Duration) time.Duration {
	if tok.ExpiresIn > 0 {
		return seconds(float64(tok.ExpiresIn))
	}
	if lifetime := claimsOf(tok.AccessToken).lifetime(); lifetime > 0 {
		return lifetime
	}
	return max(0, left)
}

// valid reports whether the token may be handed out now.
func (l *lease) valid(now time.Time) bool { return l != nil && now.UnixNano() < l.expireAt }

// isDue reports whether the token should be refreshed now.
func (l *lease) isDue(now time.Time) bool { return now.UnixNano() >= l.refreshAt }

// isYoung reports whether the token is too young to be refreshed after the API rejected
// it: the 401 must have another reason.
func (l *lease) isYoung(now time.Time, strikes int) bool {
	age := time.Duration(now.UnixNano() - l.issued)
	return age >= 0 && age < l.youth(strikes)
}

// youth returns the age below which a token that the API rejected is not refreshed: ten
// seconds, or a tenth of its lifetime if that is less. Each strike doubles it, up to the
// lifetime.
func (l *lease) youth(strikes int) time.Duration {
	lifetime := l.lifetime
	if lifetime == 0 {
		lifetime = time.Hour // FINCODE.md, Tokens
	}
	youth := min(10*time.Second, lifetime/10)
	for range strikes {
		youth = min(2*youth, lifetime)
	}
	return youth
}

// Strikes are what the API's answers say of a session's tokens. They count the replays
// that the API rejected since it last accepted one. An endpoint that rejects every token
// would cost a rotation for each request, and each rotation would make other requests
// replay, too. Each token counts once. If one replay with a token was accepted and
// another was rejected, the rejection counts. Any request may note its answer, so
// session.mu guards the strikes.
type strikes struct {
	count   int
	struck  string // the last token with which a replay was rejected
	cleared string // the last token with which a replay was accepted
	before  int    // the count before that replay

	rejected string // the access token in use, if the API rejected it
}

func (k *strikes) replayed(token string, accepted bool) {
	switch {
	case token == k.struck:
	case accepted && token != k.cleared:
		k.cleared, k.before, k.count = token, k.count, 0
	case !accepted:
		if token == k.cleared {
			k.count = k.before
		}
		k.count++
		k.struck = token
	}
}
