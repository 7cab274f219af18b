package main

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/perf/benchfmt"
	"golang.org/x/perf/benchmath"
)

// A results has everything that the benchmarks measured.
type results struct {
	runs     int
	cpu      string
	measured map[measure][]float64 // in the order of the runs
	series   map[string][]float64  // peer -> latencies over time in BenchmarkLatency's last run, in seconds
}

// A measure identifies one number that a benchmark prints. Its unit is the one to
// which benchfmt converts the number: "sec/op" instead of "ns/op".
type measure struct {
	benchmark string // its name without the prefix and the number of processors
	procs     int
	unit      string
}

func newResults(runs int) *results {
	return &results{runs: runs, measured: make(map[measure][]float64)}
}

// add reads the output of a group of benchmarks in one run.
func (r *results) add(printed []byte) error {
	reader := benchfmt.NewReader(bytes.NewReader(printed), "the benchmarks")
	for reader.Scan() {
		switch record := reader.Result().(type) {
		case *benchfmt.SyntaxError:
			return record
		case *benchfmt.Result:
			r.cpu = record.GetConfig("cpu")
			for _, v := range record.Values {
				m := measureOf(record.Name)
				m.unit = v.Unit
				r.measured[m] = append(r.measured[m], v.Value)
			}
		}
	}
	return reader.Err()
}

// measureOf splits a name such as "Token/peer=oauth2-2". The number at its end is
// the number of processors. A name without a number means one processor.
func measureOf(name benchfmt.Name) measure {
	m := measure{benchmark: name.String(), procs: 1}
	if _, parts := name.Parts(); len(parts) > 0 {
		last := string(parts[len(parts)-1])
		if n, err := strconv.Atoi(strings.TrimPrefix(last, "-")); err == nil && last[0] == '-' {
			m.benchmark, m.procs = strings.TrimSuffix(m.benchmark, last), n
		}
	}
	return m
}

// of returns the measure of a benchmark that ran with all processors.
func of(benchmark, unit string) measure { return measure{benchmark, runtime.NumCPU(), unit} }

// median returns the median of all runs, or NaN if there are none.
func (r *results) median(m measure) float64 { return median(r.measured[m]) }

// ratio returns the median of the ratios m/to, one for each run.
func (r *results) ratio(m, to measure) float64 {
	return r.combine(m, to, func(x, y float64) float64 { return x / y })
}

// difference returns the median of the differences m-from, one for each run.
func (r *results) difference(m, from measure) float64 {
	return r.combine(m, from, func(x, y float64) float64 { return x - y })
}

func (r *results) combine(m, n measure, f func(x, y float64) float64) float64 {
	var values []float64
	for i := range min(len(r.measured[m]), len(r.measured[n])) {
		values = append(values, f(r.measured[m][i], r.measured[n][i]))
	}
	return median(values)
}

func median(values []float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	sample := benchmath.NewSample(append([]float64(nil), values...), &benchmath.DefaultThresholds)
	return benchmath.AssumeNothing.Summary(sample, 0.95).Center
}

// readSeries reads what BenchmarkLatency wrote: one file for each peer, with
// nanoseconds.
func readSeries(dir string) (map[string][]float64, error) {
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	series := make(map[string][]float64)
	for _, file := range files {
		data, err := os.ReadFile(filepath.Join(dir, file.Name()))
		if err != nil {
			return nil, err
		}
		for _, field := range strings.Fields(string(data)) {
			ns, err := strconv.ParseFloat(field, 64)
			if err != nil {
				return nil, fmt.Errorf("latencies of %s: %w", file.Name(), err)
			}
			series[file.Name()] = append(series[file.Name()], ns/1e9)
		}
	}
	return series, nil
}
