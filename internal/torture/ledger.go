package torture

// Rules for concurrency. All goroutines of the supervisor add entries at any time.
// ledger.mu guards the list. Entries are values: nobody changes one after it was
// added. A notary has no state of its own.

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

// The deeds, and which fields their entries have besides At and By.
//
// A Save makes two entries, because its process may be killed in between. The
// first is Claiming, Saving or Ending. The second is Saved.
const (
	Claiming   Deed = "saves a claim"    // Key, Version, Prev, and Token, which the process is about to present
	Saving     Deed = "saves a token"    // Key, Version, Prev, Token, Expiry
	Ending     Deed = "saves the end"    // Key, Version, Prev, and the reason as Result
	Saved      Deed = "has saved"        // Key, Version, Began, Late; Result is "", conflict or an error
	LoadFailed Deed = "could not load"   // Key, Began, Result, Late
	Observed   Deed = "observes"         // Key; Result is the event
	Failed     Deed = "failed a request" // Key, Began, Result
	Presented  Deed = "presents"         // Token; the supervisor notes it
	Answered   Deed = "gets the answer"  // Token; Result is the HTTP status; the supervisor notes it
	Killed     Deed = "is killed"        // the supervisor notes it just before
	Cut        Deed = "cuts connections" // the supervisor notes it just before
	Broke      Deed = "broke"            // Result is how; this must never happen
	Vanished   Deed = "finds no record"  // Key, Result; the supervisor notes it; this must never happen
)

// conflict is the Result of a Save that was too late: another Save came first.
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
	Late    bool      `json:",omitempty"` // the store's time had run out
}

// fingerprint returns a name for a refresh token that does not reveal the token.
func fingerprint(refreshToken string) string {
	sum := sha256.Sum256([]byte(refreshToken))
	return hex.EncodeToString(sum[:4])
}

// A ledger collects entries from many goroutines.
type ledger struct {
	mu  sync.Mutex
	all []Entry
}

// add adds an entry. If it has no time, it gets the present one.
func (l *ledger) add(e Entry) {
	if e.At.IsZero() {
		e.At = time.Now()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, e)
}

// entries returns what was added so far, in the order of time.
func (l *ledger) entries() []Entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := slices.Clone(l.all)
	slices.SortStableFunc(all, func(a, b Entry) int { return cmp.Compare(a.At.UnixNano(), b.At.UnixNano()) })
	return all
}

// A notary is a Store that notes each Save, before and after, and each Load that
// failed.
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
