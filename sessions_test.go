package fincodeauth_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/oauth2"

	"github.com/fincodeauth/fincodeauth"
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
		"one that does not parse":   {fincodeauth.Config{BaseURL: "https://a b"}, "does not parse"},
		"one without a scheme":      {fincodeauth.Config{BaseURL: "acme.fincode.tech/api"}, "https://"},
		"http":                      {fincodeauth.Config{BaseURL: "http://acme.fincode.tech"}, "loopback"},
		"http to a lookalike":       {fincodeauth.Config{BaseURL: "http://127.0.0.1.evil.example"}, "loopback"},
		"another scheme":            {fincodeauth.Config{BaseURL: "ftp://acme.fincode.tech"}, "https"},
		"a user in it":              {fincodeauth.Config{BaseURL: "https://u:hunter2@acme.fincode.tech"}, "leave only"},
		"a query":                   {fincodeauth.Config{BaseURL: ok + "?a=b"}, "leave only"},
		"an empty query":            {fincodeauth.Config{BaseURL: ok + "?"}, "leave only"},
		"an empty fragment":         {fincodeauth.Config{BaseURL: ok + "#"}, "leave only"},
		"no tenant":                 {fincodeauth.Config{BaseURL: fincodeauth.Sandbox("")}, "no host"},
		"a tenant that escapes":     {fincodeauth.Config{BaseURL: fincodeauth.Sandbox("evil.example/")}, "does not parse"},
		"negative RefreshBefore":    {fincodeauth.Config{BaseURL: ok, RefreshBefore: -1}, "RefreshBefore"},
		"negative RefreshTimeout":   {fincodeauth.Config{BaseURL: ok, RefreshTimeout: -1}, "RefreshTimeout"},
		"negative MaxSessions":      {fincodeauth.Config{BaseURL: ok, MaxSessions: -1}, "MaxSessions"},
		"unknown TokenHeaders":      {fincodeauth.Config{BaseURL: ok, TokenHeaders: 4}, "TokenHeaders"},
		"a token's header":          {fincodeauth.Config{BaseURL: ok, Header: http.Header{"authorization": {"x"}}}, "remove it"},
		"a URL for a host":          {fincodeauth.Config{BaseURL: ok, Hosts: []string{"https://files.example"}}, "Hosts"},
		"an empty host":             {fincodeauth.Config{BaseURL: ok, Hosts: []string{""}}, "Hosts"},
		"a wildcard host":           {fincodeauth.Config{BaseURL: ok, Hosts: []string{"*.example.com"}}, "Hosts"},
		"a LocalStore with no load": {fincodeauth.Config{BaseURL: ok, Store: local}, "nil function"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := fincodeauth.New(test.cfg)
			if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("error %v, want one that says %q", err, test.want)
			}
		})
	}
}

func TestNewTakesEveryRoot(t *testing.T) {
	for _, root := range []string{fincodeauth.Sandbox("remitjunction"), fincodeauth.Production("acme"), "https://api.stag.songhaiexchange.io",
		"https://acme.fincode.tech/api/v6/services/", "http://localhost:8080", "http://127.0.0.1:1", "http://[::1]:1/x"} {
		if _, err := fincodeauth.New(fincodeauth.Config{BaseURL: root}); err != nil {
			t.Errorf("%s: %v", root, err)
		}
	}
	if got := fincodeauth.Sandbox("remitjunction"); got != "https://remitjunction.fincode.software/api/v6/services" {
		t.Errorf("Sandbox: %s", got)
	}
	if got := fincodeauth.Production("acme"); got != "https://acme.fincode.tech/api/v6/services" {
		t.Errorf("Production: %s", got)
	}
}

func TestARootMayEndInASlash(t *testing.T) {
	fc := fincodetest.New(fincodetest.Config{})
	sessions := newSessions(t, fc, func(c *fincodeauth.Config) { c.BaseURL += "/" })
	logIn(t, sessions, "a")
}

func TestAKeyThatNeverLoggedInIsASessionErrorWithErrNotFound(t *testing.T) {
	sessions := newSessions(t, fincodetest.New(fincodetest.Config{}))
	_, err := sessions.TokenSource("nobody").Token()
	wantSessionError(t, err, false, false)
	if !errors.Is(err, fincodeauth.ErrNotFound) || !strings.Contains(err.Error(), `"nobody"`) {
		t.Errorf("error %v, want ErrNotFound and the key", err)
	}
}

func TestAnEmptyKeyIsRefused(t *testing.T) {
	sessions := newSessions(t, fincodetest.New(fincodetest.Config{}))
	for name, err := range map[string]error{
		"Login":  sessions.Login(t.Context(), "", credentials),
		"Adopt":  sessions.Adopt(t.Context(), "", &oauth2.Token{AccessToken: "t"}),
		"Logout": sessions.Logout(t.Context(), ""),
	} {
		if err == nil || !strings.Contains(err.Error(), "key is empty") {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

func TestASessionSurvivesARestart(t *testing.T) {
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
			t.Error("another token after the restart")
		}
		time.Sleep(2 * time.Hour)
		token(t, after.TokenSource("a"))
		seen.want(t, fincodeauth.Adopted, fincodeauth.Refreshed)
	})
}

func TestAPairFromElsewhereIsAdopted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		elsewhere := newSessions(t, fc)
		logIn(t, elsewhere, "x")
		pair := *token(t, elsewhere.TokenSource("x"))
		pair.Expiry = time.Time{} // as from a browser: its JWT says it
		store := fincodeauth.NewMemoryStore()
		var seen events
		sessions := newSessions(t, fc, withStore(store), seen.observe)
		if err := sessions.Adopt(t.Context(), "a", &pair); err != nil {
			t.Fatal(err)
		}
		seen.want(t, fincodeauth.Adopted)
		tok := token(t, sessions.TokenSource("a"))
		if tok.AccessToken != pair.AccessToken || tok == &pair || record(t, store, "a").Token.RefreshToken != pair.RefreshToken {
			t.Error("the pair is not in use, not copied or not saved")
		}
		time.Sleep(time.Hour)
		token(t, sessions.TokenSource("a"))
		wantCalls(t, fc, 1, 1)
	})
}

func TestARefreshTokenAloneCanBeAdopted(t *testing.T) {
	fc := fincodetest.New(fincodetest.Config{})
	elsewhere := newSessions(t, fc)
	logIn(t, elsewhere, "x")
	sessions := newSessions(t, fc)
	if err := sessions.Adopt(t.Context(), "a", &oauth2.Token{RefreshToken: token(t, elsewhere.TokenSource("x")).RefreshToken}); err != nil {
		t.Fatal(err)
	}
	if token(t, sessions.TokenSource("a")).AccessToken == "" {
		t.Error("no access token")
	}
}

func TestAnAccessTokenAloneLivesUntilItsExpiry(t *testing.T) {
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
			t.Errorf("error %v: a rejection ended a session that has nothing to refresh with", err)
		}
		time.Sleep(2 * time.Minute)
		_, err = src.Token()
		wantSessionError(t, err, false, false)
	})
}

func TestAnEmptyPairIsNotAdopted(t *testing.T) {
	sessions := newSessions(t, fincodetest.New(fincodetest.Config{}))
	for _, tok := range []*oauth2.Token{nil, {}, {AccessToken: "with a space"}} {
		if err := sessions.Adopt(t.Context(), "a", tok); err == nil {
			t.Errorf("an unusable token was adopted")
		}
	}
}

func TestALogoutRevokesBothTokensAndIsKnownEverywhere(t *testing.T) {
	fc := fincodetest.New(fincodetest.Config{})
	store := fincodeauth.NewMemoryStore()
	var seen events
	sessions := newSessions(t, fc, withStore(store), seen.observe)
	logIn(t, sessions, "a")
	tok := token(t, sessions.TokenSource("a"))
	if err := sessions.Logout(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	seen.want(t, fincodeauth.LoggedIn, fincodeauth.LoggedOut)
	if status := whoami(t, fc, tok); status != http.StatusUnauthorized {
		t.Errorf("the token still answers %d", status)
	}
	for _, s := range []*fincodeauth.Sessions{sessions, newSessions(t, fc, withStore(store))} {
		if _, err := s.TokenSource("a").Token(); !errors.Is(err, fincodeauth.ErrNotFound) {
			t.Errorf("error %v, want ErrNotFound", err)
		}
	}
	if err := sessions.Logout(t.Context(), "a"); err != nil {
		t.Errorf("logging out twice: %v", err)
	}
	logIn(t, sessions, "a")
	token(t, sessions.TokenSource("a"))
}

func TestALogoutLongAfterExpiryRevokesTheRefreshTokenToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		sessions := newSessions(t, fc)
		logIn(t, sessions, "a")
		time.Sleep(2 * time.Hour)
		if err := sessions.Logout(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		if n := fc.Counts().Logouts; n != 1 {
			t.Errorf("FinCode made %d logouts", n)
		}
	})
}

func TestALogoutThatFinCodeRefusesHasEndedTheSessionHere(t *testing.T) {
	fc := fincodetest.New(fincodetest.Config{})
	store := fincodeauth.NewMemoryStore()
	sessions := newSessions(t, fc, withStore(store))
	logIn(t, sessions, "a")
	fc.Inject(fincodetest.Logout, 1, fincodetest.Fault{Kind: fincodetest.ErrorStatus, Status: 503})
	var ee *fincodeauth.EndpointError
	if err := sessions.Logout(t.Context(), "a"); !errors.As(err, &ee) || ee.Op != "logout" {
		t.Errorf("error %v, want FinCode's", err)
	}
	if _, err := store.Load(t.Context(), "a"); !errors.Is(err, fincodeauth.ErrNotFound) {
		t.Errorf("error %v, want the record gone", err)
	}
}

func TestALogoutDuringARefreshThatRevokedTheTokenSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{RevokeOnRotation: true})
		sessions := newSessions(t, fc)
		logIn(t, sessions, "a")
		time.Sleep(56 * time.Minute)
		fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{After: 2 * time.Second})
		token(t, sessions.TokenSource("a"))
		time.Sleep(time.Second)
		err := sessions.Logout(t.Context(), "a")
		if ee, ok := errors.AsType[*fincodeauth.EndpointError](err); !ok || ee.Status != 401 || !strings.Contains(err.Error(), "a refresh was under way") {
			t.Errorf("error %v, want FinCode's, and why it does not know the token", err)
		}
		time.Sleep(10 * time.Second)
		if n := fc.Counts().Logouts; n != 1 {
			t.Errorf("%d logouts at FinCode, want that of the refresh's token", n)
		}
	})
}

func TestALogoutWhoseSaveWentUnheardIsFinishedByTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := newBrittleStore()
		sessions := newSessions(t, fc, withStore(store))
		logIn(t, sessions, "a")
		tok := token(t, sessions.TokenSource("a"))
		store.set(cutOffAfter(func(rec *fincodeauth.Record) bool { return rec.Ended != "" }))
		if err := sessions.Logout(t.Context(), "a"); !errors.Is(err, errStoreDown) {
			t.Fatalf("error %v, want the store's", err)
		}
		store.down(false)
		for range 2 {
			if err := sessions.Logout(t.Context(), "a"); err != nil {
				t.Error(err)
			}
		}
		if n, status := fc.Counts().Logouts, whoami(t, fc, tok); n != 1 || status != http.StatusUnauthorized {
			t.Errorf("%d logouts at FinCode, and the token answers %d; want one, and 401", n, status)
		}
	})
}

func TestALogoutAfterAnotherProcesssIsNoError(t *testing.T) {
	fc := fincodetest.New(fincodetest.Config{})
	store := newBrittleStore()
	one, two := newSessions(t, fc, withStore(store)), newSessions(t, fc, withStore(store))
	logIn(t, one, "a")
	token(t, two.TokenSource("a"))
	store.set(func(s *brittleStore) { s.delete = func() error { return errStoreDown } })
	for _, sessions := range []*fincodeauth.Sessions{one, two} {
		if err := sessions.Logout(t.Context(), "a"); err != nil {
			t.Error(err)
		}
	}
}

func TestALogoutThatTheStoreRefusesChangesNothing(t *testing.T) {
	fc := fincodetest.New(fincodetest.Config{})
	store := newBrittleStore()
	sessions := newSessions(t, fc, withStore(store))
	logIn(t, sessions, "a")
	store.down(true)
	if err := sessions.Logout(t.Context(), "a"); !errors.Is(err, errStoreDown) {
		t.Errorf("error %v, want the store's", err)
	}
	store.down(false)
	if status := whoami(t, fc, token(t, sessions.TokenSource("a"))); status != http.StatusOK {
		t.Errorf("the token answers %d", status)
	}
}

func TestALogoutWhoseDeleteFailsIsALogoutAllTheSame(t *testing.T) {
	fc := fincodetest.New(fincodetest.Config{})
	store := newBrittleStore()
	sessions := newSessions(t, fc, withStore(store))
	logIn(t, sessions, "a")
	store.set(func(s *brittleStore) { s.delete = func() error { return errStoreDown } })
	if err := sessions.Logout(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	_, err := newSessions(t, fc, withStore(store)).TokenSource("a").Token()
	wantSessionError(t, err, false, false)
	if rec := record(t, store, "a"); rec.Token.RefreshToken != "" {
		t.Error("the record still has a token")
	}
}

func TestALoginAsksNoPasswordOfAStoreThatIsDown(t *testing.T) {
	fc := fincodetest.New(fincodetest.Config{})
	store := newBrittleStore()
	store.down(true)
	sessions := newSessions(t, fc, withStore(store))
	if err := sessions.Login(t.Context(), "a", credentials); !errors.Is(err, errStoreDown) {
		t.Errorf("error %v, want the store's", err)
	}
	if n := fc.Counts().Logins; n != 0 {
		t.Errorf("%d logins for nothing", n)
	}
}

func TestALoginWhoseSaveFailsIsSavedLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := newBrittleStore()
		var seen events
		sessions := newSessions(t, fc, withStore(store), seen.observe)
		store.set(successorsFail)
		logIn(t, sessions, "a")
		tok := token(t, sessions.TokenSource("a"))
		store.down(false)
		time.Sleep(time.Second)
		if record(t, store, "a").Token.AccessToken != tok.AccessToken {
			t.Error("another token was saved")
		}
		seen.want(t, fincodeauth.LoggedIn, fincodeauth.SaveFailed, fincodeauth.Saved)
	})
}

func TestALoginReplacesASessionThatEndedOrThatAnotherIsRefreshing(t *testing.T) {
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
				t.Errorf("the token in the store answers %d", status)
			}
		})
	}
}

func TestTheLeastRecentlyUsedSessionIsDroppedAndLoadedAgainOnUse(t *testing.T) {
	fc := fincodetest.New(fincodetest.Config{})
	var seen events
	sessions := newSessions(t, fc, seen.observe, func(c *fincodeauth.Config) { c.MaxSessions = 3 })
	use := func(key string) { token(t, sessions.TokenSource(key)) }
	for _, key := range []string{"a", "b", "c"} {
		logIn(t, sessions, key)
	}
	held := sessions.TokenSource("b")
	token(t, held)
	use("a")
	logIn(t, sessions, "d") // drops c
	seen.types()
	use("a")
	use("b")
	use("d")
	seen.want(t)
	use("c") // drops a
	seen.want(t, fincodeauth.Adopted)
	token(t, held)
	use("d")
	seen.want(t)
	use("a") // drops c
	use("b")
	token(t, held)
	seen.want(t, fincodeauth.Adopted)
}

// With so many sessions that they are dropped by the hundred, those in use stay,
// and everybody gets the token of the right one, whoever else comes and goes.
func TestSessionsInUseAreNotDroppedWhileOthersComeAndGo(t *testing.T) {
	store := fincodeauth.NewMemoryStore()
	name := func(i int) string { return fmt.Sprint("user-", i) }
	const users = 4000
	for i := range users {
		tok := &oauth2.Token{AccessToken: name(i), RefreshToken: "r", Expiry: time.Now().Add(time.Hour)}
		if err := store.Save(t.Context(), name(i), &fincodeauth.Record{Version: "v", Token: tok}, ""); err != nil {
			t.Fatal(err)
		}
	}
	var loaded [users]atomic.Int32
	sessions := newSessions(t, fincodetest.New(fincodetest.Config{}), withStore(store), func(c *fincodeauth.Config) {
		c.MaxSessions = 640
		c.Observe = func(e fincodeauth.Event) {
			i, _ := strconv.Atoi(strings.TrimPrefix(e.Key, "user-"))
			loaded[i].Add(1)
		}
	})
	each := sessions.TokenSource("")
	use := func(i int) {
		tok, err := each.TokenContext(fincodeauth.WithSession(t.Context(), name(i)))
		if err != nil || tok.AccessToken != name(i) {
			t.Errorf("session %s has token %v, error %v", name(i), tok, err)
		}
	}
	for i := range users {
		use(i)
		use(i % 100)
	}
	for i := range loaded[:100] {
		if n := loaded[i].Load(); n != 1 {
			t.Errorf("session %d, always in use, was loaded %d times", i, n)
		}
	}
	before := loaded[100].Load()
	if use(100); loaded[100].Load() == before {
		t.Error("the session used least recently is still in memory")
	}
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range users {
				use((i + g*users/8) % users)
			}
		})
	}
	wg.Wait()
}

// Of two new sessions that are looked up at once and belong into the same slot,
// nobody gets the other's.
func TestNewSessionsThatAreLookedUpAtOnceAreNotMistaken(t *testing.T) {
	const users, callers, rounds = 16, 4, 2000
	var names [users]string
	store := fincodeauth.NewMemoryStore()
	for i := range users {
		names[i] = fmt.Sprint("user-", i)
		tok := &oauth2.Token{AccessToken: names[i], RefreshToken: "r", Expiry: time.Now().Add(time.Hour)}
		if err := store.Save(t.Context(), names[i], &fincodeauth.Record{Version: "v", Token: tok}, ""); err != nil {
			t.Fatal(err)
		}
	}
	fc := fincodetest.New(fincodetest.Config{})
	for range rounds {
		each := newSessions(t, fc, withStore(store)).TokenSource("")
		var wg sync.WaitGroup
		for g := range callers {
			wg.Go(func() {
				for i := range users {
					name := names[(i+g)%users]
					tok, err := each.TokenContext(fincodeauth.WithSession(t.Context(), name))
					if err != nil || tok.AccessToken != name {
						t.Errorf("session %s has token %v, error %v", name, tok, err)
					}
				}
			})
		}
		wg.Wait()
	}
}

func TestASourceAndAContextOutliveTheirSessionsPlaceInMemory(t *testing.T) {
	fc := fincodetest.New(fincodetest.Config{})
	sessions := newSessions(t, fc, func(c *fincodeauth.Config) { c.MaxSessions = 1 })
	logIn(t, sessions, "a")
	src, each := sessions.TokenSource("a"), sessions.TokenSource("")
	ctx := fincodeauth.WithSession(t.Context(), "a")
	want := token(t, src).AccessToken
	for range 2 {
		tok, err := each.TokenContext(ctx)
		if err != nil || tok.AccessToken != want {
			t.Errorf("token %v, error %v by the context, want the session's", tok, err)
		}
		if token(t, src).AccessToken != want {
			t.Error("another token by the source")
		}
		logIn(t, sessions, "b") // "a" is dropped
	}
}

func TestAContextNamesASessionForEveryTenant(t *testing.T) {
	fc := fincodetest.New(fincodetest.Config{})
	one, two := newSessions(t, fc), newSessions(t, fc)
	logIn(t, one, "a")
	logIn(t, two, "a")
	ctx := fincodeauth.WithSession(fincodeauth.WithSession(t.Context(), "b"), "a")
	for range 2 {
		for _, sessions := range []*fincodeauth.Sessions{one, two} {
			tok, err := sessions.TokenSource("").TokenContext(ctx)
			if err != nil || tok != token(t, sessions.TokenSource("a")) {
				t.Errorf("token %v, error %v, want that tenant's own", tok, err)
			}
		}
	}
}

// Loggers and mocks print contexts while requests are under way.
func TestAContextIsPrintedByItsSessionsKeyAlone(t *testing.T) {
	for parent, want := range map[context.Context]string{
		context.Background():                            "context.Background",
		struct{ context.Context }{context.Background()}: "struct { context.Context }",
	} {
		ctx := fincodeauth.WithSession(parent, "a")
		for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
			if got := fmt.Sprintf(verb, ctx); got != want+`.WithSession("a")` {
				t.Errorf("%s prints %s", verb, got)
			}
		}
	}
}

func TestASessionIsNotDroppedBeforeFinCodeMayBeCalledAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		sessions := newSessions(t, fc, func(c *fincodeauth.Config) { c.MaxSessions = 1 })
		logIn(t, sessions, "a")
		logIn(t, sessions, "b")
		time.Sleep(2 * time.Hour)
		fc.Inject(fincodetest.Refresh, -1, fincodetest.Fault{Kind: fincodetest.ErrorStatus, Status: 429, RetryAfter: "3600"})
		for range 20 {
			for _, key := range []string{"a", "b"} {
				if _, err := sessions.TokenSource(key).Token(); err == nil {
					t.Fatal("a token although FinCode refuses")
				}
			}
		}
		if n := fc.Counts().RefreshCalls; n != 2 {
			t.Errorf("%d calls although FinCode asked to wait an hour, want one for each session", n)
		}
	})
}

// What a session in trouble knows is in no store: dropped, it would wait for its
// own claim, present a token that was refused, or take a breach for an interruption.
func TestASessionIsNotDroppedWithWhatItKnowsOfItsClaim(t *testing.T) {
	for name, test := range map[string]struct {
		fault       func(*fincodetest.FinCode, *brittleStore)
		stolen      bool
		presented   int
		loginsAgain int
	}{
		"a request that was lost": {fault: func(fc *fincodetest.FinCode, _ *brittleStore) {
			fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{Kind: fincodetest.HangUp})
		}, presented: 2},
		"a claim that could not be given back": {fault: func(fc *fincodetest.FinCode, store *brittleStore) {
			fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{Kind: fincodetest.ErrorStatus, Status: 429})
			store.set(successorsFail)
		}, stolen: true, presented: 3},
		"a login again that failed": {fault: func(fc *fincodetest.FinCode, _ *brittleStore) {
			fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{Kind: fincodetest.ErrorStatus, Status: 401})
			fc.Inject(fincodetest.Login, 1, fincodetest.Fault{Kind: fincodetest.ErrorStatus, Status: 503})
		}, presented: 1, loginsAgain: 2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fc := fincodetest.New(fincodetest.Config{})
				store := newBrittleStore()
				asked := 0
				sessions := newSessions(t, fc, withStore(store), func(c *fincodeauth.Config) {
					c.MaxSessions = 1
					c.Credentials = func(_ context.Context, _ string, cause error) (fincodeauth.Credentials, error) {
						asked++
						wantSessionError(t, cause, false, false)
						return credentials, nil
					}
				})
				logIn(t, sessions, "a")
				old := record(t, store, "a").Token.RefreshToken
				if test.stolen {
					present(t, fc, old)
				}
				time.Sleep(2 * time.Hour)
				test.fault(fc, store)
				if _, err := sessions.TokenSource("a").Token(); err == nil {
					t.Fatal("no error")
				}
				store.down(false)
				time.Sleep(2 * time.Second)
				sessions.TokenSource("b").Token() // would drop it
				var err error
				waited := elapsed(func() { _, err = sessions.TokenSource("a").Token() })
				if waited > 0 {
					t.Errorf("waited %v for a claim of its own", waited)
				}
				if test.stolen {
					wantSessionError(t, err, true, false)
				} else if err != nil {
					t.Error(err)
				}
				if n := fc.Presented(old); n != test.presented {
					t.Errorf("its token was presented %d times, want %d", n, test.presented)
				}
				if asked != test.loginsAgain {
					t.Errorf("asked for credentials %d times, want %d", asked, test.loginsAgain)
				}
			})
		})
	}
}

func TestASessionIsNotDroppedWithHowItsReplaysFared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		base := roundTripper(func(r *http.Request) (*http.Response, error) {
			if r.Method == http.MethodGet {
				return &http.Response{StatusCode: http.StatusUnauthorized, Body: http.NoBody}, nil
			}
			return fc.RoundTrip(r)
		})
		sessions := newSessions(t, fc, func(c *fincodeauth.Config) { c.Base, c.MaxSessions = base, 1 })
		logIn(t, sessions, "a")
		for range 300 { // nearly an hour
			time.Sleep(11 * time.Second)
			resp, err := sessions.Client("a").Get(fincodeauth.Sandbox("test") + "/balance")
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			sessions.TokenSource("b").Token()
		}
		if n := fc.Counts().Refreshes; n > 10 {
			t.Errorf("%d rotations for an endpoint that always answers 401", n)
		}
	})
}

// The session may be dropped between two steps of a Refresh.
func TestARejectionIsNotLostWithTheSessionsPlaceInMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		var sessions *fincodeauth.Sessions
		var armed atomic.Bool
		now := func() time.Time {
			if armed.CompareAndSwap(true, false) {
				sessions.TokenSource("b").Token() // "a" is dropped
			}
			return time.Now()
		}
		cfg := fincodeauth.Config{BaseURL: fincodeauth.Sandbox("test"), Base: fc, MaxSessions: 1}
		sessions, err := fincodeauth.NewOn(cfg, now, func() float64 { return 0 })
		if err != nil {
			t.Fatal(err)
		}
		logIn(t, sessions, "a")
		time.Sleep(30 * time.Minute)
		tok := token(t, sessions.TokenSource("a"))
		armed.Store(true)
		next, err := sessions.TokenSource("a").Refresh(t.Context(), tok)
		if err != nil || next.AccessToken == tok.AccessToken || fc.Counts().Refreshes != 1 {
			t.Errorf("error %v after %d refreshes, want another token after one", err, fc.Counts().Refreshes)
		}
	})
}

func TestEachCloseNamesWhatWasNotSaved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := newBrittleStore()
		sessions := newSessions(t, fc, withStore(store), func(c *fincodeauth.Config) { c.MaxSessions = 1 })
		store.set(successorsFail)
		logIn(t, sessions, "a")
		for range 2 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			if err := sessions.Close(ctx); err == nil || !strings.Contains(err.Error(), `"a"`) {
				t.Errorf("error %v, want one that names the session", err)
			}
			cancel()
			synctest.Wait()
			sessions.TokenSource("b").Token() // is no reason to forget it
		}
	})
}

func TestASessionWithUnsavedWorkIsNotDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := newBrittleStore()
		sessions := newSessions(t, fc, withStore(store), func(c *fincodeauth.Config) { c.MaxSessions = 1 })
		store.set(successorsFail)
		for n := range 5 {
			logIn(t, sessions, fmt.Sprint(n))
		}
		for n := range 5 {
			token(t, sessions.TokenSource(fmt.Sprint(n))) // the store does not have it
		}
		store.down(false)
		if err := sessions.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestManySessionsInLittleMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := fincodeauth.NewMemoryStore()
		sessions := newSessions(t, fc, withStore(store), func(c *fincodeauth.Config) { c.MaxSessions = 20 })
		const users = 100
		for n := range users {
			logIn(t, sessions, fmt.Sprint(n))
		}
		time.Sleep(2 * time.Hour)
		var wg sync.WaitGroup
		for n := range users {
			for range 5 {
				wg.Go(func() { token(t, sessions.TokenSource(fmt.Sprint(n))) })
			}
		}
		wg.Wait()
		wantCalls(t, fc, users, users)
		if twice := fc.PresentedMoreThanOnce(); len(twice) != 0 {
			t.Errorf("presented twice: %v", twice)
		}
	})
}

func TestAfterCloseEveryMethodReturnsErrClosed(t *testing.T) {
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
	} {
		if !errors.Is(err, fincodeauth.ErrClosed) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

func TestAPairAsItCameOffTheWireIsAdopted(t *testing.T) {
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
			t.Errorf("expiry %v", got.Expiry)
		}
	})
}

func TestTheZeroMemoryStoreIsEmpty(t *testing.T) {
	sessions := newSessions(t, fincodetest.New(fincodetest.Config{}), withStore(new(fincodeauth.MemoryStore)))
	logIn(t, sessions, "a")
	token(t, sessions.TokenSource("a"))
}

// sessionsIn returns what is before the dot in each Version that store takes from
// now on.
func sessionsIn(store *brittleStore) *[]string {
	saved := new([]string)
	store.set(func(s *brittleStore) {
		s.save = func(rec *fincodeauth.Record, save func() error) error {
			session, _, _ := strings.Cut(rec.Version, ".")
			*saved = append(*saved, session)
			return save()
		}
	})
	return saved
}

func TestVersionsBeginTheSameFromALoginToTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := newBrittleStore()
		saved := sessionsIn(store)
		sessions := newSessions(t, fc, withStore(store))
		src := sessions.TokenSource("a")
		logIn(t, sessions, "a")
		time.Sleep(2 * time.Hour)
		fc.Inject(fincodetest.Refresh, 1, fincodetest.Fault{Kind: fincodetest.ErrorStatus, Status: 429})
		if _, err := src.Token(); err == nil { // claims and releases
			t.Error("no error of a call that FinCode did not take")
		}
		time.Sleep(2 * time.Second)
		token(t, src) // claims and replaces
		if err := sessions.Logout(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		first := *saved
		if len(first) != 6 || len(slices.Compact(slices.Clone(first))) != 1 {
			t.Errorf("versions of one login begin with %q", first)
		}
		logIn(t, sessions, "a")
		logIn(t, sessions, "a") // over the record of the one before
		if all := *saved; len(slices.Compact(slices.Clone(all))) != 3 {
			t.Errorf("versions of three logins begin with %q", all)
		}
	})
}

func TestALoginByCredentialsGoesOnWithTheSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{RefreshLifetime: time.Hour})
		store := newBrittleStore()
		saved := sessionsIn(store)
		sessions := newSessions(t, fc, withStore(store), logInAgain)
		logIn(t, sessions, "a")
		time.Sleep(2 * time.Hour)
		token(t, sessions.TokenSource("a"))
		if s := *saved; len(s) != 3 || len(slices.Compact(s)) != 1 {
			t.Errorf("versions of a login, a claim and a login begin with %q", *saved)
		}
	})
}

func TestAnExpiryThatNoStoreCanWriteIsTakenForUnknown(t *testing.T) {
	files := newFileStore(t)
	sessions := newSessions(t, fincodetest.New(fincodetest.Config{}), withStore(files))
	err := sessions.Adopt(t.Context(), "a", &oauth2.Token{AccessToken: "t", Expiry: time.Date(20000, 1, 1, 0, 0, 0, 0, time.UTC)})
	if err != nil || record(t, files, "a").Token.AccessToken != "t" {
		t.Errorf("error %v, want it saved", err)
	}
}

func TestAnAdoptedJWTOfTheFarFutureIsSaved(t *testing.T) {
	store := newJSONStore()
	sessions := newSessions(t, nil, withStore(store))
	const jwt = "e30.eyJleHAiOjFlMzA4fQ.s" // {"exp":1e308}
	if err := sessions.Adopt(t.Context(), "a", &oauth2.Token{AccessToken: jwt}); err != nil {
		t.Fatal(err)
	}
	if tok := record(t, store, "a").Token; tok.AccessToken != jwt || !tok.Expiry.IsZero() {
		t.Errorf("expiry %v was saved, want none", tok.Expiry)
	}
}
