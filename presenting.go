package fincodeauth

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"golang.org/x/oauth2"
)

// A presenter makes the second half of a pass: it presents the refresh token that a
// flight has claimed, and acts on FinCode's answer. It has the session's turn, and keeps
// the rules of flight.go.
type presenter struct {
	*session

	credentials *Credentials // from Config.Credentials, if FinCode refused the token; nil: not asked yet

	// overslept: a new token had already expired when it was received, because
	// this machine slept meanwhile. That is rare, so there is one more try.
	overslept bool
}

// A result is what a pass achieved: a lease or an error.
type result struct {
	lease  *lease
	err    error         // errAgain: another pass is needed
	pause  time.Duration // before that pass
	change *change       // the result holds if the change is not given up; nil: it holds
}

// errAgain: what is known of the record is out of date. Go back to step 1.
var errAgain = errors.New("the record changed")

// again is the result of a pass after which the flight looks again.
var again = result{err: errAgain}

func failed(err error) result { return result{err: err} }

// exercise uses the claim that was just saved, as far as that is right.
func (p *presenter) exercise(ctx context.Context, claimed *Record, right right) result {
	switch right {
	case mustRelease:
		p.release(ctx, claimed)
		return failed(ErrClosed)
	case mustYield:
		p.activity.memory.unwritable = false
		// Not for longer than RefreshTimeout: others take this claim over after twice that.
		return result{err: errAgain, pause: min(saveRetryMax+saveWait, p.env.cfg.RefreshTimeout)}
	case mustRenew:
		return again
	}
	return p.present(ctx, claimed)
}

// present is step 5. It presents the refresh token to FinCode, unless FinCode has
// already refused it, and acts on the answer.
func (p *presenter) present(ctx context.Context, claimed *Record) result {
	mine := p.activity.memory.mine
	if mine.refusal == nil && claimed.Token.RefreshToken == "" {
		mine.refusal, mine.interrupted = errors.New("there is no refresh token"), false // nobody can have presented it
	}
	if mine.refusal == nil {
		started := p.env.now()
		tok, err := p.env.endpoint.refresh(ctx, claimed.Token)
		if err == nil {
			return p.succeed(claimed, tok, Refreshed, started)
		}
		switch outcomeOf(err) {
		case untouched:
			p.backOff(err)
			p.release(ctx, claimed)
			return failed(err)
		case unknown:
			p.backOff(err)
			mine.interrupted = true
			return failed(err)
		}
		mine.refusal = err
	}
	return p.refused(ctx, claimed)
}

// succeed puts a new token into use, to be saved over the claim.
func (p *presenter) succeed(claimed *Record, tok *oauth2.Token, how EventType, started time.Time) result {
	tookOver := p.activity.memory.mine.tookOver
	p.activity.memory = memory{}
	p.env.tenants.received(tok)
	rec := claimed.successor(tok)
	l := p.env.newLease(tok).of(rec)
	p.env.send(Event{Type: how, Key: p.key, Elapsed: p.env.since(started), TookOver: tookOver})
	p.use(l)
	c := p.bring(&change{
		rec:       rec,
		prev:      claimed.Version,
		presented: claimed.Token,
		meanwhile: errUnsaved,
	})
	if !l.valid(p.env.now()) {
		return p.oversleep()
	}
	return result{lease: l, change: c}
}

// oversleep is the result of a pass whose token had already expired when it came.
func (p *presenter) oversleep() result {
	if p.overslept {
		err := errors.New("received an already expired token, twice: the machine was suspended, or FinCode's tokens live too short")
		p.backOff(err)
		return failed(err)
	}
	p.overslept = true
	return again
}

// release gives the claim back, if it may.
func (p *presenter) release(ctx context.Context, claimed *Record) {
	m := &p.activity.memory
	if free := m.mine.released(claimed); free != nil && p.cell().save(ctx, free, claimed.Version) == nil {
		m.mine = nil
	} // else the claim is still in the store, and known as ours
}

// refused acts on FinCode's refusal, unless another process has changed the record.
func (p *presenter) refused(ctx context.Context, claimed *Record) result {
	mine := p.activity.memory.mine
	answer, _ := errors.AsType[*EndpointError](mine.refusal)
	reused := answer != nil && answer.meaning() == http.StatusForbidden
	why := refusalOf(p.key, p.env.suspecting(mine.refusal), reused, mine.interrupted)
	there, err := p.cell().load(ctx)
	switch {
	case err == nil && versionOf(there) != mine.version:
		return again
	case p.env.cfg.Credentials == nil, isBreach(why):
		// Even if the Load failed: the refusal must not be forgotten, and the
		// compare-and-swap checks the same as the Load.
		return p.end(claimed, why)
	case err != nil:
		return failed(err)
	}
	return p.logInAgain(ctx, claimed, why)
}

// logInAgain logs in with Config.Credentials. It does so under the claim, so that
// only one process logs in.
func (p *presenter) logInAgain(ctx context.Context, claimed *Record, cause *SessionError) result {
	if p.credentials == nil {
		if err := p.mayLogIn(ctx, claimed); err != nil {
			return failed(err)
		}
		c, err := p.ask(ctx, cause)
		if err != nil {
			return p.noLogin(claimed, cause, err)
		}
		p.credentials = &c
	}
	if err := p.mayLogIn(ctx, claimed); err != nil { // asking may have taken long
		return failed(err)
	}
	started := p.env.now()
	tok, err := p.env.endpoint.login(ctx, *p.credentials)
	if err != nil {
		return p.noLogin(claimed, cause, err)
	}
	return p.succeed(claimed, tok, LoggedIn, started)
}

// ask calls Config.Credentials. It waits no longer than RefreshTimeout, even if
// Credentials ignores its context: it may be waiting for this turn. The turn is held.
func (p *presenter) ask(ctx context.Context, cause *SessionError) (Credentials, error) {
	limit := p.env.cfg.RefreshTimeout
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	by, _ := ctx.Value(askedKey{}).(*asked)
	mark := &asked{session: p.session, by: by}
	defer mark.answered.Store(true)
	ctx = context.WithValue(ctx, askedKey{}, mark)
	type answer struct {
		c   Credentials
		err error
	}
	answered := make(chan answer, 1)
	p.pinToo()
	go func() {
		defer p.unpin()
		c, err := p.env.cfg.Credentials(ctx, p.key, cause)
		answered <- answer{c, cmp.Or(err, c.check())}
	}()
	select {
	case a := <-answered:
		return a.c, a.err
	case <-ctx.Done():
		return Credentials{}, fmt.Errorf("Config.Credentials did not return within %v: %w", limit, ctx.Err())
	}
}

// noLogin acts on err, because of which there was no login.
func (p *presenter) noLogin(claimed *Record, cause *SessionError, err error) result {
	declined := errors.Is(err, ErrLoginRequired)
	err = fmt.Errorf("logging in again: %w", err)
	switch {
	case !endsSession(err):
		p.backOff(err)
		return failed(err)
	case !declined:
		cause.Err = fmt.Errorf("%w; %w", cause.Err, err)
	}
	return p.end(claimed, cause)
}

// mayLogIn returns errAgain if the claim must be renewed first, and ErrClosed after
// Close. FinCode's refusal stays known in both cases.
func (p *presenter) mayLogIn(ctx context.Context, claimed *Record) error {
	switch {
	case p.env.isClosing():
		p.release(ctx, claimed)
		return ErrClosed
	case p.activity.memory.mine.isOld(p.env.now(), p.env.cfg.RefreshTimeout):
		return errAgain
	}
	return nil
}

// end takes the token out of use. The end of the session, with its tokens cleared, is to
// be saved over the claim.
func (p *presenter) end(claimed *Record, why *SessionError) result {
	tookOver := p.activity.memory.mine.tookOver
	p.activity.memory = memory{}
	p.use(nil)
	return result{err: why, change: p.bring(&change{
		rec:       claimed.end(why.Err.Error()),
		prev:      claimed.Version,
		presented: claimed.Token,
		ended:     why,
		tookOver:  tookOver,
		meanwhile: told{fmt.Errorf("%w; this is not final before the store answers, because another process may have a newer token", why.Err)},
	})}
}

// backOff notes that a call to FinCode failed.
func (p *presenter) backOff(err error) {
	p.later(p.activity.memory.backOff(err, p.env.now(), p.env.jittered))
}
