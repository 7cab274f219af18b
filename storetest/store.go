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
	if err := s.Save(t.Context(), key, newRecord(version), prev); err != nil {
		t.Fatalf("Save(%s, %s over %q) = %v", quote(key), version, prev, err)
	}
}

// wantConflict saves newRecord(version), and expects ErrConflict.
func (s store) wantConflict(t *testing.T, key, version, prev string) {
	t.Helper()
	if err := s.Save(t.Context(), key, newRecord(version), prev); !errors.Is(err, fincodeauth.ErrConflict) {
		t.Errorf("Save(%s, %s over %q) = %v, want an error that wraps ErrConflict", quote(key), version, prev, err)
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
	rec, err := s.Load(t.Context(), key)
	if err != nil {
		t.Fatalf("Load(%s) = %v, want %s", quote(key), err, version)
	}
	if diff := differ(rec, newRecord(version)); diff != "" {
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
