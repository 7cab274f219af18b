package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// repository is a git repository with a work tree.
type repository struct {
	dir string // its root, absolute
	env []string
}

// openRepository returns the repository that dir is in.
func openRepository(ctx context.Context, dir string) (repository, error) {
	out, err := command(ctx, dir, nil, "git", "rev-parse", "--show-toplevel")
	if err != nil {
		return repository{}, err
	}
	return repository{dir: strings.TrimSpace(out)}, nil
}

// git runs git, and returns what it printed, without white space around it.
func (r repository) git(ctx context.Context, args ...string) (string, error) {
	out, err := command(ctx, r.dir, r.env, "git", args...)
	return strings.TrimSpace(out), err
}

// commitOf returns the commit that ref names.
func (r repository) commitOf(ctx context.Context, ref string) (string, error) {
	return r.git(ctx, "rev-parse", "--verify", "--quiet", ref+"^{commit}")
}

// commitOfTag returns the commit that a tag is at.
func (r repository) commitOfTag(ctx context.Context, tag string) (string, error) {
	commit, err := r.commitOf(ctx, "refs/tags/"+tag)
	if err != nil {
		return "", fmt.Errorf("there is no tag %s", tag)
	}
	return commit, nil
}

// files returns the paths of all files of a commit.
func (r repository) files(ctx context.Context, commit string) ([]string, error) {
	out, err := r.git(ctx, "ls-tree", "-r", "-z", "--name-only", "--full-tree", commit)
	if err != nil {
		return nil, err
	}
	return strings.Split(strings.Trim(out, "\x00"), "\x00"), nil
}

// read returns a file of a commit.
func (r repository) read(ctx context.Context, commit, path string) ([]byte, error) {
	out, err := command(ctx, r.dir, r.env, "git", "cat-file", "blob", commit+":"+path)
	return []byte(out), err
}

// timeOf returns the time of a commit.
func (r repository) timeOf(ctx context.Context, commit string) (time.Time, error) {
	out, err := r.git(ctx, "show", "-s", "--format=%ct", commit)
	if err != nil {
		return time.Time{}, err
	}
	seconds, err := strconv.ParseInt(out, 10, 64)
	return time.Unix(seconds, 0).UTC(), err
}

// clone makes a copy at commit in dir, without tags and without hooks. It has the
// commits of all branches and tags of r, and does not need r from then on.
func (r repository) clone(ctx context.Context, dir, commit string) (repository, error) {
	copied := repository{dir: dir, env: []string{"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=core.hooksPath", "GIT_CONFIG_VALUE_0=" + os.DevNull}}
	if _, err := r.git(ctx, "clone", "--quiet", "--local", "--dissociate", "--no-checkout", r.dir, dir); err != nil {
		return copied, err
	}
	if _, err := copied.git(ctx, "checkout", "--quiet", "--detach", commit); err != nil {
		return copied, err
	}
	names, err := copied.git(ctx, "tag", "--list")
	if err != nil || names == "" {
		return copied, err
	}
	_, err = copied.git(ctx, append([]string{"tag", "--delete"}, strings.Fields(names)...)...)
	return copied, err
}

// command runs a program in dir and returns its standard output. env is added to
// the environment. An error has the end of what the program printed.
func command(ctx context.Context, dir string, env []string, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(cmd.Environ(), env...)
	var out, problems bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problems
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err,
			lastLines(out.String()+problems.String(), 60))
	}
	return out.String(), nil
}

// lastLines returns at most n lines of text, from its end.
func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
