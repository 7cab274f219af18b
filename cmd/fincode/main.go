// Command fincode logs in to FinCode once, and lets a shell, a cron job or a program in
// any language use the session. docs/command.md describes it.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/redis/go-redis/v9/logging"

	"github.com/fincodeauth/fincodeauth/cmd/fincode/internal/cli"
)

func main() {
	logging.Disable() // of go-redis, which writes to standard error what its errors say, too
	// A pipe that nobody reads must not kill the process: a new token may not be saved yet.
	signal.Ignore(syscall.SIGPIPE)
	// After the first signal, stop restores the default, so a second one kills.
	signals := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // nohup ignores it
		signals = append(signals, syscall.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(context.Background(), signals...)
	context.AfterFunc(ctx, stop)
	os.Exit(cli.Main(ctx, cli.Process{Args: os.Args[1:], In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Getenv: os.Getenv}))
}
