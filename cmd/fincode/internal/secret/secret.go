// Package secret finds the keys with which sessions are encrypted: in the environment, in
// the operating system's keyring (ring.go), or in a file.
package secret

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/zalando/go-keyring"

	"github.com/fincodeauth/fincodeauth/cmd/fincode/internal/failure"
	"github.com/fincodeauth/fincodeauth/internal/durable"
)

// Variable is the environment variable that holds keys: one or more in Base64, separated
// by commas, the one to encrypt with first.
const Variable = "FINCODE_KEY"

const (
	keySize  = 32         // bytes; AES-256, as FINCODE.md (Tokens) recommends
	inRing   = "keyring:" // the file begins with this, if the key itself is in the keyring
	fileName = "key"
)

// patience is how long the keyring may take. A person may have to unlock it in a dialog.
const patience = 30 * time.Second

// Place says where the keys were found.
type Place int

const (
	Environment Place = iota + 1
	Keyring
	File
)

// String names the place for people.
func (p Place) String() string {
	switch p {
	case Environment:
		return "the environment variable " + Variable
	case Keyring:
		return "the operating system's keyring"
	case File:
		return "a file"
	}
	return "nowhere"
}

// ErrNone says that there is no key yet.
var ErrNone = errors.New("there is no key yet")

// Find returns the keys: those of the environment, or else the one that belongs to the
// folder dir. Without either, its error is ErrNone.
func Find(ctx context.Context, dir string, getenv func(string) string) ([][]byte, Place, error) {
	return folder{dir, patience}.find(ctx, getenv)
}

// FindOrMake is Find. If there is no key, it makes one, and keeps it in the keyring, or in
// a file if there is no keyring that works. Processes that do this at once get the same key.
func FindOrMake(ctx context.Context, dir string, getenv func(string) string) ([][]byte, Place, error) {
	return folder{dir, patience}.findOrMake(ctx, getenv)
}

// FromEnvironment returns the keys of the environment. Without them, its error is ErrNone.
func FromEnvironment(getenv func(string) string) ([][]byte, error) {
	text := getenv(Variable)
	if text == "" {
		return nil, ErrNone
	}
	keys, err := parse(text)
	if err != nil {
		return nil, failure.New(failure.Usage, "%s: %w: make a key with: openssl rand -base64 %d", Variable, err, keySize)
	}
	return keys, nil
}

// Path returns the file with the key that belongs to the folder dir.
func Path(dir string) string { return filepath.Join(dir, fileName) }

// A folder is one that a key belongs to.
type folder struct {
	dir      string
	patience time.Duration // with the keyring
}

func (f folder) path() string { return Path(f.dir) }

func (f folder) find(ctx context.Context, getenv func(string) string) ([][]byte, Place, error) {
	keys, err := FromEnvironment(getenv)
	if !errors.Is(err, ErrNone) {
		return keys, Environment, err
	}
	keys, place, err := f.read(ctx)
	if err != nil && !errors.Is(err, ErrNone) {
		err = failure.Wrap(failure.Local, err)
	}
	return keys, place, err
}

func (f folder) findOrMake(ctx context.Context, getenv func(string) string) ([][]byte, Place, error) {
	keys, place, err := f.find(ctx, getenv)
	if !errors.Is(err, ErrNone) {
		return keys, place, err
	}
	if err := f.create(ctx); err != nil {
		return nil, 0, failure.Wrap(failure.Local, err)
	}
	return f.find(ctx, getenv)
}

// read returns the key that the file holds or points to.
func (f folder) read(ctx context.Context) ([][]byte, Place, error) {
	info, err := os.Stat(f.path())
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, 0, ErrNone
	case err != nil:
		return nil, 0, err
	case runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0: // Windows has no such bits
		return nil, 0, fmt.Errorf("others may read the key file %s: run chmod 600 on it, or set %s", f.path(), Variable)
	}
	data, err := os.ReadFile(f.path())
	if err != nil {
		return nil, 0, err
	}
	text := strings.TrimSpace(string(data))
	place := File
	if account, ok := strings.CutPrefix(text, inRing); ok {
		place = Keyring
		text, err = f.ring(ctx).get(account)
	}
	if err != nil {
		return nil, 0, f.explain(err)
	}
	keys, err := parse(text)
	if err != nil {
		return nil, 0, fmt.Errorf("the key of %s is damaged (%w): restore it, or set %s to it; if it is lost, remove the file and log in again", f.path(), err, Variable)
	}
	return keys, place, nil
}

// explain says what to do about an error of the keyring.
func (f folder) explain(err error) error {
	switch {
	case errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, keyring.ErrNotFound):
		return fmt.Errorf("the operating system's keyring no longer has the key that %s names: restore it, or set %s to it; if it is lost, remove the file and log in again", f.path(), Variable)
	}
	return fmt.Errorf("the key is in the operating system's keyring, and that does not give it (%v): unlock it, or set %s, such as in a cron job", err, Variable)
}

// parse reads keys in Base64, separated by commas. Its error shows no key.
func parse(text string) (keys [][]byte, err error) {
	for part := range strings.SplitSeq(text, ",") {
		key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(part))
		if err != nil || len(key) != keySize {
			return nil, fmt.Errorf("it is not Base64 of %d bytes", keySize)
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// create makes a key. If another process was first, its key stays.
func (f folder) create(ctx context.Context) error {
	if err := os.MkdirAll(f.dir, 0o700); err != nil {
		return err
	}
	key := make([]byte, keySize)
	rand.Read(key) // never fails
	text := base64.StdEncoding.EncodeToString(key)
	account := rand.Text()
	// The keyring comes first: whoever finds the file can use it at once.
	inKeyring := f.ring(ctx).set(account, text) == nil
	if ctx.Err() != nil {
		return ctx.Err()
	}
	content := text
	if inKeyring {
		content = inRing + account
	}
	made, err := makeFile(f.path(), content+"\n")
	if !made && inKeyring {
		_ = f.ring(ctx).delete(account) // no file names this key, so one that stays does no harm
	}
	return err
}

// makeFile makes the file with its content in one step. It reports whether it did, and
// not another process.
func makeFile(path, content string) (bool, error) {
	tmp, err := os.CreateTemp(filepath.Dir(path), "key-*") // with mode 0600
	if err != nil {
		return false, err
	}
	defer os.Remove(tmp.Name())
	if err := durable.WriteFile(tmp, []byte(content)); err != nil {
		return false, err
	}
	err = os.Link(tmp.Name(), path)
	if errors.Is(err, fs.ErrExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, durable.SyncDir(filepath.Dir(path))
}
