package redisstore_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/redisstore"
)

// The tests with a real Redis are in package integration.

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
		"NilClient":   {(*redis.Client)(nil), redisstore.Prefix("a"), "client is a nil *redis.Client: make one with redis.NewUniversalClient"},
		"NilCluster":  {(*redis.ClusterClient)(nil), redisstore.Prefix("a"), "client is a nil *redis.ClusterClient: make one with redis.NewUniversalClient"},
		"NilOption":   {single, nil, "option 1 is nil: leave it out"},
		"Ring":        {ring, redisstore.Prefix("a"), "client is a Ring"},
		"Replicas":    {near, redisstore.Prefix("a"), "client reads from replicas, which return old records: set none of ReadOnly, RouteByLatency and RouteRandomly"},
		"ShortTTL":    {single, redisstore.TTL(time.Minute), "TTL is 1m0s, and Redis removes a session that was not saved for that long: use at least 1h0m0s"},
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

func TestStoreThatNewDidNotMakeReturnsErrors(t *testing.T) {
	for name, s := range map[string]*redisstore.Store{"nil": nil, "zero": {}} {
		_, loadErr := s.Load(t.Context(), "alice")
		for call, err := range map[string]error{
			"Load":   loadErr,
			"Save":   s.Save(t.Context(), "alice", &fincodeauth.Record{Version: "v1"}, ""),
			"Delete": s.Delete(t.Context(), "alice"),
		} {
			if want := "the Store was not made by redisstore.New: call that"; err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s of a %s Store = %v, want %q", call, name, err, want)
			}
		}
		if got := fmt.Sprint(s, s.String()); strings.Contains(got, "PANIC") {
			t.Errorf("a %s Store prints %s", name, got)
		}
	}
}

func TestADamagedRecordIsNamed(t *testing.T) {
	want := `redisstore: load "alice": its record is damaged: restore it, or call Sessions.Forget, then log in again`
	for _, record := range []string{`{"version": "v1", "token": secret`, `{}`, `null`} {
		store := (&hash{key: "fincode:alice", version: "v1", record: record}).store(t)
		if _, err := store.Load(t.Context(), "alice"); err == nil || err.Error() != want {
			t.Errorf("Load of %s = %v, want %s", record, err, want)
		}
	}
}

// A Save compares the field version, so the field must agree with the record.
// If it did not, every Save would conflict with what Load returns.
func TestRecordWithAnotherVersionThanItsFieldIsDamaged(t *testing.T) {
	for name, h := range map[string]hash{
		"no version":      {record: `{"version":"v1"}`},
		"another version": {version: "v2", record: `{"version":"v1"}`},
		"no record":       {version: "v1"},
	} {
		h.key = "fincode:alice"
		_, err := h.store(t).Load(t.Context(), "alice")
		if err == nil || !strings.Contains(err.Error(), "its record is damaged") || errors.Is(err, fincodeauth.ErrNotFound) {
			t.Errorf("%s: Load = %v, want an error that says that the record is damaged", name, err)
		}
	}
}

func TestDeleteRemovesADamagedRecord(t *testing.T) {
	store := (&hash{key: "fincode:alice", version: "v1", record: `{"version": "v1", "tok`}).store(t)
	if err := store.Delete(t.Context(), "alice"); err != nil {
		t.Errorf("Delete = %v", err)
	}
	if _, err := store.Load(t.Context(), "alice"); !errors.Is(err, fincodeauth.ErrNotFound) {
		t.Errorf("Load after Delete = %v, want ErrNotFound", err)
	}
}

// The script of Delete answers this if the key is not a hash. Package integration
// tests that it does.
func TestDeleteOfAnotherProgramsKeySaysWhatToDo(t *testing.T) {
	wrong := answer("WRONGTYPE Operation against a key holding the wrong kind of value")
	h := &hash{key: "fincode:jobs", err: wrong}
	err := h.store(t).Delete(t.Context(), "jobs")
	want := `redisstore: delete "jobs": another program uses this key, set another Prefix: WRONGTYPE `
	if !errors.Is(err, wrong) || !strings.HasPrefix(err.Error(), want) || h.calls != 1 {
		t.Errorf("Delete = %v after %d calls, want %q after one", err, h.calls, want)
	}
}

// An answer is an error of the server. go-redis knows it by the method RedisError.
type answer string

func (e answer) Error() string { return string(e) }
func (answer) RedisError()     {}

// A hash is a Redis that holds the fields of a single key. A field that is "" does
// not exist.
type hash struct {
	key, version, record string

	err   error // of each call
	calls int
}

// store returns a Store in h. It needs no server.
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
		h.calls++
		if h.err != nil {
			cmd.SetErr(h.err)
			return h.err
		}
		switch got := cmd.(type) {
		case *redis.SliceCmd: // HMGET
			there := cmd.Args()[1] == h.key
			fields := []any{nil, nil}
			for i, field := range []string{h.version, h.record} {
				if there && field != "" {
					fields[i] = field
				}
			}
			got.SetVal(fields)
		case *redis.Cmd: // EVALSHA of the script of Delete: the digest, the number of keys, the key
			if len(cmd.Args()) != 4 {
				cmd.SetErr(errors.New("this is not the script of Delete"))
			} else if cmd.Args()[3] == h.key {
				*h = hash{}
			}
		default:
			cmd.SetErr(errors.New("neither HMGET nor a script"))
		}
		return cmd.Err()
	}
}
