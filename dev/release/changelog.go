package main

import (
	"fmt"
	"regexp"
	"strings"
	"time"
)

var (
	sectionHeading = regexp.MustCompile(`^## \[(.+?)\](?: - (\S+))?\s*$`)
	partHeading    = regexp.MustCompile(`^### (\S+)\s*$`)
)

// section is what CHANGELOG.md says about one version.
type section struct {
	date  string
	parts map[string]bool // "Added", "Changed", ... that have an entry
}

// sectionOf returns the section of a version. Its format is that of Keep a
// Changelog: "## [1.2.3] - 2026-12-31", with parts such as "### Added".
func sectionOf(changelog, version string) (section, error) {
	found, inside, part := section{}, false, ""
	for line := range strings.Lines(changelog) {
		if match := sectionHeading.FindStringSubmatch(strings.TrimSpace(line)); match != nil {
			if inside = "v"+match[1] == version; inside {
				found = section{match[2], make(map[string]bool)}
			}
			part = ""
		} else if match := partHeading.FindStringSubmatch(line); match != nil {
			part = match[1]
		} else if inside && strings.HasPrefix(line, "- ") {
			found.parts[part] = true
		}
	}
	heading := fmt.Sprintf(`"## [%s] - YEAR-MONTH-DAY"`, strings.TrimPrefix(version, "v"))
	switch _, err := time.Parse(time.DateOnly, found.date); {
	case found.parts == nil:
		return found, fmt.Errorf("CHANGELOG.md has no section %s", heading)
	case err != nil:
		return found, fmt.Errorf("CHANGELOG.md: the section of %s has no date: want %s", version, heading)
	case len(found.parts) == 0:
		return found, fmt.Errorf("CHANGELOG.md: the section of %s has no entry", version)
	}
	return found, nil
}

// announcesRemovals reports whether the section says that something is no longer
// as it was.
func (s section) announcesRemovals() bool { return s.parts["Changed"] || s.parts["Removed"] }

// withSection returns the changelog after a rehearsed release: the section
// Unreleased is that of the version.
func withSection(changelog, version string, day time.Time) string {
	heading := fmt.Sprintf("## [%s] - %s\n", strings.TrimPrefix(version, "v"), day.Format(time.DateOnly))
	before, after, found := strings.Cut(changelog, "## [Unreleased]\n")
	if !found {
		return changelog + "\n" + heading + "\n- Nothing.\n"
	}
	unreleased, released, _ := strings.Cut(after, "\n## [")
	if !strings.Contains("\n"+unreleased, "\n- ") {
		unreleased = "\n- Nothing.\n"
	}
	if released != "" {
		released = "\n## [" + released
	}
	return before + heading + unreleased + released
}
