package compose

import (
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/client-go/third_party/forked/httpcache" // Kubernetes' fork of gregjones/httpcache, which is archived

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/fincodetest"
)

// cacheable lets FinCode's answers to GETs be cached for a minute, by private
// caches alone.
func cacheable(fc *fincodetest.FinCode, vary string) http.RoundTripper {
	return roundTripper(func(req *http.Request) (*http.Response, error) {
		resp, err := fc.RoundTrip(req)
		if err == nil && req.Method == http.MethodGet {
			resp.Header.Set("Date", time.Now().UTC().Format(http.TimeFormat))
			resp.Header.Set("Cache-Control", "private, max-age=60")
			if vary != "" {
				resp.Header.Set("Vary", vary)
			}
		}
		return resp, err
	})
}

func cached(base http.RoundTripper) http.RoundTripper {
	return &httpcache.Transport{Transport: base, Cache: httpcache.NewMemoryCache()}
}

// outsideOfAll has one cache outside of the Transport for all users. The
// Transport adds the token below the cache, so the cache sees the same request
// from every user.
func outsideOfAll(t *testing.T, base http.RoundTripper) func(string) http.RoundTripper {
	all := cached(newSessions(t, fincodeauth.Config{Base: base}).Transport(""))
	return func(key string) http.RoundTripper {
		return roundTripper(func(req *http.Request) (*http.Response, error) {
			return all.RoundTrip(req.WithContext(fincodeauth.WithSession(req.Context(), key)))
		})
	}
}

// inside has one cache below the Transport. The cache sees the token.
func inside(t *testing.T, base http.RoundTripper) func(string) http.RoundTripper {
	sessions := newSessions(t, fincodeauth.Config{Base: cached(base)})
	return func(key string) http.RoundTripper { return sessions.Transport(key) }
}

// outsideOfEach has a cache for each key. This is the right order.
func outsideOfEach(t *testing.T, base http.RoundTripper) func(string) http.RoundTripper {
	sessions := newSessions(t, fincodeauth.Config{Base: base})
	caches := make(map[string]http.RoundTripper) // a server would guard this with a mutex
	return func(key string) http.RoundTripper {
		if caches[key] == nil {
			caches[key] = cached(sessions.Transport(key))
		}
		return caches[key]
	}
}

// whoami returns who FinCode says that the user of rt is. No two answers of
// FinCode are the same.
func whoami(t *testing.T, rt http.RoundTripper) string {
	t.Helper()
	client := &http.Client{Transport: rt}
	resp, err := client.Get(api + "/whoami")
	if err != nil {
		t.Fatal(err)
	}
	body := bodyOf(t, resp)
	if resp.StatusCode != http.StatusOK || !strings.Contains(body, `"user-id"`) {
		t.Fatalf("%s %s, want a user", resp.Status, body)
	}
	return body
}

func TestOneUserGetsTheAnswerOfAnotherFromACacheThatTheyShare(t *testing.T) {
	const authorization = "Authorization"
	for _, test := range []struct {
		name  string
		order func(*testing.T, http.RoundTripper) func(string) http.RoundTripper
		vary  string
		leaks bool
	}{
		{"one cache outside of the Transport for all", outsideOfAll, "", true},
		{"one cache outside of the Transport for all, Vary: Authorization", outsideOfAll, authorization, true},
		{"one cache inside", inside, "", true},
		{"one cache inside, Vary: Authorization", inside, authorization, false},
		{"a cache for each key", outsideOfEach, "", false},
		{"a cache for each key, Vary: Authorization", outsideOfEach, authorization, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				as := test.order(t, cacheable(newFinCode(), test.vary))
				adas, graces := whoami(t, as(ada)), whoami(t, as(grace))
				if leaks := graces == adas; leaks != test.leaks {
					t.Errorf("Ada gets %s\nand Grace %s\nwant the same answer: %t", adas, graces, test.leaks)
				}
			})
		})
	}
}

func TestACacheForEachKeySparesFinCodeRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := newFinCode()
		as := outsideOfEach(t, cacheable(fc, "Authorization"))
		adas, graces := whoami(t, as(ada)), whoami(t, as(grace))
		for range 4 {
			if got := whoami(t, as(ada)); got != adas {
				t.Errorf("Ada gets %s, want %s", got, adas)
			}
			if got := whoami(t, as(grace)); got != graces {
				t.Errorf("Grace gets %s, want %s", got, graces)
			}
		}
		if n := fc.Counts().APICalls; n != 2 {
			t.Errorf("FinCode got %d requests for 10 of two users, want 2", n)
		}
	})
}
