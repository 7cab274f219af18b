// Package proxykey has the key that every request to the proxy needs.
package proxykey

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"strings"
)

// minSize is how many characters a key needs, so that nobody can guess it: 16 random
// bytes have 22 characters in Base64.
const minSize = 22

// maxFile is how many bytes of a key file are read.
const maxFile = 4096

// A Key is the proxy's key. It holds a hash, so that printing it shows no secret. The
// zero Key matches nothing. A Key is safe for concurrent use.
type Key struct {
	sum [sha256.Size]byte
	set bool
}

// New makes a random key. text is what clients send.
func New() (key Key, text string) {
	text = rand.Text()
	return of(text), text
}

// Parse returns the key that clients send as text. White space around it does not count.
func Parse(text string) (Key, error) {
	text = strings.TrimSpace(text)
	switch {
	case len(text) < minSize:
		return Key{}, fmt.Errorf("the key has %d characters, and less than %d can be guessed: make one with: openssl rand -hex 32", len(text), minSize)
	case strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' }):
		return Key{}, errors.New("the key has white space or characters that are not ASCII: make one with: openssl rand -hex 32")
	}
	return of(text), nil
}

// Read reads a key from a file. Its owner's group may read it, because the credentials of
// systemd and the secrets of Kubernetes have such a mode. Others may not.
func Read(path string) (Key, error) {
	f, err := os.Open(path)
	if err != nil {
		return Key{}, fmt.Errorf("the key file: %w: make it with: (umask 077; openssl rand -hex 32 >FILE)", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return Key{}, fmt.Errorf("the key file: %w", err)
	}
	if runtime.GOOS != "windows" && info.Mode().Perm()&0o027 != 0 { // Windows has no such bits
		return Key{}, fmt.Errorf("the key file %s: its mode is %04o, so others may read or replace it: run chmod 600 on it", path, info.Mode().Perm())
	}
	text, err := io.ReadAll(io.LimitReader(f, maxFile))
	if err != nil {
		return Key{}, fmt.Errorf("the key file: %w", err)
	}
	key, err := Parse(string(text))
	if err != nil {
		return Key{}, fmt.Errorf("the key file %s: %w", path, err)
	}
	return key, nil
}

// Matches reports whether text is the key. The time that it takes does not depend on
// how much of text is right.
func (k Key) Matches(text string) bool {
	sum := sha256.Sum256([]byte(text))
	return subtle.ConstantTimeCompare(sum[:], k.sum[:]) == 1 && k.set
}

// Authorizes reports whether the request carries the key in its Authorization header: as
// "Bearer KEY", or as the password of "Basic" with any user name, which is what clients
// send for http://fincode:KEY@host.
func (k Key) Authorizes(r *http.Request) bool {
	if _, password, ok := r.BasicAuth(); ok {
		return k.Matches(password)
	}
	scheme, text, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	return ok && strings.EqualFold(scheme, "Bearer") && k.Matches(strings.TrimSpace(text))
}

func of(text string) Key { return Key{sum: sha256.Sum256([]byte(text)), set: true} }
