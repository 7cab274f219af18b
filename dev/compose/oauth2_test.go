package compose

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/oauth2"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/fincodetest"
)

// oauth2Client returns oauth2.NewClient's client for Ada, over base.
func oauth2Client(ctx context.Context, sessions *fincodeauth.Sessions, base http.RoundTripper) *http.Client {
	ctx = context.WithValue(ctx, oauth2.HTTPClient, &http.Client{Transport: base})
	return oauth2.NewClient(ctx, sessions.TokenSource(ada))
}

// post sends order with FinCode's header fields, unless they are left out.
func post(t *testing.T, client *http.Client, url string, fields http.Header) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(order))
	if err != nil {
		t.Fatal(err)
	}
	if fields != nil {
		req.Header = fields
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return resp
}

func TestOAuth2NewClientSendsTheTokenButNotTheFieldsThatFinCodeWants(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := newFinCode()
		sessions := newSessions(t, fincodeauth.Config{Base: fc})
		client := oauth2Client(t.Context(), sessions, fc)
		if got := post(t, client, api+"/orders", nil).StatusCode; got != http.StatusBadRequest {
			t.Errorf("without FinCode's fields the answer is %d, want 400", got)
		}
		if got := post(t, client, api+"/orders", fincodeauth.DefaultHeader()).StatusCode; got != http.StatusOK {
			t.Errorf("with FinCode's fields the answer is %d, want 200", got)
		}
		if got := post(t, sessions.Client(ada), api+"/orders", nil).StatusCode; got != http.StatusOK {
			t.Errorf("Sessions.Client gets %d, want 200", got)
		}
	})
}

// oauth2.NewClient keeps a token until ten seconds before its end, whatever
// becomes of the session.
func TestOAuth2NewClientKeepsARevokedTokenUntilItExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := newFinCode()
		sessions := newSessions(t, fincodeauth.Config{Base: fc})
		client := oauth2Client(t.Context(), sessions, fc)
		statuses := func() (theirs, ours int) {
			theirs = post(t, client, api+"/orders", fincodeauth.DefaultHeader()).StatusCode
			ours = post(t, sessions.Client(ada), api+"/orders", nil).StatusCode
			return theirs, ours
		}
		if theirs, ours := statuses(); theirs != http.StatusOK || ours != http.StatusOK {
			t.Fatalf("oauth2.NewClient gets %d and Sessions.Client %d, want 200 both", theirs, ours)
		}
		revoke(fc)
		for range 3 {
			if theirs, ours := statuses(); theirs != http.StatusUnauthorized || ours != http.StatusOK {
				t.Errorf("after a revocation oauth2.NewClient gets %d and Sessions.Client %d, want 401 and 200", theirs, ours)
			}
			time.Sleep(10 * time.Minute)
		}
		time.Sleep(lifetime)
		if theirs, ours := statuses(); theirs != http.StatusOK || ours != http.StatusOK {
			t.Errorf("in the next lifetime oauth2.NewClient gets %d and Sessions.Client %d, want 200 both", theirs, ours)
		}
	})
}

func TestOAuth2NewClientSendsTheTokenToEveryHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := newFinCode()
		var sent http.Header // to another host
		base := roundTripper(func(req *http.Request) (*http.Response, error) {
			if req.URL.Host != "elsewhere.example" {
				return fc.RoundTrip(req)
			}
			sent = req.Header
			return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody, Request: req}, nil
		})
		sessions := newSessions(t, fincodeauth.Config{Base: base})
		tok, err := sessions.TokenSource(ada).Token()
		if err != nil {
			t.Fatal(err)
		}
		post(t, oauth2Client(t.Context(), sessions, base), "http://elsewhere.example/", nil)
		if got, want := sent.Get("Authorization"), "Bearer "+tok.AccessToken; got != want {
			t.Errorf("oauth2.NewClient sends Authorization %.10q… in the clear, want the token", got)
		}
		post(t, sessions.Client(ada), "http://elsewhere.example/", nil)
		for _, name := range []string{"Authorization", "X-Auth-Token"} {
			if sent.Get(name) != "" {
				t.Errorf("Sessions.Client sends %s", name)
			}
		}
	})
}

// Sessions.Client refreshes before a token's end, while requests go on with it.
// oauth2.NewClient does not ask for a token before the end, so its requests wait.
func TestOAuth2NewClientMakesRequestsWaitForTheRefresh(t *testing.T) {
	const latency = 3 * time.Second // of a refresh
	longest := func(t *testing.T, clientOf func(*fincodeauth.Sessions, http.RoundTripper) *http.Client) (wait time.Duration) {
		synctest.Test(t, func(t *testing.T) {
			fc := newFinCode()
			fc.Inject(fincodetest.Refresh, -1, fincodetest.Fault{After: latency})
			client := clientOf(newSessions(t, fincodeauth.Config{Base: fc}), fc)
			for began := time.Now(); time.Since(began) < 2*lifetime; time.Sleep(time.Second) {
				sent := time.Now()
				if got := post(t, client, api+"/orders", fincodeauth.DefaultHeader()).StatusCode; got != http.StatusOK {
					t.Fatalf("the answer is %d, want 200", got)
				}
				wait = max(wait, time.Since(sent))
			}
		})
		return wait
	}
	theirs := longest(t, func(sessions *fincodeauth.Sessions, base http.RoundTripper) *http.Client {
		return oauth2Client(context.Background(), sessions, base)
	})
	ours := longest(t, func(sessions *fincodeauth.Sessions, _ http.RoundTripper) *http.Client { return sessions.Client(ada) })
	if theirs != latency || ours != 0 {
		t.Errorf("a request waits %v with oauth2.NewClient and %v with Sessions.Client, want %v and 0", theirs, ours, latency)
	}
}
