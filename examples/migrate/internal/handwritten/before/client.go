// Package client sends requests to FinCode for one account. It refreshes by hand.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"sync"
)

// A Client sends requests with the account's token.
type Client struct {
	baseURL string
	path    string // of the file that keeps the tokens

	mu     sync.Mutex // held while a refresh is under way
	tokens tokens
}

type tokens struct {
	AccessToken  string `json:"access_token"`
	RefreshToken string `json:"refresh_token"`
}

// Open returns a client that goes on with the tokens in the file at path.
func Open(baseURL, path string) (*Client, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	c := &Client{baseURL: baseURL, path: path}
	return c, json.Unmarshal(data, &c.tokens)
}

// Get sends a GET request to a path of the API, such as "/balance".
func (c *Client) Get(ctx context.Context, path string) (*http.Response, error) {
	access := c.access()
	resp, err := c.send(ctx, http.MethodGet, path, access, nil)
	if err != nil || resp.StatusCode != http.StatusUnauthorized {
		return resp, err
	}
	resp.Body.Close()
	if access, err = c.refresh(ctx, access); err != nil {
		return nil, err
	}
	return c.send(ctx, http.MethodGet, path, access, nil)
}

func (c *Client) access() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.tokens.AccessToken
}

// refresh returns an access token to use instead of rejected.
func (c *Client) refresh(ctx context.Context, rejected string) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.tokens.AccessToken != rejected {
		return c.tokens.AccessToken, nil // another goroutine has refreshed
	}
	body, err := json.Marshal(map[string]string{"refresh_token": c.tokens.RefreshToken})
	if err != nil {
		return "", err
	}
	resp, err := c.send(ctx, http.MethodPut, "/securitymanagement/refresh-token", "", body)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("refresh: %s", resp.Status)
	}
	var next tokens
	if err := json.NewDecoder(resp.Body).Decode(&next); err != nil {
		return "", err
	}
	c.tokens = next
	data, err := json.Marshal(next)
	if err != nil {
		return "", err
	}
	return next.AccessToken, os.WriteFile(c.path, data, 0o600)
}

func (c *Client) send(ctx context.Context, method, path, access string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.baseURL+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("platform", "fincode")
	req.Header.Set("uuid", "200")
	if access != "" {
		req.Header.Set("Authorization", "Bearer "+access)
		req.Header.Set("X-Auth-Token", access)
	}
	return http.DefaultClient.Do(req)
}
