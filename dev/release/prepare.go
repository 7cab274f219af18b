package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/mod/modfile"
)

// prepare makes the two commits of a release on the current branch, and tags the
// first:
//
//   - the first is what is released: the modules require one another in the new
//     version, and replace nothing;
//   - the second replaces again, so that everybody works with what is in the
//     checkout.
func prepare(ctx context.Context, out io.Writer, repo repository, version string) (err error) {
	if err := mayPrepare(ctx, repo, version); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "release")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	copied, err := repo.clone(ctx, filepath.Join(dir, "copy"), "HEAD")
	if err != nil {
		return err
	}
	copied.env = append(copied.env, repo.identity(ctx)...)
	modules, released, err := writeCommits(ctx, copied, dir, version)
	if err != nil {
		return err
	}
	if _, err := repo.git(ctx, "fetch", "--quiet", "--no-tags", copied.dir, "HEAD"); err != nil {
		return err
	}
	if _, err := repo.git(ctx, "merge", "--quiet", "--ff-only", "FETCH_HEAD"); err != nil {
		return err
	}
	if err := tagAll(ctx, repo, modules, version, released); err != nil {
		return err
	}
	fmt.Fprintf(out, "prepared %s: commit %.12s has the tags %s\n", version, released, strings.Join(tags(modules, version), " "))
	return nil
}

// mayPrepare returns an error if the version cannot be released from HEAD.
func mayPrepare(ctx context.Context, repo repository, version string) error {
	base, err := lastBefore(ctx, repo, version)
	if err != nil {
		return err
	}
	if _, err := changeTo(base, version); err != nil {
		return err
	}
	changelog, err := repo.read(ctx, "HEAD", "CHANGELOG.md")
	if err != nil {
		return err
	}
	if _, err := sectionOf(string(changelog), version); err != nil {
		return err
	}
	changed, err := repo.git(ctx, "status", "--porcelain", "--untracked-files=no")
	if err != nil {
		return err
	}
	if changed != "" {
		return fmt.Errorf("commit first what you changed:\n%s", changed)
	}
	modules, err := modulesAt(ctx, repo, "HEAD")
	if err != nil {
		return err
	}
	var problems []error
	for _, m := range modules {
		problems = append(problems, checkPath(m, modules[0].path(), version))
		if _, err := repo.commitOfTag(ctx, m.tag(version)); err == nil {
			problems = append(problems, fmt.Errorf("there is a tag %s already", m.tag(version)))
		}
	}
	return errors.Join(problems...)
}

// identity returns the environment with which git commits in the name of the
// user of the repository.
func (r repository) identity(ctx context.Context) (env []string) {
	for key, variable := range map[string]string{"user.name": "NAME", "user.email": "EMAIL"} {
		if value, err := r.git(ctx, "config", key); err == nil {
			env = append(env, "GIT_AUTHOR_"+variable+"="+value, "GIT_COMMITTER_"+variable+"="+value)
		}
	}
	return env
}

// tagAll gives a commit the tags of all modules.
func tagAll(ctx context.Context, repo repository, modules []module, version, commit string) error {
	for _, m := range modules {
		if _, err := repo.git(ctx, "tag", "-a", "-m", m.path()+" "+version, m.tag(version), commit); err != nil {
			return err
		}
	}
	return nil
}

// writeCommits makes the two commits of a release in a copy of the repository,
// with dir for what it needs meanwhile. It returns the first, and its modules.
func writeCommits(ctx context.Context, copied repository, dir, version string) ([]module, string, error) {
	modules, err := modulesAt(ctx, copied, "HEAD")
	if err != nil {
		return nil, "", err
	}
	p, err := newProxy(ctx, dir, modules[0].path())
	if err != nil {
		return nil, "", err
	}
	if _, err := copied.git(ctx, "commit", "--quiet", "--allow-empty", "-m", "Release "+version); err != nil {
		return nil, "", err
	}
	for _, m := range modules {
		if err := writeReleased(ctx, copied, p, m, modules, version); err != nil {
			return nil, "", err
		}
	}
	released, err := copied.commitOf(ctx, "HEAD")
	if err != nil {
		return nil, "", err
	}
	return modules, released, writeNext(ctx, copied, modules, version)
}

// writeReleased changes a module's go.mod and go.sum in the last commit to what is
// released. The modules that it requires are in the proxy, which gives go.sum
// their hashes, although nobody can download them yet. No hash covers a file that
// is changed later: a module's zip does not have the files of other modules.
func writeReleased(ctx context.Context, copied repository, p *proxy, m module, modules []module, version string) error {
	for path := range requiredOf(m, modules) {
		if err := m.file.AddRequire(path, version); err != nil {
			return err
		}
	}
	for _, other := range modules {
		if err := dropReplaces(m.file, other.path()); err != nil {
			return err
		}
	}
	if err := writeGoMod(copied, m.dir, m.file); err != nil {
		return err
	}
	if _, err := command(ctx, filepath.Join(copied.dir, m.dir), p.env, "go", "mod", "tidy"); err != nil {
		return err
	}
	if _, err := copied.git(ctx, "add", "--all", "--", m.dir); err != nil {
		return err
	}
	if _, err := copied.git(ctx, "commit", "--quiet", "--allow-empty", "--amend", "--no-edit"); err != nil {
		return err
	}
	commit, err := copied.commitOf(ctx, "HEAD")
	if err != nil {
		return err
	}
	return p.add(ctx, copied, commit, m, version)
}

// dropReplaces removes every replacement of the module with a path.
func dropReplaces(file *modfile.File, path string) (err error) {
	for _, replace := range slices.Clone(file.Replace) {
		if replace.Old.Path == path {
			err = errors.Join(err, file.DropReplace(path, replace.Old.Version))
		}
	}
	return err
}

func writeGoMod(repo repository, dir string, file *modfile.File) error {
	file.Cleanup()
	data, err := file.Format()
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(repo.dir, filepath.FromSlash(dir), "go.mod"), data, 0o644)
}

// writeNext makes the commit after a release. The modules replace one another
// again. They require the released version, so that go get also works with a
// commit after the release.
func writeNext(ctx context.Context, copied repository, modules []module, version string) error {
	if _, err := copied.git(ctx, "read-tree", "-u", "--reset", "HEAD~1"); err != nil {
		return err
	}
	files, err := copied.files(ctx, "HEAD~1")
	if err != nil {
		return err
	}
	for _, name := range files {
		if path.Base(name) == "go.mod" {
			if err := requireReleased(copied, path.Dir(name), modules, version); err != nil {
				return err
			}
		}
	}
	_, err = copied.git(ctx, "commit", "--quiet", "--all", "--allow-empty", "-m", "Continue after "+version)
	return err
}

// requireReleased changes the go.mod in a folder, which need not be released, so
// that it requires the released version of the modules.
func requireReleased(copied repository, dir string, modules []module, version string) error {
	name := filepath.Join(copied.dir, filepath.FromSlash(dir), "go.mod")
	data, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	file, err := modfile.Parse(name, data, nil)
	if err != nil {
		return err
	}
	for required := range requiredOf(module{file: file}, modules) {
		if err := file.AddRequire(required, version); err != nil {
			return err
		}
	}
	return writeGoMod(copied, dir, file)
}
