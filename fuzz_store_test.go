package fincodeauth_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"golang.org/x/oauth2"

	"github.com/fincodeauth/fincodeauth"
)

// Anybody who can reach a store may have changed its records.

func FuzzRecord(f *testing.F) {
	for _, token := range []string{
		`null`, `{}`, `{"access_token":"a"}`, `{"refresh_token":"r"}`, `{"access_token":"a","refresh_token":"r"}`,
		`{"access_token":"a","refresh_token":"r","expiry":"2000-01-01T01:00:00Z"}`,
		`{"access_token":"a","refresh_token":"r","expiry":"2000-01-01T00:00:01+02:00","expires_in":3600}`,
		`{"access_token":"a","refresh_token":"r","expiry":"1999-12-31T23:59:59Z","expires_in":-1}`,
		`{"access_token":"a","refresh_token":"r","expiry":"9999-12-31T23:59:59Z","expires_in":9223372036854775807}`,
		`{"access_token":"a","refresh_token":"r","expiry":"1200-01-01T00:00:00Z","expires_in":3600}`,
		`{"access_token":"a","refresh_token":"r","expiry":"1440-01-01T00:00:00Z","expires_in":3600}`,
		`{"access_token":"a","refresh_token":"r","expiry":"1677-09-21T00:12:44Z","expires_in":3600}`,
		`{"access_token":"a","refresh_token":"r","expiry":"0001-01-01T00:00:01Z","expires_in":3600}`,
		`{"access_token":"a","refresh_token":"r","expiry":"2262-04-11T23:47:17Z"}`,
		`{"access_token":"e30.eyJleHAiOjFlMzA4LCJpYXQiOjF9.s","refresh_token":"r"}`, // {"exp":1e308,"iat":1}
		`{"access_token":"\n","refresh_token":"\u0000"}`,
	} {
		for _, rest := range []string{``, `,"refresh_started":"2000-01-01T00:00:00Z"`, `,"refresh_started":"9999-01-01T00:00:00Z"`,
			`,"ended":"logged out"`, `,"ended":"refresh token reused: x"`, `,"ended":"refresh token rejected after an interruption: x"`} {
			f.Add([]byte(`{"version":"1","token":` + token + rest + `}`))
		}
	}
	f.Add([]byte(`{}`))
	f.Add([]byte(`{"token":{"access_token":"a","refresh_token":"r"}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		rec := new(fincodeauth.Record)
		if json.Unmarshal(data, rec) != nil {
			return // a store reports this as an error
		}
		synctest.Test(t, func(t *testing.T) { checkRecord(t, rec) })
	})
}

// checkRecord checks what a session does with the record: it uses the record's token
// if that is valid, and else refreshes it. It presents the refresh token at most once.
func checkRecord(t *testing.T, rec *fincodeauth.Record) {
	f := answer{status: 200, body: []byte(`{"access_token":"next","refresh_token":"next","expires_in":3600}`)}.fixture(t)
	if err := f.store.Save(t.Context(), "a", rec, ""); err != nil {
		return // the record has a time that JSON cannot write
	}
	var tok *oauth2.Token
	var err error
	if waited := elapsed(func() { tok, err = f.sessions.TokenSource("a").Token() }); waited > time.Minute {
		t.Errorf("Token waited %v, want at most a minute", waited)
	}
	had := rec.Token
	if had == nil {
		had = new(oauth2.Token)
	}
	switch calls := f.fincode.calls; {
	case rec.Version == "":
		if err == nil || errors.Is(err, fincodeauth.ErrLoginRequired) || len(calls) > 0 {
			t.Errorf("for a record without a version: got error %v and calls %v, want an error that does not end the session, and no call", err, calls)
		}
	case rec.Ended != "":
		if !errors.Is(err, fincodeauth.ErrLoginRequired) || len(calls) > 0 {
			t.Errorf("for a session that ended with %q: got error %v and calls %v, want ErrLoginRequired and no call", rec.Ended, err, calls)
		}
		if reused := strings.HasPrefix(rec.Ended, "refresh token reused"); errors.Is(err, fincodeauth.ErrTokenReused) != reused {
			t.Errorf("got error %v, want ErrTokenReused: %t", err, reused)
		}
	case len(calls) == 0 && err == nil:
		if had.AccessToken == "" || tok.AccessToken != had.AccessToken || !had.Expiry.IsZero() && !had.Expiry.After(time.Now()) {
			t.Errorf("for %v: got token %q, which expires at %v, want the record's token, and only if it is valid", rec, tok.AccessToken, tok.Expiry)
		}
	case had.RefreshToken == "":
		if !errors.Is(err, fincodeauth.ErrLoginRequired) || len(calls) > 0 {
			t.Errorf("for a record without a refresh token: got error %v and calls %v, want ErrLoginRequired and no call", err, calls)
		}
	case err != nil || tok.AccessToken != "next" || !slices.Equal(calls, []string{"refresh-token"}):
		t.Errorf("got token %v, error %v and calls %v; want the new token after one refresh", tok, err, calls)
	default:
		wantSaved(t, record(t, f.store, "a"), tok)
	}
}

func FuzzEncryptedField(f *testing.F) {
	for _, sealed := range []string{"", "aes256gcm.", "aes256gcm.AAAA", "aes256gcm.!", "AES256GCM.AAAA", secretAccess,
		"aes256gcm." + strings.Repeat("A", 38), "aes256gcm." + strings.Repeat("A", 39), "aes256gcm.\n"} {
		f.Add(sealed, 0, byte(0))
	}
	for _, at := range []int{0, 9, 10, 25, 26, 100, -1, -2, -20} {
		f.Add("", at, byte(1))
		f.Add("", at, byte(255))
	}
	f.Fuzz(func(t *testing.T, sealed string, at int, flip byte) {
		inner := newJSONStore()
		store := encrypted(t, inner, key2, key1)
		saveSecrets(t, encrypted(t, inner, key1), "a")
		rec := record(t, inner, "a")
		tampered := sealed
		if sealed == "" {
			tampered = flipped(rec.Token.AccessToken, at, flip)
		}
		rec.Token.AccessToken = tampered
		prev := rec.Version
		rec.Version += "+"
		if err := inner.Save(t.Context(), "a", rec, prev); err != nil {
			t.Fatal(err)
		}
		got, err := store.Load(t.Context(), "a")
		switch {
		case err != nil:
			wantClearError(t, err, "log in again", secret, secretAccess, string(key1), string(key2))
		case hasSecrets(got.Token): // the ciphertext is the same, or only spelled in another way
		case tampered == "" && got.Token.AccessToken == "" && got.Token.RefreshToken == "": // without an access token, a record counts as ended
		default:
			t.Errorf("%q was decrypted to a different token, want an error", tampered)
		}
	})
}

// flipped returns text with the byte at the index changed. A negative index counts
// from the end.
func flipped(text string, at int, flip byte) string {
	data := []byte(text)
	data[(at%len(data)+len(data))%len(data)] ^= flip
	return string(data)
}

// saveSecrets saves a record whose tokens are secretAccess and secret.
func saveSecrets(t *testing.T, store fincodeauth.Store, key string) {
	t.Helper()
	tok := &oauth2.Token{AccessToken: secretAccess, RefreshToken: secret}
	if err := store.Save(t.Context(), key, &fincodeauth.Record{Version: "1", Token: tok}, ""); err != nil {
		t.Fatal(err)
	}
}

// hasSecrets reports whether tok is the token of saveSecrets.
func hasSecrets(tok *oauth2.Token) bool {
	return tok != nil && tok.AccessToken == secretAccess && tok.RefreshToken == secret
}

// wantClearError checks that err contains advice, and can be logged: its text is short
// and has none of the secrets.
func wantClearError(t *testing.T, err error, advice string, secrets ...string) {
	t.Helper()
	text := fmt.Sprintf("%v %+v %#v", err, err, err)
	if !strings.Contains(text, advice) || len(text) > 2000 {
		t.Errorf("got error %.2000s, want a short one that says %q", text, advice)
	}
	for _, secret := range secrets {
		if strings.Contains(text, secret) {
			t.Errorf("the error %q contains the secret %q, want no secret", text, secret)
		}
	}
}

func FuzzEncrypt(f *testing.F) {
	f.Add(key1, key2, "a", "access", "refresh", "Bearer", int64(946688400))
	f.Add(key1, key1, "\xff\x00", "", "refresh", "", int64(0))
	f.Add(key1[:31], key2, "", "access", "", "", int64(-1))
	f.Add(key1, []byte{}, "a", secretAccess, secret, "\n", int64(253402300799))
	f.Add(bytes.Repeat([]byte("k"), 1<<10), key2, "a", "\u2028<&>", "\x00\"\\", "mac", int64(1))
	f.Fuzz(func(t *testing.T, one, two []byte, session, access, refresh, kind string, expiry int64) {
		if !checkKeys(t, one, two) || !utf8.ValidString(access) || !utf8.ValidString(refresh) || !utf8.ValidString(kind) {
			return // JSON cannot write such a token
		}
		tok := &oauth2.Token{AccessToken: access, RefreshToken: refresh, TokenType: kind, Expiry: time.Unix(expiry%250e9, 0).UTC()}
		if tok.Expiry.Year() < 0 {
			return // JSON cannot write such a time
		}
		inner := newJSONStore()
		checkSealed(t, inner, encrypted(t, inner, one), session, tok, false)
		checkSealed(t, inner, encrypted(t, inner, two, one), session, tok, true)
		if access == "" && refresh == "" {
			return // there is nothing to encrypt
		}
		for _, store := range []fincodeauth.Store{inner, encrypted(t, inner, one)} {
			rec, err := store.Load(t.Context(), session)
			if err == nil && reflect.DeepEqual(rec.Token, tok) && !bytes.Equal(one, two) {
				t.Errorf("%v returned the token, want an error or the encrypted token", store)
			}
		}
		if _, err := encrypted(t, movedStore{inner, session}, two).Load(t.Context(), session+"2"); err == nil {
			t.Error("a record of another session was decrypted, want an error")
		}
	})
}

// checkKeys reports whether Encrypt accepts the keys. If it does not, checkKeys checks
// that the error says why.
func checkKeys(t *testing.T, keys ...[]byte) bool {
	_, err := fincodeauth.Encrypt(fincodeauth.NewMemoryStore(), keys...)
	for i, key := range keys {
		if len(key) != 32 {
			wantClearError(t, err, fmt.Sprintf("key %d has %d bytes: AES-256 takes 32", i+1, len(key)))
			return false
		}
	}
	if err != nil {
		t.Errorf("for keys of 32 bytes: got error %v, want none", err)
	}
	return err == nil
}

// checkSealed saves tok in store, which encrypts into inner. It checks that store
// returns tok again, and that no token can be read in inner. With replace set, there
// is a record already.
func checkSealed(t *testing.T, inner, store fincodeauth.Store, session string, tok *oauth2.Token, replace bool) {
	t.Helper()
	prev := ""
	if replace {
		prev = record(t, store, session).Version
	}
	if err := store.Save(t.Context(), session, &fincodeauth.Record{Version: prev + "+", Token: tok}, prev); err != nil {
		t.Fatal(err)
	}
	if got := record(t, store, session).Token; !reflect.DeepEqual(got, tok) {
		t.Errorf("saved %#v, loaded %#v; want the same token", *tok, *got)
	}
	data, err := json.Marshal(record(t, inner, session))
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{tok.AccessToken, tok.RefreshToken} {
		if len(secret) > 20 && bytes.Contains(data, []byte(secret)) {
			t.Errorf("the store contains %q, want it encrypted: %s", secret, data)
		}
	}
}

// A movedStore returns the record of one session under every key.
type movedStore struct {
	jsonStore
	from string
}

func (s movedStore) Load(ctx context.Context, _ string) (*fincodeauth.Record, error) {
	return s.jsonStore.Load(ctx, s.from)
}

func FuzzKey(f *testing.F) {
	for _, pair := range [][2]string{{"a", "A"}, {"", "a"}, {"a\x00", "a"}, {"\xff", "\xfe"}, {"\ufffd", "\xff"}, {"a\n", "a"},
		{"%!s(MISSING)", `"`}, {strings.Repeat("k", 5000), "k"}, {"ä", "a\u0308"}, {"../a", "a"}, {"a", "a"}} {
		f.Add(pair[0], pair[1])
	}
	f.Fuzz(func(t *testing.T, one, two string) {
		synctest.Test(t, func(t *testing.T) {
			var seen events
			pair := answer{status: 200, body: []byte(`{"access_token":"a","refresh_token":"r","expires_in":3600}`)}
			sessions := newSessions(t, nil, seen.observe, func(c *fincodeauth.Config) { c.Base = &sameAnswer{answer: pair} })
			err := sessions.Login(t.Context(), one, credentials)
			if (err == nil) != (one != "") {
				t.Fatalf("Login with key %q: got error %v, want one only for the empty key", one, err)
			}
			for _, key := range []string{one, two} {
				ctx := fincodeauth.WithSession(t.Context(), key)
				for _, src := range []*fincodeauth.TokenSource{sessions.TokenSource(key), sessions.TokenSource("")} {
					_, err := src.TokenContext(ctx)
					if (err == nil) != (key == one && key != "") || key != "" && err != nil && !errors.Is(err, fincodeauth.ErrNotFound) {
						t.Errorf("Token with key %q after a Login with key %q: got error %v, want none for the same key, and ErrNotFound for another", key, one, err)
					}
					wantOneLine(t, err)
				}
			}
			for _, ev := range seen.all {
				if ev.Key != one {
					t.Errorf("got an event with key %q, want key %q", ev.Key, one)
				}
			}
		})
	})
}

// wantOneLine checks that err can be logged, whatever the key in it is: the text is one
// line without control characters.
func wantOneLine(t *testing.T, err error) {
	t.Helper()
	if err != nil && strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' || r == 0x7f || r == utf8.RuneError }) {
		t.Errorf("got error %q, want one line of text", err)
	}
}
