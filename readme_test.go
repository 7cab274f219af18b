package fincodeauth_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"
)

func TestDocumentsShowOnlyCodeOfTheExamples(t *testing.T) {
	var code string
	for _, name := range sources(t) {
		code += unindented(textOf(t, name))
	}
	for _, name := range documents(t) {
		blocks := fencedBlocks(unindented(textOf(t, name)), "go")
		if name == "README.md" && len(blocks) == 0 {
			t.Errorf("%s has no Go code", name)
		}
		for _, block := range blocks {
			if !strings.Contains(code, "\n"+block+"\n") {
				t.Errorf("%s has code that no example and no test of dev/compose has:\n%s", name, block)
			}
		}
	}
}

// Each diff in a document begins with the names of two files. All diffs with the same
// names, in their order, are the whole difference between the two.
func TestDiffsInDocumentsTurnOneFileIntoTheOther(t *testing.T) {
	for _, name := range documents(t) {
		for pair, lines := range diffsIn(t, name) {
			got, err := patched(textOf(t, pair.from), lines)
			if err == nil && got != textOf(t, pair.to) {
				err = errors.New("the result is another one")
			}
			if err != nil {
				t.Errorf("the diffs in %s do not turn %s into %s: %v: use what git diff --no-index --patience -U1 prints", name, pair.from, pair.to, err)
			}
		}
	}
}

func TestMigrationShowsEachProgramBeforeAndAfter(t *testing.T) {
	shown := diffsIn(t, "docs/migrate.md")
	for _, from := range files(t, "client.go") {
		from = filepath.ToSlash(from)
		to := strings.Replace(from, "/before/", "/after/", 1)
		if to != from && shown[change{from, to}] == nil {
			t.Errorf("docs/migrate.md has no diff of %s and %s", from, to)
		}
	}
}

func TestREADMEHasOneTestCommand(t *testing.T) {
	var commands []string
	for _, block := range fencedBlocks(textOf(t, "README.md"), "") {
		for line := range strings.Lines(block) {
			if strings.HasPrefix(line, "go test") {
				commands = append(commands, line)
			}
		}
	}
	if len(commands) != 1 {
		t.Errorf("README.md has %d commands to test with, want 1: %q", len(commands), commands)
	}
}

func TestREADMEIsShort(t *testing.T) {
	if n := strings.Count(textOf(t, "README.md"), "\n"); n > 250 {
		t.Errorf("README.md has %d lines, want at most 250: move details to docs", n)
	}
}

func TestLinksLeadSomewhere(t *testing.T) {
	for _, name := range documents(t) {
		for _, target := range links(textOf(t, name)) {
			if strings.Contains(target, ":") {
				continue // another site
			}
			path, anchor, _ := strings.Cut(target, "#")
			file := name
			if path != "" {
				file = filepath.Join(filepath.Dir(name), path)
			}
			if _, err := os.Stat(file); err != nil {
				t.Errorf("%s links to %s: %v", name, target, err)
			} else if anchor != "" && !headings(textOf(t, file))[anchor] {
				t.Errorf("%s links to %s: %s has no such heading", name, target, file)
			}
		}
	}
}

func TestNoSampleClosesWithoutADeadline(t *testing.T) {
	samples := slices.Concat(documents(t), files(t, "example_test.go"), files(t, "main.go"))
	for _, name := range samples {
		if strings.Contains(textOf(t, name), "Close(context."+"Background())") { // not to find this line
			t.Errorf("%s calls Close with a context that never ends: Close may hang as long as the store is down", name)
		}
	}
}

// sources returns the paths of the files whose code documents may show. CI compiles them
// all.
func sources(t *testing.T) []string {
	t.Helper()
	paths := []string{"example_test.go", "runbook_test.go"}
	for _, path := range files(t, ".go") {
		slashed := filepath.ToSlash(path)
		if strings.HasPrefix(slashed, "examples/") || strings.HasPrefix(slashed, "dev/compose/") {
			paths = append(paths, path)
		}
	}
	return paths
}

// A change names the two files that a diff compares.
type change struct{ from, to string }

// diffsIn returns the hunks of all diffs in a document, line by line.
func diffsIn(t *testing.T, document string) map[change][]string {
	t.Helper()
	all := make(map[change][]string)
	for _, block := range fencedBlocks(textOf(t, document), "diff") {
		lines := strings.Split(block, "\n")
		if len(lines) < 2 || !strings.HasPrefix(lines[0], "--- ") || !strings.HasPrefix(lines[1], "+++ ") {
			t.Errorf("%s has a diff that does not begin with the names of two files:\n%s", document, block)
			continue
		}
		pair := change{lines[0][4:], lines[1][4:]}
		all[pair] = append(all[pair], lines[2:]...)
	}
	return all
}

var hunk = regexp.MustCompile(`^@@ -(\d+)(?:,\d+)? \+\d+(?:,\d+)? @@`)

// patched returns text after the hunks of a unified diff. All lines that a hunk keeps or
// removes must be in text, in the place that the hunk names.
func patched(text string, hunks []string) (string, error) {
	before, done := strings.SplitAfter(text, "\n"), 0
	var after strings.Builder
	for _, line := range hunks {
		if match := hunk.FindStringSubmatch(line); match != nil {
			first, err := strconv.Atoi(match[1])
			if err != nil || first-1 < done || first > len(before) {
				return "", fmt.Errorf("a hunk is out of place: %s", line)
			}
			after.WriteString(strings.Join(before[done:first-1], ""))
			done = first - 1
			continue
		}
		line += "\n"
		kind, content := line[0], line[min(1, len(line)-1):]
		if kind == '\n' {
			kind = ' ' // an editor has removed the space before an empty line
		}
		if !strings.ContainsRune(" +-", rune(kind)) {
			return "", fmt.Errorf("a line of a hunk begins with %q: %s", kind, line)
		}
		if kind != '+' {
			if before[done] != content {
				return "", fmt.Errorf("line %d of the file is %q, and of the diff %q", done+1, before[done], content)
			}
			done++
		}
		if kind != '-' {
			after.WriteString(content)
		}
	}
	after.WriteString(strings.Join(before[done:], ""))
	return after.String(), nil
}

// documents returns the paths of all Markdown files.
func documents(t *testing.T) []string { return files(t, ".md") }

// files returns the paths, below this folder, that end with suffix.
func files(t *testing.T, suffix string) (paths []string) {
	t.Helper()
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && strings.HasSuffix(path, suffix) {
			paths = append(paths, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

func textOf(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(string(data), "\r\n", "\n")
}

// fencedBlocks returns the contents of Markdown's fenced blocks in a language.
// "" means all languages.
func fencedBlocks(markdown, language string) (blocks []string) {
	parts := strings.Split("\n"+markdown, "\n```")
	for i := 1; i < len(parts); i += 2 {
		info, block, _ := strings.Cut(parts[i], "\n")
		if language == "" || info == language {
			blocks = append(blocks, block)
		}
	}
	return blocks
}

var (
	fenced  = regexp.MustCompile("(?ms)^ *```.*?^ *```$")
	link    = regexp.MustCompile(`\]\(([^()\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ (.+)$`)
)

// links returns the targets of Markdown's links and images.
func links(markdown string) (targets []string) {
	for _, match := range link.FindAllStringSubmatch(fenced.ReplaceAllString(markdown, ""), -1) {
		targets = append(targets, match[1])
	}
	return targets
}

// headings returns the anchors that GitHub gives to the headings.
func headings(markdown string) map[string]bool {
	anchors := make(map[string]bool)
	for _, match := range heading.FindAllStringSubmatch(fenced.ReplaceAllString(markdown, ""), -1) {
		anchors[strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r == '-', r == '_', unicode.IsLetter(r), unicode.IsDigit(r):
				return unicode.ToLower(r)
			}
			return -1
		}, match[1])] = true
	}
	return anchors
}

// unindented returns text without the white space at the beginning of its lines.
func unindented(text string) string {
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = strings.TrimLeft(lines[i], " \t")
	}
	return strings.Join(lines, "\n")
}
