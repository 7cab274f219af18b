// Package move hands a session over from a version of a program that refreshes by
// itself to one that uses fincodeauth, and back. The old version keeps its tokens in a
// file, as the JSON of an oauth2.Token.
package move

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/oauth2"

	"github.com/fincodeauth/fincodeauth"
)

// Adopt makes a session of the tokens in the file at path. If there is no file, it does
// nothing: the session was adopted before. Only one process can rename the file, and
// nobody finds the tokens at path after that.
func Adopt(ctx context.Context, sessions *fincodeauth.Sessions, key, path string) error {
	taken := path + ".adopted"
	err := os.Rename(path, taken)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = adoptFrom(ctx, sessions, key, taken)
	}
	if err != nil {
		return fmt.Errorf("adopting the tokens: %w; to try again, rename %s to %s", err, taken, path)
	}
	return nil
}

func adoptFrom(ctx context.Context, sessions *fincodeauth.Sessions, key, path string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	tok := new(oauth2.Token)
	if err := json.Unmarshal(data, tok); err != nil {
		return errors.New("the file is not the JSON of tokens") // err may quote them
	}
	return sessions.Adopt(ctx, key, tok)
}

// GiveBack writes the session's tokens to the file at path, for the old version, and
// forgets the session. FinCode is not told, so the tokens stay valid. Call it when
// every process that uses the session was closed. It may be called again after an error.
func GiveBack(ctx context.Context, store fincodeauth.Store, sessions *fincodeauth.Sessions, key, path string) error {
	rec, err := store.Load(ctx, key)
	if err != nil {
		return err
	}
	if rec.Ended != "" || !rec.RefreshStarted.IsZero() {
		return fmt.Errorf("the session cannot be given back: %v", rec)
	}
	data, err := json.Marshal(rec.Token)
	if err != nil {
		return err
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		return err
	}
	return sessions.Forget(ctx, key)
}
