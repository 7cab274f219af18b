package cli

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/oauth2"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/filestore"
	"github.com/fincodeauth/fincodeauth/fincodetest"
)

// go test ./internal/cli -run Golden -update writes the golden files anew. Look at the
// difference before you commit it.
var update = flag.Bool("update", false, "write the golden files anew")

// build builds the command when the first test needs it.
var build = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "fincode-test-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "fincode")
	if runtime.GOOS == "windows" {
		path += ".exe"
	}
	out, err := exec.Command("go", "build", "-o", path, "../..").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	built = dir
	return path, nil
})

var built string // the folder that TestMain removes; "": none

func TestMain(m *testing.M) {
	flag.Parse()
	status := m.Run()
	if built != "" {
		os.RemoveAll(built)
	}
	os.Exit(status)
}

// binary returns the path of the command.
func binary(t *testing.T) string {
	t.Helper()
	path, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// A user has a FinCode and a state folder of their own.
type user struct {
	*testing.T
	fc  *fincodetest.Server
	url string // to log in to
	key []byte
	env map[string]string // what the command finds in its environment
}

func newUser(t *testing.T, cfg fincodetest.Config) *user {
	fc := fincodetest.NewServer(cfg)
	t.Cleanup(fc.Close)
	key := make([]byte, 32)
	rand.Read(key)
	config := filepath.Join(t.TempDir(), "config.yaml") // not that of who runs the test
	if err := os.WriteFile(config, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return &user{t, fc, fc.URL, key, map[string]string{
		"FINCODE_STATE":  t.TempDir(),
		"FINCODE_CONFIG": config,
		"FINCODE_KEY":    base64.StdEncoding.EncodeToString(key),
	}}
}

// loggedIn returns a user with a session.
func loggedIn(t *testing.T, cfg fincodetest.Config) *user {
	t.Helper()
	u := newUser(t, cfg)
	u.login("default")
	return u
}

func (u *user) login(profile string) {
	u.Helper()
	env := maps.Clone(u.env)
	env["FINCODE_PASSWORD"] = fincodetest.Password
	got := runIn(nil, env, "login", "--url", u.url, "--email", fincodetest.Email, "--profile", profile)
	if got.status != 0 {
		u.Fatalf("login: %v", got)
	}
}

// sessions is the folder with the default profile's session.
func (u *user) sessions() string {
	return filepath.Join(u.env["FINCODE_STATE"], "profiles", "default", "sessions")
}

// open opens the default profile's session, as another process does.
func (u *user) open() *fincodeauth.Sessions {
	u.Helper()
	files, err := filestore.New(u.sessions())
	if err != nil {
		u.Fatal(err)
	}
	store, err := fincodeauth.Encrypt(files, u.key)
	if err != nil {
		u.Fatal(err)
	}
	sessions, err := fincodeauth.New(fincodeauth.Config{BaseURL: u.url, Store: store})
	if err != nil {
		u.Fatal(err)
	}
	u.Cleanup(func() { sessions.Close(context.Background()) })
	return sessions
}

// adopt replaces the session by a new one of FinCode, whose access token expires at the
// given time as far as this side knows.
func (u *user) adopt(expiry time.Time) {
	u.Helper()
	body, _ := json.Marshal(map[string]string{"email": fincodetest.Email, "currentPassword": fincodetest.Password})
	req, _ := http.NewRequest(http.MethodPut, u.fc.URL+"/securitymanagement/login", bytes.NewReader(body))
	req.Header = fincodeauth.DefaultHeader()
	resp, err := u.fc.Client().Do(req)
	if err != nil {
		u.Fatal(err)
	}
	defer resp.Body.Close()
	var tok oauth2.Token
	if err := json.NewDecoder(resp.Body).Decode(&tok); err != nil || tok.RefreshToken == "" {
		u.Fatalf("the login's answer: %v", err)
	}
	tok.Expiry, tok.ExpiresIn = expiry, 0
	if err := u.open().Adopt(context.Background(), "default", &tok); err != nil {
		u.Fatal(err)
	}
}

// A result is what one run of the command did.
type result struct {
	status   int
	out, err string
}

func (r result) String() string {
	return fmt.Sprintf("status %d\n--- standard output\n%s\n--- standard error\n%s", r.status, r.out, r.err)
}

// run runs the command in this process, without a terminal.
func (u *user) run(args ...string) result { return runIn(nil, u.env, args...) }

func runIn(in io.Reader, env map[string]string, args ...string) result {
	return runUntil(context.Background(), in, env, args...)
}

func runUntil(ctx context.Context, in io.Reader, env map[string]string, args ...string) result {
	if in == nil {
		in = strings.NewReader("")
	}
	var out, err bytes.Buffer
	status := Main(ctx, Process{Args: args, In: in, Out: &out, Err: &err, Getenv: func(name string) string { return env[name] }})
	return result{status, out.String(), err.String()}
}

// want runs the command, and fails the test if its status is another one.
func (u *user) want(status int, args ...string) result {
	u.Helper()
	got := u.run(args...)
	if got.status != status {
		u.Fatalf("%q: want status %d, got %v", args, status, got)
	}
	return got
}

// command returns the built command, which runs as a process of its own.
func (u *user) command(args ...string) *exec.Cmd {
	u.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	u.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, binary(u.T), args...)
	cmd.Env = []string{"TERM=xterm-256color", "TZ=UTC", "HOME=" + u.env["FINCODE_STATE"]}
	for name, value := range u.env {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	return cmd
}

// exec runs the built command.
func (u *user) exec(args ...string) result {
	u.Helper()
	var out, err bytes.Buffer
	cmd := u.command(args...)
	cmd.Stdout, cmd.Stderr = &out, &err
	return result{u.statusOf(cmd.Run()), out.String(), err.String()}
}

// statusOf returns the status of a process whose Wait returned err; -1: a signal killed it.
func (u *user) statusOf(err error) int {
	u.Helper()
	exit, ok := errors.AsType[*exec.ExitError](err)
	if err != nil && !ok {
		u.Error(err)
	}
	if ok {
		return exit.ExitCode()
	}
	return 0
}

// eventually waits until condition is true.
func (u *user) eventually(what string, condition func() bool) {
	u.Helper()
	for deadline := time.Now().Add(20 * time.Second); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			u.Fatalf("within 20 s: not %s", what)
		}
	}
}

// wantNoSecret fails the test if a text has a token, or something else that is secret.
func wantNoSecret(t *testing.T, text string) {
	t.Helper()
	for _, secret := range []string{"eyJ", fincodetest.Password, "hunter2"} { // eyJ begins each JWT
		if strings.Contains(text, secret) {
			t.Errorf("there is a secret in %s", text)
		}
	}
}

// variable parts of the output, and what golden files have instead
var variables = []struct {
	from *regexp.Regexp
	to   string
}{
	{regexp.MustCompile(`eyJ[\w-]+\.[\w-]+\.[\w-]+`), "JWT"},
	{regexp.MustCompile(`127\.0\.0\.1:\d+`), "127.0.0.1:PORT"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`), "TIMESTAMP"},
	{regexp.MustCompile(`\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT`), "DATE"},
	{regexp.MustCompile(`(\d{4}-\d\d-\d\d )?\b\d\d:\d\d:\d\d\b`), "CLOCK"},
	{regexp.MustCompile(`\b(\d+h)?(\d+m)?\d+s (ago|left)`), "SPAN $3"},
	{regexp.MustCompile(`\(in (\d+h)?(\d+m)?\d+s\)`), "(in SPAN)"},
	{regexp.MustCompile(`("(?:exp|iat)": ?)\d+`), "${1}SECONDS"},
	{regexp.MustCompile(`("(?:jti|request_id)": ?)"\w+"`), `$1"ID"`},
	{regexp.MustCompile(`Content-Length: \d+`), "Content-Length: N"},
	{regexp.MustCompile(`\b(read|write) tcp [^ ]+->[^ ]+: `), "$1 tcp: "},
}

// golden compares text with a golden file.
func (u *user) golden(name, text string) {
	u.Helper()
	text = strings.ReplaceAll(text, u.env["FINCODE_STATE"], "STATE")
	for _, v := range variables {
		text = v.from.ReplaceAllString(text, v.to)
	}
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := errors.Join(os.MkdirAll("testdata", 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			u.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		u.Fatal(err)
	}
	if text != string(want) {
		u.Errorf("%s: got\n%s\nwant\n%s\nif that is right, run the test with -update", path, text, want)
	}
}
