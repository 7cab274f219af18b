package failure

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/fincodetest"
)

// loginError returns what Login says about a FinCode at the URL.
func loginError(t *testing.T, baseURL string, store fincodeauth.Store, timeout time.Duration) error {
	t.Helper()
	sessions, err := fincodeauth.New(fincodeauth.Config{BaseURL: baseURL, Store: store, RefreshTimeout: timeout})
	if err != nil {
		t.Fatal(err)
	}
	err = sessions.Login(t.Context(), "default", fincodeauth.Credentials{Email: fincodetest.Email, Password: fincodetest.Password})
	if err == nil {
		t.Fatal("the login succeeded")
	}
	return err
}

// answering returns the error of a Login to which FinCode answers with the fault.
func answering(t *testing.T, fault fincodetest.Fault) error {
	srv := fincodetest.NewServer(fincodetest.Config{})
	t.Cleanup(srv.Close)
	srv.Inject(fincodetest.Login, -1, fault)
	return loginError(t, srv.URL, nil, 300*time.Millisecond)
}

// refusing returns the URL of an address on which nobody listens.
func refusing(t *testing.T) string {
	srv := httptest.NewServer(nil)
	srv.Close()
	return srv.URL
}

// sessionError returns the error of a request for a session that has ended.
func sessionError(reused, interrupted bool) error {
	return &url.Error{Op: "Get", URL: "https://acme.fincode.software/whoami", Err: &fincodeauth.SessionError{
		Key: "default", Reused: reused, Interrupted: interrupted, Err: errors.New("refresh token rejected: FinCode answered 401")}}
}

func TestEachErrorHasItsStatusAndSaysWhatToDo(t *testing.T) {
	untrusted := fincodetest.NewTLSServer(fincodetest.Config{})
	defer untrusted.Close()
	notTLS := fincodetest.NewServer(fincodetest.Config{})
	defer notTLS.Close()
	disk := func(errno error) error {
		return fmt.Errorf("filestore: %w", &os.PathError{Op: "write", Path: "/state/profiles/default/sessions/x", Err: errno})
	}
	for name, c := range map[string]struct {
		err    error
		status Status
		want   string // in the line
	}{
		"no session":             {&fincodeauth.SessionError{Key: "default", Err: fincodeauth.ErrNotFound}, LoginNeeded, "profile default has no session: log in with: fincode login"},
		"ended":                  {sessionError(false, false), LoginNeeded, "has ended: refresh token rejected: FinCode answered 401: log in with: fincode login"},
		"breach":                 {sessionError(true, false), LoginNeeded, "POSSIBLE BREACH: the session of profile default has ended, because somebody else used its refresh token: look first with: fincode why; then log in with: fincode login"},
		"lost in a crash":        {sessionError(true, true), LoginNeeded, "was lost, because a process or a connection died during a refresh: log in"},
		"wrong password":         {fmt.Errorf("login: %w", fincodeauth.ErrBadCredentials), LoginRefused, "wrong email or password: try again, but not often"},
		"locked":                 {fmt.Errorf("login: %w", fincodeauth.ErrAccountLocked), LoginRefused, "the account is locked after failed logins: ask"},
		"unknown user":           {fmt.Errorf("login: %w", fincodeauth.ErrUserNotFound), LoginRefused, "no such user: check the email"},
		"unknown tenant":         {&url.Error{Op: "Put", URL: "https://x", Err: &net.OpError{Op: "dial", Err: &net.DNSError{Name: "nobody.fincode.software", IsNotFound: true}}}, Unreachable, "the host nobody.fincode.software was not found: check the tenant, or the URL"},
		"DNS down":               {&net.DNSError{Name: "acme.fincode.software", IsTemporary: true}, Unreachable, "check the network"},
		"connection refused":     {loginError(t, refusing(t), nil, 0), Unreachable, "connection refused: check the URL and the network"},
		"certificate":            {loginError(t, untrusted.URL, nil, 0), Unreachable, "certificate signed by unknown authority: check the URL; a company's own root certificate"},
		"expired certificate":    {&tls.CertificateVerificationError{Err: x509.CertificateInvalidError{Reason: x509.Expired}}, Unreachable, "expired"},
		"https to http":          {loginError(t, "https"+strings.TrimPrefix(notTLS.URL, "http"), nil, 0), Unreachable, "check the URL"},
		"hangs":                  {answering(t, fincodetest.Fault{Before: time.Minute}), Unreachable, "no answer within 300ms: i/o timeout: try again later"},
		"hangs up":               {answering(t, fincodetest.Fault{Kind: fincodetest.HangUp}), Unreachable, "try again"},
		"503":                    {answering(t, fincodetest.Fault{Kind: fincodetest.ErrorStatus, Status: 503, RetryAfter: "7"}), Unreachable, "503"},
		"503 with Retry-After":   {answering(t, fincodetest.Fault{Kind: fincodetest.ErrorStatus, Status: 503, RetryAfter: "7"}), Unreachable, "try again in 7s"},
		"firewall":               {answering(t, fincodetest.Fault{Kind: fincodetest.FirewallPage, Status: 502}), Unreachable, "try again later"},
		"garbage":                {answering(t, fincodetest.Fault{Kind: fincodetest.Garbage}), Other, "not a JSON object"},
		"truncated":              {answering(t, fincodetest.Fault{Kind: fincodetest.Truncated}), Unreachable, "try again"},
		"redirect":               {answering(t, fincodetest.Fault{Kind: fincodetest.Redirect, Location: "https://example.com"}), Unreachable, "307"},
		"store down":             {loginError(t, notTLS.URL, brokenStore{errors.New("connection refused")}, 0), Local, "connection refused"},
		"disk full in the store": {loginError(t, notTLS.URL, brokenStore{disk(syscall.ENOSPC)}, 0), Local, "no space left on device: make room"},
		"disk full":              {disk(syscall.ENOSPC), Local, "make room"},
		"quota":                  {disk(syscall.EDQUOT), Local, "make room"},
		"read-only":              {disk(syscall.EROFS), Local, "check who owns the folder"},
		"not permitted":          {disk(syscall.EACCES), Local, "check who owns the folder"},
		"no such file":           {disk(syscall.ENOENT), Local, "no such file"},
		"other key":              {loginError(t, notTLS.URL, encrypted(t), 0), Local, "set FINCODE_KEY to the key that it was saved with (unset it, if that is the key that login made), or run fincode forget and log in again"},
		"interrupted":            {fmt.Errorf("login: %w", context.Canceled), Interrupted, "interrupted"},
		"nobody reads":           {&os.PathError{Op: "write", Path: "/dev/stdout", Err: syscall.EPIPE}, NoReader, ""},
		"broken connection":      {&net.OpError{Op: "write", Err: os.NewSyscallError("write", syscall.EPIPE)}, Unreachable, "broken pipe"},
		"anything else":          {errors.New("odd"), Other, "odd"},
		"its own status":         {fmt.Errorf("outside: %w", &Error{HTTP, "do this", errors.New("inside")}), HTTP, "outside: inside: do this"},
		"a login's error first":  {errors.Join(fmt.Errorf("login: %w", fincodeauth.ErrBadCredentials), &Error{Local, "", errors.New("close")}), LoginRefused, "wrong email or password; also: close: try again"},
	} {
		t.Run(name, func(t *testing.T) {
			got := Of(c.err, "default")
			line := got.Line()
			if got.Status != c.status || !strings.Contains(line, c.want) {
				t.Errorf("%v\nmeans %d, %q; want %d, %q", c.err, got.Status, line, c.status, c.want)
			}
			if strings.ContainsAny(line, "\n\r\x1b") || strings.Contains(line, "fincodeauth: ") || strings.Contains(line, fincodetest.Password) {
				t.Errorf("the line is %q", line)
			}
		})
	}
}

// A brokenStore is a store whose every call fails with err.
type brokenStore struct{ err error }

func (s brokenStore) Load(context.Context, string) (*fincodeauth.Record, error) { return nil, s.err }
func (s brokenStore) Save(context.Context, string, *fincodeauth.Record, string) error {
	return s.err
}
func (s brokenStore) Delete(context.Context, string) error { return s.err }

// encrypted returns a store with a session that was encrypted with another key.
func encrypted(t *testing.T) fincodeauth.Store {
	t.Helper()
	inner := fincodeauth.NewMemoryStore()
	one, err := fincodeauth.Encrypt(inner, make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	srv := fincodetest.NewServer(fincodetest.Config{})
	defer srv.Close()
	sessions, err := fincodeauth.New(fincodeauth.Config{BaseURL: srv.URL, Store: one})
	if err != nil {
		t.Fatal(err)
	}
	if err := sessions.Login(t.Context(), "default", fincodeauth.Credentials{Email: fincodetest.Email, Password: fincodetest.Password}); err != nil {
		t.Fatal(err)
	}
	if err := sessions.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	other, err := fincodeauth.Encrypt(inner, []byte(strings.Repeat("k", 32)))
	if err != nil {
		t.Fatal(err)
	}
	return other
}

func TestAnswerThatIsNotFinCodesIsNamed(t *testing.T) {
	got := OfCall(answering(t, fincodetest.Fault{Kind: fincodetest.Garbage}), "default")
	if got.Status != Unreachable || !strings.Contains(got.Line(), "check the URL or the tenant") {
		t.Errorf("OfCall = %d, %q", got.Status, got.Line())
	}
	if got := OfCall(fincodeauth.ErrBadCredentials, ""); got.Status != LoginRefused {
		t.Errorf("OfCall = %d, want what Of says", got.Status)
	}
}

func TestAdviceNamesTheProfile(t *testing.T) {
	line := Of(sessionError(true, false), "production").Line()
	for _, want := range []string{"fincode why --profile production", "fincode login --profile production"} {
		if !strings.Contains(line, want) {
			t.Errorf("%q: want %q in it", line, want)
		}
	}
}

// TestLineIsOneLineWithoutControlCharacters: FinCode's answer must not command a terminal.
func TestLineIsOneLineWithoutControlCharacters(t *testing.T) {
	err := Of(errors.New("one\r\n  two\n\nthree \x1b[31mred\x07\u009b"), "")
	if got, want := err.Line(), "one; two; three  [31mred"; got != want {
		t.Errorf("Line = %q, want %q", got, want)
	}
}

func TestWrapKeepsNilAndAStatus(t *testing.T) {
	if err := Wrap(Local, nil); err != nil {
		t.Errorf("Wrap(nil) = %v", err)
	}
	inside := New(Usage, "wrong")
	if err := Wrap(Local, fmt.Errorf("outside: %w", inside)); Of(err, "").Status != Usage {
		t.Errorf("Wrap = %v, want the status of the error inside", err)
	}
	if err := Wrap(Local, http.ErrNoLocation); Of(err, "").Status != Local || !errors.Is(err, http.ErrNoLocation) {
		t.Errorf("Wrap = %v, want the status Local", err)
	}
}
