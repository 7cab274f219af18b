package events

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/fincodeauth/fincodeauth"
)

// A Journal writes entries. It is safe for concurrent use.
type Journal struct {
	process Process
	now     func() time.Time
	hashKey []byte
	write   func(Entry)

	mu   sync.Mutex
	seen map[string]string // by session key: the version of the record that was noted last
}

// To returns a Journal that hands its entries to write, in the name of a process. key is
// any secret: the same key gives the same hashes. write may be called concurrently.
// Refreshes wait for it. now is time.Now, except in a simulation.
func To(write func(Entry), process Process, key []byte, now func() time.Time) (*Journal, error) {
	if len(key) == 0 {
		return nil, errors.New("the journal of events needs a key for its hashes")
	}
	hashKey, err := hkdf.Key(sha256.New, key, nil, "fincode: hashes of tokens in the journal of events", sha256.Size)
	if err != nil {
		return nil, err
	}
	return &Journal{process: process, now: now, hashKey: hashKey, write: write, seen: make(map[string]string)}, nil
}

// note writes an entry of this moment.
func (j *Journal) note(e Entry) {
	e.Time, e.Process = j.now(), j.process
	j.write(e)
}

// hash returns the keyed hash of a token; "" for none.
func (j *Journal) hash(token string) string {
	if token == "" {
		return ""
	}
	mac := hmac.New(sha256.New, j.hashKey)
	mac.Write([]byte(token))
	return hex.EncodeToString(mac.Sum(nil)[:16])
}

// Observe notes an event. It is for fincodeauth.Config.Observe. It leaves out events of
// which there are many and which change nothing: a command that only uses a token writes one
// entry, for what it has loaded.
func (j *Journal) Observe(e fincodeauth.Event) {
	switch e.Type {
	case fincodeauth.Adopted, fincodeauth.Replayed, fincodeauth.Passed:
		return
	}
	noted := Entry{Kind: Event, Event: e.Type.String(), Key: e.Key, Elapsed: e.Elapsed, TookOver: e.TookOver}
	if e.Err != nil {
		noted.Error = e.Err.Error()
	}
	if end, ok := errors.AsType[*fincodeauth.SessionError](e.Err); ok {
		noted.Reused, noted.Interrupted = end.Reused, end.Interrupted
	}
	j.note(noted)
}

// Observed returns the event that Observe has noted in the entry, with the text of its
// error; false: the entry is of another kind.
func (e *Entry) Observed() (fincodeauth.Event, bool) {
	event := fincodeauth.Event{Type: typeOf(e.Event), Key: e.Key, Time: e.Time, Elapsed: e.Elapsed, TookOver: e.TookOver}
	if e.Error != "" {
		event.Err = errors.New(e.Error)
	}
	if event.Type == fincodeauth.Ended {
		end := &fincodeauth.SessionError{Key: e.Key, Reused: e.Reused, Interrupted: e.Interrupted}
		end.Err = errors.New(strings.TrimPrefix(e.Error, end.Error()+": "))
		event.Err = end
	}
	return event, event.Type != 0
}

// typeOf returns the type with that name; 0: there is none.
func typeOf(name string) fincodeauth.EventType {
	for t := fincodeauth.LoggedIn; t <= fincodeauth.JournalFailed; t++ {
		if t.String() == name {
			return t
		}
	}
	return 0
}

// String names the process without the key.
func (j *Journal) String() string { return "Journal of " + j.process.Command }

// Format prints what String returns, whatever the verb.
func (j *Journal) Format(f fmt.State, _ rune) { fmt.Fprint(f, j.String()) }
