package otel

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/cog/plugins"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
)

func TestDashboardIsOneForGrafana(t *testing.T) {
	d := parsed(t)
	if err := d.Validate(); err != nil {
		t.Error(err)
	}
	ids := make(map[uint32]bool)
	var places []dashboard.GridPos
	for _, p := range panelsOf(d) {
		if p.Id == nil || ids[*p.Id] {
			t.Errorf("the panel %q has no ID, or that of another", titleOf(p))
			continue
		}
		ids[*p.Id] = true
		for _, other := range places {
			if overlap(*p.GridPos, other) {
				t.Errorf("the panel %q covers another", titleOf(p))
			}
		}
		places = append(places, *p.GridPos)
	}
}

func TestDashboardUsesMetricsThatAreExported(t *testing.T) {
	known := exported(t)
	shown := make(map[string]bool)
	d := parsed(t)
	for _, p := range panelsOf(d) {
		for _, target := range p.Targets {
			query, ok := target.(prometheus.Dataquery)
			if !ok {
				pointer, isPointer := target.(*prometheus.Dataquery)
				if !isPointer {
					t.Errorf("the panel %q has a query of type %T", titleOf(p), target)
					continue
				}
				query = *pointer
			}
			for _, name := range wantKnown(t, known, "the panel "+titleOf(p), filled(query.Expr)) {
				shown[name] = true
			}
		}
	}
	for _, v := range d.Templating.List {
		if v.Type != dashboard.VariableTypeQuery || v.Definition == nil {
			continue
		}
		metric, _, ok := strings.Cut(strings.TrimPrefix(*v.Definition, "label_values("), ", ")
		if !ok || !strings.HasPrefix(*v.Definition, "label_values(") {
			t.Errorf("the variable %s is %s, want label_values(metric, label)", v.Name, *v.Definition)
		}
		wantKnown(t, known, "the variable "+v.Name, metric)
	}
	for name := range known {
		if strings.HasPrefix(name, "fincode_") && !shown[name] && !strings.HasSuffix(name, "_sum") {
			t.Errorf("no panel shows %s", name)
		}
	}
}

// filled replaces Grafana's variables for durations, as Grafana does.
func filled(query string) string {
	return strings.NewReplacer("$__rate_interval", "5m", "$__range", "6h").Replace(query)
}

// grafana is the schema of a dashboard that every Grafana imports. The one that should
// replace it needs a recent Grafana.
//
//lint:ignore SA1019 see above
type grafana = dashboard.Dashboard

// parsed returns the dashboard. A field that Grafana does not know is an error.
func parsed(t *testing.T) *grafana {
	t.Helper()
	plugins.RegisterDefaultPlugins()
	data := []byte(textOf(t, dashboards))
	// UnmarshalJSONStrict of grafana-foundation-sdk v0.0.22 returns an empty list of errors
	// for none. It drops the queries for the same reason, so it serves as the check alone.
	err := new(grafana).UnmarshalJSONStrict(data)
	if errs, ok := errors.AsType[cog.BuildErrors](err); err != nil && (!ok || len(errs) > 0) {
		t.Fatal(err)
	}
	var d grafana
	if err := json.Unmarshal(data, &d); err != nil {
		t.Fatal(err)
	}
	return &d
}

// panelsOf returns all panels that are not rows.
func panelsOf(d *grafana) (panels []*dashboard.Panel) {
	for _, p := range d.Panels {
		if p.Panel != nil {
			panels = append(panels, p.Panel)
		}
		if p.RowPanel != nil {
			for i := range p.RowPanel.Panels {
				panels = append(panels, &p.RowPanel.Panels[i])
			}
		}
	}
	return slices.Clip(panels)
}

func titleOf(p *dashboard.Panel) string {
	if p.Title == nil {
		return "without a title"
	}
	return *p.Title
}

func overlap(a, b dashboard.GridPos) bool {
	return a.X < b.X+b.W && b.X < a.X+a.W && a.Y < b.Y+b.H && b.Y < a.Y+a.H
}
