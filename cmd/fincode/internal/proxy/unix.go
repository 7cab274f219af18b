package proxy

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"time"
)

// socketMode lets nobody else connect.
const socketMode = 0o600

// unix opens a Unix socket. There is no moment at which it has another mode, or at which
// the path has no socket although it had one: the socket is made in a folder that only
// this user can open, gets its mode, and is then renamed to path.
func (o *opener) unix(path string) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("--unix %s: %w", path, err)
		}
	}()
	if runtime.GOOS == "windows" {
		return errors.New("on Windows, other users could open the socket: use --listen")
	}
	// Two proxies that start at once must not both find a dead socket and replace it.
	unlock, err := lockFolder(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer unlock()
	if err := mayReplace(path); err != nil {
		return err
	}
	folder, err := os.MkdirTemp(filepath.Dir(path), ".") // its mode is 0700
	if err != nil {
		return fmt.Errorf("%w: choose a folder that exists, and that this user may write to", err)
	}
	defer os.RemoveAll(folder)
	place := filepath.Join(folder, "s")
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: place, Net: "unix"})
	if err != nil {
		return fmt.Errorf("%w: choose a shorter path: about 90 characters are allowed", errors.Unwrap(err))
	}
	listener.SetUnlinkOnClose(false) // it would remove place
	info, err := publish(place, path)
	if err != nil {
		listener.Close()
		return err
	}
	o.opened = append(o.opened, &removing{newPeers(listener, o.logger), path, info})
	return nil
}

// publish gives the socket its mode and its path.
func publish(place, path string) (fs.FileInfo, error) {
	if err := os.Chmod(place, socketMode); err != nil {
		return nil, err
	}
	if err := os.Rename(place, path); err != nil {
		return nil, err
	}
	return os.Lstat(path)
}

// mayReplace returns an error unless there is nothing at path, or a socket on which
// nobody listens.
func mayReplace(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return errors.New("there is a file of another kind: remove it, or choose another path")
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		conn.Close()
	}
	if err == nil || !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("%w, perhaps by another fincode proxy: stop that, or choose another path", ErrInUse)
	}
	return nil
}

// A removing is a listener that removes its socket when it is closed, unless somebody
// has replaced the socket.
type removing struct {
	net.Listener
	path string
	mine fs.FileInfo
}

func (r *removing) Close() error {
	if now, err := os.Lstat(r.path); err == nil && os.SameFile(now, r.mine) {
		os.Remove(r.path)
	}
	return r.Listener.Close()
}

// Addr returns the address with the path that clients use.
func (r *removing) Addr() net.Addr { return &net.UnixAddr{Name: r.path, Net: "unix"} }

// A peers is a listener that accepts only connections of the user who runs the proxy,
// and of root. It asks the operating system who has connected. Where that is not
// possible (all but Linux and macOS), the mode of the socket alone protects it.
type peers struct {
	*net.UnixListener
	allowed func(uid int) bool
	logger  *slog.Logger
}

func newPeers(l *net.UnixListener, logger *slog.Logger) *peers {
	return &peers{l, allowedFor(os.Geteuid()), logger}
}

// allowedFor returns who may connect to a proxy that the user own runs.
func allowedFor(own int) func(uid int) bool {
	return func(uid int) bool { return uid == own || uid == 0 }
}

func (p *peers) Accept() (net.Conn, error) {
	for {
		conn, err := p.AcceptUnix()
		if err != nil {
			return nil, err
		}
		uid, err := peerOf(conn)
		if err == nil && p.allowed(uid) || errors.Is(err, errors.ErrUnsupported) {
			return conn, nil
		}
		conn.Close()
		if err != nil {
			p.logger.Warn("a connection was refused, because nobody knows whose it is", "error", err)
		} else {
			p.logger.Warn("a connection of another user was refused", "uid", uid)
		}
	}
}
