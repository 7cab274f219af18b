package profile

import (
	"context"
	"errors"
	"testing"

	"golang.org/x/oauth2"

	"github.com/fincodeauth/fincodeauth"
)

// down is a store that accepts nothing.
type down struct{ *fincodeauth.MemoryStore }

func (down) Save(context.Context, string, *fincodeauth.Record, string) error {
	return errors.New("the store is down")
}

// A flag may name another store for a profile. The file of an unsaved token does not say
// which store it is for.
func TestUnsavedTokenIsSavedInItsOwnStoreOnly(t *testing.T) {
	ctx, key := t.Context(), make([]byte, 32)
	state := At(t.TempDir())
	own := Profile{Name: "default", Store: "dir:" + t.TempDir()}
	other := Profile{Name: "default", Store: "dir:" + t.TempDir()}
	journal, err := fincodeauth.Journal(down{fincodeauth.NewMemoryStore()}, state.JournalFolder(own))
	if err != nil {
		t.Fatal(err)
	}
	store, err := fincodeauth.Encrypt(journal, key)
	if err != nil {
		t.Fatal(err)
	}
	rec := &fincodeauth.Record{Version: "session.1", Generation: 1, Token: &oauth2.Token{RefreshToken: "refresh-1"}}
	if err := store.Save(ctx, "default", rec, ""); err == nil {
		t.Fatal("the store accepted the token, want an error")
	}
	load := func(p Profile) (*fincodeauth.Record, error) {
		opened, err := state.OpenStore(ctx, p, [][]byte{key}, false)
		if err != nil {
			t.Fatal(err)
		}
		defer opened.Close()
		return opened.Store.Load(ctx, "default")
	}
	if rec, err := load(other); !errors.Is(err, fincodeauth.ErrNotFound) {
		t.Errorf("the other store has %v (error %v), want nothing", rec, err)
	}
	if got, err := load(own); err != nil || got.Token.RefreshToken != "refresh-1" {
		t.Errorf("its own store has %v (error %v), want the token", got, err)
	}
}

func TestNewPasswordOfAStoreKeepsItsJournal(t *testing.T) {
	folder := func(store string) string { return At("/state").JournalFolder(Profile{Name: "default", Store: store}) }
	if folder("postgres://app:old@db/app?search_path=a") != folder("postgres://app:new@db/app?search_path=a") {
		t.Error("another password means another journal, want the same")
	}
	if folder("postgres://app@db/app?search_path=a") == folder("postgres://app@db/app?search_path=b") {
		t.Error("two schemas share a journal, want one for each")
	}
}
