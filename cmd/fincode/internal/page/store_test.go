package page

import (
	"context"
	"sync/atomic"

	"github.com/fincodeauth/fincodeauth"
)

// A moodyStore refuses new tokens while it is told to, and counts the loads.
type moodyStore struct {
	fincodeauth.Store
	mood  atomic.Pointer[error] // what Save returns; nil: it saves them
	loads atomic.Int64
}

func (s *moodyStore) set(err error) {
	if err == nil {
		s.mood.Store(nil)
		return
	}
	s.mood.Store(&err)
}

func (s *moodyStore) Load(ctx context.Context, key string) (*fincodeauth.Record, error) {
	s.loads.Add(1)
	return s.Store.Load(ctx, key)
}

// Save refuses new tokens. It accepts claims, without which no token is presented.
func (s *moodyStore) Save(ctx context.Context, key string, rec *fincodeauth.Record, prev string) error {
	if err := s.mood.Load(); err != nil && rec.RefreshStarted.IsZero() {
		return *err
	}
	return s.Store.Save(ctx, key, rec, prev)
}
