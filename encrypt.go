package fincodeauth

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"strings"

	"golang.org/x/oauth2"
)

// Encrypt returns a Store that keeps its records in s with their tokens
// encrypted: AES-256-GCM with a random nonce, as FinCode advises (FINCODE.md,
// Tokens). Each key has 32 random bytes. The first key encrypts, and all keys
// decrypt. To replace a key, add the new one at the end in every process, then put
// it first, and remove the old one when every record has been saved again.
//
// A record that was copied from one session to another does not decrypt. Version,
// RefreshStarted, Ended and the token's expiry are not encrypted.
//
// If a record does not decrypt, Load returns an error that names the record. The
// record is not overwritten: Sessions.Forget removes it.
func Encrypt(s Store, keys ...[]byte) (Store, error) {
	if s == nil {
		return nil, errors.New("fincodeauth: Encrypt: the store is nil: give it one, such as NewMemoryStore()")
	}
	if err := checkStore(s); err != nil {
		return nil, fmt.Errorf("fincodeauth: Encrypt: %w", err)
	}
	if len(keys) == 0 {
		return nil, errors.New("fincodeauth: Encrypt: there is no key: use 32 random bytes")
	}
	e := &encryptedStore{store: s}
	for i, key := range keys {
		if len(key) != 32 {
			return nil, fmt.Errorf("fincodeauth: Encrypt: key %d has %d bytes: AES-256 takes 32 bytes, not their text in hex or Base64", i+1, len(key))
		}
		block, err := aes.NewCipher(key)
		if err != nil {
			return nil, fmt.Errorf("fincodeauth: Encrypt: key %d: %w", i+1, err)
		}
		aead, err := cipher.NewGCMWithRandomNonce(block)
		if err != nil {
			return nil, fmt.Errorf("fincodeauth: Encrypt: key %d: %w", i+1, err)
		}
		e.keys = append(e.keys, aead)
	}
	return e, nil
}

type encryptedStore struct {
	store Store
	keys  []cipher.AEAD // the first one encrypts
}

// sealedPrefix is the start of an access token that is an encrypted pair.
const sealedPrefix = "aes256gcm."

// Load implements Store.
func (e *encryptedStore) Load(ctx context.Context, key string) (*Record, error) {
	rec, err := e.store.Load(e.withEncryption(ctx), key)
	if err != nil || rec == nil || !hasTokens(rec.Token) {
		return rec, err
	}
	tok, err := e.open(key, rec.Token.AccessToken)
	if err != nil {
		return nil, fmt.Errorf("the record of session %q%s %w", key, e.place(key), err)
	}
	rec.Token = tok
	return rec, nil
}

// withEncryption returns the context for a Load. A Journal inside saves only what e decrypts.
func (e *encryptedStore) withEncryption(ctx context.Context) context.Context {
	return context.WithValue(ctx, encryptionKey{}, e)
}

// Save implements Store.
func (e *encryptedStore) Save(ctx context.Context, key string, rec *Record, prev string) error {
	if !hasTokens(rec.Token) {
		return e.store.Save(ctx, key, rec, prev)
	}
	sealed, err := e.seal(key, rec.Token)
	if err != nil {
		return err
	}
	inner := *rec
	inner.Token = &oauth2.Token{AccessToken: sealed, Expiry: rec.Token.Expiry}
	return e.store.Save(ctx, key, &inner, prev)
}

// Delete implements Store.
func (e *encryptedStore) Delete(ctx context.Context, key string) error {
	return e.store.Delete(ctx, key)
}

// Keys implements KeyLister.
func (e *encryptedStore) Keys(ctx context.Context) iter.Seq2[string, error] {
	return keysOf(e.withEncryption(ctx), e.store)
}

// seal encrypts tok with the first key, and binds it to the session's key.
func (e *encryptedStore) seal(key string, tok *oauth2.Token) (string, error) {
	plain, err := json.Marshal(tok)
	if err != nil {
		return "", fmt.Errorf("encrypting the token: %w", err)
	}
	return sealedPrefix + base64.RawURLEncoding.EncodeToString(e.keys[0].Seal(nil, nil, plain, []byte(key))), nil
}

// open decrypts the output of seal. It tries each key.
func (e *encryptedStore) open(key, text string) (*oauth2.Token, error) {
	encoded, ok := strings.CutPrefix(text, sealedPrefix)
	if !ok {
		return nil, errors.New("is not encrypted: it was saved without Encrypt; call Sessions.Forget and log in again")
	}
	sealed, err := base64.RawURLEncoding.DecodeString(encoded)
	if err != nil {
		return nil, errors.New("is damaged: restore it, or call Sessions.Forget and log in again")
	}
	for _, aead := range e.keys {
		plain, err := aead.Open(nil, nil, sealed, []byte(key))
		if err != nil {
			continue
		}
		var tok oauth2.Token
		if json.Unmarshal(plain, &tok) != nil {
			return nil, errors.New("decrypts to something other than a token: call Sessions.Forget and log in again")
		}
		return &tok, nil
	}
	return nil, fmt.Errorf("does not decrypt with any of %d keys: add the key that it was saved with, or call Sessions.Forget and log in again", len(e.keys))
}

// place returns where the inner store keeps the record, "" if that store does not
// say.
func (e *encryptedStore) place(key string) string {
	if path := pathIn(e.store, key); path != "" {
		return " in " + path
	}
	return ""
}

// pathIn returns the path of key's record in s, "" if s does not say.
func pathIn(s Store, key string) string {
	if s, ok := s.(interface{ Path(key string) string }); ok {
		return s.Path(key)
	}
	return ""
}

func (e *encryptedStore) check() error { return checkStore(e.store) }

// String names the store without its keys.
func (e *encryptedStore) String() string { return "Encrypt(" + nameOf(e.store) + ")" }

// nameOf names a store. Of a store without a String method it names the type alone,
// because its fields may hold a password or tokens.
func nameOf(s Store) string {
	if s, ok := s.(fmt.Stringer); ok {
		return s.String()
	}
	return fmt.Sprintf("%T", s)
}

// Format prints what String returns, whatever the verb.
func (e *encryptedStore) Format(f fmt.State, _ rune) { fmt.Fprint(f, e.String()) }
