// Package torture tests a store, and the rotation protocol on it, with processes
// that are killed. The processes share sessions whose access tokens live for one
// second. They are killed at random, and so are their connections to the store.
// A ledger records everything that happened. At the end, the ledger is checked
// against what the module promises.
//
//	torture.go     what a test calls
//	supervisor.go  runs FinCode, and kills processes and connections
//	process.go     starts and stops one process
//	child.go       what such a process does
//	ledger.go      the record of what happened
//	check.go       finds the promises that were broken
//	summary.go     prints what happened
package torture

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/fincodeauth/fincodeauth"
)

// Main must be called by TestMain. In a process that Run has started, it does what a
// child does, on the store that open returns for Config.Spec, and does not return. In
// any other process, it runs the tests and returns. When TestMain returns after that,
// the process ends with the result of the tests.
func Main(m *testing.M, open func(spec string) (fincodeauth.Store, error)) {
	if order := os.Getenv(orderVariable); order != "" {
		if err := obey(order, open); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	m.Run()
}

// Config says what to torture. Everything is required, except Cut and CutEvery.
type Config struct {
	Store fincodeauth.Store // for the supervisor; Cut must not cut its connections
	Spec  string            // what a child needs to open the same store

	Children       int // that run at once
	Goroutines     int // in each child
	Sessions       int
	Duration       time.Duration
	KillEvery      time.Duration // on average
	RefreshTimeout time.Duration

	// Cut terminates some of the children's connections to the store. nil:
	// connections are not cut.
	Cut      func(context.Context) error
	CutEvery time.Duration // on average
}

const (
	lifetime = time.Second           // of an access token
	latency  = 20 * time.Millisecond // of a refresh before the rotation, and again after it
	pause    = 80 * time.Millisecond // between two requests of a goroutine, on average
	patience = 20 * time.Second      // the time limit of a request

	// shown is how many broken promises are printed at most.
	shown = 10
)

// Run does what cfg says, and logs what happened. It fails t for every promise
// that was broken, and if too little happened to show anything.
func Run(t *testing.T, cfg Config) {
	t.Helper()
	s := newSupervisor(cfg)
	s.run(t.Context())
	r := newRun(s.ledger.entries(), cfg.RefreshTimeout)
	t.Logf("%d sessions in %d processes with %d goroutines each, for %v\n%s%s",
		cfg.Sessions, cfg.Children, cfg.Goroutines, cfg.Duration, r.summary(), s.summary())
	broken := r.broken()
	for i, b := range broken {
		switch {
		case i >= shown:
		case i > 0 && broken[i-1].key == b.key:
			t.Errorf("%s: %s; see above", b.key, b.text)
		default:
			t.Errorf("%s: %s\n%s", b.key, b.text, r.history(b))
		}
	}
	if len(broken) > shown {
		t.Errorf("and %d more", len(broken)-shown)
	}
	if r.rotations() < cfg.Sessions || len(r.killed) == 0 {
		t.Errorf("only %d rotations and %d kills: too few to show anything", r.rotations(), len(r.killed))
	}
}
