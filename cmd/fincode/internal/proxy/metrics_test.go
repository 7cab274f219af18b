package proxy_test

import (
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/fincodeauth/fincodeauth/fincodetest"
)

// The alerts compare metrics of the same server_address, so all of them need it.
func TestMetricsAreThoseOfTheAlerts(t *testing.T) {
	alerts, err := os.ReadFile("../../../../otelfincodeauth/alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	names := regexp.MustCompile(`\b((?:fincode|http)_[a-z_]+)(?:[{[]|\) >| unless)`).FindAllStringSubmatch(string(alerts), -1)
	if len(names) < 20 {
		t.Fatalf("the alerts use metrics in %d places: this test misses some", len(names))
	}
	s := newStage(t, fincodetest.Config{}, nil)
	s.age()
	s.up.RevokeAccessTokens()
	s.get("/whoami")
	shown := s.get("/-/metrics").text
	for _, name := range names {
		if !regexp.MustCompile(`(?m)^` + name[1] + `\{.*server_address="127.0.0.1"`).MatchString(shown) {
			t.Errorf("/-/metrics has no %s with FinCode's address", name[1])
		}
	}
	if !regexp.MustCompile(`(?m)^http_server_request_duration_seconds_count\{.*http_response_status_code="200"`).MatchString(shown) {
		t.Error("/-/metrics has no requests of the proxy")
	}
}

func TestMetricsAreThoseOfTheDocument(t *testing.T) {
	document, err := os.ReadFile("../../../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	names := regexp.MustCompile("\\| `fincode\\.[a-z_.]+` \\| `([a-z_]+)`").FindAllStringSubmatch(string(document), -1)
	if len(names) < 14 {
		t.Fatalf("the document has %d metrics: this test misses some", len(names))
	}
	s := newStage(t, fincodetest.Config{}, nil)
	s.age()
	s.up.RevokeAccessTokens()
	s.get("/whoami")
	shown := s.get("/-/metrics").text
	for _, name := range names {
		if !regexp.MustCompile(`(?m)^` + name[1] + `(_count)?\{`).MatchString(shown) {
			t.Errorf("/-/metrics has no %s", name[1])
		}
	}
}

func TestClientCannotMakeTimeSeries(t *testing.T) {
	s := newStage(t, fincodetest.Config{}, nil)
	req := s.request("MADEUP", "/made/up?made=up", nil)
	req.Host = "made-up.example.com:4711"
	if got := s.do(req); got.StatusCode != http.StatusMisdirectedRequest {
		t.Errorf("%s, want 421", got.Status)
	}
	if shown := s.get("/-/metrics").text; !strings.Contains(shown, "http_server_request") || regexp.MustCompile(`(?i)made|4711`).MatchString(shown) {
		t.Error("a metric has what the client sent")
	}
}
