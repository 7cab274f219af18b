package secret

import (
	"context"
	"fmt"
	"time"

	"github.com/zalando/go-keyring"
)

// service is the name of the command's items in the keyring.
const service = "fincode"

// A ring is the operating system's keyring. The library that calls it has no contexts, and
// a D-Bus that hangs would hang it forever. So each call has a goroutine of its own. If the
// wait for it ends early, that goroutine stays behind, and the call may still take effect.
type ring struct {
	ctx      context.Context
	patience time.Duration
}

func (f folder) ring(ctx context.Context) ring { return ring{ctx, f.patience} }

func (r ring) get(account string) (string, error) {
	return r.wait(func() (string, error) { return keyring.Get(service, account) })
}

func (r ring) set(account, text string) error {
	_, err := r.wait(func() (string, error) { return "", keyring.Set(service, account, text) })
	return err
}

func (r ring) delete(account string) error {
	_, err := r.wait(func() (string, error) { return "", keyring.Delete(service, account) })
	return err
}

// wait returns what call returns, or an error if that takes too long.
func (r ring) wait(call func() (string, error)) (string, error) {
	late := fmt.Errorf("no answer within %v", r.patience)
	ctx, cancel := context.WithTimeoutCause(r.ctx, r.patience, late)
	defer cancel()
	type result struct {
		text string
		err  error
	}
	results := make(chan result, 1)
	go func() {
		text, err := call()
		results <- result{text, err}
	}()
	select {
	case got := <-results:
		return got.text, got.err
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}
