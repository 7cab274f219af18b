// Package client is an http.Client for one account, with golang.org/x/oauth2.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"time"

	"golang.org/x/oauth2"
)

// New returns a client that goes on with the token in the file at path.
func New(ctx context.Context, baseURL, path string) (*http.Client, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	tok := new(oauth2.Token)
	if err := json.Unmarshal(data, tok); err != nil {
		return nil, err
	}
	source := oauth2.ReuseTokenSource(tok, &saving{ctx, baseURL, path, tok.RefreshToken})
	return &http.Client{Transport: &oauth2.Transport{Source: source, Base: fields{http.DefaultTransport}}}, nil
}

// A saving is a TokenSource that refreshes at FinCode and saves the new token.
// ReuseTokenSource calls it when the token has expired, and one call at a time.
type saving struct {
	ctx     context.Context
	baseURL string
	path    string
	refresh string // the refresh token
}

func (s *saving) Token() (*oauth2.Token, error) {
	body, err := json.Marshal(map[string]string{"refresh_token": s.refresh})
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(s.ctx, http.MethodPut, s.baseURL+"/securitymanagement/refresh-token", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	resp, err := (fields{http.DefaultTransport}).RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("refresh: %s", resp.Status)
	}
	tok := new(oauth2.Token)
	if err := json.NewDecoder(resp.Body).Decode(tok); err != nil {
		return nil, err
	}
	tok.Expiry = time.Now().Add(time.Duration(tok.ExpiresIn) * time.Second)
	s.refresh = tok.RefreshToken
	data, err := json.Marshal(tok)
	if err != nil {
		return nil, err
	}
	return tok, os.WriteFile(s.path, data, 0o600)
}

// fields adds the header fields that FinCode wants.
type fields struct{ next http.RoundTripper }

func (f fields) RoundTrip(req *http.Request) (*http.Response, error) {
	req = req.Clone(req.Context())
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("platform", "fincode")
	req.Header.Set("uuid", "200")
	return f.next.RoundTrip(req)
}
