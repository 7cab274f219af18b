package cli

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/cmd/fincode/internal/failure"
	"github.com/fincodeauth/fincodeauth/cmd/fincode/internal/profile"
	"github.com/fincodeauth/fincodeauth/cmd/fincode/internal/secret"
)

// The states of a session.
const (
	stateUsable      = "usable"
	stateLoginNeeded = "login_needed"
	stateUnknown     = "unknown"
)

// A statusView is what status shows of a session. The help of status describes the JSON,
// which scripts read: do not rename a field.
type statusView struct {
	Profile         string    `json:"profile"`
	State           string    `json:"state"`
	URL             string    `json:"url,omitempty"`
	Tenant          string    `json:"tenant,omitempty"`
	Session         string    `json:"session,omitempty"`
	User            string    `json:"user,omitempty"` // email address
	UserID          string    `json:"user_id,omitempty"`
	Roles           []string  `json:"roles"`
	ExpiresAt       time.Time `json:"expires_at,omitzero"`
	RefreshAt       time.Time `json:"refresh_at,omitzero"`
	RefreshedAt     time.Time `json:"refreshed_at,omitzero"`
	RefreshingSince time.Time `json:"refreshing_since,omitzero"`
	Unsaved         bool      `json:"unsaved"`
	Ended           string    `json:"ended,omitempty"`
	Reused          bool      `json:"reused"`
	Interrupted     bool      `json:"interrupted"`
	Store           string    `json:"store,omitempty"`
	Key             string    `json:"key,omitempty"`
	Problem         string    `json:"problem,omitempty"`

	status   failure.Status // to exit with; 0: the session can be used
	takeover time.Duration  // after which a process that is refreshing counts as dead
}

// look looks at the profile's session. It does not fail: what is wrong is in the view.
func (a *app) look(ctx context.Context) statusView {
	v := statusView{Profile: a.settings.profile, Roles: []string{}, takeover: 2 * a.settings.refreshTimeout}
	p, err := a.profile()
	if err != nil {
		v.fail(err)
		return v
	}
	v.setProfile(p, a.state())
	s, err := a.openProfile(ctx, p, false)
	if err != nil {
		v.fail(err)
		return v
	}
	v.Key = a.placeOf(s)
	st, err := s.Status(ctx, s.key)
	err = errors.Join(err, s.close(ctx))
	v.Unsaved = st.Unsaved || p.Store != "" && hasJournaled(a.state().JournalFolder(p)) // after Status, which saves what it can
	if err != nil {
		v.fail(err)
		return v
	}
	v.setSession(st, time.Now())
	if v.State == stateUsable && v.RefreshedAt.IsZero() && p.Store == "" { // other machines have journals of their own
		v.RefreshedAt = inUTC(a.lastRotation(p))
	}
	return v
}

// lastRotation returns when a process last got a token, for tokens that do not say when they
// were issued. It reads the whole journal of events. Zero: the journal does not say it.
func (a *app) lastRotation(p profile.Profile) (last time.Time) {
	earlier, _ := a.earlierEvents(p)
	for _, e := range earlier {
		if e.Type == fincodeauth.LoggedIn || e.Type == fincodeauth.Refreshed {
			last = e.Time
		}
	}
	return last
}

// setProfile sets what login was told.
func (v *statusView) setProfile(p profile.Profile, state profile.State) {
	v.URL, v.Session, v.User = p.URL, p.Session, p.Email
	v.Tenant = tenantOf(p.URL)
	v.Store = state.Folder(p.Name, "sessions")
	if p.Store != "" {
		v.Store = profile.Redacted(p.Store)
	}
}

// tenantOf returns the tenant of a URL (FINCODE.md, Where it lives); "": it is not FinCode's.
func tenantOf(baseURL string) string {
	u, err := url.Parse(baseURL)
	if err != nil {
		return ""
	}
	for _, domain := range []string{".fincode.software", ".fincode.tech"} {
		if tenant, ok := strings.CutSuffix(u.Hostname(), domain); ok {
			return tenant
		}
	}
	return ""
}

// placeOf says where the key is.
func (a *app) placeOf(s *session) string {
	switch {
	case s.profile.Plain:
		return "none, the tokens are not encrypted"
	case s.place == secret.File:
		return "the file " + secret.Path(a.settings.state)
	}
	return s.place.String()
}

// hasJournaled reports whether a Journal in dir has a record that the store lacks.
func hasJournaled(dir string) bool {
	entries, err := filepath.Glob(filepath.Join(dir, "*", "*.json"))
	return err == nil && len(entries) > 0
}

// setSession sets what the store has.
func (v *statusView) setSession(st fincodeauth.Status, now time.Time) {
	v.UserID, v.Roles = st.Claims.UserID, append(v.Roles, st.Claims.Roles...)
	v.ExpiresAt = inUTC(st.Expiry)
	v.RefreshAt = inUTC(st.RefreshAt)
	v.RefreshedAt = inUTC(st.Claims.Issued)
	v.RefreshingSince = inUTC(st.RefreshStarted)
	v.Ended, v.Reused, v.Interrupted = st.Ended, st.Reused, st.Interrupted
	switch {
	case !st.Exists:
		v.needLogin(st, fincodeauth.ErrNotFound)
	case st.Ended != "":
		v.needLogin(st, errors.New(st.Ended))
	case !st.Expiry.IsZero() && !st.Expiry.After(now) && st.RefreshAt.IsZero():
		v.needLogin(st, errors.New("the access token has expired, and there is no refresh token"))
	default:
		v.State = stateUsable
	}
}

func (v *statusView) needLogin(st fincodeauth.Status, why error) {
	v.fail(&fincodeauth.SessionError{Key: st.Key, Reused: st.Reused, Interrupted: st.Interrupted, Err: why})
}

// fail sets what err means.
func (v *statusView) fail(err error) {
	f := failure.Of(err, v.Profile)
	v.Problem, v.status, v.State = f.Line(), f.Status, stateUnknown
	if f.Status == failure.LoginNeeded {
		v.State = stateLoginNeeded
	}
}

func inUTC(t time.Time) time.Time { return t.UTC().Truncate(time.Second) }

const (
	labelWidth = 15 // of the first column, in characters
	labelState = "Session"
)

// A row is a line of the text.
type row struct{ label, text string }

// rows returns the view as text. It has no character that controls a terminal, whatever
// FinCode wrote into a token.
func (v *statusView) rows(now time.Time) []row {
	var rows []row
	add := func(label, text string) {
		if text != "" {
			rows = append(rows, row{label, failure.Plain(text)})
		}
	}
	add("Profile", v.Profile)
	add(labelState, strings.ReplaceAll(v.State, "_", " "))
	add("Problem", v.Problem)
	add("FinCode", v.URL)
	add("Tenant", v.Tenant)
	add("User", userText(v.User, v.UserID))
	add("Roles", strings.Join(v.Roles, ", "))
	add("Access token", expiryText(v.ExpiresAt, now))
	add("Next refresh", refreshText(v.RefreshAt, now))
	add("Last rotation", agoText(v.RefreshedAt, now))
	add("Refreshing", sinceText(v.RefreshingSince, now, v.takeover))
	if v.Unsaved {
		add("Unsaved", "a new token is on this disk, because the store did not accept it yet")
	}
	add("Store", v.Store)
	add("Key", v.Key)
	return rows
}

func userText(email, id string) string {
	switch {
	case id == "":
		return email
	case email == "":
		return "user-id " + id
	}
	return fmt.Sprintf("%s (user-id %s)", email, id)
}

func expiryText(t, now time.Time) string {
	switch {
	case t.IsZero():
		return ""
	case t.After(now):
		return fmt.Sprintf("valid until %s (%s left)", clock(t, now), span(t.Sub(now)))
	}
	return fmt.Sprintf("expired at %s (%s ago)", clock(t, now), span(now.Sub(t)))
}

func refreshText(t, now time.Time) string {
	switch {
	case t.IsZero():
		return ""
	case t.After(now):
		return fmt.Sprintf("when it is used after %s (in %s)", clock(t, now), span(t.Sub(now)))
	}
	return "when it is used"
}

func agoText(t, now time.Time) string {
	if t.IsZero() {
		return ""
	}
	return fmt.Sprintf("%s (%s ago)", clock(t, now), span(now.Sub(t)))
}

func sinceText(t, now time.Time, takeover time.Duration) string {
	switch {
	case t.IsZero():
		return ""
	case now.Sub(t) > takeover:
		return fmt.Sprintf("a process began at %s and died; whoever uses the session next takes over", clock(t, now))
	}
	return fmt.Sprintf("a process began at %s (%s ago)", clock(t, now), span(now.Sub(t)))
}

// clock returns the local time, with the day unless that is today.
func clock(t, now time.Time) string {
	t, now = t.Local(), now.Local()
	if t.Format(time.DateOnly) == now.Format(time.DateOnly) {
		return t.Format(time.TimeOnly)
	}
	return t.Format(time.DateTime)
}

// span returns a duration in whole seconds; a clock that differs makes none negative.
func span(d time.Duration) string { return max(0, d).Round(time.Second).String() }
