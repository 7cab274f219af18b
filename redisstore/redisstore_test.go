package redisstore_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fincodeauth/fincodeauth/redisstore"
)

// The tests on Redis are in package integration.

func TestNewSaysWhatIsWrong(t *testing.T) {
	single := redis.NewClient(&redis.Options{})
	defer single.Close()
	ring := redis.NewRing(&redis.RingOptions{HeartbeatFrequency: time.Hour})
	defer ring.Close()
	near := redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{"127.0.0.1:1"}, RouteByLatency: true})
	defer near.Close()
	for name, tc := range map[string]struct {
		client redis.UniversalClient
		opt    redisstore.Option
		want   string
	}{
		"NoClient":    {nil, redisstore.Prefix("a"), "client is nil: make one with redis.NewUniversalClient"},
		"Ring":        {ring, redisstore.Prefix("a"), "client is a Ring"},
		"Replicas":    {near, redisstore.Prefix("a"), "client reads from replicas, which show old records: set none of ReadOnly, RouteByLatency and RouteRandomly"},
		"ShortTTL":    {single, redisstore.TTL(time.Minute), "TTL is 1m0s, and a session not saved for that long is lost: use at least 1h0m0s"},
		"NegativeTTL": {single, redisstore.TTL(-1), "use at least 1h0m0s"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := redisstore.New(tc.client, tc.opt); err == nil || !strings.HasPrefix(err.Error(), "redisstore: ") || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("New = %v, want %q", err, tc.want)
			}
		})
	}
}

func TestPrintingAStoreShowsNoSecret(t *testing.T) {
	client := redis.NewClient(&redis.Options{Password: "hunter2"})
	defer client.Close()
	store, err := redisstore.New(client)
	if err != nil {
		t.Fatal(err)
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x"} {
		if got := fmt.Sprintf(verb, store); got != "redisstore(fincode:)" {
			t.Errorf("%s prints %s", verb, got)
		}
	}
}
