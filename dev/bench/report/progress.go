package main

import (
	"fmt"
	"os"
	"time"
)

// A progress is a line that changes on a terminal, and elsewhere a line for each
// group of benchmarks.
type progress struct {
	out      *os.File
	terminal bool
	began    time.Time
	step     string // the run and the group
}

func newProgress(out *os.File) *progress {
	info, err := out.Stat()
	return &progress{out: out, terminal: err == nil && info.Mode()&os.ModeCharDevice != 0, began: time.Now()}
}

// begin says that a step begins, and how many of all are done.
func (p *progress) begin(step string, done, all int) {
	p.step = fmt.Sprintf("%3d %%  %s", 100*done/all, step)
	if p.terminal {
		p.show("")
	} else {
		fmt.Fprintln(p.out, p.line(""))
	}
}

// show says which benchmark of the step is under way.
func (p *progress) show(benchmark string) {
	if p.terminal {
		fmt.Fprintf(p.out, "\r%-79.79s", p.line(benchmark))
	}
}

func (p *progress) line(benchmark string) string {
	elapsed := time.Since(p.began).Truncate(time.Second)
	return fmt.Sprintf("%6s  %s  %s", elapsed, p.step, benchmark)
}

func (p *progress) end() {
	if p.terminal {
		fmt.Fprintf(p.out, "\r%-79s\r", "")
	}
}
