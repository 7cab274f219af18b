package main

import (
	"fmt"
	"os"
	"time"
)

// A progress shows how far the benchmarks are. On a terminal it is one line that
// changes. Elsewhere it is one line for each group of benchmarks.
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

// begin shows that a step begins. done of all steps are finished.
func (p *progress) begin(step string, done, all int) {
	p.step = fmt.Sprintf("%3d %%  %s", 100*done/all, step)
	if p.terminal {
		p.show("")
	} else {
		fmt.Fprintln(p.out, p.line(""))
	}
}

// show shows on a terminal which benchmark of the step is running.
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
