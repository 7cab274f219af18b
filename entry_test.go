package fincodeauth

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestWhichOfAnEntryAndARecordIsNewer(t *testing.T) {
	successor := generation(3, "s.3") // over the claim s.2
	login := generation(1, "new.1")   // over s.2
	login.Replaces = []string{"s", "r"}
	first := generation(1, "new.1") // over nothing
	released := generation(2, "s.3")
	old := generation(0, "s.3")
	claim := func(n int, version string) *Record {
		rec := generation(n, version)
		rec.RefreshStarted = noon
		return rec
	}
	end := func(n int, version, why string) *Record {
		rec := generation(n, "s.1").end(why)
		rec.Version = version
		return rec
	}
	for name, c := range map[string]struct {
		rec   *Record
		prev  string
		age   time.Duration
		there *Record
		want  bool
		loss  bool
	}{
		"successor, its claim":                             {rec: successor, prev: "s.2", there: claim(2, "s.2"), want: true},
		"successor, its claim, after a month":              {rec: successor, prev: "s.2", age: 30 * 24 * time.Hour, there: claim(2, "s.2"), want: true},
		"successor, its claim, which was taken over":       {rec: successor, prev: "s.2", there: claim(2, "s.9"), want: true},
		"successor, itself":                                {rec: successor, prev: "s.2", there: successor},
		"successor, itself with a claim":                   {rec: successor, prev: "s.2", there: claim(3, "s.4")},
		"successor, the pair after it":                     {rec: successor, prev: "s.2", there: generation(4, "s.5")},
		"successor, a login of the process that took over": {rec: successor, prev: "s.2", there: generation(3, "s.9")},
		"successor, an end by the process that took over":  {rec: successor, prev: "s.2", there: end(2, "s.9", endedReused), want: true},
		"successor, its own end":                           {rec: successor, prev: "s.2", there: end(3, "s.4", endedReused)},
		"successor, a Logout":                              {rec: successor, prev: "s.2", there: end(2, "s.9", endedLogout)},
		"successor, a pair of an earlier version":          {rec: successor, prev: "s.2", there: generation(0, "s.9")},
		"successor, an older pair":                         {rec: successor, prev: "s.2", there: generation(1, "s.1"), want: true, loss: true},
		"successor, another session":                       {rec: successor, prev: "s.2", there: generation(1, "x.1")},
		"successor, nothing":                               {rec: successor, prev: "s.2", want: true, loss: true},
		"successor, nothing, after a week":                 {rec: successor, prev: "s.2", age: rememberedFor, loss: true},
		"login, what it replaces":                          {rec: login, prev: "s.2", there: generation(2, "s.2"), want: true},
		"login, a refresh of what it replaces":             {rec: login, prev: "s.2", there: generation(3, "s.4"), want: true},
		"login, an end of what it replaces":                {rec: login, prev: "s.2", there: end(2, "s.4", endedReused), want: true},
		"login, a Logout that it replaces":                 {rec: login, prev: "s.2", there: end(2, "s.2", endedLogout), want: true},
		"login, a Logout after it":                         {rec: login, prev: "s.2", there: end(2, "s.4", endedLogout)},
		"login, its own Logout":                            {rec: login, prev: "s.2", there: generation(1, "new.1").loggedOut(noon)},
		"login, another login":                             {rec: login, prev: "s.2", there: generation(1, "x.1")},
		"login, itself with a claim":                       {rec: login, prev: "s.2", there: claim(1, "new.2")},
		"login, nothing":                                   {rec: login, prev: "s.2", want: true},
		"first login, nothing":                             {rec: first, want: true},
		"first login, nothing, after a week":               {rec: first, age: rememberedFor},
		"first login, another login":                       {rec: first, there: generation(1, "x.1")},
		"first login, a Logout":                            {rec: first, there: generation(1, "x.1").loggedOut(noon)},
		"claim given back, the claim":                      {rec: released, prev: "s.2", there: claim(2, "s.2"), want: true},
		"claim given back, a takeover":                     {rec: released, prev: "s.2", there: claim(2, "s.9")},
		"claim given back, the pair after it":              {rec: released, prev: "s.2", there: generation(3, "s.9")},
		"rotation of a login, the Logout before the login": {rec: &Record{Version: "new.3", Generation: 2, Replaces: login.Replaces, Token: pairOf("2")}, prev: "new.2", there: end(2, "s.4", endedLogout), want: true, loss: true},
		"earlier version, what it replaces":                {rec: old, prev: "s.2", there: generation(0, "s.2"), want: true},
		"earlier version, another record":                  {rec: old, prev: "s.2", there: generation(0, "s.1")},
		"earlier version, nothing":                         {rec: old, prev: "s.2", loss: true},
	} {
		t.Run(name, func(t *testing.T) {
			e := &entry{Prev: c.prev, Saved: noon.Add(-c.age), Record: c.rec}
			if got := e.isAhead(c.there, noon); got != c.want {
				t.Errorf("the entry is newer: %t, want %t", got, c.want)
			}
			if got := e.showsLoss(c.there); got != c.loss {
				t.Errorf("the store has gone back: %t, want %t", got, c.loss)
			}
		})
	}
}

func TestDamagedEntryIsNotRead(t *testing.T) {
	j := &journal{dir: t.TempDir()}
	e := j.newEntry("a", generation(3, "s.3"), "s.2")
	path := e.path
	good, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	claimed := generation(3, "s.3")
	claimed.RefreshStarted = noon
	claim, err := json.Marshal(j.newEntry("a", claimed, "s.2"))
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"empty":           "",
		"cut off":         string(good[:len(good)/2]),
		"zeros":           strings.Repeat("\x00", len(good)),
		"other JSON":      "{}",
		"null":            "null",
		"another key":     strings.Replace(string(good), `"key":"YQ=="`, `"key":"Yg=="`, 1),
		"another version": strings.Replace(string(good), `"s.3"`, `"s.4"`, 1),
		"another prev":    strings.Replace(string(good), `"s.2"`, `"s.1"`, 1),
		"no version":      strings.Replace(string(good), `"s.3"`, `""`, 1),
		"no time":         strings.Replace(string(good), `"saved"`, `"sent"`, 1),
		"no tokens":       strings.Replace(string(good), `"token"`, `"tokens"`, 1),
		"a claim":         string(claim),
	} {
		if content == string(good) {
			t.Fatalf("%s: the file is not damaged", name)
		}
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(content), 0o600)); err != nil {
			t.Fatal(err)
		}
		if e, err := read(path); err != errDamagedEntry {
			t.Errorf("%s: got entry %v and error %v, want errDamagedEntry", name, e, err)
		}
	}
	if err := os.WriteFile(path, good, 0o600); err != nil {
		t.Fatal(err)
	}
	if e, err := read(path); err != nil || e.Prev != "s.2" || e.Record.Generation != 3 {
		t.Errorf("got entry %v and error %v, want the entry", e, err)
	}
}
