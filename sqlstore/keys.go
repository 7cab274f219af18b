package sqlstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"

	"github.com/fincodeauth/fincodeauth"
)

// Keys implements fincodeauth.KeyLister. It reads a thousand keys at a time. If the column
// session of a row is not the key that the row belongs to, Keys yields an error for that
// row, and goes on.
func (s *Store) Keys(ctx context.Context) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		if err := s.check(); err != nil {
			yield("", fmt.Errorf("sqlstore: list keys: %w", err))
			return
		}
		var rows []row
		for last := ""; ; last = rows[len(rows)-1].id {
			var err error
			if rows, err = s.page(ctx, last); err != nil {
				yield("", fmt.Errorf("sqlstore: list keys: %w", s.explain(ctx, err)))
				return
			}
			if len(rows) == 0 {
				return
			}
			for _, r := range rows {
				if !yield(s.key(ctx, r)) {
					return
				}
			}
		}
	}
}

// A row is a row of the table, without its record.
type row struct{ id, session string }

// page returns the rows that follow an id.
func (s *Store) page(ctx context.Context, after string) (rows []row, err error) {
	err = s.retry(ctx, repeatable(), func() error {
		rows, err = s.query(ctx, after)
		return err
	})
	return rows, err
}

func (s *Store) query(ctx context.Context, after string) ([]row, error) {
	found, err := s.db.QueryContext(ctx, s.sql.keys, after)
	if err != nil {
		return nil, err
	}
	defer found.Close()
	var rows []row
	for found.Next() {
		var r row
		if err := found.Scan(&r.id, &r.session); err != nil {
			return nil, err
		}
		rows = append(rows, r)
	}
	return rows, errors.Join(found.Err(), found.Close())
}

// key returns the key of a row.
func (s *Store) key(ctx context.Context, r row) (string, error) {
	if id(r.session) == r.id {
		return r.session, nil
	}
	var version, data string
	var named struct{ Key []byte }
	err := s.retry(ctx, repeatable(), func() error {
		return s.db.QueryRowContext(ctx, s.sql.load, r.id).Scan(&version, &data)
	})
	if err == nil && json.Unmarshal([]byte(data), &named) == nil && id(string(named.Key)) == r.id {
		return string(named.Key), nil
	}
	return "", fmt.Errorf("sqlstore: list keys: the row of table %s with id %s does not name its key: delete the row, or put the key into its column session", s.sql.table, r.id)
}

// encode returns the JSON form of rec. It has the key, too, if the column session cannot
// hold that.
func encode(key string, rec *fincodeauth.Record) ([]byte, error) {
	if legible(key) == key {
		return json.Marshal(rec)
	}
	return json.Marshal(struct {
		*fincodeauth.Record
		Key []byte `json:"key"`
	}{rec, []byte(key)})
}
