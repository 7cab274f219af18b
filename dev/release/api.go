package main

import (
	"context"
	"errors"
	"fmt"
	"go/types"
	"os"
	"slices"
	"strings"

	"golang.org/x/exp/apidiff"
	"golang.org/x/tools/go/packages"
)

// compareAPI compares what a module exports with the version before, and refuses
// what the new version's number does not allow.
func (l *laboratory) compareAPI(ctx context.Context, m module) (string, error) {
	modules, err := l.baseModules(ctx)
	if err != nil {
		return "", err
	}
	existed := slices.ContainsFunc(modules, func(old module) bool { return old.path() == m.path() })
	switch {
	case l.base == "":
		return " not compared: there is no earlier release", nil
	case !existed && majorOf(l.version) != majorOf(l.base):
		return " not compared: a new major version", nil
	case !existed:
		return " not compared: a new module", nil
	}
	older, err := l.exported(ctx, m, l.base)
	if err != nil {
		return "", err
	}
	newer, err := l.exported(ctx, m, l.version)
	if err != nil {
		return "", err
	}
	report := apidiff.ModuleChanges(older, newer)
	if err := l.allows(report); err != nil {
		return "", fmt.Errorf("compared with %s: %w\n%s", l.base, err, strings.TrimSpace(report.String()))
	}
	return fmt.Sprintf(", %d changes since %s", len(report.Changes), l.base), nil
}

// allows returns an error if the version must be another one after such changes.
func (l *laboratory) allows(report apidiff.Report) error {
	incompatible := slices.ContainsFunc(report.Changes, func(c apidiff.Change) bool { return !c.Compatible })
	switch {
	case l.change == major:
		return nil
	case l.change == patch && len(report.Changes) > 0:
		return errors.New("a patch release must not change the API")
	case !incompatible:
		return nil
	case majorOf(l.version) != "" || strings.HasPrefix(l.version, "v1."):
		return errors.New("incompatible changes need a new major version")
	case !l.section.announcesRemovals():
		return fmt.Errorf("CHANGELOG.md has no entry under Changed or Removed for %s", l.version)
	}
	return nil
}

// exported returns the packages of a version of a module that others may import.
func (l *laboratory) exported(ctx context.Context, m module, version string) (*apidiff.Module, error) {
	dir, err := l.consumer(ctx, m, version)
	if err != nil {
		return nil, err
	}
	config := &packages.Config{
		Context: ctx,
		Dir:     dir,
		Env:     append(os.Environ(), l.consumerEnv()...),
		Mode:    packages.NeedName | packages.NeedModule | packages.NeedImports | packages.NeedTypes,
	}
	loaded, err := packages.Load(config, m.path()+"/...")
	if err != nil {
		return nil, err
	}
	var exported []*types.Package
	for _, p := range loaded {
		if len(p.Errors) > 0 {
			return nil, fmt.Errorf("%s@%s: %w", p.PkgPath, version, p.Errors[0])
		}
		if p.Module != nil && p.Module.Path == m.path() && p.Name != "main" && !isInternal(p.PkgPath) {
			exported = append(exported, p.Types)
		}
	}
	return &apidiff.Module{Path: m.path(), Packages: exported}, nil
}

// goneModules refuses a release that lacks a module that the version before had,
// unless the new version's number allows that.
func (l *laboratory) goneModules(ctx context.Context) error {
	modules, err := l.baseModules(ctx)
	if err != nil {
		return err
	}
	report := apidiff.Report{}
	for _, old := range modules {
		if !slices.ContainsFunc(l.modules, func(m module) bool { return m.dir == old.dir }) {
			report.Changes = append(report.Changes, apidiff.Change{Message: "module " + old.path() + ": removed"})
		}
	}
	if err := l.allows(report); err != nil {
		return fmt.Errorf("compared with %s: %w\n%s", l.base, err, strings.TrimSpace(report.String()))
	}
	return nil
}
