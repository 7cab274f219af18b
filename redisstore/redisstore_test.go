package redisstore_test

import (
	"context"
	"errors"
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

func TestADamagedRecordIsNamed(t *testing.T) {
	want := `redisstore: load "alice": its record is damaged: restore it, or call Sessions.Forget, then log in again`
	for _, record := range []string{`{"version": "v1", "token": secret`, `{}`, `null`} {
		store := (&hash{"fincode:alice", record}).store(t)
		if _, err := store.Load(t.Context(), "alice"); err == nil || err.Error() != want {
			t.Errorf("Load of %s = %v, want %s", record, err, want)
		}
	}
}

// A hash is all that this Redis holds: a record under a key.
type hash struct{ key, record string }

// store returns a Store in it, without a server.
func (h *hash) store(t testing.TB) *redisstore.Store {
	client := redis.NewClient(&redis.Options{})
	t.Cleanup(func() { client.Close() })
	client.AddHook(h)
	store, err := redisstore.New(client)
	if err != nil {
		t.Fatal(err)
	}
	return store
}

func (h *hash) DialHook(next redis.DialHook) redis.DialHook { return next }

func (h *hash) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (h *hash) ProcessHook(redis.ProcessHook) redis.ProcessHook {
	return func(_ context.Context, cmd redis.Cmder) error {
		got, ok := cmd.(*redis.StringCmd)
		switch {
		case !ok:
			cmd.SetErr(errors.New("no HGET"))
		case got.Args()[1] != h.key:
			cmd.SetErr(redis.Nil)
		default:
			got.SetVal(h.record)
		}
		return cmd.Err()
	}
}
