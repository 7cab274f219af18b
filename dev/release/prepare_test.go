package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestReleasedModulesReplaceNothingAndKnowTheirHashes(t *testing.T) {
	t.Parallel()
	repo := newToy(t, nil)
	prepared(t, repo, "v0.1.0")
	goMod, goSum := git(t, repo, "show", "v0.1.0:store/go.mod"), git(t, repo, "show", "v0.1.0:store/go.sum")
	if want := "module example.com/toy/store\n\ngo 1.26.0\n\nrequire example.com/toy v0.1.0"; goMod != want {
		t.Errorf("store/go.mod is\n%s\nwant\n%s", goMod, want)
	}
	for _, want := range []string{"example.com/toy v0.1.0 h1:", "example.com/toy v0.1.0/go.mod h1:"} {
		if !strings.Contains(goSum, want) {
			t.Errorf("store/go.sum is\n%s\nwant a line %s", goSum, want)
		}
	}
}

func TestDevelopmentGoesOnAfterARelease(t *testing.T) {
	t.Parallel()
	repo := newToy(t, nil)
	prepared(t, repo, "v0.1.0")
	if out := git(t, repo, "log", "--format=%s", "-2"); out != "Continue after v0.1.0\nRelease v0.1.0" {
		t.Errorf("the last commits are\n%s", out)
	}
	if out := git(t, repo, "status", "--porcelain"); out != "" {
		t.Errorf("the work tree differs from the commit:\n%s", out)
	}
	// The modules use one another's newest code, although nobody released it.
	commit(t, repo, map[string]string{
		"toy.go":         toy()["toy.go"] + "\n// New is new.\nfunc New() string { return \"new\" }\n",
		"store/store.go": strings.ReplaceAll(toy()["store/store.go"], `toy.Greet("Bob")`, "toy.New()"),
	})
	for _, dir := range []string{".", "store", "cmd/toy", "dev"} {
		if err := goIn(t.Context(), repo, dir, "build", "./..."); err != nil {
			t.Error(err)
		}
		if err := goIn(t.Context(), repo, dir, "mod", "tidy", "-diff"); err != nil {
			t.Error(err)
		}
		if goMod := git(t, repo, "show", "HEAD:./"+dir+"/go.mod"); strings.Contains(goMod, "v0.0.0") {
			t.Errorf("%s requires a version that does not exist:\n%s", dir, goMod)
		}
	}
}

func TestPrepareRefuses(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		version string
		before  func(*testing.T, repository)
		want    string
	}{
		"a version without a section":    {"v0.2.0", func(*testing.T, repository) {}, "CHANGELOG.md has no section"},
		"a version that does not follow": {"v0.3.0", func(t *testing.T, repo repository) { git(t, repo, "tag", "v0.1.0") }, "v0.3.0 does not follow v0.1.0"},
		"a module's tag that exists":     {"v0.1.0", func(t *testing.T, repo repository) { git(t, repo, "tag", "store/v0.1.0") }, "there is a tag store/v0.1.0 already"},
		"a tag that exists":              {"v0.1.0", func(t *testing.T, repo repository) { git(t, repo, "tag", "v0.1.0") }, "there is a tag v0.1.0 already"},
		"changes that are not committed": {"v0.1.0", func(t *testing.T, repo repository) {
			if err := os.WriteFile(filepath.Join(repo.dir, "toy.go"), []byte("package toy\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}, "commit first what you changed"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			repo := newToy(t, nil)
			test.before(t, repo)
			head := git(t, repo, "rev-parse", "HEAD")
			wantError(t, prepare(t.Context(), io.Discard, repo, test.version), test.want)
			if now := git(t, repo, "rev-parse", "HEAD"); now != head {
				t.Errorf("HEAD moved from %s to %s", head, now)
			}
		})
	}
}

func TestSecondMajorVersionHasItsPath(t *testing.T) {
	t.Parallel()
	repo := newToy(t, onlyRoot())
	commit(t, repo, map[string]string{"CHANGELOG.md": "## [2.0.0] - 2026-03-31\n\n### Added\n\n- More.\n\n" +
		"## [1.0.0] - 2026-02-28\n\n### Added\n\n- Something.\n"})
	prepared(t, repo, "v1.0.0")
	wantError(t, prepare(t.Context(), io.Discard, repo, "v2.0.0"), "go.mod: module example.com/toy, want example.com/toy/v2 for version v2.0.0")
	commit(t, repo, map[string]string{"go.mod": strings.ReplaceAll(toy()["go.mod"], "example.com/toy", "example.com/toy/v2")})
	prepared(t, repo, "v2.0.0")
	if err := check(t.Context(), io.Discard, repo, "v2.0.0", checkOptions{}); err != nil {
		t.Error(err)
	}
}
