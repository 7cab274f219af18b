package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// checkOptions say what check does beside the checks that are always done.
type checkOptions struct {
	tests bool   // run the tests of the tagged modules
	sboms string // the folder that gets the SBOMs. "" keeps none
}

// check checks the tags of a version, and writes what it found to out. It changes
// nothing in repo.
func check(ctx context.Context, out io.Writer, repo repository, version string, options checkOptions) (err error) {
	r, err := openRelease(ctx, repo, version)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "ok    %s: tags, paths, requirements, changelog\n", version)
	dir, err := os.MkdirTemp("", "release")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	l, err := newLaboratory(ctx, r, dir)
	if err != nil {
		return err
	}
	if options.sboms != "" {
		if l.sboms, err = filepath.Abs(options.sboms); err != nil {
			return err
		}
	}
	if err := l.runAll(ctx, out, options.tests); err != nil {
		return err
	}
	fmt.Fprintf(out, "ok    all of %s: %s\n", version, strings.Join(tags(r.modules, version), " "))
	return nil
}

// laboratory is where a release is built: a proxy that has its modules, and a
// copy of the repository at its commit.
type laboratory struct {
	*release
	dir    string
	proxy  *proxy
	copied repository
	sboms  string // the folder for the SBOMs
}

func newLaboratory(ctx context.Context, r *release, dir string) (*laboratory, error) {
	p, err := newProxy(ctx, dir, r.modules[0].path())
	if err != nil {
		return nil, err
	}
	copied, err := r.repo.clone(ctx, filepath.Join(dir, "copy"), r.commit)
	if err != nil {
		return nil, err
	}
	l := &laboratory{release: r, dir: dir, proxy: p, copied: copied, sboms: filepath.Join(dir, "sbom")}
	// The SBOM has the version of the tag that it finds.
	if _, err := copied.git(ctx, "tag", r.version, r.commit); err != nil {
		return nil, err
	}
	for _, m := range r.modules {
		if err := p.add(ctx, copied, r.commit, m, r.version); err != nil {
			return nil, err
		}
	}
	return l, l.addBase(ctx)
}

// addBase adds the version before to the proxy.
func (l *laboratory) addBase(ctx context.Context) error {
	modules, err := l.baseModules(ctx)
	if err != nil {
		return err
	}
	for _, m := range modules {
		commit, err := l.repo.commitOfTag(ctx, m.tag(l.base))
		if err != nil {
			return err
		}
		if err := l.proxy.add(ctx, l.copied, commit, m, l.base); err != nil {
			return err
		}
	}
	return nil
}

// baseModules returns the modules of the version before.
func (l *laboratory) baseModules(ctx context.Context) ([]module, error) {
	if l.base == "" {
		return nil, nil
	}
	commit, err := l.repo.commitOfTag(ctx, l.base)
	if err != nil {
		return nil, err
	}
	return modulesAt(ctx, l.repo, commit)
}

// step is one check of one module.
type step struct {
	name string
	run  func(context.Context, module) (note string, err error)
}

// runAll runs every check of every module. It goes on after a failure, so that
// one run shows all that must be fixed.
func (l *laboratory) runAll(ctx context.Context, out io.Writer, tests bool) error {
	steps := []step{
		{"LICENSE, sizes of files", l.zipped},
		{"go mod verify, go mod tidy", l.tidy},
		{"go build", l.build},
		{"a program that uses it builds", l.consume},
		{"exported API", l.compareAPI},
		{"SBOM", l.writeSBOM},
	}
	if tests {
		steps = append(steps, step{"go test -short", l.test})
	}
	var problems []error
	for _, m := range l.modules {
		for _, s := range steps {
			began := time.Now()
			note, err := s.run(ctx, m)
			if err != nil {
				problems = append(problems, fmt.Errorf("%s: %s: %w", m.path(), s.name, err))
				fmt.Fprintf(out, "FAIL  %s: %s\n", m.path(), s.name)
				continue
			}
			fmt.Fprintf(out, "ok    %s: %s%s (%.1f s)\n", m.path(), s.name, note, time.Since(began).Seconds())
		}
	}
	if err := l.goneModules(ctx); err != nil {
		problems = append(problems, err)
	}
	if len(problems) > 0 {
		return fmt.Errorf("%s must not be pushed:\n%w", l.version, errors.Join(problems...))
	}
	return nil
}

func (l *laboratory) zipped(_ context.Context, m module) (string, error) {
	return "", l.proxy.checkZip(m, l.version)
}

func (l *laboratory) tidy(ctx context.Context, m module) (string, error) {
	if err := l.golang(ctx, m, "mod", "verify"); err != nil {
		return "", err
	}
	return "", l.golang(ctx, m, "mod", "tidy", "-diff")
}

func (l *laboratory) build(ctx context.Context, m module) (string, error) {
	return "", l.golang(ctx, m, "build", "-trimpath", "./...")
}

func (l *laboratory) test(ctx context.Context, m module) (string, error) {
	return "", l.golang(ctx, m, "test", "-short", "./...")
}

// golang runs the go command in the copy of a module.
func (l *laboratory) golang(ctx context.Context, m module, args ...string) error {
	_, err := command(ctx, l.folder(m), l.proxy.env, "go", args...)
	return err
}

// folder returns the folder of the copy of a module.
func (l *laboratory) folder(m module) string {
	return filepath.Join(l.copied.dir, filepath.FromSlash(m.dir))
}
