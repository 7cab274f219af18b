package main

import (
	"bytes"
	"errors"
	"fmt"
	"image/color"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
)

// People with colour blindness can distinguish these colours too.
var (
	blue   = color.RGBA{0x00, 0x72, 0xb2, 0xff}
	orange = color.RGBA{0xe6, 0x9f, 0x00, 0xff}
	grey   = color.RGBA{0x99, 0x99, 0x99, 0xff}
)

// draw writes all pictures into the folder dir.
func draw(r *results, dir string) error {
	plot.DefaultFont = font.Font{Typeface: "Liberation", Variant: "Sans"}
	var requests, token []bar
	for _, fields := range requestFields {
		for _, p := range peers {
			name := fmt.Sprintf("%s, %d fields", p.name, fields)
			requests = append(requests, bar{name, 1e9 * r.median(request(p.name, fields, 1, "sec/op"))})
		}
	}
	for _, p := range peers {
		token = append(token, bar{p.name, 1e9 * r.median(lookUp(p.name, 1, "sec/op"))})
	}
	for _, name := range manyLookUps {
		token = append(token, bar{name + ", 100,000 sessions", 1e9 * r.median(lookUpOfMany(name, 1))})
	}
	for _, picture := range []struct {
		name   string
		draw   func() (*plot.Plot, error)
		height vg.Length
	}{
		{"request.svg", func() (*plot.Plot, error) {
			return bars("One request with 3 and with 5 fields of its caller, 1 goroutine", requests)
		}, 14 * vg.Centimeter},
		{"token.svg", func() (*plot.Plot, error) { return bars("One look-up of a token, 1 goroutine", token) }, 9 * vg.Centimeter},
		{"latency.svg", func() (*plot.Plot, error) { return overTime(r.series) }, 8 * vg.Centimeter},
	} {
		p, err := picture.draw()
		if err != nil {
			return fmt.Errorf("drawing %s: %w", picture.name, err)
		}
		if err := save(p, picture.height, filepath.Join(dir, picture.name)); err != nil {
			return err
		}
	}
	return nil
}

// save writes the picture p to file. The picture names a font that few readers
// have, so save adds fonts that other readers have.
func save(p *plot.Plot, height vg.Length, file string) error {
	svg, err := p.WriterTo(18*vg.Centimeter, height, "svg")
	if err != nil {
		return err
	}
	var text bytes.Buffer
	if _, err := svg.WriteTo(&text); err != nil {
		return err
	}
	fonts := []byte("font-family:Liberation Sans,Arial,Helvetica,sans-serif;")
	return os.WriteFile(file, bytes.ReplaceAll(text.Bytes(), []byte("font-family:Liberation Sans;"), fonts), 0o644)
}

// newPlot returns a plot whose axes begin at 0 and have ticks at round numbers.
func newPlot(title string) *plot.Plot {
	p := plot.New()
	p.Title.Text = title
	p.Title.Padding = vg.Points(8)
	p.X.Min, p.Y.Min = 0, 0
	p.X.Tick.Marker, p.Y.Tick.Marker = plot.TickerFunc(ticks), plot.TickerFunc(ticks)
	return p
}

func ticks(_, longest float64) (list []plot.Tick) {
	step := math.Pow(10, math.Floor(math.Log10(longest)))
	switch n := longest / step; {
	case n < 2:
		step /= 5
	case n < 5:
		step /= 2
	}
	for value := 0.0; value <= longest; value += step {
		list = append(list, plot.Tick{Value: value, Label: number(value)})
	}
	return list
}

// A bar is a name and a value in nanoseconds. The value is NaN if it was not
// measured.
type bar struct {
	name  string
	value float64
}

// bars draws the list from top to bottom, with the bars of fincodeauth in blue.
func bars(title string, list []bar) (*plot.Plot, error) {
	p := newPlot(title)
	p.X.Label.Text = "nanoseconds"
	var names []string
	for _, b := range slices.Backward(list) {
		if math.IsNaN(b.value) {
			continue
		}
		chart, err := plotter.NewBarChart(plotter.Values{b.value}, vg.Points(14))
		if err != nil {
			return nil, err
		}
		chart.Horizontal, chart.XMin = true, float64(len(names))
		chart.LineStyle.Width = 0
		chart.Color = grey
		if strings.HasPrefix(b.name, "fincodeauth") {
			chart.Color = blue
		}
		p.Add(chart)
		names = append(names, b.name)
	}
	if len(names) == 0 {
		return nil, errors.New("nothing was measured")
	}
	p.NominalY(names...)
	p.X.Max *= 1.05
	return p, nil
}

// overTime draws the latencies over time. The line of fincodeauth is drawn last,
// so that it lies over the line of x/oauth2.
func overTime(series map[string][]float64) (*plot.Plot, error) {
	p := newPlot("Latency while tokens of 5 s are rotated, the longest of each 10 ms")
	p.X.Label.Text = "seconds"
	p.Y.Label.Text = "milliseconds"
	p.Legend.Top = true
	p.Add(plotter.NewGrid())
	for _, line := range []struct {
		name  string
		color color.Color
	}{{"oauth2", orange}, {"fincodeauth", blue}} {
		points := make(plotter.XYs, len(series[line.name]))
		for i, latency := range series[line.name] {
			points[i] = plotter.XY{X: float64(i) / 100, Y: 1e3 * latency}
		}
		drawn, err := plotter.NewLine(points)
		if err != nil {
			return nil, err
		}
		drawn.Color = line.color
		p.Add(drawn)
		p.Legend.Add(line.name, drawn)
	}
	p.Y.Max *= 1.25 // room for the legend
	return p, nil
}
