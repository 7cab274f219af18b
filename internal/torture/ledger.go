package torture

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/fincodeauth/fincodeauth"
)

// A Deed is a kind of Entry.
type Deed string

// What a process did in the store. A Save is two entries: it might be killed in
// between. The first has Key, Version and Prev, the last Version, Began and Result.
const (
	Claiming   Deed = "saves a claim"    // and Token, which it is about to present
	Saving     Deed = "saves a token"    // and Token and Expiry
	Ending     Deed = "saves the end"    // and why, as Result
	Saved      Deed = "has saved"        // Result is "", conflict or an error
	LoadFailed Deed = "could not load"   // Key and Result
	Observed   Deed = "observes"         // Key; Result is the event
	Failed     Deed = "lost a request"   // Key, Began and Result
	Presented  Deed = "presents"         // Token; noted by the supervisor
	Answered   Deed = "is answered"      // Token; Result is the HTTP status; noted by the supervisor
	Killed     Deed = "is killed"        // noted by the supervisor just before
	Cut        Deed = "cuts connections" // noted by the supervisor just before
	Broke      Deed = "broke by itself"  // Result is how; no process may
	Vanished   Deed = "finds no record"  // Key and Result; noted by the supervisor
)

// conflict is the Result of a Save that was too late.
const conflict = "conflict"

// An Entry is one line of the ledger. All processes are on one machine and read
// the same clock.
type Entry struct {
	At      time.Time
	By      string // the process
	Did     Deed
	Key     string    `json:",omitempty"`
	Token   string    `json:",omitempty"` // the refresh token's fingerprint
	Version string    `json:",omitempty"`
	Prev    string    `json:",omitempty"`
	Expiry  time.Time `json:",omitzero"` // the access token's
	Began   time.Time `json:",omitzero"`
	Result  string    `json:",omitempty"`
	Late    bool      `json:",omitempty"` // of Saved and LoadFailed: the store's time had run out
}

// fingerprint names a refresh token without telling it.
func fingerprint(refreshToken string) string {
	sum := sha256.Sum256([]byte(refreshToken))
	return hex.EncodeToString(sum[:4])
}

// A ledger collects entries from many goroutines.
type ledger struct {
	mu  sync.Mutex
	all []Entry
}

func (l *ledger) add(e Entry) {
	if e.At.IsZero() {
		e.At = time.Now()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, e)
}

// entries returns what was added so far, in the order in which it happened.
func (l *ledger) entries() []Entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := slices.Clone(l.all)
	slices.SortStableFunc(all, func(a, b Entry) int { return cmp.Compare(a.At.UnixNano(), b.At.UnixNano()) })
	return all
}

// A notary is a Store that notes each Save, before and after.
type notary struct {
	fincodeauth.Store
	note func(Entry)
}

func (n *notary) Load(ctx context.Context, key string) (*fincodeauth.Record, error) {
	began := time.Now()
	rec, err := n.Store.Load(ctx, key)
	if err != nil && !errors.Is(err, fincodeauth.ErrNotFound) {
		n.note(Entry{Did: LoadFailed, Key: key, Began: began, Result: err.Error(), Late: ctx.Err() != nil})
	}
	return rec, err
}

func (n *notary) Save(ctx context.Context, key string, rec *fincodeauth.Record, prev string) error {
	begun := Entry{Did: Saving, Key: key, Version: rec.Version, Prev: prev,
		Token: fingerprint(rec.Token.RefreshToken), Expiry: rec.Token.Expiry}
	switch {
	case rec.Ended != "":
		begun.Did, begun.Result = Ending, rec.Ended
	case !rec.RefreshStarted.IsZero():
		begun.Did = Claiming
	}
	n.note(begun)
	began := time.Now()
	err := n.Store.Save(ctx, key, rec, prev)
	done := Entry{Did: Saved, Key: key, Version: rec.Version, Began: began, Late: ctx.Err() != nil}
	switch {
	case errors.Is(err, fincodeauth.ErrConflict):
		done.Result = conflict
	case err != nil:
		done.Result = err.Error()
	}
	n.note(done)
	return err
}
