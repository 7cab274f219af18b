package main

import (
	"testing"
)

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
