package main

import (
	"io"
	"strings"
	"testing"
)

func TestAPIChangesNeedTheirVersion(t *testing.T) {
	t.Parallel()
	const (
		added   = "### Added\n\n- Something.\n"
		removed = "### Removed\n\n- Something.\n"
	)
	more := toy()["toy.go"] + "\n// More is more.\nfunc More() {}\n"
	less := "// Package toy greets.\npackage toy\n\n// Greet greets.\nfunc Greet(name string) string { return name }\n"
	tests := map[string]struct {
		first, next string // versions
		source      string // of the package
		changes     string // in the changelog
		want        string // in the error, or "" for none
	}{
		"nothing new in a patch":               {"v0.1.0", "v0.1.1", toy()["toy.go"], added, ""},
		"an addition in a patch":               {"v0.1.0", "v0.1.1", more, added, "a patch release must not change the API\nCompatible changes:\n- More: added"},
		"an addition in a minor version":       {"v0.1.0", "v0.2.0", more, added, ""},
		"a removal in a patch":                 {"v0.1.0", "v0.1.1", less, removed, "a patch release must not change the API"},
		"a removal in v0 that is not in words": {"v0.1.0", "v0.2.0", less, added, "no entry under Changed or Removed for v0.2.0"},
		"a removal in v0 that is announced":    {"v0.1.0", "v0.2.0", less, removed, ""},
		"an addition in v1":                    {"v1.0.0", "v1.1.0", more, added, ""},
		"a removal in v1":                      {"v1.0.0", "v1.1.0", less, removed, "incompatible changes need a new major version"},
		"a removal from v0 to v1":              {"v0.1.0", "v1.0.0", less, added, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			repo := newToy(t, onlyRoot())
			for _, release := range []struct{ version, source string }{{test.first, toy()["toy.go"]}, {test.next, test.source}} {
				number := strings.TrimPrefix(release.version, "v")
				commit(t, repo, map[string]string{
					"toy.go":       release.source,
					"CHANGELOG.md": "# Changelog\n\n## [" + number + "] - 2026-02-28\n\n" + test.changes,
				})
				prepared(t, repo, release.version)
			}
			l, root := laboratoryOf(t, repo, test.next)
			note, err := l.compareAPI(t.Context(), root)
			switch {
			case test.want != "":
				wantError(t, err, test.want)
			case err != nil:
				t.Error(err)
			case !strings.HasSuffix(note, "changes since "+test.first):
				t.Errorf("noted %q, want a comparison with %s", note, test.first)
			}
		})
	}
}

// onlyRoot removes all modules of the toy but its root.
func onlyRoot() map[string]string {
	files := make(map[string]string)
	for name := range toy() {
		if strings.Contains(name, "/") {
			files[name] = ""
		}
	}
	return files
}

func TestMinorReleaseKeepsEveryModule(t *testing.T) {
	t.Parallel()
	repo := newToy(t, nil)
	prepared(t, repo, "v0.1.0")
	commit(t, repo, map[string]string{
		"cmd/toy/go.mod": "", "cmd/toy/main.go": "",
		"CHANGELOG.md": "# Changelog\n\n## [0.2.0] - 2026-02-28\n\n### Added\n\n- Nothing.\n",
	})
	prepared(t, repo, "v0.2.0")
	l, _ := laboratoryOf(t, repo, "v0.2.0")
	wantError(t, l.goneModules(t.Context()), "module example.com/toy/cmd/toy: removed")
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

func TestVersionsThatFollow(t *testing.T) {
	t.Parallel()
	tests := []struct {
		base, version string
		want          change
		refused       string
	}{
		{base: "", version: "v0.1.0", want: major},
		{base: "", version: "v1.0.0", want: major},
		{base: "", version: "v2.0.0", refused: "cannot be the first release"},
		{base: "", version: "0.1.0", refused: "no version"},
		{base: "", version: "v0.1", refused: "no version"},
		{base: "", version: "v0.1.0+build", refused: "no version"},
		{base: "v0.1.0", version: "v0.1.1", want: patch},
		{base: "v0.1.9", version: "v0.2.0", want: minor},
		{base: "v0.1.0", version: "v0.2.0-rc.1", want: minor},
		{base: "v0.9.3", version: "v1.0.0", want: major},
		{base: "v0.1.0", version: "v0.1.2", refused: "want v0.1.1, v0.2.0 or v1.0.0"},
		{base: "v0.1.0", version: "v0.3.0", refused: "does not follow"},
		{base: "v0.1.0", version: "v0.2.1", refused: "does not follow"},
		{base: "v0.1.0", version: "v2.0.0", refused: "does not follow"},
	}
	for _, test := range tests {
		t.Run(test.base+" to "+test.version, func(t *testing.T) {
			got, err := changeTo(test.base, test.version)
			if test.refused != "" {
				wantError(t, err, test.refused)
			} else if err != nil || got != test.want {
				t.Errorf("got %v, %v, want %v", got, err, test.want)
			}
		})
	}
}

func TestReleaseIsComparedWithTheNewestBefore(t *testing.T) {
	t.Parallel()
	repo := newToy(t, onlyRoot())
	for _, tag := range []string{"v0.9.0", "v0.10.0", "v0.11.0-rc.1", "v0.12.0", "vague", "v0.10"} {
		git(t, repo, "tag", tag)
	}
	for version, want := range map[string]string{"v0.11.0": "v0.10.0", "v0.9.1": "v0.9.0", "v0.1.0": "", "v1.0.0": "v0.12.0"} {
		if got, err := lastBefore(t.Context(), repo, version); err != nil || got != want {
			t.Errorf("%s is compared with %q (%v), want %q", version, got, err, want)
		}
	}
}

func TestSectionsOfTheChangelog(t *testing.T) {
	t.Parallel()
	tests := map[string]struct{ changelog, want string }{
		"dated":          {"## [0.1.0] - 2026-01-31\n\n### Added\n\n- Something.\n", ""},
		"without parts":  {"## [0.1.0] - 2026-01-31\n\n- Something.\n", ""},
		"not dated":      {"## [0.1.0]\n\n- Something.\n", "has no date"},
		"no such day":    {"## [0.1.0] - 2026-02-31\n\n- Something.\n", "has no date"},
		"empty":          {"## [0.1.0] - 2026-01-31\n\n## [0.0.1] - 2026-01-01\n\n- Something.\n", "has no entry"},
		"unreleased":     {"## [Unreleased]\n\n- Something.\n", "has no section"},
		"another number": {"## [0.1.00] - 2026-01-31\n\n- Something.\n", "has no section"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := sectionOf(test.changelog, "v0.1.0")
			if test.want != "" {
				wantError(t, err, test.want)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
}
