package storetest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/oauth2"

	"github.com/fincodeauth/fincodeauth"
)

// A store is the Store under test. Its methods fail the test if a call of the
// Store does not return what they expect.
type store struct{ fincodeauth.Store }

// Load returns an error if the Store returns neither a record nor an error, so
// that no test has to check for a nil record.
func (s store) Load(ctx context.Context, key string) (*fincodeauth.Record, error) {
	rec, err := s.Store.Load(ctx, key)
	if rec == nil && err == nil {
		return nil, errors.New("Load returned neither a record nor an error")
	}
	return rec, err
}

// save saves newRecord(version), and expects success.
func (s store) save(t *testing.T, key, version, prev string) {
	t.Helper()
	s.saveRecord(t, key, newRecord(version), prev)
}

// saveRecord saves rec, and expects success.
func (s store) saveRecord(t *testing.T, key string, rec *fincodeauth.Record, prev string) {
	t.Helper()
	if err := s.Save(t.Context(), key, rec, prev); err != nil {
		t.Fatalf("Save(%s, %s over %q) = %v", quote(key), describe(rec), prev, err)
	}
}

// wantConflict saves newRecord(version), and expects ErrConflict.
func (s store) wantConflict(t *testing.T, key, version, prev string) {
	t.Helper()
	s.wantRecordConflict(t, key, newRecord(version), prev)
}

// wantRecordConflict saves rec, and expects ErrConflict.
func (s store) wantRecordConflict(t *testing.T, key string, rec *fincodeauth.Record, prev string) {
	t.Helper()
	if err := s.Save(t.Context(), key, rec, prev); !errors.Is(err, fincodeauth.ErrConflict) {
		t.Errorf("Save(%s, %s over %q) = %v, want an error that wraps ErrConflict", quote(key), describe(rec), prev, err)
	}
}

func (s store) delete(t *testing.T, key string) {
	t.Helper()
	if err := s.Delete(t.Context(), key); err != nil {
		t.Fatalf("Delete(%s) = %v", quote(key), err)
	}
}

// want expects newRecord(version) under key.
func (s store) want(t *testing.T, key, version string) {
	t.Helper()
	s.wantRecord(t, key, newRecord(version))
}

// wantRecord expects a record like want under key.
func (s store) wantRecord(t *testing.T, key string, want *fincodeauth.Record) {
	t.Helper()
	rec, err := s.Load(t.Context(), key)
	if err != nil {
		t.Fatalf("Load(%s) = %v, want %s", quote(key), err, describe(want))
	}
	if diff := differ(rec, want); diff != "" {
		t.Errorf("Load(%s): %s", quote(key), diff)
	}
}

// wantNone expects no record under key.
func (s store) wantNone(t *testing.T, key string) {
	t.Helper()
	if rec, err := s.Load(t.Context(), key); !errors.Is(err, fincodeauth.ErrNotFound) {
		t.Errorf("Load(%s) = %v, %v; want an error that wraps ErrNotFound", quote(key), rec, err)
	}
}

// refuseUsed fails the test if there is already a record under one of the keys.
func (s store) refuseUsed(t *testing.T, keys ...string) {
	t.Helper()
	for _, key := range keys {
		if _, err := s.Load(t.Context(), key); err == nil {
			t.Fatalf("newStore returned a store that already has records: make a new table, prefix or folder for each call (it has one under %s)", quote(key))
		}
	}
}

// newEnded returns the record of a session that has ended, with this version.
func newEnded(version string) *fincodeauth.Record {
	return &fincodeauth.Record{Version: version, Token: &oauth2.Token{}, Ended: "why " + version + " ended"}
}

// describe names a record in a message.
func describe(rec *fincodeauth.Record) string {
	if rec.Ended != "" {
		return rec.Version + " (ended)"
	}
	return rec.Version
}

// newRecord returns a record with this version. Every field is computed from the
// version, so that the tests notice a mixture of two records.
func newRecord(version string) *fincodeauth.Record {
	at := time.Date(2026, 3, 1, 12, 30, 0, 123456789, time.FixedZone("", 5*60*60+30*60))
	return &fincodeauth.Record{
		Version: version,
		Token: &oauth2.Token{
			AccessToken:  "access-" + version,
			TokenType:    "Bearer",
			RefreshToken: "refresh-" + version,
			Expiry:       at.Add(time.Duration(len(version)) * time.Minute),
			ExpiresIn:    1800 + int64(len(version)),
		},
		RefreshStarted: at,
	}
}

// differ says which fields of got are not those of want. It shows no token. A
// nil Token equals an empty one.
func differ(got, want *fincodeauth.Record) string {
	if got == nil {
		return "the record is nil"
	}
	gotToken, wantToken := tokenOf(got), tokenOf(want)
	var diffs []string
	field := func(name string, same bool, got, want any) {
		if !same {
			diffs = append(diffs, fmt.Sprintf("%s is %v, want %v", name, got, want))
		}
	}
	secret := func(name, got, want string) {
		field(name, got == want, fmt.Sprintf("different (%d bytes)", len(got)), fmt.Sprintf("%d bytes", len(want)))
	}
	field("Version", got.Version == want.Version, got.Version, want.Version)
	field("Ended", got.Ended == want.Ended, got.Ended, want.Ended)
	field("RefreshStarted", sameTime(got.RefreshStarted, want.RefreshStarted), got.RefreshStarted, want.RefreshStarted)
	secret("Token.AccessToken", gotToken.AccessToken, wantToken.AccessToken)
	secret("Token.RefreshToken", gotToken.RefreshToken, wantToken.RefreshToken)
	field("Token.TokenType", gotToken.TokenType == wantToken.TokenType, gotToken.TokenType, wantToken.TokenType)
	field("Token.Expiry", sameTime(gotToken.Expiry, wantToken.Expiry), gotToken.Expiry, wantToken.Expiry)
	field("Token.ExpiresIn", gotToken.ExpiresIn == wantToken.ExpiresIn, gotToken.ExpiresIn, wantToken.ExpiresIn)
	return strings.Join(diffs, "; ")
}

func tokenOf(rec *fincodeauth.Record) *oauth2.Token {
	if rec.Token == nil {
		return &oauth2.Token{}
	}
	return rec.Token
}

// sameTime reports whether a and b are at most precision apart. A zero time has
// a meaning, so it equals only a zero time.
func sameTime(a, b time.Time) bool {
	if a.IsZero() || b.IsZero() {
		return a.IsZero() == b.IsZero()
	}
	return a.Sub(b).Abs() <= precision
}

// text returns n letters that a compressing database cannot make much smaller.
func text(n int) string {
	b := make([]byte, n)
	x := uint32(1)
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = 'a' + byte(x>>24)%26
	}
	return string(b)
}
