package fincodeauth

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/oauth2"
)

// A Store keeps the records of sessions, each under its key, so that other
// processes and later runs find them. Its Save is a compare-and-swap. The rotation
// protocol needs nothing else, so any database can be a Store. Package storetest
// tests whether a Store keeps this contract.
//
// A rotation makes one Load and two Saves. While a process is used, it also makes one
// Load a minute, to find out whether the store has gone back to an earlier state.
//
// Any number of goroutines and processes may call a Store at once. It must honour
// the context: a call whose context has ended returns that context's error. After
// an error that wraps neither ErrNotFound nor ErrConflict, the call may or may not
// have taken effect, and a Save may still do so later: a database may run a statement
// whose caller is gone. The caller finds out with a Load, or with another Save.
//
// A Store must copy a *Record before it keeps it, and before it returns one that it
// keeps, because the caller may change the Record.
type Store interface {
	// Load returns the record under key, or an error that wraps ErrNotFound.
	Load(ctx context.Context, key string) (*Record, error)

	// Save puts rec under key if the record there still has version prev, or, if
	// prev is "", if there is no record. Otherwise Save changes nothing and
	// returns an error that wraps ErrConflict. When it returns nil, rec is
	// durable.
	Save(ctx context.Context, key string, rec *Record, prev string) error

	// Delete removes the record under key, even one that Load cannot read. If
	// there is no record, it returns nil. A Save that began earlier, with the
	// version of the removed record as its prev, must not bring the record back.
	Delete(ctx context.Context, key string) error
}

// A KeyLister is a Store that can list its keys. Sessions.Keys and Sessions.KeepAlive
// use it. All stores of this module, except LocalStore, are KeyListers.
type KeyLister interface {
	// Keys yields the key of each record, in any order, also of a record that has
	// ended or cannot be loaded. It reads the keys in pages, so that a million of
	// them need little memory.
	//
	// A key may come more than once. If its record is saved first, or deleted, while
	// Keys is at work, the key may come or not.
	//
	// If Keys fails, also because ctx has ended, it yields "" and the error. It may go
	// on with other keys if only one record cannot be named.
	Keys(ctx context.Context) iter.Seq2[string, error]
}

// A Record is one session as a Store keeps it. Its JSON form is complete and holds the
// tokens. The form that fmt prints leaves the tokens out, and so does slog if a Record
// is the value of an attribute. But if the value is a slice, a map or a struct with a
// Record in it, slog's JSON handler writes the JSON form.
type Record struct {
	// Version is different for each Save, and never empty. This package makes it,
	// and a Store only compares it. The JSON form begins with it: package etcdstore
	// compares that beginning. The part before the first dot names the
	// session. It changes only with a Login or an Adopt, and with the first Save
	// over a record without a Generation.
	Version string `json:"version"`

	// Generation counts the pairs of the session: 1 for the first, and one more
	// with each rotation. So of two records of one session, anybody can tell the
	// newer one. 0: an earlier version of this package saved the record, and
	// nobody can tell.
	Generation int `json:"generation,omitempty"`

	// Replaces names the sessions that were under this key before, the last one
	// first, at most eight.
	Replaces []string `json:"replaces,omitempty"`

	// Token is the session's current pair. Both tokens in it are empty once
	// the session has ended.
	Token *oauth2.Token `json:"token,omitempty"`

	// RefreshStarted is set while a process presents Token.RefreshToken to
	// FinCode, to the time when that began. The time is for people to read: no
	// process compares it with its clock.
	RefreshStarted time.Time `json:"refresh_started,omitzero"`

	// RefreshTimeout is the Config.RefreshTimeout of that process, in nanoseconds
	// in JSON. Other processes wait for twice this, or twice their own if that is
	// more, before they take the refresh over. 0: unknown, so they wait for twice
	// their own.
	RefreshTimeout time.Duration `json:"refresh_timeout_ns,omitempty"`

	// Ended is set once the session needs a login, and says why.
	Ended string `json:"ended,omitempty"`

	// RemoveAfter is set in the record that a Logout leaves. The record tells
	// other processes that the session was logged out, and not lost. From then on
	// nobody needs it, and the Store may remove it. Zero: the record stays.
	RemoveAfter time.Time `json:"remove_after,omitzero"`
}

// clone returns a copy that shares nothing with r.
func (r *Record) clone() *Record {
	c := *r
	if r.Token != nil {
		tok := *r.Token
		c.Token = &tok
	}
	c.Replaces = slices.Clone(r.Replaces)
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

// A MemoryStore keeps records in memory, for tests and for sessions that may end
// with the process. Its zero value is an empty store. It is safe for concurrent use.
type MemoryStore struct {
	mu      sync.RWMutex
	records map[string]*Record // callers give and get copies of these
	logouts []logoutAt         // which records of a Logout may be removed, and when; the earliest first
}

type logoutAt struct {
	key         string
	removeAfter time.Time
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
	if !rec.RemoveAfter.IsZero() {
		m.logouts = append(m.logouts, logoutAt{key, rec.RemoveAfter})
		m.removeLogouts(time.Now())
	}
	return nil
}

// removeLogouts removes the records of Logouts that nobody needs any more. mu is held.
func (m *MemoryStore) removeLogouts(now time.Time) {
	for len(m.logouts) > 0 && now.After(m.logouts[0].removeAfter) {
		first := m.logouts[0]
		m.logouts = m.logouts[1:]
		if rec := m.records[first.key]; rec != nil && rec.RemoveAfter.Equal(first.removeAfter) {
			delete(m.records, first.key)
		}
	}
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

// Keys implements KeyLister. It yields the keys that were there when it began.
func (m *MemoryStore) Keys(ctx context.Context) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		m.mu.RLock()
		keys := slices.Collect(maps.Keys(m.records))
		m.mu.RUnlock()
		for _, key := range keys {
			if ctx.Err() != nil {
				break
			}
			if !yield(key, nil) {
				return
			}
		}
		if err := ctx.Err(); err != nil {
			yield("", err)
		}
	}
}

// String names the store without its content.
func (m *MemoryStore) String() string { return "MemoryStore" }

// Format prints what String returns, whatever the verb.
func (m *MemoryStore) Format(f fmt.State, _ rune) { fmt.Fprint(f, m.String()) }

// newVersion returns a version that no other Save has. The part before the dot names
// the session. It is that of prev, the version of an earlier record. If prev is "",
// as for a Login or an Adopt, the session is a new one.
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

// versionOf returns the record's version, "" if there is no record.
func versionOf(rec *Record) string {
	if rec == nil {
		return ""
	}
	return rec.Version
}

// hasTokens reports whether tok holds any token.
func hasTokens(tok *oauth2.Token) bool {
	return tok != nil && (tok.AccessToken != "" || tok.RefreshToken != "")
}

// sameTokens reports whether a and b hold the same pair, or both hold none.
func sameTokens(a, b *oauth2.Token) bool {
	if !hasTokens(a) || !hasTokens(b) {
		return hasTokens(a) == hasTokens(b)
	}
	return a.AccessToken == b.AccessToken && a.RefreshToken == b.RefreshToken
}

// keysOf yields the keys of s. If s does not list them, keysOf yields an error that wraps
// errors.ErrUnsupported.
func keysOf(ctx context.Context, s Store) iter.Seq2[string, error] {
	if lister, ok := s.(KeyLister); ok {
		return lister.Keys(ctx)
	}
	return func(yield func(string, error) bool) {
		yield("", fmt.Errorf("%s does not list its keys, because it is not a KeyLister: %w", nameOf(s), errors.ErrUnsupported))
	}
}

// checkStore refuses a store that cannot work.
func checkStore(s Store) error {
	if isNil(s) {
		return fmt.Errorf("the Store is a nil %T: make it with its constructor", s)
	}
	if c, ok := s.(interface{ check() error }); ok {
		return c.check()
	}
	return nil
}

// isNil reports whether v is nil, or is a nil pointer, function, map, slice or channel.
func isNil(v any) bool {
	switch r := reflect.ValueOf(v); r.Kind() {
	case reflect.Invalid:
		return true
	case reflect.Pointer, reflect.Func, reflect.Map, reflect.Slice, reflect.Chan:
		return r.IsNil()
	}
	return false
}
