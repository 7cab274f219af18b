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

// api is where a FinCode without a socket is: any host will do.
const api = "https://bench.fincode.software" + fincodetest.Root

// An account is a session at FinCode, before a client takes it over.
type account struct {
	url  string            // of the API's root
	base http.RoundTripper // of all requests
	pair *oauth2.Token     // that the login answered

	// early is how long before its expiry a client is to refresh the token,
	// if it can. 0: once it has expired. fincodeauth decides for itself.
	early time.Duration

	mu sync.Mutex // guards pair once the account is in use
}

// newAccount logs in.
func newAccount(tb testing.TB, url string, base http.RoundTripper) *account {
	tb.Helper()
	pair, err := logIn(tb.Context(), url, base)
	if err != nil {
		tb.Fatal(err)
	}
	return &account{url: url, base: base, pair: pair}
}

// refresh is what a peer is given to get its tokens from: the one call, and
// nothing of what makes that safe but a mutex, since a peer that calls twice at
// once would present a token twice. The token expires a twentieth of its
// lifetime early, as fincodeauth has it too: a request takes time to arrive.
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

// call makes a call that answers a pair of tokens.
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

// nothing is a base that answers at once. FinCode's calls, all of them PUTs, go
// to fc.
func nothing(fc *fincodetest.FinCode) http.RoundTripper {
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
