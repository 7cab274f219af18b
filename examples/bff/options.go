package main

import (
	"crypto/rsa"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fincodeauth/fincodeauth"
)

// options are what the flags and the environment say.
type options struct {
	listen      string         // address for browsers
	admin       string         // address for probes and metrics; browsers must not reach it
	publicURL   string         // what users type, https; "": plain http on this machine
	baseURL     string         // of FinCode; "": a FinCode is started in this process
	database    string         // URL of a PostgreSQL; "": the folder
	dir         string         // folder for the key and, without a database, the sessions
	accountPath string         // path at FinCode of what the first page shows
	proxied     []string       // "METHOD /path" that browsers may call below /api
	publicKey   *rsa.PublicKey // encrypts passwords; nil: they are sent as they are, inside TLS
	drain       time.Duration  // between a signal and the end of serving
	saveTimeout time.Duration  // how long a shutdown waits for tokens that are not saved
	poll        time.Duration  // how often the page asks for news
}

func parseOptions(args []string, getenv func(string) string) (options, error) {
	opts := options{poll: 5 * time.Second}
	flags := flag.NewFlagSet("bff", flag.ContinueOnError)
	flags.StringVar(&opts.listen, "listen", "127.0.0.1:8080", "address for browsers; port 0: any free one")
	flags.StringVar(&opts.admin, "admin", "127.0.0.1:8081", "address for /livez, /readyz and /metrics")
	flags.StringVar(&opts.publicURL, "public-url", "", "what users type, such as https://app.example.com; required unless -listen is a loopback address")
	flags.StringVar(&opts.baseURL, "url", "", "FinCode, such as https://tenant.fincode.software/api/v6/services; empty: one in this process")
	flags.StringVar(&opts.database, "database", getenv("DATABASE_URL"), "PostgreSQL, such as postgres://user@host/name; or DATABASE_URL; empty: the folder of -dir")
	flags.StringVar(&opts.dir, "dir", "", "folder for sessions and for a key; empty: one in the user's cache folder")
	flags.StringVar(&opts.accountPath, "account", "/whoami", "path at FinCode whose data the first page shows")
	proxied := flags.String("proxy", "GET /whoami", "what browsers may call below /api, separated by commas")
	publicKey := flags.String("public-key", getenv("FINCODE_PUBLIC_KEY"), "the tenant's RSA key that passwords are encrypted with, in Base64; or FINCODE_PUBLIC_KEY")
	flags.DurationVar(&opts.drain, "drain", 0, "how long to serve after SIGTERM: longer than the load balancer needs to notice /readyz")
	flags.DurationVar(&opts.saveTimeout, "save-timeout", 30*time.Second, "how long a shutdown waits, after the last request, for a store that is down; then the tokens that are not saved are lost")
	flags.Lookup("database").DefValue = "" // DATABASE_URL may hold a password, and -h prints defaults
	if err := flags.Parse(args); err != nil {
		return options{}, err
	}
	if flags.NArg() > 0 {
		return options{}, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	var err error
	if *publicKey != "" {
		if opts.publicKey, err = fincodeauth.ParsePublicKey(*publicKey); err != nil {
			return options{}, err
		}
	}
	if opts.proxied, err = parseProxied(*proxied); err != nil {
		return options{}, err
	}
	if holdsTokens(opts.accountPath) {
		return options{}, fmt.Errorf("-account %q: the answers there hold tokens", opts.accountPath)
	}
	if opts.dir == "" {
		opts.dir = defaultDir(opts.baseURL)
	}
	return opts, checkPublicURL(opts)
}

// secure reports whether browsers use https.
func (o options) secure() bool { return o.publicURL != "" }

// origin returns the origin of publicURL, as browsers write it in a header.
func (o options) origin() string { return strings.TrimRight(o.publicURL, "/") }

// checkPublicURL refuses to serve plain http to other machines: passwords and
// cookies would cross the network in the clear. TLS itself is up to the load
// balancer before this program.
func checkPublicURL(opts options) error {
	if opts.publicURL != "" {
		u, err := url.Parse(opts.publicURL)
		if err != nil || u.Scheme != "https" || u.Host == "" || strings.Trim(u.Path, "/") != "" {
			return fmt.Errorf("-public-url %q: want https:// and a host", opts.publicURL)
		}
		return nil
	}
	host, _, err := net.SplitHostPort(opts.listen)
	if err != nil {
		return fmt.Errorf("-listen: %w", err)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return errors.New("-listen is not a loopback address: set -public-url to the https:// address of your load balancer")
	}
	return nil
}

// parseProxied splits "GET /a, POST /b/{id}". Browsers must not reach FinCode's
// calls for tokens, whose answers hold tokens.
func parseProxied(list string) (patterns []string, err error) {
	for entry := range strings.SplitSeq(list, ",") {
		if entry = strings.TrimSpace(entry); entry == "" {
			continue
		}
		method, path, ok := strings.Cut(entry, " ")
		if path = strings.TrimSpace(path); !ok || method == "" || !strings.HasPrefix(path, "/") {
			return nil, fmt.Errorf("-proxy %q: want a method and a path, such as GET /whoami", entry)
		}
		if holdsTokens(path) {
			return nil, fmt.Errorf("-proxy %q: the answers there hold tokens", entry)
		}
		patterns = append(patterns, method+" "+path)
	}
	return slices.Compact(patterns), nil
}

// defaultDir returns a folder of its own for each FinCode, because a store holds
// the sessions of one tenant.
func defaultDir(baseURL string) string {
	parent, err := os.UserCacheDir()
	if err != nil {
		parent = os.TempDir()
	}
	tenant := "demo"
	if u, err := url.Parse(baseURL); err == nil && u.Host != "" {
		tenant = strings.ReplaceAll(u.Host, ":", "_")
	}
	return filepath.Join(parent, "fincodeauth-bff", tenant)
}
