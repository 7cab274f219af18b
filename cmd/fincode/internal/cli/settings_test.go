package cli

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/fincodeauth/fincodeauth/fincodetest"
)

// eachSetting calls f for each flag of each command that the environment and the file can
// set.
func eachSetting(t *testing.T, f func(t *testing.T, path []string, flag *pflag.Flag)) {
	var visit func(c *cobra.Command, path []string)
	visit = func(c *cobra.Command, path []string) {
		for _, sub := range c.Commands() {
			visit(sub, append(slices.Clone(path), sub.Name()))
		}
		if !hasSettings(c) {
			return
		}
		c.InheritedFlags() // adds them to Flags
		c.Flags().VisitAll(func(flag *pflag.Flag) {
			if isSetting(flag.Name) {
				t.Run(strings.Join(path, " ")+" --"+flag.Name, func(t *testing.T) { f(t, path, flag) })
			}
		})
	}
	visit((&app{}).root(), nil)
}

// A settingSample has values of a flag: as a text on the command line, in the environment
// and in a file, and how the flag shows them.
type settingSample struct{ text, file, want string }

// samplesOf returns three different values for a flag: for the command line, the
// environment and the file.
func samplesOf(t *testing.T, flag *pflag.Flag) [3]settingSample {
	t.Helper()
	switch flag.Name { // flags of which check accepts some values alone
	case "store":
		return [3]settingSample{{"dir:/a", `"dir:/a"`, "dir:/a"}, {"dir:/b", `"dir:/b"`, "dir:/b"}, {"dir:/c", `"dir:/c"`, "dir:/c"}}
	}
	switch kind := flag.Value.Type(); kind {
	case "string":
		return [3]settingSample{{"a", `"a"`, "a"}, {"b", `"b"`, "b"}, {"c", `"c"`, "c"}}
	case "bool": // its default is false
		return [3]settingSample{{"false", "false", "false"}, {"true", "true", "true"}, {"true", "true", "true"}}
	case "duration":
		return [3]settingSample{{"1s", `"1s"`, "1s"}, {"2s", `"2s"`, "2s"}, {"1m", `"1m"`, "1m0s"}}
	case "stringArray", "stringSlice":
		many := settingSample{"b\nc,d", `["b", "c,d"]`, `[b,"c,d"]`}
		if kind == "stringSlice" {
			many.text = `b,"c,d"`
		}
		return [3]settingSample{{"a", `["a"]`, "[a]"}, many, many}
	case "int", "int64", "uint", "uint16", "float64", "count":
		return [3]settingSample{{"1", "1", "1"}, {"2", "2", "2"}, {"3", "3", "3"}}
	default:
		t.Fatalf("there is no sample of the type %s: add one", kind)
		return [3]settingSample{}
	}
}

// settingsRun completes the settings of a command, and returns how its flag shows itself.
func settingsRun(t *testing.T, path []string, flag, file string, env map[string]string, args ...string) (string, error) {
	t.Helper()
	config := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(config, []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	env = maps.Clone(env)
	if env == nil {
		env = make(map[string]string)
	}
	env["FINCODE_CONFIG"] = config
	a := &app{Process: Process{Getenv: func(name string) string { return env[name] }}}
	root := a.root()
	c, rest, err := root.Find(append(slices.Clone(path), args...))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.ParseFlags(rest); err != nil {
		t.Fatal(err)
	}
	err = a.prepare(c, nil)
	return c.Flags().Lookup(flag).Value.String(), err
}

// TestEveryFlagComesFromTheCommandLineTheEnvironmentOrTheFile, in this order.
func TestEveryFlagComesFromTheCommandLineTheEnvironmentOrTheFile(t *testing.T) {
	eachSetting(t, func(t *testing.T, path []string, flag *pflag.Flag) {
		sample := samplesOf(t, flag)
		file := fmt.Sprintf("%s: %s\n", flag.Name, sample[2].file)
		env := map[string]string{variable(flag.Name): sample[1].text}
		for _, c := range []struct {
			where string
			file  string
			env   map[string]string
			args  []string
			want  string
		}{
			{"file", file, nil, nil, sample[2].want},
			{"file, and an empty variable", file, map[string]string{variable(flag.Name): ""}, nil, sample[2].want},
			{"environment", file, env, nil, sample[1].want},
			{"command line", file, env, []string{"--" + flag.Name + "=" + sample[0].text}, sample[0].want},
		} {
			got, err := settingsRun(t, path, flag.Name, c.file, c.env, c.args...)
			if flag.Name == "tenant" && err == nil { // check has made it a URL
				if url, _ := settingsRun(t, path, "url", c.file, c.env, c.args...); url != "https://"+c.want+".fincode.software/api/v6/services" {
					t.Errorf("%s: the URL is %s", c.where, url)
				}
			}
			if err != nil || got != c.want {
				t.Errorf("from %s: %q, %v; want %q", c.where, got, err, c.want)
			}
		}
	})
}

// TestNoFlagHasAVariableWithAnotherMeaning: a flag --key would read the key of the store.
func TestNoFlagHasAVariableWithAnotherMeaning(t *testing.T) {
	eachSetting(t, func(t *testing.T, _ []string, flag *pflag.Flag) {
		if v := variable(flag.Name); v == "FINCODE_KEY" || v == "FINCODE_PASSWORD" {
			t.Errorf("--%s would be set by %s", flag.Name, v)
		}
	})
}

// TestFlagsWithOneNameHaveOneType: in the file, a name has one value for all commands.
func TestFlagsWithOneNameHaveOneType(t *testing.T) {
	types := make(map[string]string)
	eachSetting(t, func(t *testing.T, _ []string, flag *pflag.Flag) {
		kind := flag.Value.Type()
		if before, ok := types[flag.Name]; ok && before != kind {
			t.Errorf("--%s is a %s here and a %s elsewhere", flag.Name, kind, before)
		}
		types[flag.Name] = kind
	})
}

func TestFlagsOfOtherCommandsInTheFileDoNotDisturb(t *testing.T) {
	b := newLoginBench(t)
	writeFile(t, b.env["FINCODE_CONFIG"], "token-life: 30s\nfault: [refresh:hang-up]\nprofile: one\n")
	b.run("login").wantFailure(t, 2, "no terminal")
}

func TestCommandLineWinsOverARivalOfTheEnvironment(t *testing.T) {
	for _, c := range []struct {
		file string
		env  map[string]string
		args []string
		want string // the URL
	}{
		{"tenant: filed\n", nil, []string{"--url", "https://x"}, "https://x"},
		{"url: https://filed\n", nil, []string{"--tenant", "acme"}, "https://acme.fincode.software/api/v6/services"},
		{"url: https://filed\n", map[string]string{"FINCODE_TENANT": "acme"}, nil, "https://acme.fincode.software/api/v6/services"},
		{"", map[string]string{"FINCODE_URL": "https://env"}, []string{"--tenant", "acme"}, "https://acme.fincode.software/api/v6/services"},
	} {
		if got, err := settingsRun(t, []string{"login"}, "url", c.file, c.env, c.args...); err != nil || got != c.want {
			t.Errorf("%+v: the URL is %q, %v; want %q", c, got, err, c.want)
		}
	}
	for _, c := range []struct {
		env  map[string]string
		args []string
	}{
		{nil, []string{"--tenant", "a", "--url", "https://b"}},
		{map[string]string{"FINCODE_TENANT": "a", "FINCODE_URL": "https://b"}, nil},
	} {
		if _, err := settingsRun(t, []string{"login"}, "url", "", c.env, c.args...); err == nil || !strings.Contains(err.Error(), "leave one out") {
			t.Errorf("%+v: %v, want an error", c, err)
		}
	}
}

func TestConfigurationFileMayBeYAMLOrTOMLOrJSON(t *testing.T) {
	for name, text := range map[string]string{
		"c.yaml": "profile: filed\nplain: true\nfault:\n  - a,b\n", "c.yml": "profile: filed\nplain: yes please\n",
		"c.toml": "profile = \"filed\"\n", "c.json": `{"profile": "filed"}`,
	} {
		b := newLoginBench(t)
		path := filepath.Join(t.TempDir(), name)
		writeFile(t, path, text)
		for _, args := range [][]string{{"login", "--config", path}, {"login"}} {
			if len(args) == 1 {
				b.env["FINCODE_CONFIG"] = path
			}
			r := b.run(args...)
			if name == "c.yml" {
				r.wantFailure(t, 2, path+": plain", "true or false")
			} else {
				r.wantFailure(t, 2, "no terminal")
			}
		}
	}
}

func TestMistakeInTheConfigurationFileIsNamed(t *testing.T) {
	const secret = "postgres://app:s3cret@host/db"
	for name, c := range map[string]struct{ file, text, want string }{
		"unknown name":    {"c.yaml", "profil: x\n", `"profil"`},
		"name with a dot": {"c.yaml", "profile.name: x\n", `"profile.name"`},
		"nested":          {"c.yaml", "profile:\n  name: x\n", `"profile.name"`},
		"empty nested":    {"c.yaml", "profile: {}\n", "profile"},
		"docs":            {"c.yaml", "man: /x\n", `"man"`},
		"list":            {"c.yaml", "profile: [a, b]\n", "not a list"},
		"duration":        {"c.yaml", "token-life: soon\n", "token-life: want a duration"},
		"bool":            {"c.json", `{"plain": "perhaps"}`, "plain"},
		"config":          {"c.yaml", "config: x\n", `"config"`},
		"all":             {"c.yaml", "all: true\n", `"all"`},
		"YAML scalar":     {"c.yaml", secret, "not YAML"},
		"YAML tab":        {"c.yaml", "profile: a\n\tstore: " + secret, "not YAML (line 2)"},
		"JSON":            {"c.json", `{"store": "` + secret, "not JSON"},
		"TOML":            {"c.toml", `store = "` + secret, "not TOML"},
		"no format":       {"c.conf", "profile: x", ".yaml, .toml or .json"},
		"bad store":       {"c.yaml", "store: mysql://app:s3cret@host", "--store"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newLoginBench(t)
			path := filepath.Join(t.TempDir(), c.file)
			writeFile(t, path, c.text)
			r := b.run("sandbox", "--config", path, "--addr", "x")
			r.wantFailure(t, 2, c.want)
			if strings.Contains(r.err, "s3cret") {
				t.Errorf("a password of the file is in %q", r.err)
			}
		})
	}
	b := newLoginBench(t)
	b.run("login", "--config", "/nowhere/c.yaml").wantFailure(t, 2, "/nowhere/c.yaml", "no such file")
	b.run("login", "--config", t.TempDir()).wantFailure(t, 2, "format")
}

// TestBrokenConfigurationFileDoesNotDisturb what a person or a shell needs to go on.
func TestBrokenConfigurationFileDoesNotDisturbHelp(t *testing.T) {
	b := newLoginBench(t)
	b.run(loginArgs(newLoginServer(t, fincodetest.Config{}), "--profile", "production")...).wantSuccess(t)
	writeFile(t, b.env["FINCODE_CONFIG"], "}{")
	b.env["FINCODE_TENANT"] = "not/a/tenant"
	for _, args := range [][]string{nil, {"help"}, {"help", "login"}, {"login", "--help"}, {"version"}, {"--version"}, {"completion", "bash"},
		{"docs", "--man", t.TempDir()}, {"__complete", "login", "--profile", ""}, {"__completeNoDesc", "log"}} {
		if r := b.run(args...); r.status != 0 {
			t.Errorf("%v: status %d, %s", args, r.status, r.err)
		}
	}
}

func TestWrongEnvironmentIsNamedWithoutItsValue(t *testing.T) {
	b := newLoginBench(t)
	b.env["FINCODE_PLAIN"] = "s3cret"
	r := b.run("login")
	r.wantFailure(t, 2, "FINCODE_PLAIN")
	if strings.Contains(r.err, "s3cret") {
		t.Errorf("the value is in %q", r.err)
	}
}
