package events

import (
	"errors"
	"testing"
	"time"

	"github.com/fincodeauth/fincodeauth"
)

func TestObservedEventIsTheOneThatWasNoted(t *testing.T) {
	var noted []Entry
	now := time.Now()
	j, err := To(func(e Entry) { noted = append(noted, e) }, Process{}, []byte("key"), func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	end := &fincodeauth.SessionError{Key: "a", Reused: true, Interrupted: true, Err: errors.New("refresh token reused")}
	all := []fincodeauth.Event{
		{Type: fincodeauth.LoggedIn, Key: "a", Elapsed: time.Second},
		{Type: fincodeauth.Refreshed, Key: "a", TookOver: true},
		{Type: fincodeauth.SaveFailed, Key: "a", Err: errors.New("x")},
		{Type: fincodeauth.Ended, Key: "a", Err: end},
		{Type: fincodeauth.JournalFailed, Err: errors.New("x")},
	}
	for _, want := range all {
		j.Observe(want)
		got, ok := noted[len(noted)-1].Observed()
		if !ok || !got.Time.Equal(now) || got.Type != want.Type || got.Key != want.Key || got.Elapsed != want.Elapsed || got.TookOver != want.TookOver {
			t.Errorf("got %v, %v; want %v", got, ok, want)
		}
		if (got.Err == nil) != (want.Err == nil) || got.Err != nil && got.Err.Error() != want.Err.Error() {
			t.Errorf("%v: the error is %v, want %v", want.Type, got.Err, want.Err)
		}
		if e, _ := errors.AsType[*fincodeauth.SessionError](got.Err); want.Type == fincodeauth.Ended && (e == nil || !e.Reused || !e.Interrupted) {
			t.Errorf("the end is %#v", got.Err)
		}
	}
	if _, ok := (&Entry{Kind: Saved}).Observed(); ok {
		t.Error("a save is no event")
	}
}
