// Package torture proves a store, and the rotation protocol on it, by force:
// processes share sessions whose tokens live for a moment, and are killed at
// random, as are their connections to the store. Everything that anybody did is
// written into a ledger, and the ledger is checked against what the module
// promises.
//
// torture.go is what a test calls, supervisor.go starts and kills, child.go is
// what it kills, ledger.go remembers, and check.go judges.
package torture

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/fincodeauth/fincodeauth"
)

// Main is to be called by TestMain. In a process that Run started it is the
// child, on the store that open makes of Config.Spec; otherwise it runs the
// tests. It does not return.
func Main(m *testing.M, open func(spec string) (fincodeauth.Store, error)) {
	if order := os.Getenv(orderVariable); order != "" {
		if err := obey(order, open); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// Config says what to torture. All but Cut is required.
type Config struct {
	Store fincodeauth.Store // the supervisor's, which nobody cuts off
	Spec  string            // from which a child opens the same store

	Children       int
	Goroutines     int // in each of them
	Sessions       int
	Duration       time.Duration
	KillEvery      time.Duration // on average
	RefreshTimeout time.Duration

	// Cut terminates some of the children's connections to the store. nil: they
	// last.
	Cut      func(context.Context) error
	CutEvery time.Duration // on average
}

const (
	lifetime = time.Second           // of an access token
	latency  = 20 * time.Millisecond // of a refresh before the rotation, and again after it
	pause    = 80 * time.Millisecond // on average between two requests of a goroutine
	patience = 20 * time.Second      // of a request

	// shown is how many broken promises are printed.
	shown = 10
)

// Run does what cfg says, prints what happened, and fails t for every promise
// that was broken.
func Run(t *testing.T, cfg Config) {
	t.Helper()
	s := newSupervisor(cfg)
	s.run(t.Context())
	r := newRun(s.ledger.entries(), cfg.RefreshTimeout)
	t.Logf("%d sessions in %d processes of %d goroutines, for %v\n%s%s",
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
		t.Errorf("%d rotations and %d kills are too few to show anything", r.rotations(), len(r.killed))
	}
}
