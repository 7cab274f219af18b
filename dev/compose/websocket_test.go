package compose

import (
	"context"
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	"github.com/fincodeauth/fincodeauth"
)

// echoMessages is an endpoint that sends the messages of a websocket back.
func echoMessages(w http.ResponseWriter, r *http.Request) {
	conn, err := websocket.Accept(w, r, nil)
	if err != nil {
		return // Accept has answered
	}
	defer conn.CloseNow()
	for {
		kind, message, err := conn.Read(context.Background())
		if err != nil || conn.Write(context.Background(), kind, message) != nil {
			return
		}
	}
}

// dial opens a websocket.
func dial(t *testing.T, client *http.Client, fields http.Header) (*websocket.Conn, *http.Response, error) {
	t.Helper()
	return websocket.Dial(t.Context(), "ws"+served[len("http"):]+"/live", &websocket.DialOptions{HTTPClient: client, HTTPHeader: fields})
}

// wantMessages sends a message and waits until it comes back.
func wantMessages(t *testing.T, conn *websocket.Conn) {
	t.Helper()
	if err := conn.Write(t.Context(), websocket.MessageText, []byte(order)); err != nil {
		t.Fatal(err)
	}
	if _, got, err := conn.Read(t.Context()); err != nil || string(got) != order {
		t.Errorf("got %q, %v, want %s", got, err, order)
	}
}

func TestAWebsocketHandshakeHasTheTokenAndIsSentAgainAfterARevocation(t *testing.T) {
	for _, revoked := range []bool{false, true} {
		t.Run(map[bool]string{false: "good token", true: "revoked token"}[revoked], func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fc := newFinCode()
				base := serve(t, guarded(fc, http.HandlerFunc(echoMessages)))
				sessions := newSessions(t, fincodeauth.Config{BaseURL: served, Base: base})
				if revoked {
					revoke(fc)
				}
				conn, _, err := dial(t, sessions.Client(ada), nil)
				if err != nil {
					t.Fatal(err)
				}
				defer conn.CloseNow()
				wantMessages(t, conn)
				time.Sleep(2 * lifetime) // the connection outlives its token
				wantMessages(t, conn)
				if counts := fc.Counts(); (counts.Refreshes == 1) != revoked || counts.APIRejected != counts.Refreshes {
					t.Errorf("%d refreshes and %d calls with a 401, want both only if the token was revoked", counts.Refreshes, counts.APIRejected)
				}
			})
		})
	}
}

func TestAWebsocketWithTheTokenInItsHTTPHeaderGetsTheUsersA401(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := newFinCode()
		base := serve(t, guarded(fc, http.HandlerFunc(echoMessages)))
		sessions := newSessions(t, fincodeauth.Config{BaseURL: served, Base: base})
		fields := fincodeauth.DefaultHeader()
		fields.Set("Authorization", tokenOf(t, sessions.TokenSource(ada)))
		revoke(fc)
		conn, resp, err := dial(t, &http.Client{Transport: base}, fields)
		if err == nil {
			conn.CloseNow()
		}
		if resp == nil || resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("the caller gets %v, %v, want a 401", resp, err)
		}
	})
}

// An answer of 101 has a body that can be written to. A RoundTripper that wraps
// bodies, and hides that, breaks websockets on either side of the Transport.
func TestAWebsocketNeedsTheBodyThatNetHTTPReturns(t *testing.T) {
	wrapping := func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(req *http.Request) (*http.Response, error) {
			resp, err := next.RoundTrip(req)
			if err == nil {
				resp.Body = struct{ io.ReadCloser }{resp.Body}
			}
			return resp, err
		})
	}
	for _, test := range []struct {
		name            string
		outside, inside bool // where bodies are wrapped
		works           bool
	}{{"nowhere", false, false, true}, {"outside", true, false, false}, {"inside", false, true, false}} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cfg := fincodeauth.Config{BaseURL: served, Base: serve(t, guarded(newFinCode(), http.HandlerFunc(echoMessages)))}
				if test.inside {
					cfg.Base = wrapping(cfg.Base)
				}
				client := newSessions(t, cfg).Client(ada)
				if test.outside {
					client.Transport = wrapping(client.Transport)
				}
				conn, _, err := dial(t, client, nil)
				if err == nil {
					conn.CloseNow()
				}
				if (err == nil) != test.works {
					t.Errorf("the websocket opens with error %v, want that it works: %t", err, test.works)
				}
			})
		})
	}
}
