package fincodetest

import (
	"crypto"
	"crypto/rsa"
	_ "crypto/sha1" // for crypto.SHA1
	"crypto/x509"
	"encoding/base64"
	"fmt"
)

// A user may log in. FinCode.mu guards failed. The other fields do not change.
type user struct {
	id       string
	password string
	failed   int // failed logins in a row
}

// AddUser adds a user, who may then log in any number of times. Each login begins a
// session of its own. If there is a user with this email, the new one replaces it,
// and the account is no longer locked.
func (f *FinCode) AddUser(email, password string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.users[email] = &user{id: fmt.Sprintf("user-%d", len(f.users)+1), password: password}
}

// PublicKey returns the RSA key to encrypt passwords with: the DER form of an X.509
// SubjectPublicKeyInfo, in Base64. The same key verifies the JWTs. All FinCodes in
// one process have the same key.
func (f *FinCode) PublicKey() string {
	der, err := x509.MarshalPKIXPublicKey(&signingKey().PublicKey)
	if err != nil {
		panic("fincodetest: " + err.Error()) // not possible with an RSA key
	}
	return base64.StdEncoding.EncodeToString(der)
}

// accepts reports whether sent is the password: encrypted, or in the clear if the
// Config allows that.
func (f *FinCode) accepts(sent, password string) bool {
	if sent == password {
		return !f.cfg.RequireEncryption
	}
	ciphertext, err := base64.StdEncoding.DecodeString(sent)
	if err != nil {
		return false
	}
	options := &rsa.OAEPOptions{Hash: crypto.SHA256, MGFHash: crypto.SHA256}
	if f.cfg.MGF1SHA1 {
		options.MGFHash = crypto.SHA1
	}
	plain, err := signingKey().Decrypt(nil, ciphertext, options)
	return err == nil && string(plain) == password
}
