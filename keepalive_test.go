package fincodeauth_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"iter"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/oauth2"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/fincodetest"
)

var idle = flag.Int("idle", 5_000, "how many sessions TestIdleSessionsOfThreeReplicasStayAlive has")

// A rotator is a FinCode with many idle sessions, which says when each refresh token was
// presented. It is smaller and faster than fincodetest.
type rotator struct {
	limit time.Duration // a refresh token that is older is dead

	mu       sync.Mutex
	sessions []rotated
	total    int
	parallel int
	most     int      // the largest parallel
	wrong    []string // what must not happen
}

type rotated struct {
	serial int
	issued time.Time
}

const rotatorLatency = 100 * time.Millisecond

func (f *rotator) token(i int) *oauth2.Token {
	s := f.sessions[i]
	return &oauth2.Token{
		AccessToken:  fmt.Sprintf("access-%d-%d", i, s.serial),
		RefreshToken: fmt.Sprintf("%d-%d", i, s.serial),
		ExpiresIn:    3600,
		Expiry:       s.issued.Add(time.Hour),
	}
}

func (f *rotator) RoundTrip(r *http.Request) (*http.Response, error) {
	var body struct {
		RefreshToken string `json:"refresh_token"`
	}
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		return nil, err
	}
	f.count(1)
	time.Sleep(rotatorLatency)
	defer f.count(-1)
	first, second, _ := strings.Cut(body.RefreshToken, "-")
	i, _ := strconv.Atoi(first)
	serial, _ := strconv.Atoi(second)
	tok := f.rotate(i, serial)
	answer := fmt.Sprintf(`{"access_token": %q, "refresh_token": %q, "expires_in": 3600}`, tok.AccessToken, tok.RefreshToken)
	return &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(answer)), Request: r}, nil
}

func (f *rotator) count(change int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.parallel += change
	f.most = max(f.most, f.parallel)
}

func (f *rotator) rotate(i, serial int) *oauth2.Token {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := &f.sessions[i]
	if age := time.Since(s.issued); age >= f.limit {
		f.wrong = append(f.wrong, fmt.Sprintf("the refresh token of session %d was presented when it was %v old", i, age))
	}
	if serial != s.serial {
		f.wrong = append(f.wrong, fmt.Sprintf("token %d of session %d was presented again, after %d", serial, i, s.serial))
	}
	s.serial++
	s.issued = time.Now()
	f.total++
	return f.token(i)
}

// figures returns the number of refreshes, the largest number of them at once, and what must
// not have happened.
func (f *rotator) figures() (total, most int, wrong []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.total, f.most, f.wrong
}

// wantYoung expects that no refresh token is too old, or was presented twice.
func (f *rotator) wantYoung(t *testing.T) {
	t.Helper()
	_, _, wrong := f.figures()
	if oldest := f.oldest(); oldest >= f.limit {
		t.Errorf("a refresh token is %v old, want less than %v", oldest, f.limit)
	}
	for _, w := range wrong[:min(len(wrong), 10)] {
		t.Error(w)
	}
}

// oldest returns the age of the oldest refresh token.
func (f *rotator) oldest() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	var oldest time.Duration
	for _, s := range f.sessions {
		oldest = max(oldest, time.Since(s.issued))
	}
	return oldest
}

// newRotator returns a rotator with n sessions, whose records are in the store. age returns
// how old the refresh token of a session is.
func newRotator(t *testing.T, store fincodeauth.Store, n int, limit time.Duration, age func(i int) time.Duration) *rotator {
	t.Helper()
	f := &rotator{limit: limit, sessions: make([]rotated, n)}
	for i := range n {
		f.sessions[i] = rotated{serial: 1, issued: time.Now().Add(-age(i))}
		rec := &fincodeauth.Record{Version: fmt.Sprintf("s%d.1", i), Generation: 1, Token: f.token(i)}
		if err := store.Save(t.Context(), strconv.Itoa(i), rec, ""); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

// keepAlive runs KeepAlive in the background of a bubble. stop ends it and returns its
// error.
func keepAlive(sessions *fincodeauth.Sessions, every time.Duration, keys func(context.Context) iter.Seq2[string, error]) (stop func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- sessions.KeepAlive(ctx, every, keys) }()
	return func() error {
		cancel()
		err := <-ended
		time.Sleep(time.Minute) // a refresh goes on after its caller has left
		return err
	}
}

func TestIdleSessionsOfThreeReplicasStayAlive(t *testing.T) {
	n := *idle
	if testing.Short() {
		n = min(n, 1000)
	}
	const every, lasts = 24 * time.Hour, 2 * 24 * time.Hour
	synctest.Test(t, func(t *testing.T) {
		store := fincodeauth.NewMemoryStore()
		fc := newRotator(t, store, n, every, func(i int) time.Duration { return every * 94 / 100 * time.Duration(i) / time.Duration(n) })
		var replicas []*fincodeauth.Sessions
		var stops []func() error
		for range 3 {
			s, err := fincodeauth.New(fincodeauth.Config{BaseURL: api, Base: fc, Store: store})
			if err != nil {
				t.Fatal(err)
			}
			replicas = append(replicas, s)
			stops = append(stops, keepAlive(s, every, nil))
		}
		for range lasts / time.Hour {
			time.Sleep(time.Hour)
			if oldest := fc.oldest(); oldest >= every {
				t.Fatalf("a refresh token is %v old, want less than %v", oldest, every)
			}
		}
		for _, stop := range stops {
			stop()
		}
		fc.wantYoung(t)
		total, most, _ := fc.figures()
		least := float64(n) * float64(lasts) / float64(every)
		t.Logf("%d sessions were refreshed %d times in %v: %.3f times the least, and at most %d at once", n, total, lasts, float64(total)/least, most)
		if float64(total) > 1.05*least {
			t.Errorf("the sessions were refreshed %d times, want at most 1.05 times %.0f", total, least)
		}
		if most > 3*8 {
			t.Errorf("%d refreshes were under way at once, want at most 8 of each replica", most)
		}
		for _, s := range replicas {
			if st := s.Stats(); st.InMemory > n || st.Unsaved != 0 {
				t.Errorf("%d sessions are in memory, and %d are unsaved", st.InMemory, st.Unsaved)
			}
		}
	})
}

// failures counts the events RefreshFailed by key.
func failures(seen *events) map[string]int {
	seen.mu.Lock()
	defer seen.mu.Unlock()
	n := make(map[string]int)
	for _, ev := range seen.all {
		if ev.Type == fincodeauth.RefreshFailed {
			n[ev.Key]++
		}
	}
	return n
}

// wantStopped ends a KeepAlive, and expects that it was at work until then.
func wantStopped(t *testing.T, stop func() error) {
	t.Helper()
	if err := stop(); !errors.Is(err, context.Canceled) {
		t.Errorf("KeepAlive returned %v, want context.Canceled", err)
	}
}

func TestIdleSessionOutlivesItsRefreshToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{RefreshLifetime: 24 * time.Hour})
		store := fincodeauth.NewMemoryStore()
		sessions := newSessions(t, fc, withStore(store))
		logIn(t, sessions, "a")
		stop := keepAlive(sessions, 20*time.Hour, nil)
		time.Sleep(30 * 24 * time.Hour)
		wantStopped(t, stop)
		token(t, newSessions(t, fc, withStore(store)).TokenSource("a"))
		if c := fc.Counts(); c.Refreshes < 36 || c.Refreshes > 39 || c.Reuses+c.Rejected != 0 {
			t.Errorf("FinCode got %+v, want a refresh each 20 hours, 36 to 38, and one at the end", c)
		}
	})
}

func TestSessionInUseIsNotRefreshedByKeepAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		sessions := newSessions(t, fc)
		logIn(t, sessions, "a")
		stop := keepAlive(sessions, 3*time.Hour, nil)
		for range 24 * 60 {
			token(t, sessions.TokenSource("a"))
			time.Sleep(time.Minute)
		}
		wantStopped(t, stop)
		if c := fc.Counts(); c.Refreshes > 27 {
			t.Errorf("FinCode made %d refreshes in a day, want those of the requests alone, at most 27", c.Refreshes)
		}
	})
}

// The refresh token may live for less than the user thinks. FINCODE.md: if it is a JWT,
// its exp says.
func TestRefreshTokenThatIsAJWTSaysHowLongItLives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{RefreshLifetime: 24 * time.Hour})
		sessions := newSessions(t, fc)
		stop := keepAlive(sessions, 7*24*time.Hour, nil)
		const n = 20 // begin at different moments of a round, which takes 50 minutes
		for i := range n {
			logIn(t, sessions, strconv.Itoa(i))
			time.Sleep(11 * time.Minute)
		}
		time.Sleep(30 * 24 * time.Hour)
		wantStopped(t, stop)
		for i := range n {
			token(t, sessions.TokenSource(strconv.Itoa(i)))
		}
		if c := fc.Counts(); c.Refreshes < 30*n || c.Refreshes > 35*n {
			t.Errorf("FinCode made %d refreshes of %d sessions in 30 days, want a little more than one a day for each", c.Refreshes, n)
		}
	})
}

func TestTokensThatHaveNotExpiredAreRefreshedToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{AccessLifetime: 24 * time.Hour})
		sessions := newSessions(t, fc)
		logIn(t, sessions, "a")
		stop := keepAlive(sessions, 6*time.Hour, nil)
		time.Sleep(59 * time.Hour)
		wantStopped(t, stop)
		if c := fc.Counts(); c.Refreshes < 9 || c.Refreshes > 10 {
			t.Errorf("FinCode made %d refreshes in 59 hours, want one each 6 hours", c.Refreshes)
		}
	})
}

func TestTokenOfUnknownAgeIsRefreshedAtOnceAndThenAsUsual(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{OpaqueTokens: true, ExpiresIn: fincodetest.ExpiresInAbsent})
		sessions := newSessions(t, fc)
		logIn(t, sessions, "a")
		time.Sleep(time.Hour)
		stop := keepAlive(sessions, 10*time.Hour, nil)
		time.Sleep(time.Minute)
		wantCalls(t, fc, 1, 1)
		time.Sleep(99 * time.Hour)
		wantStopped(t, stop)
		if c := fc.Counts(); c.Refreshes < 10 || c.Refreshes > 11 {
			t.Errorf("FinCode made %d refreshes in 99 hours, want one each 10 hours", c.Refreshes)
		}
	})
}

// A process that has just loaded such a token does not know that it is old.
func TestTokenOfUnknownAgeIsRefreshedAtOnceInANewProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{OpaqueTokens: true, ExpiresIn: fincodetest.ExpiresInAbsent})
		store := fincodeauth.NewMemoryStore()
		logIn(t, newSessions(t, fc, withStore(store)), "a")
		time.Sleep(time.Hour)
		stop := keepAlive(newSessions(t, fc, withStore(store)), 10*time.Hour, nil)
		time.Sleep(time.Minute)
		wantStopped(t, stop)
		wantCalls(t, fc, 1, 1)
	})
}

// The expiry alone does not say how old the refresh token is.
func TestAdoptedTokenThatSaysOnlyWhenItExpiresIsRefreshedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{OpaqueTokens: true, RefreshLifetime: 24 * time.Hour})
		before, sessions := newSessions(t, fc), newSessions(t, fc)
		logIn(t, before, "a")
		time.Sleep(54 * time.Minute)
		tok := *token(t, before.TokenSource("a"))
		tok.ExpiresIn = 0
		if err := sessions.Adopt(t.Context(), "a", &tok); err != nil {
			t.Fatal(err)
		}
		stop := keepAlive(sessions, 24*time.Hour, nil)
		time.Sleep(time.Minute)
		wantCalls(t, fc, 1, 1)
		time.Sleep(48 * time.Hour)
		wantStopped(t, stop)
		token(t, sessions.TokenSource("a"))
	})
}

func TestKeepAlivePassesOverWhatNeedsALogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := newFaultyStore()
		var loads atomic.Int64
		store.load = func() error { loads.Add(1); return nil }
		var seen events
		sessions := newSessions(t, fc, withStore(store), seen.observe)
		for _, key := range []string{"logged out", "ended", "no refresh token"} {
			logIn(t, sessions, key)
		}
		if err := sessions.Logout(t.Context(), "logged out"); err != nil {
			t.Fatal(err)
		}
		present(t, fc, record(t, store, "ended").Token.RefreshToken)
		if err := sessions.Adopt(t.Context(), "no refresh token", &oauth2.Token{AccessToken: "a"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Hour)
		_, err := sessions.TokenSource("ended").Token()
		wantSessionError(t, err, true, false)
		seen.types()
		before := fc.Counts()
		loads.Store(0)
		keys := func(context.Context) iter.Seq2[string, error] {
			return func(yield func(string, error) bool) {
				for _, key := range []string{"logged out", "ended", "no refresh token", "never began", ""} {
					if !yield(key, nil) {
						return
					}
				}
			}
		}
		stop := keepAlive(sessions, 10*time.Hour, keys)
		time.Sleep(95 * time.Hour)
		wantStopped(t, stop)
		if got := fc.Counts(); got != before {
			t.Errorf("FinCode got %+v, want no call after %+v", got, before)
		}
		if n := loads.Load(); n > 5*10 {
			t.Errorf("there were %d Loads, want one for each of 5 keys each 10 hours, at most 50", n)
		}
		seen.want(t)
	})
}

// A login comes under a key that KeepAlive has seen without a session.
func TestSessionThatBeginsLaterIsKeptAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{RefreshLifetime: 10 * time.Hour, OpaqueTokens: true})
		store := fincodeauth.NewMemoryStore()
		sessions := newSessions(t, fc, withStore(store))
		logIn(t, sessions, "a")
		if err := sessions.Logout(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		stop := keepAlive(sessions, 10*time.Hour, nil)
		time.Sleep(7 * time.Hour)
		logIn(t, newSessions(t, fc, withStore(store)), "a")
		time.Sleep(100 * time.Hour)
		wantStopped(t, stop)
		token(t, sessions.TokenSource("a"))
		if c := fc.Counts(); c.Rejected != 0 {
			t.Errorf("FinCode got %+v, want no dead token", c)
		}
	})
}

// damagedStore cannot load some records, and lists them.
type damagedStore struct {
	*fincodeauth.MemoryStore
	damaged func(key string) bool
}

func (s damagedStore) Load(ctx context.Context, key string) (*fincodeauth.Record, error) {
	if s.damaged(key) {
		return nil, errors.New("the record is damaged")
	}
	return s.MemoryStore.Load(ctx, key)
}

func TestDamagedRecordsHarmNoOtherSessionAndAreToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := fincodeauth.NewMemoryStore()
		const n, every = 500, 24 * time.Hour
		fc := newRotator(t, memory, n, every, func(i int) time.Duration { return every / 2 })
		store := damagedStore{memory, func(key string) bool { i, _ := strconv.Atoi(key); return i%2 == 0 }}
		var seen events
		cfg := fincodeauth.Config{BaseURL: api, Base: fc, Store: store}
		seen.observe(&cfg)
		sessions, err := fincodeauth.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		stop := keepAlive(sessions, every, nil)
		time.Sleep(3 * every)
		wantStopped(t, stop)
		for i, s := range fc.sessions {
			if s.serial != 1 != (i%2 == 1) || i%2 == 1 && time.Since(s.issued) >= every {
				t.Fatalf("session %d has token %d, which is %v old", i, s.serial, time.Since(s.issued))
			}
		}
		told := failures(&seen)
		if len(told) != n/2 || told["0"] != 1 || told["2"] != 1 || told["1"] != 0 {
			t.Errorf("%d sessions were told of, the first ones %d, %d and %d times; want each damaged one once", len(told), told["0"], told["1"], told["2"])
		}
	})
}

// Sessions that are not due are not loaded, so a round may load damaged records only.
func TestManyDamagedRecordsDoNotDelayTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := fincodeauth.NewMemoryStore()
		const n, every = 2000, time.Hour
		fc := newRotator(t, memory, n, every, func(i int) time.Duration { return every * 9 / 10 * time.Duration(i) / n })
		store := damagedStore{memory, func(key string) bool { i, _ := strconv.Atoi(key); return i%2 == 0 }}
		sessions, err := fincodeauth.New(fincodeauth.Config{BaseURL: api, Base: fc, Store: store})
		if err != nil {
			t.Fatal(err)
		}
		stop := keepAlive(sessions, every, nil)
		time.Sleep(every)
		wantStopped(t, stop)
		_, _, wrong := fc.figures()
		for i, s := range fc.sessions {
			if age := time.Since(s.issued); i%2 == 1 && age >= every {
				wrong = append(wrong, fmt.Sprintf("the refresh token of session %d is %v old", i, age))
			}
		}
		if len(wrong) > 0 {
			t.Errorf("%d refresh tokens were too old: %s", len(wrong), wrong[0])
		}
	})
}

// A store that was away makes refreshes wait (lookout.go).
func TestDamagedRecordsDoNotMakeCallersWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := fincodeauth.NewMemoryStore()
		fc := fincodetest.New(fincodetest.Config{})
		sessions := newSessions(t, fc, withStore(damagedStore{memory, func(key string) bool { return key != "a" }}))
		logIn(t, sessions, "a")
		for i := range 5 {
			if err := memory.Save(t.Context(), strconv.Itoa(i), &fincodeauth.Record{Version: "v1"}, ""); err != nil {
				t.Fatal(err)
			}
		}
		stop := keepAlive(sessions, 24*time.Hour, nil)
		time.Sleep(90 * time.Minute)
		if took := elapsed(func() { token(t, sessions.TokenSource("a")) }); took > time.Second {
			t.Errorf("a caller waited %v for a refresh, want no wait for a store that was never away", took)
		}
		wantStopped(t, stop)
	})
}

// The wrong key of Encrypt damages all records. Each has an event, up to a limit.
func TestManyDamagedRecordsAreToldOfUpToALimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := fincodeauth.NewMemoryStore()
		const every = 24 * time.Hour
		fc := newRotator(t, memory, 3000, every, func(int) time.Duration { return 0 })
		var seen events
		cfg := fincodeauth.Config{BaseURL: api, Base: fc, Store: damagedStore{memory, func(string) bool { return true }}}
		seen.observe(&cfg)
		sessions, err := fincodeauth.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		stop := keepAlive(sessions, every, nil)
		time.Sleep(every / 4)
		wantStopped(t, stop)
		if told := failures(&seen); len(told) != 1000 {
			t.Errorf("%d sessions were told of, want 1000", len(told))
		}
	})
}

func TestStoreThatIsDownGetsFewCallsAndLosesNoSession(t *testing.T) {
	for name, before := range map[string]time.Duration{"from the start": 0, "later": time.Hour} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := newFaultyStore()
				const n, every = 3000, 24 * time.Hour
				fc := newRotator(t, store, n, every, func(i int) time.Duration { return every * 95 / 100 * time.Duration(i) / n })
				sessions, err := fincodeauth.New(fincodeauth.Config{BaseURL: api, Base: fc, Store: store})
				if err != nil {
					t.Fatal(err)
				}
				var down atomic.Bool
				var calls atomic.Int64
				fails := func() error {
					if down.Load() {
						calls.Add(1)
						return errStoreDown
					}
					return nil
				}
				store.set(func(s *faultyStore) {
					s.load = fails
					s.save = func(_ *fincodeauth.Record, save func() error) error {
						if err := fails(); err != nil {
							return err
						}
						return save()
					}
				})
				down.Store(before == 0)
				stop := keepAlive(sessions, every, nil)
				time.Sleep(before)
				down.Store(true)
				time.Sleep(time.Minute)
				if n := calls.Load(); n > 600 {
					t.Errorf("a store that is down got %d calls in a minute, want at most 600", n)
				}
				time.Sleep(14 * time.Minute)
				down.Store(false)
				time.Sleep(every + every/10)
				wantStopped(t, stop)
				fc.wantYoung(t)
			})
		})
	}
}

func TestFinCodeThatIsDownGetsFewCallsAndLosesNoSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fincodeauth.NewMemoryStore()
		const n, every = 500, 24 * time.Hour
		fc := newRotator(t, store, n, every, func(i int) time.Duration { return every * 95 / 100 * time.Duration(i) / n })
		var down atomic.Bool
		var calls atomic.Int64
		base := roundTripper(func(r *http.Request) (*http.Response, error) {
			if down.Load() {
				calls.Add(1)
				return &http.Response{StatusCode: 503, Body: http.NoBody, Request: r}, nil
			}
			return fc.RoundTrip(r)
		})
		sessions, err := fincodeauth.New(fincodeauth.Config{BaseURL: api, Base: base, Store: store})
		if err != nil {
			t.Fatal(err)
		}
		stop := keepAlive(sessions, every, nil)
		time.Sleep(time.Hour)
		down.Store(true)
		const outage = 15 * time.Minute
		time.Sleep(outage)
		down.Store(false)
		if perSecond := float64(calls.Load()) / outage.Seconds(); perSecond > 10 {
			t.Errorf("a FinCode that is down got %.1f calls a second, want at most 10", perSecond)
		}
		time.Sleep(3 * every)
		wantStopped(t, stop)
		fc.wantYoung(t)
	})
}

// keysThat yields the keys of the numbers up to n, and then fails while failing is true.
func keysThat(n int, failing *atomic.Bool) func(context.Context) iter.Seq2[string, error] {
	return func(context.Context) iter.Seq2[string, error] {
		return func(yield func(string, error) bool) {
			for i := range n {
				if i == n/2 && failing.Load() {
					yield("", errStoreDown)
					return
				}
				if !yield(strconv.Itoa(i), nil) {
					return
				}
			}
		}
	}
}

func TestKeysThatFailHalfwayAreToldOnceAndListedAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fincodeauth.NewMemoryStore()
		const n, every = 100, 24 * time.Hour
		fc := newRotator(t, store, n, every, func(int) time.Duration { return every * 975 / 1000 })
		var seen events
		cfg := fincodeauth.Config{BaseURL: api, Base: fc, Store: store}
		seen.observe(&cfg)
		sessions, err := fincodeauth.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		var failing atomic.Bool
		failing.Store(true)
		stop := keepAlive(sessions, every, keysThat(n, &failing))
		time.Sleep(25 * time.Minute)
		if total, _, _ := fc.figures(); total != n/2 {
			t.Errorf("%d sessions were refreshed, want those before the failure, %d", total, n/2)
		}
		if told := failures(&seen); told[""] != 1 || len(told) != 1 {
			t.Errorf("RefreshFailed was sent for %v, want once, without a key", told)
		}
		failing.Store(false)
		time.Sleep(15 * time.Minute)
		if total, _, _ := fc.figures(); total != n {
			t.Errorf("%d sessions were refreshed, want all %d", total, n)
		}
		failing.Store(true)
		time.Sleep(15 * time.Minute)
		wantStopped(t, stop)
		if told := failures(&seen); told[""] != 2 {
			t.Errorf("RefreshFailed was sent %d times, want once more after the keys were listed again", told[""])
		}
		fc.wantYoung(t)
	})
}

// numbers yields the keys of the numbers up to n, and false if the loop over them ended.
func numbers(n int, yield func(string, error) bool) bool {
	for i := range n {
		if !yield(strconv.Itoa(i), nil) {
			return false
		}
	}
	return true
}

// A connection that hangs costs one round, and is told of.
func TestKeysThatHangAreEndedAndListedAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fincodeauth.NewMemoryStore()
		const n, every = 20, 24 * time.Hour
		fc := newRotator(t, store, n, every, func(int) time.Duration { return 0 })
		var seen events
		cfg := fincodeauth.Config{BaseURL: api, Base: fc, Store: store}
		seen.observe(&cfg)
		sessions, err := fincodeauth.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		lists := 0
		stop := keepAlive(sessions, every, func(ctx context.Context) iter.Seq2[string, error] {
			return func(yield func(string, error) bool) {
				lists++
				if numbers(n/2, yield) && lists%100 == 50 {
					<-ctx.Done()
				} else {
					numbers(n, yield)
				}
			}
		})
		time.Sleep(every / 2)
		if told := failures(&seen); told[""] != 1 || len(told) != 1 {
			t.Errorf("RefreshFailed was sent for %v, want once, without a key", told)
		}
		time.Sleep(3 * every)
		wantStopped(t, stop)
		fc.wantYoung(t)
	})
}

func TestKeysThatYieldErrorsForEverEndWithTheContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	err := newSessions(t, fincodetest.New(fincodetest.Config{})).KeepAlive(ctx, time.Hour, func(context.Context) iter.Seq2[string, error] {
		return func(yield func(string, error) bool) {
			for range 1_000_000 {
				if !yield("", errStoreDown) {
					return
				}
				cancel()
			}
			t.Error("the list goes on, want an end with the context")
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("KeepAlive returned %v, want context.Canceled", err)
	}
}

// A list that fails matters more than one record.
func TestKeysThatFailAreToldOfBesideManyDamagedRecords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := fincodeauth.NewMemoryStore()
		const n, every = 1500, 24 * time.Hour
		fc := newRotator(t, memory, n, every, func(int) time.Duration { return 0 })
		var seen events
		cfg := fincodeauth.Config{BaseURL: api, Base: fc, Store: damagedStore{memory, func(string) bool { return true }}}
		seen.observe(&cfg)
		sessions, err := fincodeauth.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		stop := keepAlive(sessions, every, func(context.Context) iter.Seq2[string, error] {
			return func(yield func(string, error) bool) { _ = numbers(n, yield) && yield("", errStoreDown) }
		})
		time.Sleep(every / 4)
		wantStopped(t, stop)
		if told := failures(&seen); told[""] != 1 || len(told) != 1001 {
			t.Errorf("%d failures were told of, that of the list %d times; want 1000 records and the list once", len(told), told[""])
		}
	})
}

// A tenantFinCode is a FinCode of a tenant. It refuses tokens of other tenants.
type tenantFinCode struct {
	tenant string

	mu     sync.Mutex
	bodies []string
}

func (f *tenantFinCode) RoundTrip(r *http.Request) (*http.Response, error) {
	data, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	f.bodies = append(f.bodies, string(data))
	f.mu.Unlock()
	status, answer := 401, `{"success": false, "error": {"message": "invalid"}}`
	if strings.Contains(string(data), "of-"+f.tenant) {
		status, answer = 200, fmt.Sprintf(`{"access_token": %q, "refresh_token": "of-%s", "expires_in": 3600}`, tenantToken(f.tenant, time.Now()).AccessToken, f.tenant)
	}
	return &http.Response{StatusCode: status, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(answer)), Request: r}, nil
}

// presented returns the bodies of all refreshes.
func (f *tenantFinCode) presented() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.bodies)
}

func tenantToken(tenant string, issued time.Time) *oauth2.Token {
	payload := fmt.Sprintf(`{"tenancy-id": %q, "iat": %d, "exp": %d}`, tenant, issued.Unix(), issued.Add(time.Hour).Unix())
	return &oauth2.Token{
		AccessToken:  "e30." + base64.RawURLEncoding.EncodeToString([]byte(payload)) + ".c2ln",
		RefreshToken: "of-" + tenant,
		Expiry:       issued.Add(time.Hour),
	}
}

func TestSessionsOfAnotherTenantAreNotPresentedAndToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fincodeauth.NewMemoryStore()
		for i := range 40 {
			tenant := []string{"ours", "theirs"}[i%2]
			rec := &fincodeauth.Record{Version: strconv.Itoa(i), Generation: 1, Token: tenantToken(tenant, time.Now())}
			if err := store.Save(t.Context(), fmt.Sprintf("%s-%d", tenant, i), rec, ""); err != nil {
				t.Fatal(err)
			}
		}
		fc := &tenantFinCode{tenant: "ours"}
		var seen events
		cfg := fincodeauth.Config{BaseURL: api, Base: fc, Store: store}
		seen.observe(&cfg)
		sessions, err := fincodeauth.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if err := sessions.Adopt(t.Context(), "first", tenantToken("ours", time.Now())); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Hour)
		token(t, sessions.TokenSource("first")) // from now on, the process knows its tenant
		stop := keepAlive(sessions, 24*time.Hour, nil)
		time.Sleep(70 * time.Hour)
		wantStopped(t, stop)
		presented := fc.presented()
		if slices.ContainsFunc(presented, func(body string) bool { return strings.Contains(body, "theirs") }) {
			t.Error("a token of the other tenant was presented")
		}
		if n := len(presented); n < 20*2 || n > 21*4 {
			t.Errorf("%d tokens were presented, want those of our 21 sessions, two or three times", n)
		}
		told := failures(&seen)
		if len(told) != 20 || told["theirs-1"] != 1 || told["theirs-39"] != 1 {
			t.Errorf("RefreshFailed was sent for %v, want once for each session of the other tenant", told)
		}
	})
}

// Visits wait for FinCode's first answer. It may say that they must not go on.
func TestFirstAnswerKeepsTheOtherTenantsSessionsThatWaitForIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fincodeauth.NewMemoryStore()
		const every = 24 * time.Hour
		for i := range 40 {
			tok := tenantToken([]string{"ours", "theirs"}[i%2], time.Now().Add(-every*98/100))
			if err := store.Save(t.Context(), strconv.Itoa(i), &fincodeauth.Record{Version: strconv.Itoa(i), Generation: 1, Token: tok}, ""); err != nil {
				t.Fatal(err)
			}
		}
		fc := &tenantFinCode{tenant: "ours"}
		sessions, err := fincodeauth.New(fincodeauth.Config{BaseURL: api, Base: fc, Store: store})
		if err != nil {
			t.Fatal(err)
		}
		stop := keepAlive(sessions, every, nil)
		time.Sleep(time.Minute)
		wantStopped(t, stop)
		theirs := 0
		for _, body := range fc.presented() {
			if strings.Contains(body, "of-theirs") {
				theirs++
			}
		}
		if n := len(fc.presented()); theirs > 1 || n-theirs != 20 {
			t.Errorf("%d tokens of the other tenant and %d of ours were presented, want at most one, and 20", theirs, n-theirs)
		}
	})
}

// Sessions that nobody has refreshed in time are dead. They look like those of another
// tenant, but a session that lives must not wait for all of them.
func TestDeadSessionsDoNotHoldUpOthersInANewProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fincodeauth.NewMemoryStore()
		const n, every = 500, 24 * time.Hour
		for i := range n {
			tok := tenantToken("ours", time.Now().Add(-2*every))
			tok.RefreshToken = "dead"
			if i == n/2 {
				tok = tenantToken("ours", time.Now().Add(-every*975/1000))
			}
			if err := store.Save(t.Context(), strconv.Itoa(i), &fincodeauth.Record{Version: strconv.Itoa(i), Generation: 1, Token: tok}, ""); err != nil {
				t.Fatal(err)
			}
		}
		fc := &tenantFinCode{tenant: "ours"}
		sessions, err := fincodeauth.New(fincodeauth.Config{BaseURL: api, Base: fc, Store: store})
		if err != nil {
			t.Fatal(err)
		}
		stop := keepAlive(sessions, every, nil)
		time.Sleep(every / 100)
		wantStopped(t, stop)
		if got := record(t, store, strconv.Itoa(n/2)); got.Generation != 2 {
			t.Errorf("the session that lives has generation %d after two rounds and %d refreshes, want 2", got.Generation, len(fc.presented()))
		}
	})
}

// A process that has received no token cannot know its tenant. Each refusal costs a session,
// so only one of a tenant is refused in each round.
func TestSessionsOfAnotherTenantDoNotEndTogetherInANewProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fincodeauth.NewMemoryStore()
		const n, every = 40, 24 * time.Hour
		for i := range n {
			rec := &fincodeauth.Record{Version: strconv.Itoa(i), Generation: 1, Token: tenantToken("theirs", time.Now())}
			if err := store.Save(t.Context(), strconv.Itoa(i), rec, ""); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(every * 98 / 100)
		fc := &tenantFinCode{tenant: "ours"}
		sessions, err := fincodeauth.New(fincodeauth.Config{BaseURL: api, Base: fc, Store: store})
		if err != nil {
			t.Fatal(err)
		}
		stop := keepAlive(sessions, every, nil)
		time.Sleep(time.Minute)
		if n := len(fc.presented()); n != 1 {
			t.Errorf("%d tokens of the other tenant were presented in a round, want one", n)
		}
		if err := sessions.Adopt(t.Context(), "ours", tenantToken("ours", time.Now().Add(-every))); err != nil {
			t.Fatal(err)
		}
		time.Sleep(every)
		wantStopped(t, stop)
		ended := 0
		for i := range n {
			if record(t, store, strconv.Itoa(i)).Ended != "" {
				ended++
			}
		}
		if ours := record(t, store, "ours"); ended > 2 || ours.Generation < 2 {
			t.Errorf("%d sessions of the other tenant ended, and ours has generation %d; want one in each round until ours is refreshed", ended, ours.Generation)
		}
	})
}

// Before FinCode has sent a token, one session at a time is at stake.
func TestOneSessionAtATimeIsPresentedUntilFinCodeHasAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fincodeauth.NewMemoryStore()
		const n, every = 20, 24 * time.Hour
		fc := newRotator(t, store, n, 2*every, func(int) time.Duration { return every })
		var refused atomic.Int64
		sessions, err := fincodeauth.New(fincodeauth.Config{BaseURL: api, Store: store, Base: roundTripper(func(r *http.Request) (*http.Response, error) {
			if refused.Load() < 3 {
				fc.count(1)
				time.Sleep(rotatorLatency)
				fc.count(-1)
				refused.Add(1)
				if _, most, _ := fc.figures(); most > 1 {
					t.Errorf("%d refreshes were under way at once, want one", most)
				}
				return &http.Response{StatusCode: 401, Body: http.NoBody, Request: r}, nil
			}
			return fc.RoundTrip(r)
		})})
		if err != nil {
			t.Fatal(err)
		}
		stop := keepAlive(sessions, every, nil)
		time.Sleep(time.Minute)
		wantStopped(t, stop)
		if total, most, _ := fc.figures(); total != n-3 || most < 2 || most > 8 {
			t.Errorf("%d sessions were refreshed, %d at once; want %d, and two to eight at once after the first", total, most, n-3)
		}
	})
}

func TestMemoryIsBoundedWhileSessionsAreKeptAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fincodeauth.NewMemoryStore()
		const n, most, every = 400, 64, 24 * time.Hour
		fc := newRotator(t, store, n, every, func(i int) time.Duration { return every * 95 / 100 * time.Duration(i) / n })
		sessions, err := fincodeauth.New(fincodeauth.Config{BaseURL: api, Base: fc, Store: store, MaxSessions: most})
		if err != nil {
			t.Fatal(err)
		}
		stop := keepAlive(sessions, every, nil)
		used := sessions.TokenSource("7")
		for range 4 * 24 * 6 {
			token(t, used)
			time.Sleep(10 * time.Minute)
			if st := sessions.Stats(); st.InMemory > most {
				t.Fatalf("%d sessions are in memory, want at most %d", st.InMemory, most)
			}
		}
		wantStopped(t, stop)
		fc.wantYoung(t)
	})
}

// All sessions began at the same moment, as on a Monday morning.
func TestRefreshesAreSpreadOverTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fincodeauth.NewMemoryStore()
		const n, every = 2000, 24 * time.Hour
		fc := newRotator(t, store, n, every, func(int) time.Duration { return 0 })
		sessions, err := fincodeauth.New(fincodeauth.Config{BaseURL: api, Base: fc, Store: store})
		if err != nil {
			t.Fatal(err)
		}
		stop := keepAlive(sessions, every, nil)
		most, before := 0, 0
		for range every / time.Minute {
			time.Sleep(time.Minute)
			total, _, _ := fc.figures()
			most, before = max(most, total-before), total
		}
		wantStopped(t, stop)
		if before != n || most > n/10 {
			t.Errorf("%d sessions were refreshed, and up to %d in one minute; want all %d, at most %d in a minute", before, most, n, n/10)
		}
	})
}

func TestCloseEndsKeepAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		sessions := newSessions(t, fc)
		logIn(t, sessions, "a")
		ended := make(chan error, 1)
		go func() { ended <- sessions.KeepAlive(context.Background(), 24*time.Hour, nil) }()
		time.Sleep(time.Minute)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := sessions.Close(ctx); err != nil {
			t.Error(err)
		}
		if err := <-ended; !errors.Is(err, fincodeauth.ErrClosed) {
			t.Errorf("KeepAlive returned %v, want ErrClosed", err)
		}
		if err := sessions.KeepAlive(t.Context(), time.Hour, nil); !errors.Is(err, fincodeauth.ErrClosed) {
			t.Errorf("KeepAlive after Close returned %v, want ErrClosed", err)
		}
	})
}

func TestStoreThatListsNoKeysIsRefusedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		local := fincodeauth.LocalStore(
			func(context.Context, string) (*oauth2.Token, error) { return nil, nil },
			func(context.Context, string, *oauth2.Token) error { return nil })
		sessions := newSessions(t, fincodetest.New(fincodetest.Config{}), withStore(local))
		var err error
		took := elapsed(func() { err = sessions.KeepAlive(t.Context(), 24*time.Hour, nil) })
		if !errors.Is(err, errors.ErrUnsupported) || took > time.Second {
			t.Errorf("KeepAlive returned %v after %v, want ErrUnsupported at once", err, took)
		}
	})
}

// A Close that has returned leaves nothing that calls the store.
func TestCloseWaitsForTheVisitsOfKeepAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFaultyStore()
		sessions := newSessions(t, fincodetest.New(fincodetest.Config{}), withStore(store))
		logIn(t, sessions, "a")
		var loading atomic.Int64
		store.set(func(s *faultyStore) {
			s.load = func() error {
				loading.Add(1)
				defer loading.Add(-1)
				time.Sleep(5 * time.Second) // and does not look at its context
				return nil
			}
		})
		stop := keepAlive(sessions, 24*time.Hour, nil)
		time.Sleep(time.Second)
		if loading.Load() != 1 {
			t.Fatal("KeepAlive does not load the record")
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := sessions.Close(ctx); err != nil {
			t.Error(err)
		}
		if n := loading.Load(); n != 0 {
			t.Errorf("%d Loads are under way after Close", n)
		}
		stop()
	})
}

func TestCloseWaitsUntilKeepAliveListsNoKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sessions := newSessions(t, fincodetest.New(fincodetest.Config{}))
		var listing atomic.Int64
		stop := keepAlive(sessions, 24*time.Hour, func(ctx context.Context) iter.Seq2[string, error] {
			return func(yield func(string, error) bool) {
				listing.Add(1)
				defer listing.Add(-1)
				<-ctx.Done()
				time.Sleep(time.Second) // until the database has noticed it
				yield("", ctx.Err())
			}
		})
		time.Sleep(time.Second)
		if listing.Load() != 1 {
			t.Fatal("KeepAlive does not list the keys")
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := sessions.Close(ctx); err != nil {
			t.Error(err)
		}
		if n := listing.Load(); n != 0 {
			t.Errorf("%d lists are under way after Close", n)
		}
		stop()
	})
}

// Keys that were removed must not take the place of later failures.
func TestFailureIsToldAgainAfterItsKeyWasGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := damagedStore{fincodeauth.NewMemoryStore(), func(string) bool { return true }}
		var seen events
		cfg := fincodeauth.Config{BaseURL: api, Base: fincodetest.New(fincodetest.Config{}), Store: store}
		seen.observe(&cfg)
		sessions, err := fincodeauth.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		var listed atomic.Bool
		listed.Store(true)
		stop := keepAlive(sessions, time.Hour, func(context.Context) iter.Seq2[string, error] {
			return func(yield func(string, error) bool) {
				if listed.Load() {
					yield("a", nil)
				}
			}
		})
		for i := range 3 {
			listed.Store(i%2 == 0)
			time.Sleep(5 * time.Minute)
		}
		wantStopped(t, stop)
		if told := failures(&seen); told["a"] != 2 {
			t.Errorf("RefreshFailed was sent %d times, want once each time that the damaged record was there", told["a"])
		}
	})
}

func TestKeepAliveSaysWhatIsWrong(t *testing.T) {
	fc := fincodetest.New(fincodetest.Config{})
	for _, every := range []time.Duration{0, -time.Hour, 24} {
		if err := newSessions(t, fc).KeepAlive(t.Context(), every, nil); err == nil || !strings.Contains(err.Error(), "such as 24*time.Hour") {
			t.Errorf("KeepAlive(%v) returned %v, want an error that says what to use", every, err)
		}
	}
	if err := new(fincodeauth.Sessions).KeepAlive(t.Context(), time.Hour, nil); err == nil || !strings.Contains(err.Error(), "make them with fincodeauth.New") {
		t.Errorf("KeepAlive returned %v, want an error that names New", err)
	}
}

// Config.Observe must not block. If it does, other sessions are refreshed all the same.
func TestSlowObserveDelaysOnlyItsOwnSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fincodeauth.NewMemoryStore()
		const n, every = 200, 24 * time.Hour
		fc := newRotator(t, store, n, every, func(int) time.Duration { return every * 98 / 100 })
		sessions, err := fincodeauth.New(fincodeauth.Config{BaseURL: api, Base: fc, Store: store, Observe: func(fincodeauth.Event) { time.Sleep(time.Second) }})
		if err != nil {
			t.Fatal(err)
		}
		stop := keepAlive(sessions, every, nil)
		time.Sleep(10 * time.Minute)
		wantStopped(t, stop)
		fc.wantYoung(t)
		if total, _, _ := fc.figures(); total < n {
			t.Errorf("%d sessions were refreshed in 10 minutes, want %d", total, n)
		}
	})
}
