package cli

import (
	"bytes"
	"context"
	"encoding/base64"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fincodeauth/fincodeauth/cmd/fincode/internal/profile"
	"github.com/fincodeauth/fincodeauth/fincodetest"
)

// A loginRun is what one run of the command left.
type loginRun struct {
	status   int
	out, err string
}

// A loginBench runs the command in this process, with a state folder and an environment of
// its own.
type loginBench struct {
	t     *testing.T
	env   map[string]string
	state string
	stdin string
}

func newLoginBench(t *testing.T) *loginBench {
	state := filepath.Join(t.TempDir(), "state")
	config := filepath.Join(t.TempDir(), "empty.yaml") // not that of whoever runs the test
	if err := os.WriteFile(config, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return &loginBench{t: t, state: state, env: map[string]string{
		"FINCODE_STATE": state, "FINCODE_CONFIG": config, "FINCODE_PASSWORD": fincodetest.Password,
		"FINCODE_KEY": base64.StdEncoding.EncodeToString(bytes.Repeat([]byte("k"), 32)),
	}}
}

func (b *loginBench) run(args ...string) loginRun { return b.runWith(b.t.Context(), args...) }

func (b *loginBench) runWith(ctx context.Context, args ...string) loginRun {
	var out, errs bytes.Buffer
	env := maps.Clone(b.env)
	status := Main(ctx, Process{Args: args, In: strings.NewReader(b.stdin), Out: &out, Err: &errs,
		Getenv: func(name string) string { return env[name] }})
	for _, secret := range []string{env["FINCODE_PASSWORD"], env["FINCODE_KEY"]} {
		if secret != "" && strings.Contains(out.String()+errs.String(), secret) {
			b.t.Errorf("%v printed a secret:\n%s%s", args, &out, &errs)
		}
	}
	return loginRun{status, out.String(), errs.String()}
}

// wantFailure fails the test unless the run failed with the status, and with one line that
// has the texts.
func (r loginRun) wantFailure(t *testing.T, status int, texts ...string) {
	t.Helper()
	if r.status != status || strings.Count(r.err, "\n") != 1 || r.out != "" {
		t.Errorf("status %d, %q, %q; want status %d and one line on stderr", r.status, r.out, r.err, status)
	}
	for _, text := range texts {
		if !strings.Contains(r.err, text) {
			t.Errorf("%q: want %q in it", r.err, text)
		}
	}
}

func (r loginRun) wantSuccess(t *testing.T) {
	t.Helper()
	if r.status != 0 || r.err != "" {
		t.Fatalf("status %d, %q; want 0", r.status, r.err)
	}
}

// newLoginServer starts a FinCode. sent counts the calls that reach it.
func newLoginServer(t *testing.T, cfg fincodetest.Config) *fincodetest.Server {
	srv := fincodetest.NewServer(cfg)
	t.Cleanup(srv.Close)
	return srv
}

func loginArgs(srv *fincodetest.Server, more ...string) []string {
	return append([]string{"login", "--url", srv.URL, "--email", fincodetest.Email}, more...)
}

func TestLoginKeepsAnEncryptedSession(t *testing.T) {
	b, srv := newLoginBench(t), newLoginServer(t, fincodetest.Config{})
	r := b.run("login", "--url", srv.URL+"/", "--email", fincodetest.Email)
	r.wantSuccess(t)
	want := "Logged in to " + srv.URL + " as " + fincodetest.Email + " (profile default).\nThe access token is valid until "
	if !strings.HasPrefix(r.out, want) {
		t.Errorf("printed %q, want %q", r.out, want)
	}
	p, err := profile.At(b.state).Load("default")
	if want := (profile.Profile{Name: "default", URL: srv.URL, Session: "default", Email: fincodetest.Email}); err != nil || p != want {
		t.Errorf("the profile is %#v, %v", p, err)
	}
	err = filepath.WalkDir(b.state, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if info, _ := d.Info(); info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		if data, _ := os.ReadFile(path); bytes.Contains(data, []byte("eyJ")) || bytes.Contains(data, []byte(fincodetest.Password)) {
			t.Errorf("%s holds a token or the password", path)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}

	b.run("login").wantSuccess(t) // the profile knows the URL and the email
	if n := srv.Counts().Logins; n != 2 {
		t.Errorf("FinCode saw %d logins, want 2", n)
	}
}

func TestLoginSendsAnEncryptedPassword(t *testing.T) {
	srv := newLoginServer(t, fincodetest.Config{RequireEncryption: true})
	for name, text := range map[string]string{
		"Base64": srv.PublicKey() + "\n",
		"PEM":    "-----BEGIN PUBLIC KEY-----\n" + srv.PublicKey() + "\n-----END PUBLIC KEY-----\n",
	} {
		t.Run(name, func(t *testing.T) {
			b := newLoginBench(t)
			path := filepath.Join(t.TempDir(), "key.pem")
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			b.run(loginArgs(srv, "--public-key", path)...).wantSuccess(t)
			b.run("login").wantSuccess(t) // the profile knows the key
		})
	}
	b := newLoginBench(t)
	path := filepath.Join(t.TempDir(), "key.pem")
	b.run(loginArgs(srv, "--public-key", path)...).wantFailure(t, 2, "--public-key", path)
	if err := os.WriteFile(path, []byte("no key"), 0o600); err != nil {
		t.Fatal(err)
	}
	b.run(loginArgs(srv, "--public-key", path)...).wantFailure(t, 2, "--public-key", "not Base64")
}

// TestLoginSendsThePasswordAsItIs: spaces at its ends belong to it.
func TestLoginSendsThePasswordAsItIs(t *testing.T) {
	for _, password := range []string{" two spaces ", "tab\t", "nul\x00nul", "пароль", strings.Repeat("x", maxPassword)} {
		srv := newLoginServer(t, fincodetest.Config{})
		srv.AddUser("ada@example.com", password)
		for _, end := range []string{"", "\n", "\r\n"} {
			b := newLoginBench(t)
			b.stdin = password + end
			b.run("login", "--url", srv.URL, "--email", "ada@example.com", "--password-stdin").wantSuccess(t)
		}
	}
}

func TestLoginRefusesWhatCannotBeAPasswordOrAnEmail(t *testing.T) {
	srv := newLoginServer(t, fincodetest.Config{})
	for name, c := range map[string]struct{ stdin, email, want string }{
		"empty":            {"", fincodetest.Email, "no password"},
		"line alone":       {"\n", fincodetest.Email, "no password"},
		"two lines":        {"a\nb\n", fincodetest.Email, "more than one line"},
		"too long":         {strings.Repeat("x", maxPassword+1), fincodetest.Email, "more than 4096 bytes"},
		"endless":          {strings.Repeat("x", 1<<20), fincodetest.Email, "more than 4096 bytes"},
		"Latin-1":          {"caf\xe9", fincodetest.Email, "not UTF-8"},
		"newline in email": {"a", "ada@example.com\nX: y", "--email"},
		"long email":       {"a", strings.Repeat("a", 400) + "@example.com", "--email"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newLoginBench(t)
			b.stdin = c.stdin
			b.run("login", "--url", srv.URL, "--email", c.email, "--password-stdin").wantFailure(t, 2, c.want)
			b.wantNoProfile()
		})
	}
	if c := srv.Counts(); c != (fincodetest.Counts{}) {
		t.Errorf("FinCode saw %+v, want nothing", c)
	}
}

// wantNoProfile fails the test if a login has left a profile.
func (b *loginBench) wantNoProfile() {
	b.t.Helper()
	names, err := profile.At(b.state).Names()
	if err != nil || len(names) > 0 {
		b.t.Errorf("there are the profiles %v, %v; want none", names, err)
	}
	if drafts, _ := filepath.Glob(b.state + "/profiles/*/profile-*"); len(drafts) > 0 {
		b.t.Errorf("%v is left", drafts)
	}
}

func TestFailedLoginLeavesNoProfile(t *testing.T) {
	b, srv := newLoginBench(t), newLoginServer(t, fincodetest.Config{})
	b.run("login", "--url", srv.URL, "--email", "nobody@example.com").wantFailure(t, 4, "no such user", "check the email")
	b.env["FINCODE_PASSWORD"] = "wrong password"
	b.run(loginArgs(srv)...).wantFailure(t, 4, "wrong email or password", "not often")
	b.wantNoProfile()
}

func TestFailedLoginLeavesTheSessionThatIsThere(t *testing.T) {
	b, srv := newLoginBench(t), newLoginServer(t, fincodetest.Config{})
	b.run(loginArgs(srv)...).wantSuccess(t)
	before := filesBelow(t, b.state)
	b.env["FINCODE_PASSWORD"] = "wrong password"
	b.run("login").wantFailure(t, 4, "wrong email or password")
	// Without profile.json, as after somebody removed one that was damaged.
	path := filepath.Join(b.state, "profiles/default/profile.json")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	b.run(loginArgs(srv)...).wantFailure(t, 4, "wrong email or password")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if after := filesBelow(t, b.state); !maps.Equal(before, after) {
		t.Errorf("the state folder has %v, want %v", after, before)
	}
}

// filesBelow returns the content of each file below dir.
// filesBelow returns the files in dir and their contents. A journal of events grows with
// each command, so it does not count.
func filesBelow(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := make(map[string]string)
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		switch {
		case err == nil && d.Name() == "events":
			return filepath.SkipDir
		case err != nil || d.IsDir():
			return err
		}
		data, err := os.ReadFile(path)
		files[path] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestLoginToAnotherFinCodeUnderTheSameNameIsRefused(t *testing.T) {
	b, srv, other := newLoginBench(t), newLoginServer(t, fincodetest.Config{}), newLoginServer(t, fincodetest.Config{})
	b.run(loginArgs(srv)...).wantSuccess(t)
	b.run(loginArgs(other)...).wantFailure(t, 2, "profile default is for "+srv.URL, "fincode logout --profile default")
	b.run("login", "--session", "another").wantFailure(t, 2, "has its session elsewhere")
	b.run("login", "--store", "dir:"+t.TempDir()).wantFailure(t, 2, "has its session elsewhere")
	b.run(loginArgs(other, "--profile", "other")...).wantSuccess(t)
	if c := other.Counts(); c.Logins != 1 {
		t.Errorf("the other FinCode saw %d logins, want 1", c.Logins)
	}
}

// TestURLThatCannotBeFinCodesIsRefusedFirst: before a question, a file or the keyring.
func TestURLThatCannotBeFinCodesIsRefusedFirst(t *testing.T) {
	for _, url := range []string{"http://example.com/api", "ftp://127.0.0.1", "127.0.0.1:9801", "https://user:hunter2@example.com/", "https://example.com/?a=hunter2", "https://a b"} {
		b := newLoginBench(t)
		delete(b.env, "FINCODE_KEY")
		delete(b.env, "FINCODE_PASSWORD")
		r := b.run("login", "--url", url)
		r.wantFailure(t, 2, "fincode: --url ")
		if strings.Contains(r.err, "hunter2") {
			t.Errorf("%s is in the error: %s", url, r.err)
		}
		if _, err := os.Stat(b.state); !os.IsNotExist(err) {
			t.Errorf("%s: the state folder was made", url)
		}
	}
	for _, tenant := range []string{"acme.fincode.software", "a/b", "-", strings.Repeat("a", 64), "acme\n"} {
		newLoginBench(t).run("login", "--tenant", tenant).wantFailure(t, 2, "--tenant")
	}
}

func TestWithoutATerminalLoginSaysWhatIsMissing(t *testing.T) {
	b, srv := newLoginBench(t), newLoginServer(t, fincodetest.Config{})
	delete(b.env, "FINCODE_PASSWORD")
	b.run("login").wantFailure(t, 2, "no terminal", "--tenant or --url")
	b.run("login", "--url", srv.URL).wantFailure(t, 2, "no terminal", "--email")
	b.run(loginArgs(srv)...).wantFailure(t, 2, "no terminal", "--password-stdin", "FINCODE_PASSWORD")
	b.wantNoProfile()
}

// TestLoginSendsNothingIfTheSessionCannotBeKept, because it would be lost.
func TestLoginSendsNothingIfTheSessionCannotBeKept(t *testing.T) {
	srv := newLoginServer(t, fincodetest.Config{})
	refused := refusedAddress(t)
	for name, c := range map[string]struct {
		prepare func(t *testing.T, b *loginBench)
		args    []string
		status  int
		want    string
	}{
		"state is a file":   {prepare: func(t *testing.T, b *loginBench) { writeFile(t, b.state, "") }, status: 5, want: "not a directory"},
		"profile damaged":   {prepare: func(t *testing.T, b *loginBench) { writeFile(t, b.state+"/profiles/default/profile.json", "{") }, status: 5, want: "is damaged"},
		"sessions a file":   {prepare: func(t *testing.T, b *loginBench) { writeFile(t, b.state+"/profiles/default/sessions", "") }, status: 5, want: "is a file"},
		"no key":            {prepare: func(_ *testing.T, b *loginBench) { delete(b.env, "FINCODE_KEY") }, args: []string{"--store", "redis://127.0.0.1/9"}, status: 2, want: "FINCODE_KEY"},
		"bad key":           {prepare: func(_ *testing.T, b *loginBench) { b.env["FINCODE_KEY"] = "short" }, status: 2, want: "FINCODE_KEY"},
		"plain, no store":   {args: []string{"--plain"}, status: 2, want: "--store"},
		"PostgreSQL down":   {args: []string{"--store", "postgres://app:s3cret@" + refused + "/app"}, status: 5, want: "refused"},
		"Redis down":        {args: []string{"--store", "redis://app:s3cret@" + refused + "/0"}, status: 5, want: "refused"},
		"dir: not absolute": {args: []string{"--store", "dir:sessions"}, status: 2, want: "absolute"},
		"no such store":     {args: []string{"--store", "mysql://app:s3cret@host/x"}, status: 2, want: "--store"},
		"dir: is a file":    {prepare: func(t *testing.T, b *loginBench) { writeFile(t, b.state+"/f", "") }, args: []string{"--store", "dir:STATE/f"}, status: 5, want: "is a file"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newLoginBench(t)
			if c.prepare != nil {
				c.prepare(t, b)
			}
			args := loginArgs(srv, c.args...)
			for i := range args {
				args[i] = strings.ReplaceAll(args[i], "STATE", b.state)
			}
			r := b.run(args...)
			r.wantFailure(t, c.status, c.want)
			if strings.Contains(r.err, "s3cret") {
				t.Errorf("the password of the store is in %q", r.err)
			}
		})
	}
	if c := srv.Counts(); c != (fincodetest.Counts{}) {
		t.Errorf("FinCode saw %+v, want nothing", c)
	}
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// refusedAddress returns an address on which nobody listens.
func refusedAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

func TestInterruptedLoginLeavesNothing(t *testing.T) {
	arrived := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body) // net/http notices that the client has left after the body alone
		close(arrived)
		<-r.Context().Done()
	}))
	defer srv.Close()
	b := newLoginBench(t)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-arrived
		cancel()
	}()
	began := time.Now()
	b.runWith(ctx, "login", "--url", srv.URL, "--email", "ada@example.com").wantFailure(t, 130, "interrupted")
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
	b.wantNoProfile()
}
