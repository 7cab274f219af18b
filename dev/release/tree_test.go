package main

import (
	"io"
	"testing"
)

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
