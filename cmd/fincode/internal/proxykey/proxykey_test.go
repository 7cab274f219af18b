package proxykey_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fincodeauth/fincodeauth/cmd/fincode/internal/proxykey"
)

func TestRequestWithTheKeyIsAuthorized(t *testing.T) {
	key, text := proxykey.New()
	basic := &http.Request{Header: http.Header{}}
	basic.SetBasicAuth("anybody", text)
	for header, want := range map[string]bool{
		"Bearer " + text:                  true,
		"bearer " + text:                  true,
		basic.Header.Get("Authorization"): true,
		"":                                false,
		"Bearer":                          false,
		"Bearer ":                         false,
		text:                              false,
		"Bearer " + text + "x":            false,
		"Bearer " + text[1:]:              false,
		"Basic " + text:                   false,
	} {
		r := &http.Request{Header: http.Header{"Authorization": {header}}}
		if got := key.Authorizes(r); got != want {
			t.Errorf("a header of %d characters that begins with %.6q: authorized %t, want %t", len(header), header, got, want)
		}
	}
}

func TestZeroKeyMatchesNothing(t *testing.T) {
	var key proxykey.Key
	if key.Matches("") || key.Authorizes(&http.Request{Header: http.Header{"Authorization": {"Bearer "}}}) {
		t.Error("the zero Key matches, want no match")
	}
}

func TestPrintingAKeyShowsNoSecret(t *testing.T) {
	key, text := proxykey.New()
	if printed := fmt.Sprintf("%v %+v %#v", key, key, key); strings.Contains(printed, text) {
		t.Error("a printed key shows its text")
	}
}

func TestKeyFile(t *testing.T) {
	good := strings.Repeat("a1", 16)
	for name, test := range map[string]struct {
		content string
		mode    os.FileMode
		want    string // of the error; "": none
	}{
		"good":           {good + "\n", 0o600, ""},
		"read-only":      {good, 0o400, ""},
		"credential":     {good, 0o440, ""},
		"others may see": {good, 0o644, "chmod 600"},
		"group may set":  {good, 0o660, "chmod 600"},
		"too short":      {"secret", 0o600, "can be guessed"},
		"empty":          {"", 0o600, "can be guessed"},
		"two lines":      {good + "\n" + good, 0o600, "white space"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "key")
			if err := os.WriteFile(path, []byte(test.content), test.mode); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, test.mode); err != nil { // whatever the umask
				t.Fatal(err)
			}
			key, err := proxykey.Read(path)
			switch {
			case test.want == "" && (err != nil || !key.Matches(good)):
				t.Errorf("error %v, want a key that matches", err)
			case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
				t.Errorf("error %v, want one that contains %q", err, test.want)
			case err != nil && strings.Contains(err.Error(), "secret"):
				t.Error("the error shows the key")
			}
		})
	}
	if _, err := proxykey.Read(filepath.Join(t.TempDir(), "none")); err == nil || !strings.Contains(err.Error(), "openssl") {
		t.Errorf("error %v for a missing file, want one that says how to make it", err)
	}
}
