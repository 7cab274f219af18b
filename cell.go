package fincodeauth

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/oauth2"
)

// A cell is one key of a Store: the place of one record. It calls the Store with a
// time limit, checks what the Store returns, and tells the lookout whether it answered. It
// has no state.
type cell struct {
	session *session
	timeout time.Duration // of each call
}

// load returns the record; nil: there is none.
func (c cell) load(ctx context.Context) (*Record, error) {
	loading, cancel := context.WithTimeoutCause(c.session.env.withEnvironment(ctx), c.timeout, errSlowStore)
	defer cancel()
	began := c.session.env.now()
	rec, err := c.session.env.cfg.Store.Load(loading, c.session.key)
	c.heard(ctx, began, err)
	switch {
	case errors.Is(err, ErrNotFound):
		return nil, nil
	case err != nil:
		return nil, storeError{fmt.Errorf("loading its record: %w", c.slowed(loading, err))}
	}
	if err := usable(rec); err != nil {
		return nil, storeError{err}
	}
	if rec.Token == nil {
		rec.Token = &oauth2.Token{}
	}
	return rec, nil
}

// usable returns an error if rec, which a Store has loaded, cannot be used.
func usable(rec *Record) error {
	switch {
	case rec == nil:
		return errors.New("the Store's Load returned neither a record nor an error: let it return ErrNotFound")
	case rec.Version == "": // no Save can name it as prev
		return errors.New("its record is damaged and has no version: restore it, or call Sessions.Forget and log in again")
	case rec.Token != nil && strings.HasPrefix(rec.Token.AccessToken, sealedPrefix):
		return errors.New("its record is encrypted: wrap the Store with Encrypt and the key that it was saved with")
	}
	return nil
}

// loadStable is load that waits a moment if the record is about to be deleted. A
// record that is saved over it before that could be deleted in its place. Only earlier
// versions of this package delete the record of a Logout, and they set no RemoveAfter.
func (c cell) loadStable(ctx context.Context) (*Record, error) {
	for began := time.Now(); ; {
		rec, err := c.load(ctx)
		if err != nil || rec == nil || rec.Ended != endedLogout || !rec.RemoveAfter.IsZero() || time.Since(began) > saveWait {
			return rec, err
		}
		select {
		case <-time.After(pollMin):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// save saves rec over the version prev. If the outcome is unknown, it loads the
// record to find out (step 6).
func (c cell) save(ctx context.Context, rec *Record, prev string) error {
	saving, cancel := context.WithTimeoutCause(c.session.env.withEnvironment(ctx), c.timeout, errSlowStore)
	defer cancel()
	began := c.session.env.now()
	err := c.session.env.cfg.Store.Save(saving, c.session.key, rec, prev)
	c.heard(ctx, began, err)
	if err == nil || errors.Is(err, ErrConflict) {
		return err
	}
	err = c.slowed(saving, err)
	if there, loadErr := c.load(ctx); loadErr == nil && versionOf(there) == rec.Version {
		return nil
	}
	return storeError{err}
}

// delete deletes the record, whatever it is.
func (c cell) delete(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(c.session.env.withEnvironment(ctx), c.timeout)
	defer cancel()
	if err := c.session.env.cfg.Store.Delete(ctx, c.session.key); err != nil {
		return storeError{fmt.Errorf("deleting its record: %w", err)}
	}
	return nil
}

// heard tells the lookout of a call that began then and has ended with err, unless ctx, of
// the caller, has ended.
func (c cell) heard(ctx context.Context, began time.Time, err error) {
	if answered := err == nil || errors.Is(err, ErrConflict) || errors.Is(err, ErrNotFound); answered || ctx.Err() == nil {
		env := c.session.env
		now := env.now()
		if env.lookout.heard(began.Sub(env.started), now.Sub(env.started), answered) {
			env.lookOut(now, c.session)
		}
	}
}

// within returns the cell with another time limit.
func (c cell) within(timeout time.Duration) cell {
	c.timeout = timeout
	return c
}

// errStale: Load returns a record, and Save says that this record was replaced. A
// Store must not do that, but one that reads from a replica does.
var errStale error = storeError{errors.New("the store loads a record that was replaced: configure it to read from where it writes")}

// errSlowStore is the cause of a context whose call to the store took too long.
var errSlowStore = errors.New("the store is slow")

// slowed says that the store did not answer in time, if that is why a call under ctx
// failed with err: "context deadline exceeded" alone does not tell an operator whose
// deadline it was.
func (c cell) slowed(ctx context.Context, err error) error {
	if context.Cause(ctx) == errSlowStore {
		return fmt.Errorf("the store did not answer within %v: %w", c.timeout, err)
	}
	return err
}
