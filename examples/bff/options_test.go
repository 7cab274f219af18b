package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

func TestHelpIsNoFailureAndDoesNotPrintThePasswordOfTheDatabase(t *testing.T) {
	cmd := exec.Command(os.Args[0], "-h")
	cmd.Env = append(os.Environ(), replicaVariable+"=1", "DATABASE_URL=postgres://bff:secret@db.example.com/bff")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v:\n%s", err, out)
	}
	if text := string(out); !strings.Contains(text, "DATABASE_URL") || strings.Contains(text, "secret") || strings.Contains(text, "failed") {
		t.Errorf("-h prints:\n%s", out)
	}
}

func TestPlainHTTPIsForThisMachineOnly(t *testing.T) {
	for _, args := range []string{
		"-listen 0.0.0.0:8080",
		"-listen :8080",
		"-listen 10.0.0.1:8080",
		"-listen 0.0.0.0:8080 -public-url http://app.example.com",
		"-public-url https://",
		"-public-url https://app.example.com/path",
	} {
		if _, err := parseOptions(strings.Fields(args), noEnv); err == nil {
			t.Errorf("%s: no error", args)
		}
	}
	for _, args := range []string{
		"",
		"-listen localhost:80",
		"-listen [::1]:80",
		"-listen :8080 -public-url https://app.example.com",
	} {
		if _, err := parseOptions(strings.Fields(args), noEnv); err != nil {
			t.Errorf("%s: %v", args, err)
		}
	}
}

func TestCallsForTokensCannotBeShown(t *testing.T) {
	if _, err := parseOptions([]string{"-account", "/securitymanagement/login"}, noEnv); err == nil {
		t.Error("no error")
	}
}

func TestCallsForTokensCannotBeProxied(t *testing.T) {
	for _, list := range []string{"PUT /securitymanagement/login", "GET /a, GET /SecurityManagement", "GET", "GET a", "/a"} {
		if _, err := parseOptions([]string{"-proxy", list}, noEnv); err == nil {
			t.Errorf("-proxy %q: no error", list)
		}
	}
}

func TestEachFinCodeHasAFolderOfItsOwn(t *testing.T) {
	dirs := make(map[string]bool)
	for _, url := range []string{"", "https://a.fincode.software/api/v6/services", "https://b.fincode.software/api/v6/services"} {
		opts, err := parseOptions([]string{"-url", url}, noEnv)
		if err != nil {
			t.Fatal(err)
		}
		dirs[opts.dir] = true
	}
	if len(dirs) != 3 {
		t.Errorf("the folders are %v", dirs)
	}
}
