package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

// A group is a set of benchmarks that run in a process of their own. In a shared
// process, memory that one group leaves behind would make the garbage collector
// slower for the next group.
type group struct {
	benchmarks string // a regular expression
	peer       string // the only peer to measure; "" measures all
	time       string // of each benchmark, as an argument for -benchtime
	everyCPU   bool   // run with 1, 2 and as many goroutines as there are cores
	long       bool   // it takes minutes, so it runs at most longRuns times
}

var groups = append([]group{
	{benchmarks: "Request|Token", time: "300ms", everyCPU: true},
	{benchmarks: "TokenOfMany", time: "300ms", everyCPU: true},
	{benchmarks: "Throughput", time: "2s"},
	{benchmarks: "Stampede", time: "1x"},
	{benchmarks: "Rotations", time: "1x"},
	{benchmarks: "StartUp", time: "100x"},
	{benchmarks: "Memory", time: "1x", long: true},
}, latencies()...)

// latencies returns one group for each peer, because a maximum must not depend on
// what an earlier peer left in memory. The maxima of the first two are compared.
// A single stall of the machine can decide that comparison, so these two run as
// often as the short groups.
func latencies() (groups []group) {
	for i, name := range rotating {
		groups = append(groups, group{benchmarks: "Latency", peer: name, time: "1x", long: i > 1})
	}
	return groups
}

// pattern returns the argument for -bench that selects the group.
func (g group) pattern() string {
	pattern := "^Benchmark(" + g.benchmarks + ")$"
	if g.peer != "" {
		pattern += "/^peer=" + g.peer + "$"
	}
	return pattern
}

// longRuns is the largest number of runs of a long group.
const longRuns = 3

// A suite runs the benchmarks in dir. It runs all groups once, then all groups
// again, and so on, so that a disturbance of the machine affects all groups.
type suite struct {
	dir, tmp string
	short    bool
	runs     int
	progress *progress
	raw      io.Writer // gets the output of the benchmarks
}

// A turn is one run of a group.
type turn struct {
	run int
	group
}

func (s *suite) turns() (list []turn) {
	for run := range s.runs {
		for _, g := range groups {
			if !g.long || run < longRuns {
				list = append(list, turn{run, g})
			}
		}
	}
	return list
}

func (s *suite) run() (*results, error) {
	if err := os.MkdirAll(s.series(), 0o700); err != nil {
		return nil, err
	}
	// Without the workspace, the versions are those of dev/go.mod.
	if out, err := goCommand(s.dir, "test", "-c", "-o", s.binary(), ".").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("building the benchmarks: %w\n%s", err, out)
	}
	defer s.progress.end()
	found, turns := newResults(s.runs), s.turns()
	for done, t := range turns {
		s.progress.begin(fmt.Sprintf("run %d of %d: %s", t.run+1, s.runs, t.benchmarks), done, len(turns))
		printed, err := s.runGroup(t.group)
		if err != nil {
			return nil, err
		}
		if err := found.add(printed); err != nil {
			return nil, err
		}
	}
	var err error
	found.series, err = readSeries(s.series())
	return found, err
}

// runGroup runs the benchmarks of a group once and returns their output.
func (s *suite) runGroup(g group) ([]byte, error) {
	args := []string{"-test.run=^$", "-test.timeout=1h", "-series=" + s.series(),
		"-test.bench=" + g.pattern(), "-test.benchtime=" + g.time}
	if g.everyCPU {
		args = append(args, "-test.cpu="+cpus())
	}
	if s.short {
		args = append(args, "-test.short", "-test.benchtime=1x")
	}
	cmd := exec.Command(s.binary(), args...)
	cmd.Dir = s.dir
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	var printed bytes.Buffer
	lines := bufio.NewScanner(io.TeeReader(stdout, io.MultiWriter(&printed, s.raw)))
	for lines.Scan() {
		if name, ok := strings.CutPrefix(lines.Text(), "Benchmark"); ok {
			name, _, _ = strings.Cut(name, " ")
			s.progress.show(name)
		}
	}
	if err := cmd.Wait(); err != nil {
		return nil, fmt.Errorf("running %s: %w\n%s%s", g.benchmarks, err, printed.Bytes(), complaints.Bytes())
	}
	return printed.Bytes(), nil
}

func (s *suite) binary() string { return filepath.Join(s.tmp, "bench.test") }
func (s *suite) series() string { return filepath.Join(s.tmp, "series") }

// goCommand returns a go command that ignores the workspace.
func goCommand(dir string, args ...string) *exec.Cmd {
	cmd := exec.Command("go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOWORK=off")
	return cmd
}

// procs returns the numbers of goroutines with which requests and look-ups are
// measured.
func procs() []int {
	list := []int{1, 2, runtime.NumCPU()}
	slices.Sort(list)
	return slices.Compact(list)
}

func cpus() string {
	var list []string
	for _, n := range procs() {
		list = append(list, strconv.Itoa(n))
	}
	return strings.Join(list, ",")
}
