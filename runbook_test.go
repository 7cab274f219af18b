package fincodeauth_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/oauth2"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/fincodetest"
)

// The runbook for a breach and the claims of docs/security.md, against a FinCode. The
// tests are in the order of that page.

// isBreach reports whether an event says that somebody else used a refresh token.
func isBreach(e fincodeauth.Event) bool {
	session, ok := errors.AsType[*fincodeauth.SessionError](e.Err)
	return e.Type == fincodeauth.Ended && ok && session.Reused && !session.Interrupted
}

// rotateAll rotates the tokens of all keys, so that each copy of a refresh token is used
// up. It returns the keys whose token somebody else has used already, and an error for
// those that it could not rotate.
func rotateAll(ctx context.Context, sessions *fincodeauth.Sessions, keys []string) (stolen []string, err error) {
	for _, key := range keys {
		_, failed := sessions.TokenSource(key).Refresh(ctx, nil)
		session, ended := errors.AsType[*fincodeauth.SessionError](failed)
		switch {
		case ended && session.Reused && !session.Interrupted:
			stolen = append(stolen, key)
		case !ended: // a session that needs a login has no token that could be rotated
			err = errors.Join(err, failed)
		}
	}
	return stolen, err
}

// A victim is a service with one session, "a", whose refresh token somebody has copied.
type victim struct {
	*fincodetest.FinCode
	store    *fincodeauth.MemoryStore
	sessions *fincodeauth.Sessions
	seen     events
	copied   string // the refresh token
}

// afterALeak runs test with a victim whose token was copied an hour ago, and has expired
// since.
func afterALeak(t *testing.T, cfg fincodetest.Config, test func(*testing.T, *victim), edits ...func(*fincodeauth.Config)) {
	synctest.Test(t, func(t *testing.T) {
		v := &victim{FinCode: fincodetest.New(cfg), store: fincodeauth.NewMemoryStore()}
		v.sessions = v.process(t, edits...)
		logIn(t, v.sessions, "a")
		v.copied = token(t, v.sessions.TokenSource("a")).RefreshToken
		time.Sleep(time.Hour)
		v.seen.types()
		test(t, v)
	})
}

// process returns the Sessions of one more process.
func (v *victim) process(t *testing.T, edits ...func(*fincodeauth.Config)) *fincodeauth.Sessions {
	return newSessions(t, v.FinCode, append(edits, withStore(v.store), v.seen.observe)...)
}

// use sends a request for the session as the service does, and returns its error.
func (v *victim) use(t *testing.T, sessions *fincodeauth.Sessions) error {
	resp, err := sessions.Client("a").Get(api + "/balance")
	if err == nil {
		resp.Body.Close()
	}
	return err
}

// steal presents the copy, as a thief does. It returns FinCode's answer.
func (v *victim) steal(t *testing.T) error {
	t.Helper()
	thief := newSessions(t, v.FinCode)
	if err := thief.Adopt(t.Context(), "loot", &oauth2.Token{RefreshToken: v.copied}); err != nil {
		t.Fatal(err)
	}
	tok, err := thief.TokenSource("loot").Token()
	if err == nil {
		v.copied = tok.RefreshToken // the thief goes on with the next one
	}
	return err
}

// breaches returns the breaches among the events.
func (v *victim) breaches() (all []fincodeauth.Event) {
	v.seen.mu.Lock()
	defer v.seen.mu.Unlock()
	for _, e := range v.seen.all {
		if isBreach(e) {
			all = append(all, e)
		}
	}
	return all
}

// wantRefusal checks that FinCode has refused a refresh token with this status.
func wantRefusal(t *testing.T, err error, status int) {
	t.Helper()
	answer, ok := errors.AsType[*fincodeauth.EndpointError](err)
	if !ok || answer.Op != "refresh-token" || answer.Status != status {
		t.Errorf("got error %v, want FinCode's refusal of a refresh with %d", err, status)
	}
}

func TestRunbookDetectsAThiefWhoWasFirst(t *testing.T) {
	afterALeak(t, fincodetest.Config{}, func(t *testing.T, v *victim) {
		if err := v.steal(t); err != nil {
			t.Fatalf("FinCode refuses the thief, who is first: %v", err)
		}
		if v.breaches() != nil {
			t.Error("there is an event, although nobody can know of the theft before the next refresh")
		}
		err := v.use(t, v.sessions)
		wantSessionError(t, err, true, false)
		wantRefusal(t, err, 403)
		if all := v.breaches(); len(all) != 1 || all[0].Key != "a" {
			t.Errorf("got %v, want one breach of session a", all)
		}
		v.seen.want(t, fincodeauth.Ended)

		before := v.Counts()
		for _, process := range []*fincodeauth.Sessions{v.sessions, v.process(t)} {
			wantSessionError(t, v.use(t, process), true, false)
		}
		v.seen.want(t) // the event comes once, from the process that found out
		if v.Counts() != before {
			t.Error("FinCode was called, want that nobody presents the token again and nobody logs in")
		}
	}, withCredentials)
}

func TestRunbookTellsABreachFromWhatLooksLikeIt(t *testing.T) {
	t.Run("an interruption", func(t *testing.T) {
		afterALeak(t, fincodetest.Config{}, func(t *testing.T, v *victim) {
			v.Inject(fincodetest.Refresh, 1, fincodetest.Fault{Kind: fincodetest.HangUp, TakesEffect: true})
			v.use(t, v.sessions)
			time.Sleep(10 * time.Second)
			wantSessionError(t, v.use(t, v.sessions), true, true)
			v.seen.want(t, fincodeauth.RefreshFailed, fincodeauth.Ended)
			if v.breaches() != nil {
				t.Error("an interruption is a breach")
			}
		})
	})
	t.Run("an interruption with Credentials", func(t *testing.T) {
		afterALeak(t, fincodetest.Config{}, func(t *testing.T, v *victim) {
			v.Inject(fincodetest.Refresh, 1, fincodetest.Fault{Kind: fincodetest.HangUp, TakesEffect: true})
			v.use(t, v.sessions)
			time.Sleep(10 * time.Second)
			if err := v.use(t, v.sessions); err != nil {
				t.Error(err)
			}
			v.seen.want(t, fincodeauth.RefreshFailed, fincodeauth.LoggedIn)
		}, withCredentials)
	})
	t.Run("a store that went back", func(t *testing.T) {
		afterALeak(t, fincodetest.Config{}, func(t *testing.T, v *victim) {
			backup := record(t, v.store, "a")
			if err := v.use(t, v.sessions); err != nil { // rotates
				t.Fatal(err)
			}
			other := v.process(t) // knows nothing of a
			logIn(t, other, "b")
			time.Sleep(2 * time.Hour)
			restore(t, v.store, "a", backup)
			if err := v.store.Delete(t.Context(), "b"); err != nil {
				t.Fatal(err)
			}
			v.seen.types()
			token(t, other.TokenSource("b"))
			err := v.use(t, other)
			wantSessionError(t, err, true, false)
			if !strings.Contains(err.Error(), "the store may have gone back") {
				t.Errorf("got error %v, want one that says that the store may have gone back", err)
			}
			v.seen.want(t, fincodeauth.StoreReverted, fincodeauth.Refreshed, fincodeauth.Ended)
		})
	})
	t.Run("an end without a reuse", func(t *testing.T) {
		afterALeak(t, fincodetest.Config{RefreshLifetime: time.Minute}, func(t *testing.T, v *victim) {
			wantSessionError(t, v.use(t, v.sessions), false, false)
			v.seen.want(t, fincodeauth.Ended)
			if v.breaches() != nil {
				t.Error("an ordinary end is a breach")
			}
		})
	})
}

// restore puts an old record back.
func restore(t *testing.T, store fincodeauth.Store, key string, old *fincodeauth.Record) {
	t.Helper()
	if err := store.Save(t.Context(), key, old, record(t, store, key).Version); err != nil {
		t.Fatal(err)
	}
}

// If the service was first, the thief is refused, and the service hears of it only if
// FinCode ends the session for that: as an ordinary end.
func TestRunbookHearsOfAThiefWhoWasSecondOnlyAsAnOrdinaryEnd(t *testing.T) {
	for _, ends := range []bool{false, true} {
		afterALeak(t, fincodetest.Config{RevokeFamilyOnReuse: ends}, func(t *testing.T, v *victim) {
			if err := v.use(t, v.sessions); err != nil {
				t.Fatal(err)
			}
			wantRefusal(t, v.steal(t), 403)
			time.Sleep(2 * time.Hour)
			err := v.use(t, v.sessions)
			if !ends && err != nil {
				t.Errorf("the service gets %v, want no error", err)
			}
			if ends {
				wantSessionError(t, err, false, false)
			}
			if v.breaches() != nil {
				t.Error("the event is that of a breach")
			}
		})
	}
}

// A Logout after the alarm has nothing to revoke: the service does not have the thief's
// tokens.
func TestRunbookLogoutAfterTheAlarmLeavesTheThiefIn(t *testing.T) {
	afterALeak(t, fincodetest.Config{}, func(t *testing.T, v *victim) {
		if err := v.steal(t); err != nil {
			t.Fatal(err)
		}
		wantSessionError(t, v.use(t, v.sessions), true, false)
		if err := v.sessions.Logout(t.Context(), "a"); err != nil {
			t.Error(err)
		}
		if n := v.Counts().Logouts; n != 0 {
			t.Errorf("FinCode was told of %d logouts, want none", n)
		}
		if err := v.steal(t); err != nil {
			t.Errorf("FinCode refuses the thief: %v", err)
		}
	})
}

func TestRunbookLogoutBeforeTheThiefUsesTheTokenKeepsTheThiefOut(t *testing.T) {
	afterALeak(t, fincodetest.Config{}, func(t *testing.T, v *victim) {
		if err := v.sessions.Logout(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		v.seen.want(t, fincodeauth.LoggedOut)
		if err := v.steal(t); err == nil {
			t.Error("FinCode accepts the thief's copy")
		}
		err := v.use(t, v.sessions)
		wantSessionError(t, err, false, false)
		if !errors.Is(err, fincodeauth.ErrNotFound) {
			t.Errorf("got error %v, want ErrNotFound", err)
		}
	})
}

// A Logout refreshes first if the access token has expired, or if FinCode has revoked it
// for the thief's rotation. So it finds a theft that nobody has noticed yet.
func TestRunbookLogoutFindsAThiefWhoWasFirst(t *testing.T) {
	for name, test := range map[string]struct {
		cfg    fincodetest.Config
		expire time.Duration
	}{
		"expired": {fincodetest.Config{}, time.Hour},
		"revoked": {fincodetest.Config{RevokeOnRotation: true}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			afterALeak(t, test.cfg, func(t *testing.T, v *victim) {
				if err := v.use(t, v.sessions); err != nil {
					t.Fatal(err)
				}
				v.copied = token(t, v.sessions.TokenSource("a")).RefreshToken
				v.seen.types()
				if err := v.steal(t); err != nil {
					t.Fatal(err)
				}
				time.Sleep(test.expire)
				err := v.sessions.Logout(t.Context(), "a")
				if err == nil || !strings.Contains(err.Error(), "refresh-token answered 403") {
					t.Errorf("got error %v, want FinCode's refusal of the refresh token", err)
				}
				v.seen.want(t, fincodeauth.LoggedOut)
				if v.breaches() != nil {
					t.Error("there is an event Ended, although Logout returns the error")
				}
			})
		})
	}
}

func TestRunbookRotationUsesCopiesUpWithoutALogin(t *testing.T) {
	afterALeak(t, fincodetest.Config{}, func(t *testing.T, v *victim) {
		stolen, err := rotateAll(t.Context(), v.sessions, []string{"a", "nobody"})
		if stolen != nil || err != nil {
			t.Errorf("rotateAll = %q, %v; want nothing", stolen, err)
		}
		wantRefusal(t, v.steal(t), 403)
		if err := v.use(t, v.sessions); err != nil {
			t.Error(err)
		}
		if c := v.Counts(); c.Logins != 1 || c.Refreshes != 1 {
			t.Errorf("FinCode made %d logins and %d rotations, want 1 of each", c.Logins, c.Refreshes)
		}
	})
}

// Also a token that has not expired is rotated, unless it is younger than ten seconds.
func TestRunbookRotationRotatesTokensThatAreStillGood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		sessions := newSessions(t, fc)
		logIn(t, sessions, "a")
		for _, step := range []struct {
			wait time.Duration
			want int // rotations
		}{{0, 0}, {11 * time.Second, 1}, {0, 1}, {11 * time.Second, 2}} {
			time.Sleep(step.wait)
			if stolen, err := rotateAll(t.Context(), sessions, []string{"a"}); stolen != nil || err != nil {
				t.Fatalf("rotateAll = %q, %v; want nothing", stolen, err)
			}
			if n := fc.Counts().Refreshes; n != step.want {
				t.Errorf("after %v, FinCode made %d rotations, want %d", step.wait, n, step.want)
			}
		}
	})
}

func TestRunbookRotationSavesUnderTheNewKey(t *testing.T) {
	afterALeak(t, fincodetest.Config{}, func(t *testing.T, v *victim) {
		inner := fincodeauth.NewMemoryStore()
		logIn(t, newSessions(t, v.FinCode, withStore(encrypted(t, inner, key1))), "b")
		time.Sleep(time.Hour)
		both := newSessions(t, v.FinCode, withStore(encrypted(t, inner, key2, key1)))
		if stolen, err := rotateAll(t.Context(), both, []string{"b"}); stolen != nil || err != nil {
			t.Fatalf("rotateAll = %q, %v; want nothing", stolen, err)
		}
		if _, err := encrypted(t, inner, key2).Load(t.Context(), "b"); err != nil {
			t.Errorf("without the old key the record does not open: %v", err)
		}
	})
}

func TestRunbookCopiedAccessTokenWorksAfterARotationAndNotAfterALogout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		sessions := newSessions(t, fc)
		logIn(t, sessions, "a")
		copied := token(t, sessions.TokenSource("a"))
		time.Sleep(time.Minute)
		if _, err := rotateAll(t.Context(), sessions, []string{"a"}); err != nil {
			t.Fatal(err)
		}
		if status := whoami(t, fc, copied); status != 200 {
			t.Errorf("after the rotation FinCode answers %d to the copy, want 200", status)
		}
		if err := sessions.Logout(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		if status := whoami(t, fc, copied); status != 401 {
			t.Errorf("after the logout FinCode answers %d to the copy, want 401", status)
		}
	})
}

func TestRunbookRotationFindsAThiefWhoWasFirst(t *testing.T) {
	afterALeak(t, fincodetest.Config{}, func(t *testing.T, v *victim) {
		if err := v.steal(t); err != nil {
			t.Fatal(err)
		}
		stolen, err := rotateAll(t.Context(), v.sessions, []string{"a"})
		if !slices.Equal(stolen, []string{"a"}) || err != nil {
			t.Errorf("rotateAll = %q, %v; want a alone", stolen, err)
		}
		if len(v.breaches()) != 1 {
			t.Error("there is no event of a breach")
		}
	})
}

func TestRunbookRotationReportsWhatItCouldNotRotate(t *testing.T) {
	afterALeak(t, fincodetest.Config{}, func(t *testing.T, v *victim) {
		v.Inject(fincodetest.Refresh, 1, fincodetest.Fault{Kind: fincodetest.ErrorStatus, Status: 503})
		stolen, err := rotateAll(t.Context(), v.sessions, []string{"a"})
		if stolen != nil || err == nil || !strings.Contains(err.Error(), `"a"`) {
			t.Errorf("rotateAll = %q, %v; want an error that names a", stolen, err)
		}
	})
}

// The theft lies between the last time when the service got a token and the alarm.
func TestRunbookEventsSayWhenTheTokenWasStolen(t *testing.T) {
	afterALeak(t, fincodetest.Config{}, func(t *testing.T, v *victim) {
		if err := v.use(t, v.sessions); err != nil {
			t.Fatal(err)
		}
		v.copied = token(t, v.sessions.TokenSource("a")).RefreshToken
		time.Sleep(time.Hour)
		theft := time.Now()
		if err := v.steal(t); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		wantSessionError(t, v.use(t, v.sessions), true, false)
		v.seen.mu.Lock()
		defer v.seen.mu.Unlock()
		all := v.seen.all
		if len(all) != 2 || all[0].Type != fincodeauth.Refreshed || !isBreach(all[1]) || !all[0].Time.Before(theft) || !all[1].Time.After(theft) {
			t.Errorf("got events %v, want a Refreshed before the theft at %v and an Ended after it", all, theft)
		}
	})
}

func TestRunbookLoginRecoversTheSessionEverywhere(t *testing.T) {
	afterALeak(t, fincodetest.Config{}, func(t *testing.T, v *victim) {
		other := v.process(t)
		if err := v.steal(t); err != nil {
			t.Fatal(err)
		}
		wantSessionError(t, v.use(t, v.sessions), true, false)
		wantSessionError(t, v.use(t, other), true, false)
		logIn(t, v.sessions, "a")
		for _, process := range []*fincodeauth.Sessions{v.sessions, other} {
			if err := v.use(t, process); err != nil {
				t.Errorf("after the login a request fails: %v", err)
			}
		}
		time.Sleep(2 * time.Hour)
		if err := v.steal(t); err != nil {
			t.Errorf("the thief's session has ended (%v), want that only FinCode can end it", err)
		}
		if err := v.use(t, v.sessions); err != nil {
			t.Errorf("the thief disturbs the new session: %v", err)
		}
	})
}

// What somebody with write access to an encrypted store can do.

func TestWriterCanPassAnOldRecordAsANewerOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := fincodetest.New(fincodetest.Config{})
		store := fincodeauth.NewMemoryStore()
		sessions := newSessions(t, fc, withStore(encrypted(t, store, key1)))
		logIn(t, sessions, "a")
		old := record(t, store, "a")
		time.Sleep(2 * time.Hour)
		token(t, sessions.TokenSource("a"))
		old.Generation = 1000 // not authenticated
		old.Version += ".forged"
		restore(t, store, "a", old)
		time.Sleep(2 * time.Hour)
		_, err := sessions.TokenSource("a").Token()
		wantSessionError(t, err, true, false)
	})
}

func TestWriterCanMoveARecordToAnotherStoreWithTheSameKey(t *testing.T) {
	one, two := fincodeauth.NewMemoryStore(), fincodeauth.NewMemoryStore()
	rec := &fincodeauth.Record{Version: "v", Token: &oauth2.Token{AccessToken: "t"}}
	if err := encrypted(t, one, key1).Save(t.Context(), "a", rec, ""); err != nil {
		t.Fatal(err)
	}
	if err := two.Save(t.Context(), "a", record(t, one, "a"), ""); err != nil {
		t.Fatal(err)
	}
	if rec, err := encrypted(t, two, key1).Load(t.Context(), "a"); err != nil || rec.Token.AccessToken != "t" {
		t.Errorf("got %v, error %v; want the other store's token", rec, err)
	}
	if _, err := encrypted(t, two, key2).Load(t.Context(), "a"); err == nil {
		t.Error("with another key the record decrypts, want an error")
	}
}

func TestWriterCanEndASessionWithoutAnEvent(t *testing.T) {
	for ended, reused := range map[string]bool{"logged out": false, "refresh token reused: forged": true} {
		afterALeak(t, fincodetest.Config{}, func(t *testing.T, v *victim) {
			rec := record(t, v.store, "a")
			prev := rec.Version
			rec.Version, rec.Ended = prev+".forged", ended
			if err := v.store.Save(t.Context(), "a", rec, prev); err != nil {
				t.Fatal(err)
			}
			wantSessionError(t, v.use(t, v.sessions), reused, false)
			v.seen.want(t)
		})
	}
}

func TestWriterCanHoldARefreshUp(t *testing.T) {
	afterALeak(t, fincodetest.Config{}, func(t *testing.T, v *victim) {
		rec := record(t, v.store, "a")
		prev := rec.Version
		rec.Version, rec.RefreshStarted, rec.RefreshTimeout = prev+".forged", time.Now(), 10*time.Minute
		if err := v.store.Save(t.Context(), "a", rec, prev); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 19*time.Minute)
		defer cancel()
		if _, err := v.sessions.TokenSource("a").TokenContext(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got error %v, want that callers wait for twice the forged RefreshTimeout", err)
		}
		if n := v.Counts().RefreshCalls; n != 0 {
			t.Errorf("FinCode got %d refresh calls, want none", n)
		}
		closeSessions(v.sessions)
	})
}

// What FinCode, or Credentials, says when a session ends is in the record in the clear.
func TestReasonOfAnEndIsNotEncrypted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fincodeauth.NewMemoryStore()
		fc := fincodetest.New(fincodetest.Config{RefreshLifetime: time.Minute})
		sessions := newSessions(t, fc, withStore(encrypted(t, store, key1)), func(c *fincodeauth.Config) {
			c.Credentials = func(context.Context, string, error) (fincodeauth.Credentials, error) {
				return fincodeauth.Credentials{}, errors.Join(fincodeauth.ErrBadCredentials, errors.New("from the vault"))
			}
		})
		logIn(t, sessions, "a")
		time.Sleep(2 * time.Hour)
		_, err := sessions.TokenSource("a").Token()
		wantSessionError(t, err, false, false)
		if rec := record(t, store, "a"); !strings.Contains(rec.Ended, "from the vault") {
			t.Errorf("the record says %q, want also the error of Credentials", rec.Ended)
		}
	})
}
