package main

import (
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
