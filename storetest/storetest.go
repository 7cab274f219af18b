// Package storetest tests a fincodeauth.Store against the contract that the Store's
// comments describe. It finds the usual mistakes, but no test finds all of them. In
// particular, it cannot test that a record is durable when Save returns: that
// depends on the settings of the database.
//
//	func TestStore(t *testing.T) {
//		storetest.Run(t, func(t *testing.T) fincodeauth.Store { return newEmptyStore(t) })
//	}
package storetest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"golang.org/x/oauth2"

	"github.com/fincodeauth/fincodeauth"
)

// precision is how far a time that was loaded may be from the time that was
// saved. Databases keep microseconds.
const precision = time.Microsecond

// Run tests the contract of fincodeauth.Store in subtests of t. Each subtest
// calls newStore once for a new, empty store, and uses that store from many
// goroutines. A nil store fails the subtest, and so does a nil pointer or a store
// that already has records. With a real database, make a new table, prefix or
// folder for each call.
//
// # Keys
//
// A store must never confuse two keys. It must hold every key of 1 to 512 bytes
// that is valid UTF-8 without NUL.
//
// A store may refuse other keys. Save then returns an error that wraps neither
// ErrConflict nor ErrNotFound, Load returns any error, and Delete may return one.
// Run logs the keys that a store refuses. The longest key that Run tries has 4097
// bytes.
//
// A store that replaces characters, ignores case or cuts long keys fails, and Run
// says which keys it confuses. The simplest solution is to store the record under
// a hash of its key, such as the SHA-256 in hex.
//
// # Listing
//
// A store that is a KeyLister must list every key that it holds. Any other
// store passes those subtests.
//
// # Contention
//
// Run is stricter than the contract in one point: a call must not fail only
// because other calls run at the same time. A store whose database answers
// "serialization failure" or "database is locked" must try again itself.
func Run(t *testing.T, newStore func(t *testing.T) fincodeauth.Store) {
	t.Helper()
	if newStore == nil {
		t.Fatal("newStore is nil: give Run a function that returns a new, empty store")
	}
	for _, sub := range []struct {
		name string
		test func(*testing.T, store)
	}{
		{"LoadOfNothingIsNotFound", loadOfNothing},
		{"LoadReturnsWhatWasSaved", loadReturnsSaved},
		{"LoadReturnsAnEndedRecord", loadReturnsEnded},
		{"SaveReplacesTheGivenVersion", saveReplaces},
		{"SaveOverAnotherVersionConflicts", saveConflicts},
		{"SaveOverNothingConflicts", saveOverNothing},
		{"EndedRecordsAreComparedToo", endedAreCompared},
		{"DeleteRemoves", deleteRemoves},
		{"StaleSaveDoesNotBringBackADeleted", staleSave},
		{"SaveAfterDelete", saveAfterDelete},
		{"KeysAreIndependent", keysAreIndependent},
		{"OddKeysDoNotCollide", oddKeysDoNotCollide},
		{"NothingIsShared", nothingIsShared},
		{"LargeTokens", largeTokens},
		{"CancelledCallChangesNothing", cancelledBefore},
		{"OneSaveWinsEachVersion", oneSaveWins},
		{"NoUpdateIsLost", noUpdateIsLost},
		{"OthersSeeASaveAtOnce", othersSeeASave},
		{"DeleteBeatsEverySaveBefore", deleteRacesSave},
		{"CancelledCallsReturnAndCorruptNothing", cancelledDuring},
		{"KeysListsAllRecords", keysOfAll},
		{"KeysListsWhatStaysWhileOthersComeAndGo", keysMeanwhile},
		{"KeysMayBeBrokenOff", keysEndEarly},
		{"KeysEndsWithItsContext", keysCancelled},
	} {
		t.Run(sub.name, func(t *testing.T) {
			s := newStore(t)
			refuseNil(t, s)
			store{s}.refuseUsed(t, key, "a", "b") // OddKeysDoNotCollide has more keys, and checks them
			sub.test(t, store{s})
		})
	}
}

// refuseNil fails the test if s is nil or contains a nil pointer. Each call of such
// a store would panic.
func refuseNil(t *testing.T, s fincodeauth.Store) {
	t.Helper()
	if s == nil {
		t.Fatal("newStore returned nil: return a new, empty store")
	}
	switch v := reflect.ValueOf(s); v.Kind() {
	case reflect.Pointer, reflect.Map, reflect.Func, reflect.Chan, reflect.Slice:
		if v.IsNil() {
			t.Fatalf("newStore returned a nil %T: return what its constructor returns, and fail the test if that is an error", s)
		}
	}
}

const key = "alice@example.com"

func loadOfNothing(t *testing.T, s store) {
	s.wantNone(t, key)
}

func loadReturnsSaved(t *testing.T, s store) {
	s.save(t, key, "v1", "")
	s.want(t, key, "v1")
}

func loadReturnsEnded(t *testing.T, s store) {
	prev := "v0"
	s.save(t, key, prev, "")
	for i, tok := range []*oauth2.Token{{}, nil} {
		rec := &fincodeauth.Record{Version: fmt.Sprintf("v%d", i+1), Token: tok, Ended: "refresh token was rejected: 403"}
		if err := s.Save(t.Context(), key, rec, prev); err != nil {
			t.Fatalf("Save of an ended record with Token %v = %v", tok, err)
		}
		got, err := s.Load(t.Context(), key)
		if err != nil {
			t.Fatalf("Load of an ended record with Token %v = %v", tok, err)
		}
		if diff := differ(got, rec); diff != "" {
			t.Errorf("ended record with Token %v: %s", tok, diff)
		}
		prev = rec.Version
	}
}

func saveReplaces(t *testing.T, s store) {
	prev := ""
	for i := range 10 {
		version := fmt.Sprintf("v%d", i)
		s.save(t, key, version, prev)
		s.want(t, key, version)
		prev = version
	}
}

func saveConflicts(t *testing.T, s store) {
	s.save(t, key, "v1", "")
	s.save(t, key, "v2", "v1")
	for _, prev := range []string{"", "v1", "v3", "V2", "v2 ", "v"} {
		s.wantConflict(t, key, "v3", prev)
		s.want(t, key, "v2")
	}
}

func saveOverNothing(t *testing.T, s store) {
	s.wantConflict(t, key, "v2", "v1")
	s.wantNone(t, key)
}

// endedAreCompared saves over records that have ended, and saves records that have
// ended. Save must compare the version of such a record as of any other.
func endedAreCompared(t *testing.T, s store) {
	s.wantRecordConflict(t, key, newEnded("e1"), "v1")
	s.wantNone(t, key)

	s.save(t, key, "v1", "")
	for _, prev := range []string{"", "v0", "e1"} {
		s.wantRecordConflict(t, key, newEnded("e1"), prev)
		s.want(t, key, "v1")
	}

	s.saveRecord(t, key, newEnded("e1"), "v1")
	for _, prev := range []string{"", "v1", "e0"} {
		for _, rec := range []*fincodeauth.Record{newRecord("v2"), newEnded("e2")} {
			s.wantRecordConflict(t, key, rec, prev)
			s.wantRecord(t, key, newEnded("e1"))
		}
	}
	s.save(t, key, "v2", "e1") // as a login does
	s.want(t, key, "v2")

	s.saveRecord(t, key, newEnded("e2"), "v2")
	s.delete(t, key)
	s.wantNone(t, key)
	s.wantConflict(t, key, "v3", "e2")
	s.wantRecordConflict(t, key, newEnded("e3"), "e2")
	s.wantNone(t, key)
	s.save(t, key, "w1", "")
	s.want(t, key, "w1")
}

func deleteRemoves(t *testing.T, s store) {
	s.delete(t, key)
	s.save(t, key, "v1", "")
	for range 2 {
		s.delete(t, key)
		s.wantNone(t, key)
	}
}

func staleSave(t *testing.T, s store) {
	s.save(t, key, "v1", "")
	s.delete(t, key)
	s.wantConflict(t, key, "v2", "v1")
	s.wantNone(t, key)

	s.save(t, key, "w1", "")
	s.wantConflict(t, key, "v2", "v1")
	s.want(t, key, "w1")
}

func saveAfterDelete(t *testing.T, s store) {
	prefix := "v"
	for range 3 {
		s.save(t, key, prefix+"1", "")
		s.save(t, key, prefix+"2", prefix+"1")
		s.want(t, key, prefix+"2")
		s.delete(t, key)
		prefix += "v"
	}
}

func keysAreIndependent(t *testing.T, s store) {
	s.save(t, "a", "v1", "")
	s.wantNone(t, "b")
	s.wantConflict(t, "b", "v2", "v1")
	s.save(t, "b", "w1", "")
	s.save(t, "b", "w2", "w1")
	s.want(t, "a", "v1")
	s.delete(t, "b")
	s.want(t, "a", "v1")
	s.wantNone(t, "b")
}

// nothingIsShared changes the record that it has saved, and the record that it
// has loaded. Neither may change what the store holds.
func nothingIsShared(t *testing.T, s store) {
	change := func(rec *fincodeauth.Record) {
		rec.Version, rec.Ended, rec.RefreshStarted = "changed", "changed", time.Time{}
		if rec.Token != nil {
			*rec.Token = oauth2.Token{AccessToken: "changed"}
		}
	}
	rec := newRecord("v1")
	if err := s.Save(t.Context(), key, rec, ""); err != nil {
		t.Fatalf("Save = %v", err)
	}
	if diff := differ(rec, newRecord("v1")); diff != "" {
		t.Errorf("Save changed the caller's record: %s", diff)
	}
	change(rec)
	s.want(t, key, "v1")

	rec, err := s.Load(t.Context(), key)
	if err != nil {
		t.Fatalf("Load = %v", err)
	}
	change(rec)
	s.want(t, key, "v1")
}

func largeTokens(t *testing.T, s store) {
	rec := newRecord("v1")
	rec.Token.AccessToken = text(64 << 10)
	if err := s.Save(t.Context(), key, rec, ""); err != nil {
		t.Fatalf("Save of a token of 64 KiB = %v", err)
	}
	got, err := s.Load(t.Context(), key)
	if err != nil {
		t.Fatalf("Load of a token of 64 KiB = %v", err)
	}
	if diff := differ(got, rec); diff != "" {
		t.Errorf("Load of a token of 64 KiB: %s", diff)
	}
}

func cancelledBefore(t *testing.T, s store) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	wantCancelled := func(call string, err error) {
		t.Helper()
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s with a cancelled context = %v, want an error that wraps context.Canceled", call, err)
		}
	}
	wantCancelled("Save of the first record", s.Save(ctx, key, newRecord("v1"), ""))
	s.wantNone(t, key)

	s.save(t, key, "v1", "")
	_, err := s.Load(ctx, key)
	wantCancelled("Load", err)
	wantCancelled("Save", s.Save(ctx, key, newRecord("v2"), "v1"))
	wantCancelled("Delete", s.Delete(ctx, key))
	s.want(t, key, "v1")
}
