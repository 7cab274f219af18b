package fincodeauth

import (
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"

	"golang.org/x/oauth2"
)

// The decisions of the protocol, row by row. What is done with them is tested from
// outside, and in the simulation.

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

const timeout = 15 * time.Second

func pairOf(name string) *oauth2.Token {
	return &oauth2.Token{AccessToken: "access-" + name, RefreshToken: "refresh-" + name, Expiry: noon.Add(time.Hour), ExpiresIn: 3600}
}

// free returns a record that nobody has claimed.
func free(version, pair string) *Record {
	return &Record{Version: version, Generation: 1, Token: pairOf(pair)}
}

func claimed(version, pair string) *Record {
	rec := free(version, pair)
	rec.RefreshStarted = noon.Add(-time.Hour) // says nothing
	return rec
}

func ended(version, why string) *Record {
	return &Record{Version: version, Token: &oauth2.Token{}, Ended: why}
}

func TestWhatALoadedRecordAsksFor(t *testing.T) {
	good := newLease(pairOf("2"), noon, 0, 0)
	expired := newLease(&oauth2.Token{AccessToken: "access-2", Expiry: noon.Add(-time.Hour), ExpiresIn: 3600}, noon, 0, 0)
	watched := memory{seen: "s.2", seenSince: noon.Add(-2 * timeout)}
	for name, c := range map[string]struct {
		rec      *Record
		lease    *lease // of the record's token
		inUse    *oauth2.Token
		rejected bool
		memory   memory
		want     step
	}{
		"no record":                                                {want: stepStop},
		"no record, and a good token in use":                       {inUse: pairOf("1"), want: stepStop},
		"an ended session":                                         {rec: ended("s.2", endedReused), want: stepStop},
		"a session that was logged out":                            {rec: ended("s.2", endedLogout), want: stepStop},
		"another token that is good":                               {rec: free("s.2", "2"), lease: good, inUse: pairOf("1"), want: stepAdopt},
		"the first token of this process":                          {rec: free("s.2", "2"), lease: good, want: stepAdopt},
		"another token that is good, and claimed":                  {rec: claimed("s.2", "2"), lease: good, inUse: pairOf("1"), want: stepAdopt},
		"another token that the API rejected":                      {rec: free("s.2", "2"), lease: good, inUse: pairOf("1"), rejected: true, want: stepClaim},
		"another token that has expired":                           {rec: free("s.2", "2"), lease: expired, inUse: pairOf("1"), want: stepClaim},
		"the token in use":                                         {rec: free("s.2", "2"), lease: good, inUse: pairOf("2"), want: stepClaim},
		"a claim that was not seen before":                         {rec: claimed("s.2", "2"), lease: expired, want: stepStandBy},
		"another claim than the one seen":                          {rec: claimed("s.2", "2"), lease: expired, memory: memory{seen: "s.1", seenSince: noon.Add(-time.Hour)}, want: stepStandBy},
		"a claim that was seen for 30 s":                           {rec: claimed("s.2", "2"), lease: expired, memory: watched, want: stepTakeOver},
		"a claim that was seen for less than 30 s":                 {rec: claimed("s.2", "2"), lease: expired, memory: memory{seen: "s.2", seenSince: noon.Add(-2*timeout + 1)}, want: stepStandBy},
		"a claim of this process":                                  {rec: claimed("s.2", "2"), lease: expired, memory: memory{mine: &claim{version: "s.2", saved: true}}, want: stepRenew},
		"a claim that this process meant to renew":                 {rec: claimed("s.2", "2"), lease: expired, memory: memory{mine: &claim{version: "s.3", over: "s.2", renewal: true}}, want: stepRenew},
		"a claim of this process, although the clock was set back": {rec: claimed("s.2", "2"), lease: good, inUse: pairOf("2"), memory: memory{mine: &claim{version: "s.2", saved: true}}, want: stepRenew},
		"the token in use, rejected":                               {rec: free("s.2", "2"), lease: good, inUse: pairOf("2"), rejected: true, want: stepClaim},
		"a rejected token that others have claimed":                {rec: claimed("s.2", "2"), lease: good, inUse: pairOf("2"), rejected: true, want: stepStandBy},
		"a good token under a claim seen for 30 s":                 {rec: claimed("s.2", "2"), lease: good, inUse: pairOf("1"), memory: watched, want: stepAdopt},
		"another process took the claim over":                      {rec: claimed("s.2", "2"), lease: expired, memory: memory{mine: &claim{version: "s.1", saved: true}}, want: stepStandBy},
	} {
		t.Run(name, func(t *testing.T) {
			x := situation{rec: c.rec, lease: c.lease, inUse: c.inUse, rejected: c.rejected, memory: &c.memory, now: noon, timeout: timeout}
			if got := x.step(); got != c.want {
				t.Errorf("the record asks for %d, want %d", got, c.want)
			}
		})
	}
}

func TestWhatAClaimKnowsOfTheOneBefore(t *testing.T) {
	refusal := errors.New("403")
	for name, c := range map[string]struct {
		rec  *Record
		mine *claim // the last one of this process
		want claim  // version "": a new one
	}{
		"the first claim": {rec: free("s.1", "1"), want: claim{over: "s.1"}},
		"a takeover":      {rec: claimed("s.1", "1"), want: claim{over: "s.1", interrupted: true, tookOver: true}},
		"a takeover, although this process had a claim before": {
			rec: claimed("s.1", "1"), mine: &claim{version: "s.0", saved: true, refusal: refusal}, want: claim{over: "s.1", interrupted: true, tookOver: true}},
		"a renewal": {
			rec: claimed("s.1", "1"), mine: &claim{version: "s.1", saved: true, refusal: refusal}, want: claim{over: "s.1", renewal: true, refusal: refusal}},
		"a renewal of a takeover": {
			rec: claimed("s.1", "1"), mine: &claim{version: "s.1", saved: true, interrupted: true, tookOver: true}, want: claim{over: "s.1", renewal: true, interrupted: true, tookOver: true}},
		"a renewal after an attempt of unknown outcome": {
			rec: claimed("s.1", "1"), mine: &claim{version: "s.1", saved: true, interrupted: true}, want: claim{over: "s.1", renewal: true, interrupted: true}},
		"a claim whose Save may still land": {
			rec: free("s.1", "1"), mine: &claim{version: "s.2", over: "s.1"}, want: claim{version: "s.2", over: "s.1"}},
		"a renewal whose Save may still land": {
			rec: claimed("s.1", "1"), mine: &claim{version: "s.2", over: "s.1", renewal: true}, want: claim{version: "s.2", over: "s.1", renewal: true}},
		"a takeover whose Save may still land": {
			rec: claimed("s.1", "1"), mine: &claim{version: "s.2", over: "s.1"}, want: claim{version: "s.2", over: "s.1", interrupted: true, tookOver: true}},
		"a claim that would have replaced another record": {
			rec: free("s.3", "3"), mine: &claim{version: "s.2", over: "s.1"}, want: claim{over: "s.3"}},
		"a claim on the same pair, after the store has lost the last one": {
			rec: free("s.1", "1"), mine: &claim{version: "s.2", over: "s.1", saved: true, token: pairOf("1"), interrupted: true}, want: claim{over: "s.1", interrupted: true}},
		"the same, and FinCode had refused the token": {
			rec: free("s.1", "1"), mine: &claim{version: "s.2", over: "s.1", saved: true, token: pairOf("1"), refusal: refusal}, want: claim{over: "s.1", refusal: refusal}},
		"a claim on the same pair, after a takeover that failed": {
			rec: free("s.3", "1"), mine: &claim{version: "s.2", over: "s.1", token: pairOf("1"), interrupted: true}, want: claim{over: "s.3"}},
	} {
		t.Run(name, func(t *testing.T) {
			m := memory{mine: c.mine}
			got := *m.claimOn(c.rec, c.rec.next(), noon)
			if c.want.version == "" {
				if got.version == c.rec.Version || c.mine != nil && got.version == c.mine.version || sessionOf(got.version) != "s" {
					t.Errorf("the claim has version %q, want a new one of the same session", got.version)
				}
				c.want.version = got.version
			}
			c.want.since, c.want.token = noon, c.rec.Token
			if got != c.want {
				t.Errorf("the claim is %+v, want %+v", got, c.want)
			}
		})
	}
}

func TestWhatASavedClaimAllows(t *testing.T) {
	// A Time without a monotonic clock stands for a machine whose clocks agree.
	young, old := noon.Add(-timeout/2), noon.Add(-timeout/2-1)
	for name, c := range map[string]struct {
		memory  memory
		closing bool
		want    right
	}{
		"a claim half as old as a call may take":                     {memory: memory{mine: &claim{since: young}}, want: mayPresent},
		"an older one":                                               {memory: memory{mine: &claim{since: old}}, want: mustRenew},
		"after the store had failed":                                 {memory: memory{mine: &claim{since: young}, unwritable: true}, want: mayPresent},
		"a takeover":                                                 {memory: memory{mine: &claim{since: young, interrupted: true}}, want: mayPresent},
		"a takeover after the store had failed":                      {memory: memory{mine: &claim{since: young, interrupted: true}, unwritable: true}, want: mustYield},
		"an old takeover after the store had failed":                 {memory: memory{mine: &claim{since: old, interrupted: true}, unwritable: true}, want: mustYield},
		"its own claim, after an unknown outcome and a failed store": {memory: memory{mine: &claim{since: young, renewal: true, interrupted: true}, unwritable: true}, want: mustYield},
		"an old claim after the store had failed":                    {memory: memory{mine: &claim{since: old}, unwritable: true}, want: mustRenew},
		"any claim of a process that is being closed":                {memory: memory{mine: &claim{since: old, interrupted: true}, unwritable: true}, closing: true, want: mustRelease},
	} {
		t.Run(name, func(t *testing.T) {
			if got := c.memory.rightOf(c.closing, noon, timeout); got != c.want {
				t.Errorf("the claim allows %d, want %d", got, c.want)
			}
		})
	}
}

func TestWhatAnAnswerOfFinCodeMeans(t *testing.T) {
	answer := func(status int, code string) error { return &EndpointError{Op: opRefresh, Status: status, Code: code} }
	for _, c := range []struct {
		err  error
		want outcome
	}{
		{answer(401, ""), refused},
		{answer(403, ""), refused},
		{answer(200, "AUTH_REQUIRED"), refused},
		{answer(200, "FORBIDDEN"), refused},
		{fmt.Errorf("wrapped: %w", answer(403, "")), refused},
		{&EndpointError{Op: opRefresh, Status: 401, foreign: true}, untouched},
		{&EndpointError{Op: opRefresh, Status: 403, foreign: true}, untouched},
		{answer(307, ""), untouched},
		{answer(400, ""), untouched},
		{answer(404, ""), untouched},
		{answer(422, ""), untouched},
		{answer(429, ""), untouched},
		{answer(200, "VALIDATION_ERROR"), untouched},
		{answer(http.StatusRequestTimeout, ""), unknown},
		{answer(500, ""), unknown},
		{answer(503, ""), unknown},
		{answer(101, ""), unknown},
		{answer(200, "SOMETHING_ELSE"), unknown},
		{&callError{op: opRefresh, err: errors.New("refused")}, untouched},
		{&callError{op: opRefresh, sent: true, err: errors.New("reset")}, unknown},
		{errors.New("the answer has no access token"), unknown},
	} {
		if got := outcomeOf(c.err); got != c.want {
			t.Errorf("%#v has the outcome %d, want %d", c.err, got, c.want)
		}
	}
}

func TestWhatBecomesOfAChangeAfterAConflict(t *testing.T) {
	successor := change{rec: free("s.3", "2"), prev: "s.2", presented: pairOf("1")}
	end := change{rec: ended("s.3", endedReused), prev: "s.2", presented: pairOf("1")}
	login := change{rec: free("n", "n"), prev: "s.2"}
	login.rec.Replaces = []string{"s", "t"}
	unheard := login
	unheard.unheard = true
	first, firstUnheard := login, unheard
	first.prev, firstUnheard.prev = "", ""
	sameRefreshToken := &Record{Version: "s.4", Token: &oauth2.Token{AccessToken: "access-2b", RefreshToken: "refresh-1"}}

	for name, c := range map[string]struct {
		change change
		there  *Record
		want   fate
	}{
		"a successor finds what it was to replace":              {successor, claimed("s.2", "1"), fateStale},
		"a successor finds itself":                              {successor, free("s.3", "2"), fateSaved},
		"a successor finds a claim of another process on it":    {successor, claimed("s.4", "2"), fateSaved},
		"a successor finds that another process took over":      {successor, claimed("s.4", "1"), fateReplaces},
		"a successor finds its old pair, claimed by nobody":     {successor, free("s.4", "1"), fateReplaces},
		"a successor finds a newer pair":                        {successor, free("s.5", "3"), fateGivenUp},
		"a successor finds another session":                     {successor, free("x", "x"), fateGivenUp},
		"a successor finds that others ended the session":       {successor, ended("s.4", endedReused), fateGivenUp},
		"a successor finds that the session was logged out":     {successor, ended("s.4", endedLogout), fateLoggedOut},
		"a successor finds nothing":                             {successor, nil, fateReplaces},
		"an end finds what it was to replace":                   {end, claimed("s.2", "1"), fateStale},
		"an end finds that another process took over":           {end, claimed("s.4", "1"), fateReplaces},
		"an end finds a newer pair":                             {end, free("s.4", "2"), fateGivenUp},
		"an end finds a newer pair with the same refresh token": {end, sameRefreshToken, fateGivenUp},
		"a successor finds a pair with the old refresh token":   {successor, sameRefreshToken, fateReplaces},
		"an end finds another end":                              {end, ended("s.4", endedReused), fateGivenUp},
		"an end finds nothing":                                  {end, nil, fateReplaces},
		"an end finds itself":                                   {end, ended("s.3", endedReused), fateSaved},
		"an end finds that the session was logged out":          {end, ended("s.4", endedLogout), fateLoggedOut},
		"an end finds another session without tokens":           {end, &Record{Version: "x", Token: &oauth2.Token{}}, fateGivenUp},
		"a login finds an ended session":                        {login, ended("s.4", endedReused), fateReplaces},
		"an unheard login finds the end of its own session":     {unheard, ended("n.2", endedReused), fateGivenUp},
		"a login finds what it was to replace":                  {login, free("s.2", "1"), fateStale},
		"a login finds another session":                         {login, free("x", "x"), fateReplaces},
		"a login finds that the session was logged out":         {login, ended("s.4", endedLogout), fateReplaces},
		"a login finds nothing":                                 {login, nil, fateReplaces},
		"a first login finds nothing":                           {first, nil, fateStale},
		"an unheard login finds itself":                         {unheard, free("n", "n"), fateSaved},
		"an unheard login finds a claim on it":                  {unheard, claimed("n.2", "n"), fateSaved},
		"an unheard login finds its own successor":              {unheard, free("n.3", "n2"), fateGivenUp},
		"an unheard login finds the session that it replaces":   {unheard, claimed("s.7", "1"), fateReplaces},
		"an unheard login finds the unsaved session before it":  {unheard, free("t", "t"), fateReplaces},
		"an unheard login finds another session":                {unheard, free("x", "x"), fateGivenUp},
		"an unheard login finds that it was logged out":         {unheard, ended("n.2", endedLogout), fateLoggedOut},
		"an unheard login finds nothing":                        {unheard, nil, fateReplaces},
		"an unheard first login finds nothing":                  {firstUnheard, nil, fateStale},
	} {
		t.Run(name, func(t *testing.T) {
			if got := c.change.fateOver(c.there); got != c.want {
				t.Errorf("the fate is %d, want %d", got, c.want)
			}
		})
	}
}

func TestWhenATokenIsRefreshed(t *testing.T) {
	opaque := func(expiresIn time.Duration) *oauth2.Token {
		return &oauth2.Token{AccessToken: "a", RefreshToken: "r", Expiry: noon.Add(expiresIn), ExpiresIn: int64(expiresIn / time.Second)}
	}
	for name, c := range map[string]struct {
		token              *oauth2.Token
		chance             float64
		refresh, handedOut time.Duration // until then; 0: not at all
	}{
		"an hour":                       {token: opaque(time.Hour), refresh: 55 * time.Minute, handedOut: time.Hour - 10*time.Second},
		"an hour, moved by chance":      {token: opaque(time.Hour), chance: 1, refresh: 55*time.Minute + 30*time.Second, handedOut: time.Hour - 10*time.Second},
		"a minute":                      {token: opaque(time.Minute), refresh: 48 * time.Second, handedOut: 57 * time.Second},
		"two seconds":                   {token: opaque(2 * time.Second), refresh: 1600 * time.Millisecond, handedOut: 1900 * time.Millisecond},
		"no refresh token":              {token: &oauth2.Token{AccessToken: "a", Expiry: noon.Add(time.Hour)}, refresh: time.Hour - 10*time.Second, handedOut: time.Hour - 10*time.Second},
		"no access token":               {token: &oauth2.Token{RefreshToken: "r"}},
		"a clock that was ahead":        {token: &oauth2.Token{AccessToken: "a", RefreshToken: "r", Expiry: noon.Add(5 * time.Hour), ExpiresIn: 3600}, refresh: 55 * time.Minute, handedOut: time.Hour - 10*time.Second},
		"expired":                       {token: &oauth2.Token{AccessToken: "a", RefreshToken: "r", Expiry: noon.Add(-time.Hour), ExpiresIn: 3600}},
		"a lifetime that nobody states": {token: &oauth2.Token{AccessToken: "a", RefreshToken: "r"}, refresh: never, handedOut: never},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLease(c.token, noon, 5*time.Minute, c.chance)
			for what, at := range map[string]struct {
				got  int64
				want time.Duration
			}{"refreshed": {l.refreshAt, c.refresh}, "handed out": {l.expireAt, c.handedOut}} {
				after := time.Duration(at.got - noon.UnixNano())
				if at.got == never {
					after = never
				}
				if after != at.want && (at.want != 0 || after > 0) {
					t.Errorf("the token is %s after or until %v, want %v", what, after, at.want)
				}
			}
		})
	}
}

func TestHowLongAProcessWaitsAfterAFailedCall(t *testing.T) {
	shortest := func(d time.Duration) time.Duration { return d * 4 / 5 }
	var m memory
	failure := errors.New("503")
	for i, want := range []time.Duration{1, 2, 4, 8, 16, 32, 48, 48, 48} {
		if got := m.backOff(failure, noon, shortest); got != want*time.Second {
			t.Errorf("after %d failures the wait is %v, want %v", i+1, got, want*time.Second)
		}
	}
	for asked, want := range map[time.Duration]time.Duration{time.Second: time.Second, 30 * time.Minute: 30 * time.Minute, 5 * time.Hour: time.Hour} {
		if got := m.backOff(&EndpointError{Status: 429, RetryAfter: asked}, noon, shortest); got != want || !m.retryAt.Equal(noon.Add(want)) {
			t.Errorf("FinCode asked for %v, and the wait is %v until %v, want %v", asked, got, m.retryAt, want)
		}
	}
}

func TestHowLongASessionIsRemembered(t *testing.T) {
	claimedAt := func(ago time.Duration) *claim { return &claim{since: noon.Add(-ago)} }
	refused := claimedAt(100 * time.Hour)
	refused.refusal = errors.New("403")
	for name, c := range map[string]struct {
		memory memory
		want   bool
	}{
		"nothing":                        {memory{}, false},
		"another process's claim":        {memory{seen: "s.1", seenSince: noon}, false},
		"a backoff":                      {memory{failures: 1, retryAt: noon.Add(1)}, true},
		"a backoff that is over":         {memory{failures: 1, retryAt: noon}, false},
		"a claim of less than an hour":   {memory{mine: claimedAt(time.Hour - 1)}, true},
		"a claim of an hour":             {memory{mine: claimedAt(time.Hour)}, false},
		"a claim whose token is refused": {memory{mine: refused}, true},
	} {
		if got := c.memory.isNeeded(noon); got != c.want {
			t.Errorf("%s is remembered = %t, want %t", name, got, c.want)
		}
	}
}

func TestWhichClaimIsGivenBack(t *testing.T) {
	accessToken := &Record{Version: "s.1", Token: &oauth2.Token{AccessToken: "a"}}
	for name, c := range map[string]struct {
		mine claim
		rec  *Record
		want *oauth2.Token // nil: the claim stays
	}{
		"an attempt that did not use the token": {rec: claimed("s.1", "1"), want: pairOf("1")},
		"after one of unknown outcome":          {mine: claim{interrupted: true}, rec: claimed("s.1", "1")},
		"a token that FinCode refused": {
			mine: claim{refusal: errors.New("401")}, rec: claimed("s.1", "1"), want: &oauth2.Token{AccessToken: "access-1"}},
		"no refresh token": {mine: claim{refusal: errors.New("none")}, rec: accessToken, want: accessToken.Token},
	} {
		got := c.mine.released(c.rec)
		switch {
		case c.want == nil && got != nil, c.want != nil && got == nil:
			t.Errorf("%s: the claim is given back with %v, want %t", name, got, c.want != nil)
		case got != nil && (!got.RefreshStarted.IsZero() || got.Version == c.rec.Version || !sameTokens(got.Token, c.want)):
			t.Errorf("%s: the claim is given back as %v, want a free record of a new version with the right tokens", name, got)
		}
	}
}

func TestWhatALogoutRemoves(t *testing.T) {
	mine := memory{mine: &claim{version: "s.1", saved: true, token: pairOf("1")}}
	refused := memory{mine: &claim{version: "s.1", saved: true, token: pairOf("1"), refusal: errors.New("401")}}
	for name, c := range map[string]struct {
		memory           memory
		rec              *Record
		claimed, refused bool
	}{
		"a free record":                      {memory{}, free("s.1", "1"), false, false},
		"another process's claim":            {memory{}, claimed("s.1", "1"), true, false},
		"a claim of this process":            {mine, claimed("s.1", "1"), false, false},
		"a claim whose token is refused":     {refused, claimed("s.1", "1"), false, true},
		"a claim that was taken over":        {mine, claimed("s.2", "1"), true, false},
		"a refused one that was taken over":  {refused, claimed("s.2", "1"), true, true},
		"a refused one that the store lost":  {refused, free("s.0", "1"), false, true},
		"a record that others have released": {refused, free("s.2", "2"), false, false},
	} {
		if got := c.memory.removes(c.rec); got.rec != c.rec || got.claimed != c.claimed || got.refused != c.refused {
			t.Errorf("%s: got %+v, want claimed %t and refused %t", name, got, c.claimed, c.refused)
		}
	}
}

func TestWhichFailedLoginEndsTheSession(t *testing.T) {
	answer := func(status int) error { return fmt.Errorf("wrapped: %w", &EndpointError{Op: opLogin, Status: status}) }
	for _, c := range []struct {
		err  error
		want bool
	}{
		{&SessionError{}, true},
		{ErrLoginRequired, true},
		{answer(401), true},
		{answer(403), true},
		{answer(404), true},
		{&EndpointError{Op: opLogin, Status: 403, foreign: true}, false},
		{answer(429), false},
		{answer(503), false},
		{errors.New("vault is down"), false},
	} {
		if got := endsSession(c.err); got != c.want {
			t.Errorf("%v ends the session = %t, want %t", c.err, got, c.want)
		}
	}
}
