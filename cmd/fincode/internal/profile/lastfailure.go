package profile

import (
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"

	"go.uber.org/zap/zapcore"
)

// A lastFailure is the log of a client of etcd. It keeps why the last connection failed, such
// as a certificate that is wrong: the client tries again, and returns only that there was no
// answer in time.
type lastFailure struct{ why atomic.Value }

// of returns err with the reason, if there is one.
func (l *lastFailure) of(err error) error {
	if why, ok := l.why.Load().(string); ok {
		return fmt.Errorf("%w: %s", err, why)
	}
	return err
}

// Write implements zapcore.Core.
func (l *lastFailure) Write(_ zapcore.Entry, fields []zapcore.Field) error {
	for _, f := range fields {
		if err, ok := f.Interface.(error); ok {
			_, quoted, _ := strings.Cut(err.Error(), "connection error: desc = ") // gRPC's words
			if why, err := strconv.Unquote(quoted); err == nil {
				l.why.Store(why)
			}
		}
	}
	return nil
}

// Check implements zapcore.Core.
func (l *lastFailure) Check(e zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	return checked.AddCore(e, l)
}

// Enabled implements zapcore.Core.
func (l *lastFailure) Enabled(level zapcore.Level) bool { return level >= zapcore.WarnLevel }

// With implements zapcore.Core.
func (l *lastFailure) With([]zapcore.Field) zapcore.Core { return l }

// Sync implements zapcore.Core.
func (l *lastFailure) Sync() error { return nil }
