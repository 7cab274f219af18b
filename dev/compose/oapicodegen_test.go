package compose

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/dev/compose/payments"
)

// newPayments returns a generated client that sends its requests with client.
func newPayments(t *testing.T, client *http.Client, options ...payments.ClientOption) *payments.ClientWithResponses {
	t.Helper()
	generated, err := payments.NewClientWithResponses(api, append(options, payments.WithHTTPClient(client))...)
	if err != nil {
		t.Fatal(err)
	}
	return generated
}

func TestAnOapiCodegenClientOverSessionsClientSurvivesARevocation(t *testing.T) {
	for _, key := range []string{ada, ""} { // "": the call's context names the session
		t.Run(fmt.Sprintf("%q", key), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fc := newFinCode()
				generated := newPayments(t, newSessions(t, fincodeauth.Config{Base: fc}).Client(key))
				revoke(fc)
				ctx := fincodeauth.WithSession(t.Context(), ada)
				got, err := generated.CreateOrderWithResponse(ctx, payments.Order{Amount: "12.50"})
				if err != nil {
					t.Fatal(err)
				}
				if got.JSON200 == nil || got.JSON200.Data.Body != order {
					t.Errorf("%s %s, want the echo of %s", got.Status(), got.Body, order)
				}
				if counts := fc.Counts(); counts.APICalls != 2 || counts.Refreshes != 1 {
					t.Errorf("%d calls and %d refreshes, want 2 and 1", counts.APICalls, counts.Refreshes)
				}
			})
		})
	}
}

// The methods for any body hand a reader to net/http as it is.
func TestAnOapiCodegenClientSendsOnlyBodiesWithGetBodyAgain(t *testing.T) {
	for _, test := range []struct {
		name string
		hide bool
		want int
	}{{"a strings.Reader", false, http.StatusOK}, {"any reader", true, http.StatusUnauthorized}} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fc := newFinCode()
				generated := newPayments(t, newSessions(t, fincodeauth.Config{Base: fc}).Client(ada))
				revoke(fc)
				send := func() (*payments.CreateOrderResponse, error) {
					if test.hide {
						return generated.CreateOrderWithBodyWithResponse(t.Context(), "application/json", reader{strings.NewReader(order)})
					}
					return generated.CreateOrderWithBodyWithResponse(t.Context(), "application/json", strings.NewReader(order))
				}
				if got, err := send(); err != nil || got.StatusCode() != test.want {
					t.Errorf("the caller gets %v, %v, want %d", got, err, test.want)
				}
			})
		})
	}
}

// A request editor is called once for each call, so it cannot send a request again.
func TestAnOapiCodegenRequestEditorThatSetsTheTokenGetsTheUsersA401(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := newFinCode()
		sessions := newSessions(t, fincodeauth.Config{Base: fc})
		source := sessions.TokenSource(ada)
		editor := payments.WithRequestEditorFn(func(ctx context.Context, req *http.Request) error {
			tok, err := source.TokenContext(ctx)
			if err != nil {
				return err
			}
			for name, values := range fincodeauth.DefaultHeader() {
				req.Header[name] = values
			}
			tok.SetAuthHeader(req)
			return nil
		})
		generated := newPayments(t, &http.Client{Transport: fc}, editor)
		status := func() int {
			t.Helper()
			got, err := generated.CreateOrderWithResponse(t.Context(), payments.Order{Amount: "12.50"})
			if err != nil {
				t.Fatal(err)
			}
			return got.StatusCode()
		}
		if got := status(); got != http.StatusOK {
			t.Errorf("with a good token the caller gets %d, want 200", got)
		}
		revoke(fc)
		for range 3 {
			if got := status(); got != http.StatusUnauthorized {
				t.Errorf("after a revocation the caller gets %d, want 401", got)
			}
		}
	})
}

func TestTheOapiCodegenClientIsWhatOapiCodegenGenerates(t *testing.T) {
	generated := filepath.Join(t.TempDir(), "payments.gen.go")
	command := exec.CommandContext(t.Context(), "go", "tool", "oapi-codegen", "-config", "oapi-codegen.yaml", "-o", generated, "openapi.yaml")
	command.Dir = "payments"
	if output, err := command.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	want, err := os.ReadFile(generated)
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("payments/payments.gen.go")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("payments.gen.go is not up to date: run go generate ./compose/payments in dev")
	}
}
