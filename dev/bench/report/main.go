// Command report measures fincodeauth beside its peers, prints what it found and
// writes docs/performance.md and its pictures. From anywhere in the repository:
//
//	go run ./dev/bench/report
//
// It takes about half an hour, in which the machine should have nothing else to
// do. With -short it takes some seconds, measures next to nothing and leaves
// docs as they are: that tests the program itself.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

func main() {
	if err := report(); err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
		os.Exit(1)
	}
}

func report() error {
	short := flag.Bool("short", false, "try everything with small sizes, once, and leave docs as they are")
	runs := flag.Int("runs", defaultRuns, "how often to run each benchmark; those of memory and of the peers' latencies, which take minutes, 3 times at most")
	keep := flag.String("keep", "", "the file to keep what the benchmarks print in, for benchstat")
	flag.Usage = usage
	flag.Parse()
	if flag.NArg() > 0 || *runs < 1 {
		return errors.New("give it no arguments but flags, and 1 or more -runs: see -h")
	}
	root, err := findRoot()
	if err != nil {
		return err
	}
	tmp, err := os.MkdirTemp("", "report")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)

	s := suite{dir: filepath.Join(root, "dev", "bench"), tmp: tmp, short: *short, runs: *runs, progress: newProgress(os.Stderr), raw: io.Discard}
	if *keep != "" {
		f, err := os.Create(*keep)
		if err != nil {
			return err
		}
		defer f.Close()
		s.raw = f
	}
	docs := filepath.Join(root, "docs")
	if *short {
		s.runs = 1
		docs = filepath.Join(tmp, "docs")
	}
	found, err := s.run()
	if err != nil {
		return err
	}
	doc := newDocument(found)
	if doc.Versions, err = versions(s.dir); err != nil {
		return err
	}
	if err := doc.write(docs); err != nil {
		return err
	}
	return doc.print(os.Stdout)
}

const defaultRuns = 7

func usage() {
	fmt.Fprint(flag.CommandLine.Output(), `Measures fincodeauth beside its peers, in about half an hour in which the
machine should have nothing else to do, prints what it found, and writes
docs/performance.md and its pictures anew.

  go run ./dev/bench/report [-short] [-runs N] [-keep FILE]

`)
	flag.PrintDefaults()
}

// findRoot returns the repository's root.
func findRoot() (string, error) {
	const module = "github.com/fincodeauth/fincodeauth"
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", module).Output()
	dir := strings.TrimSpace(string(out))
	if err != nil || dir == "" {
		return "", fmt.Errorf("this is not the repository of %s: run it there", module)
	}
	if _, err := os.Stat(filepath.Join(dir, "dev", "go.mod")); err != nil {
		return "", fmt.Errorf("%s has no folder dev: run this in a clone of the repository", module)
	}
	return dir, nil
}

// A version is that of a module.
type version struct{ Short, Module, Version string }

// versions are those of what is measured.
func versions(dir string) ([]version, error) {
	var list []version
	for _, p := range peers {
		if p.module == "" {
			continue
		}
		out, err := goCommand(dir, "list", "-m", "-f", "{{.Version}}", p.module).Output()
		if err != nil {
			return nil, fmt.Errorf("finding the version of %s: %w", p.module, err)
		}
		list = append(list, version{p.name, p.module, strings.TrimSpace(string(out))})
	}
	return list, nil
}
