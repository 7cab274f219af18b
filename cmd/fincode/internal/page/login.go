package page

import (
	"crypto/rand"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/fincodeauth/fincodeauth/cmd/fincode/internal/proxykey"
)

const (
	loginLife   = 12 * time.Hour
	maxLogins   = 64
	maxLoginLen = 8 << 10

	// A wrong key is answered after wrongDelay. Only wrongAtOnce wrong keys can wait
	// at a time, and others are refused at once. The right key never waits, so
	// nobody can lock the operator out.
	wrongDelay  = time.Second
	wrongAtOnce = 8
)

// A doorkeeper lets browsers in that have shown the proxy's key. A browser gets a cookie
// with a random text. It opens the page and nothing else: a request through the proxy
// needs the key. That matters because browsers send a cookie of localhost to each program
// that listens there. Programs send the key with each request, and get no cookie.
type doorkeeper struct {
	key   proxykey.Key
	wrong chan struct{} // has a slot for each wrong key that waits

	mu     sync.Mutex
	logins map[string]time.Time // when the cookie with this text stops to work
}

func newDoorkeeper(key proxykey.Key) *doorkeeper {
	return &doorkeeper{key: key, wrong: make(chan struct{}, wrongAtOnce), logins: map[string]time.Time{}}
}

// admits reports whether the request has the key, or a cookie that is good.
func (d *doorkeeper) admits(r *http.Request) bool {
	if d.key.Authorizes(r) {
		return true
	}
	cookie, err := r.Cookie(cookieName(r))
	if err != nil {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	end, ok := d.logins[cookie.Value]
	return ok && time.Now().Before(end)
}

// enter makes a cookie. If there are too many, the oldest one stops to work.
func (d *doorkeeper) enter(r *http.Request) *http.Cookie {
	text := rand.Text()
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.logins) >= maxLogins {
		d.dropOldest()
	}
	d.logins[text] = time.Now().Add(loginLife)
	return d.cookie(r, text, int(loginLife.Seconds()))
}

func (d *doorkeeper) dropOldest() {
	var oldest string
	for text, end := range d.logins {
		if oldest == "" || end.Before(d.logins[oldest]) {
			oldest = text
		}
	}
	delete(d.logins, oldest)
}

// leave ends the login of the request's browser, and returns a cookie that removes its
// cookie.
func (d *doorkeeper) leave(r *http.Request) *http.Cookie {
	if cookie, err := r.Cookie(cookieName(r)); err == nil {
		d.mu.Lock()
		delete(d.logins, cookie.Value)
		d.mu.Unlock()
	}
	return d.cookie(r, "", -1)
}

func (d *doorkeeper) cookie(r *http.Request, text string, maxAge int) *http.Cookie {
	return &http.Cookie{
		Name:     cookieName(r),
		Value:    text,
		Path:     Root,
		MaxAge:   maxAge,
		HttpOnly: true,
		Secure:   r.TLS != nil,
		SameSite: http.SameSiteStrictMode,
	}
}

// cookieName returns a name with the port. Browsers send a cookie of localhost to each
// port of localhost, so that two proxies would overwrite each other's.
func cookieName(r *http.Request) string {
	_, port, err := net.SplitHostPort(r.Host)
	if err != nil || port == "" {
		port = "default"
	}
	return "fincode-page-" + port
}

// holdUp waits before a wrong key is answered, and reports false if too many others do.
func (d *doorkeeper) holdUp(r *http.Request) bool {
	select {
	case d.wrong <- struct{}{}:
	default:
		return false
	}
	defer func() { <-d.wrong }()
	select {
	case <-time.After(wrongDelay):
	case <-r.Context().Done():
	}
	return true
}
