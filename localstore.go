package fincodeauth

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/oauth2"
)

// LocalStore makes a Store of two functions that load and save a token. It is for
// one process: it keeps versions, claims and the reason why a session ended in
// memory only, so a restart loses them.
//
// load returns the token under key. If there is none, it returns a nil token, or an
// error that wraps ErrNotFound. After load has returned a token, or a session was saved,
// load is not called again for that key in this process, not even after a Logout.
//
// save is called only when the tokens change. tok is nil when the session has ended
// or was deleted. When save returns nil, the token must be durable.
//
// Both functions may be called concurrently, but not for the same key at once. Under
// Encrypt, the AccessToken of their token is the encrypted pair, which also changes
// with each claim.
//
// New and Encrypt refuse a LocalStore whose load or save is nil.
func LocalStore(
	load func(ctx context.Context, key string) (*oauth2.Token, error),
	save func(ctx context.Context, key string, tok *oauth2.Token) error,
) Store {
	return &localStore{load: load, save: save, entries: make(map[string]*localEntry)}
}

type localStore struct {
	load func(ctx context.Context, key string) (*oauth2.Token, error)
	save func(ctx context.Context, key string, tok *oauth2.Token) error

	mu      sync.Mutex // guards entries; not held while load or save runs
	entries map[string]*localEntry
}

// A localEntry is what a localStore knows of one key.
type localEntry struct {
	turn  chan struct{} // holds a value while a call has the turn
	rec   *Record       // nil: not loaded, or there is none; only the call that has the turn uses it, and callers give and get copies
	users int           // calls that have the turn or wait for it; guarded by localStore.mu
}

// enter waits for key's turn, and loads the entry's record if it is not loaded. The
// caller must call leave when it is done with the entry.
func (l *localStore) enter(ctx context.Context, key string) (e *localEntry, leave func(), err error) {
	e, leave, err = l.turn(ctx, key)
	if err != nil {
		return nil, nil, err
	}
	if err := l.fill(ctx, key, e); err != nil {
		leave()
		return nil, nil, err
	}
	return e, leave, nil
}

// fill loads the entry's record, unless it is known. The caller has the turn.
func (l *localStore) fill(ctx context.Context, key string, e *localEntry) error {
	if e.rec != nil {
		return nil
	}
	tok, err := l.load(ctx, key)
	switch {
	case errors.Is(err, ErrNotFound), err == nil && tok == nil:
		return nil
	case err != nil:
		return err
	}
	e.rec = (&Record{Version: newVersion(""), Token: tok}).clone()
	return nil
}

// turn waits until no other call uses key's entry. The caller must call leave when it
// is done with the entry.
func (l *localStore) turn(ctx context.Context, key string) (e *localEntry, leave func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	e = l.join(key)
	select {
	case e.turn <- struct{}{}:
	case <-ctx.Done():
		l.part(key, e)
		return nil, nil, ctx.Err()
	}
	return e, func() {
		l.part(key, e)
		<-e.turn
	}, nil
}

// join adds the caller to the users of key's entry.
func (l *localStore) join(key string) *localEntry {
	l.mu.Lock()
	defer l.mu.Unlock()
	e, ok := l.entries[key]
	if !ok {
		e = &localEntry{turn: make(chan struct{}, 1)}
		l.entries[key] = e
	}
	e.users++
	return e
}

// part removes the caller from the users of the entry, and the entry from memory
// if it has neither users nor a record.
func (l *localStore) part(key string, e *localEntry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e.users--; e.users == 0 && e.rec == nil {
		delete(l.entries, key)
	}
}

// Load implements Store.
func (l *localStore) Load(ctx context.Context, key string) (*Record, error) {
	e, leave, err := l.enter(ctx, key)
	if err != nil {
		return nil, err
	}
	defer leave()
	if e.rec == nil {
		return nil, ErrNotFound
	}
	return e.rec.clone(), nil
}

// Save implements Store.
func (l *localStore) Save(ctx context.Context, key string, rec *Record, prev string) error {
	e, leave, err := l.enter(ctx, key)
	if err != nil {
		return err
	}
	defer leave()
	var old Record
	if e.rec != nil {
		old = *e.rec
	}
	if old.Version != prev {
		return ErrConflict
	}
	if !sameTokens(old.Token, rec.Token) {
		var tok *oauth2.Token // nil: the session ended
		if hasTokens(rec.Token) {
			tok = rec.clone().Token
		}
		if err := l.save(ctx, key, tok); err != nil {
			return err
		}
	}
	e.rec = rec.clone()
	return nil
}

// Delete implements Store.
func (l *localStore) Delete(ctx context.Context, key string) error {
	e, leave, err := l.turn(ctx, key)
	if err != nil {
		return err
	}
	defer leave()
	// Sessions.Forget must be able to delete a token that cannot be loaded.
	if err := l.fill(ctx, key, e); err == nil && e.rec == nil {
		return nil
	}
	if err := l.save(ctx, key, nil); err != nil {
		return err
	}
	e.rec = nil
	return nil
}

func (l *localStore) check() error {
	if l.load == nil || l.save == nil {
		return errors.New("LocalStore has a nil function: give it both load and save")
	}
	return nil
}

// String names the store without its content.
func (l *localStore) String() string { return "LocalStore" }

// Format prints what String returns, whatever the verb.
func (l *localStore) Format(f fmt.State, _ rune) { fmt.Fprint(f, l.String()) }
