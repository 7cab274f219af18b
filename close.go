package fincodeauth

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// Close stops refreshing. It waits until the calls that are under way have ended and
// every rotated token is saved. Give ctx a deadline: without one, Close waits as
// long as the store is down. If ctx has already ended, Close waits for one second.
//
// If ctx ends first, Close returns an error that wraps the cause of that end. Close
// then gives up the changes that are not saved. The error names their sessions,
// whose users must log in again, and wraps the store's last error. Changes that a
// Journal has are not lost: the error says so if there are no others. If everything is
// saved, the error names the sessions with calls under way: a token that such a call
// receives may be lost. These calls end within RefreshTimeout, or within a few times
// RefreshTimeout if the store is slow, too.
//
// After Close, requests, Login, Adopt, Logout and Forget return ErrClosed. Close may
// be called again.
func (a *Sessions) Close(ctx context.Context) error {
	if err := a.check(); err != nil {
		return fmt.Errorf("fincodeauth: close: %w", err)
	}
	ended := ctx.Err() != nil
	a.env.close()
	for s := range a.sessions.all {
		s.withdraw()
	}
	done := make(chan struct{})
	go func() {
		a.env.work.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		if ended {
			select {
			case <-done:
			case <-time.After(saveWait):
			}
		}
		a.env.abandon()
	}
	cause := context.Cause(ctx)
	if err := a.lost(cause); err != nil {
		return fmt.Errorf("fincodeauth: close: %w", err)
	}
	select {
	case <-done:
		return nil
	default:
		busy := a.busy()
		if len(busy) == 0 { // the last call has just ended
			return fmt.Errorf("fincodeauth: close: %w", cause)
		}
		return fmt.Errorf("fincodeauth: close: calls to FinCode or the store for %q are still under way, and what they achieve may be lost: %w", busy, cause)
	}
}

// busy returns the keys of sessions with calls under way, at most ten.
func (a *Sessions) busy() []string {
	var keys []string
	for s := range a.sessions.all {
		if s.isPinned() {
			keys = append(keys, s.key)
		}
	}
	slices.Sort(keys)
	return keys[:min(len(keys), 10)]
}

// lost returns an error that names the sessions whose last change is not saved, and
// says why; nil if there are none. cause is why this Close stopped waiting; nil: it
// did not, but an earlier Close gave the sessions up.
func (a *Sessions) lost(cause error) error {
	refused, left := make(map[string]error), make(map[string]error)
	for s := range a.sessions.all {
		err := s.unsavedError()
		if _, ok := errors.AsType[journaledError](err); ok {
			left[s.key] = err
		} else if err != nil {
			refused[s.key] = err
		}
	}
	what := "whose users must log in again"
	if len(refused) == 0 {
		refused, what = left, "which the next process with the same journal saves"
	}
	if len(refused) == 0 {
		return nil
	}
	keys := slices.Sorted(maps.Keys(refused))
	return fmt.Errorf("the store did not accept the last change of %d session(s), %s: %q: %w: the store's last error: %w",
		len(keys), what, keys[:min(len(keys), 10)], cmp.Or(cause, ErrClosed), refused[keys[0]])
}
