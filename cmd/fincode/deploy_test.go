//go:build unix

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

func TestUnitsOfSystemdAreValid(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		missing(t, err)
	}
	dir := t.TempDir()
	for _, name := range []string{"fincode-proxy.service", "fincode-proxy.socket"} {
		// systemd-analyze looks for the program.
		unit := strings.ReplaceAll(readDeployed(t, name), "/usr/local/bin/fincode", "/bin/true")
		if err := os.WriteFile(filepath.Join(dir, name), []byte(unit), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(analyze, "verify", "--man=no", filepath.Join(dir, name)).CombinedOutput()
		if err != nil || len(out) > 0 {
			t.Errorf("%s: systemd-analyze verify: %v\n%s", name, err, out)
		}
	}
}

func TestFlagsInTheServiceExist(t *testing.T) {
	_, line, ok := strings.Cut(readDeployed(t, "fincode-proxy.service"), "ExecStart=/usr/local/bin/fincode proxy ")
	if !ok {
		t.Fatal("the service does not start the proxy")
	}
	line, _, _ = strings.Cut(line, "\n")
	help, err := exec.Command(buildStatic(t), "proxy", "--help").Output()
	if err != nil {
		t.Fatal(err)
	}
	flags := regexp.MustCompile(`--[a-z-]+`).FindAllString(line, -1)
	if len(flags) == 0 {
		t.Errorf("no flag in %q, want some", line)
	}
	for _, flag := range flags {
		if !strings.Contains(string(help), flag+" ") {
			t.Errorf("the service starts the proxy with %s, which it does not have", flag)
		}
	}
}

// A distroless image has nothing but the program: no libc, no shell, no root.
func TestProgramRunsInAnEmptyRootWithoutRights(t *testing.T) {
	if runtime.GOOS != "linux" || os.Getuid() != 0 {
		t.Skip("only root on Linux can change its root")
	}
	root := t.TempDir()
	if err := os.Chmod(root, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(buildStatic(t), filepath.Join(root, "fincode")); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/fincode", "version")
	cmd.Dir = "/"
	cmd.Env = []string{}
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root, Credential: &syscall.Credential{Uid: 65532, Gid: 65532}}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), "fincode ") {
		t.Errorf("error %v, output %q, want its version", err, out)
	}
}

// buildStatic builds the command as the Containerfile does, and returns its path.
func buildStatic(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fincode")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s", "-o", path, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return path
}

// readDeployed reads a file of the folder deploy.
func readDeployed(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("deploy", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// missing skips the test, unless everything must be there.
func missing(t *testing.T, err error) {
	t.Helper()
	if os.Getenv("FINCODEAUTH_REQUIRE_SERVICES") == "1" {
		t.Fatal(err)
	}
	t.Skip(err)
}
