package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

func TestSBOMIsTheSameEveryTime(t *testing.T) {
	t.Parallel()
	repo := newToy(t, nil)
	prepared(t, repo, "v0.1.0")
	shared := filepath.Join(t.TempDir(), "shared") // a copy that borrows its objects
	git(t, repo, "clone", "--quiet", "--shared", repo.dir, shared)
	var documents [][]byte
	for _, repo := range []repository{repo, {dir: shared}} {
		l, _ := laboratoryOf(t, repo, "v0.1.0")
		command := l.modules[2]
		if _, err := l.writeSBOM(t.Context(), command); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(filepath.Join(l.sboms, "cmd-toy-v0.1.0.cdx.json"))
		if err != nil {
			t.Fatal(err)
		}
		documents = append(documents, data)
	}
	if !bytes.Equal(documents[0], documents[1]) {
		t.Errorf("the SBOMs differ:\n%s\n%s", documents[0], documents[1])
	}
	linked := map[string]string{"example.com/toy": "v0.1.0", "example.com/toy/store": "v0.1.0"}
	if err := checkSBOM(documents[0], "example.com/toy/cmd/toy", "v0.1.0", linked); err != nil {
		t.Error(err)
	}
}

func TestWrongSBOMsAreRefused(t *testing.T) {
	t.Parallel()
	document := func(version, components string) string {
		return fmt.Sprintf(`{"bomFormat": "CycloneDX", "specVersion": "1.6", "dependencies": [{}],
			"metadata": {"component": {"name": "example.com/toy", "version": %q}}, "components": [%s]}`, version, components)
	}
	const other = `{"name": "example.com/other", "version": "v1.2.3", "purl": "pkg:golang/example.com/other@v1.2.3"}`
	linked := map[string]string{"example.com/other": "v1.2.3"}
	if err := checkSBOM([]byte(document("v0.1.0", other)), "example.com/toy", "v0.1.0", linked); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		document string
		linked   map[string]string
		want     string
	}{
		"no JSON":                  {"<bom/>", linked, "invalid character"},
		"no CycloneDX":             {"{}", linked, "no CycloneDX document"},
		"of another version":       {document("", other), linked, "is of example.com/toy , want example.com/toy v0.1.0"},
		"without a linked module":  {document("v0.1.0", ""), linked, "linked are example.com/other@v1.2.3"},
		"with a module too many":   {document("v0.1.0", other), nil, "lists example.com/other@v1.2.3"},
		"with another version":     {document("v0.1.0", other), map[string]string{"example.com/other": "v1.2.4"}, "linked are example.com/other@v1.2.4"},
		"with a wrong package URL": {document("v0.1.0", `{"name": "example.com/other", "version": "v1.2.3"}`), linked, `the package URL ""`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			wantError(t, checkSBOM([]byte(test.document), "example.com/toy", "v0.1.0", test.linked), test.want)
		})
	}
}
