package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/mod/semver"
)

// change is how a version differs from the one before it.
type change int

const (
	patch change = iota // only fixes
	minor               // new names; in v0 also incompatible changes
	major               // anything
)

// lastBefore returns the newest version with a tag that is older than version.
// It is "" before the first release. A version like v1.0.0-rc.1 is no release
// that others are compared with.
func lastBefore(ctx context.Context, repo repository, version string) (string, error) {
	out, err := repo.git(ctx, "tag", "--list", "v*")
	if err != nil {
		return "", err
	}
	var older []string
	for tag := range strings.Lines(out) {
		tag = strings.TrimSpace(tag)
		isRelease := semver.Canonical(tag) == tag && semver.Prerelease(tag) == ""
		if isRelease && semver.Compare(tag, version) < 0 {
			older = append(older, tag)
		}
	}
	if len(older) == 0 {
		return "", nil
	}
	return slices.MaxFunc(older, semver.Compare), nil
}

// changeTo returns what may change from the version base to the next version. It
// refuses what cannot be the next version. base is "" before the first release.
func changeTo(base, version string) (change, error) {
	if !semver.IsValid(version) || semver.Canonical(version) != version {
		return 0, fmt.Errorf("%q is no version: want one like v1.2.3", version)
	}
	next := numbersOf(version)
	if base == "" {
		if next[0] > 1 {
			return 0, fmt.Errorf("%s cannot be the first release: want v0 or v1", version)
		}
		return major, nil
	}
	last := numbersOf(base)
	switch next {
	case [3]int{last[0], last[1], last[2] + 1}:
		return patch, nil
	case [3]int{last[0], last[1] + 1, 0}:
		return minor, nil
	case [3]int{last[0] + 1, 0, 0}:
		return major, nil
	}
	return 0, fmt.Errorf("%s does not follow %s: want v%d.%d.%d, v%d.%d.0 or v%d.0.0", version, base,
		last[0], last[1], last[2]+1, last[0], last[1]+1, last[0]+1)
}

// nextMinor returns the next minor version, and v0.1.0 before the first release.
func nextMinor(base string) string {
	if base == "" {
		return "v0.1.0"
	}
	last := numbersOf(base)
	return fmt.Sprintf("v%d.%d.0", last[0], last[1]+1)
}

// numbersOf returns 1, 2 and 3 of v1.2.3-rc.1. The version is valid.
func numbersOf(version string) (numbers [3]int) {
	core, _, _ := strings.Cut(strings.TrimPrefix(version, "v"), "-")
	for i, number := range strings.Split(core, ".") {
		fmt.Sscan(number, &numbers[i])
	}
	return numbers
}
