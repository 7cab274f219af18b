package main

import (
	"bytes"
	"strings"
	"testing"
)

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
