package simulation

// Rules for concurrency. world.mu guards fincode, families, pairs and their
// histories. serve and what it calls run with world.mu held. RoundTrip and reply
// may wait or sleep, so they hold no lock then. Only the goroutine that sends a
// request writes its fields, before the request leaves.

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptrace"
	"path"
	"strconv"
	"strings"
	"time"
)

const root = "https://simulation.fincode.software/api/v6/services"

// A fincode is the server, as FINCODE.md describes it. The names of its tokens say
// where they come from: pair 2.7 is the seventh pair of the second login.
type fincode struct {
	world *world

	// Guarded by world.mu.
	families []*family
	pairs    map[string]*pair // by refresh token
	access   map[string]*pair // by access token
	down     time.Time        // FinCode is down until then
}

// A family is all pairs that descend from one login.
type family struct {
	account        *account
	id             int
	login          *presentation // the request that began the family
	latest         *pair
	revoked        bool // at FinCode
	toldFinCode    bool // the package sent a logout of this family to FinCode
	discarded      bool // FinCode carried such a logout out for a process that had slept since the login: others may use the pair
	revokedOutside bool // something outside the package revoked the family
	loggedOut      bool // in the store: the family must not come back there
	wasLoggedOut   bool // a Logout was saved since it began, even if the store has lost the family or the Logout
	cameBack       bool // it came back by a late first Save, which is allowed
	lost           bool // the store went back, and may have lost something of it
}

// A pair is an access token and the refresh token that came with it.
type pair struct {
	family  *family
	number  int
	refresh string
	access  string
	asked   time.Time // when the process began to ask for the pair, by the true clock
	issued  time.Time
	expires time.Time
	revoked bool // the access token is revoked
	used    bool // the refresh token is used up

	history
}

func (p *pair) String() string { return fmt.Sprintf("%d.%d", p.family.id, p.number) }

func newFinCode(w *world) *fincode {
	return &fincode{world: w, pairs: make(map[string]*pair), access: make(map[string]*pair)}
}

func (f *fincode) String() string { return "FinCode" }

// An answer is an answer of FinCode or of a gateway.
type answer struct {
	status     int
	body       string
	retryAfter time.Duration // 0: there is no such header
	cut        bool          // the connection breaks at the end of body
	issued     *pair         // the new pair in it; nil: none
}

func refusal(status int, code string) *answer {
	return &answer{status: status, body: fmt.Sprintf(`{"success":false,"error":{"code":%q,"message":"no"}}`, code)}
}

// serve answers a request. world.mu is held.
func (f *fincode) serve(r *request) *answer {
	if time.Now().Before(f.down) {
		return refusal(http.StatusServiceUnavailable, "SERVICE_UNAVAILABLE")
	}
	switch r.op {
	case "login":
		fam := &family{account: r.account, id: len(f.families) + 1, login: r.sent}
		f.families = append(f.families, fam)
		r.account.latest = fam
		return f.issue(fam, r.asked)
	case "refresh-token":
		return f.rotate(r)
	case "logout":
		p := f.access[r.access]
		if p == nil || !f.accepts(p) {
			return refusal(http.StatusUnauthorized, "AUTH_REQUIRED")
		}
		f.world.say(f, "logs %v out", p)
		l := p.family.login
		p.family.revoked = true
		p.family.discarded = p.number == 1 && l.by == r.sent.by && l.by.sleptSince(l.at)
		return &answer{status: http.StatusOK, body: `{"message":"bye"}`}
	}
	if p := f.access[r.access]; p == nil || !f.accepts(p) {
		return refusal(http.StatusUnauthorized, "AUTH_REQUIRED")
	}
	return &answer{status: http.StatusOK, body: "{}"}
}

// accepts reports whether the pair's access token is good. world.mu is held.
func (f *fincode) accepts(p *pair) bool {
	return !p.revoked && !p.family.revoked && time.Now().Before(p.expires)
}

// rotate uses up a refresh token. world.mu is held.
func (f *fincode) rotate(r *request) *answer {
	p := f.pairs[r.refresh]
	switch {
	case p == nil:
		return refusal(http.StatusUnauthorized, "AUTH_REQUIRED")
	case p.used:
		f.world.say(f, "answers 403: the refresh token of %v was used before", p)
		if f.world.luck.reuseRevokes {
			late := r.sent.outcome == unknown // its sender has given up, and may have presented the token again
			if !late && !p.explained() && !r.sent.overslept {
				f.world.breaks(f, "%v is presented again, nothing explains that, and FinCode revokes its family", p)
			}
			p.family.revoked, p.family.revokedOutside = true, true
		}
		return refusal(http.StatusForbidden, "FORBIDDEN")
	case p.family.revoked:
		f.world.say(f, "answers 401: the session of %v is revoked", p)
		return refusal(http.StatusUnauthorized, "AUTH_REQUIRED")
	}
	p.used, p.usedBy = true, r.sent
	f.world.stats.Rotations++
	p.family.account.rotations++
	if f.world.luck.rotationRevokes {
		p.revoked = true
	}
	return f.issue(p.family, r.asked)
}

// issue makes the family's next pair. asked is when the process began to ask for
// it. world.mu is held.
func (f *fincode) issue(fam *family, asked time.Time) *answer {
	l := f.world.luck
	p := &pair{family: fam, number: 1, asked: asked, issued: time.Now(), expires: time.Now().Add(l.lifetime)}
	if fam.latest != nil {
		p.number = fam.latest.number + 1
	}
	fam.latest = p
	p.refresh = fmt.Sprintf("refresh-%v", p)
	p.access = fmt.Sprintf("access-%v", p)
	if l.jwt {
		iat := p.issued.Add(l.serverClock).Unix()
		claims := fmt.Sprintf(`{"iat":%d,"exp":%d}`, iat, iat+int64(l.lifetime/time.Second))
		p.access = "e30." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + "." + strings.ReplaceAll(p.access, ".", "-")
	}
	f.pairs[p.refresh], f.access[p.access] = p, p
	f.world.say(f, "issues %v", p)
	body := map[string]any{"access_token": p.access, "refresh_token": p.refresh}
	if l.expiresIn {
		body["expires_in"] = int64(l.lifetime / time.Second)
	}
	data, err := json.Marshal(body)
	if err != nil {
		panic(err)
	}
	return &answer{status: http.StatusOK, body: string(data), issued: p}
}

// A request is what FinCode reads in an HTTP request.
type request struct {
	op, refresh, access string        // op is the last element of the path
	account             *account      // for which the package was called
	asked               time.Time     // when the package handed the request over
	sent                *presentation // the request as a presentation; nil before it leaves
	instead             *answer       // the answer, if FinCode does not carry the request out; nil: chance decides
}

// read reads a request. The token or the credentials in it, or accountField of a
// request to the API, say which account it is for.
func (f *fincode) read(r *http.Request) *request {
	var body struct {
		Email   string `json:"email"`
		Refresh string `json:"refresh_token"`
	}
	if r.Body != nil {
		defer r.Body.Close()
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			panic(err) // the package's own
		}
	}
	req := &request{op: path.Base(r.URL.Path), refresh: body.Refresh, access: r.Header.Get("X-Auth-Token")}
	switch req.op {
	case api:
		req.account = f.world.account(r.Header.Get(accountField))
	case "login":
		req.account = f.world.account(strings.TrimSuffix(body.Email, mailbox))
	default:
		req.account = f.owner(req)
	}
	return req
}

// owner returns the account that owns the tokens of the request. It locks world.mu.
func (f *fincode) owner(r *request) *account {
	f.world.mu.Lock()
	defer f.world.mu.Unlock()
	if p := cmp.Or(f.pairs[r.refresh], f.access[r.access]); p != nil {
		return p.family.account
	}
	return f.world.accounts[0] // the promises will complain
}

// RoundTrip sends a request to FinCode. It is the process's Config.Base.
func (p *process) RoundTrip(r *http.Request) (*http.Response, error) {
	w := p.machine.world
	req := w.fincode.read(r)
	v := p.view(req.account)
	req.asked = time.Now()
	if err := p.step("before " + req.op); err != nil {
		return nil, err
	}
	if err := r.Context().Err(); err != nil {
		w.promise.notSentInTime(req)
		return nil, err
	}
	d := v.dice(req.op)
	hooks := httptrace.ContextClientTrace(r.Context())
	if hooks != nil && hooks.GetConn != nil {
		hooks.GetConn(r.URL.Host)
	}
	if w.happens(d, ConnectionRefused) {
		time.Sleep(quick(d).up)
		w.sayNow(v, "%s: refused", req.op)
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection refused")}
	}
	if hooks != nil && hooks.GotConn != nil {
		hooks.GotConn(httptrace.GotConnInfo{})
	}
	way := v.wayToFinCode(d, req)
	req.sent = w.promise.sends(v, req, way.repeatAfter > 0)
	heard, err := send(r.Context(), w, way, func() *answer { return w.fincode.reply(d, req) })
	if err != nil && r.Context().Err() != nil {
		w.promise.givesUp(v, req)
	}
	if dead := p.step("after " + req.op); dead != nil {
		return nil, dead
	}
	w.promise.hears(v, req, req.sent, heard)
	if err != nil {
		w.sayNow(v, "%s: %v", req.op, err)
		return nil, err
	}
	w.sayNow(v, "%s: %d", req.op, heard.status)
	return heard.response(r), nil
}

// wayToFinCode returns what happens to a request on its way. Chance decides.
func (v *view) wayToFinCode(d *rand.Rand, req *request) passage {
	w := v.machine.world
	way := quick(d)
	if w.happens(d, SlowFinCode) {
		way.slow(d, w.luck.timeout)
	}
	way.requestLost = w.happens(d, RequestLost)
	way.answerLost = w.happens(d, AnswerLost)
	if req.op == "refresh-token" && w.happens(d, RequestTwice) {
		way.repeatAfter = between(d, time.Microsecond, time.Second)
		way.answerRepeat = d.IntN(2) == 0
	}
	req.instead = v.spoil(req.op, &way)
	w.sayNow(v, "%s %s: %v", req.op, req.refresh, way)
	return way
}

// reply answers a request. Chance decides whether that goes wrong.
func (f *fincode) reply(d *rand.Rand, r *request) *answer {
	w := f.world
	switch {
	case r.instead != nil:
		return r.instead
	case w.happens(d, Answer503):
		return &answer{status: http.StatusServiceUnavailable, body: "<html>", retryAfter: retryAfter(d)}
	case w.happens(d, Answer429):
		a := refusal(http.StatusTooManyRequests, "RATE_LIMIT_EXCEEDED")
		a.retryAfter = retryAfter(d)
		return a
	case w.happens(d, Page403):
		return &answer{status: http.StatusForbidden, body: "<html>blocked"}
	case r.op == api && w.happens(d, UnauthorizedAPI):
		return refusal(http.StatusUnauthorized, "AUTH_REQUIRED")
	}
	w.mu.Lock()
	a := f.serve(r)
	w.mu.Unlock()
	switch {
	case a.status != http.StatusOK:
	case w.happens(d, Answer500):
		return refusal(http.StatusInternalServerError, "SERVER_ERROR")
	case w.happens(d, AnswerGarbage):
		return &answer{status: http.StatusOK, body: `{"message":"welcome"}`}
	case w.happens(d, AnswerCut):
		return &answer{status: http.StatusOK, body: a.body[:len(a.body)/2], cut: true}
	}
	return a
}

// retryAfter returns whole seconds, or 0 in about half of the cases.
func retryAfter(d *rand.Rand) time.Duration {
	return max(0, between(d, -30*time.Second, 30*time.Second).Round(time.Second))
}

// response returns a as the response to r.
func (a *answer) response(r *http.Request) *http.Response {
	resp := &http.Response{StatusCode: a.status, Header: make(http.Header), Request: r}
	if a.retryAfter > 0 {
		resp.Header.Set("Retry-After", strconv.Itoa(int(a.retryAfter/time.Second)))
	}
	body := io.Reader(bytes.NewReader([]byte(a.body)))
	if a.cut {
		body = io.MultiReader(body, broken{})
	}
	resp.Body = io.NopCloser(body)
	resp.ContentLength = -1
	return resp
}

// broken is a reader that stands for the rest of a body after its connection
// broke.
type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }
