package etcdstore

import (
	"context"
	"errors"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	firstTry      = time.Second           // how long repeat waits for the first answer
	electionWait  = 5 * time.Second       // how long once waits for a leader
	electionPause = 25 * time.Millisecond // between two tries
)

// repeat makes a call that may safely reach etcd twice. If a member does not answer, it
// makes the call again, which the client sends to the next member. Each time it waits
// twice as long as before, so that it does not add much to the work of a slow etcd. It
// goes on until ctx ends.
//
// What was sent to a member that hangs may still take effect when the member goes on. A
// read changes nothing. A Save over a version has no effect then, because the version is
// gone for good. But a Delete would remove what was saved meanwhile, and a Save of a new
// record would bring back what was deleted meanwhile: these two are made with once.
func (s *Store) repeat(ctx context.Context, do func(context.Context) error) error {
	return s.once(ctx, func(ctx context.Context) error {
		for limit := firstTry; ; limit *= 2 {
			try, cancel := context.WithTimeout(ctx, limit)
			err := do(try)
			if timedOut(err) {
				<-try.Done() // gRPC's timer may be faster than that of the context
			}
			cancel()
			if !timedOut(err) || ctx.Err() != nil {
				return err
			}
		}
	})
}

// timedOut reports whether there was no answer in time.
func timedOut(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || status.Code(err) == codes.DeadlineExceeded
}

// once makes one call to etcd, and says in its error what the user can do.
//
// A member without a leader refuses the call instead of letting it hang, and has not
// executed it. So it can be made again. The client sends it to the next member, which
// may have a leader. If no member has one, they are electing one.
func (s *Store) once(ctx context.Context, do func(context.Context) error) error {
	for began := time.Now(); ; {
		err := do(clientv3.WithRequireLeader(ctx))
		if !errors.Is(err, rpctypes.ErrNoLeader) || time.Since(began) > electionWait {
			return s.explain(ctx, err)
		}
		select {
		case <-time.After(electionPause):
		case <-ctx.Done():
			return s.explain(ctx, err)
		}
	}
}
