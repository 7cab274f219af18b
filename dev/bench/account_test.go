package bench_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"golang.org/x/oauth2"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/fincodetest"
)

// api is the base URL of a FinCode that has no socket. Any host works.
const api = "https://bench.fincode.software" + fincodetest.Root

// An account is a session at FinCode, with what a peer needs to use it.
type account struct {
	url  string            // the root of the API
	base http.RoundTripper // sends all requests
	pair *oauth2.Token     // the newest tokens; the first come from the login

	// early is how long before its expiry a client must refresh the token, if
	// the client has such a setting. 0 means after the expiry. fincodeauth has
	// no such setting and decides itself.
	early time.Duration

	mu sync.Mutex // guards pair once a client uses the account
}

// newAccount logs in to the FinCode at url.
func newAccount(tb testing.TB, url string, base http.RoundTripper) *account {
	tb.Helper()
	pair, err := logIn(tb.Context(), url, base)
	if err != nil {
		tb.Fatal(err)
	}
	return &account{url: url, base: base, pair: pair}
}

// refresh is the function from which a peer gets its tokens. It makes one call
// to FinCode and has none of fincodeauth's protection, except for a mutex:
// without the mutex, a peer that calls refresh twice at once would present a
// refresh token twice. The returned token expires a twentieth of its lifetime
// early, because a request takes time to arrive. fincodeauth does the same.
func (a *account) refresh(ctx context.Context) (*oauth2.Token, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	next, err := refresh(ctx, a.url, a.base, a.pair.RefreshToken)
	if err != nil {
		return nil, err
	}
	a.pair = next
	given := *next
	given.Expiry = given.Expiry.Add(-time.Duration(given.ExpiresIn) * time.Second / 20)
	return &given, nil
}

func logIn(ctx context.Context, url string, base http.RoundTripper) (*oauth2.Token, error) {
	return call(ctx, url+"/securitymanagement/login", base,
		map[string]string{"email": fincodetest.Email, "currentPassword": fincodetest.Password})
}

func refresh(ctx context.Context, url string, base http.RoundTripper, refreshToken string) (*oauth2.Token, error) {
	return call(ctx, url+"/securitymanagement/refresh-token", base, map[string]string{"refresh_token": refreshToken})
}

// call sends body to url and returns the tokens from the answer.
func call(ctx context.Context, url string, base http.RoundTripper, body map[string]string) (*oauth2.Token, error) {
	began := time.Now()
	data, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, url, bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	req.Header = fincodeauth.DefaultHeader()
	client := http.Client{Transport: base}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", url, resp.Status)
	}
	tok := new(oauth2.Token)
	if err := json.NewDecoder(resp.Body).Decode(tok); err != nil {
		return nil, err
	}
	tok.Expiry = began.Add(time.Duration(tok.ExpiresIn) * time.Second)
	return tok, nil
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// instantBase returns a base that answers every request at once. Only the calls
// for tokens, which are all PUTs, go to fc.
func instantBase(fc *fincodetest.FinCode) http.RoundTripper {
	answer := &http.Response{StatusCode: http.StatusOK, Body: http.NoBody}
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		if r.Method == http.MethodPut {
			return fc.RoundTrip(r)
		}
		return answer, nil
	})
}

// newRequest returns a GET with five header fields, as every benchmark's caller
// sends it.
func newRequest(tb testing.TB, url string) *http.Request {
	tb.Helper()
	req, err := http.NewRequestWithContext(tb.Context(), http.MethodGet, url, nil)
	if err != nil {
		tb.Fatal(err)
	}
	req.Header = http.Header{
		"Accept":           {"application/json"},
		"Accept-Language":  {"en"},
		"User-Agent":       {"bench/1"},
		"X-Correlation-Id": {"0123456789abcdef"},
		"Traceparent":      {"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
	}
	return req
}

// newRequestOfThree returns a GET with three header fields. One of them is
// Content-Type, which fincodeauth would set otherwise.
func newRequestOfThree(tb testing.TB, url string) *http.Request {
	tb.Helper()
	req := newRequest(tb, url)
	req.Header = http.Header{
		"Accept":       {"application/json"},
		"Content-Type": {"application/json; charset=utf-8"},
		"User-Agent":   {"bench/1"},
	}
	return req
}
