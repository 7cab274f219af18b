package kubestore_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"github.com/fincodeauth/fincodeauth"
)

// A proxy or another program may answer anything.
func FuzzAnswer(f *testing.F) {
	for _, body := range []string{
		``, `{`, `{}`, `null`, `[]`, `<html>`, `{"kind":"Status"}`, `{"kind":"Status","details":null}`, `{"kind":"Status","details":{"causes":[null,1]}}`,
		`{"kind":"Status","details":{"kind":"secrets","name":"` + alice + `"}}`, `{"kind":"Status","metadata":{"continue":"x"}}`,
		`{"kind":"Secret","type":"fincodeauth.github.io/session","metadata":{"name":"` + alice + `"},"data":{"version":"djE=","record":"eyJ2ZXJzaW9uIjoidjEifQ=="}}`,
		`{"kind":"PartialObjectMetadata","metadata":{"name":"` + alice + `"}}`, `{"kind":"SecretList","items":[{"metadata":{"name":"` + alice + `"}}]}`,
		`{"kind":"Secret","data":{"record":"%"}}`, `{"kind":` + strings.Repeat(`[`, 20000),
	} {
		for _, code := range []int{200, 201, 307, 403, 404, 409, 410, 422, 500} {
			f.Add(code, body)
		}
	}
	f.Fuzz(func(t *testing.T, code int, body string) {
		if code < 200 || code > 599 || code == http.StatusTooManyRequests {
			return
		}
		server := &fake{before: always(code, body)}
		store := server.store(t)
		rec, err := store.Load(t.Context(), "alice")
		if err == nil && (rec.Version == "" || code > 299) {
			t.Errorf("Load of %d %q = %v", code, body, rec)
		}
		if errors.Is(err, fincodeauth.ErrNotFound) && (code != http.StatusNotFound || !strings.Contains(body, "ecrets")) {
			t.Errorf("Load of %d %q = %v", code, body, err)
		}
		for _, prev := range []string{"", "v1"} {
			server.calls = nil
			err := store.Save(t.Context(), "alice", &fincodeauth.Record{Version: "v2"}, prev)
			if err == nil && code > 299 {
				t.Errorf("Save over %q with the answer %d %q succeeded", prev, code, body)
			}
			if len(server.calls) > 2 || errors.Is(err, fincodeauth.ErrNotFound) {
				t.Errorf("Save over %q with the answer %d %q = %v after %d requests", prev, code, body, err, len(server.calls))
			}
		}
		if err := store.Delete(t.Context(), "alice"); err == nil && code > 299 && code != http.StatusNotFound {
			t.Errorf("Delete with the answer %d %q succeeded", code, body)
		}
		server.calls = nil
		for range store.Keys(t.Context()) {
			if len(server.calls) > 10 { // each page names another one
				break
			}
		}
	})
}

// A record may hold anything, and so may what is in its place.
func FuzzRecord(f *testing.F) {
	for _, record := range []string{
		``, `{`, `{}`, `null`, `secret`, `{"version":""}`, `{"version":1}`, `{"version":"v1"}`, `{"version":"v1","token":null}`,
		`{"version":"v1","token":{"access_token":"secret","expiry":"2000-01-01T01:00:00.5+02:00"}}`, "{\"version\":\"\xff\"}", `{"version":"v1"} {}`,
	} {
		f.Add(record)
	}
	f.Fuzz(func(t *testing.T, data string) {
		want := new(fincodeauth.Record)
		damaged := json.Unmarshal([]byte(data), want) != nil || want.Version == ""
		server := new(fake)
		store := server.store(t)
		saveVersion(t, store, "v1")
		server.change(t, func(sec *object) {
			sec.Data = map[string][]byte{"version": []byte(want.Version), "record": []byte(data)}
		})
		got, err := store.Load(t.Context(), "alice")
		if damaged {
			text := `kubestore: load "alice": its record is damaged: restore it, or call Sessions.Forget, then log in again`
			if err == nil || err.Error() != text {
				t.Errorf("Load = %v, want %s", err, text)
			}
			return
		}
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("Load = %v, %v; want %v", got, err, want)
		}
	})
}

// A key may be any string.
func FuzzKey(f *testing.F) {
	for _, key := range []string{"", "a", "\x00", "\xff", "a b", "a/b", "../a", "%2F", "%", "+", "é", "\r\n", strings.Repeat("k", 512)} {
		f.Add(key)
	}
	f.Fuzz(func(t *testing.T, key string) {
		server := new(fake)
		store := server.store(t)
		if err := store.Save(t.Context(), key, &fincodeauth.Record{Version: "v1"}, ""); err != nil {
			t.Fatal(err)
		}
		if _, err := store.Load(t.Context(), key); err != nil {
			t.Error(err)
		}
		if _, err := store.Load(t.Context(), key+"2"); !errors.Is(err, fincodeauth.ErrNotFound) {
			t.Errorf("Load of another key = %v, want ErrNotFound", err)
		}
		for got, err := range store.Keys(t.Context()) {
			if got != key || err != nil {
				t.Errorf("Keys yielded %q, %v; want %q", got, err, key)
			}
		}
		for name, sec := range server.secrets {
			if len(name) != len(alice) || strings.Trim(sec.Metadata.Annotations["fincodeauth.github.io/session"], printable) != "" {
				t.Errorf("the Secret of %q is %q %v", key, name, sec.Metadata)
			}
		}
	})
}

// printable are the ASCII characters without the space.
var printable = func() string {
	var all []byte
	for c := byte('!'); c <= '~'; c++ {
		all = append(all, c)
	}
	return string(all)
}()

// A message of the API server is quoted, whatever it is.
func FuzzMessage(f *testing.F) {
	for _, message := range []string{"", "no", "Invalid value: secret", "\x1b[31m\n", "\xff", strings.Repeat("é", 300), strings.Repeat("a", 300)} {
		f.Add(message)
	}
	record := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("a token", 20)))
	f.Fuzz(func(t *testing.T, message string) {
		server := &fake{before: func(w http.ResponseWriter, _ *http.Request) bool {
			refuse(w, http.StatusBadRequest, "BadRequest", message+record, "", "")
			return true
		}}
		_, err := server.store(t).Load(t.Context(), "alice")
		if err == nil || len(err.Error()) > 600 || strings.Contains(err.Error(), record[:100]) || strings.ContainsAny(err.Error(), "\n\x1b\x00") {
			t.Errorf("Load = %v", err)
		}
	})
}
