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

// What FinCode, or whoever answers in its place, may say: any status, any header,
// any body. What that means is read here in another way than the package does.

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

// answers are bodies of every shape that FINCODE.md knows, and of some that it
// does not.
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

// A scene is Sessions at a FinCode that gives one answer.
type scene struct {
	fincode  *sameAnswer
	store    fincodeauth.Store
	sessions *fincodeauth.Sessions
	seen     *events
	secrets  []string // what no text may hold
}

func (s *scene) adopt(t *testing.T, tok *oauth2.Token) {
	t.Helper()
	if err := s.sessions.Adopt(t.Context(), "a", tok); err != nil {
		t.Fatal(err)
	}
}

// close fails unless everything was saved, or if an event tells a secret.
func (s *scene) close(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := s.sessions.Close(ctx); err != nil {
		t.Error(err)
	}
	for _, ev := range s.seen.all {
		s.wantNoSecret(t, ev.Err)
		s.wantNoSecretIn(t, ev)
	}
}

// A reading is what an answer means.
type reading struct {
	answer
	verdict  int            // the status that it means; 200: a success, 0: nobody knows
	credible bool           // it is FinCode's, and no gateway's
	object   map[string]any // nil: no JSON object
}

// maxAnswer is how much of an answer is read, in bytes.
const maxAnswer = 1 << 20

// code is the status that goes with the code of a failure.
func (r reading) code() int {
	detail, ok := r.object["error"].(map[string]any)
	if !ok {
		detail = r.object
	}
	code, _ := detail["code"].(string)
	status, ok := map[string]int{"AUTH_REQUIRED": 401, "FORBIDDEN": 403, "NOT_FOUND": 404, "VALIDATION_ERROR": 422,
		"RATE_LIMIT_EXCEEDED": 429}[strings.TrimFunc(code, func(r rune) bool { return r <= ' ' || r == 0x7f })]
	if !ok {
		status = http.StatusInternalServerError
	}
	return status
}

// ends tells whether the answer may end a session.
func (r reading) ends() bool {
	return r.credible && (r.verdict == http.StatusUnauthorized || r.verdict == http.StatusForbidden)
}

// wantPair checks that tok is what the answer says; old is the refresh token
// that stays if there is no other.
func (r reading) wantPair(t *testing.T, tok *oauth2.Token, old string) {
	t.Helper()
	if r.verdict != http.StatusOK {
		t.Errorf("an answer that means %d was taken for a success", r.verdict)
	}
	if tok.AccessToken == "" || strings.ContainsFunc(tok.AccessToken, func(r rune) bool { return r <= ' ' || r > '~' }) {
		t.Errorf("the access token %q fits no header", tok.AccessToken)
	}
	from := r.object
	if data, ok := from["data"].(map[string]any); ok && text(data, "access_token", "accessToken") != "" {
		from = data
	}
	if want := text(from, "access_token", "accessToken"); tok.AccessToken != want {
		t.Errorf("access token %q, want %q", tok.AccessToken, want)
	}
	want := text(from, "refresh_token", "refreshToken")
	if want == "" {
		want = old
	}
	if tok.RefreshToken != want {
		t.Errorf("refresh token %q, want %q", tok.RefreshToken, want)
	}
	if left := time.Until(tok.Expiry); !tok.Expiry.IsZero() && (left < 0 || left > century) {
		t.Errorf("a token lives for another %v", left)
	}
	if n := wholeSeconds(from["expires_in"]); n > 0 && !tok.Expiry.Equal(time.Now().Add(n)) {
		t.Errorf("expiry %v, want %v from now", tok.Expiry, n)
	}
}

// text is the first of the members that is a string with content.
func text(object map[string]any, names ...string) string {
	for _, name := range names {
		if s, _ := object[name].(string); s != "" {
			return s
		}
	}
	return ""
}

var wholeNumber = regexp.MustCompile(`^[0-9]{1,9}$`)

// wholeSeconds reads what nobody can misunderstand; 0: it is something else.
func wholeSeconds(value any) time.Duration {
	text := fmt.Sprint(value)
	if !wholeNumber.MatchString(text) {
		return 0
	}
	n, _ := strconv.Atoi(text)
	return time.Duration(n) * time.Second
}

// wantFailure checks that an error that ends nothing is right, and says what was
// answered.
func (r reading) wantFailure(t *testing.T, err error, op string) {
	t.Helper()
	if !strings.HasPrefix(err.Error(), "fincodeauth: ") || !strings.Contains(err.Error(), op) {
		t.Errorf("error %v, want one that names the package and the call", err)
	}
	if r.verdict == http.StatusOK {
		if from := r.object; op != "logout" && from["data"] == nil && isHeaderText(text(from, "access_token")) {
			t.Errorf("error %v for a pair", err)
		}
		return
	}
	var ee *fincodeauth.EndpointError
	if !errors.As(err, &ee) {
		if r.verdict != 0 {
			t.Errorf("error %v, want an EndpointError", err)
		}
		return
	}
	if ee.Op != op || ee.Status != r.status {
		t.Errorf("%#v, want one of %s and %d", ee, op, r.status)
	}
	r.wantWait(t, ee.RetryAfter)
}

// wantWait checks what was made of Retry-After: at most a century, and nothing if
// it says neither a number nor a date.
func (r reading) wantWait(t *testing.T, wait time.Duration) {
	t.Helper()
	value := r.header.Get("Retry-After")
	n, _ := strconv.ParseFloat(value, 64)
	_, err := http.ParseTime(value)
	if wait < 0 || wait > century || wait > 0 && !(n > 0) && err != nil {
		t.Errorf("Retry-After of %q means %v", value, wait)
	}
	if n := wholeSeconds(value); wait != n && n > 0 {
		t.Errorf("Retry-After of %q means %v", value, wait)
	}
}

var isHeaderText = regexp.MustCompile(`^[!-~]+$`).MatchString

// wantSaved checks that what the store keeps is what is in use.
func wantSaved(t *testing.T, rec *fincodeauth.Record, tok *oauth2.Token) {
	t.Helper()
	if rec.Ended != "" || !rec.RefreshStarted.IsZero() || rec.Token.AccessToken != tok.AccessToken || rec.Token.RefreshToken != tok.RefreshToken ||
		rec.Token.TokenType != tok.TokenType || rec.Token.ExpiresIn != tok.ExpiresIn || !rec.Token.Expiry.Equal(tok.Expiry) {
		t.Errorf("%v was saved, want the token that is in use", rec)
	}
}

// wantNoSecret looks into err and all that it wraps.
func (s *scene) wantNoSecret(t *testing.T, err error) {
	t.Helper()
	if err == nil {
		return
	}
	s.wantNoSecretIn(t, err)
	s.wantNoSecret(t, errors.Unwrap(err))
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		for _, err := range many.Unwrap() {
			s.wantNoSecret(t, err)
		}
	}
}

// wantNoSecretIn checks that value, however it is printed, is fit for a log.
func (s *scene) wantNoSecretIn(t *testing.T, value any) {
	t.Helper()
	for _, verb := range []string{"%v", "%+v", "%#v"} {
		text := fmt.Sprintf(verb, value)
		if n := utf8.RuneCountInString(text); n > 1000 {
			t.Errorf("%d characters: %.100s", n, text)
		}
		for _, form := range s.forms() {
			if strings.Contains(text, form) {
				t.Errorf("%s is in: %s", form, text)
				return
			}
		}
	}
}

// forms are the secrets as they are, and as JSON, %q and both write them.
func (s *scene) forms() []string {
	var forms []string
	for _, secret := range s.secrets {
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
				return // rounding decides
			}
			checkJWTOfAnswer(t, jwt, exp, iat, date%1e11)
			checkJWTAdopted(t, jwt, exp)
			checkJWTOfALossyStore(t, jwt, exp, iat)
		})
	})
}

// readClaims reads exp and iat; 0: absent, or no number.
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

// checkJWTOfAnswer: without expires_in, the token lives for exp - iat, else for
// exp less the Date, else nobody knows for how long.
func checkJWTOfAnswer(t *testing.T, jwt string, exp, iat float64, date int64) {
	sent := time.Unix(date, 0).UTC().Format(http.TimeFormat)
	s := answer{200, http.Header{"Date": {sent}}, []byte(`{"access_token":"` + jwt + `"}`), false}.scene(t)
	err := s.sessions.Login(t.Context(), "a", credentials)
	if err != nil {
		t.Fatal(err)
	}
	got := record(t, s.store, "a").Token
	_, err = http.ParseTime(sent)
	life := 0.0
	switch {
	case hasLife(exp, iat):
		life = exp - iat
	case exp > 0 && err == nil:
		life = exp - float64(date)
	}
	wantLife(t, got.Expiry, life)
}

// hasLife tells whether exp and iat make sense, to the millisecond.
func hasLife(exp, iat float64) bool { return iat > 0 && exp-iat >= 0.0005 }

// wantLife checks that expiry is seconds from now, a century at most, and zero if
// they are none.
func wantLife(t *testing.T, expiry time.Time, seconds float64) {
	t.Helper()
	want := min(max(0, seconds), century.Seconds())
	got := 0.0
	if !expiry.IsZero() {
		got = time.Until(expiry).Seconds()
	}
	if math.Abs(got-want) > 0.002 {
		t.Errorf("expiry %v is %f s from now, want %f s", expiry, got, want)
	}
}

// checkJWTAdopted: the token expires at exp, whatever its iat; what is more than a
// century away is unknown.
func checkJWTAdopted(t *testing.T, jwt string, exp float64) {
	s := answer{status: 503}.scene(t)
	s.adopt(t, &oauth2.Token{AccessToken: jwt, RefreshToken: secret})
	want := exp - float64(time.Now().Unix())
	if want > century.Seconds() {
		exp = 0
	}
	expiry := record(t, s.store, "a").Token.Expiry
	if got := time.Until(expiry).Seconds(); expiry.IsZero() != (exp == 0) || exp != 0 && math.Abs(got-want) > 0.002 {
		t.Errorf("expiry %v, want that of exp, %f", expiry, exp)
	}
	tok, err := s.sessions.TokenSource("a").Token()
	switch {
	case len(s.fincode.calls) > 1:
		t.Errorf("calls %v, want at most one", s.fincode.calls)
	case err == nil && (tok.AccessToken != jwt || exp != 0 && want < 0):
		t.Errorf("the token that is handed out expired at %v", expiry)
	case err != nil && exp == 0:
		t.Errorf("a token of unknown expiry was not handed out: %v", err)
	}
	s.wantNoSecret(t, err)
}

// checkJWTOfALossyStore: a store that loses the expiry leaves that of the JWT.
func checkJWTOfALossyStore(t *testing.T, jwt string, exp, iat float64) {
	s := answer{status: 503}.scene(t)
	rec := &fincodeauth.Record{Version: "1", Token: &oauth2.Token{AccessToken: jwt, RefreshToken: secret}}
	if err := s.store.Save(t.Context(), "a", rec, ""); err != nil {
		t.Fatal(err)
	}
	left := exp - float64(time.Now().Unix())
	known := hasLife(exp, iat) && left <= century.Seconds()
	_, err := s.sessions.TokenSource("a").Token()
	switch {
	case err == nil && known && left < 0:
		t.Errorf("a token was handed out that expired %f s ago", -left)
	case err != nil && (!known || left > 10 && exp-iat >= left):
		t.Errorf("a good token was not handed out: %v", err)
	}
	s.wantNoSecret(t, err)
}

func (a answer) scene(t *testing.T) *scene {
	s := &scene{fincode: &sameAnswer{answer: a}, store: newJSONStore(), seen: new(events), secrets: []string{secret}}
	s.sessions = newSessions(t, nil, withStore(s.store), s.seen.observe, func(c *fincodeauth.Config) { c.Base = s.fincode })
	t.Cleanup(func() { s.close(t) })
	return s
}

// checkRefresh: a refresh goes on, ends the session or leaves it as it is.
func (a answer) checkRefresh(t *testing.T) {
	s := a.scene(t)
	s.adopt(t, &oauth2.Token{RefreshToken: secret})
	tok, err := s.sessions.TokenSource("a").Token()
	said, rec := a.read(), record(t, s.store, "a")
	switch {
	case err == nil:
		said.wantPair(t, tok, secret)
		wantSaved(t, rec, tok)
	case errors.Is(err, fincodeauth.ErrLoginRequired):
		if !said.ends() {
			t.Errorf("a session ended: %v", err)
		}
		wantSessionError(t, err, said.verdict == http.StatusForbidden, false)
		if rec.Ended == "" || rec.Token.RefreshToken != "" {
			t.Errorf("%v, want one that ended", rec)
		}
	default:
		said.wantFailure(t, err, "refresh-token")
		if said.ends() || rec.Ended != "" || rec.Token.RefreshToken != secret {
			t.Errorf("error %v, %v; want it to end: %t", err, rec, said.ends())
		}
		if _, again := s.sessions.TokenSource("a").Token(); again == nil {
			t.Error("a failed refresh succeeded at once")
		}
	}
	if !slices.Equal(s.fincode.calls, []string{"refresh-token"}) {
		t.Errorf("calls %v, want one refresh-token", s.fincode.calls)
	}
	s.wantNoSecret(t, err)
}

// checkLogin: a login's error tells what to ask the user.
func (a answer) checkLogin(t *testing.T) {
	s := a.scene(t)
	err := s.sessions.Login(t.Context(), "a", fincodeauth.Credentials{Email: "ada@example.com", Password: secret})
	said := a.read()
	for target, status := range map[error]int{fincodeauth.ErrBadCredentials: 401, fincodeauth.ErrAccountLocked: 403, fincodeauth.ErrUserNotFound: 404} {
		if errors.Is(err, target) != (said.credible && said.verdict == status) {
			t.Errorf("%v is %q: %t", err, target, errors.Is(err, target))
		}
	}
	if err == nil {
		rec := record(t, s.store, "a")
		said.wantPair(t, rec.Token, "")
		wantSaved(t, rec, rec.Token)
	} else {
		said.wantFailure(t, err, "login")
	}
	if !slices.Equal(s.fincode.calls, []string{"login"}) {
		t.Errorf("calls %v, want one login", s.fincode.calls)
	}
	s.wantNoSecret(t, err)
}

// checkLogout: whatever FinCode says, the session is gone.
func (a answer) checkLogout(t *testing.T) {
	s := a.scene(t)
	s.secrets = append(s.secrets, secretAccess)
	s.adopt(t, &oauth2.Token{AccessToken: secretAccess, RefreshToken: secret})
	err := s.sessions.Logout(t.Context(), "a")
	if said := a.read(); (err == nil) != (said.verdict == http.StatusOK) {
		t.Errorf("error %v of an answer that means %d", err, said.verdict)
	} else if err != nil {
		said.wantFailure(t, err, "logout")
	}
	if _, err := s.store.Load(t.Context(), "a"); !errors.Is(err, fincodeauth.ErrNotFound) {
		t.Errorf("error %v, want ErrNotFound", err)
	}
	want := []string{"logout"}
	if a.read().ends() && a.read().verdict == http.StatusUnauthorized {
		want = append(want, "refresh-token") // the access token may be the only one that is refused
	}
	if !slices.Equal(s.fincode.calls, want) {
		t.Errorf("calls %v, want %v", s.fincode.calls, want)
	}
	s.wantNoSecret(t, err)
}

func (a answer) read() reading {
	r := reading{answer: a, verdict: a.status}
	data := a.body[:min(len(a.body), maxAnswer+1)]
	cut := a.cut || len(a.body) > maxAnswer
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	var value any
	isJSON := json.Valid(data) && decoder.Decode(&value) == nil
	r.object, _ = value.(map[string]any)
	isBlank := len(bytes.TrimSpace(data)) == 0
	r.credible = isJSON && (r.object != nil || !cut) || isBlank && !cut
	if a.status < 200 || a.status > 299 {
		return r
	}
	r.verdict = http.StatusOK
	switch {
	case cut:
		r.verdict = 0
	case r.object["success"] == false:
		r.verdict = r.code()
	}
	return r
}
