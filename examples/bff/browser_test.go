package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/fincodetest"
)

// browserLifetime is how long an access token lasts while a real browser looks at
// the page: long enough for a slow machine, and short enough to see it renewed.
const browserLifetime = 2 * time.Second

// A window is a real browser before a real server.
type window struct {
	*testing.T
	ctx      context.Context // of the browser
	fincode  *fincodetest.Server
	sessions *fincodeauth.Sessions
	url      string
	log      *lockedBuffer
	fresh    func() *window // another browser, without cookies, before the same server
}

func newWindow(t *testing.T) *window {
	t.Helper()
	chromium := findChromium(t)
	fincode := fincodetest.NewServer(fincodetest.Config{AccessLifetime: browserLifetime})
	t.Cleanup(fincode.Close)
	opts, err := parseOptions([]string{"-url", fincode.URL, "-dir", t.TempDir()}, noEnv)
	if err != nil {
		t.Fatal(err)
	}
	opts.poll = 250 * time.Millisecond
	log := &lockedBuffer{}
	logger := slog.New(slog.NewTextHandler(log, nil))
	store := fincodeauth.NewMemoryStore()
	ring := keyring{bytes.Repeat([]byte{1}, keySize)}
	sessions, err := fincodeauth.New(fincodeauth.Config{BaseURL: opts.baseURL, Store: store, Observe: fincodeauth.LogEvents(logger)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := closeSessions(sessions, opts.saveTimeout); err != nil {
			t.Error(err)
		}
	})
	srv := httptest.NewServer(newServer(opts, sessions, store, ring, logger).handler())
	t.Cleanup(srv.Close)
	w := &window{T: t, fincode: fincode, sessions: sessions, url: srv.URL, log: log}
	w.fresh = func() *window {
		other := *w
		other.ctx = startChromium(t, chromium)
		return &other
	}
	return w.fresh()
}

// findChromium returns the path of the browser. Without one, the test is skipped, or
// fails if FINCODEAUTH_REQUIRE_SERVICES is 1.
func findChromium(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	missing(t, "no Chromium: install it (Debian: apt-get install chromium)")
	return ""
}

// missing skips the test because a service is missing, or fails it.
func missing(t *testing.T, format string, args ...any) {
	t.Helper()
	if os.Getenv("FINCODEAUTH_REQUIRE_SERVICES") == "1" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

func startChromium(t *testing.T, path string) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewExecAllocator(ctx,
		chromedp.ExecPath(path),
		chromedp.UserDataDir(t.TempDir()),
		chromedp.Headless,
		chromedp.NoFirstRun,
		chromedp.DisableGPU,
		chromedp.NoSandbox, // root, as in CI, cannot have one
		chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-sync", true),
		chromedp.Flag("disable-dev-shm-usage", true), // it is too small in containers
		chromedp.WSURLReadTimeout(time.Minute),
	)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(func() { _ = chromedp.Cancel(ctx) }) // waits until the browser has ended, so that its folder can be removed
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("Chromium does not start: %v", err)
	}
	return ctx
}

// do runs the actions. If one fails, it prints what the browser shows.
func (w *window) do(actions ...chromedp.Action[chromedp.Void]) {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.ctx, time.Minute)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		w.fail(err)
	}
}

// fail ends the test, and prints what the browser shows.
func (w *window) fail(err error) {
	w.Helper()
	shown, _ := chromedp.Run(w.ctx, chromedp.Evaluate[string]("document.body.innerText"))
	w.Fatalf("%v\nthe page shows:\n%s\nthe server's log:\n%s", err, shown, w.log)
}

// logIn fills in the form as a person with a keyboard does.
func (w *window) logIn(password string) {
	w.Helper()
	w.do(
		chromedp.Navigate(w.url+"/login"),
		chromedp.SendKeys(chromedp.CSS("#email"), fincodetest.Email),
		chromedp.SendKeys(chromedp.CSS("#password"), password+"\r"),
	)
}

// waitFor waits until a JavaScript expression is true. The page may be replaced
// meanwhile.
func (w *window) waitFor(expression string) {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.ctx, time.Minute)
	defer cancel()
	for {
		is, err := chromedp.Run(ctx, chromedp.Evaluate[bool]("Boolean("+expression+")"))
		if err == nil && is {
			return
		}
		select {
		case <-ctx.Done():
			w.fail(fmt.Errorf("not within a minute: %s (%w)", expression, errors.Join(err, ctx.Err())))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// waitForText waits until the first element that matches shows the text.
func (w *window) waitForText(selector, text string) {
	w.Helper()
	w.waitFor(fmt.Sprintf("document.querySelector(%q)?.innerText.includes(%q)", selector, text))
}

func TestBrowserShowsWhyALoginWasRefused(t *testing.T) {
	w := newWindow(t)
	w.logIn("wrong")
	w.waitForText("[role=alert]", "We could not log you in")
	w.waitFor(`document.activeElement.id === "password" && document.querySelector("#email").value !== ""`)
	w.shoot("login-refused")
}

func TestTokenIsRenewedUnderTheOpenPage(t *testing.T) {
	w := newWindow(t)
	w.do(chromedp.Navigate(w.url))
	w.waitForText("h1", "Log in")
	w.shoot("login")
	w.logIn(fincodetest.Password)
	w.waitForText("#fields", "remitjunction")
	w.waitFor(`Number(document.querySelector("#renewals").innerText) >= 2`)
	w.waitFor(`document.querySelector("#status").hidden`)
	w.shoot("account")
	if got := w.fincode.Counts(); got.Refreshes < 2 || got.Logins != 1 {
		t.Errorf("FinCode saw %+v, want at least 2 refreshes after 1 login", got)
	}
	if again := w.fincode.PresentedMoreThanOnce(); len(again) != 0 {
		t.Errorf("refresh tokens were presented twice: %v", again)
	}
	if cookies, err := chromedp.Run(w.ctx, chromedp.Evaluate[string]("document.cookie")); err != nil || cookies != "" {
		t.Error("scripts can read the cookie")
	}
}

func TestBrowserLogsOut(t *testing.T) {
	w := newWindow(t)
	w.logIn(fincodetest.Password)
	w.waitForText("h1", "Your account")
	w.do(chromedp.Click(chromedp.CSS(".who button")))
	w.waitForText("[role=status]", "You are logged out")
	w.shoot("logged-out")
	if got := w.fincode.Counts().Logouts; got != 1 {
		t.Errorf("FinCode saw %d logouts, want 1", got)
	}
	w.do(chromedp.NavigateBack())
	w.waitForText("h1", "Log in") // nothing of the account stays behind the Back button
}

func TestOpenPageSaysThatTheSessionHasEnded(t *testing.T) {
	w := newWindow(t)
	w.logIn(fincodetest.Password)
	w.waitForText("h1", "Your account")
	w.fincode.Inject(fincodetest.Refresh, 1, fincodetest.Fault{Kind: fincodetest.ErrorStatus, Status: 401})
	w.waitForText("h1", "You must log in again")
	w.waitForText("[role=alert]", "Your session has ended")
	w.shoot("session-ended")
	w.do(chromedp.Click(chromedp.CSS("main a")))
	w.waitForText("h1", "Log in")
}

func TestOpenPageSaysThatTheUserLoggedInElsewhere(t *testing.T) {
	first := newWindow(t)
	first.logIn(fincodetest.Password)
	first.waitForText("h1", "Your account")
	second := first.fresh()
	second.logIn(fincodetest.Password)
	second.waitForText("h1", "Your account")
	first.waitForText("[role=alert]", "in another browser")
	first.shoot("logged-in-elsewhere")
}

func TestOpenPageSaysThatSomebodyElseUsedTheToken(t *testing.T) {
	w := newWindow(t)
	w.logIn(fincodetest.Password)
	w.waitForText("h1", "Your account")
	eventually(t, "the thief is faster than the page", func() bool {
		return steal(w.sessions, w.fincode.URL, http.DefaultTransport) == nil
	})
	w.waitForText("h1", "We ended your session to protect you")
	w.waitForText("[role=alert]", "Change your password")
	w.shoot("breach")
}

func TestOpenPageSaysThatFinCodeIsDownAndRecovers(t *testing.T) {
	w := newWindow(t)
	w.logIn(fincodetest.Password)
	w.waitForText("h1", "Your account")
	w.fincode.Inject(fincodetest.API, -1, fincodetest.Fault{Kind: fincodetest.ErrorStatus})
	w.waitForText("#status", "You are still logged in")
	w.shoot("fincode-down")
	w.fincode.ClearFaults()
	w.waitFor(`document.querySelector("#status").hidden`)
}

// shoot takes pictures for people: narrow and wide, light and dark. It fails if the
// page is wider than the screen. FINCODEAUTH_SCREENSHOTS names the folder.
func (w *window) shoot(name string) {
	w.Helper()
	dir := os.Getenv("FINCODEAUTH_SCREENSHOTS")
	if dir == "" {
		dir = w.TempDir()
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		w.Fatal(err)
	}
	for _, width := range []int64{360, 1280} {
		for _, scheme := range []string{"light", "dark"} {
			picture, err := w.picture(width, scheme)
			if err == nil {
				err = os.WriteFile(filepath.Join(dir, fmt.Sprintf("%s-%d-%s.png", name, width, scheme)), picture, 0o644)
			}
			if err != nil {
				w.fail(fmt.Errorf("%s, %d px, %s: %w", name, width, scheme, err))
			}
		}
	}
}

// picture takes one picture, of a screen of that width.
func (w *window) picture(width int64, scheme string) ([]byte, error) {
	err := chromedp.Do(w.ctx, chromedp.EmulateViewport(width, 760))
	if err != nil {
		return nil, err
	}
	_, err = chromedp.Call(w.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
	})
	if err != nil {
		return nil, err
	}
	overflow, err := chromedp.Run(w.ctx, chromedp.Evaluate[int]("document.documentElement.scrollWidth - document.documentElement.clientWidth"))
	if err == nil && overflow > 0 {
		err = fmt.Errorf("the page is %d px wider than the screen", overflow)
	}
	if err != nil {
		return nil, err
	}
	return chromedp.Run(w.ctx, chromedp.CaptureScreenshot())
}
