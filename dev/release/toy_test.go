package main

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestMain keeps the user's git configuration out of the tests.
func TestMain(m *testing.M) {
	for _, variable := range []string{"GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"} {
		if err := os.Setenv(variable, os.DevNull); err != nil {
			panic(err)
		}
	}
	m.Run()
}

// toy returns the files of a small repository whose modules are like ours: the
// root, one that requires the root, a command that requires both, and dev.
func toy() map[string]string {
	return map[string]string{
		"LICENSE":      "Do what you want.\n",
		"CHANGELOG.md": "# Changelog\n\n## [Unreleased]\n\n## [0.1.0] - 2026-01-31\n\n### Added\n\n- `Greet`.\n",
		"go.mod":       "module example.com/toy\n\ngo 1.26.0\n",
		"toy.go": "// Package toy greets.\npackage toy\n\n// Greet greets.\nfunc Greet(name string) string { return \"hello \" + name }\n\n" +
			"// Leave says goodbye.\nfunc Leave() string { return \"bye\" }\n",
		"toy_test.go": "package toy\n\nimport \"testing\"\n\nfunc TestGreet(t *testing.T) {\n\tif Greet(\"Ada\") != \"hello Ada\" {\n\t\tt.Error(Greet(\"Ada\"))\n\t}\n}\n",
		"store/go.mod": "module example.com/toy/store\n\ngo 1.26.0\n\nrequire example.com/toy v0.0.0\n\n" +
			"replace example.com/toy => ../\n",
		"store/store.go": "// Package store stores.\npackage store\n\nimport \"example.com/toy\"\n\n// Name is a name.\nfunc Name() string { return toy.Greet(\"Bob\") }\n",
		"cmd/toy/go.mod": "module example.com/toy/cmd/toy\n\ngo 1.26.0\n\nrequire (\n\texample.com/toy v0.0.0\n\texample.com/toy/store v0.0.0\n)\n\n" +
			"replace (\n\texample.com/toy => ../..\n\texample.com/toy/store => ../../store\n)\n",
		"cmd/toy/main.go": "// Command toy greets.\npackage main\n\nimport (\n\t\"example.com/toy\"\n\t\"example.com/toy/store\"\n)\n\nfunc main() { println(toy.Greet(store.Name())) }\n",
		"dev/go.mod": "module example.com/toy/dev\n\ngo 1.26.0\n\nrequire example.com/toy/store v0.0.0\n\nrequire example.com/toy v0.0.0 // indirect\n\n" +
			"replace (\n\texample.com/toy => ../\n\texample.com/toy/store => ../store\n)\n",
		"dev/dev.go": "// Package dev is for developers.\npackage dev\n\nimport _ \"example.com/toy/store\"\n",
	}
}

// newToy returns a repository with the toy, of which some files are changed. An
// empty file is removed.
func newToy(t *testing.T, changed map[string]string) repository {
	t.Helper()
	repo := repository{dir: t.TempDir()}
	git(t, repo, "init", "-q", "-b", "main")
	git(t, repo, "config", "user.name", "Ada")
	git(t, repo, "config", "user.email", "ada@example.com")
	commit(t, repo, toy())
	commit(t, repo, changed)
	return repo
}

func git(t *testing.T, repo repository, args ...string) string {
	t.Helper()
	out, err := repo.git(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// commit writes files and commits them. An empty file is removed.
func commit(t *testing.T, repo repository, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(repo.dir, filepath.FromSlash(name))
		if text == "" {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	git(t, repo, "add", "--all")
	git(t, repo, "commit", "--quiet", "--allow-empty", "-m", "Change files")
}

// prepared prepares a version.
func prepared(t *testing.T, repo repository, version string) {
	t.Helper()
	if err := prepare(t.Context(), io.Discard, repo, version); err != nil {
		t.Fatal(err)
	}
}

// retag changes files at the tags of a version, as somebody might who releases by
// hand.
func retag(t *testing.T, repo repository, version string, files map[string]string) {
	t.Helper()
	git(t, repo, "checkout", "--quiet", "--detach", version)
	commit(t, repo, files)
	for _, tag := range []string{version, "store/" + version, "cmd/toy/" + version} {
		git(t, repo, "tag", "--force", tag)
	}
}

// laboratoryOf returns the laboratory of a version with its root module.
func laboratoryOf(t *testing.T, repo repository, version string) (*laboratory, module) {
	t.Helper()
	r, err := openRelease(t.Context(), repo, version)
	if err != nil {
		t.Fatal(err)
	}
	l, err := newLaboratory(t.Context(), r, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return l, r.modules[0]
}

// wantError fails unless err has the text.
func wantError(t *testing.T, err error, text string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), text) {
		t.Errorf("got the error %v, want one that has %q", err, text)
	}
}

// copyOf returns a copy of a repository, with its tags.
func copyOf(t *testing.T, repo repository) repository {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(dir, os.DirFS(repo.dir)); err != nil {
		t.Fatal(err)
	}
	return repository{dir: dir}
}

// goIn runs the go command in a folder of a repository.
func goIn(ctx context.Context, repo repository, dir string, args ...string) error {
	_, err := command(ctx, filepath.Join(repo.dir, dir), []string{"GOWORK=off"}, "go", args...)
	return err
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
