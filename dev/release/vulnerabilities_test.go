package main

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestUnreachableDatabaseIsSaidPlainlyAndIsNoFailure(t *testing.T) {
	t.Parallel()
	refusing := httptest.NewServer(http.NotFoundHandler())
	defer refusing.Close()
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	for name, url := range map[string]string{"refuses": refusing.URL, "does not answer": gone.URL} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			if err := vulnerabilities(t.Context(), &out, repository{}, databases{public: url}); err != nil {
				t.Fatal(err)
			}
			if !strings.HasPrefix(out.String(), "NOT CHECKED for known vulnerabilities") || !strings.Contains(out.String(), url) {
				t.Errorf("printed %q", out.String())
			}
		})
	}
}

func TestChosenDatabaseMustAnswer(t *testing.T) {
	t.Parallel()
	repo := newToy(t, onlyRoot())
	missing := fileURL(filepath.Join(t.TempDir(), "missing"))
	wantError(t, vulnerabilities(t.Context(), io.Discard, repo, databases{chosen: missing}), "example.com/toy: ")
}

func TestKnownVulnerabilityIsAFailure(t *testing.T) {
	t.Parallel()
	repo := newToy(t, onlyRoot())
	commit(t, repo, map[string]string{
		"toy.go": "package toy\n\nimport \"errors\"\n\n// Fail fails.\nfunc Fail() error { return errors.New(\"failed\") }\n",
	})
	var out bytes.Buffer
	if err := vulnerabilities(t.Context(), &out, repo, databases{chosen: databaseOf(t, "Join")}); err != nil {
		t.Errorf("the package does not call errors.Join: %v", err)
	}
	if want := "ok    example.com/toy calls nothing with a known vulnerability\n"; out.String() != want {
		t.Errorf("printed %q, want %q", out.String(), want)
	}
	wantError(t, vulnerabilities(t.Context(), io.Discard, repo, databases{chosen: databaseOf(t, "New")}), "GO-2026-9999")
}

// databaseOf returns a database in which a function of package errors is
// vulnerable.
func databaseOf(t *testing.T, function string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"index/db.json":      `{"modified": "2026-01-31T00:00:00Z"}`,
		"index/modules.json": `[{"path": "stdlib", "vulns": [{"id": "GO-2026-9999", "modified": "2026-01-31T00:00:00Z"}]}]`,
		"index/vulns.json":   `[{"id": "GO-2026-9999", "modified": "2026-01-31T00:00:00Z"}]`,
		"ID/GO-2026-9999.json": `{"schema_version": "1.3.1", "id": "GO-2026-9999", "modified": "2026-01-31T00:00:00Z",
			"published": "2026-01-31T00:00:00Z", "details": "Planted.",
			"database_specific": {"url": "https://example.com/GO-2026-9999"},
			"affected": [{"package": {"name": "stdlib", "ecosystem": "Go"},
				"ranges": [{"type": "SEMVER", "events": [{"introduced": "0"}]}],
				"ecosystem_specific": {"imports": [{"path": "errors", "symbols": ["` + function + `"]}]}}]}`,
	} {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return fileURL(dir)
}
