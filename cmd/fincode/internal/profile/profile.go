// Package profile keeps the command's profiles: which FinCode a user logged in to, and
// where the session is.
//
// The state folder has
//
//	key                        the key that encrypts the sessions, or where it is
//	profiles/NAME/profile.json what login was told
//	profiles/NAME/sessions     the session, unless a store elsewhere has it
//	profiles/NAME/journal      what a store elsewhere has not accepted yet
//	profiles/NAME/events       what happened to the session, for fincode why
//
// profile.go has the folder, and store.go opens the stores.
package profile

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/fincodeauth/fincodeauth/cmd/fincode/internal/failure"
	"github.com/fincodeauth/fincodeauth/internal/durable"
)

// Default is the name of the profile that is used if none is named.
const Default = "default"

// A Profile says where a session is.
type Profile struct {
	Name string `json:"-"`

	// URL is the BaseURL of FinCode.
	URL string `json:"url"`

	// Session is the session's key in the store.
	Session string `json:"session"`

	// Store is the URL of a store elsewhere, which may hold a password; "": the folder of
	// the profile.
	Store string `json:"store,omitempty"`

	// Plain: whoever shares the store does not use Encrypt.
	Plain bool `json:"plain,omitempty"`

	// Email is who logged in last; "": nobody did here.
	Email string `json:"email,omitempty"`

	// PublicKey is the tenant's key that encrypts the password of a login, in Base64; "":
	// there is none.
	PublicKey string `json:"public_key,omitempty"`
}

// String names the profile without the address of its store, which may hold a password.
func (p Profile) String() string { return fmt.Sprintf("Profile(%s, %s)", p.Name, p.URL) }

// Format prints what String returns, whatever the verb.
func (p Profile) Format(f fmt.State, _ rune) { fmt.Fprint(f, p.String()) }

// A State is the state folder.
type State struct{ dir string }

// At returns the State in the folder dir, which need not exist.
func At(dir string) State { return State{dir} }

// Folder returns the folder of one of a profile's parts: sessions, journal or events.
func (s State) Folder(profile, part string) string {
	return filepath.Join(s.dir, "profiles", profile, part)
}

func (s State) file(profile string) string { return s.Folder(profile, "profile.json") }

// names are the names that a profile may have: those that are one folder everywhere.
var names = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// CheckName refuses names that cannot be a folder's.
func CheckName(name string) error {
	if !names.MatchString(name) || strings.HasSuffix(name, ".") {
		return failure.New(failure.Usage, "the profile %q: use up to 64 letters, digits, dots, dashes and underscores", name)
	}
	return nil
}

// Load returns the profile with that name. If there is none, its error wraps fs.ErrNotExist.
func (s State) Load(name string) (Profile, error) {
	if err := CheckName(name); err != nil {
		return Profile{}, err
	}
	path := s.file(name)
	data, err := os.ReadFile(path)
	if err != nil {
		return Profile{}, err
	}
	p := Profile{Name: name}
	if err := json.Unmarshal(data, &p); err != nil { // err has no content of the file
		return Profile{}, &failure.Error{Status: failure.Local, Err: fmt.Errorf("the profile %s is damaged: %w", path, err),
			Do: "restore it, or remove it and log in again"}
	}
	return p, nil
}

// A Draft is a profile that is on the disk already, but not in use. Either Keep or Drop
// ends it.
type Draft struct{ tmp, path string }

// Draft writes the profile, so that only a Keep is left to do.
func (s State) Draft(p Profile) (Draft, error) {
	if err := CheckName(p.Name); err != nil {
		return Draft{}, err
	}
	path := s.file(p.Name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return Draft{}, err
	}
	data, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return Draft{}, err
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), "profile-*") // with mode 0600
	if err != nil {
		return Draft{}, err
	}
	if err := durable.WriteFile(tmp, append(data, '\n')); err != nil {
		return Draft{}, errors.Join(err, os.Remove(tmp.Name()))
	}
	return Draft{tmp.Name(), path}, nil
}

// Keep puts the profile in the place of an older one. A reader sees the old one or the new
// one, never a part.
func (d Draft) Keep() error {
	if err := os.Rename(d.tmp, d.path); err != nil {
		return errors.Join(err, os.Remove(d.tmp))
	}
	return durable.SyncDir(filepath.Dir(d.path))
}

// Drop forgets the draft. After a Keep, it does nothing.
func (d Draft) Drop() { os.Remove(d.tmp) }

// Remove forgets what login was told. The folder of the sessions stays: its record says that
// the session is out. Without that record, a process that has the session in its memory, such
// as a proxy, would take the Logout for a loss, and save the session again.
func (s State) Remove(name string) error {
	if err := CheckName(name); err != nil {
		return err
	}
	err := os.Remove(s.file(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return failure.Wrap(failure.Local, err)
}

// Names returns the names of all profiles, in alphabetical order.
func (s State) Names() ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(s.dir, "profiles")) // sorted
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var found []string
	for _, entry := range entries {
		if _, err := os.Stat(s.file(entry.Name())); err == nil && names.MatchString(entry.Name()) {
			found = append(found, entry.Name())
		}
	}
	return found, nil
}

// Redacted returns the address of a store without its password.
func Redacted(store string) string {
	u, err := url.Parse(store)
	if err != nil || CheckStore(store) != nil {
		return "(a store whose address cannot be read)"
	}
	if u.RawQuery != "" { // a password may be there, too
		u.RawQuery = "…"
	}
	return u.Redacted()
}
