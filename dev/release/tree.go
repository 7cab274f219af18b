package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// release is a version of the modules, as it is tagged.
type release struct {
	repo    repository
	version string
	commit  string
	modules []module
	base    string // the version before, or "" if there is none
	change  change // what may differ from base
	section section
}

// openRelease returns the release with the tag of a version. The error has all
// that is wrong with it and that can be seen without building anything.
func openRelease(ctx context.Context, repo repository, version string) (*release, error) {
	r := &release{repo: repo, version: version}
	var err error
	if r.base, err = lastBefore(ctx, repo, version); err != nil {
		return nil, err
	}
	if r.change, err = changeTo(r.base, version); err != nil {
		return nil, err
	}
	if r.commit, err = repo.commitOfTag(ctx, version); err != nil {
		return nil, err
	}
	if r.modules, err = modulesAt(ctx, repo, r.commit); err != nil {
		return nil, err
	}
	problems := []error{r.readChangelog(ctx)}
	for _, m := range r.modules {
		problems = append(problems, r.checkTag(ctx, m), checkPath(m, r.modules[0].path(), r.version), r.checkRequirements(m))
	}
	return r, errors.Join(problems...)
}

// readChangelog sets the section.
func (r *release) readChangelog(ctx context.Context) error {
	changelog, err := r.repo.read(ctx, r.commit, "CHANGELOG.md")
	if err != nil {
		return err
	}
	r.section, err = sectionOf(string(changelog), r.version)
	return err
}

// checkTag checks that the module's tag is at the same commit as the root's.
func (r *release) checkTag(ctx context.Context, m module) error {
	tag := m.tag(r.version)
	commit, err := r.repo.commitOfTag(ctx, tag)
	if err == nil && commit != r.commit {
		return fmt.Errorf("tag %s is at commit %.12s, and tag %s at %.12s: want the same", tag, commit, r.version, r.commit)
	}
	return err
}

// checkPath checks that the module's path says its folder and its major version.
// root is the path of the root module.
func checkPath(m module, root, version string) error {
	if want := expectedPath(root, m.dir, version); m.path() != want {
		return fmt.Errorf("%s: module %s, want %s for version %s", m.within("go.mod"), m.path(), want, version)
	}
	return nil
}

// checkRequirements checks that the go.mod works for those who require the
// module: it replaces nothing, because their builds ignore that, and it requires
// the other modules of this repository in this version.
func (r *release) checkRequirements(m module) error {
	var problems []error
	name := m.within("go.mod")
	for _, replace := range m.file.Replace {
		problems = append(problems, fmt.Errorf("%s replaces %s", name, replace.Old.Path))
	}
	for _, exclude := range m.file.Exclude {
		problems = append(problems, fmt.Errorf("%s excludes %s", name, exclude.Mod))
	}
	released := requiredOf(m, r.modules)
	root := r.modules[0].path()
	prefix := strings.TrimSuffix(root, majorSuffix(root)) + "/"
	for _, require := range m.file.Require {
		_, ok := released[require.Mod.Path]
		switch {
		case ok && require.Mod.Version != r.version:
			problems = append(problems, fmt.Errorf("%s requires %s, want version %s", name, require.Mod, r.version))
		case !ok && strings.HasPrefix(require.Mod.Path, prefix):
			problems = append(problems, fmt.Errorf("%s requires %s, which is not released", name, require.Mod.Path))
		}
	}
	return errors.Join(problems...)
}
