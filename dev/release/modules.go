package main

import (
	"cmp"
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"golang.org/x/mod/modfile"
	"golang.org/x/mod/semver"
)

// module is a module that is released.
type module struct {
	dir  string // its folder, "." for the root
	file *modfile.File
}

// path returns the module's path.
func (m module) path() string { return m.file.Module.Mod.Path }

// tag returns the tag of a version of the module.
func (m module) tag(version string) string { return path.Join(m.dir, version) }

// within returns the path of one of the module's files in the repository.
func (m module) within(name string) string { return path.Join(m.dir, name) }

// modulesAt returns the modules of a commit that are released. A module stands
// behind the modules that it requires, so the root is first.
func modulesAt(ctx context.Context, repo repository, commit string) ([]module, error) {
	files, err := repo.files(ctx, commit)
	if err != nil {
		return nil, err
	}
	var modules []module
	for _, file := range files {
		if path.Base(file) != "go.mod" || !isReleased(path.Dir(file)) {
			continue
		}
		data, err := repo.read(ctx, commit, file)
		if err != nil {
			return nil, err
		}
		parsed, err := modfile.Parse(file, data, nil)
		if err != nil {
			return nil, err
		}
		if parsed.Module == nil {
			return nil, fmt.Errorf("%s has no module line", file)
		}
		modules = append(modules, module{path.Dir(file), parsed})
	}
	if len(modules) == 0 || !slices.ContainsFunc(modules, func(m module) bool { return m.dir == "." }) {
		return nil, fmt.Errorf("commit %s has no go.mod in its root", commit)
	}
	return inOrder(modules)
}

// isReleased reports whether the module in a folder is released. dev and the
// examples are not: nobody imports them.
func isReleased(dir string) bool {
	first, _, _ := strings.Cut(dir, "/")
	return first != "dev" && first != "examples" && !slices.Contains(strings.Split(dir, "/"), "testdata")
}

// inOrder returns the modules in an order in which each comes after those that
// it requires.
func inOrder(modules []module) ([]module, error) {
	slices.SortFunc(modules, func(a, b module) int { return cmp.Compare(a.dir, b.dir) })
	var ordered []module
	for len(modules) > 0 {
		ready := slices.IndexFunc(modules, func(m module) bool { return len(requiredOf(m, modules)) == 0 })
		if ready < 0 {
			return nil, fmt.Errorf("the modules %v require one another in a circle", folders(modules))
		}
		ordered = append(ordered, modules[ready])
		modules = slices.Delete(modules, ready, ready+1)
	}
	return ordered, nil
}

// requiredOf returns the versions of those of the modules that m requires.
func requiredOf(m module, modules []module) map[string]string {
	required := make(map[string]string)
	for _, r := range m.file.Require {
		for _, other := range modules {
			if r.Mod.Path == other.path() {
				required[r.Mod.Path] = r.Mod.Version
			}
		}
	}
	return required
}

// tags returns the tags of a version of the modules.
func tags(modules []module, version string) (names []string) {
	for _, m := range modules {
		names = append(names, m.tag(version))
	}
	return names
}

func folders(modules []module) (dirs []string) {
	for _, m := range modules {
		dirs = append(dirs, m.dir)
	}
	return dirs
}

// expectedPath returns the path that a module must have: the root's path, the
// folder, and from version 2 on the major version.
func expectedPath(root, dir, version string) string {
	prefix := strings.TrimSuffix(root, majorSuffix(root))
	return path.Join(prefix, dir, majorOf(version))
}

// majorOf returns the last element of the path of a module: "v2" for v2.3.4, and
// "" for v0 and v1.
func majorOf(version string) string {
	if major := semver.Major(version); major != "v0" && major != "v1" {
		return major
	}
	return ""
}

// majorSuffix returns the last element of a module's path, with its slash, if it
// is a major version.
func majorSuffix(modulePath string) string {
	last := path.Base(modulePath)
	if semver.IsValid(last) && semver.Major(last) == last {
		return "/" + last
	}
	return ""
}
