package otel

import (
	"errors"
	"io"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/otlptranslator"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
	"go.opentelemetry.io/otel/attribute"
	exporter "go.opentelemetry.io/otel/exporters/prometheus"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.yaml.in/yaml/v3"

	"github.com/fincodeauth/fincodeauth/otelfincodeauth"
)

// Where the files are that users copy.
const (
	alerts     = "../../otelfincodeauth/alerts.yaml"
	alertTests = "../../otelfincodeauth/alerts_test.yaml"
	dashboards = "../../otelfincodeauth/dashboard.json"
	operations = "../../docs/operations.md"
)

// exported returns the names that Prometheus has for the metrics of otelfincodeauth and
// otelhttp, each with its labels. The official exporter translates the names, in the way
// that Prometheus does by default when it receives OTLP.
func exported(t *testing.T) map[string]map[string]bool {
	t.Helper()
	registry := prometheus.NewRegistry()
	names := make(map[string]map[string]bool)
	synctest.Test(t, func(t *testing.T) {
		reader, err := exporter.New(exporter.WithRegisterer(registry),
			exporter.WithTranslationStrategy(otlptranslator.UnderscoreEscapingWithSuffixes))
		if err != nil {
			t.Fatal(err)
		}
		live(t, t.Context(), sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)), sdktrace.NewTracerProvider())
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, family := range families {
			all := map[string]bool{"job": true, "instance": true, "le": true} // Prometheus adds these
			for _, m := range family.Metric {
				for _, label := range m.Label {
					all[label.GetName()] = true
				}
				if m.Histogram != nil {
					names[family.GetName()+"_count"], names[family.GetName()+"_sum"], names[family.GetName()+"_bucket"] = all, all, all
				} else {
					names[family.GetName()] = all
				}
			}
		}
	})
	// live shows no logout that fails, and no end that is not saved.
	names["fincode_session_logouts_total"]["error_type"] = true
	names["fincode_store_save_failures_total"][label(otelfincodeauth.EndReasonKey)] = true
	return names
}

// label returns what Prometheus calls an attribute.
func label(key attribute.Key) string { return strings.ReplaceAll(string(key), ".", "_") }

func promQL() parser.Parser { return parser.NewParser(parser.Options{}) }

// wantKnown checks that a PromQL expression uses only metrics and labels that are
// exported, and values of the reason that there are. It returns the metrics' names.
func wantKnown(t *testing.T, known map[string]map[string]bool, where, query string) (names []string) {
	t.Helper()
	expr, err := promQL().ParseExpr(query)
	if err != nil {
		t.Errorf("%s: %s: %v", where, query, err)
		return nil
	}
	parser.Inspect(expr, func(node parser.Node, _ []parser.Node) error {
		if aggregate, ok := node.(*parser.AggregateExpr); ok {
			wantLabels(t, known, where, aggregate.Grouping)
		}
		selector, ok := node.(*parser.VectorSelector)
		if !ok {
			return nil
		}
		names = append(names, selector.Name)
		if known[selector.Name] == nil {
			t.Errorf("%s uses %q, which nothing exports", where, selector.Name)
			return nil
		}
		for _, m := range selector.LabelMatchers {
			wantLabel(t, known[selector.Name], where, m)
		}
		return nil
	})
	return names
}

// wantLabels checks that some metric has each label.
func wantLabels(t *testing.T, known map[string]map[string]bool, where string, names []string) {
	t.Helper()
	for _, name := range names {
		exists := false
		for _, all := range known {
			exists = exists || all[name]
		}
		if !exists {
			t.Errorf("%s groups by the label %q, which nothing exports", where, name)
		}
	}
}

func wantLabel(t *testing.T, known map[string]bool, where string, m *labels.Matcher) {
	t.Helper()
	reasons := []string{otelfincodeauth.EndBreach, otelfincodeauth.EndInterrupted, otelfincodeauth.EndLoginRefused,
		otelfincodeauth.EndRejected, otelfincodeauth.EndNoToken}
	switch {
	case m.Name == model.MetricNameLabel:
	case !known[m.Name]:
		t.Errorf("%s uses the label %q, which nothing exports", where, m.Name)
	case m.Name == label(otelfincodeauth.EndReasonKey) && !slices.Contains(reasons, m.Value):
		t.Errorf("%s uses the reason %q, which does not exist", where, m.Value)
	}
}

func TestAlertsUseMetricsThatAreExported(t *testing.T) {
	known := exported(t)
	groups, errs := rulefmt.ParseFile(alerts, false, model.LegacyValidation, promQL(), slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	rules := 0
	for _, group := range groups.Groups {
		for _, rule := range group.Rules {
			rules++
			wantKnown(t, known, "the alert "+rule.Alert, rule.Expr)
			if !strings.Contains(textOf(t, operations), "`"+rule.Alert+"`") {
				t.Errorf("%s does not explain the alert %s", operations, rule.Alert)
			}
		}
	}
	if rules == 0 {
		t.Error("there are no alerts")
	}
}

// promtool takes any series. This checks that those in the tests of the alerts exist.
func TestTestsOfAlertsUseSeriesThatAreExported(t *testing.T) {
	known := exported(t)
	var file struct {
		Tests []struct {
			Name  string `yaml:"name"`
			Input []struct {
				Series string `yaml:"series"`
			} `yaml:"input_series"`
		} `yaml:"tests"`
	}
	if err := yaml.Unmarshal([]byte(textOf(t, alertTests)), &file); err != nil {
		t.Fatal(err)
	}
	if len(file.Tests) == 0 {
		t.Fatal("there are no tests")
	}
	for _, test := range file.Tests {
		for _, input := range test.Input {
			series, err := promQL().ParseMetric(input.Series)
			if err != nil {
				t.Errorf("%s: %v", test.Name, err)
				continue
			}
			name := series.Get(model.MetricNameLabel)
			if known[name] == nil {
				t.Errorf("%s has the series %s, which nothing exports", test.Name, name)
				continue
			}
			series.Range(func(l labels.Label) {
				wantLabel(t, known[name], test.Name, labels.MustNewMatcher(labels.MatchEqual, l.Name, l.Value))
			})
		}
	}
}

// promtool is Prometheus itself: it evaluates the alerts on series of hours.
func TestAlertsAreRaisedWhenTheyShould(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		missing(t, "promtool is missing: %v", err)
	}
	for _, args := range [][]string{{"check", "rules", "--lint=all", "--lint-fatal", filepath.Base(alerts)}, {"test", "rules", filepath.Base(alertTests)}} {
		cmd := exec.CommandContext(t.Context(), promtool, args...)
		cmd.Dir = filepath.Dir(alerts)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}

// The page has each metric, under both names, and no other.
func TestPageNamesEveryMetric(t *testing.T) {
	page := textOf(t, operations)
	known := exported(t)
	for name := range known {
		base := strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(name, "_count"), "_sum"), "_bucket")
		if strings.HasPrefix(name, "fincode_") && !strings.Contains(page, "`"+base) {
			t.Errorf("%s does not have the metric %s", operations, base)
		}
	}
	for _, name := range regexp.MustCompile("`fincode_[a-z_]+").FindAllString(page, -1) {
		name = strings.TrimPrefix(name, "`")
		if known[name] == nil && known[name+"_count"] == nil && name != label(otelfincodeauth.EndReasonKey) {
			t.Errorf("%s has the metric %s, which nothing exports, of %v", operations, name, slices.Sorted(maps.Keys(known)))
		}
	}
}

func textOf(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// missing skips the test because a program is missing. It fails the test instead if
// FINCODEAUTH_REQUIRE_SERVICES is 1.
func missing(t *testing.T, format string, args ...any) {
	t.Helper()
	if os.Getenv("FINCODEAUTH_REQUIRE_SERVICES") == "1" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}
