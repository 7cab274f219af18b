package fincodeauth_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/fincodeauth/fincodeauth"
)

func TestEventTypeIsItsNameInTextAndJSON(t *testing.T) {
	for typ := fincodeauth.LoggedIn; typ <= fincodeauth.JournalFailed; typ++ {
		name := fmt.Sprint(typ)
		if strings.ContainsAny(name, "()") {
			t.Errorf("event type %d has the text %s, want a name", uint8(typ), name)
		}
		if data, err := json.Marshal(map[fincodeauth.EventType]fincodeauth.EventType{typ: typ}); err != nil || string(data) != fmt.Sprintf(`{%q:%q}`, name, name) {
			t.Errorf("event type %s: got JSON %s, error %v; want its name", name, data, err)
		}
	}
	for _, unknown := range []fincodeauth.EventType{0, fincodeauth.JournalFailed + 1, 255} {
		if got, want := fmt.Sprint(unknown), fmt.Sprintf("EventType(%d)", uint8(unknown)); got != want {
			t.Errorf("got text %s, want %s", got, want)
		}
	}
}

func TestEventIsLoggedAsAGroup(t *testing.T) {
	var out bytes.Buffer
	logger := slog.New(slog.NewJSONHandler(&out, nil))
	logger.Info("seen", "event", fincodeauth.Event{Type: fincodeauth.RefreshFailed, Key: "a", Time: time.Now(), Elapsed: time.Second, Err: errors.New("no")})
	logger.Info("seen", "event", fincodeauth.Event{Type: fincodeauth.Adopted, Key: "a"})
	for _, want := range []string{
		`"event":{"type":"RefreshFailed","key":"a","elapsed":1000000000,"error":"no"}`,
		`"event":{"type":"Adopted","key":"a"}`,
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("logged %s, want this in it: %s", &out, want)
		}
	}
}

func TestLogEventsChoosesTheLevelOfEachEvent(t *testing.T) {
	var out bytes.Buffer
	log := fincodeauth.LogEvents(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{
		Level: slog.LevelDebug,
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		},
	})))
	breach := &fincodeauth.SessionError{Key: "a", Reused: true}
	interrupted := &fincodeauth.SessionError{Key: "a", Reused: true, Interrupted: true}
	for _, test := range []struct {
		event fincodeauth.Event
		want  string
	}{
		{fincodeauth.Event{Type: fincodeauth.LoggedIn}, `level=INFO msg="fincodeauth: session logged in" type=LoggedIn key=a`},
		{fincodeauth.Event{Type: fincodeauth.Refreshed, Elapsed: time.Second}, `level=DEBUG msg="fincodeauth: token refreshed" type=Refreshed key=a elapsed=1s`},
		{fincodeauth.Event{Type: fincodeauth.RefreshFailed, Err: errors.New("no")}, `level=WARN msg="fincodeauth: refresh failed" type=RefreshFailed key=a error=no`},
		{fincodeauth.Event{Type: fincodeauth.Adopted}, `level=DEBUG msg="fincodeauth: token adopted" type=Adopted key=a`},
		{fincodeauth.Event{Type: fincodeauth.SaveFailed, Err: errors.New("no")}, `level=ERROR msg="fincodeauth: save failed, trying again" type=SaveFailed key=a error=no`},
		{fincodeauth.Event{Type: fincodeauth.Saved}, `level=INFO msg="fincodeauth: save succeeded after a failure" type=Saved key=a`},
		{fincodeauth.Event{Type: fincodeauth.Ended, Err: breach}, `level=ERROR msg="fincodeauth: session ended, possible breach" type=Ended key=a error="` + strings.ReplaceAll(breach.Error(), `"`, `\"`) + `"`},
		{fincodeauth.Event{Type: fincodeauth.Ended, Err: interrupted}, `level=WARN msg="fincodeauth: session ended, login needed"`},
		{fincodeauth.Event{Type: fincodeauth.Replayed}, `level=DEBUG msg="fincodeauth: request replayed" type=Replayed key=a`},
		{fincodeauth.Event{Type: fincodeauth.LoggedOut}, `level=INFO msg="fincodeauth: session logged out" type=LoggedOut key=a`},
		{fincodeauth.Event{Type: fincodeauth.LoggedOut, Err: errors.New("no")}, `level=WARN msg="fincodeauth: session logged out, but FinCode did not confirm it"`},
		{fincodeauth.Event{Type: fincodeauth.Passed, Err: errors.New("no")}, `level=INFO msg="fincodeauth: request sent without a token" type=Passed key=a error=no`},
		{fincodeauth.Event{Type: fincodeauth.StoreReverted, Err: errors.New("no")}, `level=ERROR msg="fincodeauth: the store has gone back, newer state saved again" type=StoreReverted key=a error=no`},
		{fincodeauth.Event{Type: fincodeauth.Refreshed, TookOver: true}, `level=DEBUG msg="fincodeauth: token refreshed" type=Refreshed key=a took_over=true`},
		{fincodeauth.Event{Type: fincodeauth.JournalFailed, Err: errors.New("no")}, `level=WARN msg="fincodeauth: the journal failed" type=JournalFailed key=a error=no`},
		{fincodeauth.Event{Type: 99}, `level=INFO msg=fincodeauth: EventType(99)`},
	} {
		out.Reset()
		test.event.Key = "a"
		log(test.event)
		if line := strings.TrimSpace(out.String()); !strings.HasPrefix(strings.ReplaceAll(line, `"fincodeauth: EventType(99)"`, "fincodeauth: EventType(99)"), test.want) {
			t.Errorf("logged\n%s\nwant\n%s", line, test.want)
		}
	}
}

func TestLogEventsWithoutALoggerUsesTheDefault(t *testing.T) {
	var out bytes.Buffer
	before := slog.Default()
	defer slog.SetDefault(before)
	log := fincodeauth.LogEvents(nil)
	slog.SetDefault(slog.New(slog.NewTextHandler(&out, nil))) // set after the call of LogEvents
	log(fincodeauth.Event{Type: fincodeauth.LoggedIn, Key: "a"})
	if !strings.Contains(out.String(), "session logged in") {
		t.Errorf("the default logger got %q, want the event", &out)
	}
}
