package fincodetest_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/fincodeauth/fincodeauth/fincodetest"
)

// host may be any host: in memory, a FinCode answers for all of them.
const host = "https://remitjunction.fincode.software" + fincodetest.Root

// newRequest returns a request with the headers that every call needs.
func newRequest(ctx context.Context, method, url, body string) *http.Request {
	r, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		panic(err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("platform", "fincode")
	r.Header.Set("uuid", "200")
	return r
}

// A reply is what the tests need of a response.
type reply struct {
	status int
	header http.Header
	body   string
}

// json returns the body as a JSON object, or nil if it is not one.
func (r reply) json() (object map[string]any) {
	json.Unmarshal([]byte(r.body), &object)
	return object
}

func (r reply) access() string  { s, _ := r.json()["access_token"].(string); return s }
func (r reply) refresh() string { s, _ := r.json()["refresh_token"].(string); return s }

// code returns the error code in the envelope of a failure, or "".
func (r reply) code() string {
	detail, _ := r.json()["error"].(map[string]any)
	code, _ := detail["code"].(string)
	return code
}

func send(rt http.RoundTripper, r *http.Request) (reply, error) {
	resp, err := rt.RoundTrip(r)
	if err != nil {
		return reply{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return reply{resp.StatusCode, resp.Header, string(body)}, err
}

func must(t *testing.T, rt http.RoundTripper, r *http.Request) reply {
	t.Helper()
	got, err := send(rt, r)
	if err != nil {
		t.Fatalf("%s %s: %v", r.Method, r.URL, err)
	}
	return got
}

func login(t *testing.T, rt http.RoundTripper, email, password string) reply {
	t.Helper()
	return must(t, rt, loginRequest(email, password))
}

func loginRequest(email, password string) *http.Request {
	body, _ := json.Marshal(map[string]string{"email": email, "currentPassword": password})
	return newRequest(context.Background(), "PUT", host+"/securitymanagement/login", string(body))
}

// session logs in as the user that every FinCode knows.
func session(t *testing.T, rt http.RoundTripper) reply {
	t.Helper()
	got := login(t, rt, fincodetest.Email, fincodetest.Password)
	if got.status != 200 {
		t.Fatalf("login: status %d, want 200; body %s", got.status, got.body)
	}
	return got
}

func refreshRequest(ctx context.Context, token string) *http.Request {
	return newRequest(ctx, "PUT", host+"/securitymanagement/refresh-token", `{"refresh_token":"`+token+`"}`)
}

func refresh(t *testing.T, rt http.RoundTripper, token string) reply {
	t.Helper()
	return must(t, rt, refreshRequest(t.Context(), token))
}

func logoutRequest(access, refresh string) *http.Request {
	r := newRequest(context.Background(), "PUT", host+"/securitymanagement/logout", `{"refresh_token":"`+refresh+`"}`)
	r.Header.Set("x-auth-token", access)
	return r
}

func apiRequest(method, path, body, access string) *http.Request {
	r := newRequest(context.Background(), method, host+path, body)
	r.Header.Set("Authorization", "Bearer "+access)
	r.Header.Set("X-Auth-Token", access)
	return r
}

// whoami calls /whoami. The status of its reply is 200 if the access token is valid,
// and otherwise 401.
func whoami(t *testing.T, rt http.RoundTripper, access string) reply {
	t.Helper()
	return must(t, rt, apiRequest("GET", "/whoami", "", access))
}

func wantStatus(t *testing.T, what string, got reply, status int) {
	t.Helper()
	if got.status != status {
		t.Errorf("%s: status %d, want %d; body %.200s", what, got.status, status, got.body)
	}
}

// claims returns the claims of a JWT. Numbers are json.Numbers, which are exact.
func claims(t *testing.T, jwt string) map[string]any {
	t.Helper()
	parts := strings.Split(jwt, ".")
	if len(parts) != 3 {
		t.Fatalf("the token has %d parts, and a JWT has 3", len(parts))
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	decoder := json.NewDecoder(strings.NewReader(string(payload)))
	decoder.UseNumber()
	var c map[string]any
	if err := decoder.Decode(&c); err != nil {
		t.Fatal(err)
	}
	return c
}
