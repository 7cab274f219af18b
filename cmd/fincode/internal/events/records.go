package events

import (
	"context"
	"errors"

	"github.com/fincodeauth/fincodeauth"
)

// maxSeen is how many sessions are remembered, so that an unchanged record is noted once.
const maxSeen = 10_000

// Store returns a Store for fincodeauth.Config.Store that keeps its records in inner, and
// notes which are loaded and saved. It goes around Encrypt, because an encrypted token has
// no hash that anybody can compare. It lists its keys if inner does.
func (j *Journal) Store(inner fincodeauth.Store) fincodeauth.Store {
	r := &records{Store: inner, journal: j}
	if lister, ok := inner.(fincodeauth.KeyLister); ok {
		return struct {
			*records
			fincodeauth.KeyLister
		}{r, lister}
	}
	return r
}

type records struct {
	fincodeauth.Store
	journal *Journal
}

// Load implements fincodeauth.Store.
func (r *records) Load(ctx context.Context, key string) (*fincodeauth.Record, error) {
	rec, err := r.Store.Load(ctx, key)
	switch {
	case errors.Is(err, fincodeauth.ErrNotFound):
		if r.journal.isNew(key, "") {
			r.journal.note(Entry{Kind: Loaded, Key: key})
		}
	case err == nil && rec != nil && r.journal.isNew(key, rec.Version):
		r.journal.note(r.journal.entryOf(Loaded, key, rec, ""))
	}
	return rec, err
}

// Save implements fincodeauth.Store.
func (r *records) Save(ctx context.Context, key string, rec *fincodeauth.Record, prev string) error {
	r.journal.note(r.journal.entryOf(Saving, key, rec, prev))
	err := r.Store.Save(ctx, key, rec, prev)
	noted := Entry{Kind: Saved, Key: key, Version: rec.Version, Prev: prev}
	switch {
	case err == nil:
		r.journal.isNew(key, rec.Version)
	case errors.Is(err, fincodeauth.ErrConflict):
		noted.Kind = Conflicted
	default:
		noted.Kind, noted.Error = Unsaved, err.Error()
	}
	r.journal.note(noted)
	return err
}

// entryOf returns the entry of a record.
func (j *Journal) entryOf(kind Kind, key string, rec *fincodeauth.Record, prev string) Entry {
	e := Entry{Kind: kind, Key: key, Version: rec.Version, Prev: prev, Generation: rec.Generation,
		Claim: !rec.RefreshStarted.IsZero(), Ended: rec.Ended}
	if rec.Token != nil {
		e.Token = j.hash(rec.Token.RefreshToken)
	}
	return e
}

// isNew notes the version that the store has under key, and reports whether it is another
// one than before.
func (j *Journal) isNew(key, version string) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	if before, ok := j.seen[key]; ok && before == version {
		return false
	}
	if len(j.seen) >= maxSeen {
		clear(j.seen)
	}
	j.seen[key] = version
	return true
}
