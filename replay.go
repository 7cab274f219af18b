package fincodeauth

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Replaying: what a process left in its journal is saved by another one. The journal
// knows neither the Sessions nor the keys of Encrypt that are outside of it. Both are in
// the context of each call.

type (
	environmentKey struct{} // its value is the *environment of the Sessions that call the store
	encryptionKey  struct{} // its value is the *encryptedStore that calls the store
)

// withEnvironment returns the context for a call to the store, whose events go to e.
func (e *environment) withEnvironment(ctx context.Context) context.Context {
	return context.WithValue(ctx, environmentKey{}, e)
}

func environmentOf(ctx context.Context) *environment {
	e, _ := ctx.Value(environmentKey{}).(*environment)
	return e
}

// newer returns an entry that is newer than what the store has, and that this process can
// decrypt. If there is none, newer removes the entries that are not newer, and returns nil.
func (j *journal) newer(ctx context.Context, entries []*entry, there *Record) *entry {
	var useless []*entry
	for _, e := range entries {
		if !e.isAhead(there, time.Now()) {
			useless = append(useless, e)
			continue
		}
		err := e.verify(ctx)
		if err == nil {
			return e
		}
		j.report(ctx, string(e.Key), e.path, fmt.Errorf("the journal's file %s has a newer token than the store, but it %w", e.path, err))
	}
	for _, e := range useless { // not before: such an entry may be newer than another entry
		j.remove(ctx, e)
	}
	return nil
}

// verify returns an error if this process does not have the key of the entry.
func (e *entry) verify(ctx context.Context) error {
	text := e.Record.Token.AccessToken
	if by, ok := ctx.Value(encryptionKey{}).(*encryptedStore); ok {
		_, err := by.open(string(e.Key), text)
		return err
	}
	if strings.HasPrefix(text, sealedPrefix) {
		return errors.New("is encrypted: wrap the Journal with Encrypt and the key that it was saved with")
	}
	return nil
}

// replay saves the entry over what the store has. A conflict is no error: others have
// changed the record, and who replays looks again.
func (j *journal) replay(ctx context.Context, e *entry, there *Record) error {
	err := j.store.Save(ctx, string(e.Key), e.Record, versionOf(there))
	if errors.Is(err, ErrConflict) {
		return nil
	}
	if env := environmentOf(ctx); err == nil && env != nil {
		env.replayed(e, there)
	}
	return err
}

// replayed sends the events of an entry that was saved over what was there.
func (e *environment) replayed(saved *entry, there *Record) {
	key := string(saved.Key)
	if saved.showsLoss(there) {
		e.reportReverted(nil, key, revertedError(there, saved.Record))
	}
	e.observe(Saved, key, max(0, e.now().Sub(saved.Saved)), nil)
}

// maxReported is how many paths a journal remembers. After that it begins anew, so a
// JournalFailed may be sent twice.
const maxReported = 1000

// report sends JournalFailed, once for each path.
func (j *journal) report(ctx context.Context, key, path string, err error) {
	env := environmentOf(ctx)
	if env == nil {
		return
	}
	j.mu.Lock()
	known := j.reported[path]
	if len(j.reported) >= maxReported {
		clear(j.reported)
	}
	j.reported[path] = true
	j.mu.Unlock()
	if !known {
		env.observe(JournalFailed, key, 0, err)
	}
}

// journalIn returns the journal that s is, also inside Encrypt, and the context for its
// calls; nil: there is none.
func journalIn(ctx context.Context, s Store) (*journal, context.Context) {
	switch s := s.(type) {
	case *journal:
		return s, ctx
	case *encryptedStore:
		return journalIn(s.withEncryption(ctx), s.store)
	}
	return nil, nil
}

// replayLeft starts a goroutine that saves what other processes left in the journal, if
// there is one. Close ends that goroutine and waits for it.
func (e *environment) replayLeft() {
	j, ctx := journalIn(e.withEnvironment(context.Background()), e.cfg.Store)
	if j == nil || e.enlist() != nil {
		return
	}
	ctx, cancel := e.untilClosing(ctx)
	go func() {
		defer e.work.Done()
		defer cancel()
		e.replayAll(ctx, j)
	}()
}

// replayAll looks at each key that is in the journal, until the store has not failed for
// any of them. After each failure it pauses, twice as long as before.
func (e *environment) replayAll(ctx context.Context, j *journal) {
	for complete, pause := false, backoffMin; !complete; {
		complete = true
		for key := range j.left(ctx) {
			if e.replayKey(ctx, j, key) {
				continue
			}
			complete = false
			if e.pause(e.jittered(pause)) != nil {
				return
			}
			pause = min(2*pause, backoffMax)
		}
	}
}

// replayKey loads the record under key, which saves what the journal has of it. It returns
// false if the store failed.
func (e *environment) replayKey(ctx context.Context, j *journal, key string) bool {
	ctx, cancel := context.WithTimeout(ctx, e.cfg.RefreshTimeout)
	defer cancel()
	_, err := j.Load(ctx, key)
	return err == nil || errors.Is(err, ErrNotFound)
}
