package fincodeauth

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"golang.org/x/oauth2"
)

// A Store keeps the records of sessions, each under its key, where a restart of
// the process, or another process, finds them. Its Save is a compare-and-swap;
// the rotation protocol asks for nothing else, so that any database can be a
// Store. Package storetest proves that one keeps this contract.
//
// A Store may be called by any number of goroutines and processes at once. It
// must honour the context: a call whose context has ended returns that
// context's error. An error that wraps neither ErrNotFound nor ErrConflict
// leaves open whether the call took effect; the caller finds out with a Load.
//
// A Store must not keep the *Record that it was given nor hand out one that it
// keeps: the caller may change either.
type Store interface {
	// Load returns the record under key, or an error that wraps ErrNotFound.
	Load(ctx context.Context, key string) (*Record, error)

	// Save puts rec under key if the record there still has version prev ("": if there is none);
	// otherwise it changes nothing and returns an error that wraps ErrConflict.
	// When it returns nil, rec is durable.
	Save(ctx context.Context, key string, rec *Record, prev string) error

	// Delete removes the record under key. No record is no error.
	// A Save that began before, with the version of the removed record as its
	// prev, does not bring it back.
	Delete(ctx context.Context, key string) error
}

// A Record is one session as a Store keeps it. Its JSON form is complete, and
// so holds the tokens; whatever prints a Record leaves them out, and so does slog
// for one that is an attribute's value (inside a slice, a map or a struct, slog's
// JSON handler takes the JSON form).
type Record struct {
	// Version is unique to this Save, and never empty. The package makes it; a
	// Store only compares it. What is before its first dot stays the same from a
	// Login, or an Adopt, to the next.
	Version string `json:"version"`

	// Token is the session's current pair. Both tokens in it are empty once
	// the session has ended.
	Token *oauth2.Token `json:"token,omitempty"`

	// RefreshStarted is non-zero while a process is presenting
	// Token.RefreshToken. It is for people who look: no clock is compared with
	// it.
	RefreshStarted time.Time `json:"refresh_started,omitzero"`

	// Ended is non-empty once the session needs a login, and says why.
	Ended string `json:"ended,omitempty"`
}

// clone returns a copy that shares nothing with r.
func (r *Record) clone() *Record {
	c := *r
	if r.Token != nil {
		tok := *r.Token
		c.Token = &tok
	}
	return &c
}

// String describes the record without its tokens.
func (r Record) String() string {
	expiry := "unknown"
	if r.Token != nil && !r.Token.Expiry.IsZero() {
		expiry = r.Token.Expiry.Format(time.RFC3339)
	}
	return fmt.Sprintf("Record(version %s, expiry %s, refreshing %t, ended %q)",
		r.Version, expiry, !r.RefreshStarted.IsZero(), r.Ended)
}

// Format prints what String returns, whatever the verb.
func (r Record) Format(f fmt.State, _ rune) { fmt.Fprint(f, r.String()) }

// LogValue is what slog records: what String returns.
func (r Record) LogValue() slog.Value { return slog.StringValue(r.String()) }

// A MemoryStore keeps records in memory: it survives nothing, and is right for
// tests and for sessions that may end with the process. The zero value is empty.
// It is safe for concurrent use.
type MemoryStore struct {
	mu      sync.RWMutex
	records map[string]*Record // never handed out or taken in: copies are
}

// NewMemoryStore returns an empty MemoryStore.
func NewMemoryStore() *MemoryStore { return new(MemoryStore) }

// Load implements Store.
func (m *MemoryStore) Load(ctx context.Context, key string) (*Record, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	rec, ok := m.records[key]
	if !ok {
		return nil, ErrNotFound
	}
	return rec.clone(), nil
}

// Save implements Store.
func (m *MemoryStore) Save(ctx context.Context, key string, rec *Record, prev string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var version string
	if old, ok := m.records[key]; ok {
		version = old.Version
	}
	if version != prev {
		return ErrConflict
	}
	if m.records == nil {
		m.records = make(map[string]*Record)
	}
	m.records[key] = rec.clone()
	return nil
}

// Delete implements Store.
func (m *MemoryStore) Delete(ctx context.Context, key string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.records, key)
	return nil
}

// String names the store without its content.
func (m *MemoryStore) String() string { return "MemoryStore" }

// Format prints what String returns, whatever the verb.
func (m *MemoryStore) Format(f fmt.State, _ rune) { fmt.Fprint(f, m.String()) }

// LocalStore makes a Store of two functions that load and save a token. It is
// for one process: versions, claims and the reason why a session ended are kept
// in memory alone, and a restart forgets them.
//
// load returns the token under key; a nil token, or an error that wraps
// ErrNotFound, means that there is none. Once it returned a token it is not
// called again for that key until the session is deleted. save is called only
// when the tokens change, and with a nil token when the session ended or was
// deleted; when it returns nil, the token must be durable. Under Encrypt, the
// token is one whose AccessToken is the sealed pair, and changes with each claim
// too. Both may be called concurrently, but never at once for the same key.
//
// New refuses a LocalStore one of whose functions is nil.
func LocalStore(
	load func(ctx context.Context, key string) (*oauth2.Token, error),
	save func(ctx context.Context, key string, tok *oauth2.Token) error,
) Store {
	return &localStore{load: load, save: save, entries: make(map[string]*localEntry)}
}

type localStore struct {
	load func(ctx context.Context, key string) (*oauth2.Token, error)
	save func(ctx context.Context, key string, tok *oauth2.Token) error

	mu      sync.Mutex // held during no call of the two
	entries map[string]*localEntry
}

// A localEntry is what a localStore knows of one key.
type localEntry struct {
	turn  chan struct{} // holds a value while somebody has the turn
	rec   *Record       // for who has the turn; nil: unknown, or none. Never handed out or taken in: copies are
	users int           // who have the turn or wait for it; guarded by localStore.mu
}

// enter waits for key's turn, and makes sure that the entry has the key's record
// if there is one. The caller calls leave when done with the entry.
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

// turn waits for key's turn.
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

// join makes the caller a user of key's entry.
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

// part ends that, and forgets an entry that says nothing.
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
	// A token that cannot be loaded is deleted, too: Sessions.Forget needs that.
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

// newVersion returns a version that no other Save has, of the session of the
// record whose version is prev; "": of a new one, begun by Login or Adopt. What
// is before its dot says which that is.
func newVersion(prev string) string {
	if prev == "" {
		return rand.Text()
	}
	return sessionOf(prev) + "." + rand.Text()
}

func sessionOf(version string) string {
	session, _, _ := strings.Cut(version, ".")
	return session
}

// hasTokens tells whether tok holds any token.
func hasTokens(tok *oauth2.Token) bool {
	return tok != nil && (tok.AccessToken != "" || tok.RefreshToken != "")
}

// sameTokens tells whether a and b hold the same pair, or none both.
func sameTokens(a, b *oauth2.Token) bool {
	if !hasTokens(a) || !hasTokens(b) {
		return hasTokens(a) == hasTokens(b)
	}
	return a.AccessToken == b.AccessToken && a.RefreshToken == b.RefreshToken
}
