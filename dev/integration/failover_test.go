package integration

import (
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"
)

// A failover says how the primary is lost.
type failover struct {
	name  string
	users []any // who cannot reach the primary any more

	// clients can still reach the primary until the replica is promoted. If they
	// cannot, the primary dies before.
	clients bool
}

var failovers = []failover{
	// The replica is behind when the primary dies. The clients notice that the
	// store is gone.
	{name: "PrimaryDies", users: []any{replicaUser}},
	// The primary acknowledges writes until the clients hear of the promotion. They
	// need not notice more than a connection that closes.
	{name: "PrimaryIsCutOff", users: []any{replicaUser, sentinelUser}, clients: true},
}

// enough is how many writes of tokens must be lost in a failover, and how many sessions
// must work before it.
const enough = 5

// TestRedisFailover makes one failover after another under processes that live through
// all of them. In each, the primary acknowledges writes that are lost. Where FinCode
// only refuses a token that was used, no session may be lost. FINCODEAUTH_FAILOVERS
// says how many failovers there are for each case, instead of 2, or 1 with -short.
func TestRedisFailover(t *testing.T) {
	rounds := 2
	if testing.Short() {
		rounds = 1
	}
	if text := os.Getenv("FINCODEAUTH_FAILOVERS"); text != "" {
		var err error
		if rounds, err = strconv.Atoi(text); err != nil || rounds < 1 {
			t.Fatalf("FINCODEAUTH_FAILOVERS is %q; give a number, such as 10", text)
		}
	}
	for _, fincode := range reuseAnswers {
		for _, how := range failovers {
			t.Run(fincode.name+"/"+how.name, func(t *testing.T) {
				t.Parallel() // most of the time it waits
				testFailovers(t, fincode, how, rounds)
			})
		}
	}
}

func testFailovers(t *testing.T, fincode reuseAnswer, how failover, rounds int) {
	p := startPair(t)
	sh := shared{Database: "Sentinel", Address: p.sentinel.addr, Name: unique("fincodeauth_test_") + ":"}
	l := newLiving(t, sh, fincode.cfg)
	began := time.Now()
	made := 0
	for range rounds {
		time.Sleep(2 * livingLifetime) // so that every session was refreshed since the last failover
		if n := l.working(); n < enough {
			t.Logf("no more failovers: %d sessions still work", n)
			break
		}
		made++
		happened := p.failOver(t, l, how, sh.Name)
		t.Logf("failover %d: %v", made, happened)
		if happened.rotations == 0 {
			t.Errorf("failover %d lost no acknowledged rotation, so it shows nothing", made)
		}
	}
	if made < rounds {
		t.Errorf("%d failovers, want %d", made, rounds)
	}
	time.Sleep(2 * livingLifetime)
	took := time.Since(began).Round(time.Second)
	gone := l.end(t)
	t.Logf("%d failovers in %v\n%s", made, took, l.summary())
	if n := p.promotions() - made; n > 0 {
		t.Logf("Sentinel made %d more failovers by itself:\n%s", n, p.sentinel.lastLines(200))
	}
	l.report(t, gone, l.restart(t), fincode.most)
}

// A loss is what a failover took back.
type loss struct {
	rotations    int // acknowledged by the old primary, and not known to the new one
	sessions     int // whose rotations these are
	writes       int // all that were acknowledged and lost
	promoted     time.Duration
	replicaAgain time.Duration
}

func (l loss) String() string {
	return fmt.Sprintf("%d rotations of %d sessions were acknowledged and lost, in at least %d Saves; promoted after %v, a new replica after %v",
		l.rotations, l.sessions, l.writes, l.promoted.Round(time.Millisecond), l.replicaAgain.Round(time.Millisecond))
}

// failOver makes one failover. At the end, the old primary is a replica of the new one.
func (p *pair) failOver(t *testing.T, l *living, how failover, prefix string) loss {
	t.Helper()
	old, next := p.settle(t)
	cut := time.Now()
	cutOff(t, old, how.users...)
	eventually(t, "the replica has lost the primary", func() bool { return linkIs(t, next, "down") })
	before := generations(t, next, prefix, l.keys)
	deaf := time.Now() // what is acknowledged from now on is lost
	eventually(t, "the primary acknowledges writes that its replica does not get", func() bool {
		_, unclaimed := l.acknowledged(deaf, time.Now())
		return unclaimed >= enough
	})
	var lost loss
	if how.clients {
		lost.writes, _ = l.acknowledged(deaf, p.awaitPromotion(t, next))
	}
	after := generations(t, old, prefix, l.keys)
	if !how.clients {
		lost.writes, _ = l.acknowledged(deaf, time.Now())
	}
	for key, n := range after {
		if n > before[key] {
			lost.rotations += n - before[key]
			lost.sessions++
		}
	}
	old.kill()
	p.awaitPromotion(t, next)
	lost.promoted = time.Since(cut)
	p.follow(t, old, next)
	lost.replicaAgain = time.Since(cut)
	return lost
}
