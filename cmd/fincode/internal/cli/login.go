package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/cmd/fincode/internal/failure"
	"github.com/fincodeauth/fincodeauth/cmd/fincode/internal/profile"
	"github.com/fincodeauth/fincodeauth/cmd/fincode/internal/secret"
)

const (
	maxEmail    = 320  // bytes; an address has at most 254 (RFC 5321, errata 1690)
	maxPassword = 4096 // bytes
	oaepSize    = 66   // bytes that OAEP with SHA-256 adds (RFC 8017, 7.1.1)
)

type loginOptions struct {
	email         string
	passwordStdin bool
	publicKey     string // file
}

func (a *app) loginCommand() *cobra.Command {
	var opts loginOptions
	c := &cobra.Command{
		Use:   "login",
		Short: "Log in, and keep the session",
		Long: `login asks FinCode for a session, and keeps it encrypted for the other commands. It
asks for what the flags leave out, if there is a terminal. The password comes from
the terminal, from FINCODE_PASSWORD, or with --password-stdin from a pipe.

The key that encrypts the session is in FINCODE_KEY (32 bytes in Base64), or in the
keyring of the operating system. If there is neither, login makes a file with the key,
which only you can read, and prints a warning.

With --store, the session is in a store that others use, too, such as a service. Set
FINCODE_KEY to the key with which they encrypt, or use --plain if they do not encrypt.`,
		Example: `  fincode login --tenant acme --email ada@example.com
  pass show fincode | head -n 1 | fincode login --tenant acme --email ada@example.com --password-stdin
  fincode login --url https://acme.fincode.tech/api/v6/services --profile production
  fincode login --tenant acme --store postgres://app@db/app --session operations`,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.login(cmd.Context(), opts) },
	}
	c.Flags().StringVar(&opts.email, "email", "", "email address of the user")
	c.Flags().BoolVar(&opts.passwordStdin, "password-stdin", false, "read the password from standard input")
	c.Flags().StringVar(&opts.publicKey, "public-key", "", "file with the tenant's RSA key that encrypts passwords, in Base64 or PEM")
	return c
}

// login does all that can fail before it asks for the password, and before it sends it: a
// session that cannot be kept is lost.
func (a *app) login(ctx context.Context, opts loginOptions) (err error) {
	p, err := a.profileToLogIn(ctx, opts)
	if err != nil {
		return err
	}
	credentials := fincodeauth.Credentials{Email: p.Email}
	if p.PublicKey != "" {
		if credentials.PublicKey, err = fincodeauth.ParsePublicKey(p.PublicKey); err != nil {
			return failure.Wrap(failure.Usage, err)
		}
	}
	s, err := a.openProfile(ctx, p, true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close(ctx)) }()
	draft, err := a.state().Draft(p)
	if err != nil {
		return failure.Wrap(failure.Local, err)
	}
	defer draft.Drop()
	if credentials.Password, err = a.password(ctx, opts, p.Email); err != nil {
		return err
	}
	if key := credentials.PublicKey; key != nil && len(credentials.Password) > key.Size()-oaepSize {
		return failure.New(failure.Usage, "the password has more than the %d bytes that the public key can encrypt", key.Size()-oaepSize)
	}
	if err := s.Login(ctx, s.key, credentials); err != nil {
		return failure.OfCall(err, p.Name)
	}
	if err := draft.Keep(); err != nil {
		return failure.Wrap(failure.Local, err)
	}
	a.sayLoggedIn(ctx, s)
	return nil
}

// sayLoggedIn tells a person what there is now.
func (a *app) sayLoggedIn(ctx context.Context, s *session) {
	if s.place == secret.File && s.profile.Store == "" {
		a.warn("warning: there is no keyring that works, so the key that encrypts the session is in the file %s; to keep it elsewhere, set %s",
			secret.Path(a.settings.state), secret.Variable)
	}
	fmt.Fprintf(a.Out, "Logged in to %s as %s (profile %s).\n", s.profile.URL, s.profile.Email, s.profile.Name)
	if st, err := s.Status(ctx, s.key); err == nil && !st.Expiry.IsZero() {
		fmt.Fprintf(a.Out, "The access token is valid until %s. It is refreshed when it is used.\n", clock(st.Expiry, time.Now()))
	}
}

// profileToLogIn returns the profile that the login is for. It asks for what is missing.
func (a *app) profileToLogIn(ctx context.Context, opts loginOptions) (profile.Profile, error) {
	old, err := a.state().Load(a.settings.profile)
	isNew := errors.Is(err, fs.ErrNotExist)
	if err != nil && !isNew {
		return old, failure.Wrap(failure.Local, err)
	}
	if isNew && a.settings.url == "" {
		if a.settings.tenant, err = a.ask(ctx, "Tenant", "--tenant or --url"); err != nil {
			return old, err
		}
		if err := a.settings.check(); err != nil {
			return old, err
		}
	}
	p := a.settings.over(old)
	if err := checkURL(p.URL); err != nil {
		return p, err
	}
	if err := checkSame(old, p, isNew); err != nil {
		return p, err
	}
	err = a.setUser(ctx, &p, opts)
	return p, err
}

// setUser sets who logs in, and the key that encrypts the password.
func (a *app) setUser(ctx context.Context, p *profile.Profile, opts loginOptions) (err error) {
	if opts.publicKey != "" {
		if p.PublicKey, err = readPublicKey(opts.publicKey); err != nil {
			return err
		}
	}
	p.Email = cmp.Or(opts.email, p.Email)
	if p.Email == "" {
		if p.Email, err = a.ask(ctx, "Email", "--email"); err != nil {
			return err
		}
	}
	return checkEmail(p.Email)
}

// checkURL refuses what cannot be FinCode's, such as http:// to another machine.
func checkURL(url string) error {
	if _, err := fincodeauth.New(fincodeauth.Config{BaseURL: url}); err != nil {
		return failure.New(failure.Usage, "%s", strings.Replace(err.Error(), "fincodeauth: Config: BaseURL", "--url", 1))
	}
	return nil
}

func checkEmail(email string) error {
	if len(email) > maxEmail || !utf8.ValidString(email) || strings.ContainsFunc(email, unicode.IsControl) {
		return failure.New(failure.Usage, "--email: an email address is one line with at most %d bytes", maxEmail)
	}
	return nil
}

// checkSame refuses to log in to another FinCode, or with another store, under the same
// name: what is there would be lost.
func checkSame(old, p profile.Profile, isNew bool) error {
	if isNew || old.URL == p.URL && old.Store == p.Store && old.Session == p.Session && old.Plain == p.Plain {
		return nil
	}
	what := "is for " + old.URL
	if old.URL == p.URL {
		what = "has its session elsewhere"
	}
	return &failure.Error{Status: failure.Usage, Err: fmt.Errorf("profile %s %s", p.Name, what),
		Do: "use another name with --profile, or first run: fincode logout --profile " + p.Name}
}

// password returns the password: from a pipe, the environment, or the terminal.
func (a *app) password(ctx context.Context, opts loginOptions, email string) (password string, err error) {
	switch {
	case opts.passwordStdin:
		password, err = readPassword(a.In)
	case a.Getenv("FINCODE_PASSWORD") != "":
		password = a.Getenv("FINCODE_PASSWORD")
	default:
		password, err = a.askSecret(ctx, "Password of "+email, "use --password-stdin, or set FINCODE_PASSWORD")
	}
	if err != nil {
		return "", err
	}
	return password, checkPassword(password)
}

// readPassword reads a password from a pipe, with or without a line's end.
func readPassword(in io.Reader) (string, error) {
	data, err := io.ReadAll(io.LimitReader(in, maxPassword+2))
	if err != nil {
		return "", fmt.Errorf("reading the password from standard input: %w", err)
	}
	password := strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r")
	if password == "" {
		return "", failure.New(failure.Usage, "standard input has no password: write it into the pipe")
	}
	return password, nil
}

// checkPassword refuses what cannot be a password, because each wrong one brings the
// account nearer to being locked.
func checkPassword(password string) error {
	switch {
	case len(password) > maxPassword:
		return failure.New(failure.Usage, "the password has more than %d bytes: check what is in the pipe", maxPassword)
	case strings.ContainsAny(password, "\r\n"):
		return failure.New(failure.Usage, "the password has more than one line: write the password alone into the pipe")
	case !utf8.ValidString(password):
		return failure.New(failure.Usage, "the password is not UTF-8: check the encoding of the terminal or the pipe")
	}
	return nil
}

// readPublicKey reads a public key from a file, and checks it. It returns it in Base64.
func readPublicKey(path string) (string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return "", failure.New(failure.Usage, "--public-key: %w", err)
	}
	var base64 strings.Builder
	for line := range strings.Lines(string(data)) {
		if !strings.HasPrefix(line, "-----") { // PEM's BEGIN and END
			base64.WriteString(strings.TrimSpace(line))
		}
	}
	if _, err := fincodeauth.ParsePublicKey(base64.String()); err != nil {
		return "", failure.New(failure.Usage, "--public-key %s: %w: use the tenant's key, in Base64 or PEM", path, err)
	}
	return base64.String(), nil
}
