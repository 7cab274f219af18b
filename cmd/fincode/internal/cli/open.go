package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"strings"
	"time"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/cmd/fincode/internal/failure"
	"github.com/fincodeauth/fincodeauth/cmd/fincode/internal/profile"
	"github.com/fincodeauth/fincodeauth/cmd/fincode/internal/proxy"
	"github.com/fincodeauth/fincodeauth/cmd/fincode/internal/secret"
)

// closePatience is how long a command waits at its end for a store that is down. After
// that, a new token is in the profile's journal, or it is lost.
const closePatience = 30 * time.Second

// patience is after how long a person is told why the command waits.
const patience = 2 * time.Second

// A session is a profile's session, opened.
type session struct {
	*fincodeauth.Sessions
	profile profile.Profile
	key     string // the session's, in the store
	place   secret.Place
	store   profile.Opened
	warn    func(format string, args ...any) // prints one line for a person
}

// A tap sees what the Sessions do. Each field may be nil.
type tap struct {
	observe func(fincodeauth.Event)
	base    func(http.RoundTripper) http.RoundTripper // around what sends requests to FinCode
	// store is around the store. So New does not see that the store is a Journal, and does
	// not save in the background what it has. The first Load of the session does that.
	store func(fincodeauth.Store) fincodeauth.Store
}

// state returns the state folder.
func (a *app) state() profile.State { return profile.At(a.settings.state) }

// profile returns the profile that the flags name, with what the flags change. It need not
// exist if the flags say where FinCode is.
func (a *app) profile() (profile.Profile, error) {
	p, err := a.state().Load(a.settings.profile)
	switch {
	case errors.Is(err, fs.ErrNotExist) && a.settings.url == "":
		return p, a.noProfile()
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return p, err
	case err == nil && !sameURL(p.URL, a.settings.over(p).URL): // the tokens would go to somebody else's server
		return p, &failure.Error{Status: failure.Usage, Err: fmt.Errorf("profile %s is for %s, and not for what --tenant or --url says", p.Name, p.URL),
			Do: "leave that out, or use another --profile"}
	}
	return a.settings.over(p), nil
}

func sameURL(a, b string) bool { return strings.TrimRight(a, "/") == strings.TrimRight(b, "/") }

// over returns p with what the flags change.
func (s *settings) over(p profile.Profile) profile.Profile {
	p.Name = s.profile
	if s.url != "" {
		p.URL = strings.TrimRight(s.url, "/")
	}
	if s.store != "" && s.store != p.Store {
		p.Store, p.Plain = s.store, false
	}
	if s.plain {
		p.Plain = true
	}
	if s.session != "" {
		p.Session = s.session
	}
	if p.Session == "" {
		p.Session = p.Name
	}
	return p
}

// noProfile says that nobody has logged in.
func (a *app) noProfile() error {
	names, err := a.state().Names()
	if err != nil {
		return err
	}
	e := failure.New(failure.LoginNeeded, "profile %s has no session", a.settings.profile)
	e.Do = "log in with: " + failure.InProfile("fincode login", a.settings.profile)
	if len(names) > 0 {
		e.Do += fmt.Sprintf(" (there are these profiles: %v)", names)
	}
	return e
}

// openProfile opens a session, which the caller closes. For a login, it makes what is
// missing: a key, a table.
func (a *app) openProfile(ctx context.Context, p profile.Profile, forLogin bool, taps ...tap) (*session, error) {
	keys, place, err := a.keys(ctx, p, forLogin)
	if err != nil {
		return nil, err
	}
	return a.openWith(ctx, p, keys, place, forLogin, taps...)
}

// openWith opens a session whose keys are known.
func (a *app) openWith(ctx context.Context, p profile.Profile, keys [][]byte, place secret.Place, forLogin bool, taps ...tap) (*session, error) {
	store, err := a.state().OpenStore(ctx, p, keys, forLogin)
	if err != nil {
		return nil, err
	}
	cfg := configFor(p, store.Store, append(taps, a.events(ctx, p, keys)))
	cfg.RefreshTimeout = a.settings.refreshTimeout
	sessions, err := fincodeauth.New(cfg)
	if err != nil {
		return nil, failure.Wrap(failure.Usage, errors.Join(err, store.Close()))
	}
	return &session{Sessions: sessions, profile: p, key: p.Session, place: place, store: store, warn: a.warn}, nil
}

// keys returns the keys for the profile's store, and where they are.
func (a *app) keys(ctx context.Context, p profile.Profile, forLogin bool) (keys [][]byte, place secret.Place, err error) {
	switch {
	case a.settings.plain && p.Store == "":
		return nil, 0, failure.New(failure.Usage, "--plain is for a store that others share: name it with --store, or leave --plain out")
	case p.Plain:
		return nil, 0, nil
	case p.Store != "": // others share it, so a key of this machine alone is wrong
		keys, err = secret.FromEnvironment(a.Getenv)
		if errors.Is(err, secret.ErrNone) {
			err = failure.New(failure.Usage, "there is no key for the store %s: set %s to the key of whoever shares it, or use --plain if the tokens in it are not encrypted",
				profile.Redacted(p.Store), secret.Variable)
		}
		return keys, secret.Environment, err
	case forLogin:
		return secret.FindOrMake(ctx, a.settings.state, a.Getenv)
	}
	keys, place, err = secret.Find(ctx, a.settings.state, a.Getenv)
	if errors.Is(err, secret.ErrNone) {
		err = a.noProfile()
	}
	return keys, place, err
}

// configFor returns the Config of a profile's Sessions.
func configFor(p profile.Profile, store fincodeauth.Store, taps []tap) fincodeauth.Config {
	base := http.RoundTripper(named{proxy.NewBase()})
	var observers []func(fincodeauth.Event)
	for _, t := range taps {
		if t.base != nil {
			base = t.base(base)
		}
		if t.store != nil {
			store = t.store(store)
		}
		if t.observe != nil {
			observers = append(observers, t.observe)
		}
	}
	return fincodeauth.Config{BaseURL: p.URL, Store: store, Base: base, Observe: func(e fincodeauth.Event) {
		for _, observe := range observers {
			observe(e)
		}
	}}
}

// A named sends requests under the command's name, unless they have one.
type named struct{ *http.Transport }

func (n named) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Header.Get("User-Agent") == "" {
		header := r.Header.Clone()
		header.Set("User-Agent", "fincode/"+version())
		r = r.WithContext(r.Context()) // a copy: a RoundTripper must not change its request
		r.Header = header
	}
	return n.Transport.RoundTrip(r)
}

// close waits for what is not saved yet, and closes the store. ctx need not be alive.
func (s *session) close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closePatience)
	defer cancel()
	defer s.sayAfter(patience, "waiting for the end of a refresh; if you interrupt it, you may have to log in again")()
	return errors.Join(failure.Wrap(failure.Local, s.Sessions.Close(ctx)), s.store.Close())
}

// sayAfter tells a person why the command does not go on, unless stop is called within d.
func (s *session) sayAfter(d time.Duration, text string) (stop func()) {
	said := make(chan struct{})
	timer := time.AfterFunc(d, func() {
		defer close(said)
		s.warn("%s", text)
	})
	return func() {
		if !timer.Stop() {
			<-said // nobody else writes to standard error meanwhile
		}
	}
}
