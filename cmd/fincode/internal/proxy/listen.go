package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"syscall"

	"github.com/coreos/go-systemd/v22/activation"
)

// DefaultAddress is where a proxy listens if nobody says where.
const DefaultAddress = "127.0.0.1:8080"

// ErrInUse says that another program listens there.
var ErrInUse = errors.New("the address is in use")

// Addresses are where a proxy listens. The sockets that systemd has opened are added. If
// there is no address and no socket, the proxy listens on DefaultAddress. So leave TCP
// empty unless the user has chosen an address: otherwise a socket of systemd with that
// address is in the way.
type Addresses struct {
	TCP         []string // such as "127.0.0.1:8080"; port 0: any free one
	Unix        []string // paths of Unix sockets
	AllowRemote bool     // other machines may connect; false: loopback addresses only
}

// Listen opens all addresses, or none. It removes the variables LISTEN_FDS and so on from
// the environment. Closing a listener removes its Unix socket. logger must not be nil.
func Listen(ctx context.Context, a Addresses, logger *slog.Logger) (_ []net.Listener, err error) {
	o := opener{ctx: ctx, logger: logger, remote: a.AllowRemote}
	defer func() {
		if err != nil {
			o.close()
		}
	}()
	if err := o.systemd(); err != nil {
		return nil, err
	}
	if len(o.opened)+len(a.TCP)+len(a.Unix) == 0 {
		a.TCP = []string{DefaultAddress}
	}
	for _, address := range a.TCP {
		if err := o.tcp(address); err != nil {
			return nil, err
		}
	}
	for _, path := range a.Unix {
		if err := o.unix(path); err != nil {
			return nil, err
		}
	}
	return o.opened, nil
}

// An opener opens listeners. Only one goroutine uses it.
type opener struct {
	ctx    context.Context
	logger *slog.Logger
	remote bool // Addresses.AllowRemote
	opened []net.Listener
}

func (o *opener) close() {
	for _, l := range o.opened {
		l.Close()
	}
}

// systemd takes over the sockets of systemd.
func (o *opener) systemd() error {
	for _, file := range activation.Files(true) {
		listener, err := net.FileListener(file) // a copy of file
		name := file.Name()
		file.Close()
		if err != nil {
			return fmt.Errorf("the socket %s of systemd: %w: use ListenStream= in the unit of the socket", name, err)
		}
		if unix, ok := listener.(*net.UnixListener); ok {
			unix.SetUnlinkOnClose(false) // systemd keeps it
			listener = newPeers(unix, o.logger)
		}
		o.opened = append(o.opened, listener)
		if tcp, ok := listener.Addr().(*net.TCPAddr); ok {
			if err := o.mayListen(tcp, "the socket "+name+" of systemd"); err != nil {
				return err
			}
		}
	}
	return nil
}

func (o *opener) tcp(address string) error {
	resolved, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		return fmt.Errorf("--listen %s: %w: write it as 127.0.0.1:8080", address, err)
	}
	if err := o.mayListen(resolved, "--listen "+address); err != nil {
		return err
	}
	listener, err := net.ListenTCP("tcp", resolved)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("--listen %s: %w, perhaps by another fincode proxy: stop that, or choose another port, or :0 for any free one", address, ErrInUse)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("--listen %s: this user may not listen there: choose a port above 1023", address)
	case err != nil:
		return fmt.Errorf("--listen %s: %w: choose another address", address, err)
	}
	o.opened = append(o.opened, listener)
	return nil
}

// mayListen returns an error if other machines can reach address and must not.
func (o *opener) mayListen(address *net.TCPAddr, name string) error {
	if address.IP.IsLoopback() {
		return nil
	}
	if !o.remote {
		return fmt.Errorf("%s: other machines could reach this address, and the proxy speaks plain HTTP: use 127.0.0.1, or put TLS before it and use --allow-remote", name)
	}
	o.logger.WarnContext(o.ctx, "other machines can reach the proxy, and it speaks plain HTTP: put TLS before it", "address", address.String())
	return nil
}
