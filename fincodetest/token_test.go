package fincodetest_test

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fincodeauth/fincodeauth/fincodetest"
)

func publicKey(t *testing.T, fc *fincodetest.FinCode) *rsa.PublicKey {
	t.Helper()
	der, err := base64.StdEncoding.DecodeString(fc.PublicKey())
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		t.Fatal(err)
	}
	return key.(*rsa.PublicKey)
}

func TestTokensAreSignedJWTsWithFinCodesClaims(t *testing.T) {
	fc := fincodetest.New(fincodetest.Config{})
	s := session(t, fc)
	for name, token := range map[string]string{"access": s.access(), "refresh": s.refresh()} {
		parts := strings.Split(token, ".")
		signature, err := base64.RawURLEncoding.DecodeString(parts[2])
		if err != nil {
			t.Fatal(err)
		}
		digest := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
		if err := rsa.VerifyPKCS1v15(publicKey(t, fc), crypto.SHA256, digest[:], signature); err != nil {
			t.Errorf("%s token: %v", name, err)
		}
	}
	got := claims(t, s.access())
	for _, claim := range []string{"roles", "user-id", "iss", "exp", "iat", "tenancy-id", "client-id", "jti"} {
		if got[claim] == nil {
			t.Errorf("the claim %s is missing in %v", claim, got)
		}
	}
	if _, ok := claims(t, s.refresh())["exp"]; ok {
		t.Error("the refresh token has an exp, although it never expires")
	}
}

func TestWhoamiAnswersTheClaims(t *testing.T) {
	fc := fincodetest.New(fincodetest.Config{})
	s := session(t, fc)
	data := whoami(t, fc, s.access()).json()["data"].(map[string]any)
	if got, want := data["jti"], claims(t, s.access())["jti"]; got != want {
		t.Errorf("jti %v, want %v", got, want)
	}
}

func TestLifetimeIsExpMinusIat(t *testing.T) {
	for _, test := range []struct {
		config, want time.Duration
		fractional   bool
	}{
		{0, time.Hour, false},
		{100 * time.Millisecond, 100 * time.Millisecond, true},
		{1500 * time.Millisecond, 1500 * time.Millisecond, true},
		{2 * time.Second, 2 * time.Second, false},
	} {
		t.Run(test.want.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				time.Sleep(123 * time.Millisecond) // without this, every time would be in whole seconds
				got := claims(t, session(t, fincodetest.New(fincodetest.Config{AccessLifetime: test.config})).access())
				exp, iat := numericDate(t, got["exp"]), numericDate(t, got["iat"])
				lifetime := new(big.Rat).Sub(exp, iat)
				if want := big.NewRat(int64(test.want), int64(time.Second)); lifetime.Cmp(want) != 0 {
					t.Errorf("exp - iat = %s s, want %s", lifetime.FloatString(6), test.want)
				}
				if !iat.IsInt() != test.fractional {
					t.Errorf("iat = %s, want it fractional: %t", iat.FloatString(6), test.fractional)
				}
			})
		})
	}
}

func numericDate(t *testing.T, claim any) *big.Rat {
	t.Helper()
	date, ok := new(big.Rat).SetString(string(claim.(json.Number)))
	if !ok {
		t.Fatalf("%v is not a number", claim)
	}
	return date
}

func TestAccessTokenExpiresToTheMillisecond(t *testing.T) {
	for _, offset := range []time.Duration{0, 3 * time.Hour, -3 * time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			fc := fincodetest.New(fincodetest.Config{AccessLifetime: 100 * time.Millisecond, ClockOffset: offset})
			s := session(t, fc)
			time.Sleep(99 * time.Millisecond)
			wantStatus(t, "after 99 ms", whoami(t, fc, s.access()), 200)
			time.Sleep(time.Millisecond)
			wantStatus(t, "after 100 ms", whoami(t, fc, s.access()), 401)
			wantStatus(t, "refreshed", whoami(t, fc, refresh(t, fc, s.refresh()).access()), 200)
		})
	}
}

func TestRefreshTokenExpiresUnused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{RefreshLifetime: 24 * time.Hour})
		s := session(t, fc)
		c := claims(t, s.refresh())
		if life := new(big.Rat).Sub(numericDate(t, c["exp"]), numericDate(t, c["iat"])); life.Cmp(big.NewRat(86400, 1)) != 0 {
			t.Errorf("exp - iat = %s, want 86400", life)
		}
		time.Sleep(24*time.Hour - 1)
		next := refresh(t, fc, s.refresh())
		wantStatus(t, "just before", next, 200)
		time.Sleep(24 * time.Hour)
		wantStatus(t, "a day after the rotation", refresh(t, fc, next.refresh()), 401)
	})
}

func TestClaimsAndDateAreByFinCodesClock(t *testing.T) {
	for _, offset := range []time.Duration{0, 5 * time.Hour, -5 * time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			s := session(t, fincodetest.New(fincodetest.Config{ClockOffset: offset}))
			want := time.Now().Add(offset)
			if date, err := http.ParseTime(s.header.Get("Date")); err != nil || !date.Equal(want) {
				t.Errorf("Date %v (%v), want %v", date, err, want)
			}
			if iat := claims(t, s.access())["iat"]; fmt.Sprint(iat) != fmt.Sprint(want.Unix()) {
				t.Errorf("iat %v, want %d", iat, want.Unix())
			}
		})
	}
}

func TestPasswordMayBeEncrypted(t *testing.T) {
	for _, test := range []struct {
		name   string
		config fincodetest.Config
		mgf1   crypto.Hash // 0: in the clear
		status int
	}{
		{"in the clear", fincodetest.Config{}, 0, 200},
		{"encrypted", fincodetest.Config{}, crypto.SHA256, 200},
		{"with the wrong MGF1", fincodetest.Config{}, crypto.SHA1, 401},
		{"with MGF1 SHA-1", fincodetest.Config{MGF1SHA1: true}, crypto.SHA1, 200},
		{"with MGF1 SHA-256 instead of SHA-1", fincodetest.Config{MGF1SHA1: true}, crypto.SHA256, 401},
		{"required, in the clear", fincodetest.Config{RequireEncryption: true}, 0, 401},
		{"required, encrypted", fincodetest.Config{RequireEncryption: true}, crypto.SHA256, 200},
	} {
		t.Run(test.name, func(t *testing.T) {
			fc := fincodetest.New(test.config)
			password := fincodetest.Password
			if test.mgf1 != 0 {
				options := &rsa.OAEPOptions{Hash: crypto.SHA256, MGFHash: test.mgf1}
				ciphertext, err := rsa.EncryptOAEPWithOptions(rand.Reader, publicKey(t, fc), []byte(password), options)
				if err != nil {
					t.Fatal(err)
				}
				password = base64.StdEncoding.EncodeToString(ciphertext)
			}
			wantStatus(t, "login", login(t, fc, fincodetest.Email, password), test.status)
		})
	}
}

func TestPrintingShowsNoSecret(t *testing.T) {
	srv := fincodetest.NewServer(fincodetest.Config{OpaqueTokens: true})
	defer srv.Close()
	s := session(t, srv)
	refresh(t, srv, s.refresh())
	refresh(t, srv, s.refresh())
	for _, v := range []any{srv, srv.FinCode, srv.PresentedMoreThanOnce(), srv.Counts()} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%d", "%q"} {
			printed := fmt.Sprintf(verb, v)
			for _, secret := range []string{fincodetest.Password, s.access(), s.refresh()} {
				if strings.Contains(printed, secret) {
					t.Errorf("%T with %s prints a secret", v, verb)
				}
			}
		}
	}
}
