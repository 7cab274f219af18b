package cli

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/fincodeauth/fincodeauth/fincodetest"
)

// With --all-machines, a journal that is missing could make a crash look like a theft.
func TestWhyRefusesAJournalThatIsNotThere(t *testing.T) {
	u := loggedIn(t, fincodetest.Config{})
	got := u.run("why", "--all-machines", "--journal", filepath.Join(t.TempDir(), "none"))
	if got.status != 2 || !strings.Contains(got.err, "--journal") || got.out != "" {
		t.Error(got)
	}
}
