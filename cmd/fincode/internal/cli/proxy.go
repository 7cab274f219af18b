package cli

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/cmd/fincode/internal/failure"
	"github.com/fincodeauth/fincodeauth/cmd/fincode/internal/page"
	"github.com/fincodeauth/fincodeauth/cmd/fincode/internal/proxy"
	"github.com/fincodeauth/fincodeauth/cmd/fincode/internal/proxykey"
)

type proxyOptions struct {
	proxy.Addresses
	proxy.Config
	keyFile   string
	keepAlive time.Duration
	logFormat string
	logLevel  string
}

func (a *app) proxyCommand() *cobra.Command {
	var o proxyOptions
	c := &cobra.Command{
		Use:   "proxy",
		Short: "Add the session's token to the requests of local programs",
		Long: `proxy listens on this machine, and forwards requests to FinCode with the session's
token and FinCode's headers. So a program in any language needs another base URL, and
the proxy's key: as "Authorization: Bearer KEY", or as the password in
http://fincode:KEY@127.0.0.1:8080. Without --key-file, it makes a key and prints it once.

/-/ is a status page for browsers. /-/startup, /-/liveness and /-/readiness are probes
that need no key, and /-/metrics is for Prometheus.

After SIGTERM, /-/readiness says no for --min-sigterm-delay. Then no connection is
accepted, and open requests may end until --max-sigterm-delay. A second signal ends it.`,
		Example: `  fincode proxy
  fincode proxy --listen 127.0.0.1:9000 --key-file proxy.key --read-only
  fincode proxy --unix /run/user/1000/fincode.sock --accept-paths ^/payments/`,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.proxy(cmd.Context(), o) },
	}
	f := c.Flags()
	f.StringSliceVar(&o.TCP, "listen", nil, "addresses to listen on; port 0: any free one (default: the sockets of systemd, or "+proxy.DefaultAddress+")")
	f.StringSliceVar(&o.Unix, "unix", nil, "paths of Unix sockets to listen on, for this user only")
	f.BoolVar(&o.AllowRemote, "allow-remote", false, "listen on addresses that other machines can reach; put TLS before the proxy")
	f.StringSliceVar(&o.AllowedHosts, "allowed-hosts", nil, "further names in the Host header, with or without a port")
	f.StringVar(&o.keyFile, "key-file", "", "file with the key that each request needs (default: a new key is made and printed)")
	f.StringSliceVar(&o.AcceptPaths, "accept-paths", nil, "regular expressions: forward matching paths only, such as ^/payments/")
	f.StringSliceVar(&o.RejectPaths, "reject-paths", nil, "regular expressions: refuse matching paths")
	f.StringSliceVar(&o.RejectMethods, "reject-methods", nil, "regular expressions: refuse matching methods, such as ^DELETE$")
	f.BoolVar(&o.ReadOnly, "read-only", false, "forward GET, HEAD and OPTIONS only")
	f.Int64Var(&o.MaxReplayBody, "max-replay-body", proxy.DefaultMaxReplayBody, "bytes of a body that are kept, to send it again after a 401; 0: none")
	f.DurationVar(&o.MinSigtermDelay, "min-sigterm-delay", 0, "how long to go on after SIGTERM, such as 2s")
	f.DurationVar(&o.MaxSigtermDelay, "max-sigterm-delay", 10*time.Second, "how long after SIGTERM open requests may end; 0: they are cut off")
	f.DurationVar(&o.keepAlive, "keep-alive", 12*time.Hour, "refresh a session that was not used for this long; 0: never")
	f.StringVar(&o.logFormat, "log-format", "text", "text or json")
	f.StringVar(&o.logLevel, "log-level", "info", "debug, info, warn or error")
	return c
}

// proxy opens the session, and tells the log, the metrics and the page what happens to it.
func (a *app) proxy(ctx context.Context, o proxyOptions) (err error) {
	cfg := o.Config
	if cfg.Logger, err = a.logger(o.logFormat, o.logLevel); err != nil {
		return err
	}
	key, text, err := a.proxyKey(o.keyFile)
	if err != nil {
		return err
	}
	p, err := a.profile()
	if err != nil {
		return err
	}
	if cfg.Metrics, err = proxy.NewMetrics(p.URL); err != nil {
		return failure.Wrap(failure.Usage, err)
	}
	earlier, err := a.earlierEvents(p) // before this process adds its own
	if err != nil {
		cfg.Logger.Warn("the status page begins without earlier events", "error", err)
	}
	var shown latePage
	s, err := a.openProfile(ctx, p, false,
		tap{observe: fincodeauth.LogEvents(cfg.Logger)}, tap{observe: cfg.Metrics.Observe, base: cfg.Metrics.Base}, tap{observe: shown.observe})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close(ctx)) }()
	status := page.New(page.Config{Sessions: s.Sessions, Keys: []string{s.key}, Profile: p.Name, BaseURL: p.URL, Key: key, Version: version(), Earlier: earlier})
	defer status.Close()
	shown.Store(status)
	cfg.Sessions, cfg.Session, cfg.BaseURL, cfg.Key = s.Sessions, s.key, p.URL, key
	cfg.Page, cfg.Observe = status, status.ObserveRequest
	return a.proxySession(ctx, s, cfg, o, text)
}

// A latePage shows the events of Sessions that are made before the page.
type latePage struct{ atomic.Pointer[page.Page] }

func (l *latePage) observe(e fincodeauth.Event) {
	if shown := l.Load(); shown != nil {
		shown.Observe(e)
	}
}

// proxySession proxies until a signal. text is as for serve.
func (a *app) proxySession(ctx context.Context, s *session, cfg proxy.Config, o proxyOptions, text string) error {
	handler, err := proxy.New(cfg)
	if err != nil {
		return failure.Wrap(failure.Usage, err)
	}
	stop, err := cfg.Metrics.Watch(s.Sessions)
	if err != nil {
		return err
	}
	defer stop()
	defer keepAlive(ctx, s, o.keepAlive, cfg.Logger)()
	return a.serve(ctx, handler, o.Addresses, text, cfg.Logger)
}

// serve listens, says where, and serves until a signal. text is the key if it must be
// printed; "": the user has it.
func (a *app) serve(ctx context.Context, handler *proxy.Proxy, addresses proxy.Addresses, text string, logger *slog.Logger) error {
	listeners, err := proxy.Listen(ctx, addresses, logger)
	switch {
	case errors.Is(err, proxy.ErrInUse):
		return failure.Wrap(failure.Other, err)
	case err != nil:
		return failure.Wrap(failure.Usage, err)
	}
	for _, l := range listeners {
		a.sayListening(l, text)
	}
	// ctx ends with the first signal, and the proxy goes on.
	err = handler.Serve(context.WithoutCancel(ctx), listeners)
	if cut, ok := errors.AsType[*proxy.CutError](err); ok {
		logger.Warn(cut.Error())
		return nil
	}
	return err
}

// sayListening says how to reach the proxy.
func (a *app) sayListening(l net.Listener, key string) {
	address := l.Addr().String()
	if l.Addr().Network() == "unix" {
		fmt.Fprintf(a.Out, "Listening on unix:%s\n", address)
	} else {
		fmt.Fprintf(a.Out, "Listening on http://%s\n", address)
	}
	if key == "" {
		return
	}
	fmt.Fprintf(a.Out, "Key: %s\n", key)
	if l.Addr().Network() != "unix" {
		fmt.Fprintf(a.Out, "Status page: http://%s/-/#key=%s\n", address, key)
	}
}

// proxyKey returns the key of the file. Without a file, it makes one, and returns its text.
func (a *app) proxyKey(file string) (key proxykey.Key, text string, err error) {
	if file != "" {
		key, err = proxykey.Read(file)
		return key, "", failure.Wrap(failure.Usage, err)
	}
	if a.Getenv("JOURNAL_STREAM") != "" {
		return key, "", failure.New(failure.Usage, "the new key would be in the journal of systemd: make a file with (umask 077; openssl rand -hex 32 >FILE), and use --key-file FILE")
	}
	key, text = proxykey.New()
	return key, text, nil
}

// keepAlive refreshes the session if nobody uses it. stop ends that.
func keepAlive(ctx context.Context, s *session, every time.Duration, logger *slog.Logger) (stop func()) {
	if every <= 0 {
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := s.KeepAlive(ctx, every, onlyKey(s.key)); err != nil && ctx.Err() == nil {
			logger.Error("an unused session is not refreshed any more", "error", err)
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

func (a *app) logger(format, minimum string) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(minimum)); err != nil {
		return nil, failure.New(failure.Usage, "--log-level %q: use debug, info, warn or error", minimum)
	}
	options := &slog.HandlerOptions{Level: level}
	switch strings.ToLower(format) {
	case "text":
		return slog.New(slog.NewTextHandler(a.Err, options)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(a.Err, options)), nil
	}
	return nil, failure.New(failure.Usage, "--log-format %q: use text or json", format)
}

func onlyKey(key string) func(context.Context) iter.Seq2[string, error] {
	return func(context.Context) iter.Seq2[string, error] {
		return func(yield func(string, error) bool) { yield(key, nil) }
	}
}
