package main

import (
	"fmt"
	"os"
	"time"
)

// A progress is one line that changes on a terminal. Elsewhere it is a new line
// every two seconds (sparseLine).
type progress struct {
	out      *os.File
	terminal bool
	next     time.Duration // the earliest time of the next sparse line
}

func newProgress(out *os.File) *progress {
	info, err := out.Stat()
	return &progress{out: out, terminal: err == nil && info.Mode()&os.ModeCharDevice != 0, next: sparseLine}
}

func (p *progress) show(elapsed time.Duration, done count, refreshes int, killed bool) {
	line := fmt.Sprintf("%4.1f s  %6d requests  %d failures  %d refreshes", elapsed.Seconds(), done.Requests, done.Failures, refreshes)
	if killed {
		line += "  1 process killed"
	}
	switch {
	case p.terminal:
		fmt.Fprintf(p.out, "\r%-72s", line)
	case elapsed >= p.next:
		fmt.Fprintln(p.out, line)
		p.next += sparseLine
	}
}

func (p *progress) end() {
	if p.terminal {
		fmt.Fprintln(p.out)
	}
}
