package fincodeauth_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/oauth2"

	"github.com/jarcoal/httpmock"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/filestore"
	"github.com/fincodeauth/fincodeauth/fincodetest"
)

func TestNewSaysWhatToChange(t *testing.T) {
	ok := fincodeauth.Sandbox("test")
	local := fincodeauth.LocalStore(nil, func(context.Context, string, *oauth2.Token) error { return nil })
	for name, test := range map[string]struct {
		cfg  fincodeauth.Config
		want string
	}{
		"no BaseURL":                {fincodeauth.Config{}, `Sandbox("your-tenant")`},
		"a BaseURL that is no URL":  {fincodeauth.Config{BaseURL: "https://a:b"}, "does not parse"},
		"a password in no URL":      {fincodeauth.Config{BaseURL: "https://u:hunter2@a:b"}, "does not parse"},
		"white space":               {fincodeauth.Config{BaseURL: " https://acme.fincode.tech"}, `" https://acme.fincode.tech" has white space`},
		"a line break at the end":   {fincodeauth.Config{BaseURL: ok + "\n"}, `services\n" has white space`},
		"a password with a space":   {fincodeauth.Config{BaseURL: "https://u:hunter 2@acme.fincode.tech"}, "has white space"},
		"the sandbox's domain":      {fincodeauth.Config{BaseURL: fincodeauth.Sandbox("acme.fincode.software")}, `the name alone, "acme"`},
		"production's domain":       {fincodeauth.Config{BaseURL: fincodeauth.Production("Acme.fincode.tech")}, `the name alone, "acme"`},
		"the domain alone":          {fincodeauth.Config{BaseURL: fincodeauth.Sandbox("fincode.software")}, `the name alone, "your-tenant"`},
		"the domain and a dot":      {fincodeauth.Config{BaseURL: fincodeauth.Sandbox("acme.fincode.software.")}, `the name alone, "acme"`},
		"a password with a slash":   {fincodeauth.Config{BaseURL: "https://user:hunter2/x@acme.fincode.tech"}, "does not parse"},
		"a user without a scheme":   {fincodeauth.Config{BaseURL: "user:hunter2@acme.fincode.tech"}, "https://"},
		"a user alone":              {fincodeauth.Config{BaseURL: "https://hunter2@acme.fincode.tech"}, "leave only"},
		"a secret in a query":       {fincodeauth.Config{BaseURL: ok + "?key=hunter2"}, "leave only"},
		"the other domain":          {fincodeauth.Config{BaseURL: fincodeauth.Production("acme.fincode.software")}, `the name alone, "acme"`},
		"a URL for a tenant":        {fincodeauth.Config{BaseURL: fincodeauth.Sandbox("https://acme.fincode.software")}, `Sandbox("your-tenant")`},
		"no scheme":                 {fincodeauth.Config{BaseURL: "acme.fincode.tech/api"}, "https://"},
		"http":                      {fincodeauth.Config{BaseURL: "http://acme.fincode.tech"}, "loopback"},
		"http to a lookalike":       {fincodeauth.Config{BaseURL: "http://127.0.0.1.evil.example"}, "loopback"},
		"another scheme":            {fincodeauth.Config{BaseURL: "ftp://acme.fincode.tech"}, "https"},
		"a user in the BaseURL":     {fincodeauth.Config{BaseURL: "https://u:hunter2@acme.fincode.tech"}, "leave only"},
		"a query":                   {fincodeauth.Config{BaseURL: ok + "?a=b"}, "leave only"},
		"an empty query":            {fincodeauth.Config{BaseURL: ok + "?"}, "leave only"},
		"an empty fragment":         {fincodeauth.Config{BaseURL: ok + "#"}, "leave only"},
		"no tenant":                 {fincodeauth.Config{BaseURL: fincodeauth.Sandbox("")}, "no host"},
		"a tenant with a slash":     {fincodeauth.Config{BaseURL: fincodeauth.Sandbox("evil.example/")}, "does not parse"},
		"negative RefreshBefore":    {fincodeauth.Config{BaseURL: ok, RefreshBefore: -1}, "RefreshBefore"},
		"negative RefreshTimeout":   {fincodeauth.Config{BaseURL: ok, RefreshTimeout: -1}, "RefreshTimeout"},
		"seconds without a unit":    {fincodeauth.Config{BaseURL: ok, RefreshTimeout: 15}, "15*time.Second"},
		"days of RefreshTimeout":    {fincodeauth.Config{BaseURL: ok, RefreshTimeout: 25 * time.Hour}, "at most 24h"},
		"an empty tenant":           {fincodeauth.Config{BaseURL: fincodeauth.Sandbox("")}, "is empty"},
		"a host without a scheme":   {fincodeauth.Config{BaseURL: "localhost:8080/api"}, "does not begin with https://"},
		"negative MaxSessions":      {fincodeauth.Config{BaseURL: ok, MaxSessions: -1}, "MaxSessions"},
		"unknown TokenHeaders":      {fincodeauth.Config{BaseURL: ok, TokenHeaders: 4}, "TokenHeaders"},
		"a header of the token":     {fincodeauth.Config{BaseURL: ok, Header: http.Header{"authorization": {"x"}}}, "remove it"},
		"an extra token header":     {fincodeauth.Config{BaseURL: ok, ExtraHeader: http.Header{"X-Auth-Token": {"x"}}}, "ExtraHeader"},
		"a header with a space":     {fincodeauth.Config{BaseURL: ok, Header: http.Header{"X Partner": {"x"}}}, `"X Partner"`},
		"a header without a name":   {fincodeauth.Config{BaseURL: ok, ExtraHeader: http.Header{"": {"x"}}}, `field ""`},
		"a header with an umlaut":   {fincodeauth.Config{BaseURL: ok, Header: http.Header{"X-Pärtner": {"x"}}}, "X-Pärtner"},
		"a value with a line break": {fincodeauth.Config{BaseURL: ok, Header: http.Header{"X-Partner": {"x", "hunter2\r\nX: y"}}}, "control character"},
		"a header of net/http":      {fincodeauth.Config{BaseURL: ok, Header: http.Header{"host": {"x"}}}, "net/http sets it"},
		"a nil MemoryStore":         {fincodeauth.Config{BaseURL: ok, Store: (*fincodeauth.MemoryStore)(nil)}, "nil *fincodeauth.MemoryStore"},
		"a nil filestore":           {fincodeauth.Config{BaseURL: ok, Store: (*filestore.Store)(nil)}, "nil *filestore.Store"},
		"a URL for a host":          {fincodeauth.Config{BaseURL: ok, Hosts: []string{"https://files.example"}}, "Hosts"},
		"an empty host":             {fincodeauth.Config{BaseURL: ok, Hosts: []string{""}}, "Hosts"},
		"a wildcard host":           {fincodeauth.Config{BaseURL: ok, Hosts: []string{"*.example.com"}}, "Hosts"},
		"a LocalStore with no load": {fincodeauth.Config{BaseURL: ok, Store: local}, "nil function"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := fincodeauth.New(test.cfg)
			if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "hunter") {
				t.Errorf("got error %v, want one that says %q and has no password", err, test.want)
			}
		})
	}
}

func TestNewAcceptsEveryValidBaseURL(t *testing.T) {
	for _, baseURL := range []string{fincodeauth.Sandbox("remitjunction"), fincodeauth.Production("acme"), "https://api.stag.songhaiexchange.io",
		"https://acme.fincode.tech/api/v6/services/", "http://localhost:8080", "http://127.0.0.1:1", "http://[::1]:1/x"} {
		if _, err := fincodeauth.New(fincodeauth.Config{BaseURL: baseURL}); err != nil {
			t.Errorf("New with BaseURL %s returned error %v, want none", baseURL, err)
		}
	}
	if got := fincodeauth.Sandbox("remitjunction"); got != "https://remitjunction.fincode.software/api/v6/services" {
		t.Errorf("Sandbox returned %s, want the root of the sandbox", got)
	}
	if got := fincodeauth.Production("acme"); got != "https://acme.fincode.tech/api/v6/services" {
		t.Errorf("Production returned %s, want the root of production", got)
	}
}

func TestExtraHeaderIsSentInAdditionToTheDefaults(t *testing.T) {
	fc := fincodetest.New(fincodetest.Config{})
	var sent []http.Header
	extra := http.Header{"x-partner": {"acme"}, "UUID": {"7"}, "X-Both": {"extra"}}
	sessions := newSessions(t, fc, func(c *fincodeauth.Config) {
		c.Base = roundTripper(func(r *http.Request) (*http.Response, error) {
			sent = append(sent, r.Header)
			return fc.RoundTrip(r)
		})
		c.ExtraHeader = extra
	})
	extra.Set("X-Partner", "changed later") // New has made a copy
	logIn(t, sessions, "a")
	get(t, sessions.Transport("a"), api+"/whoami")
	for _, h := range sent {
		if h.Get("Content-Type") != "application/json" || h.Get("Platform") != "fincode" || h.Get("Uuid") != "7" || h.Get("X-Partner") != "acme" {
			t.Errorf("sent header %v, want the defaults, with Uuid 7 and X-Partner acme", h)
		}
	}
	if len(sent) != 2 {
		t.Errorf("sent %d requests, want 2: a login and an API request", len(sent))
	}
}

func TestExtraHeaderReplacesTheSameFieldOfHeader(t *testing.T) {
	mock := httpmock.NewMockTransport()
	mock.RegisterNoResponder(func(r *http.Request) (*http.Response, error) {
		if !slices.Equal(r.Header["X-Both"], []string{"extra"}) || r.Header.Get("Platform") != "" || r.Header.Get("X-Mine") != "mine" {
			t.Errorf("sent header %v, want X-Both extra, X-Mine mine and no Platform", r.Header)
		}
		return httpmock.NewStringResponse(200, ""), nil
	})
	sessions := newSessions(t, nil, func(c *fincodeauth.Config) {
		c.Base = mock
		c.Header = http.Header{"X-Both": {"header"}, "X-Mine": {"mine"}}
		c.ExtraHeader = http.Header{"x-both": {"extra"}}
	})
	if err := sessions.Adopt(t.Context(), "a", &oauth2.Token{AccessToken: "t-1"}); err != nil {
		t.Fatal(err)
	}
	get(t, sessions.Transport("a"), api+"/balance")
}

func TestZeroValuesSayWhatToCall(t *testing.T) {
	var sessions fincodeauth.Sessions
	_, tokenErr := new(fincodeauth.TokenSource).Token()
	_, contextErr := new(fincodeauth.TokenSource).TokenContext(fincodeauth.WithSession(t.Context(), "a"))
	_, refreshErr := new(fincodeauth.TokenSource).Refresh(t.Context(), nil)
	_, metadataErr := new(fincodeauth.TokenSource).GetRequestMetadata(t.Context())
	_, sourceErr := sessions.TokenSource("a").Token()
	_, roundTripErr := new(fincodeauth.Transport).RoundTrip(request(t, "GET", nil))
	_, emptySourceErr := (&fincodeauth.Transport{Source: new(fincodeauth.TokenSource), BaseURL: api}).RoundTrip(request(t, "GET", nil))
	_, nilSourceErr := (&fincodeauth.Transport{Source: (*fincodeauth.TokenSource)(nil), BaseURL: api}).RoundTrip(request(t, "GET", nil))
	_, clientErr := sessions.Client("a").Get(api)
	for _, test := range []struct {
		call string
		err  error
		want string
	}{
		{"Login", sessions.Login(t.Context(), "a", credentials), "fincodeauth.New"},
		{"Adopt", sessions.Adopt(t.Context(), "a", &oauth2.Token{AccessToken: "t"}), "fincodeauth.New"},
		{"Logout", sessions.Logout(t.Context(), "a"), "fincodeauth.New"},
		{"Forget", sessions.Forget(t.Context(), "a"), "fincodeauth.New"},
		{"Close", sessions.Close(t.Context()), "fincodeauth.New"},
		{"Sessions.TokenSource", sourceErr, "fincodeauth.New"},
		{"Sessions.Client", clientErr, "fincodeauth.New"},
		{"TokenSource.Token", tokenErr, "Sessions.TokenSource"},
		{"TokenSource.TokenContext", contextErr, "Sessions.TokenSource"},
		{"TokenSource.Refresh", refreshErr, "Sessions.TokenSource"},
		{"TokenSource.GetRequestMetadata", metadataErr, "Sessions.TokenSource"},
		{"Transport.RoundTrip", roundTripErr, "Sessions.Transport"},
		{"RoundTrip of an empty TokenSource", emptySourceErr, "Sessions.TokenSource"},
		{"RoundTrip of a nil TokenSource", nilSourceErr, "Sessions.Transport"},
	} {
		if test.err == nil || !strings.Contains(test.err.Error(), test.want) || strings.Count(test.err.Error(), "fincodeauth: ") != 1 {
			t.Errorf("%s: got error %v, want one that names %s", test.call, test.err, test.want)
		}
	}
	_ = fmt.Sprint(&sessions, new(fincodeauth.TokenSource), new(fincodeauth.Transport)) // must not panic
	new(fincodeauth.Transport).CloseIdleConnections()                                   // must not panic
}

func TestBaseURLMayEndInASlash(t *testing.T) {
	fc := fincodetest.New(fincodetest.Config{})
	sessions := newSessions(t, fc, func(c *fincodeauth.Config) { c.BaseURL += "/" })
	logIn(t, sessions, "a")
}

func TestTokenBeforeTheFirstLoginIsASessionErrorWithErrNotFound(t *testing.T) {
	sessions := newSessions(t, fincodetest.New(fincodetest.Config{}))
	_, err := sessions.TokenSource("nobody").Token()
	wantSessionError(t, err, false, false)
	if !errors.Is(err, fincodeauth.ErrNotFound) || !strings.Contains(err.Error(), `"nobody"`) {
		t.Errorf("got error %v, want ErrNotFound, with the key", err)
	}
}

func TestEmptyKeyIsRefused(t *testing.T) {
	sessions := newSessions(t, fincodetest.New(fincodetest.Config{}))
	for name, err := range map[string]error{
		"Login":  sessions.Login(t.Context(), "", credentials),
		"Adopt":  sessions.Adopt(t.Context(), "", &oauth2.Token{AccessToken: "t"}),
		"Logout": sessions.Logout(t.Context(), ""),
		"Forget": sessions.Forget(t.Context(), ""),
	} {
		if err == nil || !strings.Contains(err.Error(), "key is empty") {
			t.Errorf("%s: got error %v, want one that says that the key is empty", name, err)
		}
	}
}

func TestIncompleteCredentialsAreNotSent(t *testing.T) {
	sessions := newSessions(t, nil, func(c *fincodeauth.Config) {
		c.Base = roundTripper(func(*http.Request) (*http.Response, error) {
			t.Error("FinCode was called, want no call")
			return nil, errors.New("called")
		})
	})
	for _, c := range []fincodeauth.Credentials{{}, {Email: credentials.Email}, {Password: credentials.Password}} {
		if err := sessions.Login(t.Context(), "a", c); err == nil || !strings.Contains(err.Error(), "lack the email or the password") {
			t.Errorf("got error %v, want one that says what is missing", err)
		}
	}
}

func TestSessionSurvivesARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := fincodeauth.NewMemoryStore()
		before := newSessions(t, fc, withStore(store))
		logIn(t, before, "a")
		tok := token(t, before.TokenSource("a"))
		if err := before.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		var seen events
		after := newSessions(t, fc, withStore(store), seen.observe)
		if token(t, after.TokenSource("a")).AccessToken != tok.AccessToken {
			t.Error("got another token after the restart, want the one from before")
		}
		time.Sleep(2 * time.Hour)
		token(t, after.TokenSource("a"))
		seen.want(t, fincodeauth.Adopted, fincodeauth.Refreshed)
	})
}

func TestAdoptUsesAndSavesAPairFromElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		elsewhere := newSessions(t, fc)
		logIn(t, elsewhere, "x")
		pair := *token(t, elsewhere.TokenSource("x"))
		pair.Expiry = time.Time{} // as from a browser: only the JWT has the expiry
		store := fincodeauth.NewMemoryStore()
		var seen events
		sessions := newSessions(t, fc, withStore(store), seen.observe)
		if err := sessions.Adopt(t.Context(), "a", &pair); err != nil {
			t.Fatal(err)
		}
		seen.want(t, fincodeauth.Adopted)
		tok := token(t, sessions.TokenSource("a"))
		if tok.AccessToken != pair.AccessToken || tok == &pair || record(t, store, "a").Token.RefreshToken != pair.RefreshToken {
			t.Error("the pair is not in use, was not copied, or was not saved; want all three")
		}
		time.Sleep(time.Hour)
		token(t, sessions.TokenSource("a"))
		wantCalls(t, fc, 1, 1)
	})
}

func TestAdoptAcceptsARefreshTokenAlone(t *testing.T) {
	fc := fincodetest.New(fincodetest.Config{})
	elsewhere := newSessions(t, fc)
	logIn(t, elsewhere, "x")
	sessions := newSessions(t, fc)
	if err := sessions.Adopt(t.Context(), "a", &oauth2.Token{RefreshToken: token(t, elsewhere.TokenSource("x")).RefreshToken}); err != nil {
		t.Fatal(err)
	}
	if token(t, sessions.TokenSource("a")).AccessToken == "" {
		t.Error("got a token without an access token, want one with it")
	}
}

// A 401 must not end such a session, because there is nothing to refresh with.
func TestAccessTokenAloneIsUsedUntilItExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sessions := newSessions(t, fincodetest.New(fincodetest.Config{}))
		err := sessions.Adopt(t.Context(), "a", &oauth2.Token{AccessToken: "t-1", Expiry: time.Now().Add(time.Hour)})
		if err != nil {
			t.Fatal(err)
		}
		src := sessions.TokenSource("a")
		time.Sleep(58 * time.Minute)
		tok := token(t, src)
		if same, err := src.Refresh(t.Context(), tok); err != nil || same != tok {
			t.Errorf("Refresh returned error %v, or another token; want the same token", err)
		}
		time.Sleep(2 * time.Minute)
		_, err = src.Token()
		wantSessionError(t, err, false, false)
	})
}

func TestAdoptRefusesUnusableTokens(t *testing.T) {
	sessions := newSessions(t, fincodetest.New(fincodetest.Config{}))
	for _, tok := range []*oauth2.Token{nil, {}, {AccessToken: "with a space"}} {
		if err := sessions.Adopt(t.Context(), "a", tok); err == nil {
			t.Errorf("Adopt accepted an unusable token, want an error")
		}
	}
}

func TestLoginDoesNotCallFinCodeIfTheStoreIsDown(t *testing.T) {
	fc := fincodetest.New(fincodetest.Config{})
	store := newFaultyStore()
	store.down(true)
	sessions := newSessions(t, fc, withStore(store))
	if err := sessions.Login(t.Context(), "a", credentials); !errors.Is(err, errStoreDown) {
		t.Errorf("got error %v, want the store's", err)
	}
	if n := fc.Counts().Logins; n != 0 {
		t.Errorf("FinCode made %d logins, want none", n)
	}
}

func TestLoginReplacesEveryKindOfRecord(t *testing.T) {
	for name, rec := range map[string]fincodeauth.Record{
		"ended":      {Version: "v", Token: &oauth2.Token{}, Ended: "refresh token reused"},
		"refreshing": {Version: "v", Token: &oauth2.Token{RefreshToken: "r"}, RefreshStarted: time.Now()},
		"live":       {Version: "v", Token: &oauth2.Token{AccessToken: "t", RefreshToken: "r"}},
	} {
		t.Run(name, func(t *testing.T) {
			fc := fincodetest.New(fincodetest.Config{})
			store := fincodeauth.NewMemoryStore()
			if err := store.Save(t.Context(), "a", &rec, ""); err != nil {
				t.Fatal(err)
			}
			sessions := newSessions(t, fc, withStore(store))
			logIn(t, sessions, "a")
			if status := whoami(t, fc, record(t, store, "a").Token); status != http.StatusOK {
				t.Errorf("FinCode answers %d to the token in the store, want 200", status)
			}
		})
	}
}

// One context can be used with the Sessions of two tenants.
func TestContextNamesASessionForEveryTenant(t *testing.T) {
	fc := fincodetest.New(fincodetest.Config{})
	one, two := newSessions(t, fc), newSessions(t, fc)
	logIn(t, one, "a")
	logIn(t, two, "a")
	ctx := fincodeauth.WithSession(fincodeauth.WithSession(t.Context(), "b"), "a")
	for range 2 {
		for _, sessions := range []*fincodeauth.Sessions{one, two} {
			tok, err := sessions.TokenSource("").TokenContext(ctx)
			if err != nil || tok != token(t, sessions.TokenSource("a")) {
				t.Errorf("got token %v and error %v, want the token of that tenant", tok, err)
			}
		}
	}
}

// Loggers and mocks print contexts while requests use them, so printing must not
// read the fields of the context.
func TestContextIsPrintedWithItsKeyOnly(t *testing.T) {
	for parent, want := range map[context.Context]string{
		context.Background():                            "context.Background",
		struct{ context.Context }{context.Background()}: "struct { context.Context }",
	} {
		ctx := fincodeauth.WithSession(parent, "a")
		for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
			if got, want := fmt.Sprintf(verb, ctx), want+`.WithSession("a")`; got != want {
				t.Errorf("%s prints %s, want %s", verb, got, want)
			}
		}
	}
}

func TestEveryCloseNamesTheUnsavedSessions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := newFaultyStore()
		sessions := newSessions(t, fc, withStore(store), func(c *fincodeauth.Config) { c.MaxSessions = 1 })
		store.set(successorsFail)
		logIn(t, sessions, "a")
		for range 2 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			if err := sessions.Close(ctx); err == nil || !strings.Contains(err.Error(), `"a"`) {
				t.Errorf("got error %v, want one that names the session", err)
			}
			cancel()
			synctest.Wait()
			sessions.TokenSource("b").Token() // must not drop "a" from memory
		}
	})
}

func TestEveryMethodReturnsErrClosedAfterClose(t *testing.T) {
	fc := fincodetest.New(fincodetest.Config{})
	sessions := newSessions(t, fc)
	logIn(t, sessions, "a")
	src := sessions.TokenSource("a")
	tok := token(t, src)
	for range 2 {
		if err := sessions.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	_, tokenErr := src.Token()
	_, refreshErr := src.Refresh(t.Context(), tok)
	_, clientErr := sessions.Client("a").Get(fincodeauth.Sandbox("test") + "/whoami")
	for name, err := range map[string]error{
		"Token": tokenErr, "Refresh": refreshErr, "Client": clientErr,
		"Login":  sessions.Login(t.Context(), "a", credentials),
		"Adopt":  sessions.Adopt(t.Context(), "a", tok),
		"Logout": sessions.Logout(t.Context(), "a"),
		"Forget": sessions.Forget(t.Context(), "a"),
	} {
		if !errors.Is(err, fincodeauth.ErrClosed) {
			t.Errorf("%s: got error %v, want ErrClosed", name, err)
		}
	}
}

func TestAdoptUsesExpiresIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{OpaqueTokens: true})
		sessions := newSessions(t, fc)
		var tok oauth2.Token
		if err := json.Unmarshal([]byte(`{"access_token":"x","refresh_token":"y","expires_in":3600}`), &tok); err != nil {
			t.Fatal(err)
		}
		if err := sessions.Adopt(t.Context(), "a", &tok); err != nil {
			t.Fatal(err)
		}
		if got := token(t, sessions.TokenSource("a")); time.Until(got.Expiry) != time.Hour {
			t.Errorf("the token expires at %v, want in an hour", got.Expiry)
		}
	})
}

func TestZeroMemoryStoreIsEmpty(t *testing.T) {
	sessions := newSessions(t, fincodetest.New(fincodetest.Config{}), withStore(new(fincodeauth.MemoryStore)))
	logIn(t, sessions, "a")
	token(t, sessions.TokenSource("a"))
}

// versionPrefixes returns a list. From now on, the list gets the part before the
// first dot of each Version that is saved.
func versionPrefixes(store *faultyStore) *[]string {
	prefixes := new([]string)
	store.set(func(s *faultyStore) {
		s.save = func(rec *fincodeauth.Record, save func() error) error {
			prefix, _, _ := strings.Cut(rec.Version, ".")
			*prefixes = append(*prefixes, prefix)
			return save()
		}
	})
	return prefixes
}

func TestVersionsOfOneLoginHaveTheSamePrefix(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := newFaultyStore()
		prefixes := versionPrefixes(store)
		sessions := newSessions(t, fc, withStore(store))
		src := sessions.TokenSource("a")
		logIn(t, sessions, "a")
		time.Sleep(2 * time.Hour)
		fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{Kind: fincodetest.ErrorStatus, Status: 429})
		if _, err := src.Token(); err == nil { // saves a claim, and releases it
			t.Error("got no error, want FinCode's 429")
		}
		time.Sleep(2 * time.Second)
		token(t, src) // saves a claim, and the new token over it
		if err := sessions.Logout(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		first := *prefixes
		if len(first) != 6 || len(slices.Compact(slices.Clone(first))) != 1 {
			t.Errorf("the versions of one login begin with %q, want the same prefix six times", first)
		}
		logIn(t, sessions, "a")
		logIn(t, sessions, "a") // over the record of the login before
		if all := *prefixes; len(slices.Compact(slices.Clone(all))) != 3 {
			t.Errorf("the versions of three logins begin with %q, want three prefixes", all)
		}
	})
}

func TestNewLoginWithCredentialsKeepsTheVersionPrefix(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{RefreshLifetime: time.Hour})
		store := newFaultyStore()
		prefixes := versionPrefixes(store)
		sessions := newSessions(t, fc, withStore(store), withCredentials)
		logIn(t, sessions, "a")
		time.Sleep(2 * time.Hour)
		token(t, sessions.TokenSource("a"))
		if p := *prefixes; len(p) != 3 || len(slices.Compact(p)) != 1 {
			t.Errorf("the versions of a login, a claim and a new login begin with %q, want the same prefix", *prefixes)
		}
	})
}

func TestAdoptDropsAnExpiryThatNoStoreCanWrite(t *testing.T) {
	files := newFileStore(t)
	sessions := newSessions(t, fincodetest.New(fincodetest.Config{}), withStore(files))
	err := sessions.Adopt(t.Context(), "a", &oauth2.Token{AccessToken: "t", Expiry: time.Date(20000, 1, 1, 0, 0, 0, 0, time.UTC)})
	if err != nil || record(t, files, "a").Token.AccessToken != "t" {
		t.Errorf("got error %v, or another token in the store; want the token saved", err)
	}
}

func TestAdoptDropsTheExpiryOfAJWTInTheFarFuture(t *testing.T) {
	store := newJSONStore()
	sessions := newSessions(t, nil, withStore(store))
	const jwt = "e30.eyJleHAiOjFlMzA4fQ.s" // {"exp":1e308}
	if err := sessions.Adopt(t.Context(), "a", &oauth2.Token{AccessToken: jwt}); err != nil {
		t.Fatal(err)
	}
	if tok := record(t, store, "a").Token; tok.AccessToken != jwt || !tok.Expiry.IsZero() {
		t.Errorf("the store has expiry %v, want the token saved with none", tok.Expiry)
	}
}

// Steps:
//  1. A refresh is due and loads the record, slowly.
//  2. Close is called, and its context ends.
//  3. The Load returns. Nothing is presented.
func TestNothingIsPresentedAfterClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := newFaultyStore()
		sessions := newSessions(t, fc, withStore(store))
		logIn(t, sessions, "a")
		time.Sleep(2 * time.Hour)
		store.set(func(s *faultyStore) { s.load = func() error { time.Sleep(5 * time.Second); return nil } })
		go sessions.TokenSource("a").Token()
		time.Sleep(time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := sessions.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got error %v, want the error of the context", err)
		}
		wantCalls(t, fc, 0, 0)
		time.Sleep(time.Minute)
		wantCalls(t, fc, 0, 0)
	})
}

// Steps:
//  1. A refresh is under way.
//  2. Close is called.
//  3. The answer to the refresh arrives. The store fails a few times, and then saves
//     the new token. Close returns.
func TestCloseWaitsForARefreshAndItsSave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := newFaultyStore()
		sessions := newSessions(t, fc, withStore(store))
		logIn(t, sessions, "a")
		time.Sleep(56 * time.Minute)
		fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{After: 3 * time.Second})
		token(t, sessions.TokenSource("a"))
		synctest.Wait()
		failures := 0
		store.set(func(s *faultyStore) {
			s.save = func(_ *fincodeauth.Record, save func() error) error {
				if failures++; failures < 5 {
					return errStoreDown
				}
				return save()
			}
		})
		if err := sessions.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if rec := record(t, store, "a"); !isSuccessor(rec) || fc.Presented(rec.Token.RefreshToken) != 0 || fc.Counts().Refreshes != 1 {
			t.Errorf("the store has %v, want the record of the new token", rec)
		}
		if _, err := sessions.TokenSource("a").Token(); !errors.Is(err, fincodeauth.ErrClosed) {
			t.Errorf("got error %v after Close, want ErrClosed", err)
		}
	})
}

// Steps:
//  1. FinCode refuses the token, and Credentials is called.
//  2. Close is called.
//  3. Credentials returns. No login is made.
//  4. The next process logs in.
func TestNoLoginIsMadeAfterClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{RefreshLifetime: time.Hour})
		store := fincodeauth.NewMemoryStore()
		asking := make(chan struct{})
		sessions := newSessions(t, fc, withStore(store), func(c *fincodeauth.Config) {
			c.Credentials = func(context.Context, string, error) (fincodeauth.Credentials, error) {
				close(asking)
				time.Sleep(time.Second)
				return credentials, nil
			}
		})
		logIn(t, sessions, "a")
		time.Sleep(2 * time.Hour)
		var err error
		go func() { _, err = sessions.TokenSource("a").Token() }()
		<-asking
		if err := sessions.Close(t.Context()); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if n := fc.Counts().Logins; !errors.Is(err, fincodeauth.ErrClosed) || n != 1 {
			t.Errorf("got error %v after %d logins, want ErrClosed after one login", err, n)
		}
		token(t, newSessions(t, fc, withStore(store), withCredentials).TokenSource("a"))
		wantCalls(t, fc, 1, 0)
	})
}

func TestCloseNamesTheSessionsWhoseTokensAreLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := newFaultyStore()
		sessions := newSessions(t, fc, withStore(store))
		logIn(t, sessions, "alice")
		time.Sleep(2 * time.Hour)
		store.set(successorsFail)
		token(t, sessions.TokenSource("alice"))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		for range 2 {
			err := sessions.Close(ctx)
			if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, errStoreDown) || !strings.Contains(err.Error(), "alice") {
				t.Errorf("got error %v, want one that names the session and wraps the store's error", err)
			}
		}
	})
}

func TestCloseHasTheLastErrorOfTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := newFaultyStore()
		sessions := newSessions(t, fc, withStore(store))
		errDiskFull := errors.New("disk full")
		saves := 0
		store.set(func(s *faultyStore) {
			s.save = func(*fincodeauth.Record, func() error) error {
				if saves++; saves == 1 {
					return errStoreDown
				}
				return errDiskFull
			}
		})
		logIn(t, sessions, "alice")
		time.Sleep(time.Minute)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := sessions.Close(ctx); !errors.Is(err, errDiskFull) || errors.Is(err, errStoreDown) {
			t.Errorf("Close = %v, want the last error of the store", err)
		}
	})
}

func TestCloseNamesTheSessionsWithCallsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		sessions := newSessions(t, fc)
		logIn(t, sessions, "alice")
		logIn(t, sessions, "bob")
		time.Sleep(2 * time.Hour)
		fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{After: 10 * time.Second})
		go sessions.TokenSource("alice").Token()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := sessions.Close(ctx)
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), `"alice"`) || strings.Contains(err.Error(), "bob") {
			t.Errorf("Close = %v, want an error that names alice, whose refresh is under way, and not bob", err)
		}
		time.Sleep(time.Minute)
	})
}

// A store that hangs has not returned an error that Close could report.
func TestCloseSaysThatTheStoreDidNotAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := newFaultyStore()
		sessions := newSessions(t, fc, withStore(store))
		store.set(func(s *faultyStore) {
			s.save = func(_ *fincodeauth.Record, save func() error) error { time.Sleep(time.Hour); return save() }
		})
		logIn(t, sessions, "alice")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := sessions.Close(ctx); err == nil || !strings.Contains(err.Error(), "has not answered") {
			t.Errorf("got error %v, want one that says that the store has not answered", err)
		}
		time.Sleep(2 * time.Hour)
	})
}

// Steps:
//  1. The store refuses a new token for a minute, so the pauses between the attempts
//     are seconds long.
//  2. The store is back, and Close is called with a context that has ended. Close saves
//     the token at once.
func TestCloseTriesOnceMoreIfItsContextHasEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := newFaultyStore()
		sessions := newSessions(t, fc, withStore(store))
		logIn(t, sessions, "a")
		time.Sleep(2 * time.Hour)
		store.set(successorsFail)
		token(t, sessions.TokenSource("a"))
		time.Sleep(time.Minute)
		store.down(false)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := sessions.Close(ctx); err != nil {
			t.Error(err)
		}
		if !isSuccessor(record(t, store, "a")) {
			t.Error("the store does not have the new token, want it saved")
		}
	})
}

// Steps:
//  1. Another process holds the claim, and a caller waits for that process.
//  2. Close is called. It returns at once, and so does the caller.
func TestCloseDoesNotWaitForAnotherProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := fincodeauth.NewMemoryStore()
		saveDeadClaim(t, fc, store, time.Now(), false)
		time.Sleep(2 * time.Hour)
		sessions := newSessions(t, fc, withStore(store))
		failed := make(chan error, 1)
		go func() {
			_, err := sessions.TokenSource("a").Token()
			failed <- err
		}()
		time.Sleep(time.Second)
		if waited := elapsed(func() {
			if err := sessions.Close(t.Context()); err != nil {
				t.Error(err)
			}
		}); waited > 0 {
			t.Errorf("Close waited %v, want no wait", waited)
		}
		if err := <-failed; !errors.Is(err, fincodeauth.ErrClosed) {
			t.Errorf("got error %v, want ErrClosed", err)
		}
	})
}

func TestChangedTransportLeavesTheOthersAlone(t *testing.T) {
	sessions := newSessions(t, fincodetest.New(fincodetest.Config{}), func(c *fincodeauth.Config) { c.Hosts = []string{"a.example"} })
	changed := sessions.Transport("a")
	changed.Header.Set("X-Partner", "p")
	changed.Hosts[0] = "b.example"
	if other := sessions.Transport("b"); other.Header.Get("X-Partner") != "" || other.Hosts[0] != "a.example" {
		t.Errorf("another Transport has the change: %v %v", other.Header, other.Hosts)
	}
}
