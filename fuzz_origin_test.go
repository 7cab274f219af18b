package fincodeauth_test

import (
	"crypto/x509"
	"encoding/base64"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"github.com/fincodeauth/fincodeauth"
)

// These tests try configurations, URLs of requests and public keys.

func FuzzOrigin(f *testing.F) {
	const api = "https://test.fincode.software/api/v6/services"
	for _, base := range []string{api, api + "/", api + "//", api + "?", api + "#", api + "?a=b", "https://user:pa55@test.fincode.software",
		"https://@test.fincode.software", "HTTPS://Test.Fincode.Software:443", "http://test.fincode.software", "http://localhost:8080",
		"http://127.0.0.1", "http://[::1]:80/a", "http://[::1%25lo]", "https://test.fincode.software.", "https:test.fincode.software",
		"//test.fincode.software", "", "https://", "https://:443", "https://.fincode.software", "https://a:b", "ftp://a", " " + api, "https://a b"} {
		f.Add(base, "", api+"/balance")
		f.Add(base, "", base)
		f.Add(base, "files.example", "https://files.example/")
	}
	for _, host := range []string{"files.example", "files.example:8443", "FILES.example:443", "files.example:", "files.example/", "u@files.example",
		"*.example", "localhost", "127.0.0.1:80", "[::1]", "::1", "https://files.example", "files.example?", "%66iles.example", "a,b", "\u212a.example"} {
		for _, target := range []string{"https://files.example", "https://files.example:8443", "http://files.example", "https://files.example.",
			"http://localhost:99", "http://127.0.0.1", "https://127.0.0.1:80", "http://[::1]:99", "http://[::ffff:127.0.0.1]", "https://evil.files.example",
			"https://u@files.example@evil.example", "https://files.example:8443@evil.example", "//files.example", "https://k.example", "https:files.example"} {
			f.Add(api, host, target)
		}
	}
	f.Fuzz(func(t *testing.T, base, host, target string) {
		checkOrigin(t, base, host, target)
		checkTenant(t, fincodeauth.Sandbox(base), base+".fincode.software")
		checkTenant(t, fincodeauth.Production(base), base+".fincode.tech")
	})
}

// A lastRequest is a FinCode that answers every call with a token, and keeps the last
// request.
type lastRequest struct{ *http.Request }

func (l *lastRequest) RoundTrip(r *http.Request) (*http.Response, error) {
	l.Request = r
	return &http.Response{StatusCode: 200, Body: io.NopCloser(strings.NewReader(`{"access_token":"` + secretAccess + `"}`)), Request: r}, nil
}

// checkOrigin checks that the password is sent only to the origin of base, and the
// token only to the origins of base and host.
func checkOrigin(t *testing.T, base, host, target string) {
	var sent lastRequest
	cfg := fincodeauth.Config{BaseURL: base, Base: &sent}
	if host != "" {
		cfg.Hosts = []string{host}
	}
	sessions, err := fincodeauth.New(cfg)
	if err != nil {
		if sessions != nil || !strings.HasPrefix(err.Error(), "fincodeauth: Config: ") {
			t.Errorf("New returned %v and error %v, want nil and an error about Config", sessions, err)
		}
		return
	}
	logIn(t, sessions, "a")
	root, err := url.Parse(base)
	if err != nil || !isPrivate(root) {
		t.Fatalf("New accepted BaseURL %q, want an error", base)
	}
	if u := sent.URL; !isSameOrigin(u, root) || u.RawQuery != "" || !strings.HasSuffix(u.Path, "/securitymanagement/login") {
		t.Errorf("the password was sent to %s, want the login of BaseURL %q", u, base)
	}
	req, err := http.NewRequest(http.MethodGet, target, nil)
	if err != nil {
		return
	}
	if _, err := sessions.Transport("a").RoundTrip(req); err != nil {
		t.Fatal(err)
	}
	_, bearer := sent.Header["Authorization"]
	_, bare := sent.Header["X-Auth-Token"]
	want := isPrivate(req.URL) && (isSameOrigin(req.URL, root) || host != "" && isHost(req.URL, host))
	if bearer != want || bare != want {
		t.Errorf("BaseURL %q, host %q: a request to %s had Authorization %t and X-Auth-Token %t, want both %t", base, host, target, bearer, bare, want)
	}
}

// isPrivate reports whether u is https, or http to a loopback address.
func isPrivate(u *url.URL) bool {
	if u.Scheme == "https" {
		return true
	}
	addr, err := netip.ParseAddr(u.Hostname())
	isLoopback := err == nil && addr.Zone() == "" && addr.IsLoopback()
	return u.Scheme == "http" && (isLoopback || strings.EqualFold(u.Hostname(), "localhost"))
}

// isSameOrigin reports whether two URLs have the same origin (RFC 6454).
func isSameOrigin(a, b *url.URL) bool {
	return a.Scheme == b.Scheme && hostOf(a) == hostOf(b) && portOf(a) == portOf(b)
}

func hostOf(u *url.URL) string { return strings.ToLower(u.Hostname()) }

// portOf returns the port of u, or the default port of its scheme.
func portOf(u *url.URL) string {
	if port := u.Port(); port != "" {
		return port
	}
	return map[string]string{"https": "443", "http": "80"}[u.Scheme]
}

// isHost reports whether u goes to host by the rules of Config.Hosts. A host without a
// port means the port of https, or any port of a loopback address.
func isHost(u *url.URL, host string) bool {
	h := &url.URL{Scheme: u.Scheme, Host: host}
	if h.Port() == "" && u.Scheme == "http" {
		return hostOf(u) == hostOf(h)
	}
	return isSameOrigin(u, h)
}

// checkTenant checks that the password is sent to FinCode, whatever the tenant's name
// is.
func checkTenant(t *testing.T, base, host string) {
	var sent lastRequest
	sessions, err := fincodeauth.New(fincodeauth.Config{BaseURL: base, Base: &sent})
	if err != nil {
		return
	}
	logIn(t, sessions, "a")
	if u := sent.URL; u.Scheme != "https" || u.Host != host || u.User != nil || u.Path != "/api/v6/services/securitymanagement/login" {
		t.Errorf("the password was sent to %s, want the login of %s, with BaseURL %q", u, host, base)
	}
}

// Public keys: RSA with 2048 bits, RSA with 512 bits, and one that is not RSA.
const (
	rsaKey = "MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAvnolKIM0Hv5RFSxuznpWD8FwrfFyqsg4IzE6WMOzw+OZ5H9u3Q4X7U477/rmscaC821j1c9kgTxc" +
		"Jw82sECYsiVM4kyYeDzO3qdoYselTxGC7YBimWvK1hJpRISPjakA1kXNDofbdAEx2cALSy5Z76Lnpp87HYa+H+8mctc4ZNtdoovfk6pVPtTfBpVYdxBBrReJ" +
		"FxVYOvu0Ny+Lhf/YfdmcHUDZyszZiy03YDGVYMS1pfd/hzN0IZR8urgkEcgBXwIgT2Fuu4nm04oYPhWD0sgB7TkHGDD/fc+M3tWL/MpIMEjmpkmKi8QWnAvr" +
		"AfBfc6CkTuc0CEXnu37Pm7tnBQIDAQAB"
	weakKey = "MFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBAONGYyI6IRD3EyV1ovfTAfC+fwJSFSe4LQX/MdQQR4CkEQw7vFVuTW6pBdPoEsGWXqLl4jSeiG8PmwDkhtAkRzEC" +
		"AwEAAQ=="
	ecKey = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEplAKFsLa3DT59Taww05pzjxazG6jcJkpZQjkV34NFvHLBDW0gYVBRljNRpSfmDjEhuYNARaXUbkSNp6HzP6q" +
		"9g=="
)

func FuzzPublicKey(f *testing.F) {
	for _, key := range []string{rsaKey, weakKey, ecKey} {
		f.Add(key)
		f.Add(key[:len(key)-4])
		f.Add("-----BEGIN PUBLIC KEY-----\n" + key + "\n-----END PUBLIC KEY-----")
		f.Add(" " + key[:40] + "\r\n\t" + key[40:] + "\u00a0")
	}
	f.Add("")
	f.Add("MAA=")
	f.Fuzz(func(t *testing.T, text string) {
		key, err := fincodeauth.ParsePublicKey(text)
		if err != nil {
			if key != nil || !strings.HasPrefix(err.Error(), "fincodeauth: public key is ") || len(err.Error()) > 500 {
				t.Errorf("ParsePublicKey returned %v and error %.600v, want nil and a short error about the public key", key, err)
			}
			return
		}
		der, err := x509.MarshalPKIXPublicKey(key)
		if err != nil {
			t.Fatal(err)
		}
		again, err := fincodeauth.ParsePublicKey(" " + base64.StdEncoding.EncodeToString(der[:3]) + "\n" + base64.StdEncoding.EncodeToString(der[3:]))
		if err != nil || !again.Equal(key) {
			t.Errorf("for the same key with white space: got %v and error %v, want an equal key", again, err)
		}
		checkEncrypted(t, fincodeauth.Credentials{Email: "ada@example.com", Password: secret, PublicKey: key})
	})
}

// checkEncrypted checks that the password is sent encrypted or not at all, whatever the
// public key is.
func checkEncrypted(t *testing.T, c fincodeauth.Credentials) {
	var sent lastRequest
	sessions := newSessions(t, nil, func(c *fincodeauth.Config) { c.Base = &sent })
	err := sessions.Login(t.Context(), "a", c)
	if err != nil {
		wantClearError(t, err, "encrypting the password", secret)
	}
	if (err == nil) != (sent.Request != nil) {
		t.Errorf("got error %v, and a request was sent: %t; want either an error or a request", err, sent.Request != nil)
	}
	if sent.Request == nil {
		return
	}
	body, err := io.ReadAll(sent.Body)
	if err != nil || strings.Contains(string(body), "s3cr3t") || !strings.Contains(string(body), `"currentPassword":"`) {
		t.Errorf("the body of the request is %s (error %v), want an encrypted password", body, err)
	}
}
