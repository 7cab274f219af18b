package main

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

const keySize = 32 // bytes

// A keyring has the program's secret keys, the one to use first. The others are
// earlier ones, which still open what was sealed with them.
type keyring [][]byte

// openKeyring reads FINCODE_KEY: one or more keys in Base64, separated by commas.
// Without it, the key is in a file, which is made at the first start. All replicas
// must have the same keys, so a database needs FINCODE_KEY.
func openKeyring(getenv func(string) string, opts options) (keyring, error) {
	text := getenv("FINCODE_KEY")
	if text == "" && opts.database != "" {
		return nil, errors.New("FINCODE_KEY is not set: with a database, all replicas need the same key; make one with: openssl rand -base64 32")
	}
	if text == "" {
		var err error
		if text, err = keyFile(opts.dir); err != nil {
			return nil, err
		}
	}
	var ring keyring
	for part := range strings.SplitSeq(text, ",") {
		key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(part))
		if err != nil || len(key) != keySize { // err would quote the key
			return nil, fmt.Errorf("FINCODE_KEY, or the key file: want Base64 of %d bytes", keySize)
		}
		ring = append(ring, key)
	}
	return ring, nil
}

// atRest returns the keys for the tokens in the store.
func (k keyring) atRest() [][]byte { return k.derive("fincodeauth bff: tokens at rest") }

// forCookies returns pairs of keys: one to authenticate, one to encrypt.
func (k keyring) forCookies() (pairs [][]byte) {
	hash, block := k.derive("fincodeauth bff: cookie, hash"), k.derive("fincodeauth bff: cookie, encryption")
	for i := range k {
		pairs = append(pairs, hash[i], block[i])
	}
	return pairs
}

// derive returns one key for a purpose from each key, so that no key has two uses.
func (k keyring) derive(purpose string) (keys [][]byte) {
	for _, secret := range k {
		key, err := hkdf.Key(sha256.New, secret, nil, purpose, keySize)
		if err != nil {
			panic(err) // not possible: 32 bytes are not too long for HKDF
		}
		keys = append(keys, key)
	}
	return keys
}

// keyFile returns what the key file in dir holds. It makes the file if there is none.
func keyFile(dir string) (string, error) {
	path := filepath.Join(dir, "key")
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err := makeKeyFile(dir, path); err != nil {
			return "", fmt.Errorf("making the key file: %w", err)
		}
		info, err = os.Stat(path)
	}
	if err != nil {
		return "", err
	}
	if runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 { // Windows has no such bits
		return "", fmt.Errorf("others may read the key file %s: chmod 600 it, or set FINCODE_KEY", path)
	}
	text, err := os.ReadFile(path)
	return string(text), err
}

// makeKeyFile makes the file with its content in one step: two processes may start
// at once, and must end up with the same key.
func makeKeyFile(dir, path string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	key := make([]byte, keySize)
	rand.Read(key)                          // never fails
	tmp, err := os.CreateTemp(dir, "key-*") // with mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.WriteString(base64.StdEncoding.EncodeToString(key) + "\n")
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	if err := os.Link(tmp.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}
