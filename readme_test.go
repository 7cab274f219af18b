package fincodeauth_test

import (
	"os"
	"strings"
	"testing"
)

func TestREADMEShowsOnlyCodeOfTheExamples(t *testing.T) {
	examples := unindented(textOf(t, "example_test.go"))
	blocks := fencedBlocks(textOf(t, "README.md"), "go")
	if len(blocks) == 0 {
		t.Fatal("README.md has no Go code")
	}
	for _, block := range blocks {
		if !strings.Contains(examples, "\n"+unindented(block)+"\n") {
			t.Errorf("README.md has code that is not in example_test.go:\n%s", block)
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

func textOf(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(string(data), "\r\n", "\n")
}

// fencedBlocks returns the content of markdown's fenced blocks of a language, ""
// for all.
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

// unindented returns text without the white space that its lines begin with.
func unindented(text string) string {
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = strings.TrimLeft(lines[i], " \t")
	}
	return strings.Join(lines, "\n")
}
