package main

import (
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/fincodeauth/fincodeauth/fincodetest"
)

// The alerts compare metrics of the same server_address, so all of them need it.
func TestMetricsAreThoseOfTheAlerts(t *testing.T) {
	alerts, err := os.ReadFile("../../otelfincodeauth/alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	names := regexp.MustCompile(`\b((?:fincode|http)_[a-z_]+)(?:[{[]|\) >| unless)`).FindAllStringSubmatch(string(alerts), -1)
	if len(names) < 20 {
		t.Fatalf("the alerts use metrics in %d places: this test misses some", len(names))
	}
	inBubble(t, nil, func(b *bench) {
		br := b.loggedIn()
		time.Sleep(lifetime)
		br.get("/").want(http.StatusOK)
		shown := b.probe("/metrics").want(http.StatusOK)
		for _, name := range names {
			series := regexp.MustCompile(`(?m)^` + name[1] + `\{.*server_address="fincode.example.com"`)
			if !series.MatchString(shown.text) {
				t.Errorf("/metrics has no %s with FinCode's address", name[1])
			}
		}
	})
}

func TestMetricsCountWhatHappens(t *testing.T) {
	inBubble(t, nil, func(b *bench) {
		br := b.loggedIn()
		b.fincode.Inject(fincodetest.Refresh, 1, fincodetest.Fault{Kind: fincodetest.ErrorStatus})
		time.Sleep(lifetime)
		br.get("/").want(http.StatusServiceUnavailable)
		time.Sleep(2 * time.Minute) // the backoff of a refresh that failed
		b.steal()
		time.Sleep(lifetime)
		br.get("/").want(http.StatusUnauthorized)
		shown := b.probe("/metrics")
		for series, value := range map[string]string{
			`fincode_session_logins_total{`:                                               "1",
			`fincode_session_ends_total{fincode_session_end_reason="breach",`:             "1",
			`fincode_session_ends_total{fincode_session_end_reason="rejected",`:           "0",
			`fincode_store_save_failures_total{`:                                          "0",
			`fincode_refresh_duration_seconds_count{error_type="500",`:                    "1",
			`http_server_request_duration_seconds_count{http_request_method="POST",http_`: "1",
		} {
			if !regexp.MustCompile(`(?m)^` + series + `.*\} ` + value + `$`).MatchString(shown.text) {
				t.Errorf("/metrics has no %s…} %s", series, value)
			}
		}
	})
}

func TestBrowserCannotMakeTimeSeries(t *testing.T) {
	inBubble(t, nil, func(b *bench) {
		req, err := http.NewRequestWithContext(t.Context(), "MADEUP", "https://made-up.example.com:4711/made/up?made=up", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		b.newBrowser().do(req).want(http.StatusNotFound)
		if shown := b.probe("/metrics").text; !strings.Contains(shown, "http_server_request") || regexp.MustCompile(`(?i)made|4711`).MatchString(shown) {
			t.Error("a metric has what the browser sent")
		}
	})
}
