package page

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// A window is a real browser before a page.
type window struct {
	*testing.T
	*stage
	ctx context.Context // of the browser

	mu         sync.Mutex
	complaints []string // what the browser's console says
	requests   []string // the addresses that the browser asked for
}

// open opens a window of a browser that knows nothing of the other tests. It shows nothing
// yet. The test runs at the same time as others.
func open(t *testing.T, s *stage) *window {
	t.Helper()
	browser, err := chromium()
	if errors.Is(err, exec.ErrNotFound) && os.Getenv("FINCODEAUTH_REQUIRE_SERVICES") != "1" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Parallel()
	ctx, cancel := chromedp.NewContext(browser, chromedp.WithNewBrowserContext())
	t.Cleanup(cancel)
	w := &window{T: t, stage: s, ctx: ctx}
	if err := chromedp.Listen(w.ctx, w.listen); err != nil {
		t.Fatal(err)
	}
	// Without this, only one of the windows has the focus.
	_, err = chromedp.Call(w.ctx, emulation.SetFocusEmulationEnabled, emulation.SetFocusEmulationEnabledParams{Enabled: true})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// listen notes what the browser says and asks for.
func (w *window) listen(ev any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch ev := ev.(type) {
	case *log.EventEntryAdded:
		w.complaints = append(w.complaints, fmt.Sprintf("%s: %s", ev.Entry.Level, ev.Entry.Text))
	case *runtime.EventConsoleAPICalled:
		w.complaints = append(w.complaints, "console."+string(ev.Type))
	case *runtime.EventExceptionThrown:
		w.complaints = append(w.complaints, fmt.Sprint(ev.ExceptionDetails))
	case *network.EventRequestWillBeSent:
		w.requests = append(w.requests, ev.Request.URL)
	}
}

// quiet fails the test if the console says something, or if the browser asked somebody
// else than the proxy.
func (w *window) quiet() {
	w.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.complaints {
		w.Errorf("the console says %s", c)
	}
	if len(w.requests) == 0 {
		w.Error("no request was seen")
	}
	for _, r := range w.requests {
		if !strings.HasPrefix(r, w.url) && !strings.HasPrefix(r, "data:") {
			w.Errorf("the page asked for %s", r)
		}
	}
}

// chromium starts the one browser of all tests, and TestMain ends it.
var chromium = sync.OnceValues(startChromium)

func TestMain(m *testing.M) {
	code := m.Run()
	endChromium()
	os.Exit(code)
}

// endChromium waits until the browser has ended, and removes its folder.
var endChromium = func() {}

func startChromium() (context.Context, error) {
	path, err := findChromium()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "fincode-page")
	if err != nil {
		return nil, err
	}
	allocator, cancel := chromedp.NewExecAllocator(context.Background(),
		chromedp.ExecPath(path),
		chromedp.UserDataDir(dir),
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
	ctx, _ := chromedp.NewContext(allocator) // chromedp.Cancel ends it
	endChromium = func() {
		_ = chromedp.Cancel(ctx)
		cancel()
		_ = os.RemoveAll(dir)
	}
	return ctx, chromedp.Do(ctx)
}

// findChromium returns the path of the browser, or an error that is exec.ErrNotFound.
func findChromium() (string, error) {
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("no Chromium: install it (Debian: apt-get install chromium): %w", exec.ErrNotFound)
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

func (w *window) fail(err error) {
	w.Helper()
	shown, _ := chromedp.Run(w.ctx, chromedp.Evaluate[string]("document.body.innerText"))
	w.Fatalf("%v\nthe page shows:\n%s", err, shown)
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
	w.waitFor(fmt.Sprintf("[document.querySelector(%q)].some((n) => (n?.innerText ?? n?.textContent ?? '').includes(%q))", selector, text))
}

func (w *window) eval(expression string) string {
	w.Helper()
	text, err := chromedp.Run(w.ctx, chromedp.Evaluate[string]("String("+expression+")"))
	if err != nil {
		w.fail(err)
	}
	return text
}

// enter logs in by a link, as a person does who copies it from the proxy's terminal.
func (w *window) enter() {
	w.Helper()
	w.do(chromedp.Navigate(w.url + "#key=" + url.QueryEscape(w.key)))
	w.waitForText("#link", "Live")
	w.mu.Lock()
	defer w.mu.Unlock()
	w.complaints = nil // that the first answer was a 401
}

// newWindow opens a browser before the page of a proxy with these sessions, and logs in.
func newWindow(t *testing.T, lifetime time.Duration, keys ...string) *window {
	t.Helper()
	w := open(t, newStage(t, lifetime, keys...))
	w.enter()
	return w
}

var (
	widths  = []int64{360, 768, 1440}
	schemes = []string{"light", "dark"}
)

// shoot looks at the page in each width, light and dark. It fails if the page is wider
// than the screen, or if a text has too little contrast. It takes pictures for people if
// FINCODEAUTH_SCREENSHOTS names a folder.
func (w *window) shoot(name string) {
	w.Helper()
	for _, width := range widths {
		for _, scheme := range schemes {
			err := w.resize(width, scheme)
			if dir := os.Getenv("FINCODEAUTH_SCREENSHOTS"); err == nil && dir != "" {
				err = w.save(filepath.Join(dir, fmt.Sprintf("%s-%d-%s.png", name, width, scheme)))
			}
			if err != nil {
				w.fail(fmt.Errorf("%s, %d px, %s: %w", name, width, scheme, err))
			}
		}
	}
}

// save takes a picture of the whole page.
func (w *window) save(path string) error {
	picture, err := chromedp.Run(w.ctx, chromedp.FullScreenshot(100))
	if err != nil {
		return err
	}
	return os.WriteFile(path, picture, 0o644)
}

// resize shows the page on a screen of that width, and looks for mistakes.
func (w *window) resize(width int64, scheme string) error {
	err := chromedp.Do(w.ctx, chromedp.EmulateViewport(width, 760))
	if err != nil {
		return err
	}
	_, err = chromedp.Call(w.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
	})
	if err != nil {
		return err
	}
	w.waitFor(fmt.Sprintf("innerWidth === %d", width))
	if wide := w.eval(tooWide); wide != "" {
		return fmt.Errorf("wider than the screen: %s", wide)
	}
	if pale := w.eval(tooPale); pale != "" {
		return fmt.Errorf("less contrast than 4.5 : 1: %s", pale)
	}
	return nil
}

// tooWide names what makes the page wider than the screen.
const tooWide = `document.documentElement.scrollWidth <= document.documentElement.clientWidth ? "" :
	[...document.querySelectorAll("body *")].filter((n) => n.getBoundingClientRect().right > document.documentElement.clientWidth + 1 && !n.closest(".scroll"))
		.map((n) => n.tagName + "." + n.className).slice(0, 5).join(", ") || "something"`

// tooPale names texts whose colour is too near to the one behind it (WCAG 2, 1.4.3).
const tooPale = `(() => {
	const parse = (c) => c.match(/[\d.]+/g).map(Number);
	const light = (c) => {
		const [r, g, b] = parse(c).map((v) => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
		return 0.2126 * r + 0.7152 * g + 0.0722 * b;
	};
	const back = (n) => {
		for (; n; n = n.parentElement) {
			const c = getComputedStyle(n).backgroundColor;
			if ((parse(c)[3] ?? 1) > 0) return c;
		}
		return "rgb(255, 255, 255)";
	};
	const pale = [];
	for (const n of document.querySelectorAll("body *")) {
		const own = [...n.childNodes].some((c) => c.nodeType === 3 && c.textContent.trim());
		if (!own || n.closest(".unseen, .skip, script, style, noscript") || !n.checkVisibility()) continue;
		const style = getComputedStyle(n), text = n.closest(".plot") ? style.fill : style.color;
		const [a, b] = [light(text), light(back(n))].sort((x, y) => y - x);
		if ((a + 0.05) / (b + 0.05) < 4.5) pale.push(n.tagName + " " + n.textContent.trim().slice(0, 30) + " " + text + " on " + back(n));
	}
	return pale.slice(0, 5).join("; ");
})()`

// A gate is a handler that can be shut, so that a proxy seems to be gone.
type gate struct {
	next http.Handler
	mu   sync.Mutex
	shut bool
}

func (g *gate) set(shut bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = shut
}

func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	shut := g.shut
	g.mu.Unlock()
	if shut {
		panic(http.ErrAbortHandler)
	}
	g.next.ServeHTTP(w, r)
}

// guard puts a gate before the server's page.
func (s *stage) guard() *gate {
	g := &gate{next: s.server.Config.Handler}
	s.server.Config.Handler = g
	return g
}
