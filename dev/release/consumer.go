package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// consumer returns the folder of a new program elsewhere that requires a version
// of a module, as go get downloads it.
func (l *laboratory) consumer(ctx context.Context, m module, version string) (string, error) {
	dir, err := os.MkdirTemp(l.dir, "consumer")
	if err != nil {
		return "", err
	}
	goMod := "module example.com/consumer\n\ngo " + m.file.Go.Version + "\n"
	if err := os.WriteFile(filepath.Join(dir, "go.mod"), []byte(goMod), 0o644); err != nil {
		return "", err
	}
	_, err = command(ctx, dir, l.proxy.env, "go", "get", m.path()+"@"+version)
	return dir, err
}

// consumerEnv is the environment of the go command in a consumer. What it
// compiles is kept in the build cache by its content, not by its folder.
func (l *laboratory) consumerEnv() []string {
	env := slices.Clone(l.proxy.env)
	for i, variable := range env {
		if strings.HasPrefix(variable, "GOFLAGS=") {
			env[i] += " -mod=mod -trimpath"
		}
	}
	return env
}

// consume builds a program that imports all packages of a module, and installs
// the module's commands.
func (l *laboratory) consume(ctx context.Context, m module) (string, error) {
	dir, err := l.consumer(ctx, m, l.version)
	if err != nil {
		return "", err
	}
	imports, commands, err := l.packages(ctx, dir, m)
	if err != nil {
		return "", err
	}
	program := "package main\n\nimport (\n"
	for _, path := range imports {
		program += fmt.Sprintf("\t_ %q\n", path)
	}
	program += ")\n\nfunc main() {}\n"
	if err := os.WriteFile(filepath.Join(dir, "main.go"), []byte(program), 0o644); err != nil {
		return "", err
	}
	env := append(l.consumerEnv(), "GOBIN="+dir)
	if _, err := command(ctx, dir, env, "go", "build", "-o", "consumer.exe", "."); err != nil {
		return "", err
	}
	if len(commands) > 0 {
		args := []string{"install"}
		for _, path := range commands {
			args = append(args, path+"@"+l.version)
		}
		if _, err := command(ctx, l.dir, env, "go", args...); err != nil {
			return "", err
		}
	}
	note := fmt.Sprintf(", %d packages, %d commands", len(imports), len(commands))
	return note, l.checkSelected(ctx, dir)
}

// packages returns the packages of a module that others may import, and those
// that are commands.
func (l *laboratory) packages(ctx context.Context, dir string, m module) (imports, commands []string, err error) {
	const format = "{{.Module.Path}} {{.Name}} {{.ImportPath}}"
	out, err := command(ctx, dir, l.consumerEnv(), "go", "list", "-f", format, m.path()+"/...")
	if err != nil {
		return nil, nil, err
	}
	for line := range strings.Lines(out) {
		fields := strings.Fields(line)
		switch {
		case fields[0] != m.path() || isInternal(fields[2]):
		case fields[1] == "main":
			commands = append(commands, fields[2])
		default:
			imports = append(imports, fields[2])
		}
	}
	if len(imports)+len(commands) == 0 {
		return nil, nil, errors.New("the module has no package")
	}
	return imports, commands, nil
}

func isInternal(importPath string) bool {
	return slices.Contains(strings.Split(importPath, "/"), "internal")
}

// checkSelected checks that the program in dir uses all modules of the release in
// the released version.
func (l *laboratory) checkSelected(ctx context.Context, dir string) error {
	out, err := command(ctx, dir, l.consumerEnv(), "go", "list", "-m", "-f", "{{.Path}} {{.Version}}", "all")
	if err != nil {
		return err
	}
	for line := range strings.Lines(out) {
		path, version, _ := strings.Cut(strings.TrimSpace(line), " ")
		for _, m := range l.modules {
			if path == m.path() && version != l.version {
				return fmt.Errorf("a program that uses it gets %s %s, want %s", path, version, l.version)
			}
		}
	}
	return nil
}
