package main

import (
	_ "embed"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"text/tabwriter"
	"text/template"
)

// A document is the content of docs/performance.md.
type document struct {
	CPU      string
	Cores    int
	Go, OS   string
	Command  string // the command that writes it
	Runs     int
	Versions []version
	Parts    []part

	found *results
}

func newDocument(found *results) *document {
	command := "go run ./dev/bench/report"
	if found.runs != defaultRuns {
		command += fmt.Sprint(" -runs ", found.runs)
	}
	return &document{
		Command: command,
		CPU:     found.cpu,
		Cores:   runtime.NumCPU(),
		Go:      runtime.Version(),
		OS:      runtime.GOOS + "/" + runtime.GOARCH,
		Runs:    found.runs,
		Parts:   parts(found),
		found:   found,
	}
}

//go:embed performance.md.tmpl
var text string

var page = template.Must(template.New("performance.md").Funcs(template.FuncMap{
	"row":  func(cells []string) string { return "| " + strings.Join(cells, " | ") + " |" },
	"rule": func(cells []string) string { return "|" + strings.Repeat(" --- |", len(cells)) },
}).Parse(text))

// write writes performance.md into the folder dir, and its pictures into the
// folder performance in dir.
func (d *document) write(dir string) error {
	pictures := filepath.Join(dir, "performance")
	if err := os.MkdirAll(pictures, 0o755); err != nil {
		return err
	}
	if err := draw(d.found, pictures); err != nil {
		return err
	}
	f, err := os.Create(filepath.Join(dir, "performance.md"))
	if err != nil {
		return err
	}
	defer f.Close()
	if err := page.Execute(f, d); err != nil {
		return err
	}
	return f.Close()
}

// print writes the tables as plain text.
func (d *document) print(out io.Writer) error {
	for _, p := range d.Parts {
		fmt.Fprintf(out, "%s\n\n", p.Title)
		table := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
		for _, row := range append([][]string{p.Columns}, p.Rows...) {
			fmt.Fprintf(table, "  %s\n", strings.Join(row, "\t"))
		}
		fmt.Fprintln(table)
		for _, g := range p.Goals {
			fmt.Fprintf(table, "  %s\t%s\twanted %s\t%s\n", g.What, g.Measured(), g.Wanted(), g.Verdict())
		}
		fmt.Fprintln(table)
		if err := table.Flush(); err != nil {
			return err
		}
	}
	return nil
}
