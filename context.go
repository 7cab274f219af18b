package fincodeauth

import (
	"context"
	"fmt"
	"sync/atomic"
)

// WithSession returns a context that names the session under key. A Transport or a
// TokenSource that was made for the key "" uses that session. One that was made for
// another key ignores it. The context remembers where it found the session, so use
// one context for many requests of one user, if you can.
func WithSession(ctx context.Context, key string) context.Context {
	return &sessionContext{Context: ctx, place: place{key: key}}
}

// A sessionContext is like a context.WithValue whose value is a place. It costs one
// allocation less.
type sessionContext struct {
	context.Context
	place place
}

type sessionKey struct{}

// Value implements context.Context.
func (c *sessionContext) Value(key any) any {
	if key == (sessionKey{}) {
		return &c.place
	}
	return c.Context.Value(key)
}

// String describes the context in the way of package context.
func (c *sessionContext) String() string {
	parent := fmt.Sprintf("%T", c.Context)
	if named, ok := c.Context.(fmt.Stringer); ok {
		parent = named.String()
	}
	return fmt.Sprintf("%s.WithSession(%q)", parent, c.place.key)
}

// Format prints what String returns, for every verb. Printing the fields would race
// with requests.
func (c *sessionContext) Format(f fmt.State, _ rune) { fmt.Fprint(f, c.String()) }

// A place names a session, and remembers where that session was found.
type place struct {
	key   string
	found atomic.Pointer[session]
}
