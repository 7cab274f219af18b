package fincodetest

import (
	"encoding/json"
	"mime"
	"net/http"
	"slices"
	"strings"
)

// fields are the fields in the bodies of login, refresh and logout calls.
type fields struct {
	Email           string `json:"email"`
	CurrentPassword string `json:"currentPassword"`
	RefreshToken    string `json:"refresh_token"`
}

func newCall(path string, r *http.Request, body []byte) *call {
	c := &call{op: API, path: path, request: r, body: body}
	switch path {
	case "/securitymanagement/login":
		c.op = Login
	case "/securitymanagement/refresh-token":
		c.op = Refresh
	case "/securitymanagement/logout":
		c.op = Logout
	}
	if c.op != API {
		c.malformed = json.Unmarshal(body, &c.fields) != nil
	}
	return c
}

// perform does what the call asks for. It returns the answer in the shape that the
// Config asks for.
func (f *FinCode) perform(c *call) answer {
	a := f.dispatch(c)
	switch {
	case a.status < 400:
	case f.cfg.FailuresAs200 && c.op != API:
		a.status = http.StatusOK
	case f.cfg.EmptyRefusals && (a.status == http.StatusUnauthorized || a.status == http.StatusForbidden):
		a.body = nil
		a.header.Del("Content-Type")
	}
	return a
}

// dispatch checks the call and does what it asks for.
func (f *FinCode) dispatch(c *call) answer {
	if c.op != API && c.request.Method != http.MethodPut {
		a := failure(http.StatusMethodNotAllowed, "use PUT")
		a.header.Set("Allow", http.MethodPut)
		return a
	}
	if missing := missingHeader(c.request.Header); missing != "" {
		return failure(http.StatusBadRequest, "a header is missing or wrong: "+missing)
	}
	if c.malformed {
		return failure(http.StatusBadRequest, "the body is not a JSON object of strings")
	}
	switch c.op {
	case Login:
		return f.login(c)
	case Refresh:
		return f.rotate(c)
	case Logout:
		return f.logout(c)
	}
	return f.api(c)
}

// missingHeader returns the first header that every call needs and that h does not
// have, or "".
func missingHeader(h http.Header) string {
	if mediaType, _, _ := mime.ParseMediaType(h.Get("Content-Type")); mediaType != "application/json" {
		return "Content-Type: application/json"
	}
	for _, name := range []string{"platform", "uuid"} {
		if h.Get(name) == "" {
			return name
		}
	}
	return ""
}

func (f *FinCode) login(c *call) answer {
	if c.fields.Email == "" || c.fields.CurrentPassword == "" {
		return failure(http.StatusUnprocessableEntity, "email and currentPassword are required")
	}
	fam, refused := f.newFamily(c.fields.Email, c.fields.CurrentPassword)
	if fam == nil {
		return refused
	}
	return f.tokenAnswer(f.issueAccess(fam), f.issueRefresh(fam))
}

// newFamily begins a session. If it does not, it returns nil and the answer that
// says why.
func (f *FinCode) newFamily(email, password string) (*family, answer) {
	f.mu.Lock()
	defer f.mu.Unlock()
	u := f.users[email]
	switch {
	case u == nil:
		return nil, failure(http.StatusNotFound, "no such user")
	case u.failed >= f.cfg.MaxFailedLogins:
		return nil, failure(http.StatusForbidden, "the account is locked: too many failed logins")
	case !f.accepts(password, u.password):
		u.failed++
		return nil, failure(http.StatusUnauthorized, "wrong email or password")
	}
	u.failed = 0
	f.counts.Logins++
	return &family{id: f.counts.Logins, user: u}, answer{}
}

func (f *FinCode) rotate(c *call) answer {
	if c.fields.RefreshToken == "" {
		return failure(http.StatusUnprocessableEntity, "refresh_token is required")
	}
	fam, refused := f.useRefreshToken(c.fields.RefreshToken)
	if fam == nil {
		return refused
	}
	access := f.issueAccess(fam)
	if f.cfg.KeepRefreshToken {
		return f.tokenAnswer(access, "")
	}
	return f.tokenAnswer(access, f.issueRefresh(fam))
}

// useRefreshToken uses up the token and returns its family. If it does not, it
// returns nil and the answer that says why. Of several calls with one token, only
// one gets the family, because mu is held from the check to the change.
func (f *FinCode) useRefreshToken(raw string) (*family, answer) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := f.refresh[raw]
	switch {
	case t != nil && t.used:
		f.counts.Reuses++
		t.reuses++
		t.family.revoked = t.family.revoked || f.cfg.RevokeFamilyOnReuse
		return nil, failure(http.StatusForbidden, "the refresh token was already used")
	case t == nil, t.family.revoked, t.expired(f.now()):
		f.counts.Rejected++
		return nil, failure(http.StatusUnauthorized, "the refresh token is invalid: log in again")
	}
	t.used = !f.cfg.KeepRefreshToken
	f.counts.Refreshes++
	return t.family, answer{}
}

func (f *FinCode) logout(c *call) answer {
	if c.fields.RefreshToken == "" {
		return failure(http.StatusUnprocessableEntity, "refresh_token is required")
	}
	access := f.authorize(c.request.Header)
	if access == nil || c.request.Header.Get("X-Auth-Token") == "" {
		return failure(http.StatusUnauthorized, "x-auth-token must be a valid access token")
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	t := f.refresh[c.fields.RefreshToken]
	if t == nil || t.family != access.family {
		return failure(http.StatusUnauthorized, "the refresh token is not of this session")
	}
	t.family.revoked = true
	f.counts.Logouts++
	return jsonAnswer(http.StatusOK, map[string]any{"message": "logged out"})
}

func (f *FinCode) api(c *call) answer {
	access := f.authorize(c.request.Header)
	if access == nil {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.counts.APIRejected++
		return failure(http.StatusUnauthorized, "the access token is missing, invalid, expired or revoked")
	}
	if c.path == "/whoami" {
		return success(access.claims)
	}
	return success(map[string]any{
		"method":  c.request.Method,
		"path":    c.path,
		"query":   c.request.URL.Query(),
		"headers": c.request.Header,
		"body":    string(c.body),
	})
}

// authorize returns the access token of the headers if it is valid, or nil. If the
// headers have more than one token, all must be the same.
func (f *FinCode) authorize(h http.Header) *token {
	tokens := slices.Clone(h.Values("X-Auth-Token"))
	for _, value := range h.Values("Authorization") {
		scheme, token, _ := strings.Cut(value, " ")
		if !strings.EqualFold(scheme, "Bearer") {
			return nil
		}
		tokens = append(tokens, token)
	}
	tokens = slices.Compact(tokens)
	if len(tokens) != 1 {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	t := f.access[tokens[0]]
	if t == nil || t.revoked || t.family.revoked || t.expired(f.now()) {
		return nil
	}
	return t
}
