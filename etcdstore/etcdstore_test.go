package etcdstore_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/etcdstore"
)

// The tests with a real etcd are in package integration.

func TestNewSaysWhatIsWrong(t *testing.T) {
	client := clientv3.NewCtxClient(t.Context())
	client.KV, client.Lease = new(fake), new(fake)
	for name, tc := range map[string]struct {
		client *clientv3.Client
		opt    etcdstore.Option
		want   string
	}{
		"NoClient":    {nil, etcdstore.Prefix("a"), "client is nil or was not made by clientv3.New: call that"},
		"ZeroClient":  {new(clientv3.Client), etcdstore.Prefix("a"), "was not made by clientv3.New"},
		"Unconnected": {clientv3.NewCtxClient(t.Context()), etcdstore.Prefix("a"), "was not made by clientv3.New"},
		"NoContext":   {&clientv3.Client{KV: new(fake), Lease: new(fake)}, etcdstore.Prefix("a"), "was not made by clientv3.New"},
		"NilOption":   {client, nil, "option 1 is nil: leave it out"},
		"EmptyPrefix": {client, etcdstore.Prefix(""), `use a name such as "fincode/", or leave Prefix out`},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := etcdstore.New(tc.client, tc.opt); err == nil || !strings.HasPrefix(err.Error(), "etcdstore: ") || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("New = %v, want %q", err, tc.want)
			}
		})
	}
}

func TestPrintingAStoreShowsNoSecret(t *testing.T) {
	client := clientv3.NewCtxClient(t.Context())
	client.KV, client.Lease, client.Password = new(fake), new(fake), "hunter2"
	store, err := etcdstore.New(client)
	if err != nil {
		t.Fatal(err)
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x"} {
		if got := fmt.Sprintf(verb, store); got != "etcdstore(fincode/)" {
			t.Errorf("%s prints %s", verb, got)
		}
	}
}

func TestStoreThatNewDidNotMakeReturnsErrors(t *testing.T) {
	for name, s := range map[string]*etcdstore.Store{"nil": nil, "zero": {}} {
		_, loadErr := s.Load(t.Context(), "alice")
		_, listErr := list(t, s)
		for call, err := range map[string]error{
			"Load":   loadErr,
			"Save":   s.Save(t.Context(), "alice", &fincodeauth.Record{Version: "v1"}, ""),
			"Delete": s.Delete(t.Context(), "alice"),
			"Keys":   errors.Join(listErr...),
		} {
			if want := "the Store was not made by etcdstore.New: call that"; err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s of a %s Store = %v, want %q", call, name, err, want)
			}
		}
		if got := fmt.Sprint(s, s.String()); strings.Contains(got, "PANIC") {
			t.Errorf("a %s Store prints %s", name, got)
		}
	}
}

func TestEachCallIsOneRoundTrip(t *testing.T) {
	f := new(fake)
	store := f.store(t)
	for _, step := range []struct {
		do   func() error
		want string
	}{
		{func() error { return store.Save(t.Context(), "a b", &fincodeauth.Record{Version: "v1"}, "") }, "txn fincode/a%20b"},
		{func() error { return store.Save(t.Context(), "a b", &fincodeauth.Record{Version: "v2"}, "v1") }, "txn fincode/a%20b"},
		{func() error { _, err := store.Load(t.Context(), "a b"); return err }, "get fincode/a%20b"},
		{func() error { return store.Delete(t.Context(), "a b") }, "delete fincode/a%20b with 0 options"},
	} {
		f.calls = nil
		if err := step.do(); err != nil || !slices.Equal(f.calls, []string{step.want}) {
			t.Errorf("the store called %q and returned %v, want %q", f.calls, err, step.want)
		}
	}
}

func TestTheValueIsTheRecordInJSON(t *testing.T) {
	f := new(fake)
	rec := &fincodeauth.Record{Version: "v<1>\"", Ended: "logged out"}
	if err := f.store(t).Save(t.Context(), "alice", rec, ""); err != nil {
		t.Fatal(err)
	}
	if want := `{"version":"v\u003c1\u003e\"","ended":"logged out"}`; f.values["fincode/alice"] != want {
		t.Errorf("the value is %s, want %s", f.values["fincode/alice"], want)
	}
}

// The closing quote belongs to what is compared, and characters that JSON escapes are
// compared in their escaped form.
func TestSaveComparesTheWholeVersion(t *testing.T) {
	versions := []string{"v", "v1", "v10", "v1.a", `v1"`, `v1","`, "v1<", "v1\u2028", "V1", "ä", "é"}
	for _, there := range versions {
		for _, prev := range append(versions, "") {
			f := new(fake)
			store := f.store(t)
			if err := store.Save(t.Context(), "alice", &fincodeauth.Record{Version: there, Ended: "why"}, ""); err != nil {
				t.Fatal(err)
			}
			err := store.Save(t.Context(), "alice", &fincodeauth.Record{Version: "next"}, prev)
			if prev == there && err != nil || prev != there && !errors.Is(err, fincodeauth.ErrConflict) {
				t.Errorf("Save over %q with prev %q = %v", there, prev, err)
			}
		}
	}
}

func TestSaveOverARecordThatIsGoneIsAConflict(t *testing.T) {
	err := new(fake).store(t).Save(t.Context(), "alice", &fincodeauth.Record{Version: "v2"}, "v1")
	if !errors.Is(err, fincodeauth.ErrConflict) {
		t.Errorf("Save = %v, want ErrConflict", err)
	}
}

func TestSaveThatEtcdGetsTwiceSucceeds(t *testing.T) {
	for times := 1; times <= 3; times++ {
		f := &fake{times: times}
		store := f.store(t)
		prev := ""
		for _, version := range []string{"v1", "v2"} {
			if err := store.Save(t.Context(), "alice", &fincodeauth.Record{Version: version}, prev); err != nil {
				t.Errorf("Save of %s, which etcd got %d times = %v", version, times, err)
			}
			prev = version
		}
		if err := store.Save(t.Context(), "alice", &fincodeauth.Record{Version: "v3"}, "v1"); !errors.Is(err, fincodeauth.ErrConflict) {
			t.Errorf("Save over another version = %v, want ErrConflict", err)
		}
	}
}

// What etcd has executed is unknown, so the caller must not take the Save for one that
// came too late.
func TestErrorWithAnUnknownOutcomeIsNoConflict(t *testing.T) {
	for _, lost := range []error{
		rpctypes.ErrTimeout, rpctypes.ErrTimeoutDueToLeaderFail, rpctypes.ErrTimeoutDueToConnectionLost,
		status.Error(codes.Unavailable, "error reading from server: EOF"),
	} {
		f := &fake{fail: func() error { return lost }}
		err := f.store(t).Save(t.Context(), "alice", &fincodeauth.Record{Version: "v2"}, "v1")
		if !errors.Is(err, lost) || errors.Is(err, fincodeauth.ErrConflict) || !strings.Contains(err.Error(), "may or may not have taken effect") || len(f.calls) != 1 {
			t.Errorf("Save = %v after %d calls, want one call and %v", err, len(f.calls), lost)
		}
	}
}

// The first answer is lost, and another process goes on from what was saved. A conflict
// would say that nothing was saved.
func TestSaveThatMayHaveTakenEffectIsNoConflict(t *testing.T) {
	for name, goOn := range map[string]func(f *fake){
		"Replaced": func(f *fake) { f.put("fincode/alice", `{"version":"v3"}`) },
		"Replaced twice": func(f *fake) {
			f.put("fincode/alice", `{"version":"v3"}`)
			f.put("fincode/alice", `{"version":"v4"}`)
		},
		"Deleted": func(f *fake) { delete(f.values, "fincode/alice") },
	} {
		synctest.Test(t, func(t *testing.T) {
			f := new(fake)
			f.put("fincode/alice", `{"version":"v1"}`)
			f.mute = func() { goOn(f) }
			err := f.store(t).Save(t.Context(), "alice", &fincodeauth.Record{Version: "v2"}, "v1")
			if err == nil || errors.Is(err, fincodeauth.ErrConflict) || !strings.Contains(err.Error(), "may or may not have taken effect") {
				t.Errorf("%s: Save = %v, want an unknown outcome", name, err)
			}
		})
	}
}

// Another Save came first, which is seen in etcd's history.
func TestSaveThatGotNoAnswerAndHadNoEffectIsAConflict(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{hangs: 1}
		f.put("fincode/alice", `{"version":"v1"}`)
		f.put("fincode/alice", `{"version":"v3"}`)
		f.put("fincode/alice", `{"version":"v4"}`)
		err := f.store(t).Save(t.Context(), "alice", &fincodeauth.Record{Version: "v2"}, "v1")
		if !errors.Is(err, fincodeauth.ErrConflict) {
			t.Errorf("Save = %v, want ErrConflict", err)
		}
	})
}

func TestErrorsSayWhatToDo(t *testing.T) {
	for _, tc := range []struct {
		err  error
		want string
	}{
		{rpctypes.ErrPermissionDenied, `needs a role with the permission readwrite on the prefix "fincode/": `},
		{rpctypes.ErrUserEmpty, "give the client a Username and Password, or a certificate, that etcd accepts: "},
		{rpctypes.ErrInvalidAuthToken, "give the client a Username and Password"},
		{rpctypes.ErrAuthFailed, "give the client a Username and Password"},
		{rpctypes.ErrNoSpace, "compact and defragment it, or raise --quota-backend-bytes, then run etcdctl alarm disarm: "},
		{rpctypes.ErrRequestTooLarge, "the record is too large for etcd: "},
		{status.Error(codes.ResourceExhausted, "trying to send message larger than max (3 vs. 2)"), "the client's MaxCallSendMsgSize: "},
		{rpctypes.ErrLeaderChanged, "a majority of etcd's members must be up and reach each other: "},
		{status.Error(codes.Unavailable, "transport is closing"), "the connection to etcd has failed"},
		{errors.New("something new"), `load "alice": something new`},
	} {
		_, err := (&fake{fail: func() error { return tc.err }}).store(t).Load(t.Context(), "alice")
		if !errors.Is(err, tc.err) || !strings.Contains(err.Error(), tc.want) || !strings.HasPrefix(err.Error(), `etcdstore: load "alice": `) {
			t.Errorf("Load = %v, want %q", err, tc.want)
		}
	}
}

func TestErrorWrapsThatOfTheContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := (&fake{fail: func() error { return rpctypes.ErrTimeout }}).store(t).Load(ctx, "alice")
	if !errors.Is(err, context.Canceled) || !errors.Is(err, rpctypes.ErrTimeout) {
		t.Errorf("Load = %v, want Canceled and ErrTimeout", err)
	}
}

// gRPC has a timer of its own, which may fire just before that of the context.
func TestDeadlineOfGRPCIsThatOfTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 3500*time.Millisecond)
		defer cancel()
		f := &fake{fail: func() error { return status.Error(codes.DeadlineExceeded, "") }}
		began := time.Now()
		_, err := f.store(t).Load(ctx, "alice")
		if took := time.Since(began); !errors.Is(err, context.DeadlineExceeded) || took != 3500*time.Millisecond || len(f.calls) != 3 {
			t.Errorf("Load = %v after %v and %d calls, want DeadlineExceeded after 3.5 s and 3 calls", err, took, len(f.calls))
		}
	})
}

func TestMemberThatHangsIsNotWaitedFor(t *testing.T) {
	for name, call := range map[string]func(context.Context, *etcdstore.Store) error{
		"Load": func(ctx context.Context, s *etcdstore.Store) error {
			_, err := s.Load(ctx, "alice")
			return err
		},
		"Save": func(ctx context.Context, s *etcdstore.Store) error {
			return s.Save(ctx, "alice", &fincodeauth.Record{Version: "v2"}, "v1")
		},
		"Save of a logout": func(ctx context.Context, s *etcdstore.Store) error {
			return s.Save(ctx, "alice", &fincodeauth.Record{Version: "v2", RemoveAfter: time.Now()}, "v1")
		},
		"Keys": func(ctx context.Context, s *etcdstore.Store) error {
			for _, err := range s.Keys(ctx) {
				return err
			}
			return errors.New("no key")
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := &fake{hangs: 2}
			f.put("fincode/alice", `{"version":"v1"}`)
			ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
			defer cancel()
			began := time.Now()
			if err := call(ctx, f.store(t)); err != nil || time.Since(began) != 3*time.Second {
				t.Errorf("%s = %v after %v, want success in the third call, after 1 and 2 s", name, err, time.Since(began))
			}
		})
	}
}

// When the member goes on, such a call would undo what was saved or deleted meanwhile.
func TestCallThatMustNotComeLateIsMadeOnce(t *testing.T) {
	for name, call := range map[string]func(context.Context, *etcdstore.Store) error{
		"Delete": func(ctx context.Context, s *etcdstore.Store) error { return s.Delete(ctx, "alice") },
		"Save of a new record": func(ctx context.Context, s *etcdstore.Store) error {
			return s.Save(ctx, "alice", &fincodeauth.Record{Version: "v1"}, "")
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := &fake{hangs: 1}
			ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
			defer cancel()
			began := time.Now()
			err := call(ctx, f.store(t))
			if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "may or may not have taken effect") || time.Since(began) != 15*time.Second || len(f.calls) != 1 {
				t.Errorf("%s = %v after %v and %d calls, want DeadlineExceeded after one call of 15 s", name, err, time.Since(began), len(f.calls))
			}
		})
	}
}

func TestClosedClientIsNamed(t *testing.T) {
	client := clientv3.NewCtxClient(t.Context())
	f := &fake{fail: func() error { return status.Error(codes.Canceled, "the client connection is closing") }}
	client.KV, client.Lease = f, f
	store, err := etcdstore.New(client)
	if err != nil {
		t.Fatal(err)
	}
	_ = client.Close()
	if _, err := store.Load(t.Context(), "alice"); err == nil || !strings.Contains(err.Error(), "the client was closed") {
		t.Errorf("Load = %v, want that the client was closed", err)
	}
}

func TestCallsWaitForALeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := new(fake)
		store := f.store(t)
		elected := time.Now().Add(2 * time.Second)
		f.fail = func() error {
			if time.Now().Before(elected) {
				return rpctypes.ErrNoLeader
			}
			return nil
		}
		if err := store.Save(t.Context(), "alice", &fincodeauth.Record{Version: "v1"}, ""); err != nil || time.Since(elected) > time.Second {
			t.Errorf("Save = %v, %v after the election", err, time.Since(elected))
		}
	})
}

func TestCallsDoNotWaitForALeaderForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := (&fake{fail: func() error { return rpctypes.ErrNoLeader }}).store(t)
		began := time.Now()
		_, err := store.Load(t.Context(), "alice")
		if took := time.Since(began); !errors.Is(err, rpctypes.ErrNoLeader) || !strings.Contains(err.Error(), "a majority") || took > 6*time.Second {
			t.Errorf("Load = %v after %v, want ErrNoLeader after 5 s", err, took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began = time.Now()
		_, err = store.Load(ctx, "alice")
		if took := time.Since(began); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, rpctypes.ErrNoLeader) || took != time.Second {
			t.Errorf("Load = %v after %v, want DeadlineExceeded and ErrNoLeader after 1 s", err, took)
		}
	})
}

func TestADamagedRecordIsNamed(t *testing.T) {
	want := `etcdstore: load "alice": its record is damaged: restore it, or call Sessions.Forget, then log in again`
	for name, value := range map[string]string{
		"cut":             `{"version":"v1","tok`,
		"no JSON":         `secret`,
		"no version":      `{}`,
		"empty":           ``,
		"null":            `null`,
		"space":           `{"version": "v1"}`,
		"other order":     `{"ended":"why","version":"v1"}`,
		"two versions":    `{"version":"v1","version":"v2"}`,
		"other quoting":   `{"version":"\u0076\u0031"}`,
		"other name":      `{"Version":"v1"}`,
		"trailing object": `{"version":"v1"} {}`,
	} {
		f := new(fake)
		f.put("fincode/alice", value)
		if _, err := f.store(t).Load(t.Context(), "alice"); err == nil || err.Error() != want {
			t.Errorf("%s: Load = %v, want %s", name, err, want)
		}
	}
}

func TestDeleteRemovesADamagedRecord(t *testing.T) {
	f := new(fake)
	f.put("fincode/alice", `{"version":"v1","tok`)
	store := f.store(t)
	if err := store.Delete(t.Context(), "alice"); err != nil {
		t.Errorf("Delete = %v", err)
	}
	if _, err := store.Load(t.Context(), "alice"); !errors.Is(err, fincodeauth.ErrNotFound) {
		t.Errorf("Load after Delete = %v, want ErrNotFound", err)
	}
}

func TestRecordOfALogoutGetsALease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for after, want := range map[time.Duration]string{
			time.Hour:                  "grant 3600 s",
			time.Hour + 1:              "grant 3601 s",
			time.Millisecond:           "grant 1 s",
			-time.Hour:                 "grant 1 s",
			292 * 365 * 24 * time.Hour: "grant 9000000000 s",
		} {
			f := new(fake)
			rec := &fincodeauth.Record{Version: "v1", Ended: "logged out", RemoveAfter: time.Now().Add(after)}
			if err := f.store(t).Save(t.Context(), "alice", rec, ""); err != nil || !slices.Equal(f.calls, []string{want, "txn fincode/alice"}) {
				t.Errorf("after %v: Save = %v with the calls %q, want %q and a transaction", after, err, f.calls, want)
			}
		}
	})
}
