package fincodetest_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/fincodeauth/fincodeauth/fincodetest"
)

// put sends one call. It stands for the client that a test would test.
func put(client *http.Client, url, body string) (status int, refreshToken string) {
	req, err := http.NewRequest(http.MethodPut, url, strings.NewReader(body))
	if err != nil {
		return 0, ""
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("platform", "fincode")
	req.Header.Set("uuid", "200")
	resp, err := client.Do(req)
	if err != nil {
		return 0, ""
	}
	defer resp.Body.Close()
	var token struct {
		RefreshToken string `json:"refresh_token"`
	}
	json.NewDecoder(resp.Body).Decode(&token)
	return resp.StatusCode, token.RefreshToken
}

func logIn(client *http.Client, root string) (status int, refreshToken string) {
	return put(client, root+"/securitymanagement/login",
		fmt.Sprintf(`{"email": %q, "currentPassword": %q}`, fincodetest.Email, fincodetest.Password))
}

func refreshToken(client *http.Client, root, token string) (status int, next string) {
	return put(client, root+"/securitymanagement/refresh-token", fmt.Sprintf(`{"refresh_token": %q}`, token))
}

func ExampleNewServer() {
	srv := fincodetest.NewServer(fincodetest.Config{})
	defer srv.Close()

	_, token := logIn(srv.Client(), srv.URL)
	first, _ := refreshToken(srv.Client(), srv.URL, token)
	second, _ := refreshToken(srv.Client(), srv.URL, token)
	fmt.Println(first, second)
	fmt.Printf("presented %d times, reused %d times\n", srv.Presented(token), srv.Counts().Reuses)
	// Output:
	// 200 403
	// presented 2 times, reused 1 times
}

// In memory, a FinCode needs only a client.
func ExampleNew() {
	fc := fincodetest.New(fincodetest.Config{AccessLifetime: 10 * time.Minute})
	client := &http.Client{Transport: fc}

	status, _ := logIn(client, "https://acme.fincode.tech"+fincodetest.Root)
	fmt.Println(status, fc.Counts().Logins)
	// Output: 200 1
}

// The next refresh rotates the token, and its answer is lost. Presenting the token
// again is a reuse.
func ExampleFinCode_Inject() {
	srv := fincodetest.NewServer(fincodetest.Config{})
	defer srv.Close()
	srv.Inject(fincodetest.Refresh, 1, fincodetest.Fault{Kind: fincodetest.HangUp, TakesEffect: true})

	_, token := logIn(srv.Client(), srv.URL)
	lost, _ := refreshToken(srv.Client(), srv.URL, token)
	again, _ := refreshToken(srv.Client(), srv.URL, token)
	fmt.Println(lost, again)
	// Output: 0 403
}

// A thief has stolen the client's refresh token and presents it first. When the
// client presents the token too, FinCode ends the session for both.
func ExampleFinCode_stolen() {
	fc := fincodetest.New(fincodetest.Config{RevokeFamilyOnReuse: true})
	client := &http.Client{Transport: fc}
	root := "https://acme.fincode.tech" + fincodetest.Root
	_, token := logIn(client, root)

	_, stolen := refreshToken(&http.Client{Transport: fc}, root, token)

	status, _ := refreshToken(client, root, token)
	fmt.Println("the client:", status)
	status, _ = refreshToken(client, root, stolen)
	fmt.Println("the thief:", status)
	// Output:
	// the client: 403
	// the thief: 401
}

// A client may encrypt the password with the public key. With RequireEncryption,
// it must.
func ExampleFinCode_PublicKey() {
	fc := fincodetest.New(fincodetest.Config{RequireEncryption: true})
	status, _ := logIn(&http.Client{Transport: fc}, "https://acme.fincode.tech"+fincodetest.Root)
	fmt.Println("in the clear:", status)
	fmt.Println("a key in Base64:", strings.HasPrefix(fc.PublicKey(), "MII"))
	// Output:
	// in the clear: 401
	// a key in Base64: true
}
