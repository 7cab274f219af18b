package integration

import (
	"strings"
	"testing"
	"time"

	"github.com/fincodeauth/fincodeauth/fincodetest"
)

const (
	idleSessions = 100
	idleEvery    = 6 * time.Second  // of KeepAlive
	idleLimit    = 12 * time.Second // of an unused refresh token; a takeover takes 3 s of it
	idleFor      = 5 * idleEvery
	idleKill     = 4 * time.Second // between two kills
)

// Nobody uses the sessions. Three processes keep them alive, of which one is killed again
// and again, at any instruction, and replaced.
func TestIdleSessionsOutliveTheProcessesThatKeepThemAlive(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	tab := openTable(t, postgres, postgresURL)
	order := childOrder{Store: shared{Database: postgres.name, Address: postgresURL, Name: tab.name}, KeepAlive: idleEvery}
	l := newIdle(t, order.Store, idleSessions, fincodetest.Config{RefreshLifetime: idleLimit})
	order.BaseURL = l.fincode.URL
	for range livingChildren {
		l.startChild(t, order)
	}
	began, kills := time.Now(), 0
	for time.Since(began) < idleFor {
		time.Sleep(idleKill)
		victim := l.children[0]
		if err := victim.cmd.Process.Kill(); err != nil {
			<-victim.ended
			t.Fatalf("%v: the child ended by itself with %v: %s %v", err, victim.err, &victim.stderr, l.figures.failed)
		}
		<-victim.ended
		l.children = l.children[1:]
		kills++
		l.startChild(t, order)
	}
	_ = l.end(t) // nobody looks for tokens

	// A kill between the rotation and the save costs a session. Nothing else may.
	interrupted, alive := 0, 0
	for _, key := range l.keys {
		rec, err := l.store.Load(t.Context(), key)
		switch {
		case err != nil:
			t.Error(err)
		case strings.Contains(rec.Ended, "after an interruption"):
			interrupted++
		case rec.Ended != "":
			t.Errorf("session %s has ended: %s", key, rec.Ended)
		default:
			alive++
		}
	}
	counts, least := l.fincode.Counts(), idleSessions*int(time.Since(began)/idleEvery)
	t.Logf("%d of %d sessions are alive, %d were interrupted by %d kills; %d rotations, at least %d were needed", alive, idleSessions, interrupted, kills, counts.Refreshes, least)
	if interrupted > kills || counts.Rejected != 0 || counts.Reuses > interrupted {
		t.Errorf("%d sessions were interrupted by %d kills; FinCode got %+v", interrupted, kills, counts)
	}
	if counts.Refreshes < least*9/10 || counts.Refreshes > least*13/10 {
		t.Errorf("FinCode rotated %d times, want about %d", counts.Refreshes, least)
	}
	for text, n := range l.figures.failed {
		t.Errorf("KeepAlive returned %q in %d processes", text, n)
	}
}
