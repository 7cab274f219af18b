package compose

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"resty.dev/v3"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/fincodetest"
)

// newRestyV3 returns resty around client: the right order.
func newRestyV3(t *testing.T, client *http.Client) *resty.Client {
	t.Helper()
	r := resty.NewWithClient(client)
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// Like version 2, resty writes a Content-Type for every body, and a field that a
// request has stays.
func TestRestyV3BodiesOfBytesAreRefusedUnlessTheirContentTypeIsSet(t *testing.T) {
	const jsonType = "application/json"
	for _, test := range []struct {
		name string
		body any
		set  string // the Content-Type that the program sets
		want int
	}{
		{"bytes", []byte(order), "", http.StatusBadRequest},
		{"text", order, "", http.StatusBadRequest},
		{"any reader", reader{strings.NewReader(order)}, "", http.StatusOK}, // to resty it is a struct
		{"bytes and SetHeader", []byte(order), jsonType, http.StatusOK},
		{"text and SetHeader", order, jsonType, http.StatusOK},
		{"json.RawMessage and SetHeader", json.RawMessage(order), jsonType, http.StatusOK},
		{"a struct", payment{"12.50"}, "", http.StatusOK},
		{"a map", map[string]string{"amount": "12.50"}, "", http.StatusOK},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fc := newFinCode()
				req := newRestyV3(t, newSessions(t, fincodeauth.Config{Base: fc}).Client(ada)).R().SetBody(test.body)
				if test.set != "" {
					req.SetHeader("Content-Type", test.set)
				}
				resp, err := req.Post(api + "/orders")
				if err != nil {
					t.Fatal(err)
				}
				if resp.StatusCode() != test.want {
					t.Errorf("FinCode answers %s, want %d", resp, test.want)
				}
			})
		})
	}
}

// Unlike version 2, resty sends a reader as it is and does not keep it.
func TestRestyV3BodiesOfReadersAreNotSentAgainAfterARevocation(t *testing.T) {
	for _, test := range []struct {
		name string
		body any
		want int
	}{
		{"bytes", []byte(order), http.StatusOK},
		{"text", order, http.StatusOK},
		{"a struct", payment{"12.50"}, http.StatusOK},
		{"a strings.Reader, for which net/http sets GetBody", strings.NewReader(order), http.StatusOK},
		{"any reader", io.Reader(reader{strings.NewReader(order)}), http.StatusUnauthorized},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fc := newFinCode()
				client := newRestyV3(t, newSessions(t, fincodeauth.Config{Base: fc}).Client(ada))
				revoke(fc)
				resp, err := client.R().SetHeader("Content-Type", "application/json").SetBody(test.body).Post(api + "/orders")
				if err != nil {
					t.Fatal(err)
				}
				if resp.StatusCode() != test.want {
					t.Errorf("the caller gets %s, want %d", resp.Status(), test.want)
				}
				if test.want == http.StatusOK && !strings.Contains(resp.String(), `\"amount\":\"12.50\"`) {
					t.Errorf("FinCode got %s, want %s", resp, order)
				}
			})
		})
	}
}

// resty cannot be inside of the Transport, because it is no RoundTripper. So its
// retries are outside, where they belong.
func TestRestyV3RetriesDoNotPresentATokenTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := newFinCode()
		client := newRestyV3(t, newSessions(t, fincodeauth.Config{Base: fc}).Client(ada)).SetRetryCount(2)
		revoke(fc)
		fc.Inject(fincodetest.API, 1, fincodetest.Fault{Kind: fincodetest.ErrorStatus, Status: http.StatusServiceUnavailable})
		client.AddRetryConditions(resty.RetryConditionStatus5XX)
		resp, err := client.R().Get(api + "/whoami")
		if err != nil || resp.StatusCode() != http.StatusOK {
			t.Fatalf("the caller gets %v, %v, want a 200", resp, err)
		}
		if counts := fc.Counts(); counts.APICalls != 3 || counts.RefreshCalls != 1 || len(fc.PresentedMoreThanOnce()) != 0 {
			t.Errorf("got %d calls and %d refreshes, %d tokens twice; want 3, 1 and none", counts.APICalls, counts.RefreshCalls, len(fc.PresentedMoreThanOnce()))
		}
	})
}

func TestRestyV3ReturnsErrLoginRequiredForCallersToFind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sessions := newSessions(t, fincodeauth.Config{Base: newFinCode()})
		if err := sessions.Logout(t.Context(), ada); err != nil {
			t.Fatal(err)
		}
		if _, err := newRestyV3(t, sessions.Client(ada)).R().Get(api + "/whoami"); !errors.Is(err, fincodeauth.ErrLoginRequired) {
			t.Errorf("the caller gets %v, want ErrLoginRequired", err)
		}
	})
}
