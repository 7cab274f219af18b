package page

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/accessibility"
	"github.com/chromedp/chromedp"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/fincodetest"
)

func TestPersonLogsInByTheForm(t *testing.T) {
	w := open(t, newStage(t, time.Hour, "operations"))
	w.do(chromedp.Navigate(w.url))
	w.waitForText("h1", "fincode proxy")
	w.waitFor(`document.activeElement.id === "key"`)
	w.shoot("login")
	w.do(chromedp.SendKeys(chromedp.CSS("#key"), "wrong\r"))
	w.waitForText("[role=alert]", "This is not the proxy's key")
	w.shoot("login-refused")
	w.do(chromedp.SendKeys(chromedp.CSS("#key"), w.key+"\r"))
	w.waitForText("#sessions h3", "operations")
	if cookies := w.eval("document.cookie"); cookies != "" {
		t.Error("scripts can read the cookie")
	}
	w.do(chromedp.Click(chromedp.CSS("header button")))
	w.waitFor(`document.querySelector("#key")`)
	w.do(chromedp.NavigateBack())
	w.waitFor(`document.querySelector("#key")`) // nothing stays behind the Back button
}

func TestLinkWithTheKeyLogsIn(t *testing.T) {
	w := newWindow(t, time.Hour, "operations")
	if address := w.eval("location.href"); address != w.url {
		t.Errorf("the address bar shows %s, want %s", strings.ReplaceAll(address, w.key, "KEY"), w.url)
	}
	for _, r := range w.requests {
		if strings.Contains(r, w.key) {
			t.Error("the key is in an address that the browser asked for")
		}
	}
	w.do(chromedp.Navigate("about:blank"), chromedp.Navigate(w.url+"#key="+w.key)) // once more
	w.waitForText("#link", "Live")
	w.waitFor(fmt.Sprintf("location.href === %q", w.url))
}

func TestCountdownCountsDown(t *testing.T) {
	w := newWindow(t, time.Hour, "operations")
	w.waitForText(".next", "in 5")
	before := w.eval(`document.querySelector(".next").innerText`)
	w.waitFor(fmt.Sprintf(`document.querySelector(".next").innerText !== %q`, before))
	after := w.eval(`document.querySelector(".next").innerText`)
	parse := func(text string) time.Duration {
		d, err := time.ParseDuration(strings.NewReplacer("in ", "", " min ", "m", " s", "s").Replace(text))
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	if down := parse(before) - parse(after); down < time.Second || down > time.Minute {
		t.Errorf("it counted from %q to %q", before, after)
	}
	w.waitFor(`document.querySelector(".next time").title.endsWith(" UTC")`)
	w.quiet()
}

func TestRotationAppearsAsItHappens(t *testing.T) {
	w := newWindow(t, 2*time.Second, "operations")
	w.waitForText("#rotations-empty", "No rotation")
	w.waitForText("#requests-empty", "No request")
	w.waitForText("#events li", "Logged in")
	w.shoot("empty")
	w.useUntil(t, "operations", func(err error) bool { return err != nil || w.fincode.Counts().Refreshes >= 2 })
	w.waitForText("#events li", "Token refreshed")
	w.waitForText("#timeline", "Refreshed 2")
	w.waitForText("#rate-sum", "over the last minute")
	w.waitForText("#latency-sum", "median")
	w.quiet()
}

func TestPageSaysThatALoginIsNeeded(t *testing.T) {
	w := newWindow(t, 2*time.Second, "operations")
	w.fincode.Inject(fincodetest.Refresh, 1, fincodetest.Fault{Kind: fincodetest.ErrorStatus, Status: 401})
	w.useUntil(t, "operations", func(err error) bool { return errors.Is(err, fincodeauth.ErrLoginRequired) })
	w.waitForText(".session.bad .state", "Login needed: FinCode ended the session")
	w.waitForText(".advice code", "fincode login --profile operations")
	w.waitForText("#events li.warning", "Session ended")
	w.waitFor(`document.querySelector("#announcer").textContent.includes("operations: Login needed")`)
	w.waitFor(`document.title.startsWith("Login needed")`)
	w.shoot("login-needed")
	w.logIn(t, "operations")
	w.waitFor(`!document.querySelector(".session.bad")`)
	w.quiet()
}

func TestPageSaysThatSomebodyElseUsedTheToken(t *testing.T) {
	w := newWindow(t, 3*time.Second, "operations")
	rec, err := w.store.Load(t.Context(), "operations")
	if err != nil {
		t.Fatal(err)
	}
	steal(t, w.fincode.URL, rec.Token.RefreshToken)
	w.useUntil(t, "operations", func(err error) bool { return errors.Is(err, fincodeauth.ErrTokenReused) })
	w.waitForText(".session.bad .state", "Possible breach")
	w.waitForText("#events li.error", "possible breach")
	w.shoot("breach")
	w.quiet()
}

func TestPageSaysThatATokenIsNotSaved(t *testing.T) {
	w := newWindow(t, 2*time.Second, "operations")
	w.store.set(errors.New("the disk is full <script>alert(1)</script>"))
	w.useUntil(t, "operations", func(err error) bool { return err != nil || w.sessions.Stats().Unsaved > 0 })
	w.waitForText(".session.bad .state", "Not saved yet")
	w.waitForText(".session.bad .detail", "the disk is full <script>alert(1)</script>")
	w.shoot("unsaved")
	w.store.set(nil)
	w.waitForText("#timeline", "Saved late 1")
	w.waitFor(`!document.querySelector(".session.bad")`)
	w.quiet()
}

func TestPageSaysThatTheConnectionIsLostAndComesBack(t *testing.T) {
	s := newStage(t, time.Hour, "operations")
	g := s.guard()
	w := open(t, s)
	w.enter()
	g.set(true)
	s.server.CloseClientConnections()
	w.waitForText("#lost", "Connection to the proxy lost at")
	w.waitForText("#link", "Connection lost")
	w.shoot("lost")
	s.page.Observe(fincodeauth.Event{Type: fincodeauth.Replayed, Key: "operations", Time: time.Now()}) // meanwhile
	g.set(false)
	w.waitForText("#link", "Live")
	w.waitForText("#events li", "Request sent again")
	w.waitFor(`document.querySelector("#lost").textContent === ""`)
}

func TestPageAsksForTheKeyAgainWhenTheLoginEnds(t *testing.T) {
	w := newWindow(t, time.Hour, "operations")
	w.page.door.mu.Lock()
	clear(w.page.door.logins)
	w.page.door.mu.Unlock()
	w.waitForText("[role=alert]", "Your login to this page has ended")
}

func TestTextsFromElsewhereAreTexts(t *testing.T) {
	const evil = `<script>document.title="owned"</script><img src=x onerror=alert(1)>`
	w := newWindow(t, time.Hour, evil)
	w.page.Observe(fincodeauth.Event{Type: fincodeauth.RefreshFailed, Key: evil, Time: time.Now(), Err: errors.New(evil)})
	w.waitForText(".session h3", evil)
	w.waitForText("#events .detail", evil)
	w.waitForText(".session .detail", evil)
	if n := w.eval(`document.querySelectorAll("main script, main img").length`); n != "0" {
		t.Errorf("%s elements came from texts", n)
	}
	w.quiet()
}

func TestKeyboardReachesEverything(t *testing.T) {
	w := open(t, newStage(t, time.Hour, "operations"))
	fill(w.page, []string{"operations"})
	w.enter()
	w.waitForText("#timeline", "Refreshed")
	w.waitForText("#rate-sum", "over")
	var path []string
	for range 20 {
		w.do(chromedp.KeyEvent("\t"))
		at := w.eval(`document.activeElement === document.body ? "" : document.activeElement.innerText.trim() || document.activeElement.id`)
		if at == "" {
			break
		}
		path = append(path, at)
		if outline := w.eval(`getComputedStyle(document.activeElement).outlineStyle`); outline == "none" {
			t.Errorf("nobody sees that the focus is at %q", at)
		}
	}
	want := []string{"Skip to the sessions", "Log out of this page", "Rotations as a table", "Requests as a table", "problems", "Show older events", "status.json"}
	if !slices.Equal(path, want) {
		t.Errorf("Tab goes to %q, want %q", path, want)
	}
	w.do(chromedp.Focus(chromedp.CSS("#rotations-details summary")), chromedp.KeyEvent("\r"))
	w.waitForText("#rotations-rows", "Token refreshed, taken over")
	w.do(chromedp.Focus(chromedp.CSS("#requests summary")), chromedp.KeyEvent("\r"))
	w.waitFor(`document.querySelectorAll("#requests-rows tr").length > 10`)
	w.do(chromedp.Focus(chromedp.CSS("#problems")), chromedp.KeyEvent(" "))
	w.waitFor(`document.querySelector("#events") && !document.querySelector("#events li.info")`)
	w.shoot("tables")
	w.quiet()
}

func TestScreenReaderFindsNamesForEverything(t *testing.T) {
	w := open(t, newStage(t, time.Hour, "operations"))
	fill(w.page, []string{"operations"})
	w.enter()
	w.waitForText("#timeline", "Refreshed")
	w.waitForText("#rate-sum", "over")
	tree, err := chromedp.Call(w.ctx, accessibility.GetFullAXTree, accessibility.GetFullAXTreeParams{})
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, n := range tree.Nodes {
		role, name := textOf(n.Role), textOf(n.Name)
		if n.Ignored {
			continue
		}
		found = append(found, role+": "+name)
		switch role {
		case "button", "link", "checkbox", "textbox", "searchbox", "heading", "region", "image", "img", "figure", "list":
			if name == "" && role != "list" {
				t.Errorf("a %s has no name", role)
			}
		}
	}
	all := strings.Join(found, "\n")
	for _, want := range []string{
		"banner: ", "main: ", "contentinfo: ", "status: ",
		"heading: fincode proxy", "heading: Sessions", "heading: operations", "heading: Rotations", "heading: Requests", "heading: Events",
		"region: Sessions", "region: Rotations", "region: Requests", "region: Events",
		"image: Rotations in the last ", "image: Requests a second ", "image: Time until the answer ",
		"button: Log out of this page", "checkbox: Problems only", "link: Skip to the sessions",
	} {
		if !strings.Contains(all, want) {
			t.Errorf("the accessibility tree lacks %q", want)
		}
	}
	if t.Failed() {
		t.Log(all)
	}
}

func TestHundredsOfSessionsFitOnThePage(t *testing.T) {
	keys := make([]string, 300)
	for i := range keys {
		keys[i] = fmt.Sprintf("user-%03d", i)
	}
	w := open(t, newStage(t, time.Hour, keys...))
	fill(w.page, keys[:40])
	for _, key := range keys[1:] {
		if key < "user-290" {
			w.logIn(t, key)
		}
	}
	w.enter()
	w.waitForText("#sessions-sum", "290 of 300 ready, 10 with a problem")
	w.waitFor(`document.querySelectorAll(".session").length === 12`)
	w.waitForText(".session h3", "user-290") // the worst first
	w.shoot("many")
	w.do(chromedp.SendKeys(chromedp.CSS("#filter"), "user-01"))
	w.waitFor(`document.querySelectorAll(".session").length === 10`)
	w.do(chromedp.SendKeys(chromedp.CSS("#filter"), strings.Repeat("\b", len("user-01"))), chromedp.Click(chromedp.CSS("#sessions-more")))
	w.waitFor(`document.querySelectorAll(".session").length === 300`)
	w.quiet()
}

func TestBusyPageLooksGood(t *testing.T) {
	w := open(t, newStage(t, time.Hour, "operations"))
	fill(w.page, []string{"operations"})
	w.enter()
	w.waitForText("#timeline", "Refreshed")
	w.waitForText("#rate-sum", "over")
	w.shoot("busy")
	w.quiet()
}

func TestPageOfAFewSessionsLooksGood(t *testing.T) {
	keys := []string{"operations", "payouts", "reports-nightly-reconciliation@remitjunction", "support"}
	w := open(t, newStage(t, time.Hour, keys...))
	w.logIn(t, "payouts")
	w.logIn(t, "support")
	fill(w.page, keys)
	w.enter()
	w.waitForText("#sessions-sum", "3 of 4 ready")
	w.shoot("few")
	w.quiet()
}

// fill makes up what happened in the last hours.
func fill(p *Page, keys []string) {
	now := time.Now()
	random := rand.New(rand.NewPCG(1, 2))
	reused := &fincodeauth.SessionError{Key: "x", Reused: true, Err: errors.New("refresh token reused: fincodeauth: refresh: status 403")}
	odd := map[int]fincodeauth.Event{
		8:  {Type: fincodeauth.RefreshFailed, Err: errors.New("fincodeauth: refresh: status 503 Service Unavailable")},
		9:  {Type: fincodeauth.Refreshed, TookOver: true, Elapsed: 310 * time.Millisecond},
		20: {Type: fincodeauth.SaveFailed, Err: errors.New("fincodeauth: save: dial tcp 10.0.0.5:5432: connect: connection refused")},
		21: {Type: fincodeauth.Saved, Elapsed: 42 * time.Second},
		33: {Type: fincodeauth.Adopted},
		34: {Type: fincodeauth.Adopted},
		45: {Type: fincodeauth.Ended, Err: reused},
		46: {Type: fincodeauth.LoggedIn, Elapsed: 280 * time.Millisecond},
		55: {Type: fincodeauth.Passed, Err: errors.New("fincodeauth: request without a token: http://localhost:9801 is not the origin of BaseURL")},
		58: {Type: fincodeauth.Replayed},
	}
	for i := range 60 {
		e, ok := odd[i]
		if !ok {
			e = fincodeauth.Event{Type: fincodeauth.Refreshed, Elapsed: time.Duration(120+random.IntN(200)) * time.Millisecond}
		}
		e.Key = keys[i%len(keys)]
		e.Time = now.Add(-time.Duration(60-i)*4*time.Minute - time.Duration(random.IntN(100))*time.Second)
		p.Observe(e)
	}
	for at := now.Add(-14 * time.Minute); at.Before(now); at = at.Add(200 * time.Millisecond) {
		if gap := now.Sub(at); gap > 6*time.Minute && gap < 7*time.Minute {
			continue // a pause
		}
		status := 200
		switch n := random.IntN(100); {
		case n < 3:
			status = 404
		case n < 5 && now.Sub(at) < 4*time.Minute:
			status = 502
		}
		p.traffic.add(at, status, time.Duration(40+random.ExpFloat64()*50)*time.Millisecond)
	}
}

func textOf(v *accessibility.Value) string {
	if v == nil {
		return ""
	}
	var text string
	_ = json.Unmarshal([]byte(v.Value), &text)
	return text
}

// steal uses a refresh token as a thief does.
func steal(t *testing.T, baseURL, token string) {
	t.Helper()
	body, err := json.Marshal(map[string]string{"refresh_token": token})
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPut, baseURL+"/securitymanagement/refresh-token", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header = fincodeauth.DefaultHeader()
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("the thief got %s", resp.Status)
	}
}
