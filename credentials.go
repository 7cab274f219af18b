package fincodeauth

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
)

// Credentials are what Login sends. Their printed form and their JSON form leave the
// password out.
type Credentials struct {
	Email    string // required
	Password string // required, as the user typed it

	// PublicKey is the tenant's, from ParsePublicKey. If it is set, the password
	// is sent encrypted: RSA-OAEP with SHA-256 for both its hash and MGF1, then
	// Base64 (FINCODE.md, Calls). nil: the password is sent as it is, inside TLS.
	PublicKey *rsa.PublicKey
}

// String names the user without the password.
func (c Credentials) String() string { return fmt.Sprintf("Credentials(%s)", c.Email) }

// Format prints what String returns, whatever the verb.
func (c Credentials) Format(f fmt.State, _ rune) { fmt.Fprint(f, c.String()) }

// LogValue is what slog records: what String returns.
func (c Credentials) LogValue() slog.Value { return slog.StringValue(c.String()) }

// MarshalJSON returns what String returns, as a JSON string.
func (c Credentials) MarshalJSON() ([]byte, error) { return json.Marshal(c.String()) }

func (c Credentials) check() error {
	if c.Email == "" || c.Password == "" {
		return errors.New("the credentials lack the email or the password: set both")
	}
	return nil
}

// sent returns what is sent as the password: encrypted, if there is a PublicKey.
func (c Credentials) sent() (string, error) {
	if c.PublicKey == nil {
		return c.Password, nil
	}
	sealed, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, c.PublicKey, []byte(c.Password), nil)
	if err != nil {
		return "", fmt.Errorf("encrypting the password: %w", err)
	}
	return base64.StdEncoding.EncodeToString(sealed), nil
}

// ParsePublicKey reads a tenant's RSA public key as FinCode shows it: the Base64 of
// an X.509 SubjectPublicKeyInfo. White space in it is ignored.
func ParsePublicKey(base64DER string) (*rsa.PublicKey, error) {
	der, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(base64DER), ""))
	if err != nil {
		return nil, fmt.Errorf("fincodeauth: public key is not Base64 (leave out PEM's BEGIN and END lines): %w", err)
	}
	key, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, fmt.Errorf("fincodeauth: public key is not an X.509 SubjectPublicKeyInfo: %w", err)
	}
	rsaKey, ok := key.(*rsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("fincodeauth: public key is a %T, not an RSA key", key)
	}
	return rsaKey, nil
}
