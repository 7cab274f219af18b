package sqlstore_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/sqlstore"
)

// Another program may have written anything into the table, and a key may be any
// string.

func FuzzRow(f *testing.F) {
	for _, record := range []string{
		``, `{`, `{}`, `null`, `[]`, `secret`, `{"version":""}`, `{"version":1}`, `{"version":"v1"}`, `{"version":"v1","token":null}`,
		`{"version":"v1","token":{"access_token":"secret","refresh_token":"secret","expiry":"2000-01-01T01:00:00.5+02:00","expires_in":3600}}`,
		`{"version":"v1","token":{"expiry":"secret"}}`, `{"version":"v1","ended":"logged out"}`, "{\"version\":\"\xff\"}", `{"version":"v1","tok`,
		`{"version":"v1"} {}`, `{"version":"v1","token":` + strings.Repeat(`[`, 20000),
	} {
		f.Add("alice", record)
	}
	for _, key := range []string{"", "\x00", "a\x00b", "\xff", "\ufffd", "😀", "'; DROP TABLE a; --", strings.Repeat("k", 70000)} {
		f.Add(key, `{"version":"v1","ended":"\u0000"}`)
	}
	f.Fuzz(func(t *testing.T, key, row string) {
		d := &database{record: row}
		store := newStore(t, d, sqlstore.PostgreSQL)
		want := new(fincodeauth.Record)
		got, err := store.Load(t.Context(), key)
		if json.Unmarshal([]byte(row), want) != nil || want.Version == "" {
			wantDamaged(t, key, err)
			return
		}
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("Load = %v, %v; want %v", got, err, want)
		}
		if err := store.Save(t.Context(), key, want, want.Version); err != nil {
			t.Error(err)
		}
		wantLegible(t, d.args)
	})
}

// wantDamaged expects the error that names the table, says what to do, and shows
// nothing of the row.
func wantDamaged(t *testing.T, key string, err error) {
	t.Helper()
	want := fmt.Sprintf("sqlstore: load %q: its record in table fincode_sessions is damaged: restore it, or call Sessions.Forget, then log in again", key)
	if err == nil || err.Error() != want || errors.Is(err, fincodeauth.ErrNotFound) {
		t.Errorf("Load = %v, want %s", err, want)
	}
}

var isID = regexp.MustCompile(`^[0-9a-f]{64}$`).MatchString

// wantLegible checks the arguments of an update. Each must be text that every
// database accepts, except the versions, which the caller chooses.
func wantLegible(t *testing.T, args []any) {
	t.Helper()
	if len(args) != 9 || !isID(fmt.Sprint(args[7])) {
		t.Fatalf("arguments %q, want nine, the eighth an ID", args)
	}
	for _, arg := range args[1:7] {
		if text, _ := arg.(string); !utf8.ValidString(text) || strings.Contains(text, "\x00") {
			t.Errorf("%q is not text", text)
		}
	}
}
