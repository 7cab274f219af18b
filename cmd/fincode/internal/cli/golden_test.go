//go:build unix

package cli

import (
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/fincodeauth/fincodeauth/fincodetest"
)

func TestGoldenHelp(t *testing.T) {
	u := newUser(t, fincodetest.Config{})
	var show func(*cobra.Command, []string)
	show = func(c *cobra.Command, path []string) {
		got := u.want(0, append(path, "--help")...)
		if got.err != "" || strings.Contains(got.out, "\x1b") {
			t.Errorf("%v: %v", path, got)
		}
		u.golden(strings.Join(append([]string{"help"}, path...), "-"), got.out)
		for _, sub := range c.Commands() {
			show(sub, append(path[:len(path):len(path)], sub.Name()))
		}
	}
	show((&app{}).root(), nil)
}

// The built command against the built sandbox, over a socket.
func TestGoldenSession(t *testing.T) {
	t.Parallel()
	u := newUser(t, fincodetest.Config{})
	sandbox := u.sandbox("--token-life", "1h")
	u.env["FINCODE_PASSWORD"] = sandboxPassword
	var text strings.Builder
	for _, args := range [][]string{
		{"status"},
		{"login", "--url", sandbox, "--email", sandboxEmail},
		{"status"},
		{"status", "--json"},
		{"call", "GET", "/whoami"},
		{"call", "GET", "/whoami", "-i"},
		{"token", "--json"},
		{"call", "GET", "http://example.com/"},
		{"call", "PUT", "/securitymanagement/login"},
		{"call", "/whoami"},
		{"call", "GET", "/whoami", "--nonsense"},
		{"call", "GET", "/whoami", "--profile", "other"},
		{"forget"},
		{"logout"},
		{"logout"},
		{"call", "GET", "/whoami"},
		{"status", "--all"},
	} {
		got := u.exec(args...)
		text.WriteString("$ fincode " + strings.Join(args, " ") + "\n" + got.out + got.err)
		if got.out != "" && !strings.HasSuffix(got.out, "\n") {
			text.WriteString("\n")
		}
		if got.status != 0 {
			text.WriteString("status " + string('0'+rune(got.status)) + "\n")
		}
	}
	u.golden("session", text.String())
}
