package proxy

import (
	"context"
	"net"
	"os"
)

// ServeUntil is Serve with signals of a test.
func ServeUntil(ctx context.Context, p *Proxy, listeners []net.Listener, signals <-chan os.Signal) error {
	return p.serve(ctx, listeners, signals)
}

// AllowedFor says who may connect to a Unix socket.
var AllowedFor = allowedFor

// OnlyFor makes a Unix listener accept those who are allowed.
func OnlyFor(l net.Listener, allowed func(uid int) bool) {
	l.(*removing).Listener.(*peers).allowed = allowed
}
