// Command release checks a release of this repository before it is pushed, and
// makes the commits and tags of one. docs/release.md says how to use it.
//
//	go run ./dev/release prepare v0.1.0
//	go run ./dev/release check [-sbom FOLDER] [-test=false] v0.1.0
//	go run ./dev/release rehearse
//	go run ./dev/release vulnerabilities
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
)

const usage = `usage, in the root of a checkout:
	release prepare VERSION     make the commits and the tags of VERSION
	release check [-sbom FOLDER] [-test=false] VERSION
	                            check the tags of VERSION before they are pushed
	release rehearse            prepare and check the next release in a copy
	release vulnerabilities     run govulncheck on every released module`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Stdout, os.Args[1:])
	stop()
	if errors.Is(err, flag.ErrHelp) {
		fmt.Println(usage)
		return
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "FAILED: %v\n", err)
		os.Exit(1)
	}
}

// run is the command, in the current folder.
func run(ctx context.Context, out io.Writer, args []string) error {
	if len(args) == 0 {
		return errors.New(usage)
	}
	repo, err := openRepository(ctx, ".")
	if err != nil {
		return err
	}
	flags := flag.NewFlagSet(args[0], flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	options := checkOptions{}
	if args[0] == "check" {
		flags.StringVar(&options.sboms, "sbom", "", "the `folder` that gets one SBOM for each module")
		flags.BoolVar(&options.tests, "test", true, "run the tests of the tagged modules")
	}
	if err := flags.Parse(args[1:]); err != nil {
		return fmt.Errorf("%w\n%s", err, usage)
	}
	switch {
	case args[0] == "prepare" && flags.NArg() == 1:
		return prepare(ctx, out, repo, flags.Arg(0))
	case args[0] == "check" && flags.NArg() == 1:
		if err := check(ctx, out, repo, flags.Arg(0), options); err != nil {
			return err
		}
		fmt.Fprintln(out, "To publish it, push the branch and these tags at once: git push --atomic origin BRANCH TAG...")
		return nil
	case args[0] == "rehearse" && flags.NArg() == 0:
		return rehearse(ctx, out, repo)
	case args[0] == "vulnerabilities" && flags.NArg() == 0:
		return vulnerabilities(ctx, out, repo, databases{chosen: os.Getenv("GOVULNDB"), public: "https://vuln.go.dev"})
	}
	return errors.New(usage)
}
