package fincodeauth

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/oauth2"
)

// A visit is KeepAlive's look at one session.
type visit struct {
	*keeper
	key   string
	part  float64 // of the age at which the session must be refreshed: it is due then
	began time.Time
}

// visit refreshes the session if it is due, and remembers when it is due next.
func (k *keeper) visit(ctx context.Context, key string, hash uint64) {
	k.pauseAfter(ctx, k.unread.Load())
	v := &visit{keeper: k, key: key, part: dueFrom + dueSpread*float64(hash>>11)/(1<<53), began: k.env.now()}
	if rec, ok := v.load(ctx); ok {
		if due, ok := v.keep(ctx, rec); ok {
			k.remember(hash, due)
		}
	}
}

// load returns the record; nil: there is none. ok is false if that failed.
func (v *visit) load(ctx context.Context) (rec *Record, ok bool) {
	rec, err := v.peek(ctx, v.key)
	if ctx.Err() != nil {
		return nil, false
	}
	if err != nil {
		v.tell(v.key, err, 0)
		v.probe(ctx)
		return nil, false
	}
	v.unread.Store(0)
	v.readable.Store(&v.key)
	return rec, true
}

// probe finds out whether the store is down, or the record that could not be loaded is
// damaged. The lookout hears that the store answers, too.
func (v *visit) probe(ctx context.Context) {
	n, key := v.unread.Add(1), v.readable.Load()
	if key == nil || n%probeEach != 1 {
		return
	}
	if _, err := v.peek(ctx, *key); err == nil {
		v.unread.Store(0)
	}
}

// keep refreshes the session if it is due, and returns when it is due next. ok is false if
// the refresh failed.
func (v *visit) keep(ctx context.Context, rec *Record) (due time.Time, ok bool) {
	if err := v.foreign(rec); err != nil {
		v.tell(v.key, err, roundsPerAge)
		return v.later(), true
	}
	v.succeeded(v.key)
	if rec == nil || rec.Ended != "" || rec.Token.RefreshToken == "" {
		return v.later(), true
	}
	due = dueAt(rec.Token, v.began.Add(-v.every), v.began, v.every, v.part)
	if v.began.Before(due) {
		return due, true
	}
	v.pauseAfter(ctx, v.failures.Load())
	due, err := v.refresh(ctx, rec)
	if err != nil {
		v.failures.Add(1)
		return due, false
	}
	v.failures.Store(0)
	return due, true
}

// later returns when a session is due that begins after this visit, or a little earlier.
func (v *visit) later() time.Time { return v.began.Add(time.Duration(v.part * float64(v.every))) }

// foreign returns an error if the session is another tenant's. rec may be nil.
func (v *visit) foreign(rec *Record) error {
	if rec == nil {
		return nil
	}
	tenant := tenancyOf(rec.Token)
	if v.env.tenants.mayBeOurs(tenant) {
		return nil
	}
	return fmt.Errorf("it is not kept alive: its token is of tenant %q, and this process has received no token of that tenant; give each tenant a Store of its own", tenant)
}

// dueAt decides when a session is due. issued is when its token was issued, if the token
// does not say: an expiry alone says only that it has not expired. part is the part of the
// time that must have passed.
func dueAt(tok *oauth2.Token, issued, now time.Time, every time.Duration, part float64) time.Time {
	says := tok.ExpiresIn > 0 || claimsOf(tok.AccessToken).lifetime() > 0
	if l := newLease(tok, now, 0, 0); says && l.lifetime != 0 {
		issued = time.Unix(0, l.issued)
	}
	limit, early := every, time.Duration(0)
	if lifetime := claimsOf(tok.RefreshToken).lifetime(); 0 < lifetime && lifetime < every {
		// A round is long for it, and the order of the keys may change from round to round.
		limit, early = lifetime, 2*every/roundsPerAge
	}
	return issued.Add(time.Duration(part*float64(limit)) - early)
}

// refresh refreshes the session, like a request that finds the token expired. If the
// token has not expired, refresh acts as after a 401. It returns when the session is due
// next.
func (v *visit) refresh(ctx context.Context, rec *Record) (due time.Time, err error) {
	defer v.enter()()
	if err := v.foreign(rec); err != nil { // FinCode's first answer has come meanwhile
		v.tell(v.key, err, roundsPerAge)
		return v.later(), nil
	}
	if v.isSuspect(rec) {
		return v.began, nil
	}
	src, now := v.TokenSource(v.key), v.env.now()
	tok, err := src.token(ctx, false)
	if err == nil && sameTokens(tok, rec.Token) {
		tok, err = src.refresh(ctx, tok, true) // a process that has just loaded a token takes it for young
	}
	switch {
	case isEnd(err):
		v.suspect(rec)
		return v.later(), nil
	case err != nil:
		return v.began, err
	}
	return dueAt(tok, now, now, v.every, v.part), nil
}

// enter lets one refresh begin after the other while FinCode has sent no token. The caller
// calls leave after its refresh.
func (v *visit) enter() (leave func()) {
	if v.env.tenants.areUnknown() {
		v.first <- struct{}{}
		if v.env.tenants.areUnknown() {
			return func() { <-v.first }
		}
		<-v.first
	}
	return func() {}
}

// suspect notes that FinCode has refused a token that should have been alive: its tenant may
// be another one. A token that nobody has refreshed in time may simply be dead.
func (v *visit) suspect(rec *Record) {
	tenant := tenancyOf(rec.Token)
	if tenant == "" || !v.began.Before(dueAt(rec.Token, v.began.Add(-v.every), v.began, v.every, 1)) {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.suspects[tenant] = true
}

// isSuspect reports whether the session waits for the next round, because FinCode may refuse
// it, too.
func (v *visit) isSuspect(rec *Record) bool {
	tenant := tenancyOf(rec.Token)
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.suspects[tenant] && v.env.tenants.areUnknown()
}
