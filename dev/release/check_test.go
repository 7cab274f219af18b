package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestPreparedReleasePassesEveryCheck(t *testing.T) {
	t.Parallel()
	repo := newToy(t, nil)
	prepared(t, repo, "v0.1.0")
	// What is in the work tree, or in later commits, does not matter.
	commit(t, repo, map[string]string{"toy.go": "package broken\n\nfunc", "LICENSE": "", "CHANGELOG.md": "# Nothing\n"})
	var out bytes.Buffer
	sboms := t.TempDir()
	if err := check(t.Context(), &out, repo, "v0.1.0", checkOptions{tests: true, sboms: sboms}); err != nil {
		t.Fatal(err)
	}
	if want := "all of v0.1.0: v0.1.0 store/v0.1.0 cmd/toy/v0.1.0"; !strings.Contains(out.String(), want) {
		t.Errorf("printed\n%swant %q", out.String(), want)
	}
	for _, name := range []string{"toy", "store", "cmd-toy"} {
		if _, err := os.Stat(filepath.Join(sboms, name+"-v0.1.0.cdx.json")); err != nil {
			t.Error(err)
		}
	}
}

func TestAllThatDoesNotWorkForUsersIsReported(t *testing.T) {
	t.Parallel()
	repo := newToy(t, nil)
	prepared(t, repo, "v0.1.0")
	retag(t, repo, "v0.1.0", map[string]string{
		"LICENSE":         "",
		"large.txt":       strings.Repeat("x", maxFileSize+1),
		"toy_test.go":     strings.ReplaceAll(toy()["toy_test.go"], "hello", "good morning"),
		"store/go.sum":    "",
		"cmd/toy/main.go": "package main\n\nfunc main() { fail() }\n",
	})
	err := check(t.Context(), io.Discard, repo, "v0.1.0", checkOptions{tests: true})
	for _, want := range []string{
		"example.com/toy@v0.1.0 has no LICENSE",
		"example.com/toy@v0.1.0/large.txt has 1048577 bytes",
		"example.com/toy: go test -short",
		"FAIL: TestGreet",
		"example.com/toy/store@v0.1.0 has no LICENSE",
		"example.com/toy/store: go mod verify, go mod tidy",
		"example.com/toy/cmd/toy: go build",
		"example.com/toy/cmd/toy: a program that uses it builds",
	} {
		wantError(t, err, want)
	}
}
