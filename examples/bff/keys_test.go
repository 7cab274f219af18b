package main

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
)

func TestKeyFileIsMadeOnceAndForTheOwnerOnly(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	rings := make([]keyring, 8)
	var starting sync.WaitGroup
	for i := range rings {
		starting.Go(func() {
			var err error
			if rings[i], err = openKeyring(noEnv, options{dir: dir}); err != nil {
				t.Error(err)
			}
		})
	}
	starting.Wait()
	for _, ring := range rings {
		if len(ring) != 1 || !slices.Equal(ring[0], rings[0][0]) {
			t.Fatal("processes that start at once have different keys")
		}
	}
	info, err := os.Stat(filepath.Join(dir, "key"))
	if err != nil {
		t.Fatal(err)
	}
	if runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("the key file has mode %v", info.Mode())
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "key-*")); len(left) != 0 {
		t.Errorf("other files are left: %v", left)
	}
}

func TestKeyFileThatOthersCanReadIsRefused(t *testing.T) {
	if runtime.GOOS == "windows" {
		return // it has no such mode
	}
	dir := t.TempDir()
	if _, err := openKeyring(noEnv, options{dir: dir}); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(dir, "key"), 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := openKeyring(noEnv, options{dir: dir}); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("the error is %v", err)
	}
}

func TestDatabaseNeedsAKeyThatAllReplicasHave(t *testing.T) {
	_, err := openKeyring(noEnv, options{dir: t.TempDir(), database: "postgres://db/app"})
	if err == nil || !strings.Contains(err.Error(), "FINCODE_KEY") {
		t.Errorf("the error is %v", err)
	}
}

func TestBadKeyIsRefusedAndNotQuoted(t *testing.T) {
	for _, text := range []string{"not Base64!", base64.StdEncoding.EncodeToString([]byte("too short")), ","} {
		_, err := openKeyring(func(string) string { return text }, options{})
		if err == nil || text != "," && strings.Contains(err.Error(), text) {
			t.Errorf("%q: the error is %v", text, err)
		}
	}
}

func TestEachPurposeHasAKeyOfItsOwn(t *testing.T) {
	ring := keyring{make([]byte, keySize), []byte(strings.Repeat("x", keySize))}
	all := append(append([][]byte{ring[0], ring[1]}, ring.atRest()...), ring.forCookies()...)
	for i, key := range all {
		if len(key) != keySize || slices.ContainsFunc(all[:i], func(other []byte) bool { return slices.Equal(key, other) }) {
			t.Errorf("key %d is used twice, or is too short", i)
		}
	}
}
