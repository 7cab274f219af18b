package etcdstore

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// explain adds to err that the context has ended, or what the user can do.
func (s *Store) explain(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if text := s.advice(err); text != "" {
		err = fmt.Errorf("%s: %w", text, err)
	}
	cause := ctx.Err()
	if cause == nil && status.Code(err) == codes.DeadlineExceeded { // gRPC's timer was faster than the context's
		cause = context.DeadlineExceeded
	}
	if cause != nil && !errors.Is(err, cause) {
		return fmt.Errorf("%w: %w", cause, err)
	}
	return err
}

const (
	noMajority = "a majority of etcd's members must be up and reach each other"
	unknown    = "so a write may or may not have taken effect"
)

// advice says what the user can do about err. It returns "" if that is unknown.
func (s *Store) advice(err error) string {
	is := func(targets ...error) bool {
		return slices.ContainsFunc(targets, func(target error) bool { return errors.Is(err, target) })
	}
	switch code := status.Code(err); {
	case s.client.Ctx().Err() != nil:
		return "the client was closed: keep it open as long as the Store is in use"
	case timedOut(err):
		return "etcd did not answer in time, " + unknown + ": check the client's Endpoints and TLS; " + noMajority
	case is(rpctypes.ErrPermissionDenied):
		return fmt.Sprintf("the client's user needs a role with the permission readwrite on the prefix %q", s.prefix)
	case is(rpctypes.ErrUserEmpty, rpctypes.ErrAuthFailed, rpctypes.ErrInvalidAuthToken, rpctypes.ErrAuthOldRevision, rpctypes.ErrUserNotFound):
		return "etcd does not know who the client is: give the client a Username and Password, or a certificate, that etcd accepts"
	case is(rpctypes.ErrNoSpace):
		return "etcd's database is full: compact and defragment it, or raise --quota-backend-bytes, then run etcdctl alarm disarm"
	case is(rpctypes.ErrNoLeader):
		return "etcd has no leader: " + noMajority
	case is(rpctypes.ErrRequestTooLarge), code == codes.ResourceExhausted: // the latter is the client's own limit
		return "the record is too large for etcd: raise --max-request-bytes, and the client's MaxCallSendMsgSize"
	case is(rpctypes.ErrTimeout, rpctypes.ErrTimeoutDueToLeaderFail, rpctypes.ErrTimeoutDueToConnectionLost,
		rpctypes.ErrTimeoutWaitAppliedIndex, rpctypes.ErrLeaderChanged, rpctypes.ErrUnhealthy):
		return "etcd has lost its leader or is too slow, " + unknown + ": " + noMajority
	case is(rpctypes.ErrStopped), code == codes.Unavailable:
		return "the connection to etcd has failed, " + unknown
	}
	return ""
}
