package cli

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/fincodeauth/fincodeauth/cmd/fincode/internal/failure"
	"github.com/fincodeauth/fincodeauth/cmd/fincode/internal/proxy"
)

// manual returns docs/command.md.
func manual(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../../../docs/command.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// foreign are the flags in the document that belong to other programs: useradd, install,
// systemctl, curl.
var foreign = map[string]bool{"system": true, "home-dir": true, "shell": true, "now": true, "unix-socket": true}

// commandsOf returns c and all commands below it.
func commandsOf(c *cobra.Command) []*cobra.Command {
	all := []*cobra.Command{c}
	for _, sub := range c.Commands() {
		all = append(all, commandsOf(sub)...)
	}
	return all
}

func TestDocumentNamesOnlyFlagsThatExist(t *testing.T) {
	known := map[string]bool{"help": true}
	for _, c := range commandsOf((&app{}).root()) {
		add := func(f *pflag.Flag) { known[f.Name] = true }
		c.Flags().VisitAll(add)
		c.PersistentFlags().VisitAll(add)
	}
	for _, match := range regexp.MustCompile(`(?:^|[\s\x60(])--([a-z][a-z-]*)`).FindAllStringSubmatch(manual(t), -1) {
		if name := match[1]; !known[name] && !foreign[name] {
			t.Errorf("docs/command.md names --%s, which no command has", name)
		}
	}
}

func TestDocumentNamesEachCommandAndFlag(t *testing.T) {
	text := manual(t)
	for _, c := range commandsOf((&app{}).root()) {
		if c.Parent() != nil && c.Parent().HasParent() {
			continue // of completion, whose help is cobra's
		}
		if !strings.Contains(text, strings.TrimSpace(c.CommandPath())) {
			t.Errorf("docs/command.md does not name %s", c.CommandPath())
		}
		named := func(f *pflag.Flag) {
			long, short := regexp.MustCompile(`--`+f.Name+`\b`), regexp.MustCompile("[ `]-"+f.Shorthand+" ")
			if f.Name != "help" && !long.MatchString(text) && (f.Shorthand == "" || !short.MatchString(text)) {
				t.Errorf("docs/command.md does not name --%s of %s", f.Name, c.CommandPath())
			}
		}
		c.Flags().VisitAll(named)
		c.PersistentFlags().VisitAll(named)
	}
}

func TestDocumentHasEachExitStatus(t *testing.T) {
	text := manual(t)
	for _, status := range []failure.Status{0, failure.Other, failure.Usage, failure.LoginNeeded, failure.LoginRefused, failure.Local,
		failure.Unreachable, failure.HTTP, failure.Interrupted, failure.NoReader} {
		if !strings.Contains(text, fmt.Sprintf("\n| %d |", status)) {
			t.Errorf("the table of docs/command.md lacks the exit status %d", status)
		}
	}
}

// Each flag is shown with its default, which is written as the document writes it.
func TestDocumentHasTheDefaults(t *testing.T) {
	text := strings.Join(strings.Fields(manual(t)), " ") // lines break anywhere
	for _, want := range []struct{ command, flag, value, words string }{
		{"status", "profile", "default", "`default` if you have one"},
		{"status", "refresh-timeout", "15s", "`--refresh-timeout` (15 s)"},
		{"proxy", "keep-alive", "12h0m0s", "`--keep-alive` (12 h by default"},
		{"proxy", "max-replay-body", "1048576", "(1 MiB by default"},
		{"proxy", "min-sigterm-delay", "0s", "By default, the first is 0"},
		{"proxy", "max-sigterm-delay", "10s", "and the second 10 s"},
		{"proxy", "log-level", "info", "`info` is the default"},
		{"wait", "timeout", "30s", "(30 s by default)"},
		{"call", "timeout", "0s", "by default it takes as long as it takes"},
		{"sandbox", "addr", "127.0.0.1:9801", "`127.0.0.1:9801` by default"},
	} {
		c, _, err := (&app{}).root().Find([]string{want.command})
		if err != nil {
			t.Fatal(err)
		}
		c.InheritedFlags() // adds them to Flags
		if f := c.Flags().Lookup(want.flag); f.DefValue != want.value {
			t.Errorf("--%s of %s is %s by default, and docs/command.md says %q", f.Name, want.command, f.DefValue, want.words)
		}
		if !strings.Contains(text, want.words) {
			t.Errorf("docs/command.md does not say %q", want.words)
		}
	}
	if !strings.Contains(text, "listens on `"+proxy.DefaultAddress+"`") {
		t.Errorf("docs/command.md does not say that the proxy listens on %s", proxy.DefaultAddress)
	}
}
