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

func TestRehearsalOfTheNextReleaseLeavesNothing(t *testing.T) {
	t.Parallel()
	repo := newToy(t, nil)
	prepared(t, repo, "v0.1.0")
	before := git(t, repo, "show-ref")
	var out bytes.Buffer
	if err := rehearse(t.Context(), &out, repo); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"all of v0.2.0", "0 changes since v0.1.0", "all modules are tidy after the release"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("printed\n%swant %q", out.String(), want)
		}
	}
	if after := git(t, repo, "show-ref"); after != before {
		t.Errorf("the rehearsal changed the repository from\n%s\nto\n%s", before, after)
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

func TestTagsAreRefusedBeforeAnythingIsBuilt(t *testing.T) {
	t.Parallel()
	released := newToy(t, nil)
	prepared(t, released, "v0.1.0")
	tests := map[string]struct {
		files map[string]string
		want  string
	}{
		"a replaced module": {
			map[string]string{"store/go.mod": toy()["store/go.mod"]},
			"store/go.mod replaces example.com/toy",
		},
		"an excluded module": {
			map[string]string{"go.mod": toy()["go.mod"] + "\nexclude example.com/other v1.0.0\n"},
			"go.mod excludes example.com/other@v1.0.0",
		},
		"another version of the root": {
			map[string]string{"store/go.mod": "module example.com/toy/store\n\ngo 1.26.0\n\nrequire example.com/toy v0.0.9\n"},
			"store/go.mod requires example.com/toy@v0.0.9, want version v0.1.0",
		},
		"a module that is not released": {
			map[string]string{"store/go.mod": "module example.com/toy/store\n\ngo 1.26.0\n\nrequire (\n\texample.com/toy v0.1.0\n\texample.com/toy/dev v0.1.0\n)\n"},
			"store/go.mod requires example.com/toy/dev, which is not released",
		},
		"a path that is not the folder's": {
			map[string]string{"store/go.mod": "module example.com/toy/storage\n\ngo 1.26.0\n"},
			"store/go.mod: module example.com/toy/storage, want example.com/toy/store",
		},
		"a path of another major version": {
			map[string]string{"store/go.mod": "module example.com/toy/store/v2\n\ngo 1.26.0\n"},
			"store/go.mod: module example.com/toy/store/v2, want example.com/toy/store",
		},
		"no section in the changelog": {
			map[string]string{"CHANGELOG.md": "# Changelog\n\n## [Unreleased]\n\n- `Greet`.\n"},
			`CHANGELOG.md has no section "## [0.1.0] - YEAR-MONTH-DAY"`,
		},
		"a module without a tag": {
			map[string]string{"more/go.mod": "module example.com/toy/more\n\ngo 1.26.0\n", "more/more.go": "package more\n"},
			"there is no tag more/v0.1.0",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			repo := copyOf(t, released)
			retag(t, repo, "v0.1.0", test.files)
			wantError(t, check(t.Context(), io.Discard, repo, "v0.1.0", checkOptions{}), test.want)
		})
	}
	t.Run("tags at different commits", func(t *testing.T) {
		repo := copyOf(t, released)
		git(t, repo, "tag", "--force", "store/v0.1.0", "HEAD")
		wantError(t, check(t.Context(), io.Discard, repo, "v0.1.0", checkOptions{}), "tag store/v0.1.0 is at commit")
	})
	t.Run("no tag", func(t *testing.T) {
		wantError(t, check(t.Context(), io.Discard, released, "v0.1.1", checkOptions{}), "there is no tag v0.1.1")
	})
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
