package fincodeauth_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"golang.org/x/oauth2"

	"github.com/fincodeauth/fincodeauth"
)

// FinCode, or a gateway that answers in its place, may send any status, any header
// and any body. These tests work out the meaning of an answer in another way than the
// package does, and compare the two.

func FuzzEndpointAnswer(f *testing.F) {
	for _, body := range answers() {
		for _, status := range []int{200, 401, 403} {
			f.Add(status, "", "", "", []byte(body), false)
		}
	}
	for _, status := range []int{-1, 0, 100, 101, 199, 204, 300, 302, 307, 400, 404, 408, 422, 429, 500, 502, 503, 599, 1000} {
		f.Add(status, "Mon, 02 Jan 2006 15:04:05 GMT", "30", "https://elsewhere.example/", []byte(`{"success":false}`), false)
	}
	for _, after := range []string{"-1", "1e300", "-1e300", "NaN", "Inf", "0x1p10", "1_0", "Fri, 31 Dec 9999 23:59:59 GMT", "soon"} {
		f.Add(503, "Mon, 01 Jan 0001 00:00:00 GMT", after, "", []byte(nil), false)
	}
	for _, location := range []string{"http://[", "%zz", ":", "//", secret, strings.Repeat("%", 5000)} {
		f.Add(302, "", "", location, []byte(nil), false)
	}
	for _, body := range []string{"", " ", "403", `"403`, `{"error":{}}`, `{"access_token":"a","refresh_token":"b"}`} {
		for _, status := range []int{200, 401, 403} {
			f.Add(status, "", "", "", []byte(body), true)
		}
	}
	f.Fuzz(func(t *testing.T, status int, date, retryAfter, location string, body []byte, cut bool) {
		a := answer{status, http.Header{"Date": {date}, "Retry-After": {retryAfter}, "Location": {location}}, body, cut}
		synctest.Test(t, func(t *testing.T) {
			a.checkRefresh(t)
			a.checkLogin(t)
			a.checkLogout(t)
		})
	})
}

// answers returns bodies of every shape that FINCODE.md knows, and of some that
// FINCODE.md does not know.
func answers() []string {
	const jwt = "e30.eyJleHAiOjE3MDAwMDA5MDAsImlhdCI6MTcwMDAwMDAwMH0.s" // {"exp":1700000900,"iat":1700000000}
	quoted, _ := json.Marshal(secret)
	bodies := []string{
		``, ` `, `null`, `[]`, `"refresh token is invalid"`, `{}`, `{`, `403`, "\xff", "\xef\xbb\xbf{}", `{"access_token":"a"} {}`,
		`<html><title>403 Forbidden</title></html>`,
		`{"access_token":"a","refresh_token":"b","expires_in":3600,"token_type":"Bearer"}`,
		`{"accessToken":"a","refreshToken":"b","expiresIn":"3600","tokenType":"bearer"}`,
		`{"success":true,"data":{"access_token":"a","refresh_token":"b","expires_in":3600.5},"metadata":{"request_id":"1","timestamp":"t","processing_time_ms":1}}`,
		`{"access_token":"a"}`, `{"access_token":"a","refresh_token":""}`, `{"access_token":"a","refresh_token":null}`,
		`{"access_token":"a","data":{"accessToken":"b"}}`, `{"access_token":"a","accessToken":"b"}`, `{"access_token":"a","access_token":"b"}`,
		`{"access_token":"a\nb"}`, `{"access_token":"\u00e4"}`, `{"access_token":"\ud800"}`, "{\"access_token\":\"\xff\"}", `{"access_token":7}`,
		`{"access_token":{"access_token":"a"}}`, `{"data":[{"access_token":"a"}]}`, `{"ACCESS_TOKEN":"a"}`,
		`{"access_token":"a","refresh_token":"\u0000\n\ud83d\ude00"}`,
		`{"access_token":"` + jwt + `"}`, `{"access_token":"` + jwt + `","expires_in":"soon"}`,
		`{"success":false}`, `{"success":"false","access_token":"a"}`, `{"success":false,"access_token":"a","error":null}`,
		`{"success":false,"error":"FORBIDDEN"}`, `{"success":false,"code":"FORBIDDEN"}`, `{"error":{"code":" AUTH_REQUIRED\n"},"success":false}`,
		`{"error":{"code":"` + strings.Repeat("a ", 5000) + `","message":"` + strings.Repeat("\u00e4 ", 5000) + `"}}`,
		`{"message":` + string(quoted) + `}`, `{"message":"` + secretAccess + `"}`, `{"error":` + string(quoted) + `}`,
		`{"error":{"code":` + string(quoted) + `,"message":"cannot parse {\"refresh_token\": ` + strings.Trim(strconv.Quote(string(quoted)), `"`) + `}"}}`,
		`{"message":"s3cr3t\nof  \"Ada\" & <sons>"}`,
		`{"message":"{\"currentPassword\":\"s3cr3t of \\\"Ada\\\" & <sons>\"}"}`,
		`{"access_token":` + string(quoted) + `}`,
		strings.Repeat(`{"data":`, 5000) + `1` + strings.Repeat(`}`, 5000), strings.Repeat(`[`, 20000),
		`{"access_token":"a"}` + strings.Repeat(" ", 1<<20), `{"access_token":"` + strings.Repeat("a", 1<<19) + `"}`,
	}
	for _, code := range []string{"AUTH_REQUIRED", "FORBIDDEN", "NOT_FOUND", "VALIDATION_ERROR", "RATE_LIMIT_EXCEEDED", "SERVER_ERROR", "SERVICE_UNAVAILABLE"} {
		bodies = append(bodies, `{"success":false,"error":{"code":"`+code+`","message":"no"}}`)
	}
	for _, n := range []string{"0", "-5", `"-5"`, "1e-300", "0.0004", "1e9", "1e300", "1e999", `"NaN"`, `"Inf"`, `" 60 "`, `"0x10"`, "true", "[]", "99999999999999999999"} {
		bodies = append(bodies, `{"access_token":"a","expires_in":`+n+`}`)
	}
	return bodies
}

// A fixture is Sessions with a FinCode that gives the same answer to every call.
type fixture struct {
	fincode  *sameAnswer
	store    fincodeauth.Store
	sessions *fincodeauth.Sessions
	seen     *events
	secrets  []string // no error and no event may contain these
}

func (f *fixture) adopt(t *testing.T, tok *oauth2.Token) {
	t.Helper()
	if err := f.sessions.Adopt(t.Context(), "a", tok); err != nil {
		t.Fatal(err)
	}
}

// close fails if something is not saved, or if an event contains a secret.
func (f *fixture) close(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := f.sessions.Close(ctx); err != nil {
		t.Error(err)
	}
	for _, ev := range f.seen.all {
		f.wantNoSecret(t, ev.Err)
		f.wantNoSecretIn(t, ev)
	}
}

// A meaning is an answer and what it means.
type meaning struct {
	answer
	verdict     int            // the status that the answer means; 200: a success, 0: unknown
	fromFinCode bool           // the answer comes from FinCode and not from a gateway
	object      map[string]any // the body; nil: it is no JSON object
}

// maxAnswer is how much of an answer is read, in bytes.
const maxAnswer = 1 << 20

// code returns the status that belongs to the error code in the body.
func (m meaning) code() int {
	detail, ok := m.object["error"].(map[string]any)
	if !ok {
		detail = m.object
	}
	code, _ := detail["code"].(string)
	status, ok := map[string]int{"AUTH_REQUIRED": 401, "FORBIDDEN": 403, "NOT_FOUND": 404, "VALIDATION_ERROR": 422,
		"RATE_LIMIT_EXCEEDED": 429}[strings.TrimFunc(code, func(r rune) bool { return r <= ' ' || r == 0x7f })]
	if !ok {
		status = http.StatusInternalServerError
	}
	return status
}

// endsSession reports whether the answer may end a session.
func (m meaning) endsSession() bool {
	return m.fromFinCode && (m.verdict == http.StatusUnauthorized || m.verdict == http.StatusForbidden)
}

// wantPair checks that tok is the pair in the answer. If the answer has no refresh
// token, the refresh token must be old.
func (m meaning) wantPair(t *testing.T, tok *oauth2.Token, old string) {
	t.Helper()
	if m.verdict != http.StatusOK {
		t.Errorf("got a token from an answer that means %d, want an error", m.verdict)
	}
	if tok.AccessToken == "" || strings.ContainsFunc(tok.AccessToken, func(r rune) bool { return r <= ' ' || r > '~' }) {
		t.Errorf("got access token %q, want one that a header can carry", tok.AccessToken)
	}
	from := m.object
	if data, ok := from["data"].(map[string]any); ok && text(data, "access_token", "accessToken") != "" {
		from = data
	}
	if want := text(from, "access_token", "accessToken"); tok.AccessToken != want {
		t.Errorf("got access token %q, want %q", tok.AccessToken, want)
	}
	want := text(from, "refresh_token", "refreshToken")
	if want == "" {
		want = old
	}
	if tok.RefreshToken != want {
		t.Errorf("got refresh token %q, want %q", tok.RefreshToken, want)
	}
	if left := time.Until(tok.Expiry); !tok.Expiry.IsZero() && (left < 0 || left > century) {
		t.Errorf("the token expires in %v, want a time from now to a century", left)
	}
	if n := wholeSeconds(from["expires_in"]); n > 0 && !tok.Expiry.Equal(time.Now().Add(n)) {
		t.Errorf("the token expires at %v, want %v from now", tok.Expiry, n)
	}
}

// text returns the first of the members that is a string and not empty.
func text(object map[string]any, names ...string) string {
	for _, name := range names {
		if s, _ := object[name].(string); s != "" {
			return s
		}
	}
	return ""
}

var wholeNumber = regexp.MustCompile(`^[0-9]{1,9}$`)

// wholeSeconds reads a number that has only one reading. It returns 0 for any other
// value.
func wholeSeconds(value any) time.Duration {
	text := fmt.Sprint(value)
	if !wholeNumber.MatchString(text) {
		return 0
	}
	n, _ := strconv.Atoi(text)
	return time.Duration(n) * time.Second
}

// wantFailure checks an error of the call op that does not end the session: it must
// be justified, and say what was answered.
func (m meaning) wantFailure(t *testing.T, err error, op string) {
	t.Helper()
	if !strings.HasPrefix(err.Error(), "fincodeauth: ") || !strings.Contains(err.Error(), op) {
		t.Errorf("got error %v, want one that names the package and the call", err)
	}
	if m.verdict == http.StatusOK {
		if from := m.object; op != "logout" && from["data"] == nil && isHeaderText(text(from, "access_token")) {
			t.Errorf("got error %v for an answer with a pair, want none", err)
		}
		return
	}
	var ee *fincodeauth.EndpointError
	if !errors.As(err, &ee) {
		if m.verdict != 0 {
			t.Errorf("got error %v, want an EndpointError", err)
		}
		return
	}
	if ee.Op != op || ee.Status != m.status {
		t.Errorf("got %#v, want Op %s and Status %d", ee, op, m.status)
	}
	m.wantWait(t, ee.RetryAfter)
}

// wantWait checks the wait that was read from Retry-After: at most a century, and
// zero if Retry-After is neither a number nor a date.
func (m meaning) wantWait(t *testing.T, wait time.Duration) {
	t.Helper()
	value := m.header.Get("Retry-After")
	n, _ := strconv.ParseFloat(value, 64)
	_, err := http.ParseTime(value)
	if wait < 0 || wait > century || wait > 0 && !(n > 0) && err != nil {
		t.Errorf("Retry-After %q was read as %v, want its number of seconds, its date or 0, and at most a century", value, wait)
	}
	if n := wholeSeconds(value); wait != n && n > 0 {
		t.Errorf("Retry-After %q was read as %v, want its number of seconds, its date or 0, and at most a century", value, wait)
	}
}

var isHeaderText = regexp.MustCompile(`^[!-~]+$`).MatchString

// wantSaved checks that the record in the store has the token that is in use.
func wantSaved(t *testing.T, rec *fincodeauth.Record, tok *oauth2.Token) {
	t.Helper()
	if rec.Ended != "" || !rec.RefreshStarted.IsZero() || rec.Token.AccessToken != tok.AccessToken || rec.Token.RefreshToken != tok.RefreshToken ||
		rec.Token.TokenType != tok.TokenType || rec.Token.ExpiresIn != tok.ExpiresIn || !rec.Token.Expiry.Equal(tok.Expiry) {
		t.Errorf("the store has %v, want the token that is in use", rec)
	}
}

// wantNoSecret checks err and every error that it wraps.
func (f *fixture) wantNoSecret(t *testing.T, err error) {
	t.Helper()
	if err == nil {
		return
	}
	f.wantNoSecretIn(t, err)
	f.wantNoSecret(t, errors.Unwrap(err))
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		for _, err := range many.Unwrap() {
			f.wantNoSecret(t, err)
		}
	}
}

// wantNoSecretIn checks that value can be logged: however it is printed, the text is
// short and has no secret.
func (f *fixture) wantNoSecretIn(t *testing.T, value any) {
	t.Helper()
	for _, verb := range []string{"%v", "%+v", "%#v"} {
		text := fmt.Sprintf(verb, value)
		if n := utf8.RuneCountInString(text); n > 1000 {
			t.Errorf("got a text of %d characters, want at most 1000: %.100s", n, text)
		}
		for _, form := range f.spellings() {
			if strings.Contains(text, form) {
				t.Errorf("the text contains the secret %s, want no secret: %s", form, text)
				return
			}
		}
	}
}

// spellings returns the secrets in every form: as they are, in JSON, quoted with %q,
// and in JSON that was quoted.
func (f *fixture) spellings() []string {
	var forms []string
	for _, secret := range f.secrets {
		html, _ := json.Marshal(secret)
		quoted := strconv.Quote(secret)
		for _, form := range []string{quoted, string(html), strings.ReplaceAll(quoted, `\`, `\\`)} {
			forms = append(forms, strings.Trim(form, `"`))
		}
		forms = append(forms, secret)
	}
	return forms
}

func FuzzJWT(f *testing.F) {
	for _, claims := range []string{
		``, `{}`, `null`, `[]`, `{`, `7`, `{"exp":946688400}`, `{"exp":946688400,"iat":946684800}`, `{"iat":946684800}`,
		`{"roles":["a"],"user-id":"1","iss":"fincode","exp":946688400,"iat":946684800,"tenancy-id":"t","client-id":"c","jti":"j"}`,
		`{"exp":946688400.75,"iat":946684800.25}`, `{"exp":"946688400","iat":946684800}`, `{"exp":946688400,"iat":"now"}`,
		`{"exp":946684800,"iat":946688400}`, `{"exp":946684800,"iat":946684800}`, `{"exp":-1,"iat":-2}`, `{"exp":0,"iat":0}`,
		`{"exp":1e308,"iat":1}`, `{"exp":1e308}`, `{"exp":1e999,"iat":1}`, `{"exp":-1e308,"iat":-1e308}`, `{"exp":1e308,"iat":1e308}`,
		`{"exp":9223372036854775807,"iat":1}`, `{"exp":18446744073709551616,"iat":1}`, `{"exp":253402300800}`, `{"exp":9223372036}`,
		`{"exp":4100284800,"iat":946684800}`, `{"exp":1e-300,"iat":1e-301}`, `{"exp":946684800.0001,"iat":946684800}`,
		`{"exp":null,"iat":null}`, `{"exp":true}`, `{"exp":[946688400]}`, `{"exp":946688400,"exp":946684801}`,
		`{"exp":946688400,"iat":946684800,"EXP":"never"}`, `{"Exp":946688400,"Iat":946684800}`, "{\"exp\":946688400,\"\xff\":1}",
	} {
		for _, date := range []int64{0, 946684800, -62135596800, 32503680000} {
			f.Add([]byte(claims), date)
		}
	}
	f.Fuzz(func(t *testing.T, claims []byte, date int64) {
		synctest.Test(t, func(t *testing.T) {
			jwt := "e30." + base64.RawURLEncoding.EncodeToString(claims) + ".s"
			exp, iat := readClaims(claims)
			if life := exp - iat; life > 0.0004 && life < 0.0006 {
				return // the lifetime rounds to 0 or to 1 ms, and either is right
			}
			checkJWTOfAnswer(t, jwt, exp, iat, date%1e11)
			checkJWTAdopted(t, jwt, exp)
			checkJWTOfALossyStore(t, jwt, exp, iat)
		})
	})
}

// readClaims returns exp and iat. 0 means that the claim is missing or no number.
func readClaims(claims []byte) (exp, iat float64) {
	var object map[string]any
	decoder := json.NewDecoder(bytes.NewReader(claims))
	decoder.UseNumber()
	if !json.Valid(claims) || decoder.Decode(&object) != nil {
		return 0, 0
	}
	number := func(name string) float64 {
		n, _ := object[name].(json.Number)
		if f, err := n.Float64(); err == nil && f > 0 {
			return f
		}
		return 0
	}
	return number("exp"), number("iat")
}

// checkJWTOfAnswer checks the expiry of a token that comes without expires_in. Its
// lifetime is exp - iat. If that is not known, it is exp - Date. If that is not known
// either, the token has no expiry.
func checkJWTOfAnswer(t *testing.T, jwt string, exp, iat float64, date int64) {
	sent := time.Unix(date, 0).UTC().Format(http.TimeFormat)
	f := answer{200, http.Header{"Date": {sent}}, []byte(`{"access_token":"` + jwt + `"}`), false}.fixture(t)
	err := f.sessions.Login(t.Context(), "a", credentials)
	if err != nil {
		t.Fatal(err)
	}
	got := record(t, f.store, "a").Token
	_, err = http.ParseTime(sent)
	life := 0.0
	switch {
	case hasLifetime(exp, iat):
		life = exp - iat
	case exp > 0 && err == nil:
		life = exp - float64(date)
	}
	wantLifetime(t, got.Expiry, life)
}

// hasLifetime reports whether exp is later than iat, when rounded to milliseconds.
func hasLifetime(exp, iat float64) bool { return iat > 0 && exp-iat >= 0.0005 }

// wantLifetime checks that expiry is this many seconds from now, but at most a century.
// If seconds is not positive, expiry must be zero.
func wantLifetime(t *testing.T, expiry time.Time, seconds float64) {
	t.Helper()
	want := min(max(0, seconds), century.Seconds())
	got := 0.0
	if !expiry.IsZero() {
		got = time.Until(expiry).Seconds()
	}
	if math.Abs(got-want) > 0.002 {
		t.Errorf("expiry %v is %f s from now, want %f s from now, where 0 is no expiry", expiry, got, want)
	}
}

// checkJWTAdopted checks the expiry of an adopted token: it is exp, whatever iat is.
// If exp is more than a century away, the token has no expiry.
func checkJWTAdopted(t *testing.T, jwt string, exp float64) {
	f := answer{status: 503}.fixture(t)
	f.adopt(t, &oauth2.Token{AccessToken: jwt, RefreshToken: secret})
	want := exp - float64(time.Now().Unix())
	if want > century.Seconds() {
		exp = 0
	}
	expiry := record(t, f.store, "a").Token.Expiry
	if got := time.Until(expiry).Seconds(); expiry.IsZero() != (exp == 0) || exp != 0 && math.Abs(got-want) > 0.002 {
		t.Errorf("the token expires at %v, want at exp, %f, where 0 is no expiry", expiry, exp)
	}
	tok, err := f.sessions.TokenSource("a").Token()
	switch {
	case len(f.fincode.calls) > 1:
		t.Errorf("got calls %v, want at most one", f.fincode.calls)
	case err == nil && (tok.AccessToken != jwt || exp != 0 && want < 0):
		t.Errorf("got a token that expired at %v or another token, want the adopted one, and only if it is valid", expiry)
	case err != nil && exp == 0:
		t.Errorf("got error %v, want the token, which has no known expiry", err)
	}
	f.wantNoSecret(t, err)
}

// checkJWTOfALossyStore checks the expiry of a token whose store loses the expiry: it
// is read from the JWT.
func checkJWTOfALossyStore(t *testing.T, jwt string, exp, iat float64) {
	f := answer{status: 503}.fixture(t)
	rec := &fincodeauth.Record{Version: "1", Token: &oauth2.Token{AccessToken: jwt, RefreshToken: secret}}
	if err := f.store.Save(t.Context(), "a", rec, ""); err != nil {
		t.Fatal(err)
	}
	left := exp - float64(time.Now().Unix())
	known := hasLifetime(exp, iat) && left <= century.Seconds()
	_, err := f.sessions.TokenSource("a").Token()
	switch {
	case err == nil && known && left < 0:
		t.Errorf("got a token that expired %f s ago, want an error", -left)
	case err != nil && (!known || left > 10 && exp-iat >= left):
		t.Errorf("got error %v, want the token, which is valid", err)
	}
	f.wantNoSecret(t, err)
}

// fixture returns Sessions whose FinCode always gives the answer a.
func (a answer) fixture(t *testing.T) *fixture {
	f := &fixture{fincode: &sameAnswer{answer: a}, store: newJSONStore(), seen: new(events), secrets: []string{secret}}
	f.sessions = newSessions(t, nil, withStore(f.store), f.seen.observe, func(c *fincodeauth.Config) { c.Base = f.fincode })
	t.Cleanup(func() { f.close(t) })
	return f
}

// checkRefresh checks what a refresh with this answer does: it gets the new pair, ends
// the session, or leaves the session as it is.
func (a answer) checkRefresh(t *testing.T) {
	f := a.fixture(t)
	f.adopt(t, &oauth2.Token{RefreshToken: secret})
	tok, err := f.sessions.TokenSource("a").Token()
	m, rec := a.meaning(), record(t, f.store, "a")
	switch {
	case err == nil:
		m.wantPair(t, tok, secret)
		wantSaved(t, rec, tok)
	case errors.Is(err, fincodeauth.ErrLoginRequired):
		if !m.endsSession() {
			t.Errorf("got error %v, want one that does not end the session", err)
		}
		wantSessionError(t, err, m.verdict == http.StatusForbidden, false)
		if rec.Ended == "" || rec.Token.RefreshToken != "" {
			t.Errorf("the store has %v, want an ended session", rec)
		}
	default:
		m.wantFailure(t, err, "refresh-token")
		if m.endsSession() || rec.Ended != "" || rec.Token.RefreshToken != secret {
			t.Errorf("got error %v, and the store has %v; want the session to end: %t", err, rec, m.endsSession())
		}
		if _, again := f.sessions.TokenSource("a").Token(); again == nil {
			t.Error("got a token right after the refresh failed, want an error")
		}
	}
	if !slices.Equal(f.fincode.calls, []string{"refresh-token"}) {
		t.Errorf("got calls %v, want one refresh-token", f.fincode.calls)
	}
	f.wantNoSecret(t, err)
}

// checkLogin checks that the error of a login with this answer says what is wrong with
// the credentials.
func (a answer) checkLogin(t *testing.T) {
	f := a.fixture(t)
	err := f.sessions.Login(t.Context(), "a", fincodeauth.Credentials{Email: "ada@example.com", Password: secret})
	m := a.meaning()
	for target, status := range map[error]int{fincodeauth.ErrBadCredentials: 401, fincodeauth.ErrAccountLocked: 403, fincodeauth.ErrUserNotFound: 404} {
		if errors.Is(err, target) != (m.fromFinCode && m.verdict == status) {
			t.Errorf("got error %v, which is %q: %t; want the opposite", err, target, errors.Is(err, target))
		}
	}
	if err == nil {
		rec := record(t, f.store, "a")
		m.wantPair(t, rec.Token, "")
		wantSaved(t, rec, rec.Token)
	} else {
		m.wantFailure(t, err, "login")
	}
	if !slices.Equal(f.fincode.calls, []string{"login"}) {
		t.Errorf("got calls %v, want one login", f.fincode.calls)
	}
	f.wantNoSecret(t, err)
}

// checkLogout checks that a logout removes the session, whatever FinCode answers.
func (a answer) checkLogout(t *testing.T) {
	f := a.fixture(t)
	f.secrets = append(f.secrets, secretAccess)
	f.adopt(t, &oauth2.Token{AccessToken: secretAccess, RefreshToken: secret})
	err := f.sessions.Logout(t.Context(), "a")
	if m := a.meaning(); (err == nil) != (m.verdict == http.StatusOK) {
		t.Errorf("got error %v for an answer that means %d, want an error unless it means 200", err, m.verdict)
	} else if err != nil {
		m.wantFailure(t, err, "logout")
	}
	wantLoggedOut(t, f.store, "a")
	want := []string{"logout"}
	if a.meaning().endsSession() && a.meaning().verdict == http.StatusUnauthorized {
		want = append(want, "refresh-token") // the refresh token may still be valid
	}
	if !slices.Equal(f.fincode.calls, want) {
		t.Errorf("got calls %v, want %v", f.fincode.calls, want)
	}
	f.wantNoSecret(t, err)
}

// meaning works out what the answer means.
func (a answer) meaning() meaning {
	m := meaning{answer: a, verdict: a.status}
	data := a.body[:min(len(a.body), maxAnswer+1)]
	cut := a.cut || len(a.body) > maxAnswer
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	var value any
	isJSON := json.Valid(data) && decoder.Decode(&value) == nil
	m.object, _ = value.(map[string]any)
	isBlank := len(bytes.TrimSpace(data)) == 0
	m.fromFinCode = isJSON && (m.object != nil || !cut) || isBlank && !cut
	if a.status < 200 || a.status > 299 {
		return m
	}
	m.verdict = http.StatusOK
	switch {
	case cut:
		m.verdict = 0
	case m.object["success"] == false:
		m.verdict = m.code()
	}
	return m
}
