package main

import (
	"testing"
)

func TestSectionsOfTheChangelog(t *testing.T) {
	t.Parallel()
	tests := map[string]struct{ changelog, want string }{
		"dated":          {"## [0.1.0] - 2026-01-31\n\n### Added\n\n- Something.\n", ""},
		"without parts":  {"## [0.1.0] - 2026-01-31\n\n- Something.\n", ""},
		"not dated":      {"## [0.1.0]\n\n- Something.\n", "has no date"},
		"no such day":    {"## [0.1.0] - 2026-02-31\n\n- Something.\n", "has no date"},
		"empty":          {"## [0.1.0] - 2026-01-31\n\n## [0.0.1] - 2026-01-01\n\n- Something.\n", "has no entry"},
		"unreleased":     {"## [Unreleased]\n\n- Something.\n", "has no section"},
		"another number": {"## [0.1.00] - 2026-01-31\n\n- Something.\n", "has no section"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := sectionOf(test.changelog, "v0.1.0")
			if test.want != "" {
				wantError(t, err, test.want)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
}
