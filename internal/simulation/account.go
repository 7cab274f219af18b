package simulation

// Rules for concurrency. world.mu guards the fields that a comment names as guarded.
// The other fields do not change after the world was made, or the process was
// started. String and dice need no lock, and isLoggedIn, begin and end lock world.mu
// themselves. The other methods are called with world.mu held.

import (
	"math/rand/v2"
	"time"

	"github.com/fincodeauth/fincodeauth"
)

// An account is a user's account at FinCode. All processes share its session. Its
// name is the session's key.
type account struct {
	world  *world
	number int // 0 for the first
	key    string

	// Guarded by world.mu.
	shelf // what the store has of it
	fate  // what happened to it
}

func newAccount(w *world, number int) *account {
	names := [...]string{"ada", "bob", "cyd", "dan", "eve"}
	return &account{world: w, number: number, key: names[number], shelf: shelf{versions: make(map[string]*version)}}
}

const mailbox = "@example.com"

func (a *account) credentials() fincodeauth.Credentials {
	return fincodeauth.Credentials{Email: a.key + mailbox, Password: "analytical engine"}
}

// isLoggedIn reports whether the store has a refresh token.
func (a *account) isLoggedIn() bool {
	a.world.mu.Lock()
	defer a.world.mu.Unlock()
	now := a.current()
	return now != nil && now.pair != nil
}

// account returns the account with that key. The package under test knows no other
// key.
func (w *world) account(key string) *account {
	for _, a := range w.accounts {
		if a.key == key {
			return a
		}
	}
	panic("there is no account " + key)
}

// A view is one process as the user of one account sees it, with all that this
// process can know of the account's session. Some of that is in memory only, so the
// process forgets it when it drops the session: see mayBeDropped and mayBeForgotten.
type view struct {
	*process
	account *account
	source  *fincodeauth.TokenSource // which callers keep, while sessions are dropped

	// Guarded by world.mu.
	userCalls      int                 // logins and logouts that are under way here
	userCallsSince time.Time           // when the first of them began
	userCallsUntil time.Time           // when one of them returned last
	own            map[*pair]bool      // the pairs that the process got from FinCode itself
	rejected       map[*pair]bool      // a call of this process with the access token was answered 401
	presented      *presentation       // the last one of a refresh token
	held           *pair               // the pair that the process handed out last; nil: it may have another now
	heldAt         time.Time           // when it did that
	installed      time.Time           // when the process began to use its token, by its own wall clock
	loggedOut      map[*family]bool    // the sessions that a user logged out here
	got            map[*pair]time.Time // the pairs that the process had, and since when
	calls          int                 // all calls for the account that are under way here
	usedUntil      time.Time           // when one of them returned last; zero: none has returned
}

// String names the account only if there are several.
func (v *view) String() string {
	if len(v.views) == 1 {
		return v.process.String()
	}
	return v.process.String() + " " + v.account.key
}

// dice returns the chance for one purpose of the process and the account at this
// instant.
func (v *view) dice(purpose string) *rand.Rand {
	return v.machine.world.dice(purpose, v.id+v.account.number<<16)
}

// begin notes that a call for the account begins.
func (v *view) begin() {
	v.machine.world.mu.Lock()
	defer v.machine.world.mu.Unlock()
	v.calls++
}

// end notes that such a call has returned.
func (v *view) end() {
	v.machine.world.mu.Lock()
	defer v.machine.world.mu.Unlock()
	v.ends()
}

func (v *view) ends() {
	v.calls--
	v.usedUntil = time.Now()
}

// mayBeDropped reports whether the package may have dropped the session from the
// process's memory since the process handed out its token. A session is dropped only
// when another one needs the room. So it was not dropped if nobody has used another
// account in this process since, or if all accounts that were ever used here fit
// into the memory. Otherwise nobody can know: a session is dropped before one that
// was used less recently, if that one has something to remember.
func (v *view) mayBeDropped() bool {
	used, usedSince := 0, false
	for _, o := range v.views {
		if o.calls > 0 || !o.usedUntil.IsZero() {
			used++
		}
		if o != v && (o.calls > 0 || !o.usedUntil.Before(v.heldAt)) {
			usedSince = true
		}
	}
	return usedSince && used > v.machine.world.luck.inMemory
}
