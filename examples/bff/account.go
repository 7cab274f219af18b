package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// maxAnswer is how much of FinCode's answer is read, in bytes.
const maxAnswer = 1 << 20

// errRefused: FinCode knows the user, and does not let the user do this.
var errRefused = errors.New("FinCode refused the call")

// An account is what the page shows.
type account struct {
	Fields  []field   `json:"fields"`
	Expires time.Time `json:"expires,omitzero"` // of the access token; zero: unknown
	Left    float64   `json:"secondsLeft"`      // until then, by the server's clock
}

// A field is one line of FinCode's data.
type field struct {
	Label string `json:"label"`
	Value string `json:"value"`
}

// account asks FinCode for the data of the user whom ctx names.
func (s *server) account(ctx context.Context) (account, error) {
	ctx, cancel := context.WithTimeout(ctx, callPatience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(s.opts.baseURL, "/")+s.opts.accountPath, nil)
	if err != nil {
		return account{}, err
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return account{}, err
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusForbidden:
		return account{}, errRefused
	case resp.StatusCode != http.StatusOK:
		// Also a 401, for the reason that newProxy gives.
		return account{}, fmt.Errorf("FinCode answered %s", resp.Status)
	}
	fields, err := parseFields(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return account{}, err
	}
	// The token is the one that the call has used, or a newer one. Only its expiry
	// leaves this function: the token itself is nobody's business.
	tok, err := s.sessions.TokenSource("").TokenContext(ctx)
	if err != nil {
		return account{}, err
	}
	a := account{Fields: fields, Expires: tok.Expiry}
	if !tok.Expiry.IsZero() {
		a.Left = max(0, time.Until(tok.Expiry).Seconds())
	}
	return a, nil
}

// parseFields reads the object under "data" of FinCode's envelope.
func parseFields(r io.Reader) ([]field, error) {
	var envelope struct {
		Data map[string]any `json:"data"`
	}
	decoder := json.NewDecoder(r)
	decoder.UseNumber()
	if err := decoder.Decode(&envelope); err != nil {
		return nil, errors.New("FinCode's answer is not JSON with an object under data")
	}
	var fields []field
	for _, name := range slices.Sorted(maps.Keys(envelope.Data)) {
		fields = append(fields, newField(name, envelope.Data[name]))
	}
	return fields, nil
}

// newField makes a line for people of a name such as "tenancy-id".
func newField(name string, value any) field {
	switch name { // claims of a JWT, RFC 7519
	case "iss":
		name = "issuer"
	case "jti":
		name = "token id"
	case "iat":
		name, value = "issued", date(value)
	case "exp":
		name, value = "expires", date(value)
	}
	label := strings.NewReplacer("-id", " ID", "_id", " ID", " id", " ID", "-", " ", "_", " ").Replace(name)
	return field{Label: strings.ToUpper(label[:min(1, len(label))]) + label[min(1, len(label)):], Value: text(value)}
}

// date turns a NumericDate of RFC 7519 into a text, and leaves anything else alone.
func date(value any) any {
	number, _ := value.(json.Number)
	seconds, err := strconv.ParseFloat(number.String(), 64)
	if err != nil {
		return value
	}
	return time.UnixMilli(int64(seconds * 1000)).UTC().Format("2 Jan 2006, 15:04:05 UTC")
}

func text(value any) string {
	switch value := value.(type) {
	case nil:
		return "–"
	case []any:
		parts := make([]string, len(value))
		for i := range value {
			parts[i] = text(value[i])
		}
		return strings.Join(parts, ", ")
	case map[string]any:
		parts := make([]string, 0, len(value))
		for _, name := range slices.Sorted(maps.Keys(value)) {
			parts = append(parts, name+": "+text(value[name]))
		}
		return strings.Join(parts, ", ")
	}
	return fmt.Sprint(value)
}
