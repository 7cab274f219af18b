package fincodetest_test

import (
	"strings"
	"testing"
	"time"

	"github.com/fincodeauth/fincodeauth/fincodetest"
)

func TestTokenAnswerComesInEveryShape(t *testing.T) {
	for _, test := range []struct {
		name     string
		config   fincodetest.Config
		contains []string
		lacks    []string
	}{
		{"zero", fincodetest.Config{},
			[]string{`{"access_token":"ey`, `"refresh_token":"ey`, `"token_type":"Bearer"`, `"expires_in":3600,`}, []string{"data", "Token"}},
		{"camel case", fincodetest.Config{CamelCase: true},
			[]string{`"accessToken":"ey`, `"refreshToken":"ey`, `"tokenType":"Bearer"`, `"expiresIn":3600,`}, []string{"_"}},
		{"under data", fincodetest.Config{UnderData: true},
			[]string{`{"data":{"access_token":"ey`, `"success":true`, `"metadata":{`}, nil},
		{"camel case under data", fincodetest.Config{UnderData: true, CamelCase: true}, []string{`{"data":{"accessToken":"ey`}, nil},
		{"lifetime as text", fincodetest.Config{ExpiresIn: fincodetest.ExpiresInString}, []string{`"expires_in":"3600"`}, nil},
		{"lifetime with a fraction", fincodetest.Config{ExpiresIn: fincodetest.ExpiresInFraction}, []string{`"expires_in":3600.0,`}, nil},
		{"lifetime not said", fincodetest.Config{ExpiresIn: fincodetest.ExpiresInAbsent}, nil, []string{"expires"}},
		{"short lifetime", fincodetest.Config{AccessLifetime: 250 * time.Millisecond}, []string{`"expires_in":0.25,`}, nil},
		{"short lifetime as text", fincodetest.Config{AccessLifetime: 250 * time.Millisecond, ExpiresIn: fincodetest.ExpiresInString},
			[]string{`"expires_in":"0.25"`}, nil},
		{"opaque", fincodetest.Config{OpaqueTokens: true}, []string{`"access_token":`, `"refresh_token":`}, []string{`"ey`}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := session(t, fincodetest.New(test.config))
			for _, want := range test.contains {
				if !strings.Contains(got.body, want) {
					t.Errorf("the body does not contain %s: %s", want, got.body)
				}
			}
			for _, unwanted := range test.lacks {
				if strings.Contains(withoutJWTs(got.body), unwanted) {
					t.Errorf("the body contains %s: %s", unwanted, got.body)
				}
			}
		})
	}
}

// withoutJWTs shortens each JWT in body to its first two letters, because the rest
// may contain any letters.
func withoutJWTs(body string) string {
	parts := strings.Split(body, `"`)
	for i, part := range parts {
		if strings.HasPrefix(part, "ey") {
			parts[i] = "ey"
		}
	}
	return strings.Join(parts, `"`)
}

func TestOpaqueTokensWork(t *testing.T) {
	fc := fincodetest.New(fincodetest.Config{OpaqueTokens: true})
	s := refresh(t, fc, session(t, fc).refresh())
	wantStatus(t, "whoami", whoami(t, fc, s.access()), 200)
}

func TestFailureComesInEveryShape(t *testing.T) {
	for _, test := range []struct {
		name          string
		config        fincodetest.Config
		refreshStatus int
		apiStatus     int
		emptyRefusals bool
		refreshCode   string
		apiCode       string
	}{
		{"zero", fincodetest.Config{}, 401, 401, false, "AUTH_REQUIRED", "AUTH_REQUIRED"},
		{"as 200", fincodetest.Config{FailuresAs200: true}, 200, 401, false, "AUTH_REQUIRED", "AUTH_REQUIRED"},
		{"empty", fincodetest.Config{EmptyRefusals: true}, 401, 401, true, "", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			fc := fincodetest.New(test.config)
			rejected := refresh(t, fc, "unknown")
			wantStatus(t, "refresh", rejected, test.refreshStatus)
			if rejected.code() != test.refreshCode || (rejected.body == "") != test.emptyRefusals {
				t.Errorf("refresh: body %q, want code %q, want an empty body: %t", rejected.body, test.refreshCode, test.emptyRefusals)
			}
			if !test.emptyRefusals && rejected.json()["success"] != false {
				t.Errorf("refresh: body %s, want success to be false", rejected.body)
			}
			api := whoami(t, fc, "unknown")
			wantStatus(t, "whoami", api, test.apiStatus)
			if api.code() != test.apiCode {
				t.Errorf("whoami: body %q, want code %q", api.body, test.apiCode)
			}
		})
	}
}

func TestReuseIsRefusedWithoutABody(t *testing.T) {
	fc := fincodetest.New(fincodetest.Config{EmptyRefusals: true})
	s := session(t, fc)
	refresh(t, fc, s.refresh())
	if got := refresh(t, fc, s.refresh()); got.status != 403 || got.body != "" {
		t.Errorf("status %d, body %q; want an empty 403", got.status, got.body)
	}
}
