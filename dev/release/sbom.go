package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// sbom is what is checked of a CycloneDX document.
type sbom struct {
	BOMFormat   string `json:"bomFormat"`
	SpecVersion string `json:"specVersion"`
	Metadata    struct {
		Component component `json:"component"`
	} `json:"metadata"`
	Components   []component       `json:"components"`
	Dependencies []json.RawMessage `json:"dependencies"`
}

type component struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	PURL    string `json:"purl"`
}

// writeSBOM writes the list of what a module is made of, and checks it. It is the
// same whenever and wherever it is made, as long as the tool is the same.
func (l *laboratory) writeSBOM(ctx context.Context, m module) (string, error) {
	tool, err := toolPath(ctx, "cyclonedx-gomod")
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(l.sboms, 0o755); err != nil {
		return "", err
	}
	name := filepath.Join(l.sboms, l.sbomName(m))
	// Without -licenses: it guesses, and takes the licence of golang.org/x/oauth2 for
	// another one.
	_, err = command(ctx, l.folder(m), l.proxy.env, tool, "mod", "-json", "-type", "library",
		"-noserial", "-notimestamp", "-short-purls", "-output", name)
	if err != nil {
		return "", err
	}
	data, err := os.ReadFile(name)
	if err != nil {
		return "", err
	}
	linked, err := l.linked(ctx, m)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf(", %d other modules", len(linked)), checkSBOM(data, m.path(), l.version, linked)
}

// sbomName returns the name of a module's SBOM. It begins with the folder, or with
// the last element of the path for the root.
func (l *laboratory) sbomName(m module) string {
	name := strings.ReplaceAll(m.dir, "/", "-")
	if m.dir == "." {
		name = path.Base(strings.TrimSuffix(m.path(), majorSuffix(m.path())))
	}
	return name + "-" + l.version + ".cdx.json"
}

// checkSBOM checks that an SBOM is one of a version of a module with the linked
// modules, and no others.
func checkSBOM(data []byte, modulePath, version string, linked map[string]string) error {
	var s sbom
	if err := json.Unmarshal(data, &s); err != nil {
		return err
	}
	if s.BOMFormat != "CycloneDX" || s.SpecVersion == "" || len(s.Dependencies) == 0 {
		return errors.New("the SBOM is no CycloneDX document with dependencies")
	}
	main := s.Metadata.Component
	if main.Name != modulePath || main.Version != version {
		return fmt.Errorf("the SBOM is of %s %s, want %s %s", main.Name, main.Version, modulePath, version)
	}
	listed := make(map[string]string)
	for _, c := range s.Components {
		if want := "pkg:golang/" + c.Name + "@" + c.Version + "?type=module"; c.PURL != want && c.PURL != strings.TrimSuffix(want, "?type=module") {
			return fmt.Errorf("the SBOM has the package URL %q, want %q", c.PURL, want)
		}
		listed[c.Name] = c.Version
	}
	if !maps.Equal(listed, linked) {
		return fmt.Errorf("the SBOM lists %s, linked are %s", versionsOf(listed), versionsOf(linked))
	}
	return nil
}

func versionsOf(modules map[string]string) string {
	var list []string
	for _, path := range slices.Sorted(maps.Keys(modules)) {
		list = append(list, path+"@"+modules[path])
	}
	return strings.Join(list, " ")
}

// linked returns the versions of the modules that a program gets into its binary
// with all packages of m, on any of the usual systems.
func (l *laboratory) linked(ctx context.Context, m module) (map[string]string, error) {
	modules := make(map[string]string)
	for _, system := range []string{"linux", "darwin", "windows"} {
		for _, arch := range []string{"amd64", "arm64"} {
			env := append(slices.Clone(l.proxy.env), "GOOS="+system, "GOARCH="+arch)
			out, err := command(ctx, l.folder(m), env, "go", "list", "-deps",
				"-f", "{{with .Module}}{{.Path}} {{.Version}}{{end}}", "./...")
			if err != nil {
				return nil, err
			}
			for line := range strings.Lines(out) {
				path, version, _ := strings.Cut(strings.TrimSpace(line), " ")
				modules[path] = version
			}
		}
	}
	delete(modules, "")
	delete(modules, m.path())
	return modules, nil
}
