package secret

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/fincodeauth/fincodeauth/cmd/fincode/internal/failure"
)

// key32 returns a key in Base64, with 32 bytes b.
func key32(b byte) string { return base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{b}, keySize)) }

// withKey returns the environment whose Variable is text.
func withKey(text string) func(string) string {
	return func(name string) string {
		if name == Variable {
			return text
		}
		return ""
	}
}

func TestKeysOfTheEnvironmentComeFirst(t *testing.T) {
	dir := t.TempDir()
	writeKey(t, dir, key32(1), 0o600)
	keys, place, err := Find(t.Context(), dir, withKey(key32(2)+" , "+key32(3)+"\n"))
	if err != nil || place != Environment || len(keys) != 2 || keys[0][0] != 2 || keys[1][0] != 3 {
		t.Errorf("Find = %d keys, %v, %v; want both keys of the environment, in their order", len(keys), place, err)
	}
}

func TestWrongKeyIsRefusedAndNotShown(t *testing.T) {
	for name, text := range map[string]string{
		"too short":     base64.StdEncoding.EncodeToString([]byte("fifteen bytes!!")),
		"too long":      base64.StdEncoding.EncodeToString(bytes.Repeat([]byte("s"), 33)),
		"not Base64":    "s3cret!s3cret!s3cret!s3cret!s3cret!s3cret!!!",
		"hex":           strings.Repeat("ab", 32),
		"one of them":   key32(1) + ",s3cret",
		"trailing part": key32(1) + ",",
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			_, _, err := FindOrMake(t.Context(), dir, withKey(text))
			e, ok := errors.AsType[*failure.Error](err)
			if !ok || e.Status != failure.Usage {
				t.Fatalf("FindOrMake = %v, want a usage error", err)
			}
			wantText(t, err.Error(), Variable, "32 bytes", "openssl rand -base64 32")
			for part := range strings.SplitSeq(text, ",") {
				if part != "" && strings.Contains(err.Error(), part) {
					t.Errorf("the error shows the key: %v", err)
				}
			}
			if entries, _ := os.ReadDir(dir); len(entries) > 0 {
				t.Errorf("a wrong key of the environment made %v", entries)
			}

			writeKey(t, dir, text, 0o600)
			_, _, err = FindOrMake(t.Context(), dir, withKey(""))
			e, ok = errors.AsType[*failure.Error](err)
			if !ok || e.Status != failure.Local || strings.Contains(err.Error(), text) {
				t.Fatalf("FindOrMake with a damaged file = %v, want a local error without the key", err)
			}
			wantText(t, err.Error(), "damaged", "restore it", Variable)
			if data, _ := os.ReadFile(filepath.Join(dir, fileName)); string(data) != text {
				t.Error("the damaged file was overwritten")
			}
		})
	}
}

func TestFileThatOthersMayReadIsRefused(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no such modes")
	}
	dir := t.TempDir()
	writeKey(t, dir, key32(1), 0o644)
	_, _, err := FindOrMake(t.Context(), dir, withKey(""))
	if err == nil {
		t.Fatal("a file with mode 0644 was accepted")
	}
	wantText(t, err.Error(), "chmod 600", Variable)
}

func TestEmptyKeyFileIsDamaged(t *testing.T) {
	dir := t.TempDir()
	writeKey(t, dir, "", 0o600)
	if _, _, err := FindOrMake(t.Context(), dir, withKey("")); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("FindOrMake = %v, want an error that says damaged", err)
	}
}

func TestWithoutAKeyThereIsErrNone(t *testing.T) {
	if _, _, err := Find(t.Context(), t.TempDir(), withKey("")); !errors.Is(err, ErrNone) {
		t.Errorf("Find = %v, want ErrNone", err)
	}
}

func TestCanceledWaitLeavesNoKey(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	dir := t.TempDir()
	if _, _, err := FindOrMake(ctx, dir, withKey("")); !errors.Is(err, context.Canceled) {
		t.Errorf("FindOrMake = %v, want context.Canceled", err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) > 0 {
		t.Errorf("there is %v", entries)
	}
}

// writeKey writes the key file of dir.
func writeKey(t *testing.T, dir, text string, mode os.FileMode) {
	t.Helper()
	path := filepath.Join(dir, fileName)
	if err := errors.Join(os.WriteFile(path, []byte(text), mode), os.Chmod(path, mode)); err != nil {
		t.Fatal(err)
	}
}
