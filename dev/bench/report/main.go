// Command report measures fincodeauth and its peers, prints the results, and
// writes docs/performance.md with its pictures. Run it anywhere in the repository:
//
//	go run ./dev/bench/report
//
// It takes about half an hour. Nothing else should run on the machine during that
// time. With -short it takes some seconds and does not change docs: that tests
// the program itself, and its numbers mean nothing.
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
	short := flag.Bool("short", false, "run everything once with small sizes and do not change docs; tests this program itself")
	runs := flag.Int("runs", defaultRuns, "`number` of runs of each benchmark; those of memory and of the peers' latencies take minutes and run at most 3 times")
	keep := flag.String("keep", "", "`file` in which to keep the output of the benchmarks, for benchstat")
	flag.Usage = usage
	flag.Parse()
	if flag.NArg() > 0 || *runs < 1 {
		return errors.New("the only arguments are flags, and -runs must be at least 1: see -h")
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
	fmt.Fprint(flag.CommandLine.Output(), `Measures fincodeauth and its peers, prints the results, and writes
docs/performance.md with its pictures. It takes about half an hour. Nothing
else should run on the machine during that time.

  go run ./dev/bench/report [-short] [-runs N] [-keep FILE]

`)
	flag.PrintDefaults()
}

// findRoot returns the root folder of the repository.
func findRoot() (string, error) {
	const module = "github.com/fincodeauth/fincodeauth"
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", module).Output()
	dir := strings.TrimSpace(string(out))
	if err != nil || dir == "" {
		return "", fmt.Errorf("this folder is not in the repository of %s: run this program there", module)
	}
	if _, err := os.Stat(filepath.Join(dir, "dev", "go.mod")); err != nil {
		return "", fmt.Errorf("%s has no folder dev: run this in a clone of the repository", module)
	}
	return dir, nil
}

// A version is the version of a measured module.
type version struct{ Short, Module, Version string }

// versions returns the versions of all measured modules.
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
