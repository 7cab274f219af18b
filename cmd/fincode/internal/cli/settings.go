package cli

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/adrg/xdg"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/spf13/viper"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/cmd/fincode/internal/failure"
	"github.com/fincodeauth/fincodeauth/cmd/fincode/internal/profile"
)

// settings are the flags that all commands have.
type settings struct {
	profile string
	state   string // folder
	config  string // file
	tenant  string
	url     string
	session string
	store   string
	plain   bool

	refreshTimeout time.Duration
}

func (s *settings) register(flags *pflag.FlagSet) {
	flags.StringVarP(&s.profile, "profile", "p", profile.Default, "name of the profile; each has one session")
	flags.StringVar(&s.state, "state", "", "folder for profiles and sessions (default: fincode in the user's state folder)")
	flags.StringVar(&s.config, "config", "", "file with flags, in YAML, TOML or JSON (default: fincode/config.yaml in the user's configuration folder, if it exists)")
	flags.StringVar(&s.tenant, "tenant", "", "tenant of FinCode's sandbox: acme means https://acme.fincode.software/api/v6/services")
	flags.StringVar(&s.url, "url", "", "base URL of FinCode, instead of a tenant")
	flags.StringVar(&s.session, "session", "", "key of the session in the store (default: the profile's name)")
	flags.StringVar(&s.store, "store", "", "store that is shared with others: postgres://…, redis://…, etcd://…, kubernetes://namespace or dir:/folder (default: a folder of the profile)")
	flags.BoolVar(&s.plain, "plain", false, "tokens in the store are not encrypted, because whoever shares it does not use Encrypt")
	flags.DurationVar(&s.refreshTimeout, "refresh-timeout", 15*time.Second, "limit of each call to the store, and of each call for tokens; a process that has died during a refresh holds up the others for twice this long")
}

// complete sets the flags that the command line leaves out: from the environment, then
// from the configuration file. The variable of --token-life is FINCODE_TOKEN_LIFE.
func (s *settings) complete(cmd *cobra.Command, getenv func(string) string) error {
	file, err := s.readConfig(cmd, getenv)
	if err != nil {
		return err
	}
	fromEnvironment := func(f *pflag.Flag) (string, any) { return variable(f.Name), getenv(variable(f.Name)) }
	fromFile := func(f *pflag.Flag) (string, any) { return s.config + ": " + f.Name, file.Get(f.Name) }
	for _, source := range []func(*pflag.Flag) (string, any){fromEnvironment, fromFile} {
		if err := setFlags(cmd, source); err != nil {
			return err
		}
	}
	return s.check()
}

// rivals are flags that say one thing in two ways. Whoever sets one on the command line
// does not want the other one of the environment.
var rivals = map[string]string{"tenant": "url", "url": "tenant", "listen": "unix", "unix": "listen"}

// setFlags sets those flags from source that are not set yet. source returns where a value
// comes from, and the value; nil or "": there is none.
func setFlags(cmd *cobra.Command, source func(*pflag.Flag) (name string, value any)) error {
	var open []*pflag.Flag // decided before the first one is set: two rivals in one source are a mistake
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		rival := cmd.Flags().Lookup(rivals[f.Name])
		if !f.Changed && isSetting(f.Name) && (rival == nil || !rival.Changed) {
			open = append(open, f)
		}
	})
	for _, f := range open {
		name, value := source(f)
		if value == nil || value == "" {
			continue
		}
		if err := setFlag(f, value); err != nil {
			return &failure.Error{Status: failure.Usage, Err: fmt.Errorf("%s: %w", name, err), Do: "see " + cmd.CommandPath() + " --help"}
		}
		f.Changed = true
	}
	return nil
}

// setFlag sets a flag to a text, or to a value of the configuration file. Its error does not
// show the value, which may be a secret at a wrong place.
func setFlag(f *pflag.Flag, value any) error {
	many, takesMany := f.Value.(pflag.SliceValue)
	switch value := value.(type) {
	case []any:
		if !takesMany {
			return errors.New("give one value, not a list")
		}
		texts := make([]string, len(value))
		for i, element := range value {
			texts[i] = fmt.Sprint(element)
		}
		return many.Replace(texts)
	case map[string]any:
		return errors.New("give one value, not several with names")
	}
	text := fmt.Sprint(value)
	if f.Value.Type() == "stringArray" { // its elements may have commas
		return many.Replace(strings.Split(text, "\n"))
	}
	err := f.Value.Set(text)
	if want, ok := wanted[f.Value.Type()]; ok && err != nil {
		return errors.New("want " + want)
	}
	return err
}

// wanted says what the flags of a type accept.
var wanted = map[string]string{
	"bool": "true or false", "duration": "a duration, such as 30s",
	"int": "a number", "int64": "a number", "uint": "a number", "float64": "a number",
}

// check refuses what no command can use, and completes what has no constant default.
func (s *settings) check() error {
	if s.state == "" {
		s.state = filepath.Join(xdg.StateHome, "fincode")
	}
	if err := profile.CheckName(s.profile); err != nil {
		return err
	}
	if s.tenant != "" && s.url != "" {
		return failure.New(failure.Usage, "--tenant and --url both say where FinCode is: leave one out")
	}
	if s.tenant != "" {
		if !tenants.MatchString(s.tenant) {
			return failure.New(failure.Usage, "--tenant %q: give a name without a domain, such as acme, or use --url", s.tenant)
		}
		s.url = fincodeauth.Sandbox(s.tenant)
	}
	return profile.CheckStore(s.store)
}

// tenants are the names that a tenant may have: those of a DNS label (RFC 1123).
var tenants = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$`)

// variable returns the environment variable of a flag.
func variable(flag string) string {
	return "FINCODE_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// notSettings are flags that cannot come from the environment or the file: config names the
// file itself, all would end every session although the command line names none, and the
// others say what to do this once.
var notSettings = []string{"all", "config", "data", "header", "help", "include", "json", "output", "version", "watch", "yes"}

// isSetting reports whether a flag may come from the environment or the file.
func isSetting(flag string) bool { return !slices.Contains(notSettings, flag) }

// nested separates the names of a nested key, instead of a dot, which a name may have.
const nested = "\x00"

// readConfig reads the configuration file. Without a file, it returns an empty one.
func (s *settings) readConfig(cmd *cobra.Command, getenv func(string) string) (*viper.Viper, error) {
	v := viper.NewWithOptions(viper.KeyDelimiter(nested))
	s.config = cmp.Or(s.config, getenv(variable("config")))
	if s.config == "" {
		s.config = filepath.Join(xdg.ConfigHome, "fincode", "config.yaml")
		if _, err := os.Stat(s.config); errors.Is(err, fs.ErrNotExist) {
			return v, nil
		}
	}
	v.SetConfigFile(s.config)
	if err := v.ReadInConfig(); err != nil {
		return nil, s.explain(err)
	}
	known := flagNames(cmd.Root())
	for _, key := range slices.Sorted(slices.Values(v.AllKeys())) {
		if !slices.Contains(known, key) {
			return nil, failure.New(failure.Usage, "the configuration file %s: it cannot have %q: use the names of flags, such as profile", s.config, strings.ReplaceAll(key, nested, "."))
		}
	}
	return v, nil
}

// explain says why the configuration file cannot be read. The parsers' errors may quote the
// file, which may hold a password.
func (s *settings) explain(err error) error {
	e := &failure.Error{Status: failure.Usage, Err: fmt.Errorf("the configuration file %s: %w", s.config, err)}
	if _, ok := errors.AsType[viper.UnsupportedConfigError](err); ok {
		e.Err = fmt.Errorf("the configuration file %s: its name says no format", s.config)
		e.Do = "let it end in .yaml, .toml or .json"
	}
	if _, ok := errors.AsType[viper.ConfigParseError](err); ok {
		format := strings.ToUpper(strings.TrimPrefix(filepath.Ext(s.config), "."))
		e.Err = fmt.Errorf("the configuration file %s: this is not %s%s", s.config, format, lineOf(err))
		e.Do = "write the names of flags and their values, such as profile: production in YAML"
	}
	return e
}

// lineOf returns where a parser found a mistake; "": it does not say.
func lineOf(err error) string {
	if line := regexp.MustCompile(`\bline \d+`).FindString(err.Error()); line != "" {
		return " (" + line + ")"
	}
	return ""
}

// flagNames returns the names of all flags of cmd and of its subcommands that may be set
// in a file.
func flagNames(cmd *cobra.Command) (names []string) {
	add := func(f *pflag.Flag) {
		if isSetting(f.Name) {
			names = append(names, f.Name)
		}
	}
	if hasSettings(cmd) || !cmd.HasParent() {
		cmd.PersistentFlags().VisitAll(add)
		cmd.Flags().VisitAll(add)
	}
	for _, sub := range cmd.Commands() {
		names = append(names, flagNames(sub)...)
	}
	return names
}
