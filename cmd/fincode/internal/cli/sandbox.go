package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fincodeauth/fincodeauth/cmd/fincode/internal/failure"
	"github.com/fincodeauth/fincodeauth/fincodetest"
)

// The user that the sandbox knows.
const (
	sandboxEmail    = "manager@example.com"
	sandboxPassword = "Password@1"
)

func (a *app) sandboxCommand() *cobra.Command {
	var addr string
	var tokenLife time.Duration
	var faults []string
	c := &cobra.Command{
		Use:   "sandbox",
		Short: "Run a FinCode on this machine, to try things with",
		Long: `sandbox runs a FinCode on this machine until it is interrupted. It knows one user,
` + sandboxEmail + ` with the password ` + sandboxPassword + `, and forgets everything
when it ends. Every call answers with the request that it got, and /whoami with the
claims of the access token.

A fault makes calls fail: OPERATION:KIND[:OPTION]...

  OPERATION  login, refresh, logout or api (every other call)
  KIND       own-answer, hang-up, error-status, firewall-page, garbage, truncated,
             oversized or redirect
  OPTION     times=N        the next N calls (default: 1), or times=all
             before=TIME    wait before the call takes effect
             after=TIME     wait between its effect and its answer
             takes-effect   the call takes effect, although another answer is sent
             status=N       of error-status, firewall-page or redirect
             retry-after=N  seconds
             location=URL   of redirect; the last option`,
		Example: `  fincode sandbox
  fincode sandbox --token-life 30s
  fincode sandbox --fault refresh:hang-up:takes-effect --fault api:error-status:status=503:times=2`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			fc, err := newSandbox(tokenLife, faults)
			if err != nil {
				return err
			}
			return a.sandbox(cmd.Context(), addr, fc)
		},
	}
	c.Flags().StringVar(&addr, "addr", "127.0.0.1:9801", "address to listen on, on a loopback interface; port 0: any free one")
	c.Flags().DurationVar(&tokenLife, "token-life", time.Hour, "lifetime of an access token")
	c.Flags().StringArrayVar(&faults, "fault", nil, "make calls fail, such as refresh:hang-up; may be repeated")
	return c
}

// newSandbox returns a FinCode with the user and the faults.
func newSandbox(tokenLife time.Duration, faults []string) (*fincodetest.FinCode, error) {
	if tokenLife <= 0 {
		return nil, failure.New(failure.Usage, "--token-life %v: use a positive duration, such as 30s", tokenLife)
	}
	fc := fincodetest.New(fincodetest.Config{AccessLifetime: tokenLife})
	fc.AddUser(sandboxEmail, sandboxPassword)
	for _, text := range faults {
		f, err := parseFault(text)
		if err != nil {
			return nil, err
		}
		fc.Inject(f.operation, f.times, f.Fault)
	}
	return fc, nil
}

// sandbox serves fc until ctx ends.
func (a *app) sandbox(ctx context.Context, addr string, fc *fincodetest.FinCode) error {
	listener, err := listenLoopback(addr)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: fc, ReadHeaderTimeout: 10 * time.Second}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	url := "http://" + listener.Addr().String() + fincodetest.Root
	fmt.Fprintf(a.Out, "A FinCode listens on %s\n", url)
	fmt.Fprintf(a.Err, "Log in with:\n  FINCODE_PASSWORD=%s fincode login --url %s --email %s\n", sandboxPassword, url, sandboxEmail)
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// listenLoopback listens on an address of this machine that others cannot reach.
func listenLoopback(addr string) (net.Listener, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, failure.New(failure.Usage, "--addr: %w: use an address such as 127.0.0.1:9801", err)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return nil, failure.New(failure.Usage, "--addr %s: the password is known to everybody, so use a loopback address such as 127.0.0.1", addr)
	}
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, &failure.Error{Status: failure.Other, Err: err, Do: "choose another address with --addr"}
	}
	return listener, nil
}

// An injection is a fault and where it goes.
type injection struct {
	fincodetest.Fault
	operation fincodetest.Operation
	times     int
}

var (
	operations = []fincodetest.Operation{fincodetest.Login, fincodetest.Refresh, fincodetest.Logout, fincodetest.API}
	kinds      = map[string]fincodetest.Kind{
		"own-answer": fincodetest.OwnAnswer, "hang-up": fincodetest.HangUp, "error-status": fincodetest.ErrorStatus,
		"firewall-page": fincodetest.FirewallPage, "garbage": fincodetest.Garbage, "truncated": fincodetest.Truncated,
		"oversized": fincodetest.Oversized, "redirect": fincodetest.Redirect,
	}
)

// parseFault reads OPERATION:KIND[:OPTION]...
func parseFault(text string) (injection, error) {
	wrong := func(why string) (injection, error) {
		return injection{}, &failure.Error{Status: failure.Usage, Err: fmt.Errorf("--fault %q: %s", text, why), Do: "see fincode sandbox --help"}
	}
	operation, rest, _ := strings.Cut(text, ":")
	kind, rest, _ := strings.Cut(rest, ":")
	in := injection{times: 1}
	for _, o := range operations {
		if string(o) == operation {
			in.operation = o
		}
	}
	if in.operation == "" {
		return wrong("there is no operation " + strconv.Quote(operation))
	}
	var ok bool
	if in.Kind, ok = kinds[kind]; !ok {
		return wrong("there is no kind " + strconv.Quote(kind))
	}
	options, location, _ := strings.Cut(":"+rest, ":location=") // a URL has colons, too, so it is the last option
	in.Location = location
	for option := range strings.SplitSeq(options, ":") {
		if option == "" {
			continue
		}
		if err := in.set(option); err != nil {
			return wrong(err.Error())
		}
	}
	return in, nil
}

// set reads one option.
func (in *injection) set(option string) (err error) {
	name, value, hasValue := strings.Cut(option, "=")
	switch name {
	case "times":
		in.times, err = positive(value, 1<<30)
		if value == "all" {
			in.times, err = -1, nil
		}
	case "before":
		in.Before, err = wait(value)
	case "after":
		in.After, err = wait(value)
	case "takes-effect":
		in.TakesEffect = true
		if hasValue {
			err = errors.New("it has no value")
		}
	case "status":
		if in.Status, err = positive(value, 999); err != nil || in.Status < 100 {
			err = errors.New("use a number from 100 to 999")
		}
	case "retry-after":
		in.RetryAfter = value
		if value == "" {
			err = errors.New("give a value, such as 5")
		}
	default:
		return fmt.Errorf("there is no option %q", name)
	}
	if err != nil {
		return fmt.Errorf("option %s: %w", name, err)
	}
	return nil
}

// positive reads a number from 1 to most.
func positive(text string, most int) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > most {
		return 0, errors.New("use a positive number, or all")
	}
	return n, nil
}

// wait reads a duration.
func wait(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return 0, errors.New("use a duration, such as 5s")
	}
	return d, nil
}
