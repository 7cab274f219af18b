package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"time"
)

// rehearse prepares and checks the next minor version in a copy of the last
// commit. It needs no section in CHANGELOG.md, and runs no tests of the modules.
func rehearse(ctx context.Context, out io.Writer, repo repository) (err error) {
	dir, err := os.MkdirTemp("", "release")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	copied, err := repo.clone(ctx, filepath.Join(dir, "rehearsal"), "HEAD")
	if err != nil {
		return err
	}
	copied.env = append(copied.env, "GIT_AUTHOR_NAME=rehearsal", "GIT_AUTHOR_EMAIL=rehearsal@example.com",
		"GIT_COMMITTER_NAME=rehearsal", "GIT_COMMITTER_EMAIL=rehearsal@example.com")
	if _, err := copied.git(ctx, "fetch", "--quiet", "--tags", "origin"); err != nil {
		return err
	}
	base, err := lastBefore(ctx, copied, "v1000000.0.0")
	if err != nil {
		return err
	}
	version := nextMinor(base)
	if err := commitSection(ctx, copied, version); err != nil {
		return err
	}
	modules, released, err := writeCommits(ctx, copied, dir, version)
	if err != nil {
		return err
	}
	if err := tagAll(ctx, copied, modules, version, released); err != nil {
		return err
	}
	if err := check(ctx, out, copied, version, checkOptions{}); err != nil {
		return err
	}
	return checkTidy(ctx, out, copied)
}

// commitSection commits a section in CHANGELOG.md for a version.
func commitSection(ctx context.Context, copied repository, version string) error {
	name := filepath.Join(copied.dir, "CHANGELOG.md")
	changelog, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	if err := os.WriteFile(name, []byte(withSection(string(changelog), version, time.Now())), 0o644); err != nil {
		return err
	}
	_, err = copied.git(ctx, "commit", "--quiet", "--all", "-m", "Date "+version)
	return err
}

// checkTidy checks that all modules are tidy in the work tree, which is that of
// the commit after the release.
func checkTidy(ctx context.Context, out io.Writer, copied repository) error {
	files, err := copied.files(ctx, "HEAD")
	if err != nil {
		return err
	}
	for _, name := range files {
		if path.Base(name) != "go.mod" {
			continue
		}
		dir := filepath.Join(copied.dir, filepath.FromSlash(path.Dir(name)))
		if _, err := command(ctx, dir, []string{"GOWORK=off"}, "go", "mod", "tidy", "-diff"); err != nil {
			return fmt.Errorf("after the release, %s: %w", name, err)
		}
	}
	fmt.Fprintln(out, "ok    all modules are tidy after the release")
	return nil
}
