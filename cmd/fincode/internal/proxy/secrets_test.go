package proxy_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/fincodeauth/fincodeauth/fincodetest"
)

// A witness keeps all that clients see.
type witness struct {
	*stage
	seen strings.Builder
}

func (w *witness) send(req *http.Request) {
	resp, err := w.client.Do(req)
	if err != nil {
		fmt.Fprintln(&w.seen, err)
		return
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	fmt.Fprintln(&w.seen, resp.Status, resp.Header, string(body), resp.Trailer, err)
}

// sendWith sends a request with a header field, or with another Host.
func (w *witness) sendWith(path, name, value string) {
	req := w.request(http.MethodGet, path, nil)
	if name == "Host" {
		req.Host = value
	}
	req.Header.Set(name, value)
	w.send(req)
}

// sendDuring sends requests while FinCode fails.
func (w *witness) sendDuring(op fincodetest.Operation, fault fincodetest.Fault) {
	w.loginAgain()
	w.age()
	w.up.RevokeAccessTokens()
	w.up.Inject(op, 2, fault)
	w.send(w.request(http.MethodGet, "/whoami", nil))
	w.send(w.request(http.MethodPost, "/orders", strings.NewReader(`{"amount":"1"}`)))
	w.up.ClearFaults()
}

// With every fault of FinCode and every mistake of a client, no answer and no log has a
// refresh token or the proxy's key.
func TestNoSecretLeavesTheProxy(t *testing.T) {
	w := &witness{stage: newStage(t, fincodetest.Config{}, nil)}
	for _, fault := range []fincodetest.Fault{
		{}, {Kind: fincodetest.HangUp}, {Kind: fincodetest.ErrorStatus}, {Kind: fincodetest.ErrorStatus, Status: 429, RetryAfter: "1"},
		{Kind: fincodetest.FirewallPage}, {Kind: fincodetest.Garbage}, {Kind: fincodetest.Truncated}, {Kind: fincodetest.Oversized},
		{Kind: fincodetest.Redirect, Location: "/elsewhere"}, {Kind: fincodetest.HangUp, TakesEffect: true}, {Kind: fincodetest.ErrorStatus, Status: 401},
	} {
		w.sendDuring(fincodetest.Refresh, fault)
		w.sendDuring(fincodetest.API, fault)
	}
	login := `{"email":"` + fincodetest.Email + `","currentPassword":"` + fincodetest.Password + `"}`
	for _, path := range []string{"/whoami?key=" + w.key, "/-/metrics", "/-/startup", "/-/", "/a;b", "/securitymanagement/refresh-token", "/securitymanagement/login"} {
		w.send(w.request(http.MethodPut, path, strings.NewReader(login)))
		w.sendWith(path, "Origin", "http://evil.example.com")
		w.sendWith(path, "Host", "evil.example.com")
		w.sendWith(path, "Authorization", "Bearer "+w.key+"x")
	}
	tok, err := w.sessions.TokenSource(session).Token()
	if err != nil {
		t.Fatal(err)
	}
	w.up.mu.Lock()
	secrets := append(w.up.secrets, tok.RefreshToken)
	w.up.mu.Unlock()
	if len(secrets) < 10 || !strings.Contains(w.seen.String(), "200 OK") {
		t.Fatalf("too little has happened: %d refresh tokens", len(secrets))
	}
	for where, text := range map[string]string{"an answer": w.seen.String(), "the log": w.log.String()} {
		for _, secret := range append(secrets, w.key) {
			if strings.Contains(text, secret) {
				t.Errorf("%s has a refresh token or the proxy's key", where)
			}
		}
	}
}
