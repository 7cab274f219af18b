package redisstore_test

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/fincodeauth/fincodeauth"
)

// Another program may have written anything into Redis, and a key may be any
// string.

func FuzzRecord(f *testing.F) {
	for _, record := range []string{
		``, `{`, `{}`, `null`, `[]`, `secret`, `{"version":""}`, `{"version":1}`, `{"version":"v1"}`, `{"version":"v1","token":null}`,
		`{"version":"v1","token":{"access_token":"secret","refresh_token":"secret","expiry":"2000-01-01T01:00:00.5+02:00","expires_in":3600}}`,
		`{"version":"v1","token":{"expiry":"secret"}}`, `{"version":"v1","ended":"logged out"}`, "{\"version\":\"\xff\"}", `{"version":"v1","tok`,
		`{"version":"v1"} {}`, `{"version":"v1","token":` + strings.Repeat(`[`, 20000),
	} {
		f.Add("alice", record)
	}
	for _, key := range []string{"", "\x00", "\xff", "a b", "{a}", "*", "\r\n"} {
		f.Add(key, `{"version":"v1"}`)
	}
	held := new(hash)
	store := held.store(f)
	f.Fuzz(func(t *testing.T, key, data string) {
		want := new(fincodeauth.Record)
		damaged := json.Unmarshal([]byte(data), want) != nil || want.Version == ""
		*held = hash{key: "fincode:" + key, version: cmp.Or(want.Version, "v1"), record: data}
		got, err := store.Load(t.Context(), key)
		if damaged {
			text := fmt.Sprintf("redisstore: load %q: its record is damaged: restore it, or call Sessions.Forget, then log in again", key)
			if err == nil || err.Error() != text {
				t.Errorf("Load = %v, want %s", err, text)
			}
			return
		}
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("Load = %v, %v; want %v", got, err, want)
		}
		if _, err := store.Load(t.Context(), key+"2"); !errors.Is(err, fincodeauth.ErrNotFound) {
			t.Errorf("Load of another key = %v, want ErrNotFound", err)
		}
	})
}
