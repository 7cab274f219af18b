package main

import (
	"context"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/fincodeauth/fincodeauth/fincodetest"
)

// asProgram is the environment variable that makes the test binary run as the
// program itself. So with -race, the race detector also watches the program.
const asProgram = "FINCODEAUTH_DEMO_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
	}
	os.Exit(m.Run())
}

func TestDemoKeepsEveryPromise(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	program := exec.CommandContext(ctx, self)
	program.Env = append(os.Environ(), asProgram+"=1")
	out, err := program.CombinedOutput()
	if err != nil {
		t.Fatalf("the program ended with %v:\n%s", err, out)
	}
	if strings.Contains(string(out), "The session is lost") {
		return // the kill came in the one moment that costs the session; the program checked the rest
	}
	for _, row := range []string{
		`requests +[1-9]\d{2,}`,
		`failures +0`,
		`refreshes +[4-9]`,
		`refresh tokens presented twice +0`,
		`longest wait +\S+s`,
		`the folder holds +the session in \d+ bytes, its tokens encrypted`,
	} {
		if !regexp.MustCompile(`(?m)^` + row + `$`).Match(out) {
			t.Errorf("the output has no row %q:\n%s", row, out)
		}
	}
}

func TestOnlyTheKillExcuses(t *testing.T) {
	killedWith := func(first, last int) (r result) {
		r.fincode.Refreshes = lifetimes
		r.killed.firstToken, r.killed.lastToken = first, last
		return r
	}
	twice := func(serial int) []fincodetest.Presentation {
		return []fincodetest.Presentation{{Family: 1, Serial: serial, Times: 2}}
	}
	for name, c := range map[string]struct {
		change func(*result)
		broken int
		lost   bool
	}{
		"nothing happened":                   {func(r *result) {}, 0, false},
		"taken over from the killed":         {func(r *result) { r.presentations = twice(4) }, 0, false},
		"presented twice at another time":    {func(r *result) { r.presentations = twice(2) }, 1, false},
		"presented a third time":             {func(r *result) { r.presentations = twice(4); r.presentations[0].Times = 3 }, 1, false},
		"lost by the kill":                   {func(r *result) { r.presentations = twice(3); r.done.Interrupted = 9; r.fincode.Refreshes = 3 }, 0, true},
		"interrupted without a kill":         {func(r *result) { r.presentations = twice(1); r.done.Interrupted = 9 }, 2, false},
		"a request failed":                   {func(r *result) { r.done.Failures = 1 }, 1, false},
		"a request failed, the session lost": {func(r *result) { r.presentations = twice(3); r.done.Interrupted = 9; r.done.Failures = 1 }, 1, true},
		"too few refreshes":                  {func(r *result) { r.fincode.Refreshes = 3 }, 1, false},
		"the folder is unreadable":           {func(r *result) { r.folderErr = os.ErrPermission }, 1, false},
	} {
		t.Run(name, func(t *testing.T) {
			r := killedWith(3, 4)
			c.change(&r)
			if broken := r.broken(); len(broken) != c.broken || r.lost() != c.lost {
				t.Errorf("broken promises %q, lost %t; want %d broken promises, lost %t", broken, r.lost(), c.broken, c.lost)
			}
		})
	}
}
