package secret

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// childVariable makes the test program a process that does one thing with a key: the D-Bus
// library keeps its connection for as long as the process lives, so each use is a process.
const childVariable = "SECRET_TEST_CHILD"

func TestMain(m *testing.M) {
	if what := os.Getenv(childVariable); what != "" {
		child(what, os.Getenv("SECRET_TEST_DIR"))
		return
	}
	os.Exit(m.Run())
}

// child prints where the key is, and a hash of it.
func child(what, dir string) {
	f := folder{dir, time.Second}
	ctx := context.Background()
	var keys [][]byte
	var place Place
	var err error
	switch what {
	case "find":
		keys, place, err = f.find(ctx, os.Getenv)
	case "make":
		keys, place, err = f.findOrMake(ctx, os.Getenv)
	}
	if err != nil {
		fmt.Print("error: ", err)
		return
	}
	fmt.Printf("%v %x", place, sha256.Sum256([]byte(fmt.Sprint(keys))))
}

// inProcess runs a child, and returns what it printed.
func inProcess(t *testing.T, env []string, what, dir string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), childVariable + "=" + what, "SECRET_TEST_DIR=" + dir, "GORACE=atexit_sleep_ms=0"}, env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", what, err, out)
	}
	return string(out)
}

// wantText fails the test if got lacks one of the texts.
func wantText(t *testing.T, got string, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if !strings.Contains(got, text) {
			t.Errorf("got %q, want %q in it", got, text)
		}
	}
}
