package fincodeauth

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/fincodeauth/fincodeauth/internal/durable"
)

// An entry is a record on its way into the store, as a file of a journal:
//
//	<dir>/<two digits>/<hash of the key>.<hash of both versions>.json
//
// The two digits are the first of the hash of the key. So the entries of one key are found
// in one small folder, even if there are 100,000 entries. All digits are hexadecimal.
type entry struct {
	Key    []byte    `json:"key"`   // the session's; Base64 in JSON, because a key may be any bytes
	Prev   string    `json:"prev"`  // the version that Record replaces; "": there was no record
	Saved  time.Time `json:"saved"` // when the Save began, by the wall clock
	Record *Record   `json:"record"`

	path string // of its file
}

// entryPrefix begins the names of the entries of key.
func entryPrefix(key string) string { return fmt.Sprintf("%x.", sha256.Sum256([]byte(key))) }

// name returns the name of the entry's file. It is new for each prev, so that nobody removes
// a later entry in the place of an earlier one.
func (e *entry) name() string {
	versions := sha256.Sum256([]byte(e.Record.Version + "\x00" + e.Prev))
	return fmt.Sprintf("%s%x%s", entryPrefix(string(e.Key)), versions, entrySuffix)
}

// needsEntry reports whether rec has tokens that may exist nowhere else: those of a login or
// a refresh, or of a claim that was given back. A claim has the tokens of the record that it
// replaces. The end of a session has none.
func needsEntry(rec *Record) bool {
	return rec.Version != "" && hasTokens(rec.Token) && rec.RefreshStarted.IsZero() && rec.Ended == ""
}

// isAhead reports whether the entry is certainly newer than what the store has; nil: the
// store has no record.
func (e *entry) isAhead(there *Record, now time.Time) bool {
	switch {
	case versionOf(there) == e.Prev: // its Save was not carried out
		return there != nil || now.Sub(e.Saved) < rememberedFor
	case there != nil && there.Ended == endedLogout && e.beginsSession(): // the Logout came after the login
		return false
	}
	return knownOf(e.Record, e.Saved).isAhead(there, now)
}

// showsLoss reports whether the store must have gone back, because it has there.
func (e *entry) showsLoss(there *Record) bool {
	return !e.beginsSession() && (&change{rec: e.Record, presented: e.Record.Token}).showsLoss(there)
}

// beginsSession reports whether no record of the same session was in the store before.
func (e *entry) beginsSession() bool { return sessionOf(e.Prev) != sessionOf(e.Record.Version) }

// errDamagedEntry shows nothing of the file, which may hold tokens.
var errDamagedEntry = errors.New("is damaged")

// read returns the entry in a file. Its error is errDamagedEntry, durable.ErrHeld, or why the
// file could not be read.
func read(path string) (*entry, error) {
	data, err := durable.Read(path)
	if err != nil {
		return nil, err
	}
	e := &entry{path: path}
	if json.Unmarshal(data, e) != nil || e.Record == nil || !needsEntry(e.Record) || e.Saved.IsZero() {
		return nil, errDamagedEntry
	}
	if e.name() != filepath.Base(path) {
		return nil, errDamagedEntry
	}
	return e, nil
}
