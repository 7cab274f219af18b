package compose

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/go-resty/resty/v2"

	"github.com/fincodeauth/fincodeauth"
)

// A payment is order as a struct.
type payment struct {
	Amount string `json:"amount"`
}

// resty writes a Content-Type for every body, and a field that a request has
// stays. So a body of JSON as bytes or text goes out as text/plain.
func TestRestyBodiesOfBytesAreRefusedUnlessTheirContentTypeIsSet(t *testing.T) {
	const jsonType = "application/json"
	for _, test := range []struct {
		name        string
		body        any
		set         string // the Content-Type that the program sets
		contentType string // that is sent
		want        int
	}{
		{"bytes", []byte(order), "", "text/plain; charset=utf-8", http.StatusBadRequest},
		{"text", order, "", "text/plain; charset=utf-8", http.StatusBadRequest},
		{"bytes and SetHeader", []byte(order), jsonType, jsonType, http.StatusOK},
		{"text and SetHeader", order, jsonType, jsonType, http.StatusOK},
		{"json.RawMessage", json.RawMessage(order), jsonType, jsonType, http.StatusOK},
		{"a struct", payment{"12.50"}, "", jsonType, http.StatusOK},
		{"a map", map[string]string{"amount": "12.50"}, "", jsonType, http.StatusOK},
		{"no body", nil, "", jsonType, http.StatusOK},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fc := newFinCode()
				var sent http.Header
				sessions := newSessions(t, fincodeauth.Config{Base: roundTripper(func(req *http.Request) (*http.Response, error) {
					sent = req.Header
					return fc.RoundTrip(req)
				})})
				req := resty.NewWithClient(sessions.Client(ada)).R().SetBody(test.body)
				if test.set != "" {
					req.SetHeader("Content-Type", test.set)
				}
				resp, err := req.Post(api + "/orders")
				if err != nil {
					t.Fatal(err)
				}
				if got := sent.Get("Content-Type"); got != test.contentType {
					t.Errorf("Content-Type is %q, want %q", got, test.contentType)
				}
				if resp.StatusCode() != test.want {
					t.Errorf("FinCode answers %s, want %d", resp, test.want)
				}
			})
		})
	}
}

func TestRestyRequestsAreSentAgainWithTheirBodyAfterARevocation(t *testing.T) {
	for name, body := range map[string]any{
		"bytes":      []byte(order),
		"a struct":   payment{"12.50"},
		"any reader": io.Reader(reader{strings.NewReader(order)}),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fc := newFinCode()
				client := resty.NewWithClient(newSessions(t, fincodeauth.Config{Base: fc}).Client(ada))
				revoke(fc)
				resp, err := client.R().SetHeader("Content-Type", "application/json").SetBody(body).Post(api + "/orders")
				if err != nil {
					t.Fatal(err)
				}
				wantEcho(t, &http.Response{
					Status: resp.Status(), StatusCode: resp.StatusCode(), Body: io.NopCloser(strings.NewReader(resp.String())),
				}, order)
				if counts := fc.Counts(); counts.APICalls != 2 || counts.Refreshes != 1 {
					t.Errorf("%d calls and %d refreshes, want 2 and 1", counts.APICalls, counts.Refreshes)
				}
			})
		})
	}
}
