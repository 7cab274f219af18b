package cli

import (
	"context"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/fincodeauth/fincodeauth/cmd/fincode/internal/failure"
	"github.com/fincodeauth/fincodeauth/cmd/fincode/internal/proxy"
)

func (a *app) waitCommand() *cobra.Command {
	var listen, unix []string
	var timeout time.Duration
	c := &cobra.Command{
		Use:   "wait",
		Short: "Wait until the proxy serves",
		Long: `wait returns as soon as the proxy serves. It looks at --listen or --unix, which the
environment and the configuration file may set for the proxy, too.`,
		Example: `  fincode wait --timeout 10s && python3 report.py`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			addresses, err := proxyAddresses(listen, unix)
			if err != nil {
				return err
			}
			return waitFor(cmd.Context(), addresses, timeout)
		},
	}
	c.Flags().StringSliceVar(&listen, "listen", nil, "addresses of the proxy (default: "+proxy.DefaultAddress+")")
	c.Flags().StringSliceVar(&unix, "unix", nil, "paths of its Unix sockets")
	c.Flags().DurationVar(&timeout, "timeout", 30*time.Second, "how long to wait")
	return c
}

// waitFor waits for the proxies at all addresses.
func waitFor(ctx context.Context, addresses []string, timeout time.Duration) error {
	waiting, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	for _, address := range addresses {
		if err := proxy.Wait(waiting, address); err != nil && ctx.Err() == nil {
			return failure.Wrap(failure.Other, err)
		}
	}
	return ctx.Err()
}

// proxyAddresses returns where the proxy listens, in the form that proxy.Wait wants: a path
// has a slash.
func proxyAddresses(listen, unix []string) ([]string, error) {
	if len(listen)+len(unix) == 0 {
		return []string{proxy.DefaultAddress}, nil
	}
	addresses := slices.Clone(listen)
	for _, path := range unix {
		whole, err := filepath.Abs(path)
		if err != nil {
			return nil, failure.Wrap(failure.Local, err)
		}
		addresses = append(addresses, whole)
	}
	return addresses, nil
}
